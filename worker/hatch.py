"""The hatch: one page of memory through which long lists of bytes leave and enter a guest, a piece after the other.

The engine makes a value of 48 bytes of each byte of a list. So the guards that the compiler puts into a component
(`worker.guard_module`) copy what is long into a page that no code but theirs can reach, ask for more of that memory, by
which the engine comes to us (`worker.memories`), and pass an empty list on. We take the piece, and refuse. The other
way the engine carries an empty list too, and the guard finds the first piece in the page.

What lies in the page is believed by nobody: a piece is within it, and all of them are within what a payload may have. A
guest that has such a memory of its own hands over its own bytes.
"""

from __future__ import annotations

import ctypes
import struct
from typing import Final

from ipc.broker.messages import MAX_PAYLOAD_BYTES

PAGE_BYTES: Final = 1 << 16
PAGES_MAX: Final = 0x4A7C
"""The most pages that the hatch's memory names: one page now and so many at most is what it is known by."""
OPEN_AT: Final = 0
"""1 where somebody takes what is handed over. The guards look there first: elsewhere they pass all on as it is."""
FETCHED_AT: Final = 1
"""A byte for each of `MESSAGE`, `CALLBACK`, `RESULT`: whether a guard fetches what is given; the last while it asks."""
MESSAGE, CALLBACK, RESULT = range(3)
LIST_AT: Final = 8
SIZE_AT: Final = 12
"""Which of a call's lists the piece belongs to, and its size; 0 once it was taken."""
GIVEN_AT: Final = 16
"""How many bytes of what is given the guard has yet to fetch; those that lie in the page are the next of them."""
PIECE_AT: Final = 32
PIECE_BYTES: Final = PAGE_BYTES - PIECE_AT
LISTS_MAX: Final = 2
LONG_BYTES: Final = 512
"""A list of more bytes goes through the hatch. A piece takes 8 µs, as long as 250 bytes as values."""
TAKE_PAGES: Final = 1
MORE_PAGES: Final = 2
"""By how much the memory is to grow: take this piece; give another one."""
_HEADER: Final = struct.Struct("<II")
_WORD: Final = struct.Struct("<I")


class Hatch:
    """The host's end, for one component."""

    __slots__ = ("_base", "_given", "_left_bytes", "_lists")

    def __init__(self) -> None:
        """Begin without a page."""
        self._base = 0
        self._lists: dict[int, bytearray] = {}
        self._left_bytes = MAX_PAYLOAD_BYTES
        self._given = memoryview(b"")
        """What is left of it, the piece that lies in the page included."""

    def is_for(self, minimum_bytes: int, maximum_bytes: int) -> bool:
        """Whether a memory that is to be made is the hatch's; the first that looks like it is."""
        return not self._base and (minimum_bytes, maximum_bytes) == (PAGE_BYTES, PAGES_MAX * PAGE_BYTES)

    def open(self, base: int) -> None:
        """Take over a page, which is at this address from now on, and tell the guards."""
        self._base = base
        ctypes.memmove(base + OPEN_AT, b"\1", 1)

    def grow(self, pages: int) -> None:
        """Do what a guard asks for."""
        if pages == TAKE_PAGES:
            self._take_piece()
        elif pages == MORE_PAGES:
            # Of nothing there is left no view, which would keep all of it.
            self._given = self._given[PIECE_BYTES:] or memoryview(b"")
            self._put_piece()

    def give(self, what: int, content: bytes) -> bytes:
        """Return what the engine is to carry: the content, or nothing where a guard fetches it."""
        if len(content) <= LONG_BYTES or not self._base:
            return content
        if ctypes.string_at(self._base + FETCHED_AT + what, 1) != b"\1":
            return content
        self._given = memoryview(content)
        self._put_piece()
        return b""

    def _put_piece(self) -> None:
        piece = bytes(self._given[:PIECE_BYTES])
        ctypes.memmove(self._base + PIECE_AT, piece, len(piece))
        ctypes.memmove(self._base + GIVEN_AT, _WORD.pack(len(self._given)), _WORD.size)

    def _take_piece(self) -> None:
        """Take what lies in the page; what can't be is left there, which the guards take for the end of it all."""
        number, size_bytes = _HEADER.unpack(ctypes.string_at(self._base + LIST_AT, _HEADER.size))
        if number >= LISTS_MAX or not 0 < size_bytes <= min(PIECE_BYTES, self._left_bytes):
            return
        self._lists.setdefault(number, bytearray()).extend(ctypes.string_at(self._base + PIECE_AT, size_bytes))
        self._left_bytes -= size_bytes
        ctypes.memset(self._base + SIZE_AT, 0, 4)

    def take(self) -> dict[int, bytes]:
        """Return the lists that were handed over since this was asked last, by their number among those of the call."""
        if not self._lists:
            return {}
        taken = {number: bytes(content) for number, content in self._lists.items()}
        self._lists.clear()
        self._left_bytes = MAX_PAYLOAD_BYTES
        return taken
