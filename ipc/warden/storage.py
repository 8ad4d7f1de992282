"""The shell around the storage account of one worker: measures what it writes to, walks its directories, refuses.

Reads and writes of an open file don't come by here, so what is open for writing is measured: at each call that could
need room, and between calls when `due_ns` comes. A descriptor gets into a worker through the warden only, duplicates
included, and one thread gives them: what a look through the worker's descriptors doesn't find is closed.

All this is used by the lane's thread, so that a slow file system holds up no other worker.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import time
from typing import Final, Protocol

from ipc.libc import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, openat2, pidfd_descriptors
from ipc.messages import StorageBounds
from ipc.policy.capability import WRITE
from ipc.policy.quota import OK, WARNING_PERCENT, Crossings, QuotaLevel
from ipc.policy.storage import OBJECT_BYTES, OBJECTS_MAX, Extent, Identity, StorageAccount, Walk, next_measurement_ns
from ipc.struct import Struct
from ipc.warden.decide import Refusal
from ipc.warden.files import Found
from ipc.warden.held_objects import raw, real_path, reopen
from ipc.warden.reach import has_ended

WRITABLE_MAX: Final = 64
"""Files that a worker may hold open for writing at a time: each can grow to RLIMIT_FSIZE between two measurements."""
LOOK_NS: Final = 1_000_000_000
"""How often the worker's descriptors are looked through while something waits for their closing."""
RECOUNT_NS: Final = 5_000_000_000
"""How often its directories are walked again: others change them too, a second run of the same component among them."""
RECOUNT_SHARE: Final = 20
"""A walk takes at most one part in so many of this thread's time,"""
RECOUNT_FEW: Final = 100
"""unless so few objects lie there that it costs little more than a call: a refusal then rests on a fresh count."""
_ENDS_WITHIN_MS: Final = 200
"""A process that has given its memory up is gone in less."""
_BLOCK_BYTES: Final = 512
"""The unit of st_blocks, whatever the file system: inode(7)."""
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_WITHIN: Final = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS
_EMPTY: Final = Extent(0, 0)
_OF_MEMORY: Final = "/memfd:"
"""How proc(5) names a memory file, such as the compiled code."""


class Tells(Protocol):
    """Where it is told that a level crossed a threshold: `ipc.warden.recorder.Recorder`."""

    def crossed(self, level: QuotaLevel) -> None:
        """Put on record that a quota is in another status now."""


class _Sighting(Struct, frozen=True):
    identity: Identity
    extent: Extent
    links: int
    is_directory: bool


def _sighted(status: os.stat_result) -> _Sighting:
    extent = Extent(status.st_size, status.st_blocks * _BLOCK_BYTES)
    return _Sighting((status.st_dev, status.st_ino), extent, status.st_nlink, stat.S_ISDIR(status.st_mode))


