"""The C library calls that a worker needs to confine itself: ctypes lives here, libseccomp in `filter_compiler`.

Every function has a declared prototype, every result is checked, and an error is an OSError with the call's errno.
`syscall(2)` is variadic: each use is a prototype of its own, so that every argument has its kernel width.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Sequence
from typing import Final, NoReturn

_C: Final = ctypes.CDLL(None, use_errno=True)
_int, _uint, _long, _ulong, _size, _chars, _pointer = (
    ctypes.c_int,
    ctypes.c_uint,
    ctypes.c_long,
    ctypes.c_ulong,
    ctypes.c_size_t,
    ctypes.c_char_p,
    ctypes.c_void_p,
)

# sched.h
CLONE_NEWNS: Final = 0x0002_0000
CLONE_NEWUTS: Final = 0x0400_0000
CLONE_NEWIPC: Final = 0x0800_0000
CLONE_NEWPID: Final = 0x2000_0000
CLONE_NEWNET: Final = 0x4000_0000

# sys/mount.h
MS_RDONLY: Final = 0x1
MS_NOSUID: Final = 0x2
MS_NODEV: Final = 0x4
MS_NOEXEC: Final = 0x8
MS_REMOUNT: Final = 0x20
MS_BIND: Final = 0x1000
MS_REC: Final = 0x4000
MS_PRIVATE: Final = 0x4_0000
MNT_DETACH: Final = 0x2

# linux/prctl.h
PR_SET_PDEATHSIG: Final = 1
PR_SET_DUMPABLE: Final = 4
PR_SET_NAME: Final = 15
PR_CAPBSET_READ: Final = 23
PR_CAPBSET_DROP: Final = 24
PR_SET_NO_NEW_PRIVS: Final = 38
PR_CAP_AMBIENT: Final = 47
PR_CAP_AMBIENT_CLEAR_ALL: Final = 4
PR_SET_PTRACER: Final = 0x5961_6D61

# malloc.h
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8

# linux/capability.h
CAP_LAST: Final = 63
_CAPABILITY_VERSION_3: Final = 0x2008_0522

# linux/seccomp.h
SECCOMP_SET_MODE_FILTER: Final = 1
SECCOMP_FILTER_FLAG_TSYNC: Final = 1 << 0
SECCOMP_FILTER_FLAG_NEW_LISTENER: Final = 1 << 3
SECCOMP_FILTER_FLAG_TSYNC_ESRCH: Final = 1 << 4
SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV: Final = 1 << 5

# linux/landlock.h
LANDLOCK_CREATE_RULESET_VERSION: Final = 1
LANDLOCK_RULE_PATH_BENEATH: Final = 1

# sys/mman.h
MADV_DONTNEED: Final = 4
PROT_NONE: Final = 0
PROT_READ_WRITE: Final = 3
PROT_READ_EXECUTE: Final = 5
_MAP_PRIVATE_ANONYMOUS_NORESERVE: Final = 0x2 | 0x20 | 0x4000

# arch/x86/entry/syscalls/syscall_64.tbl, include/uapi/asm-generic/unistd.h
_NR_SECCOMP: Final = {"x86_64": 317, "aarch64": 277}
_NR_PIVOT_ROOT: Final = {"x86_64": 155, "aarch64": 41}
_NR_CLOSE_RANGE: Final = 436
_NR_LANDLOCK_CREATE_RULESET: Final = 444
_NR_LANDLOCK_ADD_RULE: Final = 445
_NR_LANDLOCK_RESTRICT_SELF: Final = 446
_NR_MSEAL: Final = 462
_MACHINE: Final = os.uname().machine


class _CapabilityHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", _int))


class _CapabilityData(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


class _FilterProgram(ctypes.Structure):
    """`struct sock_fprog`: number of instructions, where they are."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", _chars))


