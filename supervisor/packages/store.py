"""The installed packages, each in a directory that is called by its digest: whole, durable, read-only, or not there.

A package is written into a directory of its own in the same file system, and renamed when all of it is on the disk.
Whoever writes one holds a lock on its directory (flock(2)), which the kernel takes away with the process, so what a
killed installation left is told from one under way. Whoever runs one holds a lock on its statement, so that it isn't
removed: others may read root's packages, and could hold a lock on whatever they can open.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat
import time
from collections.abc import Collection, Iterator
from typing import ClassVar, Final

from ipc.errors import ConfigError
from ipc.struct import Struct
from supervisor.host.clearing import remove_tree
from supervisor.packages.contents import Contents, PackageError, read_statement
from supervisor.packages.directory import make_directories_durable, what_differs
from supervisor.terminal import visible

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_LOCK: Final = "lock"
_COMING: Final = "new."
_GOING: Final = "gone."
_STATEMENT: Final = ".files"
_LOCK_TIMEOUT_S: Final = 30.0
"""What is done under the lock takes milliseconds, and fsyncs on a slow disk."""
_STATEMENT_BYTES_MAX: Final = 16 << 20
"""More than ten thousand files with paths of a thousand bytes have."""


class StoreRefusedError(ConfigError):
    """What is in the store isn't what was installed, so it isn't run."""

    exit_code: ClassVar[int] = 77  # EX_NOPERM


class StoreError(ConfigError):
    """The store can't be written or read."""

    exit_code: ClassVar[int] = 73  # EX_CANTCREAT


class InUseError(ConfigError):
    """Something of this package runs at the moment."""


class StoredPackage(Struct, frozen=True):
    """A package that was found to be what it was; held until `close`, so that nobody removes it meanwhile."""

    digest: str
    directory: str
    contents: Contents
    descriptor: int

    def close(self) -> None:
        """Let go of it."""
        os.close(self.descriptor)


