"""What runs by an approval without a supervisor that answers for it: each `airssys run` and `call` of a function.

Each such process holds a file named by the approval, locked for as long as it lives: the kernel lets go of a lock with
its process, however that ends, and says whose it is. Who takes the approval back ends whoever holds one. fcntl(2)
("Advisory record locking"), pidfd_open(2).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import struct
import time
from collections.abc import Iterator
from typing import Final

from ipc.struct import Struct

DIRECTORY: Final = "running"
WITHIN_S: Final = 5.0
"""How long what runs has to end in order; then it is killed."""
_KILLED_WITHIN_S: Final = 2.0
_FLAGS: Final = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
_LOCK: Final = struct.Struct("hhqqi4x")
"""`struct flock`: type, whence, start, length, process."""


class EndedRuns(Struct, frozen=True):
    """The processes that have ended for it, and those that this process can't end, by their numbers here."""

    ended: tuple[int, ...]
    left: tuple[int, ...]
    """0 is one that isn't to be seen from here: in another container, with the same state."""


NO_RUNS: Final = EndedRuns((), ())


class Held:
    """One approval that this process runs by, until `close`."""

    def __init__(self, approvals: str, number: int) -> None:
        """Hold it; to be done while the approvals are locked, so that who takes it back comes before or after.

        Once in a process: a process sees no locks of its own. What killed runs have left of this one is removed.
        """
        for _, pidfd in _pidfds(approvals, number):
            if pidfd >= 0:
                os.close(pidfd)
        directory = os.path.join(approvals, DIRECTORY)
        os.makedirs(directory, mode=0o700, exist_ok=True)
        self._path = os.path.join(directory, f"{number}.{os.urandom(8).hex()}")
        self._descriptor = os.open(self._path, _FLAGS | os.O_CREAT | os.O_EXCL, 0o600)
        fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def close(self) -> None:
        """Run by it no longer."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)
        os.close(self._descriptor)


def end_runs(approvals: str, number: int, within_s: float = WITHIN_S) -> EndedRuns:
    """End what runs by an approval, and return when it has: asked to first, killed after `within_s`."""
    running = dict(_pidfds(approvals, number))
    left = [pid for pid, pidfd in running.items() if pidfd < 0]
    waiting = {pidfd: pid for pid, pidfd in running.items() if pidfd >= 0}
    try:
        for signal_number, seconds in ((signal.SIGTERM, within_s), (signal.SIGKILL, _KILLED_WITHIN_S)):
            still = [pidfd for pidfd in waiting if not _has_ended(pidfd, 0)]
            for pidfd in still:
                try:
                    signal.pidfd_send_signal(pidfd, signal_number)
                except ProcessLookupError:
                    continue
                except PermissionError:
                    left.append(waiting[pidfd])
            until_s = time.monotonic() + seconds
            for pidfd in still:
                if waiting[pidfd] not in left:
                    _has_ended(pidfd, max(0.0, until_s - time.monotonic()))
        ended = [pid for pidfd, pid in waiting.items() if _has_ended(pidfd, 0)]
        return EndedRuns(tuple(sorted(ended)), tuple(sorted({*left, *(set(waiting.values()) - {*ended})})))
    finally:
        for pidfd in waiting:
            os.close(pidfd)


def _pidfds(approvals: str, number: int) -> Iterator[tuple[int, int]]:
    """Yield who holds an approval, with an open pidfd; -1 for who isn't to be seen from here."""
    directory = os.path.join(approvals, DIRECTORY)
    try:
        names = [name for name in os.listdir(directory) if name.partition(".")[0] == str(number)]
    except FileNotFoundError:
        return
    for name in names:
        path = os.path.join(directory, name)
        try:
            descriptor = os.open(path, _FLAGS)
        except OSError:
            continue  # it has ended meanwhile
        try:
            holder = _holder(descriptor)
            if holder is None:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
                continue
            try:
                pidfd = os.pidfd_open(holder) if holder > 0 else -1
            except ProcessLookupError:
                continue
            if pidfd >= 0 and _holder(descriptor) != holder:
                os.close(pidfd)  # it has ended meanwhile: its number may be anybody's
                continue
            yield max(holder, 0), pidfd
        finally:
            os.close(descriptor)


def _holder(descriptor: int) -> int | None:
    """Return whose lock is on a file, as numbered here; None where there is none."""
    asked = _LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    kind, _, _, _, pid = _LOCK.unpack(fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))
    return None if kind == fcntl.F_UNLCK else int(pid)


def _has_ended(pidfd: int, within_s: float) -> bool:
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    return bool(poller.poll(within_s * 1000))
