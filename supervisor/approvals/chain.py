"""Steps as rows: their one form, and the checksum of each over all its fields and the row before it. Pure.

The checksums find what was edited by hand or restored from an older copy. They are no secret: whoever may write the
state directory could make all of them anew, and is the one whom it belongs to.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Final

from ipc.errors import ConfigError
from ipc.struct import Struct, ValidationError, convert, to_builtins
from supervisor.approvals.machine import Refusal
from supervisor.approvals.request import (
    Carried,
    Filed,
    Lapsed,
    Narrowed,
    Rejected,
    Request,
    Revoked,
    Step,
    Superseded,
    Told,
    Used,
    Voted,
    Withdrawn,
)
from supervisor.approvals.steps import file_request, take

GENESIS: Final = hashlib.sha256(b"airssys approvals, schema 1\n").hexdigest()
"""What stands before the first row."""
_KINDS: Final[dict[str, type[Step] | type[Filed]]] = {
    kind.__name__.lower(): kind
    for kind in (Filed, Told, Voted, Carried, Rejected, Lapsed, Withdrawn, Revoked, Narrowed, Superseded, Used)
}
GIVING: Final = frozenset({"filed", "told", "voted", "carried"})
"""Steps that give something: without their record in the log they haven't happened. The others take away."""

ENDING: Final = ("rejected", "lapsed", "withdrawn", "revoked", "superseded", "used")
"""Steps behind which none comes: of uses only the one that spends it is kept."""


class StoreError(ConfigError):
    """The approvals can't be opened or written."""

    exit_code = 73  # EX_CANTCREAT


class DamagedError(StoreError):
    """What is kept isn't what was written: nothing of it counts."""


class Row(Struct, frozen=True):
    """One step as it is kept. `subject` and `identity` are the request's own, to find it by."""

    seq: int
    request: int
    kind: str
    identity: str
    subject: str
    body: str
    prev: str
    sum: str

    @property
    def intact(self) -> bool:
        """Whether its checksum is that of its fields."""
        return self.sum == _checksum(
            self.seq, self.request, self.kind, self.identity, self.subject, self.body, self.prev
        )


def _checksum(*fields: int | str) -> str:
    # Each with its length, so that no two lists of fields have one text.
    material = "".join([f"{len(text)}:{text}," for text in map(str, fields)])
    return hashlib.sha256(material.encode("utf-8", "surrogatepass")).hexdigest()


def hash_text(text: str) -> str:
    """Return the checksum of a note."""
    return _checksum("note", text)


def make_row(seq: int, prev: str, request: int, step: Step | Filed, identity: str, subject: str) -> Row:
    """Return the row of a step behind the row whose checksum is `prev`."""
    kind = type(step).__name__.lower()
    body = json.dumps(to_builtins(step), ensure_ascii=True, separators=(",", ":"))
    return Row(
        seq, request, kind, identity, subject, body, prev, _checksum(seq, request, kind, identity, subject, body, prev)
    )


def read_step(row: Row) -> Step | Filed:
    """Return the step of a row; raises DamagedError for what no step is."""
    try:
        step: Step | Filed = convert(json.loads(row.body), _KINDS[row.kind])
    except (KeyError, ValueError, ValidationError, RecursionError):
        raise DamagedError(f"step {row.seq} can't be read") from None
    return step


def verify_rows(rows: Sequence[Row], origin: tuple[int, str]) -> None:
    """Raise DamagedError unless each row is what was written, and stands behind the one that it was written behind.

    `origin` is the number and checksum of what stood before the first.
    """
    seq, prev = origin
    for row in rows:
        if not row.intact or row.prev != prev or row.seq != seq + 1:
            raise DamagedError(f"step {row.seq} isn't what was written, or one before it is gone")
        seq, prev = row.seq, row.sum


def replay(rows: Sequence[Row]) -> Request:
    """Return the request that these rows, all of one, have made; raises DamagedError where a step can't have been."""
    first = read_step(rows[0])
    if not isinstance(first, Filed) or rows[0].subject != first.subject.key:
        raise DamagedError(f"request {rows[0].request} doesn't begin as one")
    request = file_request(rows[0].request, first)
    for row in rows[1:]:
        step = read_step(row)
        taken = Refusal("it begins twice") if isinstance(step, Filed) else take(request, step)
        if isinstance(taken, Refusal):
            raise DamagedError(f"step {row.seq} can't have been taken: {taken.reason}")
        request = taken
    return request