class PackageStore:
    """One directory of packages, which nobody else may write to."""

    def __init__(self, directory: str) -> None:
        """Open `directory`, made if missing; raises StoreError, and StoreRefusedError where others could write."""
        self._directory = directory
        try:
            # Root's is passed through by the warden's uid, which isn't root; nobody but us lists it.
            os.makedirs(directory, mode=0o711 if os.getuid() == 0 else 0o700, exist_ok=True)
            status = os.lstat(directory)
        except OSError as error:
            raise StoreError(f"{visible(directory)}: {os.strerror(error.errno or 0).lower()}") from None
        _require_ours(directory, status)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only one who adds to the store or removes from it; StoreError where somebody is for too long."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        with _told(self._directory):
            held = os.open(os.path.join(self._directory, _LOCK), flags, 0o600)
        try:
            self._wait_for(held)
            yield
        finally:
            os.close(held)

    def _wait_for(self, lock: int) -> None:
        until_s = time.monotonic() + _LOCK_TIMEOUT_S
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > until_s:
                    path = visible(os.path.join(self._directory, _LOCK))
                    raise StoreError(
                        f"{path}: somebody has been changing what is installed for {_LOCK_TIMEOUT_S:g} s",
                        hint=f"see who: fuser -v {path}",
                    ) from None
                time.sleep(0.005)

    @contextlib.contextmanager
    def incoming(self) -> Iterator[str]:
        """Give an empty directory for a package that is on its way; it is gone afterwards unless it was kept."""
        with self.locked(), _told(self._directory):
            self._clear_left_behind()
            path = os.path.join(self._directory, _COMING + os.urandom(8).hex())
            os.mkdir(path, 0o700)
            held = os.open(path, _DIRECTORY)
            fcntl.flock(held, fcntl.LOCK_SH | fcntl.LOCK_NB)
        try:
            yield path
        finally:
            os.close(held)
            _remove(path)

    def keep(self, incoming: str, contents: Contents) -> str:
        """Make the package in `incoming` one of the store's, durable; returns its directory. The lock must be held.

        Where the store has it already that one stays, unless it isn't whole any more.
        """
        path = self.path(contents.digest)
        with _told(self._directory):
            if not self._is_stated(contents):
                temporary = os.path.join(self._directory, _COMING + os.urandom(8).hex())
                _write_durably(temporary, contents.statement)
                os.rename(temporary, f"{path}{_STATEMENT}")
            if os.path.lexists(path):
                if self._is_whole(path, contents):
                    return path
                self._set_aside(path)
            _make_read_only(incoming)
            make_directories_durable(incoming)
            os.rename(incoming, path)
            self._sync()
        return path

    def path(self, digest: str) -> str:
        """Return where the package of this digest is."""
        return os.path.join(self._directory, digest)

    def open(self, digest: str, unread: Collection[str] = ()) -> StoredPackage:
        """Return a package whose every byte was read and is what was installed, but for those files in `unread`.

        Raises StoreRefusedError that says in which way it isn't.
        """
        path = self.path(digest)
        try:
            directory = os.open(path, _DIRECTORY)
            try:
                status = os.fstat(directory)
            finally:
                os.close(directory)
        except OSError as error:
            link = os.path.islink(path)
            words = "a link in place of the package" if link else os.strerror(error.errno or 0).lower()
            raise changed_package(path, words) from None
        _require_ours(path, status)
        descriptor = self._open_statement(digest)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            contents = self._contents(digest, descriptor)
            try:
                differs = what_differs(path, contents, unread)
            except PackageError as error:
                differs = error.message
            if differs:
                raise changed_package(path, differs)
        except BaseException:
            os.close(descriptor)
            raise
        return StoredPackage(digest, path, contents, descriptor)

    def remove(self, digest: str) -> None:
        """Remove a package; raises InUseError while something of it runs. The lock must be held."""
        with _told(self._directory):
            path = self.path(digest)
            with _unused(f"{path}{_STATEMENT}"):
                self._set_aside(path)
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(f"{path}{_STATEMENT}")
            self._sync()

    def is_used(self, digest: str) -> bool:
        """Whether something of this package runs."""
        try:
            with _told(self._directory), _unused(f"{self.path(digest)}{_STATEMENT}"):
                return False
        except InUseError:
            return True

    def clear(self, referenced: Collection[str]) -> None:
        """Remove what no installation names: that of one which was interrupted. The lock must be held."""
        with _told(self._directory):
            for name in os.listdir(self._directory):
                digest = name.removesuffix(_STATEMENT)
                if _DIGEST.fullmatch(digest) and digest not in referenced:
                    with contextlib.suppress(InUseError):
                        self.remove(digest)

    def _open_statement(self, digest: str) -> int:
        path = f"{self.path(digest)}{_STATEMENT}"
        try:
            return os.open(path, _FILE)
        except OSError as error:
            raise changed_package(path, os.strerror(error.errno or 0).lower()) from None

    def _contents(self, digest: str, statement: int) -> Contents:
        path = f"{self.path(digest)}{_STATEMENT}"
        try:
            with open(statement, "rb", closefd=False) as stream:
                contents = read_statement(stream.read(_STATEMENT_BYTES_MAX))
            removed = os.fstat(statement).st_nlink == 0
        except OSError as error:
            raise changed_package(path, os.strerror(error.errno or 0).lower()) from None
        except PackageError as error:
            raise changed_package(path, error.message) from None
        if contents.digest != digest:
            raise changed_package(path, "it is another package's")
        if removed:  # while the lock was waited for: another one may be there by now, which it doesn't hold
            raise changed_package(path, "it was removed meanwhile")
        return contents

    def _is_stated(self, contents: Contents) -> bool:
        """Whether the statement is there as it should be: whoever runs the package holds it."""
        try:
            statement = self._open_statement(contents.digest)
        except StoreRefusedError:
            return False
        try:
            return self._contents(contents.digest, statement) == contents
        except StoreRefusedError:
            return False
        finally:
            os.close(statement)

    def _is_whole(self, path: str, contents: Contents) -> bool:
        try:
            _require_ours(path, os.lstat(path))
            return not what_differs(path, contents)
        except ConfigError:
            return False

    def _set_aside(self, path: str) -> None:
        """Take a name away at once, and then what was there."""
        aside = os.path.join(self._directory, _GOING + os.urandom(8).hex())
        with contextlib.suppress(FileNotFoundError):
            os.rename(path, aside)
            _remove(aside)

    def _clear_left_behind(self) -> None:
        for name in os.listdir(self._directory):
            path = os.path.join(self._directory, name)
            if name.startswith(_GOING):
                _remove(path)
            elif name.startswith(_COMING):
                with contextlib.suppress(InUseError), _unused(path):
                    _remove(path)

    def _sync(self) -> None:
        descriptor = os.open(self._directory, _DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def _told(directory: str) -> Iterator[None]:
    """Tell what an OSError about the store means to a person."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"{visible(error.filename or directory)}: {os.strerror(error.errno or 0).lower()}",
            hint=f"look at it: df -h {visible(directory)}; ls -la {visible(directory)}",
        ) from None


@contextlib.contextmanager
def _unused(path: str) -> Iterator[None]:
    """Hold a package's statement, or its directory on its way, against everybody; InUseError where one holds it."""
    try:
        held = os.open(path, _FILE)
    except OSError:  # gone, or a link: nobody runs that
        yield
        return
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise InUseError("it runs at the moment", hint="end what runs of it first") from None
    finally:
        os.close(held)


def _require_ours(path: str, status: os.stat_result) -> None:
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise StoreRefusedError(
            f"{visible(path)}: must be a directory of yours that nobody else can write to",
            hint=f"look at who could: ls -ld {visible(path)}; then chmod go-w, and install again what is in it",
        )


def changed_package(path: str, how: str) -> StoreRefusedError:
    """Return what is told of a package that isn't what was installed."""
    return StoreRefusedError(
        f"{visible(path)} is not what was installed: {how}",
        hint="nothing of it is run; install it again, and find out who changed it",
    )


def _make_read_only(top: str) -> None:
    """Take every right to write away, and let the warden's uid read where that is another's; each mode durable."""
    for directory, _, names in os.walk(top):
        for name in names:
            descriptor = os.open(os.path.join(directory, name), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                os.fchmod(descriptor, 0o444)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        os.chmod(directory, 0o555)  # noqa: S103 # read by the warden's uid; the store itself is passed through only


def _write_durably(path: str, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o400)
    with open(descriptor, "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(descriptor)


def _remove(path: str) -> None:
    """Remove a file, a link, or a directory of which nobody could write to anything."""
    with contextlib.suppress(OSError):
        os.unlink(path)
        return
    with contextlib.suppress(OSError):
        descriptor = os.open(path, _DIRECTORY)
        try:
            os.fchmod(descriptor, 0o700)
        finally:
            os.close(descriptor)
    remove_tree(path)
