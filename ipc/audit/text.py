r"""Text of foreign origin, made harmless and kept exact.

File names are bytes, and components choose them. In a record every string is written so that a JSON parser of any kind
can read it (no lone surrogates: RFC 8259 §8.2 calls their fate unpredictable) and so that printing what the parser
returns can't drive a terminal:

- `\\` is a backslash
- `\xNN` is a byte that is not UTF-8 (PEP 383 keeps it as U+DCNN)
- `\u{N}` is any other character that isn't printable: controls, bidirectional marks, line separators, unassigned ones

Everything else stands for itself. `unescape(escape(text)) == text` for every Python string.
"""

from __future__ import annotations

import hashlib
import re

_ESCAPE = re.compile(r"\\(?:(\\)|x([0-9a-f]{2})|u\{([0-9a-f]{1,6})\})")


def _visible(character: str) -> str:
    if character == "\\":
        return "\\\\"
    if character.isprintable():
        return character
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return f"\\u{{{code:x}}}"


def escape(text: str) -> str:
    """Return `text` with everything unprintable spelled out, as described above."""
    if text.isprintable() and "\\" not in text:
        return text
    return "".join(map(_visible, text))


def printable(text: str) -> str:
    """Spell out only what could act on a terminal: for text that was escaped already, or that somebody forged."""
    if text.isprintable():
        return text
    return "".join(c if c == "\\" else _visible(c) for c in text)


def _character(match: re.Match[str]) -> str:
    backslash, byte, code = match.groups()
    if backslash is not None:
        return "\\"
    if byte is not None:
        return chr(0xDC00 + int(byte, 16))
    number = int(code, 16)
    return chr(number) if number <= 0x10FFFF else match.group()


def unescape(text: str) -> str:
    """Return what `escape` was given."""
    return _ESCAPE.sub(_character, text) if "\\" in text else text


def to_bytes(text: str) -> bytes:
    """Encode as UTF-8 with undecodable bytes restored (os.fsencode); other surrogates are encoded leniently."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def bounded(text: str, limit_bytes: int) -> str:
    """Return `text` if its UTF-8 form fits, else its beginning and a marker with its length and its SHA-256.

    The result can always be encoded with `surrogateescape`: a surrogate that stands for no byte becomes the three bytes
    that a lenient encoder makes of it.
    """
    if text.isascii():
        if len(text) <= limit_bytes:
            return text
        data = text.encode("ascii")
    else:
        data = to_bytes(text)
        if len(data) <= limit_bytes:
            return data.decode("utf-8", "surrogateescape")
    marker = f"...[cut: {len(data)} bytes, sha256 {hashlib.sha256(data).hexdigest()}]".encode("ascii")
    cut = max(0, limit_bytes - len(marker))
    for back in range(min(4, cut)):
        # Not in the midst of a character: step back over at most three continuation bytes (RFC 3629 §3).
        if data[cut - back] & 0xC0 != 0x80:
            cut -= back
            break
    return data[:cut].decode("utf-8", "surrogateescape") + marker.decode("ascii")
