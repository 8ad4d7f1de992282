"""The C library calls that Python's standard library does not wrap, for `ipc` and `supervisor`: ctypes lives here only.

Every function has a declared prototype, every result is checked, and an error is an OSError with the call's errno.
`syscall(2)` is variadic: each use is a prototype of its own, so that every argument has its kernel width.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
from collections.abc import Iterator
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
CLONE_NEWUSER: Final = 0x1000_0000
CLONE_NEWPID: Final = 0x2000_0000
CLONE_NEWNET: Final = 0x4000_0000

# linux/prctl.h
PR_SET_PDEATHSIG: Final = 1
PR_SET_DUMPABLE: Final = 4
PR_SET_KEEPCAPS: Final = 8
PR_SET_NAME: Final = 15
PR_CAPBSET_READ: Final = 23
PR_CAPBSET_DROP: Final = 24
PR_SET_CHILD_SUBREAPER: Final = 36
PR_SET_NO_NEW_PRIVS: Final = 38
PR_CAP_AMBIENT: Final = 47
PR_CAP_AMBIENT_CLEAR_ALL: Final = 4
PR_CAP_AMBIENT_RAISE: Final = 2

# linux/capability.h
CAP_SYS_PTRACE: Final = 19
CAP_SYS_NICE: Final = 23
CAP_LAST: Final = 63
_CAPABILITY_VERSION_3: Final = 0x2008_0522

# linux/fcntl.h, linux/openat2.h, linux/fs.h
AT_FDCWD: Final = -100
AT_SYMLINK_NOFOLLOW: Final = 0x100
AT_REMOVEDIR: Final = 0x200
AT_SYMLINK_FOLLOW: Final = 0x400
AT_EMPTY_PATH: Final = 0x1000
RESOLVE_NO_XDEV: Final = 0x01
RESOLVE_NO_MAGICLINKS: Final = 0x02
RESOLVE_NO_SYMLINKS: Final = 0x04
RESOLVE_BENEATH: Final = 0x08
RESOLVE_IN_ROOT: Final = 0x10
RESOLVE_CACHED: Final = 0x20
RENAME_NOREPLACE: Final = 1
FALLOC_FL_KEEP_SIZE: Final = 1

# asm-generic/unistd.h; the same on every architecture since Linux 5.0's unified numbering
_NR_PIDFD_GETFD: Final = 438
_NR_OPENAT2: Final = 437


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


class Iovec(ctypes.Structure):
    """`struct iovec`: where a range of memory is and how long; addresses of another process are plain numbers."""

    _fields_ = (("base", _size), ("length", _size))


class _CapabilityHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", _int))


class _CapabilityData(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


def _fail(call: str) -> NoReturn:
    number = ctypes.get_errno()
    raise OSError(number, f"{call}: {os.strerror(number)}")


_unshare = _C.unshare
_unshare.argtypes, _unshare.restype = (_int,), _int
_setns = _C.setns
_setns.argtypes, _setns.restype = (_int, _int), _int
_sched_getcpu = _C.sched_getcpu
_sched_getcpu.argtypes, _sched_getcpu.restype = (), _int
_prctl = _C.prctl
_prctl.argtypes, _prctl.restype = (_int, _ulong, _ulong, _ulong, _ulong), _int
_capget = _C.capget
_capget.argtypes, _capget.restype = (ctypes.POINTER(_CapabilityHeader), ctypes.POINTER(_CapabilityData)), _int
_capset = _C.capset
_capset.argtypes, _capset.restype = (ctypes.POINTER(_CapabilityHeader), ctypes.POINTER(_CapabilityData)), _int
_process_vm_readv = _C.process_vm_readv
_process_vm_readv.argtypes = (_int, _pointer, _ulong, _pointer, _ulong, _ulong)
_process_vm_readv.restype = ctypes.c_ssize_t
_process_vm_writev = _C.process_vm_writev
_process_vm_writev.argtypes = (_int, _pointer, _ulong, _pointer, _ulong, _ulong)
_process_vm_writev.restype = ctypes.c_ssize_t
_renameat2 = _C.renameat2
_renameat2.argtypes, _renameat2.restype = (_int, _chars, _int, _chars, _uint), _int
_getdents64 = _C.getdents64
_getdents64.argtypes, _getdents64.restype = (_int, _pointer, _size), ctypes.c_ssize_t
_statx = _C.statx
_statx.argtypes, _statx.restype = (_int, _chars, _int, _uint, _pointer), _int
_fstatat = getattr(_C, "fstatat64", None) or _C.fstatat
_fstatat.argtypes, _fstatat.restype = (_int, _chars, _pointer, _int), _int
_fstatfs = _C.fstatfs
_fstatfs.argtypes, _fstatfs.restype = (_int, _pointer), _int
_utimensat = _C.utimensat
_utimensat.argtypes, _utimensat.restype = (_int, _chars, _pointer, _int), _int
_fallocate = getattr(_C, "fallocate64", None) or _C.fallocate
_fallocate.argtypes, _fallocate.restype = (_int, _int, ctypes.c_int64, ctypes.c_int64), _int
_openat2 = ctypes.CFUNCTYPE(_long, _long, _long, _chars, ctypes.POINTER(_OpenHow), _size, use_errno=True)(
    ("syscall", _C)
)
_pidfd_getfd = ctypes.CFUNCTYPE(_long, _long, _long, _long, _ulong, use_errno=True)(("syscall", _C))


def unshare(flags: int) -> None:
    """Leave the namespaces named by CLONE_NEW* `flags`, for new ones: unshare(2). Acts on the calling thread."""
    if _unshare(flags):
        _fail("unshare")


def setns(descriptor: int, kind: int) -> None:
    """Join the namespace behind `descriptor`, of CLONE_NEW* `kind`: setns(2). Acts on the calling thread."""
    if _setns(descriptor, kind):
        _fail("setns")


def prctl(option: int, argument: int = 0, argument_3: int = 0) -> int:
    """Set or ask one process attribute: prctl(2)."""
    result: int = _prctl(option, argument, argument_3, 0, 0)
    if result < 0:
        _fail("prctl")
    return result


def current_cpu() -> int:
    """Return the processor that the calling thread runs on: sched_getcpu(3)."""
    result: int = _sched_getcpu()
    if result < 0:
        _fail("sched_getcpu")
    return result


def _header() -> _CapabilityHeader:
    return _CapabilityHeader(_CAPABILITY_VERSION_3, 0)


def permitted_capabilities() -> int:
    """Return the calling thread's permitted capabilities as a bit set: capget(2)."""
    data = (_CapabilityData * 2)()
    if _capget(ctypes.byref(_header()), data):
        _fail("capget")
    return int(data[0].permitted) | int(data[1].permitted) << 32