class _RulesetAttributes(ctypes.Structure):
    """`struct landlock_ruleset_attr` as of ABI 6; older kernels take its beginning."""

    _fields_ = (("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathBeneath(ctypes.Structure):
    """`struct landlock_path_beneath_attr`, which is packed."""

    _pack_ = 1
    _fields_ = (("rights", ctypes.c_uint64), ("directory", ctypes.c_int32))


_unshare = _C.unshare
_unshare.argtypes, _unshare.restype = (_int,), _int
_mount = _C.mount
_mount.argtypes, _mount.restype = (_chars, _chars, _chars, _ulong, _chars), _int
_umount2 = _C.umount2
_umount2.argtypes, _umount2.restype = (_chars, _int), _int
_mmap = _C.mmap
_mmap.argtypes, _mmap.restype = (_pointer, _size, _int, _int, _int, ctypes.c_int64), _size
_munmap = _C.munmap
_munmap.argtypes, _munmap.restype = (_size, _size), _int
_mprotect = _C.mprotect
_mprotect.argtypes, _mprotect.restype = (_size, _size, _int), _int
_madvise = _C.madvise
_madvise.argtypes, _madvise.restype = (_size, _size, _int), _int
_prctl = _C.prctl
_prctl.argtypes, _prctl.restype = (_int, _ulong, _ulong, _ulong, _ulong), _int
_capset = _C.capset
_capset.argtypes, _capset.restype = (ctypes.POINTER(_CapabilityHeader), ctypes.POINTER(_CapabilityData)), _int
_seccomp = ctypes.CFUNCTYPE(_long, _long, _uint, _uint, ctypes.POINTER(_FilterProgram), use_errno=True)(("syscall", _C))
_pivot_root = ctypes.CFUNCTYPE(_long, _long, _chars, _chars, use_errno=True)(("syscall", _C))
_close_range = ctypes.CFUNCTYPE(_long, _long, _uint, _uint, _uint, use_errno=True)(("syscall", _C))
_mseal = ctypes.CFUNCTYPE(_long, _long, _ulong, _size, _ulong, use_errno=True)(("syscall", _C))
_landlock_create_ruleset = ctypes.CFUNCTYPE(
    _long, _long, ctypes.POINTER(_RulesetAttributes), _size, _uint, use_errno=True
)(("syscall", _C))
_landlock_add_rule = ctypes.CFUNCTYPE(_long, _long, _int, _uint, ctypes.POINTER(_PathBeneath), _uint, use_errno=True)(
    ("syscall", _C)
)
_landlock_restrict_self = ctypes.CFUNCTYPE(_long, _long, _int, _uint, use_errno=True)(("syscall", _C))


def _fail(call: str) -> NoReturn:
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number), call)


def unshare(flags: int) -> None:
    """Leave the namespaces named by CLONE_NEW* `flags`, for new ones: unshare(2)."""
    if _unshare(flags):
        _fail("unshare")


def mount(source: bytes | None, target: bytes, kind: bytes | None, flags: int, data: bytes | None = None) -> None:
    """Attach a file system: mount(2)."""
    if _mount(source, target, kind, flags, data):
        _fail("mount")


def detach_mount(target: bytes) -> None:
    """Detach a mount and all beneath it: umount2(2) with MNT_DETACH."""
    if _umount2(target, MNT_DETACH):
        _fail("umount2")


def pivot_root(new_root: bytes, put_old: bytes) -> None:
    """Change the root mount of the mount namespace: pivot_root(2)."""
    if _pivot_root(_NR_PIVOT_ROOT[_MACHINE], new_root, put_old) < 0:
        _fail("pivot_root")


def prctl(option: int, argument: int = 0) -> int:
    """Set or ask one process attribute: prctl(2)."""
    result: int = _prctl(option, argument, 0, 0, 0)
    if result < 0:
        _fail("prctl")
    return result


def bound_arenas(count: int) -> None:
    """Let malloc(3) have so many arenas (mallopt(3), M_ARENA_MAX); nothing where the C library has no such thing.

    Else glibc opens /sys/devices/system/cpu/online and /proc/stat to choose a bound once a ninth thread wants one.
    """
    with contextlib.suppress(AttributeError):
        _C.mallopt(_int(_M_ARENA_MAX), _int(count))


def give_back_blocks(least_bytes: int) -> None:
    """Have malloc(3) map each block of so many bytes by itself, so that free(3) gives it back (mallopt(3)).

    Else glibc moves that bound up with each large block that is freed, and keeps them in holes of its heap.
    """
    with contextlib.suppress(AttributeError):
        _C.mallopt(_int(_M_MMAP_THRESHOLD), _int(least_bytes))


