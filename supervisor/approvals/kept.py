"""Signed yeses to what nobody has asked here yet: kept for when it is asked, few and not for long.

They give nothing by themselves: when they count, all about them is looked at anew.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Final

from ipc.audit.event import AuditEvent
from ipc.errors import ConfigError
from ipc.struct import Struct

KEPT_MAX: Final = 500
_PUT: Final = "INSERT INTO kept (id, subject, until, brought_by, file) VALUES (?, ?, ?, ?, ?)"
TABLE: Final = """CREATE TABLE IF NOT EXISTS kept (id TEXT PRIMARY KEY, subject TEXT NOT NULL, until INTEGER NOT NULL,
    brought_by INTEGER NOT NULL, file BLOB NOT NULL)"""


class TooManyKeptError(ConfigError):
    """No more signed approvals are kept."""

    exit_code = 77  # EX_NOPERM


class KeptFile(Struct, frozen=True):
    """The file of a signed yes, and who brought it (a uid)."""

    id: str
    brought_by: int
    file: bytes


class Kept:
    """Valid only while the store holds its connection open."""

    def __init__(self, connection: sqlite3.Connection, record: Callable[[AuditEvent], None]) -> None:
        """Look at an open file."""
        self._connection = connection
        self._record = record

    def add(self, kept: KeptFile, subject: str, until_s: int, now_s: int, event: AuditEvent) -> bool:
        """Keep one, on record first; whether it wasn't there. Raises TooManyKeptError where there are too many."""
        self._connection.execute("DELETE FROM kept WHERE until <= ?", (now_s,))
        if self._connection.execute("SELECT 1 FROM kept WHERE id = ?", (kept.id,)).fetchone():
            return False
        if self._connection.execute("SELECT COUNT(*) FROM kept").fetchone()[0] >= KEPT_MAX:
            raise TooManyKeptError(
                f"{KEPT_MAX} signed approvals wait to be asked for, and no more are kept",
                hint="import those that are asked for; the others go when their time is over",
            )
        self._record(event)
        self._connection.execute(_PUT, (kept.id, subject, until_s, kept.brought_by, kept.file))
        return True

    def of_subject(self, subject: str) -> Sequence[KeptFile]:
        """Return those for exactly this, in the order of their ids."""
        found = self._connection.execute(
            "SELECT id, brought_by, file FROM kept WHERE subject = ? ORDER BY id", (subject,)
        )
        return [KeptFile(*row) for row in found.fetchall()]

    def drop(self, kept_id: str, event: AuditEvent | None = None) -> None:
        """Forget one: it has counted, or counts for nothing, which is put on record."""
        if event is not None:
            self._record(event)
        self._connection.execute("DELETE FROM kept WHERE id = ?", (kept_id,))

    def refused_s(self, subject: str) -> int | None:
        """Return when somebody has last said no to exactly this here, or taken it back; None for never."""
        row = self._connection.execute(
            "SELECT MAX(json_extract(body, '$.at_s')) FROM steps WHERE subject = ? AND kind IN ('rejected', 'revoked')",
            (subject,),
        ).fetchone()
        return None if row[0] is None else int(row[0])

    def counted_for(self, signed_id: str) -> int | None:
        """Return the request for which a signed yes has counted here, None for none."""
        row = self._connection.execute(
            "SELECT request FROM steps WHERE kind = 'voted' AND json_extract(body, '$.signed.id') = ?", (signed_id,)
        ).fetchone()
        return None if row is None else int(row[0])
