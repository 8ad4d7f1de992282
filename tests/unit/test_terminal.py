"""What a component prints to a terminal: attacks are shown instead of obeyed, text and colours stay."""

from __future__ import annotations

import io
import os
import pty

import pytest

from supervisor.run.streams import terminal_filter
from supervisor.terminal import OwnLines, TerminalFilter, TerminalLine, folded, visible

ATTACKS = {
    "clipboard (OSC 52)": b"\x1b]52;c;cm0gLXJmIH4=\x07",
    "clipboard, ended by ST": b"\x1b]52;c;cm0gLXJmIH4=\x1b\\",
    "title": b"\x1b]0;root@host\x07",
    "title report": b"\x1b[21t",
    "hyperlink": b"\x1b]8;;http://evil.example/\x1b\\text\x1b]8;;\x1b\\",
    "cursor up": b"\x1b[10A",
    "cursor home": b"\x1b[H",
    "erase screen": b"\x1b[2J",
    "erase line": b"\x1b[2K",
    "alternate screen": b"\x1b[?1049h",
    "mouse reports": b"\x1b[?1000h",
    "bracketed paste": b"\x1b[?2004h",
    "device attributes": b"\x1b[c",
    "answerback": b"\x05",
    "device control": b'\x1bP$q"p\x1b\\',
    "application command": b"\x1b_Gf=100;AAAA\x1b\\",
    "privacy message": b"\x1b^x\x1b\\",
    "reset": b"\x1bc",
    "charset": b"\x1b(0",
    "shift out": b"\x0e",
    "bell": b"\x07",
    "backspace": b"harmless\x08\x08\x08",
    "delete": b"\x7f",
    "form feed": b"\x0c",
    "vertical tab": b"\x0b",
    "NUL": b"\x00",
    "C1 CSI in UTF-8": b"\xc2\x9b2J",
    "C1 OSC in UTF-8": b"\xc2\x9d52;c;eA==\xc2\x9c",
    "C1 CSI as one byte": b"\x9b2J",
    "C1 OSC as one byte": b"\x9d52;c;eA==\x9c",
    "C1 CSI, overlong": b"\xe0\x82\x9b2J",
    "C1 CSI, overlong in four": b"\xf0\x80\x82\x9b2J",
    "ESC, overlong": b"\xc0\x9b[2J",
    "C1 behind a cut character": b"\xe2\x9b2J",
    "surrogate": b"\xed\xa0\x80",
    "beyond Unicode": b"\xf4\x90\x80\x80",
    "colour that isn't one": b"\x1b[31;1H",
    "colour with an intermediate": b"\x1b[31 m",
    "private colour (xterm's modifyOtherKeys)": b"\x1b[>4;2m",
    "colour without end": b"\x1b[" + b"1;" * 40 + b"m",
    "ESC ESC": b"\x1b\x1b[2J",
    "override": "user\u202egpj.exe".encode(),
    "isolate": "\u2066a\u2069".encode(),
    "mark": "\u200f\u200e\u061c".encode(),
}
HARMLESS = {
    "text": b"hello, world\n",
    "lines": b"a\r\nb\tc\rd\n",
    "umlauts": "äöü ß €\n".encode(),
    "four bytes": "😀 𐍈\n".encode(),
    "CJK and Arabic": "漢字 العربية עברית\n".encode(),
    "no-break space": "a\u00a0b\n".encode(),
    "edges of UTF-8": "\u00a0\u07ff\u0800\ud7ff\ue000\uffff\U00010000\U0010ffff".encode(),
    "dashes beside the bidi controls": "\u2010\u2013\u2014\u2018\u2029\u202f\u2065\u206a".encode(),
}


def _whole(data: bytes) -> bytes:
    terminal = TerminalFilter()
    return terminal.feed(data) + terminal.finish()


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_an_attack_is_shown(attack: bytes) -> None:
    """No byte of a control function is left; what stands in its place is readable."""
    shown = _whole(b"before " + attack + b" after\n")
    assert b"\x1b" not in shown
    text = shown.decode()
    assert visible(text.replace("\n", "")) == text.replace("\n", "")
    assert "\\x" in text
    assert text.startswith("before ")
    assert text.endswith("after\n")


@pytest.mark.parametrize("data", HARMLESS.values(), ids=HARMLESS)
def test_text_is_unchanged(data: bytes) -> None:
    """Text in any script passes byte by byte."""
    assert _whole(data) == data


@pytest.mark.parametrize("colour", [b"\x1b[m", b"\x1b[0m", b"\x1b[1;31m", b"\x1b[38;5;208m", b"\x1b[38:2::1:2:3m"])
def test_colours_stay_and_end(colour: bytes) -> None:
    """A colour passes, and is reset at the end of the stream so that it doesn't reach into what others print."""
    assert _whole(colour + b"x") == colour + b"x\x1b[0m"


def test_concealed_text_ends_with_the_stream() -> None:
    """A guest can't hide what is printed after it: the reset is the last thing of its stream."""
    assert _whole(b"\x1b[8m").endswith(b"\x1b[0m")
    assert not _whole(b"plain").endswith(b"\x1b[0m")


def test_colours_can_be_taken_out() -> None:
    """Where no colours are wanted they vanish, and nothing else passes instead."""
    terminal = TerminalFilter(colours=False)
    assert terminal.feed(b"a\x1b[31mb\x1b[0mc\x1b[2J") + terminal.finish() == b"abc\\x1b[2J"


