"""Archives (.tar.gz, .tgz, .tar): read by a confined process, written here, and hashed on the way there."""

from __future__ import annotations

import hashlib
import os
import stat
import threading
from typing import Final

from ipc.errors import ConfigError
from ipc.package_stream import UnpackPlan
from supervisor.host.identity import NOBODY
from supervisor.packages.contents import TOTAL_MAX_BYTES, Contents, PackageError
from supervisor.packages.reader_process import start_reader
from supervisor.packages.writing import ENTRIES_MAX, PackageWriter
from supervisor.terminal import visible

TIMEOUT_S: Final = 600.0
CPU_S: Final = 300
MEMORY_BYTES: Final = 64 << 20
HEADERS_MAX: Final = 3 * ENTRIES_MAX
"""An entry may have two extended headers before its own."""
STREAM_MAX_BYTES: Final = TOTAL_MAX_BYTES + 1024 * HEADERS_MAX
RATIO_MAX: Final = 200
RATIO_FREE_BYTES: Final = 64 << 20
"""So much may come out of an archive of any size; beyond, at most so many times what it has itself."""
_READ_BYTES: Final = 1 << 18
_FILE: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC


def unpack_archive(path: str, destination: str) -> tuple[Contents, bytes, str]:
    """Unpack an archive into an empty directory; return the package, its signatures, and the archive's own sha256.

    `path` is a real one: what is a link by now isn't what was found to be there.
    Raises PackageError for what is refused; what was written until then is the caller's to remove.
    """
    archive = _open(path)
    try:
        bound_bytes = min(STREAM_MAX_BYTES, RATIO_FREE_BYTES + RATIO_MAX * os.fstat(archive).st_size)
        uid = NOBODY if os.getuid() == 0 else None
        plan = UnpackPlan(os.getpid(), uid, bound_bytes, HEADERS_MAX, MEMORY_BYTES, CPU_S)
        input_end, feeding_end = os.pipe2(os.O_CLOEXEC)
        feeder = _Feeder(archive, feeding_end)
        try:
            with start_reader("unpack", plan, (input_end,), TIMEOUT_S, own_namespace=True) as reader:
                os.close(input_end)
                input_end = -1
                feeder.start()
                writer = PackageWriter(destination)
                reader.write_package(writer)
        finally:
            if input_end >= 0:
                os.close(input_end)
            feeder.finish()
        return *writer.finish(), feeder.sha256()
    except PackageError as error:
        raise PackageError(f"{visible(path)}: {error.message}", hint=error.hint) from None
    finally:
        os.close(archive)


class _Feeder(threading.Thread):
    """Gives the reader the archive, and hashes exactly what it was given."""

    def __init__(self, archive: int, pipe: int) -> None:
        super().__init__(name="archive", daemon=True)
        self._archive = archive
        self._pipe: int = pipe
        self._digest = hashlib.sha256()
        self._at_end = False

    def run(self) -> None:
        """Feed to the archive's end, or the reader's."""
        try:
            while chunk := os.read(self._archive, _READ_BYTES):
                self._digest.update(chunk)
                view = memoryview(chunk)
                while view:
                    view = view[os.write(self._pipe, view) :]
            self._at_end = True
        except OSError:
            return  # the reader has ended, and says why
        finally:
            os.close(self._pipe)
            self._pipe = -1

    def finish(self) -> None:
        """Wait for the end; the reader has ended already, so a write to it ends as well."""
        if self.ident is not None:
            self.join()
        elif self._pipe >= 0:
            os.close(self._pipe)

    def sha256(self) -> str:
        """Return the digest of the archive; raises PackageError where it couldn't be read to its end."""
        if not self._at_end:
            raise PackageError("it couldn't be read to its end")
        return self._digest.hexdigest()


def _open(path: str) -> int:
    try:
        archive = os.open(path, _FILE)
    except OSError as error:
        raise ConfigError(f"{visible(path)}: {os.strerror(error.errno or 0).lower()}") from None
    if not stat.S_ISREG(os.fstat(archive).st_mode):
        os.close(archive)
        hint = f"a directory that is called so is written with a / at its end: {visible(path)}/"
        raise ConfigError(f"{visible(path)}: no file, and its name is that of an archive", hint=hint)
    return archive
