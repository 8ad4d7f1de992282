"""What runs by an approval without a supervisor that answers for it: each `airssys run` and `call` of a function.

Each such process holds a file named by the approval, locked for as long as it lives: the kernel lets go of a lock with
its process, however that ends, and says whose it is. In the file is what it runs with. Whoever takes something of that
back ends it. fcntl(2) ("Advisory record locking"), pidfd_open(2).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import struct
from collections.abc import Iterator, Sequence
from typing import Final

from ipc.struct import Struct, replace
from supervisor.approvals.reliance import Reliance, Terms, read_terms, write_terms
from supervisor.event_loop import READ, Interest

DIRECTORY: Final = "running"
WITHIN_NS: Final = 5 * 10**9
"""How long what runs has to end in order; then it is killed."""
_KILLED_WITHIN_NS: Final = 2 * 10**9
_FLAGS: Final = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
_LOCK: Final = struct.Struct("hhqqi4x")
"""`struct flock`: type, whence, start, length, process."""


class Held:
    """One approval that this process runs by, until `close`."""

    def __init__(self, approvals: str, reliance: Reliance) -> None:
        """Hold it; to be done while the approvals are locked, so that who takes it back comes before or after.

        Once in a process: a process sees no locks of its own. What killed runs have left of this one is removed.
        """
        for holder in holders(approvals, reliance.number):
            holder.close()
        directory = os.path.join(approvals, DIRECTORY)
        os.makedirs(directory, mode=0o700, exist_ok=True)
        self._path = os.path.join(directory, f"{reliance.number}.{os.urandom(8).hex()}")
        self._descriptor = os.open(self._path, _FLAGS | os.O_CREAT | os.O_EXCL, 0o600)
        fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        write_terms(self._descriptor, reliance.granted, reliance.until_s, reliance.until_boot_ns)

    @property
    def descriptor(self) -> int:
        """Where its terms are read from, in this process."""
        return self._descriptor

    def close(self) -> None:
        """Run by it no longer."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)
        os.close(self._descriptor)


class Holder(Struct, frozen=True):
    """Who runs by approval `number`: its process as numbered here, with a pidfd that is the caller's to close.

    Both are 0 and -1 for one that isn't to be seen from here: in another container, with the same state. `terms` are
    None where it can't be read with what it runs.
    """

    number: int
    pid: int
    pidfd: int
    terms: Terms | None
    path: str

    def end_at(self, until_s: int | None, until_boot_ns: int) -> None:
        """Have its approval be over at another time."""
        if self.terms is not None and self.terms.until_s != until_s:
            self._write(replace(self.terms, until_s=until_s, until_boot_ns=until_boot_ns))

    def tell(self, why: str) -> None:
        """Write down why it is to end, before it is asked to."""
        if self.terms is not None:
            self._write(replace(self.terms, lost=why))

    def _write(self, terms: Terms) -> None:
        with contextlib.suppress(OSError):  # it has ended meanwhile
            descriptor = os.open(self.path, _FLAGS)
            try:
                write_terms(descriptor, terms.granted, terms.until_s, terms.until_boot_ns, terms.lost)
            finally:
                os.close(descriptor)

    def close(self) -> None:
        """Let go of it."""
        if self.pidfd >= 0:
            os.close(self.pidfd)


def holders(approvals: str, of: int = 0) -> Iterator[Holder]:
    """Yield everybody who runs by an approval, or by this one; files of those who don't any more are removed."""
    directory = os.path.join(approvals, DIRECTORY)
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return
    for name in sorted(names):
        path, number = os.path.join(directory, name), name.partition(".")[0]
        if not number.isdecimal() or of not in (0, int(number)):
            continue  # nothing of ours, or not asked for
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
            yield Holder(int(number), max(holder, 0), pidfd, read_terms(descriptor), path)
        finally:
            os.close(descriptor)


def _holder(descriptor: int) -> int | None:
    """Return whose lock is on a file, as numbered here; None where there is none."""
    asked = _LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    kind, _, _, _, pid = _LOCK.unpack(fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))
    return None if kind == fcntl.F_UNLCK else int(pid)


class Ending:
    """The end of some of them: asked to first, killed after `within_ns`. A source of an event loop, which waits."""

    def __init__(self, to_end: Sequence[Holder], now_ns: int, within_ns: int = WITHIN_NS) -> None:
        """Ask them; the holders are this one's from now on, until it is over."""
        self.ended: list[Holder] = []
        self.left: list[Holder] = [each for each in to_end if each.pidfd < 0]
        self._waiting = {each.pidfd: each for each in to_end if each.pidfd >= 0}
        self._due_ns = now_ns + within_ns
        self._killed = False
        self._send(signal.SIGTERM)

    @property
    def is_over(self) -> bool:
        """Whether each of them has ended, or can't be ended."""
        return not self._waiting

    def interests(self) -> Iterator[Interest]:
        """Yield their pidfds: readable when they have ended."""
        for pidfd in tuple(self._waiting):
            yield Interest(pidfd, READ, self._see)

    def next_ns(self) -> int:
        """Return when who still lives is killed, or left; 0 when it is over."""
        return 0 if self.is_over else self._due_ns

    def tick(self, now_ns: int) -> None:
        """See who has ended, and kill who should have."""
        self._see()
        if self._waiting and now_ns >= self._due_ns:
            if self._killed:
                for pidfd in tuple(self._waiting):
                    self._done(pidfd, self.left)
                return
            self._killed, self._due_ns = True, now_ns + _KILLED_WITHIN_NS
            self._send(signal.SIGKILL)

    def close(self) -> None:
        """Wait for nobody any more."""
        for pidfd in tuple(self._waiting):
            self._done(pidfd, self.left)

    def _send(self, number: signal.Signals) -> None:
        for pidfd in tuple(self._waiting):
            try:
                signal.pidfd_send_signal(pidfd, number)
            except ProcessLookupError:
                continue
            except PermissionError:
                self._done(pidfd, self.left)

    def _see(self) -> None:
        poller = select.poll()
        for pidfd in self._waiting:
            poller.register(pidfd, select.POLLIN)
        for pidfd, _ in poller.poll(0):
            self._done(pidfd, self.ended)

    def _done(self, pidfd: int, where: list[Holder]) -> None:
        holder = self._waiting.pop(pidfd)
        holder.close()
        where.append(holder)
