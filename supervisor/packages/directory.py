"""Packages on disk: reading one, and copying one, so that what was hashed is what was written.

Every name is opened beneath the directory above it and never through a link (openat(2), O_NOFOLLOW): whoever owns the
source may swap anything at any time, and gets at most another package.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import stat
from collections.abc import Callable, Collection, Generator
from typing import Final

from ipc.errors import ConfigError
from ipc.struct import Struct
from supervisor.packages.contents import (
    LEFT_OUT,
    SIGNATURE_FILE,
    SIGNATURES_MAX_BYTES,
    TOTAL_MAX_BYTES,
    Contents,
    PackageError,
    PackageFile,
    contents_of,
    refuse_size,
    why_not_path,
)
from supervisor.terminal import visible

CHUNK_BYTES: Final = 1 << 20
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Not blocked by a FIFO that somebody put there; a regular file doesn't care.
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_ENTRIES_MAX: Final = 20_000

Sink = Callable[[bytes], object]


class _Found(Struct, frozen=True):
    """A regular file, open for reading, and where in the package it is."""

    path: str
    descriptor: int


def read_directory(directory: str) -> Contents:
    """Return what a component directory holds; raises PackageError for links, devices, odd names and too much."""
    total = 0
    files = []
    with contextlib.closing(_walk(directory)) as walk:
        for found in walk:
            file = _digest(found, total, None)
            total += file.size_bytes
            files.append(file)
    return _contents(directory, files)


def _contents(directory: str, files: list[PackageFile]) -> Contents:
    try:
        return contents_of(files)
    except PackageError as error:
        raise PackageError(f"{visible(directory)}: {error.message}", hint=error.hint) from None


def copy_directory(source: str, destination: str) -> Contents:
    """Copy a package into an empty private directory, durably, and return what was written there.

    Files get mode 0644 and directories 0755, less the umask: nothing else about them is kept.
    """
    total = 0
    files = []
    with contextlib.closing(_walk(source)) as walk:
        for found in walk:
            file = _copy(found, total, os.path.join(destination, found.path))
            total += file.size_bytes
            files.append(file)
    make_directories_durable(destination)
    return _contents(source, files)


def _copy(found: _Found, total_bytes: int, path: str) -> PackageFile:
    try:
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    except BaseException:
        os.close(found.descriptor)
        raise
    with open(descriptor, "wb", closefd=True) as sink:
        file = _digest(found, total_bytes, sink.write)
        sink.flush()
        os.fsync(descriptor)
    return file


def read_signatures(directory: str) -> bytes:
    """Return what the `Component.sig` of a component directory holds, b"" where there is none; nothing is verified."""
    path = os.path.join(directory, SIGNATURE_FILE)
    try:
        descriptor = os.open(path, _FILE)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise PackageError(f"{SIGNATURE_FILE}: {os.strerror(error.errno or 0).lower()}") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise PackageError(f"{SIGNATURE_FILE}: no regular file")
    with open(descriptor, "rb") as source:
        data = source.read(SIGNATURES_MAX_BYTES + 1)
    if len(data) > SIGNATURES_MAX_BYTES:
        raise PackageError(f"{SIGNATURE_FILE}: larger than {SIGNATURES_MAX_BYTES >> 20} MiB")
    return data


def what_differs(directory: str, expected: Contents, unread: Collection[str] = ()) -> str:
    """Return how a directory isn't the package that it should be, naming one file; "" where it is.

    Of the paths in `unread` only the size is looked at: whoever names them compares what they hold when it is used.
    """
    wanted = {each.path: each for each in expected.files}
    for found in _walk(directory):
        file = wanted.pop(found.path, None)
        if file is None:
            os.close(found.descriptor)
            return f"{visible(found.path[:200])} is no part of it"
        if os.fstat(found.descriptor).st_size != file.size_bytes:
            os.close(found.descriptor)
            return f"{visible(found.path[:200])} has another size"
        if found.path in unread:
            os.close(found.descriptor)
        elif _digest(found, 0, None) != file:
            return f"{visible(found.path[:200])} holds something else"
    missing = next(iter(wanted), None)
    return "" if missing is None else f"{visible(missing[:200])} is missing"


def make_directories_durable(top: str) -> None:
    """Have the kernel write down which names are in a directory, and in all beneath it (fsync(2))."""
    for directory, _, _ in os.walk(top, topdown=False):
        descriptor = os.open(directory, _DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _digest(found: _Found, total_bytes: int, sink: Sink | None) -> PackageFile:
    """Read a file to its end and close it; `total_bytes` is what was read of others before."""
    digest = hashlib.sha256()
    size = 0
    try:
        while chunk := _read(found):
            size += len(chunk)
            refuse_size(total_bytes + size)
            digest.update(chunk)
            if sink is not None:
                sink(chunk)
    finally:
        os.close(found.descriptor)
    return PackageFile(found.path, size, digest.hexdigest())


def _read(found: _Found) -> bytes:
    try:
        return os.read(found.descriptor, CHUNK_BYTES)
    except OSError as error:
        raise _unreadable(found.path, error) from None


def _unreadable(path: str, error: OSError) -> PackageError:
    return PackageError(f"{visible(path[:200])}: {os.strerror(error.errno or 0).lower()}")


def _walk(directory: str) -> Generator[_Found]:
    """Yield the files of a component directory, each open; whoever takes one closes it.

    Of the directories those are open that lie above, and no others: there may be many beside each other.
    """
    try:
        top = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)  # whoever names a link means it
    except OSError as error:
        raise ConfigError(f"{visible(directory)}: {os.strerror(error.errno or 0).lower()}") from None
    above = [_Level(top, "")]
    left = _ENTRIES_MAX
    try:
        above[-1].list(left)
        while above:
            level = above[-1]
            if not level.names:
                os.close(above.pop().descriptor)
                continue
            name = level.names.pop()
            path = f"{level.prefix}{name}"
            why = why_not_path(path)
            if why:
                raise PackageError(f"{visible(path[:200])}: {why}")
            left -= 1
            opened, is_directory = _open(level.descriptor, name, path)
            if is_directory:
                above.append(_Level(opened, f"{path}/"))
                above[-1].list(left - sum(len(each.names) for each in above))
                continue
            yield _Found(path, opened)
    finally:
        for level in above:
            os.close(level.descriptor)


class _Level:
    """A directory that is being read, open; `names` are those of its entries that wait, the next one last."""

    __slots__ = ("descriptor", "names", "prefix")

    def __init__(self, descriptor: int, prefix: str) -> None:
        self.descriptor = descriptor
        self.prefix = prefix
        self.names: list[str] = []

    def list(self, most: int) -> None:
        """Read which entries there are; raises PackageError for more than may be left."""
        try:
            with os.scandir(self.descriptor) as entries:
                names = (each.name for each in entries if self.prefix or each.name not in LEFT_OUT)
                self.names = sorted(itertools.islice(names, most + 1), reverse=True)
        except OSError as error:
            raise _unreadable(self.prefix or ".", error) from None
        if len(self.names) > most:
            raise PackageError(f"more than {_ENTRIES_MAX} files and directories")


def _open(directory: int, name: str, path: str) -> tuple[int, bool]:
    """Return the open entry, and whether it is a directory."""
    try:
        kind = os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode
        if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
            what = "a symbolic link" if stat.S_ISLNK(kind) else "no regular file"
            raise PackageError(f"{visible(path[:200])}: {what}", hint="a package holds files and directories only")
        descriptor = os.open(name, _DIRECTORY if stat.S_ISDIR(kind) else _FILE, dir_fd=directory)
    except OSError as error:
        raise _unreadable(path, error) from None
    opened = os.fstat(descriptor)
    # What it is now counts, not what it was when it was looked at.
    if not (stat.S_ISREG(opened.st_mode) or stat.S_ISDIR(opened.st_mode)) or opened.st_size > TOTAL_MAX_BYTES:
        os.close(descriptor)
        raise PackageError(f"{visible(path[:200])}: it changed while it was read, or is too large")
    return descriptor, stat.S_ISDIR(opened.st_mode)
