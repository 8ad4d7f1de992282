"""What a component prints, made harmless for a terminal: control sequences are shown, not obeyed.

Kept: newline, carriage return, tab, and colours (CSI … m, ECMA-48 §8.3.117; dropped where the user wants none).
Everything else that a terminal would act upon (cursor games, title changes, clipboard writes, C1 controls in UTF-8 or
as single bytes, bidirectional overrides) appears escaped, and so does what isn't UTF-8 (RFC 3629): a terminal may take
such a byte for a C1 control. Bytes that go to a file or a pipe are never changed.
"""

from __future__ import annotations

import os
import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

_COLOUR = rb"\x1b\[[0-9;:]{0,32}m"
_HARMLESS = (
    rb"[\xc2-\xdf][\x80-\xbf]"
    rb"|\xe0[\xa0-\xbf][\x80-\xbf]|[\xe1-\xec\xee\xef][\x80-\xbf]{2}|\xed[\x80-\x9f][\x80-\xbf]"
    rb"|\xf0[\x90-\xbf][\x80-\xbf]{2}|[\xf1-\xf3][\x80-\xbf]{3}|\xf4[\x80-\x8f][\x80-\xbf]{2}"
)
"""One character of several bytes (RFC 3629 §4, UTF8-2 to UTF8-4)."""
_CONTROL = (
    rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]"
    rb"|\xc2[\x80-\x9f]"  # C1 controls
    rb"|\xe2\x80[\xaa-\xae]|\xe2\x81[\xa6-\xa9]|\xe2\x80[\x8e\x8f]|\xd8\x9c"  # bidirectional controls (UAX #9)
)
_NOTABLE = re.compile(
    rb"(?P<colour>" + _COLOUR + rb")|(?P<control>" + _CONTROL + rb")|(?:" + _HARMLESS + rb")|(?P<stray>[\x80-\xff])"
)
_PARTIAL = re.compile(
    rb"(?:\x1b(?:\[[0-9;:]{0,32})?"
    rb"|[\xc2-\xdf]"
    rb"|\xe0[\xa0-\xbf]?|[\xe1-\xec\xee\xef][\x80-\xbf]?|\xed[\x80-\x9f]?"
    rb"|\xf0(?:[\x90-\xbf][\x80-\xbf]?)?|[\xf1-\xf3][\x80-\xbf]{0,2}|\xf4(?:[\x80-\x8f][\x80-\xbf]?)?"
    rb")\Z"
)
"""The beginning of something, cut by the end of a chunk."""
_PARTIAL_BYTES_MAX = 34
_COLOURS_LOOKED_AT_BYTES = 136
_COLOURS_AT_END = re.compile(rb"(?:" + _COLOUR + rb")+\Z")
_RESET = b"\x1b[0m"


class TerminalFilter:
    """Filters one stream; a sequence that is cut by a chunk's end waits for the rest."""

    __slots__ = ("_coloured", "_colours", "_held")

    def __init__(self, colours: bool = True) -> None:
        """Let colours through, or without `colours` take them out."""
        self._held = b""
        self._colours = colours
        self._coloured = False

    def feed(self, chunk: bytes) -> bytes:
        """Return what may be written to the terminal now."""
        data = self._held + chunk
        partial = _PARTIAL.search(data, max(0, len(data) - _PARTIAL_BYTES_MAX))
        cut = partial.start() if partial else len(data)
        self._held = data[cut:]
        return _NOTABLE.sub(self._replace, data[:cut])

    def finish(self) -> bytes:
        """Return what was still held, escaped, and end the colours: nothing of the guest's reaches into our lines."""
        held, self._held = self._held, b""
        ending = _RESET if self._coloured else b""
        self._coloured = False
        return _NOTABLE.sub(self._replace, held) + ending

    def _replace(self, match: re.Match[bytes]) -> bytes:
        found = match.group(0)
        kind = match.lastgroup
        if kind is None:
            return found
        if kind == "colour":
            self._coloured = self._colours
            return found if self._colours else b""
        return b"".join(b"\\x%02x" % byte for byte in found)


