"""Files of a package that comes as a stream, written beneath one directory and nowhere else.

Each name is judged before anything of it is made, made beneath the directory above it and never through a link
(openat(2), O_EXCL, O_NOFOLLOW), and hashed as it is written.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Callable
from typing import Final

from supervisor.host.clearing import remove_tree
from supervisor.packages.contents import (
    FILES_MAX,
    MANIFEST_FILE,
    SIGNATURE_FILE,
    Contents,
    PackageError,
    PackageFile,
    contents_of,
    refuse_paths,
    refuse_size,
    why_not_path,
)
from supervisor.packages.directory import CHUNK_BYTES, make_directories_durable, read_signatures
from supervisor.terminal import visible

ENTRIES_MAX: Final = 2 * FILES_MAX
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class PackageWriter:
    """Writes a package into an empty directory; `finish` makes it one, `clear_directory` removes what it began."""

    def __init__(self, destination: str) -> None:
        """Write beneath `destination`."""
        self._destination = destination
        self._files: list[PackageFile] = []
        self._tops: set[str] = set()
        self._entries = 0
        self.total_bytes = 0

    def note_directory(self, path: str) -> None:
        """Judge the name of a directory; one is made only where a file is in it."""
        self._judge(path)

    def write(self, path: str, size_bytes: int, read: Callable[[int], bytes]) -> str:
        """Write a file of exactly so many bytes, of which `read` gives some each time, and return their sha256.

        Raises PackageError.
        """
        self._judge(path)
        if len(self._files) > FILES_MAX:
            raise PackageError(f"more than {FILES_MAX} files")
        refuse_size(self.total_bytes + size_bytes)
        self.total_bytes += size_bytes
        digest = hashlib.sha256()
        with open(self._create(path), "wb") as sink:
            left = size_bytes
            while left:
                chunk = read(min(left, CHUNK_BYTES))
                left -= len(chunk)
                digest.update(chunk)
                sink.write(chunk)
            sink.flush()
            os.fsync(sink.fileno())
        self._files.append(PackageFile(path, size_bytes, digest.hexdigest()))
        return self._files[-1].sha256

    def finish(self, lift: bool = True) -> tuple[Contents, bytes]:
        """Return what the package is, and its signatures, which are taken out of the directory.

        With `lift`, where all of it lies in one directory, that directory's files are the package.
        """
        top = self._only_directory() if lift else ""
        if top:
            self._lift(top)
        contents = contents_of(each for each in self._files if each.path != SIGNATURE_FILE)
        signatures = b""
        if any(each.path == SIGNATURE_FILE for each in self._files):
            signatures = read_signatures(self._destination)
            os.unlink(os.path.join(self._destination, SIGNATURE_FILE))
        make_directories_durable(self._destination)
        return contents, signatures

    def _judge(self, path: str) -> None:
        self._entries += 1
        if self._entries > ENTRIES_MAX:
            raise PackageError(f"more than {ENTRIES_MAX} entries")
        self._tops.add(path.partition("/")[0])
        why = "" if path == SIGNATURE_FILE else why_not_path(path)
        if why:
            raise PackageError(f"{visible(path[:200])}: {why}")

    def _create(self, path: str) -> int:
        """Make a new file, and the directories above it; return its descriptor."""
        *directories, name = path.split("/")
        directory = os.open(self._destination, _DIRECTORY)
        try:
            for each in directories:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(each, 0o755, dir_fd=directory)
                inner = os.open(each, _DIRECTORY, dir_fd=directory)
                os.close(directory)
                directory = inner
            return os.open(name, _NEW, 0o644, dir_fd=directory)
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            refuse_paths([*(each.path for each in self._files), path])  # which says beside which other
            raise PackageError(f"{visible(path[:200])}: it is there twice") from None
        except OSError as error:
            if error.errno not in (errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL):
                raise
            what = os.strerror(error.errno).lower()
            raise PackageError(f"{visible(path[:200])}: no name on this file system ({what})") from None
        finally:
            os.close(directory)

    def _only_directory(self) -> str:
        """Return the one directory in which everything lies, with a manifest at its top; "" where there is none."""
        top = next(iter(self._tops)) if len(self._tops) == 1 else ""
        return top if any(each.path == f"{top}/{MANIFEST_FILE}" for each in self._files) else ""

    def _lift(self, top: str) -> None:
        """Make the files of a directory the package's own; judged anew, as their names are others now."""
        self._files = [
            PackageFile(each.path.removeprefix(f"{top}/"), each.size_bytes, each.sha256) for each in self._files
        ]
        refuse_paths([each.path for each in self._files if each.path != SIGNATURE_FILE])
        # It may hold a name that is its own: so it gets out of the way first, under a name that no package can have.
        aside = ".airssys"
        destination = os.open(self._destination, _DIRECTORY)
        try:
            os.rename(top, aside, src_dir_fd=destination, dst_dir_fd=destination)
            directory = os.open(aside, _DIRECTORY, dir_fd=destination)
            try:
                for name in os.listdir(directory):
                    os.rename(name, name, src_dir_fd=directory, dst_dir_fd=destination)
            finally:
                os.close(directory)
            os.rmdir(aside, dir_fd=destination)
        finally:
            os.close(destination)


def clear_directory(directory: str) -> None:
    """Remove what is in a directory, and leave the directory itself."""
    for name in os.listdir(directory):
        path = os.path.join(directory, name)
        if os.path.isdir(path) and not os.path.islink(path):
            remove_tree(path)
        else:
            os.unlink(path)
