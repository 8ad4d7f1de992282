"""The bytes of components and modules: read within bounds, and written.

Source: the component model's Binary.md; WebAssembly core, 5 ("Binary Format").
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

HEAD: Final = b"\0asm\x0d\0\x01\0"
MODULE, CORE_INSTANCE, COMPONENT, INSTANCE, ALIAS, TYPE, CANON, START, IMPORT, EXPORT = 1, 2, 4, 5, 6, 7, 8, 9, 10, 11
"""Sections of a component."""
CORE, FUNC, INSTANCES = 0x00, 0x01, 0x05
CORE_FUNC, CORE_MEMORY, CORE_MODULE, CORE_INSTANCES = 0x00, 0x02, 0x11, 0x12
"""Sorts of what is numbered."""


class UnknownError(Exception):
    """Something of this component isn't understood here."""


class Reader:
    """Reads a section."""

    def __init__(self, data: bytes, at: int = 0, end: int | None = None) -> None:
        """Begin at `at`; nothing from `end` on is read."""
        self.data = data
        self.at = at
        self.end = len(data) if end is None else end

    def byte(self) -> int:
        """Return one byte."""
        if self.at >= self.end:
            raise UnknownError
        self.at += 1
        return self.data[self.at - 1]

    def number(self) -> int:
        """Return an unsigned number of at most 35 bits (LEB128)."""
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
            if shift > 28:
                raise UnknownError

    def take(self, size: int) -> bytes:
        """Return so many bytes."""
        if size > self.end - self.at:
            raise UnknownError
        self.at += size
        return self.data[self.at - size : self.at]

    def skip(self, size: int) -> None:
        """Go so many bytes further."""
        if size > self.end - self.at:
            raise UnknownError
        self.at += size

    def rest(self) -> bytes:
        """Return what is left, and stay."""
        return self.data[self.at : self.end]

    def name(self) -> str:
        """Return a text."""
        return self.take(self.number()).decode()


def unsigned(value: int) -> bytes:
    """Return an unsigned number (LEB128)."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def signed(value: int) -> bytes:
    """Return a signed number, as constants are written."""
    encoded = bytearray()
    while not -0x40 <= value < 0x40:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value & 0x7F)
    return bytes(encoded)


def sized(data: bytes) -> bytes:
    """Return bytes behind their length."""
    return unsigned(len(data)) + data


def vector(items: Sequence[bytes]) -> bytes:
    """Return items behind their count."""
    return unsigned(len(items)) + b"".join(items)


def named(name: str) -> bytes:
    """Return a text behind its length."""
    return sized(name.encode())


def section_of(kind: int, content: bytes) -> bytes:
    """Return a section."""
    return bytes((kind,)) + sized(content)
