"""Which package has which name: an SQLite file of the host's own, each row sealed, all seals under one.

A seal is a digest and no signature: it finds what was damaged, edited by hand, put in or taken out, and doesn't keep
out whoever writes the state directory and knows how they are made. Every transaction is durable before it returns.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
import stat
from collections.abc import Iterator, Sequence
from typing import ClassVar, Final

from ipc.errors import ConfigError
from ipc.struct import Struct, ValidationError, convert, to_builtins
from supervisor.packages.contents import SIGNATURES_MAX_BYTES
from supervisor.packages.installed import ComponentName, Installed
from supervisor.terminal import visible

FILE: Final = "registry.sqlite"
HISTORY_MAX: Final = 100
"""How many activations of one name are remembered."""
_APPLICATION_ID: Final = 0x41525247  # "ARRG"
_SCHEMA_VERSION: Final = 1
_BUSY_S: Final = 10.0
_TABLES: Final = (
    """CREATE TABLE installed (id INTEGER PRIMARY KEY, name TEXT NOT NULL, instance TEXT NOT NULL,
    version TEXT NOT NULL, digest TEXT NOT NULL, facts TEXT NOT NULL, signatures BLOB NOT NULL, seal TEXT NOT NULL,
    UNIQUE (name, instance, digest)) STRICT""",
    """CREATE TABLE activated (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, instance TEXT NOT NULL,
    digest TEXT NOT NULL, at_ns INTEGER NOT NULL, by TEXT NOT NULL, seal TEXT NOT NULL) STRICT""",
    "CREATE TABLE sealed (id INTEGER PRIMARY KEY CHECK (id = 1), seal TEXT NOT NULL) STRICT",
)
_INSTALLED: Final = "SELECT id, name, instance, version, digest, facts, signatures, seal FROM installed"
_ACTIVATED: Final = "SELECT id, name, instance, digest, at_ns, by, seal FROM activated"


class RegistryError(ConfigError):
    """The registry can't be read or written, or isn't as it was written."""

    exit_code: ClassVar[int] = 73  # EX_CANTCREAT


class Activation(Struct, frozen=True):
    """When a package became the one that its name means, and by whom."""

    digest: str
    at_ns: int
    by: str


class Registry:
    """The open file. Use as a context manager."""

    def __init__(self, state: str) -> None:
        """Open the registry of a state directory, made if missing; raises RegistryError."""
        self.path = os.path.join(state, FILE)
        with self._told():
            os.makedirs(state, mode=0o700, exist_ok=True)
            self._require_private(state)
            # autocommit: each transaction is begun and committed in so many words.
            self._database = sqlite3.connect(self.path, timeout=_BUSY_S, isolation_level=None)
        try:
            with self._told():
                self._prepare()
        except BaseException:
            self._database.close()
            raise

    def __enter__(self) -> Registry:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    # -- what is there -------------------------------------------------------------------------------------------------

    def all(self) -> tuple[Installed, ...]:
        """Return everything that is installed, by name, instance and the order of installation."""
        with self._reading():
            rows = self._database.execute(f"{_INSTALLED} ORDER BY name, instance, id")
            return tuple(self._installed(row) for row in rows)

    def named(self, name: str) -> tuple[Installed, ...]:
        """Return what is installed under a name, whatever the instance."""
        with self._reading():
            rows = self._database.execute(f"{_INSTALLED} WHERE name = ? ORDER BY instance, id", (name,))
            return tuple(self._installed(row) for row in rows)

    def signatures(self, installed: Installed) -> bytes:
        """Return the signatures that came with it, as they came."""
        with self._reading():
            row = self._row(installed)
            signatures = b"" if row is None else row[6]
            return signatures if isinstance(signatures, bytes) else b""

    def history(self, called: ComponentName) -> tuple[Activation, ...]:
        """Return what a name has meant, the last one for now."""
        with self._reading():
            return self._history(called)

    def active(self, called: ComponentName) -> Installed | None:
        """Return what a name means now."""
        with self._reading():
            return self._active(called)

    # -- what changes --------------------------------------------------------------------------------------------------

    def add(self, installed: Installed, signatures: bytes) -> None:
        """Enter a package and make it the one that its name means; where it is entered already its facts are new."""
        if len(signatures) > SIGNATURES_MAX_BYTES:
            raise RegistryError(f"signatures of more than {SIGNATURES_MAX_BYTES >> 20} MiB")
        facts = json.dumps(to_builtins(installed), ensure_ascii=True, sort_keys=True)
        columns = (installed.name, installed.instance, installed.version, installed.digest, facts, signatures)
        with self._writing():
            self._database.execute(
                "DELETE FROM installed WHERE name = ? AND instance = ? AND digest = ?",
                (installed.name, installed.instance, installed.digest),
            )
            self._database.execute(
                "INSERT INTO installed (name, instance, version, digest, facts, signatures, seal) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                (*columns, _seal("installed", columns)),
            )
            self._activate(installed, installed.installed_ns, installed.installed_by)

    def activate(self, installed: Installed, at_ns: int, by: str) -> None:
        """Make an entered package the one that its name means."""
        with self._writing():
            if self._row(installed) is None:
                raise RegistryError(f"{installed.called.text} {installed.version} was removed meanwhile")
            self._activate(installed, at_ns, by)

    def remove(self, gone: Sequence[Installed]) -> frozenset[str]:
        """Take entries out, and return the digests that nothing names any more."""
        with self._writing():
            for each in gone:
                identity = (each.name, each.instance, each.digest)
                for table in ("installed", "activated"):
                    # A table of ours, and no text of anybody's.
                    statement = f"DELETE FROM {table} WHERE name = ? AND instance = ? AND digest = ?"  # noqa: S608
                    self._database.execute(statement, identity)
            left = {digest for (digest,) in self._database.execute("SELECT DISTINCT digest FROM installed")}
        return frozenset(each.digest for each in gone) - left

    # -- within a transaction ------------------------------------------------------------------------------------------

    def _activate(self, installed: Installed, at_ns: int, by: str) -> None:
        columns = (installed.name, installed.instance, installed.digest, at_ns, by)
        self._database.execute(
            "INSERT INTO activated (name, instance, digest, at_ns, by, seal) VALUES (?, ?, ?, ?, ?, ?)",
            (*columns, _seal("activated", columns)),
        )
        self._database.execute(
            "DELETE FROM activated WHERE name = ? AND instance = ? AND id NOT IN "
            "(SELECT id FROM activated WHERE name = ? AND instance = ? ORDER BY id DESC LIMIT ?)",
            (installed.name, installed.instance, installed.name, installed.instance, HISTORY_MAX),
        )

    def _history(self, called: ComponentName) -> tuple[Activation, ...]:
        rows = self._database.execute(
            f"{_ACTIVATED} WHERE name = ? AND instance = ? ORDER BY id", (called.name, called.instance)
        )
        found = []
        for _, *columns, seal in rows:
            if _seal("activated", columns) != seal:
                raise self._damaged()
            found.append(Activation(columns[2], columns[3], columns[4]))
        return tuple(found)

    def _active(self, called: ComponentName) -> Installed | None:
        history = self._history(called)
        if not history:
            return None
        row = self._database.execute(
            f"{_INSTALLED} WHERE name = ? AND instance = ? AND digest = ?",
            (called.name, called.instance, history[-1].digest),
        ).fetchone()
        if row is None:
            raise self._damaged()
        return self._installed(row)

    def _row(self, installed: Installed) -> tuple[object, ...] | None:
        row: tuple[object, ...] | None = self._database.execute(
            f"{_INSTALLED} WHERE name = ? AND instance = ? AND digest = ?",
            (installed.name, installed.instance, installed.digest),
        ).fetchone()
        return row

    def _installed(self, row: Sequence[object]) -> Installed:
        _, *columns, seal = row
        if _seal("installed", columns) != seal:
            raise self._damaged()
        try:
            installed = convert(json.loads(str(columns[4])), Installed)
        except (ValueError, ValidationError, RecursionError):
            raise self._damaged() from None
        if (installed.name, installed.instance, installed.version, installed.digest) != tuple(columns[:4]):
            raise self._damaged()
        return installed

    def _all_seals(self) -> str:
        """Return the seal of all seals: what it must be after this transaction, or was after the last."""
        together = hashlib.sha256()
        for table in ("installed", "activated"):
            for number, seal in self._database.execute(f"SELECT id, seal FROM {table} ORDER BY id"):  # noqa: S608
                together.update(f"{table} {number} {seal}\n".encode("utf-8", "surrogateescape"))
        return together.hexdigest()

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        with self._told():
            self._database.execute("BEGIN")
            try:
                self._require_sealed()
                yield
            finally:
                self._database.execute("ROLLBACK")

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        with self._told():
            self._database.execute("BEGIN IMMEDIATE")
            try:
                self._require_sealed()
                self._require_each_sealed()
                yield
                self._database.execute("INSERT OR REPLACE INTO sealed VALUES (1, ?)", (self._all_seals(),))
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise

    def _require_sealed(self) -> None:
        row = self._database.execute("SELECT seal FROM sealed WHERE id = 1").fetchone()
        if row is None or row[0] != self._all_seals():
            raise self._damaged()

    def _require_each_sealed(self) -> None:
        """Raise RegistryError for any row that isn't as it was written; who reads looks at what it reads."""
        for table, select in (("installed", _INSTALLED), ("activated", _ACTIVATED)):
            for _, *columns, seal in self._database.execute(select):
                if _seal(table, columns) != seal:
                    raise self._damaged()

    # -- the file ------------------------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        database = self._database
        # A transaction's journal goes with a durable unlink(2) (sqlite.org/pragma.html, synchronous=EXTRA).
        for setting in ("journal_mode = DELETE", "synchronous = EXTRA", "trusted_schema = OFF", "cell_size_check = ON"):
            database.execute(f"PRAGMA {setting}").fetchall()
        if self._version() == (_APPLICATION_ID, _SCHEMA_VERSION):
            return
        database.execute("BEGIN IMMEDIATE")
        try:
            found = self._version()
            empty = database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
            if found == (0, 0) and empty:
                for statement in _TABLES:
                    database.execute(statement)
                database.execute("INSERT INTO sealed VALUES (1, ?)", (self._all_seals(),))
                database.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
                database.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
            elif found != (_APPLICATION_ID, _SCHEMA_VERSION):
                what = f"application {found[0]:#x}, version {found[1]}"
                raise RegistryError(
                    f"{visible(self.path)}: not a registry of this version ({what})",
                    hint="it was made by another version; use that one",
                )
            database.execute("COMMIT")
        except BaseException:
            if database.in_transaction:
                database.execute("ROLLBACK")
            raise

    def _version(self) -> tuple[int, int]:
        application: int = self._database.execute("PRAGMA application_id").fetchone()[0]
        version: int = self._database.execute("PRAGMA user_version").fetchone()[0]
        return application, version

    def _require_private(self, state: str) -> None:
        """Make the file if it isn't there; raise RegistryError where others could read or write it."""
        directory = os.stat(state)
        # Made by us, so that it is never readable by others; SQLite's journal takes its mode.
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600))
        for path, status, forbidden in (
            (state, directory, 0o022),
            (self.path, os.lstat(self.path), 0o077),
        ):
            kind = stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode)
            if not kind or status.st_uid != os.getuid() or status.st_mode & forbidden:
                shown = visible(path)
                raise RegistryError(
                    f"{shown}: must belong to you and be nobody else's to {'write' if path == state else 'use'}",
                    hint=f"see who could have changed it: ls -ld {shown}; then chmod go-rwx {shown}",
                )

    def _damaged(self) -> RegistryError:
        return RegistryError(
            f"{visible(self.path)}: was changed or damaged: its rows aren't as they were written",
            hint=f"nothing that it names is run; set it aside and install again: mv {FILE} {FILE}.damaged",
        )

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise RegistryError(f"{visible(self.path)}: {error}", hint="look at the disk: df -h; ls -la") from None
        except (sqlite3.Error, UnicodeDecodeError):
            raise self._damaged() from None
        except OSError as error:
            raise RegistryError(f"{visible(self.path)}: {os.strerror(error.errno or 0).lower()}") from None


def _seal(table: str, columns: Sequence[object]) -> str:
    """Return the digest over a row's columns, each with its kind and length."""
    sealed = hashlib.sha256(f"airssys registry, version 1, {table}\n".encode())
    for column in columns:
        data = column if isinstance(column, bytes) else str(column).encode("utf-8", "surrogateescape")
        sealed.update(f"{type(column).__name__} {len(data)}\n".encode())
        sealed.update(data)
    return sealed.hexdigest()