class Storage:
    """What one worker stores, from before its start to its end."""

    __slots__ = (
        "_account",
        "_calm_bytes",
        "_counted_ns",
        "_crossings",
        "_directories",
        "_grew",
        "_looked_ns",
        "_numbers",
        "_open_files",
        "_pending",
        "_pidfd",
        "_recount_cost_ns",
        "_running",
        "_tells",
        "_written",
        "due_ns",
    )

    def __init__(self, bounds: StorageBounds, tells: Tells) -> None:
        """Count what lies in the component's own directories."""
        self._account = StorageAccount(bounds.limit_bytes)
        self._directories = tuple(directory.rstrip("/") + "/" for directory in bounds.directories)
        self._open_files = bounds.open_files
        self._running = bounds.running
        self._tells = tells
        self._crossings = Crossings()
        self._calm_bytes = bounds.limit_bytes * WARNING_PERCENT // 100
        self._written: dict[Identity, int] = {}
        self._numbers: dict[int, Identity] = {}
        """Which descriptors of the worker are open for writing; all of them, and some that it has closed meanwhile."""
        self._pending: Identity | None = None
        self._grew = False
        self._looked_ns = self._counted_ns = self._recount_cost_ns = 0
        self.due_ns = 0
        """When to measure next (CLOCK_MONOTONIC); 0 while nothing is open for writing."""
        self._pidfd = -1
        self._recount()

    def attach(self, pidfd: int) -> None:
        """Take the worker over; one that runs already may hold files that it was given by a warden that is gone.

        How much of those outside it wrote isn't known any more: they count from here on.
        """
        self._pidfd = pidfd
        if not self._running:
            return
        for number, descriptor, status in pidfd_descriptors(pidfd, self._open_files):
            if not stat.S_ISREG(status.st_mode):
                continue
            path = real_path(descriptor)
            if status.st_nlink == 0 and not path.startswith(_OF_MEMORY):
                seen = _sighted(status)
                self._account.follow(seen.identity, seen.extent, inside=False, created=True)
                self._account.unnamed(seen.identity, seen.extent, 0, inside=False, may_be_open=True)
            if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE in (os.O_WRONLY, os.O_RDWR):
                self.opened(descriptor, path, writes=True)
                self.given(number)
        self._schedule(time.monotonic_ns())

    @property
    def level(self) -> QuotaLevel:
        """What is used now, as far as it was measured."""
        return QuotaLevel("storage", self._account.usage_bytes, self._account.limit_bytes)

    # -- before a call takes effect ------------------------------------------------------------------------------------

    def refuse_writing(self, found: Found, writes: bool, truncate: bool) -> Refusal | None:
        """Refuse opening a file for writing where nothing is left, once it is emptied if it is to be.

        What only makes a file smaller is always allowed.
        """
        if not writes:
            return None
        seen = _sighted(os.fstat(found.descriptor))
        now, inside = seen.extent, self._inside(found.path)
        then = _EMPTY if truncate else now

        def fits() -> bool:
            if not self._account.may_follow(seen.identity):
                return False
            return self._account.usage_with(seen.identity, now, then, inside) < self._account.limit_bytes

        refusal = self._refuse(fits, found.path)
        if refusal is None and seen.identity not in self._written:
            refusal = self._too_many_written(found.path)
        return refusal

    def refuse_making(self, path: str, writes: bool = False) -> Refusal | None:
        """Refuse one more name of any kind where there is no room; a file that `writes` will be open for writing."""
        refusal = self._refuse(lambda: self._account.has_room(OBJECT_BYTES), path)
        return refusal or (self._too_many_written(path) if writes else None)

    def refuse_moving(self, found: Found, old: str, new: str) -> Refusal | None:
        """Refuse a name that makes an object count which didn't, where there is no room for it."""
        across = self._inside(old) != self._inside(new)
        if found.facts.is_directory:
            if not (across or self._holds(old) or self._holds(new)):
                return None
            # What is beneath would change sides unseen. As for a rename across file systems: copy and delete.
            reason = "a directory is not renamed into or out of what the component's storage quota counts as a whole"
            return Refusal(errno.EXDEV, WRITE, old, "A1206", reason)
        if not across:
            return None
        seen = _sighted(os.fstat(found.descriptor))

        def fits() -> bool:
            usage = self._account.usage_moved(seen.identity, seen.extent, self._inside(old))
            return usage <= max(self._account.limit_bytes, self._account.usage_bytes)

        return self._refuse(fits, new)

    def refuse_linking(self, found: Found, old: str, new: str) -> Refusal | None:
        """Refuse one more name of a file where there is no room for it."""
        return self.refuse_making(new) or self.refuse_moving(found, old, new)

    # -- what took effect ----------------------------------------------------------------------------------------------

    def opened(self, descriptor: int, path: str, writes: bool, created: bool = False) -> None:
        """Follow a file that was opened for writing, created or truncated, through any descriptor of it."""
        seen = self._follow(descriptor, path, created)
        if writes and seen.identity not in self._written:
            self._written[seen.identity] = reopen(descriptor, os.O_PATH | os.O_CLOEXEC)
        if writes:
            self._pending = seen.identity
        else:
            self._account.forget_idle(seen.identity, self._written)
        self._schedule(time.monotonic_ns())

    def duplicated(self, descriptor: int) -> None:
        """Note that a duplicate of what this is of is about to be given."""
        status = os.fstat(descriptor)
        identity = (status.st_dev, status.st_ino)
        if identity in self._written:
            self._pending = identity

    def given(self, number: int) -> None:
        """Note which number the worker got for what was opened last: what had that number before is closed.

        With that, most files are let go of without a look through all descriptors.
        """
        if number < 0:
            return
        before = self._numbers.pop(number, None)
        identity, self._pending = self._pending, None
        if identity is not None:
            self._numbers[number] = identity
        if before is not None and before != identity and before not in self._numbers.values():
            self._let_go(before)

    def will_truncate(self, found: Found) -> None:
        """Follow a file from before it is truncated, so that what it had counts as what it had."""
        self._follow(found.descriptor, found.path, created=False)

    def made(self, name: bytes, parent: int, path: str) -> None:
        """Follow a directory or symbolic link that was made."""
        with contextlib.suppress(FileNotFoundError):  # somebody was faster in removing it
            seen = _sighted(os.stat(name, dir_fd=parent, follow_symlinks=False))
            self._account.follow(seen.identity, seen.extent, self._inside(path), created=True)
            self._tell()

    def removed(self, found: Found, path: str) -> None:
        """Note that the name `path` of an object is gone."""
        seen = _sighted(os.fstat(found.descriptor))
        names_left = 0 if seen.is_directory else seen.links
        self._account.unnamed(seen.identity, seen.extent, names_left, self._inside(path), found.facts.is_file)
        self._schedule(time.monotonic_ns())

    def moved(self, found: Found, old: str, new: str) -> None:
        """Note that an object has another name."""
        seen = _sighted(os.fstat(found.descriptor))
        self._account.moved(seen.identity, seen.extent, self._inside(old), self._inside(new))
        self._tell()

    def linked(self, found: Found, old: str, new: str) -> None:
        """Note that a file has one more name."""
        seen = _sighted(os.fstat(found.descriptor))
        self._account.named(seen.identity, seen.extent, self._inside(old), self._inside(new))
        self._tell()

    # -- between calls -------------------------------------------------------------------------------------------------

    def measure(self) -> QuotaLevel | None:
        """Measure what is open for writing; returns the level when the worker grew beyond its quota and has to end."""
        now_ns = time.monotonic_ns()
        self._measure_written()
        if now_ns - self._looked_ns >= LOOK_NS:
            self._look(now_ns)
        if self._grew and self._is_over():
            looked = self._look(now_ns)
            self._recount()
            # What one that is about to end had closed can't be seen any more: it isn't ended for it.
            if self._is_over() and (looked or not has_ended(self._pidfd, _ENDS_WITHIN_MS)):
                return self.level
        self._recount_when_due(now_ns)
        self._grew = self._grew and self._is_over()
        self.due_ns = 0
        self._schedule(now_ns)
        return None

    def finish(self) -> QuotaLevel:
        """Measure once more, now that the worker has ended and holds nothing, and return the last level."""
        self._measure_written()
        for identity in list(self._written):
            self._let_go(identity)
        self._account.closed((), ())
        self._recount()
        return self.level

    def _schedule(self, now_ns: int) -> None:
        waits = self._written or self._account.waits_for_closing
        remaining = self._account.limit_bytes - self._account.usage_bytes
        due_ns = now_ns + next_measurement_ns(max(0, remaining)) if waits else 0
        # Never later than it was due before: calls in a row would put it off for ever.
        self.due_ns = min(self.due_ns, due_ns) if self.due_ns and due_ns else due_ns
        self._tell()

    def _follow(self, descriptor: int, path: str, created: bool) -> _Sighting:
        seen = _sighted(os.fstat(descriptor))
        self._account.follow(seen.identity, seen.extent, self._inside(path), created)
        return seen

    def _measure_written(self) -> None:
        for identity, handle in self._written.items():
            self._measure_one(identity, handle)

    def _measure_one(self, identity: Identity, handle: int) -> None:
        status = os.fstat(handle)
        grew = self._account.measured(identity, Extent(status.st_size, status.st_blocks * _BLOCK_BYTES))
        self._grew = grew or self._grew

    def _look(self, now_ns: int) -> bool:
        """Look through the worker's descriptors, and let go of what it has closed; False when that can't be seen."""
        self._looked_ns = now_ns
        if self._pidfd < 0 or not (self._written or self._account.waits_for_closing):
            return True
        try:
            held = pidfd_descriptors(self._pidfd, self._open_files)
            numbers = {number: (status.st_dev, status.st_ino) for number, _, status in held}
        except PermissionError:  # it is about to end, and has given its memory up already: nobody can look any more
            return False
        opened = set(numbers.values())
        for identity in [each for each in self._written if each not in opened]:
            self._let_go(identity)
        self._numbers = {number: identity for number, identity in numbers.items() if identity in self._written}
        self._account.closed(opened, self._written)
        return True

    def _let_go(self, identity: Identity) -> None:
        """Measure a file a last time, that nobody can write to any more."""
        handle = self._written.pop(identity, -1)
        if handle >= 0:
            self._measure_one(identity, handle)
            os.close(handle)

    def _recount_when_due(self, now_ns: int, patience_ns: int = RECOUNT_NS) -> None:
        if now_ns - self._counted_ns >= max(patience_ns, RECOUNT_SHARE * self._recount_cost_ns):
            self._recount()

    def _recount(self) -> None:
        """Walk the component's own directories; what can't be reached any more counts nothing."""
        # Of processor time: on a busy machine a short walk takes long, and the next one needn't wait for that.
        before_ns = time.thread_time_ns()
        if self._directories:
            self._account.begin_recount(self._written)
            walk = Walk(self._account)
            for directory in self._directories:
                with contextlib.suppress(OSError):
                    _walk(directory.rstrip("/"), walk)
            # What can't be looked at could be anything: nothing more is stored until it is removed.
            unknown_bytes = self._account.limit_bytes + 1 if walk.uncounted else 0
            self._account.recounted(walk.lying_bytes + unknown_bytes, walk.lying_objects)
        self._counted_ns = time.monotonic_ns()
        few = self._account.objects <= RECOUNT_FEW
        self._recount_cost_ns = 0 if few else time.thread_time_ns() - before_ns
        self._tell()

    # -- deciding ------------------------------------------------------------------------------------------------------

    def _inside(self, path: str) -> bool:
        return any(path.startswith(directory) for directory in self._directories)

    def _holds(self, path: str) -> bool:
        """Whether one of the component's own directories is this one, or lies in it."""
        return any(directory.startswith(path.rstrip("/") + "/") for directory in self._directories)

    def _is_over(self) -> bool:
        return self._account.usage_bytes > self._account.limit_bytes

    def _refuse(self, fits: _Fits, path: str) -> Refusal | None:
        """Refuse where it doesn't fit, by what is known at most some milliseconds."""
        now_ns = time.monotonic_ns()
        self._measure_written()
        self._recount_when_due(now_ns)
        if not fits():
            # Something may have been closed, or removed by somebody else: nothing is refused for what isn't there.
            self._look(now_ns)
            self._recount_when_due(now_ns, 0)
        self._tell()
        if fits():
            return None
        level = self.level
        words = f"no room is left for it in the storage quota: {level.words} are used"
        if self._account.objects >= OBJECTS_MAX:
            words = f"it has {OBJECTS_MAX} files and directories, the most that a component may have"
        return Refusal(errno.EDQUOT, WRITE, path, "A1501", words, quota=level)

    def _too_many_written(self, path: str) -> Refusal | None:
        if len(self._written) >= WRITABLE_MAX:
            self._look(time.monotonic_ns())
        if len(self._written) < WRITABLE_MAX:
            return None
        reason = f"it holds {WRITABLE_MAX} files open for writing, the most that a component may"
        return Refusal(errno.EMFILE, WRITE, path, "A2007", reason)

    def _tell(self) -> None:
        if self._crossings.status == OK and self._account.usage_bytes < self._calm_bytes:
            return
        level = self.level
        if self._crossings.note(level):
            self._tells.crossed(level)


