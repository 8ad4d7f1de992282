"""How a refusal, an error and the summary read for a person, hostile names included."""

from __future__ import annotations

import argparse
import io
import json
import subprocess

import pytest

from ipc.codes import CODES
from ipc.errors import ConfigError
from supervisor.report import (
    MAX_SHOWN_DENIALS,
    DenialPrinter,
    denial_lines,
    ending_lines,
    paint,
    print_error,
    shell_quoted,
    summary_line,
    use_colour,
)
from supervisor.run.report import CpuUse, DecisionTally, Denial, RunReport
from supervisor.run.verdict import LIMIT_CODES, LimitReached, Verdict
from supervisor.terminal import visible

HOSTILE = [
    "/a\nairssys: denied nothing",
    "/\x1b]52;c;eA==\x07",
    "/\x1b[2J\x1b[H",
    "/\u202etxt.exe",
    "/\x9b31m",
    "/\udcff\udc80",
    "/$(id)`id`;&|",
    '/it\'s "quoted"',
    "/back\\nslash\x01",
    "/\\x41\x02",
    "/oct\x017",
    "/-rf *",
    "/\u200b7",
]


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _denial(**fields: object) -> Denial:
    values: dict[str, object] = {
        "action": "filesystem.read",
        "resource": "/home/me/data/x.csv",
        "code": "A1203",
        "reason": "no grant covers it",
        "rule": "",
        "nearest": 'read "/home/me/in/**"',
        "seq": 48211,
        **fields,
    }
    return Denial(**values)  # type: ignore[arg-type]


def test_a_denial_of_a_bare_program() -> None:
    """What, why, and the flag that would allow it: three lines, as the documentation shows them."""
    assert denial_lines(_denial(), bare=True) == [
        "airssys: denied filesystem.read /home/me/data/x.csv [A1203, event 48211]",
        '  no grant covers it; nearest: read "/home/me/in/**"',
        "  to allow: --read /home/me/data/x.csv   or [capabilities.filesystem] read in Component.toml",
    ]


def test_a_denial_that_is_about_nothing_in_particular() -> None:
    """Over a quota everything is refused alike: no name is shown, and no gap where one would be."""
    denial = _denial(action="storage.write", resource="", code="A1501", reason="no room is left", nearest="")
    assert denial_lines(denial, bare=False)[:2] == [
        "airssys: denied storage.write [A1501, event 48211]",
        "  no room is left",
    ]


def test_a_denial_of_a_component() -> None:
    """For a component directory there is no flag: the manifest is what would allow it."""
    lines = denial_lines(_denial(action="filesystem.write", nearest="", seq=0), bare=False)
    assert lines == [
        "airssys: denied filesystem.write /home/me/data/x.csv [A1203]",
        "  no grant covers it",
        "  to allow: [capabilities.filesystem] write in Component.toml",
    ]


@pytest.mark.parametrize(
    ("code", "action"),
    [("A1101", "filesystem.read"), ("A1301", "filesystem.read"), ("A1201", "network.connect"), ("A1701", "")],
)
def test_no_flag_is_offered_that_would_not_help(code: str, action: str) -> None:
    """What is forbidden, or not a file, isn't allowed by a file flag, so none is named."""
    assert not any("to allow" in line for line in denial_lines(_denial(code=code, action=action), bare=True))


def test_a_path_that_climbs_out_is_answered_with_its_absolute_name() -> None:
    """No grant lets `../x` be reached from a mounted directory, but what it means has a name that can be granted."""
    reason = "it leaves the directory that the path starts from, by `..` or by a symbolic link"
    lines = denial_lines(_denial(code="A1204", reason=reason, nearest=""), bare=True)
    assert lines[2:] == ["  to reach it: give the program its absolute name, /home/me/data/x.csv"]
    lines = denial_lines(_denial(code="A1204", reason="a symbolic link to '/x'"), bare=True)
    assert lines[2:] == ["  what can be done: airssys help A1204"]


