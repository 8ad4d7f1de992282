"""Who else could put something where a package lies: each directory from the root down to it, and each of its files.

A `local` entry trusts a place. Where another user can write, anybody's component could lie.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from typing import Final

from ipc.errors import ConfigError
from supervisor.terminal import visible
from supervisor.trust.decide import Exposure

_STEP: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_WRITABLE_BY_OTHERS: Final = stat.S_IWGRP | stat.S_IWOTH


def open_place(real_path: str) -> tuple[int, tuple[Exposure, ...]]:
    """Return a directory, opened name by name and never through a link, and who could have exchanged it on the way.

    The descriptor (O_PATH) is the caller's. Raises ConfigError where the path isn't a real one, or not any more.
    """
    exposed: list[Exposure] = []
    at = os.open("/", _STEP)
    path = "/"
    try:
        _look(exposed, path, os.fstat(at))
        for name in [name for name in real_path.split("/") if name]:
            path = os.path.join(path, name)
            further = os.open(name, _STEP, dir_fd=at)
            os.close(at)
            at = further
            _look(exposed, path, os.fstat(at))
    except OSError as error:
        os.close(at)
        raise ConfigError(f"{visible(path)}: {os.strerror(error.errno or 0).lower()}") from None
    return at, tuple(exposed)


def exposed_files(directory: int, real_path: str, files: Sequence[str]) -> tuple[Exposure, ...]:
    """Return who else could write these files of a package, or a directory of it on the way to them."""
    exposed: list[Exposure] = []
    inner = {"/".join(file.split("/")[:depth]) for file in files for depth in range(1, file.count("/") + 2)}
    for path in sorted(inner):
        whole = os.path.join(real_path, path)
        try:
            _look(exposed, whole, os.stat(path, dir_fd=directory, follow_symlinks=False))
        except OSError as error:
            exposed.append(Exposure(whole, f"can't be looked at: {os.strerror(error.errno or 0).lower()}"))
    return tuple(exposed)


def exposed_archive(real_path: str) -> tuple[Exposure, ...]:
    """Return who else could have exchanged an archive: its directories on the way, and the file itself."""
    directory, exposed = open_place(os.path.dirname(real_path))
    try:
        return (*exposed, *exposed_files(directory, os.path.dirname(real_path), (os.path.basename(real_path),)))
    finally:
        os.close(directory)


def _look(exposed: list[Exposure], path: str, status: os.stat_result) -> None:
    """Note a path that others than root and this user may write: its owner, its group, or everybody."""
    if status.st_uid not in (0, os.getuid()):
        exposed.append(Exposure(path, f"belongs to uid {status.st_uid}"))
    elif status.st_mode & _WRITABLE_BY_OTHERS:
        mode = stat.S_IMODE(status.st_mode)
        exposed.append(Exposure(path, f"is writable by others (mode {mode:04o}); chmod go-w"))
