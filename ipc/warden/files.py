"""From a descriptor and a path to an object that is held open, and its real path: everything is decided on those.

Nothing here decides. Objects are held by O_PATH descriptors, which give no access to their contents, until the call is
answered; what is done later is done to the very object that was judged. path_resolution(7), openat2(2), proc(5).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from typing import Final

from ipc.libc import (
    RESOLVE_BENEATH,
    RESOLVE_IN_ROOT,
    RESOLVE_NO_MAGICLINKS,
    Buffer,
    openat2,
)
from ipc.struct import Struct
from ipc.warden.decide import Facts, special_filesystem
from ipc.warden.held_objects import join, raw, real_path, text
from ipc.warden.identities import ForbiddenIdentities

_DELETED: Final = " (deleted)"
_HANDLE: Final = os.O_PATH | os.O_CLOEXEC
STAND_IN: Final = "stand-in-"
_LINKS_MAX: Final = 40
"""As many symbolic links are followed in one path as Linux follows."""
_CLIMBS_MAX: Final = 40
"""`..` after a name, in one path: each is judged, and holds a descriptor of ours until the call is answered."""
_PATH_MAX: Final = 4096
_RETRIES: Final = 16


class Base(Struct, frozen=True):
    """Where a path starts: a directory that is held open. `resolve` is how paths below are bound."""

    descriptor: int
    resolve: int = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS

    @property
    def path(self) -> str:
        """Its real path, asked of the kernel now: most paths lead somewhere, and then nobody needs it."""
        return real_path(self.descriptor)


class Found(Struct, frozen=True):
    """An object that is held open."""

    descriptor: int
    path: str
    facts: Facts
    identity: tuple[int, int]


class Unresolved(Struct, frozen=True):
    """A path that leads to nothing: `errno`, and the real path that it would have.

    `escaped`: it leaves its base, and `link` is the symbolic link by which it does; empty where `..` in the path does.
    """

    errno: int
    path: str
    escaped: bool = False
    link: str = ""


class Place(Struct, frozen=True):
    """A name in a directory that is held open. `must_be_directory` when the path ended with a slash."""

    parent: Found
    name: bytes
    path: str
    must_be_directory: bool


class StandIn(Struct, frozen=True):
    """An empty directory that a worker holds in place of `directory`, on which nothing was granted."""

    descriptor: int
    directory: int


def _is_unlinked(path: str, status: os.stat_result) -> bool:
    """Tell an object whose name is gone (the kernel adds a word to it) from one that is really named like that."""
    try:
        named = os.lstat(raw(path))
    except OSError:
        return True
    return (named.st_dev, named.st_ino) != (status.st_dev, status.st_ino)


def _stand_in_prefix(path: str) -> str:
    """Return how the name of a stand-in for the mount of this host path begins."""
    return f"{STAND_IN}{hashlib.blake2b(raw(path), digest_size=16).hexdigest()}-"


class Files:
    """Objects of one worker's call in hand, and the roots that the worker holds; used by one thread."""

    __slots__ = ("_forbidden", "_lifted", "_opened", "_root", "_scratch", "_stand_ins", "_statfs", "roots")

    def __init__(self, scratch_directory: str, forbidden: ForbiddenIdentities, lifted: tuple[str, ...]) -> None:
        """`scratch_directory` is where stand-ins are made; `lifted` names guarded paths that the host lifted."""
        self._scratch = scratch_directory
        self._forbidden = forbidden
        self._lifted = lifted
        self._opened: list[int] = []
        self._statfs = Buffer(128)
        self._root = os.open("/", _HANDLE | os.O_DIRECTORY)
        self._stand_ins: dict[tuple[int, int], StandIn] = {}
        self.roots: dict[str, int] = {}
        """Host path of each mount → our handle on it."""

    def keep(self, descriptor: int) -> int:
        """Close this descriptor when the call in hand is answered."""
        self._opened.append(descriptor)
        return descriptor

    def release(self) -> None:
        """Close what was opened for the call in hand."""
        for descriptor in self._opened:
            os.close(descriptor)
        self._opened.clear()

    def add_root(self, path: str) -> int:
        """Hold a mount's directory; raises OSError when it can't be opened by this identity."""
        if path not in self.roots:
            self.roots[path] = os.open(raw(path), _HANDLE | os.O_DIRECTORY)
        return self.roots[path]

    def stand_in_for(self, root: int) -> int:
        """Return a descriptor of an empty, unlinked directory that is recognised as standing for `root`."""
        for stand_in in self._stand_ins.values():
            if stand_in.directory == root:
                return stand_in.descriptor
        name = f"{self._scratch}/{_stand_in_prefix(self._host_path(root))}{os.urandom(8).hex()}"
        os.mkdir(name, 0o700)
        try:
            descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        finally:
            os.rmdir(name)
        status = os.fstat(descriptor)
        self._stand_ins[status.st_dev, status.st_ino] = StandIn(descriptor, root)
        return descriptor

    def root_base(self) -> Base:
        """Return where absolute paths start; symbolic links to absolute paths are followed from there."""
        return Base(self._root, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)

    def base_of(self, descriptor: int) -> Base | Unresolved:
        """Return where paths relative to this descriptor start; the descriptor is a duplicate of the worker's."""
        status = os.fstat(descriptor)
        if not stat.S_ISDIR(status.st_mode):
            return Unresolved(errno.ENOTDIR, real_path(descriptor))
        stand_in = self._stand_ins.get((status.st_dev, status.st_ino))
        if stand_in is None and not status.st_nlink:
            stand_in = self._adopt(descriptor, status)
        if stand_in is not None:
            return Base(stand_in.directory)
        if not status.st_nlink:
            path = real_path(descriptor)
            if path[-10:] == _DELETED and _is_unlinked(path, status):
                return Unresolved(errno.ENOENT, path.removesuffix(_DELETED))
        return Base(descriptor)

    def stand_in_of(self, descriptor: int) -> int | None:
        """Return our handle on the directory that this descriptor stands for, if it is a stand-in."""
        status = os.fstat(descriptor)
        if status.st_nlink:
            return None
        found = self._stand_ins.get((status.st_dev, status.st_ino)) or self._adopt(descriptor, status)
        return found.directory if found else None

    def _adopt(self, descriptor: int, status: os.stat_result) -> StandIn | None:
        """Recognise a stand-in that a warden before this one made, by the name that it had; None for all else.

        Nobody but a warden makes anything in the scratch directory: it is private, and no grant covers it.
        """
        directory, _, name = real_path(descriptor).rpartition("/")
        if not name.startswith(STAND_IN) or directory != self._real_scratch():
            return None
        for path, root in self.roots.items():
            if name.startswith(_stand_in_prefix(path)):
                stand_in = StandIn(os.dup(descriptor), root)
                self._stand_ins[status.st_dev, status.st_ino] = stand_in
                return stand_in
        return None

    def _host_path(self, root: int) -> str:
        return next((path for path, descriptor in self.roots.items() if descriptor == root), "")

    def _real_scratch(self) -> str:
        descriptor = os.open(self._scratch, _HANDLE | os.O_DIRECTORY)
        with contextlib.closing(_Closing(descriptor)):
            return real_path(descriptor)

    def held(self, descriptor: int) -> Found:
        """Describe the object behind one of our descriptors."""
        status = os.fstat(descriptor)
        path = real_path(descriptor)
        # Some FUSE file systems say 0 links of files that have a name: the name decides.
        links = status.st_nlink or 1
        if path[-10:] == _DELETED and _is_unlinked(path, status):
            path = path.removesuffix(_DELETED)
            links = 0
        facts = self._facts(descriptor, status, path, links)
        return Found(descriptor, path, facts, (status.st_dev, status.st_ino))

    def look(self, base: Base, path: bytes, nofollow: bool, resolve: int = 0) -> Found | Unresolved:
        """Hold the object at `path`, a symbolic link itself where `nofollow`; `resolve` adds the caller's bounds."""
        bounds = base.resolve | resolve
        if resolve & RESOLVE_IN_ROOT:
            bounds &= ~RESOLVE_BENEATH
        descriptor = self._open(base.descriptor, path, nofollow, bounds)
        if isinstance(descriptor, OSError):
            number = descriptor.errno or errno.EIO
            return self._unresolved(base, path, nofollow, bounds, number)
        self._opened.append(descriptor)
        return self.held(descriptor)

    def place(self, base: Base, path: bytes) -> Place | Unresolved:
        """Hold the directory in which `path` names something; the last name is not followed, and need not exist."""
        stripped = path.rstrip(b"/")
        slash = len(stripped) < len(path)
        directory, _, name = stripped.rpartition(b"/")
        if name in (b"", b".", b".."):
            number = errno.ENOENT if not path else errno.EINVAL if name == b"." else errno.ENOTEMPTY
            return Unresolved(number, base.path)
        parent = self.look(base, directory or b".", nofollow=False)
        if isinstance(parent, Unresolved):
            return Unresolved(parent.errno, join(parent.path, text(name)), parent.escaped, parent.link)
        if not parent.facts.is_directory:
            return Unresolved(errno.ENOTDIR, join(parent.path, text(name)))
        return Place(parent, name, join(parent.path, text(name)), slash)

    def at(self, place: Place) -> Found | None:
        """Hold what stands at a place, a symbolic link itself; None when there is nothing."""
        try:
            descriptor = os.open(place.name, _HANDLE | os.O_NOFOLLOW, dir_fd=place.parent.descriptor)
        except FileNotFoundError:
            return None
        found = self.held(self.keep(descriptor))
        return Found(found.descriptor, place.path, found.facts, found.identity)

    def climbs(self, base: Base, path: bytes) -> list[Found | Unresolved]:
        """Return every directory that `path` leaves again by `..`: passing through tells that it exists.

        Raises OSError with ENAMETOOLONG for more than `_CLIMBS_MAX` of them.
        """
        parts = path.split(b"/")
        first = next((position for position, part in enumerate(parts) if part not in (b"", b".", b"..")), len(parts))
        left = [position for position, part in enumerate(parts) if part == b".." and position > first]
        if len(left) > _CLIMBS_MAX:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        return [self.look(base, b"/".join(parts[:position]), nofollow=False) for position in left]

    def close(self) -> None:
        """Close everything."""
        self.release()
        for descriptor in (self._root, *self.roots.values(), *(s.descriptor for s in self._stand_ins.values())):
            os.close(descriptor)
        self.roots.clear()
        self._stand_ins.clear()

    def _facts(self, descriptor: int, status: os.stat_result, path: str, links: int) -> Facts:
        special = ""
        # What is an interface and not files has no device, so its number is an anonymous one: major 0 (get_anon_bdev).
        if not os.major(status.st_dev):
            special = special_filesystem(self._statfs.fstatfs(descriptor))
            if special and self._lifted and self._is_lifted(path):
                special = ""
        forbidden, write_forbidden = self._forbidden.find(status)
        return Facts(status.st_mode, links, special, forbidden, write_forbidden)

    def _is_lifted(self, path: str) -> bool:
        return any(lifted == path or lifted.startswith(path.rstrip("/") + "/") for lifted in self._lifted)

    def _open(self, directory: int, path: bytes, nofollow: bool, resolve: int) -> int | OSError:
        flags = _HANDLE | os.O_NOFOLLOW if nofollow else _HANDLE
        retries = _RETRIES
        while True:
            try:
                return openat2(directory, path, flags, 0, resolve)
            except OSError as error:
                retries -= 1
                if error.errno != errno.EAGAIN or not retries:  # EAGAIN: a rename raced with a `..` in the path
                    return error

    def _unresolved(self, base: Base, path: bytes, nofollow: bool, resolve: int, number: int) -> Unresolved:
        located = None if number == errno.EXDEV else self._locate(base, path, resolve, number, _LINKS_MAX)
        if located is not None:
            return located
        link = self._escapes_by(base, path, resolve)
        return Unresolved(errno.EXDEV, self._escaped_to(base, path, nofollow), escaped=True, link=link)

    def _escaped_to(self, base: Base, path: bytes, nofollow: bool) -> str:
        """Name where an escaping path leads, for the record only: the object is held for a moment, never used."""
        descriptor = self._open(base.descriptor, path, nofollow, RESOLVE_NO_MAGICLINKS)
        if isinstance(descriptor, int):
            with contextlib.closing(_Closing(descriptor)):
                return real_path(descriptor)
        return os.path.normpath(os.path.join(base.path, text(path)))

    def _escapes_by(self, base: Base, path: bytes, resolve: int) -> str:
        """Return the symbolic link by which a path leaves its base; empty where it does so by its own `..`."""
        parts = path.split(b"/")
        longest = self._longest(base, parts, resolve)
        if longest is None:
            return ""
        count, descriptor = longest
        with contextlib.closing(_Closing(descriptor)):
            rest = [part for part in parts[count:] if part not in (b"", b".")]
            return "" if not rest or rest[0] == b".." else join(real_path(descriptor), text(rest[0]))

    def _longest(self, base: Base, parts: list[bytes], resolve: int) -> tuple[int, int] | None:
        """Return how many of these parts lead somewhere, not all of them, and a descriptor of that place.

        Found by halving: where some parts lead somewhere, so do fewer. None when not even the start can be had.
        """
        found: tuple[int, int] | None = None
        low, high = 0, len(parts) - 1
        count = high  # mostly it is the last name that isn't there
        while low <= high:
            prefix = b"/".join(parts[:count]) or (b"." if parts[0] or len(parts) == 1 else b"/")
            descriptor = self._open(base.descriptor, prefix, False, resolve)
            if isinstance(descriptor, OSError):
                high = count - 1
            else:
                if found is not None:
                    os.close(found[1])
                found = (count, descriptor)
                low = count + 1
            count = (low + high) // 2
        return found

    def _locate(self, base: Base, path: bytes, resolve: int, number: int, links: int) -> Unresolved | None:
        """Say which real path an unresolvable path would have; None when it would leave its base.

        The longest part that resolves is followed by the kernel, a symbolic link that leads nowhere by hand.
        """
        parts = path.split(b"/")
        longest = self._longest(base, parts, resolve)
        if longest is None:
            # Even the start may not be passed through by this identity: nothing was followed, the name is as it was
            # said.
            named = [part for part in parts if part not in (b"", b".")]
            if b".." in named:
                return None
            return Unresolved(number, join(base.path, text(b"/".join(named))) if named else base.path)
        count, descriptor = longest
        with contextlib.closing(_Closing(descriptor)):
            real = real_path(descriptor)
            rest = [part for part in parts[count:] if part not in (b"", b".")]
            if not rest:
                return Unresolved(number, real)
            target = self._link(descriptor, rest[0])
        if target is None:
            known = rest[: rest.index(b"..")] if b".." in rest else rest
            return Unresolved(number, join(real, text(b"/".join(known))) if known else real)
        if not links:
            return Unresolved(number, join(real, text(rest[0])))
        if target[:1] == b"/" and not resolve & RESOLVE_IN_ROOT:
            return None
        prefix = b"/".join(parts[:count]) or (b"." if parts[0] or len(parts) == 1 else b"/")
        onward = b"/".join([target if target[:1] == b"/" else prefix + b"/" + target, *rest[1:]])
        if len(onward) > _PATH_MAX:
            # The kernel goes on, we don't: links that lead to links could make this as long as they like. What is not
            # known is answered like what is not granted.
            return Unresolved(errno.EACCES, join(real, text(rest[0])))
        return self._locate(base, onward, resolve, number, links - 1)

    @staticmethod
    def _link(directory: int, name: bytes) -> bytes | None:
        try:
            return os.readlink(name, dir_fd=directory)
        except OSError:
            return None


class _Closing:
    """A descriptor as a context."""

    __slots__ = ("_descriptor",)

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def close(self) -> None:
        os.close(self._descriptor)