def set_capabilities(bits: int) -> None:
    """Make `bits` the permitted and effective capabilities of the calling thread, nothing inheritable: capset(2)."""
    data = (_CapabilityData * 2)()
    data[0].effective = data[0].permitted = bits & 0xFFFF_FFFF
    data[1].effective = data[1].permitted = bits >> 32
    if _capset(ctypes.byref(_header()), data):
        _fail("capset")


def keep_capabilities_over_exec() -> None:
    """Make every permitted capability of the calling thread ambient, so that execve(2) as an ordinary user keeps it."""
    bits = permitted_capabilities()
    data = (_CapabilityData * 2)()
    for half, shift in enumerate((0, 32)):
        word = bits >> shift & 0xFFFF_FFFF
        data[half].effective = data[half].permitted = data[half].inheritable = word
    if _capset(ctypes.byref(_header()), data):
        _fail("capset")
    for capability in range(CAP_LAST + 1):
        if bits >> capability & 1 and _prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0):
            _fail("prctl(PR_CAP_AMBIENT_RAISE)")


def drop_bounding_set() -> None:
    """Empty the capability bounding set, so that no execve(2) brings one back; needs CAP_SETPCAP."""
    for capability in range(CAP_LAST + 1):
        if _prctl(PR_CAPBSET_READ, capability, 0, 0, 0) == 1 and _prctl(PR_CAPBSET_DROP, capability, 0, 0, 0):
            _fail("prctl(PR_CAPBSET_DROP)")


@functools.lru_cache(maxsize=256)
def _how(flags: int, mode: int, resolve: int) -> _OpenHow:
    return _OpenHow(flags, mode, resolve)


def openat2(directory: int, path: bytes, flags: int, mode: int, resolve: int) -> int:
    """Open `path` beneath `directory` with RESOLVE_* rules, one of a few combinations of ours: openat2(2)."""
    result: int = _openat2(_NR_OPENAT2, directory, path, _how(flags, mode, resolve), 24)
    if result < 0:
        _fail("openat2")
    return result


def pidfd_getfd(pidfd: int, descriptor: int) -> int:
    """Duplicate another process's descriptor, sharing its open file description: pidfd_getfd(2)."""
    result: int = _pidfd_getfd(_NR_PIDFD_GETFD, pidfd, descriptor, 0)
    if result < 0:
        _fail("pidfd_getfd")
    return result


def pidfd_descriptors(pidfd: int, numbers: int) -> Iterator[tuple[int, int, os.stat_result]]:
    """Yield each number below `numbers` under which another process holds something, a duplicate, and its fstat(2).

    Each is closed with the next step. Nothing when the process has ended. Takes a millisecond for a thousand numbers.
    Raises OSError when one can't be looked at: pidfd_getfd(2).
    """
    for number in range(numbers):
        duplicate: int = _pidfd_getfd(_NR_PIDFD_GETFD, pidfd, number, 0)
        if duplicate >= 0:
            try:
                yield number, duplicate, os.fstat(duplicate)
            finally:
                os.close(duplicate)
        elif ctypes.get_errno() == errno.ESRCH:
            return
        elif ctypes.get_errno() != errno.EBADF:
            _fail("pidfd_getfd")


