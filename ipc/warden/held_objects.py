"""What is held open, by its real path, and names that lead to that very object: proc(5)."""

from __future__ import annotations

import functools
import os


def text(path: bytes) -> str:
    """Return a path as text: UTF-8, with other bytes as surrogates (os.fsdecode, whatever the locale)."""
    return path.decode("utf-8", "surrogateescape")


def raw(path: str) -> bytes:
    """Return the bytes of such a text."""
    return path.encode("utf-8", "surrogateescape")


@functools.cache
def _own_descriptors() -> int:
    """A handle on /proc/self/fd, for as long as this process lives: a third cheaper than walking there each time."""
    return os.open("/proc/self/fd", os.O_PATH | os.O_CLOEXEC | os.O_DIRECTORY)


os.register_at_fork(after_in_child=_own_descriptors.cache_clear)


def real_path(descriptor: int) -> str:
    """Return the kernel's word on where the object behind one of our descriptors is."""
    return text(os.readlink(b"%d" % descriptor, dir_fd=_own_descriptors()))


def reopen(descriptor: int, flags: int) -> int:
    """Open the very object behind one of our descriptors, through its magic link: proc(5)."""
    return os.open(b"%d" % descriptor, flags, dir_fd=_own_descriptors())


def through(descriptor: int) -> str:
    """Return a name that leads to the very object behind one of our descriptors: a magic link, proc(5)."""
    return f"/proc/self/fd/{descriptor}"


def join(directory: str, name: str) -> str:
    """Return the path of a name in a directory."""
    return f"/{name}" if directory == "/" else f"{directory}/{name}"
