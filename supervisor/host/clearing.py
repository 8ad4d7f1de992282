"""Removing what a component left in a directory of its own, however deep, long or unreadable it made it.

`shutil.rmtree` recurses, holds a descriptor for each level, or names paths longer than PATH_MAX: a component that nests
a thousand directories could end us in the middle of clearing up.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from typing import Final

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(path: str) -> None:
    """Remove a directory and all beneath; what can't be removed stays, and is no error."""
    with contextlib.suppress(OSError):
        top = os.open(path, _DIRECTORY)
        try:
            _empty(top)
        finally:
            os.close(top)
        os.rmdir(path)


def _empty(top: int) -> None:
    """Remove everything in `top`: directories within directories are first moved up to it, so that none is deep."""
    numbers = itertools.count()
    stuck: set[str] = set()
    while names := [name for name in os.listdir(top) if name not in stuck]:
        for name in names:
            if not _remove(top, name, numbers):
                stuck.add(name)


def _remove(top: int, name: str, numbers: itertools.count[int]) -> bool:
    """Remove one name; False when it can't be."""
    try:
        os.unlink(name, dir_fd=top)
    except IsADirectoryError:
        return _remove_directory(top, name, numbers)
    except OSError:
        return False
    return True


def _remove_directory(top: int, name: str, numbers: itertools.count[int]) -> bool:
    try:
        _open_up(name, top)
        directory = os.open(name, _DIRECTORY, dir_fd=top)
        try:
            for entry in os.listdir(directory):
                try:
                    os.unlink(entry, dir_fd=directory)
                except IsADirectoryError:
                    _open_up(entry, directory)
                    os.rename(entry, f"{next(numbers)}-{os.urandom(8).hex()}", src_dir_fd=directory, dst_dir_fd=top)
        finally:
            os.close(directory)
        os.rmdir(name, dir_fd=top)
    except OSError:
        return False
    return True


def _open_up(name: str, directory: int) -> None:
    """Let its owner list, pass through and move a directory; root may anyway, and changes no mode by a name."""
    if os.getuid() != 0:
        os.chmod(name, 0o700, dir_fd=directory)