class _Fits(Protocol):
    def __call__(self) -> bool: ...


def _walk(directory: str, walk: Walk) -> None:
    """Show `walk` everything beneath `directory`, which may be changed by others meanwhile; links are not followed."""
    base = os.open(raw(directory), _DIRECTORY)
    try:
        # Names and the path that they share: paths by themselves could take far more memory than there are names.
        pending = [(b".", b".")]
        while pending and not walk.full:
            parent, name = pending.pop()
            path = parent + b"/" + name
            try:
                pending += [(path, each) for each in _walk_one(base, path, walk)]
            except OSError as error:  # mostly: removed or replaced meanwhile
                # Directories that were moved into one another can get deeper than any path can say.
                walk.uncounted = walk.uncounted or error.errno == errno.ENAMETOOLONG
    finally:
        os.close(base)


def _walk_one(base: int, path: bytes, walk: Walk) -> list[bytes]:
    """Show one directory, and return the names of those in it."""
    descriptor = openat2(base, path, _DIRECTORY, 0, _WITHIN)
    found = []
    try:
        with os.scandir(descriptor) as entries:
            for entry in entries:
                try:
                    seen = _sighted(entry.stat(follow_symlinks=False))
                except FileNotFoundError:
                    continue
                walk.meet(seen.identity, seen.extent, seen.links, seen.is_directory)
                if seen.is_directory:
                    found.append(os.fsencode(entry.name))
    finally:
        os.close(descriptor)
    return found
