"""The table of notified system calls against libseccomp's own, for both architectures."""

from __future__ import annotations

import ctypes
import ctypes.util
import os

import pytest

from ipc import syscalls

_NEWER_THAN_LIBSECCOMP = {"fchmodat2": 452}
"""Calls that a libseccomp older than 2.5.5 (Debian 12 has 2.5.4) doesn't know; the same number everywhere (6.6)."""
_PAIRS = [
    (architecture, name, number)
    for architecture, categories in syscalls.NOTIFIED.items()
    for calls in categories.values()
    for name, number in calls.items()
]


@pytest.fixture(scope="module")
def libseccomp() -> ctypes.CDLL:
    """libseccomp with the one function that is used declared (seccomp_syscall_resolve_name(3))."""
    found = ctypes.util.find_library("seccomp") or "libseccomp.so.2"
    try:
        library = ctypes.CDLL(found)
    except OSError:
        pytest.skip("libseccomp isn't installed here")
    library.seccomp_syscall_resolve_name_arch.argtypes = (ctypes.c_uint32, ctypes.c_char_p)
    library.seccomp_syscall_resolve_name_arch.restype = ctypes.c_int
    return library


@pytest.mark.parametrize(("architecture", "name", "number"), _PAIRS)
def test_number_is_libseccomps(libseccomp: ctypes.CDLL, architecture: str, name: str, number: int) -> None:
    """Each number is the one that libseccomp resolves the name to."""
    resolved = libseccomp.seccomp_syscall_resolve_name_arch(syscalls.AUDIT_ARCH[architecture], name.encode())
    if resolved < 0:
        assert _NEWER_THAN_LIBSECCOMP.get(name) == number
    else:
        assert resolved == number


@pytest.mark.parametrize("architecture", sorted(syscalls.NOTIFIED))
def test_no_number_is_named_twice(architecture: str) -> None:
    """A number leads to exactly one name and category."""
    names = syscalls.names_by_number(architecture)
    assert len(names) == sum(len(calls) for calls in syscalls.NOTIFIED[architecture].values())
    for number, (category, name) in names.items():
        assert syscalls.NOTIFIED[architecture][category][name] == number


def test_aarch64_has_every_call_of_x86_64_that_it_can_have() -> None:
    """What aarch64 lacks are exactly the old calls for which asm-generic/unistd.h has no number."""
    old = {
        *("open", "creat", "stat", "lstat", "access", "mkdir", "rmdir", "unlink", "rename", "link", "symlink"),
        *("readlink", "chmod", "chown", "lchown", "utime", "utimes", "futimesat"),
    }
    for category, calls in syscalls.NOTIFIED["x86_64"].items():
        assert set(calls) - set(syscalls.NOTIFIED["aarch64"][category]) == old & set(calls)
        assert set(syscalls.NOTIFIED["aarch64"][category]) <= set(calls)


def test_this_machine_is_named() -> None:
    """`machine` spells this architecture as the table does."""
    assert syscalls.machine() == os.uname().machine
    assert syscalls.machine() in syscalls.AUDIT_ARCH
