"""The system calls that a worker's filter hands to the warden, with their numbers: the one table that both sides use.

The worker's filter (`worker/filters/`) notifies every call that it doesn't allow, so a call that isn't named here is a
forbidden one: the warden records its number and the worker ends. Numbers: arch/x86/entry/syscalls/syscall_64.tbl and
include/uapi/asm-generic/unistd.h (aarch64) of the Linux source; a test compares them with libseccomp's.
"""

from __future__ import annotations

import os

LOOKING_ONLY = " O_PATH"
"""What records add to the name of a call that opened something to look at it, and not into it."""

_FILE_X86_64 = {
    "open": 2,
    "openat": 257,
    "openat2": 437,
    "creat": 85,
    "stat": 4,
    "lstat": 6,
    "statx": 332,
    "newfstatat": 262,
    "access": 21,
    "faccessat": 269,
    "faccessat2": 439,
    "mkdir": 83,
    "mkdirat": 258,
    "rmdir": 84,
    "unlink": 87,
    "unlinkat": 263,
    "rename": 82,
    "renameat": 264,
    "renameat2": 316,
    "link": 86,
    "linkat": 265,
    "symlink": 88,
    "symlinkat": 266,
    "readlink": 89,
    "readlinkat": 267,
    "truncate": 76,
    "getdents64": 217,
    "statfs": 137,
    "fcntl": 72,
    "inotify_add_watch": 254,
}
_FILE_AARCH64 = {
    "openat": 56,
    "openat2": 437,
    "statx": 291,
    "newfstatat": 79,
    "faccessat": 48,
    "faccessat2": 439,
    "mkdirat": 34,
    "unlinkat": 35,
    "renameat": 38,
    "renameat2": 276,
    "linkat": 37,
    "symlinkat": 36,
    "readlinkat": 78,
    "truncate": 45,
    "getdents64": 61,
    "statfs": 43,
    "fcntl": 25,
    "inotify_add_watch": 27,
}
"""Calls that name or list files: decided by policy. fcntl is F_DUPFD_CLOEXEC, else a violation."""

_METADATA_X86_64 = {
    "chmod": 90,
    "fchmod": 91,
    "fchmodat": 268,
    "fchmodat2": 452,
    "chown": 92,
    "lchown": 94,
    "fchown": 93,
    "fchownat": 260,
    "utime": 132,
    "utimes": 235,
    "futimesat": 261,
    "utimensat": 280,
    "setxattr": 188,
    "lsetxattr": 189,
    "fsetxattr": 190,
    "getxattr": 191,
    "lgetxattr": 192,
    "fgetxattr": 193,
    "listxattr": 194,
    "llistxattr": 195,
    "flistxattr": 196,
    "removexattr": 197,
    "lremovexattr": 198,
    "fremovexattr": 199,
    "flock": 73,
}
_METADATA_AARCH64 = {
    "fchmod": 52,
    "fchmodat": 53,
    "fchmodat2": 452,
    "fchown": 55,
    "fchownat": 54,
    "utimensat": 88,
    "setxattr": 5,
    "lsetxattr": 6,
    "fsetxattr": 7,
    "getxattr": 8,
    "lgetxattr": 9,
    "fgetxattr": 10,
    "listxattr": 11,
    "llistxattr": 12,
    "flistxattr": 13,
    "removexattr": 14,
    "lremovexattr": 15,
    "fremovexattr": 16,
    "flock": 32,
}
"""Calls that change or read what is said about a file, by path or by descriptor."""

_SOCKET_X86_64 = {
    "socket": 41,
    "connect": 42,
}
_SOCKET_AARCH64 = {
    "socket": 198,
    "connect": 203,
}
"""The only two socket calls a libzmq client needs."""

NOTIFIED: dict[str, dict[str, dict[str, int]]] = {
    "x86_64": {"file": _FILE_X86_64, "metadata": _METADATA_X86_64, "socket": _SOCKET_X86_64},
    "aarch64": {"file": _FILE_AARCH64, "metadata": _METADATA_AARCH64, "socket": _SOCKET_AARCH64},
}
"""Architecture → category → name → number."""

AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""`struct seccomp_data.arch` of each architecture (include/uapi/linux/audit.h)."""


def machine() -> str:
    """Return this machine's architecture as this table spells it; raises KeyError for one that has no filters."""
    name = os.uname().machine
    if name not in NOTIFIED:
        raise KeyError(name)
    return name


def names_by_number(architecture: str) -> dict[int, tuple[str, str]]:
    """Return number → (category, name) for the calls that the warden answers."""
    return {
        number: (category, name) for category, calls in NOTIFIED[architecture].items() for name, number in calls.items()
    }
