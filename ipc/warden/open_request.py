"""What an open(2), openat(2) or openat2(2) of a worker's asks for: its flags, read once. Pure."""

from __future__ import annotations

import errno
from functools import lru_cache
from typing import Final

from ipc.policy.capability import READ, WRITE
from ipc.struct import Struct, force_setattr

# include/uapi/asm-generic/fcntl.h, with the values of x86_64; `normalise_flags` maps aarch64's onto them.
O_WRONLY: Final = 0o1
O_RDWR: Final = 0o2
O_CREAT: Final = 0o100
O_EXCL: Final = 0o200
O_NOCTTY: Final = 0o400
O_TRUNC: Final = 0o1000
O_APPEND: Final = 0o2000
O_NONBLOCK: Final = 0o4000
O_DSYNC: Final = 0o10000
O_DIRECT: Final = 0o40000
O_LARGEFILE: Final = 0o100000
O_DIRECTORY: Final = 0o200000
O_NOFOLLOW: Final = 0o400000
O_NOATIME: Final = 0o1000000
O_CLOEXEC: Final = 0o2000000
O_SYNC: Final = 0o4010000
O_PATH: Final = 0o10000000
O_TMPFILE_BIT: Final = 0o20000000
_AARCH64_FLAGS: Final = ((0o40000, O_DIRECTORY), (0o100000, O_NOFOLLOW), (0o200000, O_DIRECT), (0o400000, O_LARGEFILE))
_KNOWN: Final = (
    O_WRONLY
    | O_RDWR
    | O_CREAT
    | O_EXCL
    | O_NOCTTY
    | O_TRUNC
    | O_APPEND
    | O_NONBLOCK
    | O_DSYNC
    | O_DIRECT
    | O_LARGEFILE
    | O_DIRECTORY
    | O_NOFOLLOW
    | O_NOATIME
    | O_CLOEXEC
    | O_SYNC
    | O_PATH
)
_KEPT: Final = O_APPEND | O_DSYNC | O_SYNC | O_DIRECT | O_NOATIME
"""Flags that a reopened file keeps: they change how, not what may be done."""
RESOLVE_KNOWN: Final = 0x3F
RESOLVE_CACHED: Final = 0x20
PERMISSIONS: Final = 0o777


class OpenRequest(Struct, frozen=True):
    """One open call in words. `path_only` is O_PATH: a descriptor to look at the object, not into it.

    `changes`: it needs the right to write. `actions`: what opening a file this way needs, all of them; none for O_PATH,
    which needs any.
    """

    read: bool
    write: bool
    create: bool
    exclusive: bool
    truncate: bool
    path_only: bool
    directory: bool
    nofollow: bool
    kept_flags: int
    mode: int
    changes: bool = False
    actions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Derive what the checks ask for."""
        changes = self.write or self.truncate or self.create
        needs = (READ, WRITE) if self.read and changes else (WRITE,) if changes else (READ,)
        force_setattr(self, "changes", changes)
        force_setattr(self, "actions", () if self.path_only else needs)


def normalise_flags(flags: int, machine: str) -> int:
    """Return aarch64's open flags with the values of x86_64; others unchanged."""
    if machine != "aarch64":
        return flags
    moved = flags
    for own, _ in _AARCH64_FLAGS:
        moved &= ~own
    for own, common in _AARCH64_FLAGS:
        if flags & own:
            moved |= common
    return moved


@lru_cache(maxsize=256)
def parse_open(flags: int, mode: int, resolve: int, strict: bool) -> OpenRequest | int:
    """Return what an open call asks, or the errno that refuses it.

    `strict` is openat2(2)'s way: unknown flags and a mode without O_CREAT are errors. open(2) ignores them, here they
    are errors in both, as a flag that isn't understood can't be decided; only the mode is ignored.
    """
    if flags & O_TMPFILE_BIT:
        return errno.EOPNOTSUPP
    if flags & ~_KNOWN or resolve & ~RESOLVE_KNOWN:
        return errno.EINVAL
    if resolve & RESOLVE_CACHED:
        return errno.EAGAIN
    create = bool(flags & O_CREAT)
    if strict and (mode & ~0o7777 or (mode and not create)):
        return errno.EINVAL
    if flags & O_PATH:
        if strict and flags & ~(O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC):
            return errno.EINVAL
        return OpenRequest(
            False, False, False, False, False, True, bool(flags & O_DIRECTORY), bool(flags & O_NOFOLLOW), 0, 0
        )
    if create and flags & O_DIRECTORY:
        return errno.EINVAL
    access = flags & (O_WRONLY | O_RDWR)
    both = access in (O_RDWR, O_WRONLY | O_RDWR)  # access mode 3 checks for both, open(2)
    return OpenRequest(
        read=access == 0 or both,
        write=access == O_WRONLY or both,
        create=create,
        exclusive=create and bool(flags & O_EXCL),
        truncate=bool(flags & O_TRUNC),
        path_only=False,
        directory=bool(flags & O_DIRECTORY),
        nofollow=bool(flags & O_NOFOLLOW),
        kept_flags=flags & _KEPT,
        mode=mode & PERMISSIONS if create else 0,
    )
