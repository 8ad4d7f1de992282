"""Where approvals are kept: one SQLite file of steps, each behind the one before it, in the state directory.

Every look at it holds a lock, verifies the whole chain, unless that was done of this very file
(`supervisor.approvals.verified`), and repairs what a crash has left. A step is first written down
as what is about to happen, then recorded in the audit log, and then taken. So a crash leaves one of three: nothing; an
intent without a record, which didn't happen if it would have given something, and happens now if it takes something
away; or an intent with its record, which happened. Each commit is durable (synchronous=EXTRA, sqlite.org/pragma.html).

Beside it lies the head, the number and checksum of the last step and the latest time that was seen: an older copy of
the file doesn't fit it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import stat
import time
from collections.abc import Callable, Iterator
from typing import Final

from ipc.audit.event import AuditEvent
from ipc.errors import AuditError, ConfigError
from supervisor.approvals import kept, verified
from supervisor.approvals.chain import DamagedError, StoreError
from supervisor.approvals.ledger import Ledger, Noted
from supervisor.approvals.verified import FileState
from supervisor.audit.query import Filter, newest_first
from supervisor.terminal import visible

DIRECTORY: Final = "approvals"
FILE: Final = "approvals.sqlite"
HEAD_FILE: Final = "head"
LOCK_FILE: Final = "lock"
_FLAGS: Final = os.O_NOFOLLOW | os.O_CLOEXEC
_SCHEMA: Final = 1
_APPLICATION_ID: Final = 0x41_53_57_41
_SETTINGS: Final = (
    "PRAGMA locking_mode = EXCLUSIVE",
    # A start only reads, and makes no file beside them for it, as with a log of what is to be written.
    "PRAGMA journal_mode = DELETE",
    "PRAGMA synchronous = EXTRA",
    "PRAGMA temp_store = MEMORY",
    "PRAGMA trusted_schema = OFF",
    "PRAGMA cell_size_check = ON",
)
_TABLES: Final = (
    f"PRAGMA application_id = {_APPLICATION_ID}",
    """CREATE TABLE IF NOT EXISTS steps (seq INTEGER PRIMARY KEY, request INTEGER NOT NULL, kind TEXT NOT NULL,
    identity TEXT NOT NULL, subject TEXT NOT NULL, body TEXT NOT NULL, prev TEXT NOT NULL, sum TEXT NOT NULL)""",
    "CREATE INDEX IF NOT EXISTS requests ON steps (request)",
    "CREATE INDEX IF NOT EXISTS subjects ON steps (subject, kind, request)",
    "CREATE INDEX IF NOT EXISTS identities ON steps (identity, kind, request)",
    kept.TABLE,
    "CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
    f"PRAGMA user_version = {_SCHEMA}",
)

_BESIDE: Final = ("-wal", "-journal")
"""Where there is one, not all that counts is in the file itself (sqlite.org/tempfiles.html)."""


class BusyError(ConfigError):
    """Somebody else has them open."""

    exit_code = 75  # EX_TEMPFAIL


class ApprovalStore:
    """The approvals of one state directory. `record` makes an event durable in its audit log, or raises AuditError."""

    def __init__(
        self,
        state_directory: str,
        audit_directory: str,
        record: Callable[[AuditEvent], None],
        *,
        clock_s: Callable[[], int] = lambda: int(time.time()),
        wait_s: float = 5.0,
    ) -> None:
        """Nothing is opened or made yet; `wait_s` is how long another's step is waited for."""
        self.directory = os.path.join(state_directory, DIRECTORY)
        self._audit_directory = audit_directory
        self.record = record
        self._clock_s = clock_s
        self._wait_s = wait_s

    @property
    def exists(self) -> bool:
        """Whether anything was ever asked here."""
        return os.path.lexists(os.path.join(self.directory, FILE)) or os.path.lexists(self._path(HEAD_FILE))

    @contextlib.contextmanager
    def open(self) -> Iterator[Ledger]:
        """Hold them, verified and repaired; raises DamagedError, BusyError, ConfigError or AuditError."""
        self._make_directory()
        with self._locked():
            try:
                yield from self._opened()
            except DamagedError as error:
                aside = f"{self.directory}.damaged"
                raise DamagedError(
                    f"{visible(self.directory)}: the approvals aren't what was written here: {error.message}",
                    hint=f"restore all of it from a backup, or have everything asked anew: "
                    f"mv {visible(self.directory)} {visible(aside)}",
                ) from None
            except sqlite3.DatabaseError as error:
                raise _sqlite_error(self.directory, error) from None

    def _opened(self) -> Iterator[Ledger]:
        path = self._path(FILE)
        fresh = not os.path.lexists(path)
        if fresh and os.path.lexists(self._path(HEAD_FILE)):
            raise DamagedError(f"{FILE} is gone")
        noted, state = self._look(path)
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
            for setting in _SETTINGS:
                connection.execute(setting)
            if fresh or not self._has_tables(connection):
                for statement in _TABLES:
                    connection.execute(statement)
            if connection.execute("PRAGMA user_version").fetchone()[0] != _SCHEMA:
                raise DamagedError("they are in the form of another version")
            # It is open and locked now: what is read is what was looked at.
            is_same = state is not None and verified.state_of(os.lstat(path)) == state
            ledger = Ledger(connection, self._path(HEAD_FILE), self.record, self._was_recorded, self._clock_s())
            ledger.verify(noted if is_same else None)
            if state is not None and is_same and noted != ledger.last:
                verified.write_note(self.directory, verified.note_text(state, ledger.last))
            ledger.repair()
            yield ledger

    def _look(self, path: str) -> tuple[Noted | None, FileState | None]:
        """Return the last step of a file that was verified before and is the same, and the state of one that is quiet.

        Raises DamagedError for one that others can use.
        """
        now_ns = time.time_ns()
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | _FLAGS, 0o600)
        try:
            status = os.fstat(descriptor)
            state = verified.state_of(status)
            noted = verified.noted_step(verified.read_note(self.directory), state)
            if noted is None and verified.is_quiet(state, now_ns):
                # Before it is read: then the kernel gives it another `ctime` also for what is written through memory.
                os.fsync(descriptor)
        except OSError as error:
            raise StoreError(f"{visible(path)}: {os.strerror(error.errno or 0).lower()}") from None
        finally:
            os.close(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
            raise DamagedError(f"{FILE} is no private file of uid {os.geteuid()}")
        if not verified.is_quiet(state, now_ns) or any(os.path.lexists(f"{path}{beside}") for beside in _BESIDE):
            return None, None
        return noted, state

    @staticmethod
    def _has_tables(connection: sqlite3.Connection) -> bool:
        return bool(connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0])

    def _path(self, name: str) -> str:
        return os.path.join(self.directory, name)

    def _make_directory(self) -> None:
        try:
            os.makedirs(self.directory, mode=0o700, exist_ok=True)
            status = os.lstat(self.directory)
        except OSError as error:
            raise ConfigError(
                f"{visible(self.directory)}: {os.strerror(error.errno or 0).lower()}",
                hint="name a state directory of yours: --state-dir DIR",
            ) from None
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
            raise ConfigError(
                f"{visible(self.directory)}: must be a directory of yours, and nobody else's",
                hint=f"chmod 700 {visible(self.directory)}",
            )

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        held = os.open(self._path(LOCK_FILE), os.O_RDWR | os.O_CREAT | _FLAGS, 0o600)
        try:
            until_s = time.monotonic() + self._wait_s
            while True:
                try:
                    fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= until_s:
                        raise BusyError(
                            f"{visible(self.directory)}: another process holds the approvals",
                            hint=f"try again; see who: fuser -v {visible(self._path(LOCK_FILE))}",
                        ) from None
                    time.sleep(0.005)
            yield
        finally:
            os.close(held)

    def _was_recorded(self, correlation: str) -> bool:
        """Whether the log has the event of a step; looked for only after a crash, and mostly found at its end."""
        try:
            found = newest_first(self._audit_directory, Filter(event="approval_*"))
            return any(each.record["correlation"] == correlation for each in found)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise AuditError(f"the audit log can't be read: {os.strerror(error.errno or 0)}") from None


def _sqlite_error(directory: str, error: sqlite3.DatabaseError) -> StoreError:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) or "no such" in str(error):
        aside = f"mv {visible(directory)} {visible(directory)}.damaged"
        return DamagedError(
            f"{visible(directory)}: the approvals aren't what was written here: {error}",
            hint=f"restore all of it from a backup, or have everything asked anew: {aside}",
        )
    return StoreError(f"{visible(directory)}: {error}", hint=f"look at the disk: df -h {visible(directory)}")
