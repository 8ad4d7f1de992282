"""Who fills the broker's memory with a message that has no end, and cutting that connection.

No option of libzmq bounds a message of many frames: they gather, unseen, until the last one has come. What is seen is
that bytes wait in a connection's socket while no message comes out of it, and that the process grows meanwhile. Whoever
is that in several looks in a row is cut off; if it is too fast for that, RLIMIT_DATA ends the process.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
import termios
from collections.abc import Mapping
from typing import Final

LOOK_NS: Final = 10_000_000
LOOKS: Final = 3
"""In so many looks in a row bytes waited and no message came."""
_HIGH: Final = 0.6
"""Part of the limit above which it is looked."""
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_INT: Final = struct.Struct("i")


class MemoryWatch:
    """Looks at the process's own size, and at its connections while that is high."""

    def __init__(self, limit_bytes: int) -> None:
        """`limit_bytes` is RLIMIT_DATA. Opens /proc/self/statm (proc(5)): make it before that is out of reach."""
        self._statm = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
        self._high_bytes = int(limit_bytes * _HIGH)
        self._strikes: dict[int, int] = {}
        self._frames: dict[int, int] = {}
        self.is_high = False

    def data_bytes(self) -> int:
        """Return what RLIMIT_DATA counts, and the stack."""
        return int(os.pread(self._statm, 256, 0).split()[5]) * _PAGE_BYTES

    def look(self, frames: Mapping[int, int]) -> int | None:
        """Return the descriptor of a connection to cut; `frames` has how many came over each that is open."""
        self.is_high = self.data_bytes() > self._high_bytes
        if not self.is_high:
            self._strikes.clear()
            return None
        strikes: dict[int, int] = {}
        for descriptor, count in frames.items():
            if count == self._frames.get(descriptor) and _waiting_bytes(descriptor):
                strikes[descriptor] = self._strikes.get(descriptor, 0) + 1
        self._strikes, self._frames = strikes, dict(frames)
        worst = max(strikes, key=strikes.__getitem__, default=None)
        return worst if worst is not None and strikes[worst] >= LOOKS else None

    def close(self) -> None:
        """Close what is held."""
        os.close(self._statm)


def cut(descriptor: int) -> None:
    """Shut a connection of libzmq's down: it meets that as the peer's end, and forgets what it had of a message."""
    with contextlib.suppress(OSError), socket.fromfd(descriptor, socket.AF_UNIX, socket.SOCK_STREAM) as duplicate:
        duplicate.shutdown(socket.SHUT_RDWR)


def _waiting_bytes(descriptor: int) -> int:
    """SIOCINQ, unix(7); 0 for one that was closed meanwhile."""
    try:
        answer = fcntl.ioctl(descriptor, termios.FIONREAD, _INT.pack(0))
    except OSError:
        return 0
    return int(_INT.unpack(answer)[0])