class TerminalLine:
    """The line that the cursor of one terminal stands in: whether the guest's last byte there has left it unfinished.

    What it can't know (a person's Enter, another process) costs an empty line at most.
    """

    __slots__ = ("_terminal", "_unfinished")

    def __init__(self, terminal: int) -> None:
        """Watch what is written to this terminal, whichever descriptor it goes through."""
        self._terminal = os.fstat(terminal).st_rdev
        self._unfinished = False

    def is_of(self, descriptor: int) -> bool:
        """Whether a descriptor is the same terminal."""
        return os.isatty(descriptor) and os.fstat(descriptor).st_rdev == self._terminal

    def wrote(self, data: bytes) -> None:
        """Note what the guest has written there; a colour at the end moves nothing."""
        text = _COLOURS_AT_END.sub(b"", data[-_COLOURS_LOOKED_AT_BYTES:])
        if text or len(data) > _COLOURS_LOOKED_AT_BYTES:
            # So many colours that nothing else is seen: they may hide half a line.
            self._unfinished = not text.endswith(b"\n")

    def take(self) -> bool:
        """Take the line for something of our own; whether it has to be ended first."""
        unfinished, self._unfinished = self._unfinished, False
        return unfinished


class OwnLines:
    """Standard error for lines of our own: the first of them begins a line, whatever the guest has left there."""

    __slots__ = ("_line", "_stream")

    def __init__(self, stream: TextIO, line: TerminalLine | None) -> None:
        """`line` is that of the terminal that the stream goes to; None where it goes elsewhere."""
        self._stream = stream
        self._line = line

    def write(self, text: str) -> int:
        """Write, at the start of a line the first time after the guest."""
        self.end_line()
        return self._stream.write(text)

    def end_line(self) -> None:
        """End what the guest has left unfinished."""
        if self._line is not None and self._line.take():
            self._stream.write("\n")

    def flush(self) -> None:
        """Flush it."""
        self._stream.flush()

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return self._stream.isatty()


_UNSAFE_TEXT = re.compile(
    "[\x00-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164"
    "\ud800-\udfff\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
"""Controls, what isn't UTF-8, and characters that nobody sees (Unicode, Default_Ignorable_Code_Point)."""


def visible(text: str) -> str:
    """Return a name or message from a component as one harmless line: control and invisible characters escaped."""

    def escape(match: re.Match[str]) -> str:
        code = ord(match.group(0))
        if 0xDC80 <= code <= 0xDCFF:  # a byte that wasn't UTF-8 (PEP 383)
            return f"\\x{code - 0xDC00:02x}"
        if code < 0x100:
            return f"\\x{code:02x}"
        return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"

    return _UNSAFE_TEXT.sub(escape, text)


def columns_of(stream: TextIO) -> int:
    """Return how wide the terminal is that a stream writes to, in columns; 0 where it is none, or doesn't say."""
    try:
        return os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        return 0


def folded(line: str, columns: int, indent: str = " " * 8) -> str:
    """Return a `visible` line on as many as it takes, all but the first indented: what somebody has made long enough
    to go on at a terminal's left edge looks like a line of ours there.

    Only ASCII is known to be one column wide; the rest counts as two, and is broken too early at worst.
    """
    rows = []
    row, used = "", 0
    for character in line:
        width = 1 if character.isascii() else 2
        if used + width > max(columns, 2 * len(indent)):
            blank = row.rfind(" ", len(indent) + 1)
            rows.append(row[:blank] if blank > len(row) // 2 else row)
            row = indent + (row[blank + 1 :] if blank > len(row) // 2 else "")
            used = sum(1 if each.isascii() else 2 for each in row)
        row, used = row + character, used + width
    return "\n".join([*rows, row])
