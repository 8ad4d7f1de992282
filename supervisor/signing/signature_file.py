"""`Component.sig`, the file at the top of a package that holds its signatures: written whole, or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from typing import ClassVar, Final

from ipc.errors import ConfigError
from supervisor.packages.contents import SIGNATURE_FILE
from supervisor.terminal import visible

_MODE: Final = 0o644


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
            descriptor = os.open(
                name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, _MODE, dir_fd=top
            )
            try:
                with open(descriptor, "wb") as file:
                    os.fchmod(descriptor, _MODE)
                    file.write(data)
                    file.flush()
                    os.fsync(descriptor)
                os.rename(name, SIGNATURE_FILE, src_dir_fd=top, dst_dir_fd=top)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(name, dir_fd=top)
                raise
            os.fsync(top)
        except OSError as error:
            why = os.strerror(error.errno or 0).lower()
            raise NotWrittenError(f"{visible(os.path.join(directory, SIGNATURE_FILE))}: {why}") from None


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