def drop_all_capabilities() -> None:
    """Empty the permitted, effective and inheritable sets of this thread: capset(2)."""
    header = _CapabilityHeader(_CAPABILITY_VERSION_3, 0)
    if _capset(ctypes.byref(header), (_CapabilityData * 2)()):
        _fail("capset")


def reserve(length: int) -> int:
    """Reserve address space that can't be touched; returns its address: mmap(2)."""
    address: int = _mmap(None, length, PROT_NONE, _MAP_PRIVATE_ANONYMOUS_NORESERVE, -1, 0)
    if address == _size(-1).value:
        _fail("mmap")
    return address


def release(address: int, length: int) -> None:
    """Give a reservation back: munmap(2)."""
    if _munmap(address, length):
        _fail("munmap")


def make_usable(address: int, length: int) -> None:
    """Make the beginning of a reservation readable and writable; counts towards RLIMIT_DATA: mprotect(2)."""
    if _mprotect(address, length, PROT_READ_WRITE):
        _fail("mprotect")


def make_unwritable(address: int, length: int) -> None:
    """Let a mapping be read and executed, and no longer written to: mprotect(2)."""
    if _mprotect(address, length, PROT_READ_EXECUTE):
        _fail("mprotect")


def drop_pages(address: int, length: int) -> None:
    """Drop the pages of a mapping: what was a file's is read again when it is touched: madvise(2), MADV_DONTNEED."""
    if _madvise(address, length, MADV_DONTNEED):
        _fail("madvise")


def mseal(address: int, length: int) -> None:
    """Make mappings immutable in place and rights, in this process and its children: mseal(2), Linux 6.10."""
    if _mseal(_NR_MSEAL, address, length, 0) < 0:
        _fail("mseal")


def set_filter(flags: int, program: bytes) -> int:
    """Install a seccomp filter of raw BPF instructions; returns the listener with NEW_LISTENER, else 0: seccomp(2)."""
    result: int = _seccomp(
        _NR_SECCOMP[_MACHINE], SECCOMP_SET_MODE_FILTER, flags, ctypes.byref(_FilterProgram(len(program) // 8, program))
    )
    if result < 0:
        _fail("seccomp")
    return result


def close_range(first: int, last: int) -> None:
    """Close descriptors `first` to `last` inclusive: close_range(2); kernels before 5.9 lack it."""
    if _close_range(_NR_CLOSE_RANGE, first, last, 0) < 0:
        _fail("close_range")


def landlock_abi() -> int:
    """Return the kernel's Landlock ABI version; OSError with ENOSYS or EOPNOTSUPP where there is none: landlock(7)."""
    result: int = _landlock_create_ruleset(_NR_LANDLOCK_CREATE_RULESET, None, 0, LANDLOCK_CREATE_RULESET_VERSION)
    if result < 0:
        _fail("landlock_create_ruleset")
    return result


def landlock_deny(fs: int, net: int, scoped: int, attributes_bytes: int, but: Sequence[tuple[int, int]] = ()) -> None:
    """Take the given rights from this thread and what it starts: landlock_restrict_self(2).

    `but` are the exceptions, (descriptor of a directory, rights of `fs` that stay beneath it) each.
    """
    attributes = _RulesetAttributes(fs, net, scoped)
    ruleset: int = _landlock_create_ruleset(_NR_LANDLOCK_CREATE_RULESET, ctypes.byref(attributes), attributes_bytes, 0)
    if ruleset < 0:
        _fail("landlock_create_ruleset")
    try:
        for directory, rights in but:
            rule = _PathBeneath(rights, directory)
            if (
                _landlock_add_rule(_NR_LANDLOCK_ADD_RULE, ruleset, LANDLOCK_RULE_PATH_BENEATH, ctypes.byref(rule), 0)
                < 0
            ):
                _fail("landlock_add_rule")
        if _landlock_restrict_self(_NR_LANDLOCK_RESTRICT_SELF, ruleset, 0) < 0:
            _fail("landlock_restrict_self")
    finally:
        os.close(ruleset)
