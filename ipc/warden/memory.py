"""Copying a stopped call's arguments out of the worker, and results back in: bounded, and only while the call waits."""

from __future__ import annotations

import errno
from typing import Final

from ipc.libc import Buffer, RemoteMemory
from ipc.warden.notify import Call, CallFails, CallGone, Listener, WardenFault

PATH_MAX: Final = 4096
"""Longest path with its NUL, in bytes: limits.h."""
_PAGE: Final = 4096
_FIRST: Final = 256


class WorkerMemory:
    """The memory of one worker's threads, as far as the call in hand names it; used by one thread."""

    __slots__ = ("_listener", "_remote")

    def __init__(self, listener: Listener) -> None:
        """Allocate the buffer that every copy goes through."""
        self._listener = listener
        self._remote = RemoteMemory(2 * _PAGE)

    def read(self, call: Call, address: int, length: int) -> bytes:
        """Return exactly `length` bytes (at most 8 KiB), to be trusted once `check` or `read_path` came after it."""
        if self._read(call, address, length) < length:
            raise CallFails(errno.EFAULT)
        return bytes(self._remote.buffer.view[:length])

    def check(self, call: Call) -> None:
        """Raise CallGone unless what was read so far was the memory of the thread that made the call."""
        self._listener.check(call)

    def read_path(self, call: Call, address: int) -> bytes:
        """Return the text up to its NUL, page by page; raises CallFails with EFAULT or ENAMETOOLONG, and CallGone."""
        view = self._remote.buffer.view
        text = b""
        while len(text) < PATH_MAX:
            # Never across a page that may not be there; short at first, since most paths are.
            wanted = min(_PAGE - (address & (_PAGE - 1)), _PAGE if text else _FIRST)
            count = self._read(call, address, wanted)
            if not count:
                raise CallFails(errno.EFAULT)
            piece = bytes(view[:count])
            end = piece.find(b"\0")
            if end >= 0:
                self._listener.check(call)
                text += piece[:end]
                if len(text) >= PATH_MAX:
                    break
                return text
            text += piece
            address += count
        self._listener.check(call)
        raise CallFails(errno.ENAMETOOLONG)

    def read_path_and(self, call: Call, address: int, other: int, length: int) -> tuple[bytes, bytes]:
        """Return a path and the `length` bytes at `other`; in one copy when both are where they say and short."""
        first = min(_PAGE - (address & (_PAGE - 1)), _FIRST)
        start, end = min(address, other), max(address + first, other + length)
        if (end - 1) // _PAGE - start // _PAGE <= 1:
            # Both on a stack, as a rule: one range costs half of two, and no page is touched that holds neither.
            if self._read(call, start, end - start) == end - start:
                copied = bytes(self._remote.buffer.view[: end - start])
                at = address - start
                end_of_path = copied.find(0, at, at + first)
                if end_of_path >= 0:
                    self._listener.check(call)
                    return copied[at:end_of_path], copied[other - start : other - start + length]
            return self._path_then(call, address, other, length)
        try:
            count = self._remote.read_both(call.tid, (other, length), (address, first))
        except OSError as error:
            raise _classified(error) from None
        view = self._remote.buffer.view
        if count == length + first:
            path, nul, _ = bytes(view[length:count]).partition(b"\0")
            if nul:
                self._listener.check(call)
                return path, bytes(view[:length])
        return self._path_then(call, address, other, length)

    def _path_then(self, call: Call, address: int, other: int, length: int) -> tuple[bytes, bytes]:
        rest = self.read(call, other, length)
        return self.read_path(call, address), rest

    def write(self, call: Call, address: int, source: Buffer, length: int) -> None:
        """Copy `length` bytes from the start of `source` to the worker; raises CallFails, CallGone."""
        self._listener.check(call)
        try:
            written = self._remote.write(call.tid, address, source, length)
        except OSError as error:
            raise _classified(error) from None
        if written < length:
            raise CallFails(errno.EFAULT)

    def _read(self, call: Call, address: int, length: int) -> int:
        try:
            return self._remote.read(call.tid, address, length)
        except OSError as error:
            raise _classified(error) from None


def _classified(error: OSError) -> Exception:
    if error.errno in (errno.EFAULT, errno.EINVAL):
        return CallFails(errno.EFAULT)
    if error.errno == errno.ESRCH:
        return CallGone()
    return WardenFault(f"the worker's memory can't be reached: {error.strerror}")