def renameat2(old_directory: int, old: bytes, new_directory: int, new: bytes, flags: int) -> None:
    """Rename with RENAME_* flags: renameat2(2)."""
    if _renameat2(old_directory, old, new_directory, new, flags):
        _fail("renameat2")


def fallocate(descriptor: int, mode: int, offset: int, length_bytes: int) -> None:
    """Allocate blocks of a file without writing to them: fallocate(2). ENOSPC when there is no room."""
    if _fallocate(descriptor, mode, offset, length_bytes):
        _fail("fallocate")


def utimensat(directory: int, path: bytes, times: bytes | None, flags: int) -> None:
    """Set access and modification time from two raw `struct timespec`, None is now: utimensat(2)."""
    if _utimensat(directory, path, times, flags):
        _fail("utimensat")


class Buffer:
    """A fixed piece of memory for calls that fill one; `view` reads it in place."""

    __slots__ = ("_raw", "address", "length", "view")

    def __init__(self, length: int) -> None:
        """Allocate `length` bytes."""
        self._raw = ctypes.create_string_buffer(length)
        self.address = ctypes.addressof(self._raw)
        self.length = length
        self.view = memoryview(self._raw).cast("B")

    def getdents64(self, descriptor: int, length: int) -> int:
        """Read directory entries, at most `length` bytes; 0 at the end: getdents64(2)."""
        result: int = _getdents64(descriptor, self.address, min(length, self.length))
        if result < 0:
            _fail("getdents64")
        return result

    def statx(self, directory: int, path: bytes, flags: int, mask: int) -> None:
        """Fill in a `struct statx` (256 bytes): statx(2)."""
        if _statx(directory, path, flags, mask, self.address):
            _fail("statx")

    def fstatat(self, directory: int, path: bytes, flags: int) -> None:
        """Fill in a `struct stat` (144 bytes on x86_64, 128 on aarch64): fstatat(2)."""
        if _fstatat(directory, path, self.address, flags):
            _fail("fstatat")

    def fstatfs(self, descriptor: int) -> int:
        """Fill in a `struct statfs` (120 bytes on 64-bit machines) and return the file system's magic: fstatfs(2)."""
        if _fstatfs(descriptor, self.address):
            _fail("fstatfs")
        return int.from_bytes(self.view[:8], "little")


class RemoteMemory:
    """Copies between a buffer of ours and the memory of another process: process_vm_readv(2), process_vm_writev(2).

    Needs what ptrace(2) attaching needs. One instance is used by one thread.
    """

    __slots__ = ("_local", "_local_address", "_remote", "_remote_address", "buffer")

    def __init__(self, length: int) -> None:
        """Allocate the local buffer of `length` bytes."""
        self.buffer = Buffer(length)
        self._local = Iovec(self.buffer.address, self.buffer.length)
        self._remote = Iovec(0, 0)
        self._local_address = ctypes.addressof(self._local)
        self._remote_address = ctypes.addressof(self._remote)

    def read(self, pid: int, address: int, length: int) -> int:
        """Copy up to `length` bytes from `address` of `pid` to the start of the buffer; returns how many."""
        self._remote.base = address
        self._remote.length = length
        count: int = _process_vm_readv(pid, self._local_address, 1, self._remote_address, 1, 0)
        if count < 0:
            _fail("process_vm_readv")
        return count

    def read_both(self, pid: int, one: tuple[int, int], other: tuple[int, int]) -> int:
        """Copy two ranges (address, length), one behind the other, to the start of the buffer; returns how many bytes.

        Both must fit in. Ends early, at the end of a range, where memory is missing.
        """
        if one[1] + other[1] > self.buffer.length:
            raise ValueError("the ranges don't fit in")
        ranges = (Iovec * 2)(Iovec(*one), Iovec(*other))
        count: int = _process_vm_readv(pid, self._local_address, 1, ctypes.addressof(ranges), 2, 0)
        if count < 0:
            _fail("process_vm_readv")
        return count

    def write(self, pid: int, address: int, source: Buffer, length: int) -> int:
        """Copy `length` bytes from the start of `source` to `address` of `pid`; returns how many."""
        local = Iovec(source.address, min(length, source.length))
        self._remote.base = address
        self._remote.length = local.length
        count: int = _process_vm_writev(pid, ctypes.addressof(local), 1, self._remote_address, 1, 0)
        if count < 0:
            _fail("process_vm_writev")
        return count
