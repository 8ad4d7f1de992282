"""Who fills the broker's memory with a message that has no end, and cutting that connection.

No option of libzmq bounds a message of many frames: they gather, unseen, until the last one has come. What is seen is
that bytes wait in a connection's socket while no message comes out of it, and that the process grows meanwhile. In whom
that was seen several times since its last message is cut off, however slowly it sends: its bytes have to pass there.

Who reads nothing fills it, too: libzmq keeps some frames for each peer, of which nobody is told. There it is seen that
the socket for the peer is full, and that what waits in it doesn't change. As long as it takes more nothing is kept for
that peer: who computes, or is held for its CPU time, leaves a question or a few messages there and is not to blame.
Should it be too fast for that, RLIMIT_DATA ends the process.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
import termios
from collections.abc import Iterable, Mapping
from typing import Final

LOOK_NS: Final = 5_000_000
IDLE_NS: Final = 50_000_000
"""How often it is looked, while memory is high and while it isn't."""
STRIKES: Final = 3
"""In so many looks bytes waited, and no message has come since the first of them."""
STUCK_LOOKS: Final = 1_000
"""In so many looks, five seconds, a peer has read nothing of what waits for it. One that is held for its CPU time reads
nothing for four (`supervisor.run.governor`), and others may have sent it what waits."""
STUCK_LOOKS_CRITICAL: Final = 40
"""In so many, a fifth of a second, where there is no time to see who it is."""
_HIGH, _CRITICAL = 0.6, 0.85
"""Parts of the limit above which it is looked, and above which one strike, or few looks, are enough."""
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_INT: Final = struct.Struct("i")


class MemoryWatch:
    """Looks at the process's own size, and at its connections while that is high."""

    def __init__(self, limit_bytes: int) -> None:
        """`limit_bytes` is RLIMIT_DATA. Opens /proc/self/statm (proc(5)): make it before that is out of reach."""
        self._statm = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
        with socket.socket(socket.AF_UNIX) as ordinary:
            # As large as that of each connection, which nobody changes; a send waits from there on (unix(7)).
            self._full_bytes = ordinary.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        self._high_bytes, self._critical_bytes = int(limit_bytes * _HIGH), int(limit_bytes * _CRITICAL)
        self._strikes: dict[int, int] = {}
        self._frames: dict[int, int] = {}
        self._unread: dict[int, tuple[int, int]] = {}
        self._data_bytes = 0

    def data_bytes(self) -> int:
        """Return what RLIMIT_DATA counts, and the stack."""
        return int(os.pread(self._statm, 256, 0).split()[5]) * _PAGE_BYTES

    def is_high(self) -> bool:
        """Measure; whether it is time to look at the connections."""
        self._data_bytes = self.data_bytes()
        if self._data_bytes > self._high_bytes:
            return True
        self._strikes.clear()
        self._unread.clear()
        return False

    @property
    def _is_critical(self) -> bool:
        return self._data_bytes > self._critical_bytes

    def look(self, frames: Mapping[int, int]) -> int | None:
        """Return the descriptor of a connection to cut; `frames` has how many came over each that is open."""
        strikes: dict[int, int] = {}
        for descriptor, count in frames.items():
            if count == self._frames.get(descriptor):
                strikes[descriptor] = self._strikes.get(descriptor, 0) + (_waiting_bytes(descriptor) > 0)
        self._strikes, self._frames = strikes, dict(frames)
        enough = 1 if self._is_critical else STRIKES
        worst = max(strikes, key=strikes.__getitem__, default=None)
        if worst is None or strikes[worst] < enough:
            return None
        del strikes[worst]
        return worst

    def look_unread(self, descriptors: Iterable[int]) -> int | None:
        """Return the descriptor of a connection that is full and whose peer reads nothing, where most waits."""
        unread: dict[int, tuple[int, int]] = {}
        for descriptor in descriptors:
            size_bytes = _waiting_bytes(descriptor, termios.TIOCOUTQ)
            before_bytes, looks = self._unread.get(descriptor, (0, 0))
            if size_bytes >= self._full_bytes:
                unread[descriptor] = (size_bytes, looks + 1 if size_bytes == before_bytes else 0)
        self._unread = unread
        enough = STUCK_LOOKS_CRITICAL if self._is_critical else STUCK_LOOKS
        stuck = [descriptor for descriptor, (_, looks) in unread.items() if looks >= enough]
        return max(stuck, key=unread.__getitem__, default=None)

    def close(self) -> None:
        """Close what is held."""
        os.close(self._statm)


def cut(descriptor: int) -> None:
    """Shut a connection of libzmq's down: it meets that as the peer's end, and forgets what it had of a message."""
    with contextlib.suppress(OSError), socket.fromfd(descriptor, socket.AF_UNIX, socket.SOCK_STREAM) as duplicate:
        duplicate.shutdown(socket.SHUT_RDWR)


def _waiting_bytes(descriptor: int, which: int = termios.FIONREAD) -> int:
    """SIOCINQ or SIOCOUTQ, unix(7); 0 for one that was closed meanwhile."""
    try:
        answer = fcntl.ioctl(descriptor, which, _INT.pack(0))
    except OSError:
        return 0
    return int(_INT.unpack(answer)[0])