@pytest.mark.parametrize("bare", [True, False])
def test_each_refusal_says_what_can_be_done(bare: bool) -> None:
    """Of every code a person reads three lines: what, why, and what to do; the page of the code where nothing fits."""
    for code in CODES:
        lines = denial_lines(_denial(code=code), bare)
        assert len(lines) == 3
        assert lines[2].startswith(("  to ", f"  what can be done: airssys help {code}"))


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("field", ["action", "resource", "reason", "nearest", "code"])
def test_a_hostile_denial_keeps_its_lines(name: str, field: str) -> None:
    """Whatever stands in a record, each line stays one line without a control, invisible or bidi character."""
    lines = denial_lines(_denial(**{field: name}), bare=True)
    assert 2 <= len(lines) <= 3
    for line in lines:
        assert len(line.splitlines()) == 1
        assert visible(line) == line
        line.encode()


@pytest.mark.parametrize("name", [*HOSTILE, "/plain", "/with space", "/ä", "/'", "\\"])
def test_a_quoted_name_is_that_name_for_a_shell(name: str) -> None:
    """What a person copies from the advice names exactly the file that was refused (bash reads it back)."""
    quoted = shell_quoted(name)
    assert visible(quoted) == quoted
    command = ["bash", "--norc", "-c", f"printf %s {quoted}"]
    read = subprocess.run(command, capture_output=True, check=True, env={"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"})
    assert read.stdout == name.encode("utf-8", "surrogateescape")


def _tally(count: int) -> DecisionTally:
    tally = DecisionTally("i")
    tally.fresh = [_denial(resource=f"/{n}") for n in range(count)]
    return tally


def test_the_summary_says_how_long_a_run_was_held() -> None:
    """With the quota that it was held for; without a word where it was not."""
    held = RunReport(
        Verdict("exited", 0), 1.0, 10**6, DecisionTally("i"), (), "/log", cpu=CpuUse(2 * 10**8, 2 * 10**8, 81 * 10**7)
    )
    assert "held 0.81 s for its CPU time (200 ms/s)" in summary_line(held, "a")
    free = RunReport(Verdict("exited", 0), 1.0, 10**6, DecisionTally("i"), (), "/log", cpu=CpuUse(7, None, 0))
    assert "held" not in summary_line(free, "a")


def test_at_most_so_many_denials_are_shown() -> None:
    """Twenty distinct refusals are printed, then how many more there were."""
    stream = io.StringIO()
    printer = DenialPrinter(stream, bare=True, quiet=False)
    printer(_tally(15))
    printer(_tally(15))
    printer.finish()
    text = stream.getvalue()
    assert text.count("airssys: denied ") == MAX_SHOWN_DENIALS
    assert "and 10 more denials; airssys audit query --decision denied" in text


def test_no_count_is_printed_when_all_were_shown() -> None:
    """Exactly as many as are shown leave nothing to count."""
    stream = io.StringIO()
    printer = DenialPrinter(stream, bare=True, quiet=False)
    printer(_tally(MAX_SHOWN_DENIALS))
    printer.finish()
    assert "more denials" not in stream.getvalue()


def test_quiet_prints_nothing_and_takes_what_is_fresh() -> None:
    """Quiet means quiet, for any number of refusals; the tally keeps none of them as new."""
    stream = io.StringIO()
    printer = DenialPrinter(stream, bare=True, quiet=True)
    tally = _tally(50)
    printer(tally)
    printer.finish()
    assert stream.getvalue() == ""
    assert tally.fresh == []


def test_colours_only_on_a_terminal_and_never_with_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe gets none, a terminal does, NO_COLOR turns them off (no-color.org: when not empty)."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert paint("x", "31", io.StringIO()) == "x"
    assert paint("x", "31", _Terminal()) == "\x1b[0;31mx\x1b[0m"
    monkeypatch.setenv("NO_COLOR", "")
    assert use_colour(_Terminal())
    monkeypatch.setenv("NO_COLOR", "1")
    assert paint("x", "31", _Terminal()) == "x"


