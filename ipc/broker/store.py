"""What components keep: one SQLite file, a namespace for each component, an exact quota, durable before it is answered.

Several calls share a transaction and its one fsync(2). What a namespace uses is summed up from its rows when the store
is opened, and follows each transaction: it is never read from anywhere else. An entry costs the bytes of its key and of
its value, and `ENTRY_BYTES`.

The file is in WAL mode with synchronous=FULL: a commit has returned after the log was fsynced (sqlite.org/wal.html,
sqlite.org/pragma.html). The locking mode is exclusive, so that a second broker is refused the file, and there is no
shared memory beside it. Deleted content is overwritten (secure_delete).

On a full disk SQLite can neither write its log back nor delete. So room is held by a second file, which is given back
for that moment; while there is none nothing is written that needs room, and deleting works.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from typing import Final

from ipc.broker.events import Rights, StoreResult
from ipc.broker.events import Store as StoreOrder
from ipc.broker.messages import (
    MAX_LISTED,
    CompareAndSet,
    Delete,
    Exists,
    Get,
    ListKeys,
    Set,
    Usage,
)
from ipc.broker.store_faults import call_fault
from ipc.errors import AirssysError
from ipc.policy.decision import Allow
from ipc.struct import Struct, field

FILE: Final = "store.sqlite"
RESERVE_FILE: Final = "store.reserve"
RESERVE_BYTES: Final = 16 << 20
"""More than the log can have grown to when it is to be written back (`store_thread.BATCH_BYTES`)."""
ENTRY_BYTES: Final = 64
"""What each entry costs beside its key and value: about what SQLite takes for it, so that keys aren't free."""
SLICE_KEYS: Final = 2_000
"""How many keys one step of a listing looks at, before others get their turn."""
LIST_ACTION: Final = "storage.read"

DISK_FULL: Final = "the store's disk is full"
_SCHEMA_VERSION: Final = 1
_APPLICATION_ID: Final = 0x41_53_57_42
_BUSY_S: Final = 5.0
_WAL_KEPT_BYTES: Final = 4 << 20
_VACUUM_PAGES: Final = 512
_VACUUM_STEPS: Final = 16
_NEW: Final = (
    "PRAGMA auto_vacuum = INCREMENTAL",  # takes effect while the file is empty
    f"PRAGMA application_id = {_APPLICATION_ID}",
)
_SETTINGS: Final = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA secure_delete = ON",
    "PRAGMA temp_store = MEMORY",
    "PRAGMA trusted_schema = OFF",
    "PRAGMA cell_size_check = ON",
    f"PRAGMA journal_size_limit = {_WAL_KEPT_BYTES}",
)
_TABLES: Final = (
    """CREATE TABLE IF NOT EXISTS entries (id INTEGER PRIMARY KEY, namespace TEXT NOT NULL, key BLOB NOT NULL,
    value BLOB NOT NULL, UNIQUE (namespace, key))""",
    f"PRAGMA user_version = {_SCHEMA_VERSION}",
)
_SUMS: Final = "SELECT namespace, COUNT(*), SUM(LENGTH(key) + LENGTH(value)) FROM entries GROUP BY namespace"
_GET: Final = "SELECT value FROM entries WHERE namespace = ? AND key = ?"
_LENGTH: Final = "SELECT LENGTH(value) FROM entries WHERE namespace = ? AND key = ?"
_SET: Final = (
    "INSERT INTO entries (namespace, key, value) VALUES (?, ?, ?) "
    "ON CONFLICT (namespace, key) DO UPDATE SET value = excluded.value"
)
_DELETE: Final = "DELETE FROM entries WHERE namespace = ? AND key = ?"
_LIST: Final = "SELECT key FROM entries WHERE namespace = ? AND key >= ? AND key < ? ORDER BY key LIMIT ?"
_LIST_TO_END: Final = "SELECT key FROM entries WHERE namespace = ? AND key >= ? ORDER BY key LIMIT ?"

_RETRIED_ALONE: Final = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_TOOBIG})
"""Errors after which the file is as it was before; any other means that what it holds isn't known any more."""


class StoreError(AirssysError):
    """The store can't be opened."""

    exit_code = 73  # EX_CANTCREAT


