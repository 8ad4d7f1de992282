"""The hatch: one page of memory through which long lists of bytes leave a guest, a piece after the other.

The engine makes a value of 48 bytes of each byte of a list. So the guards that the compiler puts into a component
(`worker.guard_module`) copy what is long into a page that no code but theirs can reach, ask for more of that memory, by
which the engine comes to us (`worker.memories`), and pass an empty list on. We take the piece, and refuse.

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
LIST_AT: Final = 4
SIZE_AT: Final = 8
"""Which of a call's lists the piece belongs to, and its size; 0 once it was taken."""
PIECE_AT: Final = 16
PIECE_BYTES: Final = PAGE_BYTES - PIECE_AT
LISTS_MAX: Final = 2
LONG_BYTES: Final = 1024
"""A list of more bytes goes through the hatch. A piece takes 8 µs, as long as 250 bytes as values."""
_HEADER: Final = struct.Struct("<II")


class Hatch:
    """The host's end, for one component."""

    __slots__ = ("_base", "_left_bytes", "_lists")

    def __init__(self) -> None:
        """Begin without a page."""
        self._base = 0
        self._lists: dict[int, list[bytes]] = {}
        self._left_bytes = MAX_PAYLOAD_BYTES

    def is_for(self, minimum_bytes: int, maximum_bytes: int) -> bool:
        """Whether a memory that is to be made is the hatch's; the first that looks like it is."""
        return not self._base and (minimum_bytes, maximum_bytes) == (PAGE_BYTES, PAGES_MAX * PAGE_BYTES)

    def open(self, base: int) -> None:
        """Take over a page, which is at this address from now on, and tell the guards."""
        self._base = base
        ctypes.memmove(base + OPEN_AT, b"\1", 1)

    def take_piece(self) -> None:
        """Take what lies in the page; what can't be is left there, which the guards take for the end of it all."""
        number, size_bytes = _HEADER.unpack(ctypes.string_at(self._base + LIST_AT, _HEADER.size))
        if number >= LISTS_MAX or not 0 < size_bytes <= min(PIECE_BYTES, self._left_bytes):
            return
        self._lists.setdefault(number, []).append(ctypes.string_at(self._base + PIECE_AT, size_bytes))
        self._left_bytes -= size_bytes
        ctypes.memset(self._base + SIZE_AT, 0, 4)

    def take(self) -> dict[int, bytes]:
        """Return the lists that were handed over since this was asked last, by their number among those of the call."""
        if not self._lists:
            return {}
        taken = {number: b"".join(pieces) for number, pieces in self._lists.items()}
        self._lists.clear()
        self._left_bytes = MAX_PAYLOAD_BYTES
        return taken
