"""`Component.sig`, the file at the top of a package that holds its signatures: written whole, or not at all.

It is written without a name (open(2), O_TMPFILE), so that who is killed meanwhile leaves nothing. To take an old one's
place it needs a name for a moment, and a name is part of the package, whatever it is: what is left of that is removed
when it is signed again, and is never overlooked, or it could hold what nobody has signed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import stat
from collections.abc import Iterator
from typing import ClassVar, Final

from ipc.errors import ConfigError
from supervisor.packages.contents import SIGNATURE_FILE
from supervisor.terminal import visible

_MODE: Final = 0o644
_LEFT: Final = re.compile(rf"\.{re.escape(SIGNATURE_FILE)}\.[0-9a-f]{{16}}")


class NotWrittenError(ConfigError):
    """The file could not be written; nothing was changed."""

    exit_code: ClassVar[int] = 73  # EX_CANTCREAT


def write_signature_file(directory: str, data: bytes) -> None:
    """Put `data` in the place of a package's `Component.sig`, mode 0644: all of it, durably, or nothing.

    Raises NotWrittenError. A link that stands there is replaced, never written through.
    """
    with _opened(directory) as top:
        name = f".{SIGNATURE_FILE}.{secrets.token_hex(8)}"
        try:
            descriptor, named = _new_file(top, name)
            try:
                with open(descriptor, "wb") as file:
                    os.fchmod(descriptor, _MODE)
                    file.write(data)
                    file.flush()
                    os.fsync(descriptor)
                    with _locked(top):
                        if not named and not _link(descriptor, top, SIGNATURE_FILE):
                            named = _link(descriptor, top, name)
                        if named:
                            os.rename(name, SIGNATURE_FILE, src_dir_fd=top, dst_dir_fd=top)
            except BaseException:
                if named:
                    with contextlib.suppress(OSError):
                        os.unlink(name, dir_fd=top)
                raise
            os.fsync(top)
        except OSError as error:
            why = os.strerror(error.errno or 0).lower()
            raise NotWrittenError(f"{visible(os.path.join(directory, SIGNATURE_FILE))}: {why}") from None


def remove_leftovers(directory: str) -> tuple[str, ...]:
    """Remove what a signing that was killed has left in a package, and return the names.

    Only files of ours, by their exact form, and nothing while somebody else signs.
    """
    found = []
    with _opened(directory) as top, _locked(top) as alone:
        names = [name for name in os.listdir(top) if _LEFT.fullmatch(name)] if alone else []
        for name in names:
            with contextlib.suppress(OSError):
                looked = os.stat(name, dir_fd=top, follow_symlinks=False)
                if stat.S_ISREG(looked.st_mode) and looked.st_uid == os.geteuid():
                    os.unlink(name, dir_fd=top)
                    found.append(name)
    return tuple(found)


def _new_file(top: int, name: str) -> tuple[int, bool]:
    """Return an empty file in a directory, and whether it has this name: none where the file system can do without."""
    with contextlib.suppress(OSError):
        return os.open(".", os.O_WRONLY | os.O_TMPFILE | os.O_CLOEXEC, _MODE, dir_fd=top), False
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(name, flags, _MODE, dir_fd=top), True


def _link(descriptor: int, top: int, name: str) -> bool:
    """Give a file without a name this one (open(2), O_TMPFILE); False where something has it."""
    try:
        os.link(f"/proc/self/fd/{descriptor}", name, dst_dir_fd=top, follow_symlinks=True)
    except FileExistsError:
        return False
    return True


@contextlib.contextmanager
def _locked(top: int) -> Iterator[bool]:
    """Hold the lock of a directory that is signed; yields whether nobody else holds it. Nobody is waited for."""
    try:
        fcntl.flock(top, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        yield False
        return
    try:
        yield True
    finally:
        fcntl.flock(top, fcntl.LOCK_UN)


@contextlib.contextmanager
def _opened(directory: str) -> Iterator[int]:
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)  # whoever names a link means it
    except OSError as error:
        raise ConfigError(f"{visible(directory)}: {os.strerror(error.errno or 0).lower()}") from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)