class Account(Struct):
    """What a namespace uses."""

    usage_bytes: int = 0
    entries: int = 0


class Listing(Struct):
    """How far a listing has come: what it has found, and the key from which on it looks."""

    call: ListKeys
    cursor: bytes
    keys: list[str] = field(default_factory=list)


Job = tuple[StoreOrder, Listing | None]
"""An order, and where it stands if it is a listing that has begun."""


def entry_bytes(key: str, value: bytes) -> int:
    """Return what an entry costs."""
    return len(key.encode()) + len(value) + ENTRY_BYTES


class Store:
    """The open file. Used by one thread at a time."""

    def __init__(self, directory: str) -> None:
        """Open or make the file in `directory`, which must be private; StoreError when that can't be."""
        self.path = os.path.join(directory, FILE)
        self.broken = ""
        """Why nothing is answered any more: after a failed fsync(2) or a damaged page only a new start tells."""
        self._accounts: dict[str, Account] = {}
        self._changed: dict[str, Account] = {}
        self._why = ""
        self._reserve_path = os.path.join(directory, RESERVE_FILE)
        self._has_reserve = False
        try:
            # Made by us, so that it is never readable by others; SQLite's own files take its mode.
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
            self._database = sqlite3.connect(
                self.path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False, cached_statements=32
            )
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"{self.path}: {_words(error)}") from None
        try:
            self._open()
        except sqlite3.Error as error:
            self._database.close()
            raise StoreError(f"{self.path}: {_words(error)}") from None
        except StoreError:
            self._database.close()
            raise

    def _open(self) -> None:
        database = self._database
        # Before the file is read: then the log's index is private memory, and no other process gets in.
        database.execute("PRAGMA locking_mode = EXCLUSIVE").fetchall()
        found = database.execute("PRAGMA application_id").fetchone()[0]
        version = database.execute("PRAGMA user_version").fetchone()[0]
        if (found, version) not in ((0, 0), (_APPLICATION_ID, 0), (_APPLICATION_ID, _SCHEMA_VERSION)):
            raise StoreError(f"{self.path}: not a store of this version (application {found:#x}, version {version})")
        # Nothing is written to a store that is complete: it opens on a full disk.
        is_new = version != _SCHEMA_VERSION
        for setting in (*_NEW, *_SETTINGS) if is_new else _SETTINGS:
            database.execute(setting).fetchall()
        database.execute("BEGIN IMMEDIATE")  # here a second broker is refused
        for statement in _TABLES if is_new else ():
            database.execute(statement)
        database.execute("COMMIT")
        if database.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            raise StoreError(f"{self.path}: this file system has no write-ahead log")
        self._accounts = {
            name: Account(used + entries * ENTRY_BYTES, entries) for name, entries, used in database.execute(_SUMS)
        }

    # -- what is asked -------------------------------------------------------------------------------------------------

    def account(self, namespace: str) -> Account:
        """Return what a namespace uses now."""
        return self._accounts.get(namespace) or Account()

    def execute(self, jobs: Sequence[Job]) -> list[StoreResult | Listing]:
        """Carry out all of them, in order, and return what each came to once all of it is durable.

        A listing that has more to look at gives itself instead: it goes on with another call of this.
        """
        if not any(isinstance(order.call, Set | Delete | CompareAndSet) for order, _ in jobs):
            return [self._reading(job) for job in jobs]
        self._reserve()
        if not self._has_reserve:
            self._make_room()
            self._reserve()
        results = self._in_one_transaction(jobs)
        # One of them was too much for the disk: the others need not suffer for it.
        return results or [self._alone(job) for job in jobs]

    def remove(self, namespace: str) -> str:
        """Remove all that a namespace holds, from the log and the free pages too; returns why it failed, or ""."""
        failure = self._remove(namespace)
        if failure and not self.broken:
            self._make_room()
            failure = self._remove(namespace)
        return failure

    def _remove(self, namespace: str) -> str:
        if self.broken:
            return self.broken
        try:
            self._database.execute("BEGIN IMMEDIATE")
            self._database.execute("DELETE FROM entries WHERE namespace = ?", (namespace,))
            self._database.execute("COMMIT")
            self._accounts.pop(namespace, None)
            self._vacuum()
            self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except (sqlite3.Error, MemoryError) as error:
            return self._failed(error)
        return ""

    def close(self) -> None:
        """Write the log back into the file and close it."""
        self._database.close()

    # -- transactions --------------------------------------------------------------------------------------------------

    def _in_one_transaction(self, jobs: Sequence[Job]) -> list[StoreResult | Listing] | None:
        """Return the results after the commit; None when all was taken back and the file is as it was."""
        if self.broken:
            return [StoreResult(failure=self.broken) for _ in jobs]
        self._changed = {}
        try:
            self._database.execute("BEGIN IMMEDIATE")
            results = [self._carry_out(job) for job in jobs]
            self._database.execute("COMMIT")
        except (sqlite3.Error, MemoryError) as error:
            self._why = self._failed(error)
            return [StoreResult(failure=self.broken) for _ in jobs] if self.broken else None
        self._accounts.update(self._changed)
        return results

    def _alone(self, job: Job) -> StoreResult | Listing:
        if not isinstance(job[0].call, Set | Delete | CompareAndSet):
            return self._reading(job)
        results = self._in_one_transaction([job])
        if results is None:
            self._make_room()
            if not isinstance(job[0].call, Delete):
                self._reserve()
            results = self._in_one_transaction([job])
        if results is None:
            return StoreResult(failure=self._why, usage_bytes=self.account(job[0].namespace).usage_bytes)
        return results[0]

    def _reading(self, job: Job) -> StoreResult | Listing:
        if self.broken:
            return StoreResult(failure=self.broken)
        self._changed = {}
        try:
            return self._carry_out(job)
        except (sqlite3.Error, MemoryError) as error:
            return StoreResult(failure=self._failed(error))

    def _reserve(self) -> None:
        """Hold room on the disk, if it isn't held already and there is any."""
        if self._has_reserve:
            return
        try:
            descriptor = os.open(self._reserve_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError:
            return
        try:
            os.posix_fallocate(descriptor, 0, RESERVE_BYTES)
            self._has_reserve = True
        except OSError:
            # What was had of it is of more use to others.
            os.ftruncate(descriptor, 0)
        finally:
            os.close(descriptor)

    def _make_room(self) -> None:
        """Write the log back and cut it, and give free pages back, with the room that was held for that.

        In small steps, each of which needs a little room itself.
        """
        self._has_reserve = False
        try:
            os.truncate(self._reserve_path, 0)
        except OSError:
            return
        try:
            for _ in range(_VACUUM_STEPS):
                self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
                if not self._database.execute("PRAGMA freelist_count").fetchone()[0]:
                    break
                self._vacuum(_VACUUM_PAGES)
        except (sqlite3.Error, MemoryError) as error:
            self._failed(error)

    def _vacuum(self, pages: int = 0) -> None:
        """Give so many free pages back to the file system, 0 for all."""
        # Not `execute`: it stops after the first page, which is a row without columns to it.
        self._database.executescript(f"PRAGMA incremental_vacuum({pages})")

    def _failed(self, error: Exception) -> str:
        """Take back what was begun, and return what to say; decides whether the file can be trusted any more."""
        words = _words(error)
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_NOMEM if isinstance(error, MemoryError) else 0)
        # Extended codes carry the primary one in their low byte (sqlite.org/rescode.html).
        if code & 0xFF not in _RETRIED_ALONE:
            # A page that fsync(2) could not write is not tried again by the kernel: whatever was acknowledged on top of
            # it could be lost. So nothing is.
            self.broken = f"the store can't be trusted any more: {words}"
        if self._database.in_transaction:
            try:
                self._database.execute("ROLLBACK")
            except (sqlite3.Error, MemoryError) as second:
                self.broken = f"the store can't be trusted any more: {_words(second)}"
        return self.broken or words

    # -- one call ------------------------------------------------------------------------------------------------------

    def _carry_out(self, job: Job) -> StoreResult | Listing:
        order, listing = job
        name, call = order.namespace, order.call
        fault = call_fault(call)
        if fault:
            return StoreResult(failure=fault, usage_bytes=self._account(name).usage_bytes)
        match call:
            case Get(_, key):
                row = self._database.execute(_GET, (name, key.encode())).fetchone()
                return StoreResult(value=None if row is None else row[0], usage_bytes=self._account(name).usage_bytes)
            case Exists(_, key):
                there = self._length(name, key) is not None
                return StoreResult(count=int(there), usage_bytes=self._account(name).usage_bytes)
            case Usage():
                account = self._account(name)
                return StoreResult(count=account.entries, usage_bytes=account.usage_bytes)
            case Set(_, key, value):
                return self._put(order, key, value, self._length(name, key))
            case Delete(_, key):
                return self._delete(name, key, self._length(name, key))
            case CompareAndSet(_, key, expected, value):
                row = self._database.execute(_GET, (name, key.encode())).fetchone()
                found = None if row is None else row[0]
                if found != expected:
                    return StoreResult(count=0, usage_bytes=self._account(name).usage_bytes)
                length = None if found is None else len(found)
                if value is not None:
                    return self._put(order, key, value, length)
                if found is None:
                    return StoreResult(count=1, usage_bytes=self._account(name).usage_bytes)
                return self._delete(name, key, length)
            case ListKeys():
                return self._list(name, listing or _begin(call), order.rights)

    def _put(self, order: StoreOrder, key: str, value: bytes, length: int | None) -> StoreResult:
        account = self._account(order.namespace)
        growth = entry_bytes(key, value)
        if length is not None:
            growth -= len(key.encode()) + length + ENTRY_BYTES
        usage = account.usage_bytes + growth
        limit = order.limit_bytes
        # What makes it smaller is always allowed: a limit may have been lowered since.
        if limit is not None and usage > limit and growth > 0:
            return StoreResult(over_limit=True, usage_bytes=account.usage_bytes)
        if not self._has_reserve:
            return StoreResult(failure=DISK_FULL, usage_bytes=account.usage_bytes)
        self._database.execute(_SET, (order.namespace, key.encode(), value))
        self._changed[order.namespace] = Account(usage, account.entries + (length is None))
        return StoreResult(count=1, usage_bytes=usage)

    def _delete(self, name: str, key: str, length: int | None) -> StoreResult:
        account = self._account(name)
        if length is None:
            return StoreResult(count=0, usage_bytes=account.usage_bytes)
        self._database.execute(_DELETE, (name, key.encode()))
        usage = account.usage_bytes - len(key.encode()) - length - ENTRY_BYTES
        self._changed[name] = Account(usage, account.entries - 1)
        return StoreResult(count=1, usage_bytes=usage)

    def _list(self, name: str, listing: Listing, rights: Rights) -> StoreResult | Listing:
        prefix = listing.call.prefix.encode()
        if prefix:
            # No byte of UTF-8 is 0xff, so there is always a next one.
            end = prefix[:-1] + bytes([prefix[-1] + 1])
            rows = self._database.execute(_LIST, (name, listing.cursor, end, SLICE_KEYS)).fetchall()
        else:
            rows = self._database.execute(_LIST_TO_END, (name, listing.cursor, SLICE_KEYS)).fetchall()
        limit = min(max(listing.call.limit, 0), MAX_LISTED)
        keys = list(listing.keys)
        for (raw,) in rows:
            if len(keys) >= limit:
                break
            key = raw.decode()
            if isinstance(rights.decide(LIST_ACTION, key), Allow):
                keys.append(key)
        if len(keys) >= limit or len(rows) < SLICE_KEYS:
            return StoreResult(keys=tuple(keys), count=len(keys), usage_bytes=self._account(name).usage_bytes)
        return Listing(listing.call, rows[-1][0] + b"\0", keys)

    def _length(self, name: str, key: str) -> int | None:
        row = self._database.execute(_LENGTH, (name, key.encode())).fetchone()
        return None if row is None else int(row[0])

    def _account(self, name: str) -> Account:
        return self._changed.get(name) or self.account(name)


def _begin(call: ListKeys) -> Listing:
    prefix, after = call.prefix.encode(), call.after.encode()
    return Listing(call, max(prefix, after + b"\0") if after else prefix)


def _words(error: Exception) -> str:
    if isinstance(error, OSError):
        return os.strerror(error.errno or 0)
    if isinstance(error, MemoryError):
        return "out of memory"
    return f"{error} ({getattr(error, 'sqlite_errorname', type(error).__name__)})"