def test_our_colour_ends_the_guests_first() -> None:
    """A line of ours begins with a reset, so that concealed text of a guest doesn't conceal it."""
    assert paint("x", "31", _Terminal()).startswith("\x1b[0;")


def test_an_error_is_told_with_its_hint(capsys: pytest.CaptureFixture[str]) -> None:
    """One line for the error, one for what would mend it, nothing on stdout, and the exit code back."""
    args = argparse.Namespace(json=False)
    assert print_error(ConfigError("bad thing", hint="do this"), "config", 65, args) == 65
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "airssys: bad thing\n  do this\n"


def test_an_error_quotes_nothing_that_acts(capsys: pytest.CaptureFixture[str]) -> None:
    """Several errors keep their lines; a control sequence in one is shown."""
    error = ConfigError("first \x1b[2J\nsecond \u202e", hint="third \r")
    print_error(error, "config", 65, argparse.Namespace())
    assert capsys.readouterr().err == "airssys: first \\x1b[2J\nsecond \\u202e\n  third \\x0d\n"


def test_an_error_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    """With --json an error is one document on stdout, and stderr stays empty."""
    assert print_error(ConfigError("bad \x1b", hint=None), "config", 65, argparse.Namespace(json=True)) == 65
    captured = capsys.readouterr()
    assert captured.err == ""
    assert captured.out.count("\n") == 1
    assert "\x1b" not in captured.out
    assert json.loads(captured.out) == {"error": {"code": "config", "message": "bad \x1b", "hint": None}}


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        (Verdict("exited", 0), "x exited 0 · "),
        (Verdict("exited", 3), "x exited 3 · "),
        (Verdict("trapped", 134), "x trapped · "),
        (Verdict("limit", 75), "x stopped at a limit · "),
        (Verdict("host_error", 70), "x host error · "),
        (Verdict("refused", 77), "x refused · "),
    ],
)
def test_the_summary_is_one_line(verdict: Verdict, words: str) -> None:
    """The last line says how it ended, time, memory, counts and where the audit log is."""
    tally = DecisionTally("i", allowed=12, denied=3)
    line = summary_line(RunReport(verdict, 0.456, 12_300_000, tally, (), "/log"), "x")
    assert words in line
    assert line.endswith(" · 0.46 s · 12.3 MB peak · 12 allowed, 3 denied · /log")
    assert "\n" not in line


def test_a_full_quota_is_told_with_the_flag_that_raises_it() -> None:
    """What a storage quota refused is answered by no grant: the quota is named."""
    denial = Denial("filesystem.write", "/out/a", "A1501", "no room is left", "quota", "", 7, 1)
    assert "  to store more: --storage SIZE   or [quota] storage in Component.toml" in denial_lines(denial, bare=True)


def test_an_ending_says_what_can_be_done() -> None:
    """A limit names the option that raises it, a refusal the page of its code; with --quiet only what ended it."""
    for name, code in LIMIT_CODES.items():
        verdict = Verdict("limit", 75, "too much", code, LimitReached(name, code, 1, 2, "bytes"))
        first, second = ending_lines(verdict, "tool", quiet=False)
        assert first == f"airssys: tool: too much [{code}]"
        fixed = name in ("tables", "instances")
        assert second.startswith(f"  what can be done: airssys help {code}" if fixed else "  to allow more: --")
        assert ending_lines(verdict, "tool", quiet=True) == [first]
    refused = Verdict("refused", 65, "it imports what nothing here provides: env.x", "A3005")
    assert ending_lines(refused, "tool", quiet=False)[1:] == ["  what can be done: airssys help A3005"]
    told = Verdict("refused", 69, "first\nwhat to do", "A3001")
    assert ending_lines(told, "tool", quiet=False) == ["airssys: tool: first [A3001]", "  what to do"]
    assert ending_lines(Verdict("exited", 3, "a message"), "tool", quiet=False) == []
    hostile = ending_lines(Verdict("trapped", 134, "a\x1b[2J\nb\x07"), "tool", quiet=False)
    assert not any("\x1b" in line or "\x07" in line for line in hostile)
