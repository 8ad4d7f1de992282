"""The supervisor's own ctypes: the calls that only the probes of `airssys doctor` make; the rest is in `ipc.libc`.

Nothing here confines anything. Every function has a declared prototype and raises OSError with the call's errno.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
from typing import Final, NoReturn

_int, _uint, _long, _ulong, _pointer = ctypes.c_int, ctypes.c_uint, ctypes.c_long, ctypes.c_ulong, ctypes.c_void_p

_C: Final = ctypes.CDLL(None, use_errno=True)
# syscall(2) is variadic: each use is a prototype of its own, so that every argument has its kernel width.
_seccomp = ctypes.CFUNCTYPE(_long, _long, _uint, _uint, _pointer, use_errno=True)(("syscall", _C))
_create_ruleset = ctypes.CFUNCTYPE(_long, _long, _pointer, ctypes.c_size_t, _uint, use_errno=True)(("syscall", _C))
_restrict_self = ctypes.CFUNCTYPE(_long, _long, _int, _uint, use_errno=True)(("syscall", _C))
_mseal = ctypes.CFUNCTYPE(_long, _long, _ulong, ctypes.c_size_t, _ulong, use_errno=True)(("syscall", _C))
_ioctl = _C.ioctl
_ioctl.argtypes, _ioctl.restype = (_int, _ulong, _ulong), _int

# arch/x86/entry/syscalls/syscall_64.tbl, include/uapi/asm-generic/unistd.h
_NR_SECCOMP: Final = {"x86_64": 317, "aarch64": 277}.get(os.uname().machine)
_NR_LANDLOCK_CREATE_RULESET: Final = 444
_NR_LANDLOCK_RESTRICT_SELF: Final = 446
_NR_MSEAL: Final = 462

# linux/seccomp.h, linux/landlock.h
_SECCOMP_SET_MODE_FILTER: Final = 1
_SECCOMP_RET_ALLOW: Final = 0x7FFF_0000
_SECCOMP_IOCTL_NOTIF_SET_FLAGS: Final = 0x4008_2104
_LANDLOCK_CREATE_RULESET_VERSION: Final = 1
_BPF_RET: Final = 0x06


class _Instruction(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint16), ("jt", ctypes.c_uint8), ("jf", ctypes.c_uint8), ("k", ctypes.c_uint32))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.POINTER(_Instruction)))


class _SeccompVersion(ctypes.Structure):
    _fields_ = (("major", _uint), ("minor", _uint), ("micro", _uint))


def _fail(call: str) -> NoReturn:
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number), call)


def allow_everything_filter(flags: int) -> int:
    """Install a seccomp filter that allows everything; the listener with NEW_LISTENER, else 0: seccomp(2)."""
    if _NR_SECCOMP is None:
        raise OSError(errno.ENOSYS, "no system call numbers for this architecture", "seccomp")
    program = _Program(1, ctypes.pointer(_Instruction(_BPF_RET, 0, 0, _SECCOMP_RET_ALLOW)))
    result = int(_seccomp(_NR_SECCOMP, _SECCOMP_SET_MODE_FILTER, flags, ctypes.addressof(program)))
    if result < 0:
        _fail("seccomp")
    return result


def set_notification_flags(listener: int, flags: int) -> None:
    """Set the flags of a listener, which this one request takes by value: seccomp_unotify(2)."""
    if _ioctl(listener, _SECCOMP_IOCTL_NOTIF_SET_FLAGS, flags) < 0:
        _fail("ioctl")


def landlock_abi() -> int:
    """Return the newest Landlock ABI of this kernel: landlock_create_ruleset(2)."""
    result = int(_create_ruleset(_NR_LANDLOCK_CREATE_RULESET, None, 0, _LANDLOCK_CREATE_RULESET_VERSION))
    if result < 0:
        _fail("landlock_create_ruleset")
    return result


def landlock_forbid(handled_access_fs: int) -> None:
    """Forbid this thread the named file rights everywhere, for ever: landlock_restrict_self(2); needs no_new_privs."""
    handled = ctypes.c_uint64(handled_access_fs)
    ruleset = int(_create_ruleset(_NR_LANDLOCK_CREATE_RULESET, ctypes.addressof(handled), 8, 0))
    if ruleset < 0:
        _fail("landlock_create_ruleset")
    if _restrict_self(_NR_LANDLOCK_RESTRICT_SELF, ruleset, 0) < 0:
        _fail("landlock_restrict_self")
    os.close(ruleset)


def seal_a_page() -> None:
    """Seal a page of this process for as long as it lives: mseal(2), Linux 6.10."""
    page = mmap.mmap(-1, mmap.PAGESIZE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    if _mseal(_NR_MSEAL, address, mmap.PAGESIZE, 0) < 0:
        _fail("mseal")


def libseccomp_version() -> str:
    """Return the version of libseccomp.so.2, such as "2.5.4"; OSError when it can't be loaded: seccomp_version(3)."""
    version = ctypes.CDLL("libseccomp.so.2").seccomp_version
    version.argtypes, version.restype = (), ctypes.POINTER(_SeccompVersion)
    found = version().contents
    return f"{found.major}.{found.minor}.{found.micro}"
