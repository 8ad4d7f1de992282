"""What a component prints, made harmless for a terminal: control sequences are shown, not obeyed.

Kept: newline, carriage return, tab, and colours (CSI … m, ECMA-48 §8.3.117). Everything else that a terminal would act
upon (cursor games, title changes, clipboard writes, C1 controls, bidirectional overrides) appears escaped. Bytes that go
to a file or a pipe are never changed.
"""

from __future__ import annotations

import re

_COLOUR = rb"\x1b\[[0-9;:]{0,32}m"
_HARMFUL = re.compile(
    rb"(?P<colour>" + _COLOUR + rb")"
    rb"|(?P<control>[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]"
    rb"|\xc2[\x80-\x9f]"  # C1 controls in UTF-8
    rb"|\xe2\x80[\xaa-\xae]|\xe2\x81[\xa6-\xa9]|\xe2\x80[\x8e\x8f]|\xd8\x9c)"  # bidirectional controls (UAX #9)
)
_PARTIAL = re.compile(rb"(?:\x1b(?:\[[0-9;:]{0,32})?|\xc2|\xe2(?:\x80|\x81)?|\xd8)\Z")


def _escape(match: re.Match[bytes]) -> bytes:
    if match.group("colour") is not None:
        return match.group(0)
    return b"".join(b"\\x%02x" % byte for byte in match.group(0))


class TerminalFilter:
    """Filters one stream; a sequence that is cut by a chunk's end waits for the rest."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = b""

    def feed(self, chunk: bytes) -> bytes:
        """Return what may be written to the terminal now."""
        data = self._held + chunk
        partial = _PARTIAL.search(data)
        cut = partial.start() if partial else len(data)
        self._held = data[cut:]
        return _HARMFUL.sub(_escape, data[:cut])

    def finish(self) -> bytes:
        """Return what was still held, escaped: an unfinished sequence is not let through."""
        held, self._held = self._held, b""
        return _HARMFUL.sub(_escape, held)


_UNSAFE_TEXT = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff]|[\U000e0000-\U000e0fff]"
)


def visible(text: str) -> str:
    """Return a name or message from a component as one harmless line: controls, bidi and invisible characters escaped."""

    def escape(match: re.Match[str]) -> str:
        code = ord(match.group(0))
        if 0xDC80 <= code <= 0xDCFF:  # a byte that wasn't UTF-8 (PEP 383)
            return f"\\x{code - 0xDC00:02x}"
        if code < 0x100:
            return f"\\x{code:02x}"
        return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"

    return _UNSAFE_TEXT.sub(escape, text)