@pytest.mark.parametrize("data", [*ATTACKS.values(), *HARMLESS.values()], ids=[*ATTACKS, *HARMLESS])
def test_cut_anywhere_gives_the_same(data: bytes) -> None:
    """Cut at any byte, and fed byte by byte, a stream gives what it gives as a whole."""
    data = b"\x1b[31mred" + data + b"\x1b[0m"
    whole = _whole(data)
    for cut in range(len(data) + 1):
        terminal = TerminalFilter()
        assert terminal.feed(data[:cut]) + terminal.feed(data[cut:]) + terminal.finish() == whole
    terminal = TerminalFilter()
    assert b"".join(terminal.feed(data[n : n + 1]) for n in range(len(data))) + terminal.finish() == whole


def test_a_sequence_without_end_is_shown_at_the_end() -> None:
    """What is held back comes out escaped when the stream ends."""
    for held, shown in (
        (b"\x1b", b"\\x1b"),
        (b"\x1b[31", b"\\x1b[31"),
        (b"\xc2", b"\\xc2"),
        (b"\xf0\x9f", b"\\xf0\\x9f"),
    ):
        terminal = TerminalFilter()
        assert terminal.feed(b"a" + held) == b"a"
        assert terminal.finish() == shown
        assert terminal.finish() == b""


def test_little_is_ever_held() -> None:
    """A stream of beginnings can't make the filter keep more than one sequence."""
    terminal = TerminalFilter()
    data = b"\x1b[" + b"1" * 100_000
    assert len(terminal.feed(data)) >= len(data)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ä 漢", "plain ä 漢"),
        ("a\nb", "a\\x0ab"),
        ("\r\t\x00\x7f", "\\x0d\\x09\\x00\\x7f"),
        ("\x1b[31m", "\\x1b[31m"),
        ("\x9b2J", "\\x9b2J"),
        ("\u202eexe", "\\u202eexe"),
        ("a\u200bb\ufeff", "a\\u200bb\\ufeff"),
        ("\u2028\u2029", "\\u2028\\u2029"),
        ("\U000e0041", "\\U000e0041"),
        ("\udc80\udcff", "\\x80\\xff"),
        ("\ud800", "\\ud800"),
        ("", ""),
        ("a\u3164b\uffa0c\u115f", "a\\u3164b\\uffa0c\\u115f"),
        ("a\ufe0fb\u034fc\U0001d173", "a\\ufe0fb\\u034fc\\U0001d173"),
    ],
)
def test_visible(text: str, shown: str) -> None:
    """Controls, bidi, invisible characters and undecodable bytes are escaped; the rest is left alone."""
    assert visible(text) == shown


def test_only_a_terminal_is_filtered(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe and a terminal with raw output get the bytes as they are; NO_COLOR takes the colours out."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    reader, writer = os.pipe()
    primary, terminal = pty.openpty()
    try:
        assert terminal_filter(writer, raw=False) is None
        assert terminal_filter(terminal, raw=True) is None
        coloured = terminal_filter(terminal, raw=False)
        assert coloured is not None
        assert coloured.feed(b"\x1b[31mx") == b"\x1b[31mx"
        monkeypatch.setenv("NO_COLOR", "1")
        plain = terminal_filter(terminal, raw=False)
        assert plain is not None
        assert plain.feed(b"\x1b[31mx") == b"x"
    finally:
        for descriptor in (reader, writer, primary, terminal):
            os.close(descriptor)


@pytest.mark.parametrize(
    ("written", "unfinished"),
    [
        ((), False),
        ((b"half a line",), True),
        ((b"a whole line\n",), False),
        ((b"a whole line\n", b"and a half"), True),
        ((b"half", b" and the rest\n"), False),
        ((b"in red\n\x1b[0m",), False),
        ((b"in \x1b[31mred\x1b[0m",), True),
        ((b"in red\n", b"\x1b[0m\x1b[1m"), False),
        ((b"returned\r",), True),
        ((b"airssys: allowed " + b"\x1b[31m" * 99,), True),
        ((b"a whole line\n", b"\x1b[31m" * 9), False),
    ],
)
def test_a_line_of_ours_begins_a_line(written: tuple[bytes, ...], unfinished: bool) -> None:
    """After half a line of the guest's comes a newline first, once, and no escape code; after a whole one nothing."""
    ours, theirs = os.openpty()
    try:
        line = TerminalLine(theirs)
        for data in written:
            line.wrote(data)
        stream = io.StringIO()
        lines = OwnLines(stream, line)
        print("airssys: one\nairssys: two", file=lines)
        print("airssys: three", file=lines)
        assert stream.getvalue() == "\n" * unfinished + "airssys: one\nairssys: two\nairssys: three\n"
    finally:
        os.close(ours)
        os.close(theirs)


def test_a_line_is_that_of_one_terminal() -> None:
    """The same terminal is known through any descriptor; another one, a pipe or a file is not it."""
    first, second, pipe = os.openpty(), os.openpty(), os.pipe()
    duplicate = os.dup(first[1])
    try:
        line = TerminalLine(first[1])
        assert [line.is_of(d) for d in (first[1], duplicate, second[1], pipe[1])] == [True, True, False, False]
    finally:
        for descriptor in (*first, *second, *pipe, duplicate):
            os.close(descriptor)


@pytest.mark.parametrize("filler", [" ", ".", "x ", "\u6f22", "\u2800", "e\u0301"])
@pytest.mark.parametrize("columns", [1, 40, 80, 200])
def test_no_text_goes_on_at_the_left_edge(filler: str, columns: int) -> None:
    """However long and wide it is, each row but the first is indented, fits, and nothing but blanks is lost."""
    for length in range(0, 300, 7):
        line = filler * length + "[own] read its own files"
        first, *others = folded(line, columns).split("\n")
        assert all(row.startswith(" " * 8) for row in others)
        assert all(sum(1 if c.isascii() else 2 for c in row) <= max(columns, 16) for row in (first, *others))
        assert "".join((first, *others)).replace(" ", "") == line.replace(" ", "")
    assert folded("short", columns) == "short"
