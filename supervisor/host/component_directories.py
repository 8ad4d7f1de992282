"""A component's own durable directory, `${data}`: the warden's file identity's alone, and no link to another."""

from __future__ import annotations

import contextlib
import os
import stat

from ipc.errors import ConfigError
from supervisor.host.identity import Identity
from supervisor.terminal import visible

_HANDLE = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def make_data_directory(path: str, owner: Identity) -> str:
    """Return the real path of `${data}`, made if it isn't there; raises ConfigError when it is no directory of ours.

    A symbolic link in its place is refused: who can put one there, a component that may write the directory's own name
    among them, would choose what the grants on `${data}` are about.
    """
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)
    try:
        descriptor = os.open(path, _HANDLE)
    except PermissionError as error:
        raise ConfigError(f"{visible(path)}: {os.strerror(error.errno or 0)}") from None
    except OSError:
        raise ConfigError(
            f"{visible(path)}: expected the component's own directory, found something else",
            hint="look at it, then remove it",
        ) from None
    try:
        _give(descriptor, owner)
    finally:
        os.close(descriptor)
    return os.path.realpath(path)


def _give(descriptor: int, owner: Identity) -> None:
    status = os.fstat(descriptor)
    if stat.S_IMODE(status.st_mode) != 0o700:
        os.fchmod(descriptor, 0o700)
    if os.getuid() == 0:
        os.fchown(descriptor, owner.uid, owner.gid)
