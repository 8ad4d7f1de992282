"""The steps that are kept, open under their lock: found, verified, repaired, taken."""

from __future__ import annotations

import contextlib
import itertools
import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from ipc.audit.event import AuditEvent
from ipc.errors import ConfigError, LocalProtocolError
from ipc.struct import replace, to_builtins
from supervisor.approvals import chain
from supervisor.approvals.chain import GENESIS, DamagedError, Row, make_row, replay
from supervisor.approvals.events import event_of
from supervisor.approvals.head import Head, read_head, write_head
from supervisor.approvals.kept import Kept
from supervisor.approvals.machine import FINAL, Refusal, State
from supervisor.approvals.request import Filed, Rejected, Request, Revoked, Step, Superseded, Withdrawn, latest_approved
from supervisor.approvals.steps import due_step, file_request, take

REQUESTS_MAX: Final = 10_000
NUMBERS_BELOW: Final = 2**31
"""No request has a greater number, whatever somebody asks for; SQLite's own integers end at 2**63."""
CLOSED_KEPT: Final = 5_000
"""How many that are closed stay, when there are too many."""
STEPS_MAX_BYTES: Final = 64 << 20
STEPS_KEPT_BYTES: Final = 32 << 20
"""Likewise of all their steps together: each start reads them, with the manifests that were asked with."""
OPEN_OF_ONE_MAX: Final = 50
"""How many open requests one person may have."""
MARK_EVERY_S: Final = 60
"""How much of the clock's going forward may be forgotten."""
_COLUMNS: Final = "seq, request, kind, identity, subject, body, prev, sum"
_SELECT: Final = f"SELECT {_COLUMNS} FROM steps"  # noqa: S608 - the columns are ours
_INSERT: Final = f"INSERT INTO steps ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 - likewise
_EVER_ANSWERED: Final = (
    "WHERE request IN (SELECT request FROM steps WHERE identity = ? AND kind IN ('voted', 'rejected'))"
)
_ENDING: Final = ", ".join(f"'{kind}'" for kind in chain.ENDING)
_NOT_ENDED: Final = f"WHERE request NOT IN (SELECT request FROM steps WHERE kind IN ({_ENDING}))"  # noqa: S608 - likewise
_ENDED_OF: Final = f"SELECT request FROM steps WHERE identity = ? AND kind IN ({_ENDING})"  # noqa: S608 - likewise
_VOTED_OF: Final = "SELECT DISTINCT request FROM steps WHERE identity = ? AND kind = 'voted'"
_STANDING: Final = f"{_VOTED_OF} AND request NOT IN ({_ENDED_OF}) ORDER BY request"
_PUT: Final = "INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value"


Noted = tuple[int, str]
"""The number and checksum of the last step of a file that was verified, and is the same still."""


class TooManyError(ConfigError):
    """No more requests are taken."""

    exit_code = 77  # EX_NOPERM


class Ledger:
    """Valid only while its store holds it open. `now_s` never goes back, whatever the clock does."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        head_path: str,
        record: Callable[[AuditEvent], None],
        was_recorded: Callable[[str], bool],
        clock_s: int,
    ) -> None:
        """Look at an open file; `verify` and `repair` come first."""
        self._connection = connection
        self._head_path = head_path
        self._record = record
        self._was_recorded = was_recorded
        self._clock_s = clock_s
        self._seq, self._sum = 0, GENESIS
        self._checks_what_it_reads = False
        self.now_s = clock_s
        self.kept = Kept(connection, record)

    @property
    def behind_s(self) -> int:
        """Return by how much the clock is behind what was seen of it: the time stands still for so long."""
        return self.now_s - self._clock_s

    def note_time(self, at_s: int) -> None:
        """Take note that it is so late at least, by a clock that nobody sets: what is over then stays over."""
        self.now_s = max(self.now_s, at_s)

    # -- opening -------------------------------------------------------------------------------------------------------

    def verify(self, noted: Noted | None = None) -> None:
        """Check the whole chain, and the head beside it; raises DamagedError.

        Of a file that is the very one which was verified when it was `noted`, only the head is checked now, and each
        row when it is read.
        """
        head = read_head(self._head_path)
        if noted is not None and noted == (head.seq, head.sum):
            self._seq, self._sum = noted
            self._checks_what_it_reads = True
        else:
            head = self._verify_all(head)
        self.now_s = max(self._clock_s, head.mark_s)
        if self.now_s - head.mark_s >= MARK_EVERY_S or head != Head(self._seq, self._sum, head.mark_s):
            self._write_head()

    @property
    def last(self) -> Noted:
        """Return the number and checksum of the last step."""
        return self._seq, self._sum

    def _verify_all(self, head: Head) -> Head:
        """Check each row and each index, and return a head whose time is that of the last step at least."""
        origin = self._read_origin()
        rows = self._rows("")
        chain.verify_rows(rows, origin)
        if self._connection.execute("PRAGMA integrity_check(1)").fetchone()[0] != "ok":
            raise DamagedError("how they are found isn't what was written")
        if rows:
            self._seq, self._sum = rows[-1].seq, rows[-1].sum
        elif origin[0]:
            raise DamagedError("all steps are gone")
        if (head.seq, head.sum) == (self._seq, self._sum):
            return head
        # A crash leaves the head one step behind at most, or at what was there before old ones were dropped.
        allowed = [(rows[-1].seq - 1, rows[-1].prev)] if rows else []
        if (head.seq, head.sum) not in (*allowed, *([origin] if origin[0] else [])):
            raise DamagedError(f"step {head.seq} was the last, and isn't there or is another one")
        return replace(head, mark_s=max(head.mark_s, chain.read_step(rows[-1]).at_s))

    def repair(self) -> None:
        """Finish, or take back, what a crash interrupted."""
        text = self._get("intent")
        if text is None:
            return
        try:
            values = json.loads(text)
            row = Row(**values)
        except (ValueError, TypeError):
            raise DamagedError("what was about to happen can't be read") from None
        if not row.intact or (row.seq, row.prev) != (self._seq + 1, self._sum):
            raise DamagedError("what was about to happen doesn't follow what had happened")
        recorded = self._was_recorded(row.sum)
        if not recorded and row.kind in chain.GIVING:
            self._connection.execute("DELETE FROM meta WHERE name = 'intent'")
            return
        rows = [*self._rows("WHERE request = ?", row.request), row]
        if not recorded:
            self._record(event_of(row, replay(rows), chain.read_step(row)))
        self._commit(row)

    # -- finding -------------------------------------------------------------------------------------------------------

    def requests(self) -> list[Request]:
        """Return all of them, the oldest first."""
        return self._replayed(self._rows("ORDER BY request, seq", sort=False))

    def request(self, number: int) -> Request | None:
        """Return the one with this number."""
        rows = self._rows("WHERE request = ?", number) if 0 < number < NUMBERS_BELOW else []
        return replay(rows) if rows else None

    def _known(self, number: int) -> Request:
        request = self.request(number)
        if request is None:
            raise DamagedError(f"request {number} is gone")
        return request

    def of_subject(self, key: str) -> Request | None:
        """Return the newest request for exactly this."""
        found = self._connection.execute(
            "SELECT MAX(request) FROM steps WHERE subject = ? AND kind = 'filed'", (key,)
        ).fetchone()[0]
        return None if found is None else self.request(found)

    def approved(self, identity: str) -> Request | None:
        """Return what counts for a component: the one that was approved last, if it still is."""
        return latest_approved([self._known(number) for number in self._standing(identity)])

    def current(self) -> list[Request]:
        """Return those that nothing has ended: what waits, and what is approved."""
        rows = self._rows(f"{_NOT_ENDED} ORDER BY request, seq", sort=False)
        return self._replayed(rows)

    def answered(self, identity: str) -> list[Request]:
        """Return the requests of a component that anybody has said yes or no to."""
        return self._replayed(self._rows(f"{_EVER_ANSWERED} ORDER BY request, seq", identity, sort=False))

    def _standing(self, identity: str) -> list[int]:
        """Return the numbers of those of them that nothing has ended."""
        found = self._connection.execute(_STANDING, (identity, identity))
        return [number for (number,) in found]

    def _replayed(self, rows: Sequence[Row]) -> list[Request]:
        return [replay(list(group)) for _, group in itertools.groupby(rows, key=lambda row: row.request)]

    # -- taking steps --------------------------------------------------------------------------------------------------

    def settle(self) -> list[Request]:
        """Take the steps that time alone makes due, and return what is current then."""
        found = self._superseded([self._settled(request) for request in self.current()])
        return [request for request in found if request.state not in FINAL]

    def settled(self, request: Request) -> Request:
        """Return a request once what is due for it and for its component was done."""
        found = self._settled(request)
        if found.state is State.APPROVED:
            others = [each for each in self._standing(found.subject.identity) if each != found.number]
            if others:
                known = [found, *(self._settled(self._known(number)) for number in others)]
                found = self._superseded(known)[0]
        return found

    def _settled(self, request: Request) -> Request:
        step = due_step(request, self.now_s)
        taken = request if step is None else self.take(request, step)
        return request if isinstance(taken, Refusal) else taken

    def _superseded(self, requests: list[Request]) -> list[Request]:
        """Of each component one approval counts: that of the last; a crash may have left two."""
        of_each: dict[str, list[Request]] = {}
        for request in requests:
            of_each.setdefault(request.subject.identity, []).append(request)
        latest = {identity: latest_approved(each) for identity, each in of_each.items()}
        settled = []
        for request in requests:
            current = latest[request.subject.identity]
            if current is not None and request.state is State.APPROVED and request.number != current.number:
                taken = self.take(request, Superseded(self.now_s, current.number))
                settled.append(request if isinstance(taken, Refusal) else taken)
            else:
                settled.append(request)
        return settled

    def file(self, filed: Filed) -> Request:
        """Add a request; what the same person had asked for this component before is withdrawn.

        Raises TooManyError where there are too many.
        """
        waiting = [
            each for each in map(self._settled, self.current()) if each.state in (State.REQUESTED, State.PENDING)
        ]
        own = [each for each in waiting if each.filed.uid == filed.uid]
        replaced = [each for each in own if each.subject.identity == filed.subject.identity]
        if len(own) - len(replaced) >= OPEN_OF_ONE_MAX:
            raise TooManyError(
                f"uid {filed.uid} has {len(own)} open requests, and no more are taken",
                hint="have some of them answered: airssys approvals list",
            )
        if (
            self._count("SELECT COUNT(*) FROM steps WHERE kind = 'filed'") >= REQUESTS_MAX
            or self._count("SELECT SUM(LENGTH(body)) FROM steps") >= STEPS_MAX_BYTES
        ):
            self._drop_old(self.requests())
        number = 1 + self._count("SELECT MAX(request) FROM steps")
        request = file_request(number, filed)
        row = make_row(self._seq + 1, self._sum, number, filed, filed.subject.identity, filed.subject.key)
        self._carry_out(row, request, filed)
        for each in replaced:
            self.take(each, Withdrawn(self.now_s, filed.uid, number))
        return request

    def take(self, request: Request, step: Step) -> Request | Refusal:
        """Take a step: on record first, durable; returns the request after it, or why it isn't taken.

        Raises LocalProtocolError for a request that isn't as it is kept: what was read before another step was taken.
        """
        if self.request(request.number) != request:
            raise LocalProtocolError(f"request {request.number} has changed since it was read")
        after = take(request, step)
        if isinstance(after, Refusal):
            return after
        subject = request.subject
        row = make_row(self._seq + 1, self._sum, request.number, step, subject.identity, subject.key)
        self._carry_out(row, after, step)
        return after

    def _carry_out(self, row: Row, after: Request, step: Step | Filed) -> None:
        self._put("intent", json.dumps(to_builtins(row)))
        # Where this fails, nobody knows for certain what is in the log: whoever opens them next looks (`repair`).
        self._record(event_of(row, after, step))
        self._commit(row)

    def _commit(self, row: Row) -> None:
        with self._transaction():
            self._connection.execute(_INSERT, _values(row))
            self._connection.execute("DELETE FROM meta WHERE name = 'intent'")
        self._seq, self._sum = row.seq, row.sum
        self._write_head()

    def _drop_old(self, requests: Sequence[Request]) -> None:
        """Make room: the oldest that are closed go, and those that stay are chained anew, behind a record of it.

        What somebody has said no to goes last: people are slow, and whoever asks in a loop doesn't have it forgotten.
        """
        closed = [each for each in requests if each.state in FINAL and not self._is_remembered(each)]
        closed.sort(key=lambda each: isinstance(each.ending, Rejected | Revoked))
        sizes = dict(self._connection.execute("SELECT request, SUM(LENGTH(body)) FROM steps GROUP BY request"))
        left, left_bytes = len(closed), sum(sizes.values())
        gone = set()
        for each in closed:
            if left <= CLOSED_KEPT and left_bytes <= STEPS_KEPT_BYTES:
                break
            gone.add(each.number)
            left, left_bytes = left - 1, left_bytes - sizes[each.number]
        if not gone:
            raise TooManyError(
                f"there are {len(requests)} requests, and no more are taken",
                hint="have some of them answered: airssys approvals list",
            )
        detail: dict[str, object] = {"requests": len(gone), "head": f"{self._seq}:{self._sum}"}
        self._record(
            AuditEvent("approvals_dropped", reason="older than what is kept of closed requests", detail=detail)
        )
        kept = [row for row in self._rows("") if row.request not in gone]
        origin = f"{self._seq}:{self._sum}"
        with self._transaction():
            self._connection.execute("DELETE FROM steps")
            self._connection.execute(_PUT, ("origin", _checked(origin)))
            for old in kept:
                step = chain.read_step(old)
                row = make_row(self._seq + 1, self._sum, old.request, step, old.identity, old.subject)
                self._connection.execute(_INSERT, _values(row))
                self._seq, self._sum = row.seq, row.sum
        self._write_head()

    def _is_remembered(self, request: Request) -> bool:
        """Whether a signed yes that counted for it could be brought once more, if nobody remembered."""
        return any(vote.signed is not None and vote.signed.import_before_s > self.now_s for vote in request.votes)

    # -- the file ------------------------------------------------------------------------------------------------------

    def _rows(self, where: str, *values: object, sort: bool = True) -> list[Row]:
        order = " ORDER BY seq" if sort else ""
        rows = [Row(*found) for found in self._connection.execute(f"{_SELECT} {where}{order}", values)]
        if self._checks_what_it_reads and not all(row.intact for row in rows):
            raise DamagedError("a step isn't what was written")
        return rows

    def _count(self, query: str) -> int:
        return int(self._connection.execute(query).fetchone()[0] or 0)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def _get(self, name: str) -> str | None:
        found = self._connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return None if found is None else str(found[0])

    def _put(self, name: str, value: str) -> None:
        self._connection.execute(_PUT, (name, value))

    def _read_origin(self) -> tuple[int, str]:
        """Return what stood before the first row that is kept."""
        text = _unchecked(self._get("origin"))
        seq, _, digest = text.partition(":")
        return (int(seq), digest) if text else (0, GENESIS)

    def _write_head(self) -> None:
        write_head(self._head_path, Head(self._seq, self._sum, self.now_s))


def _values(row: Row) -> tuple[object, ...]:
    return (row.seq, row.request, row.kind, row.identity, row.subject, row.body, row.prev, row.sum)


def _checked(text: str) -> str:
    return f"{text} {chain.hash_text(text)}"


def _unchecked(stored: str | None) -> str:
    """Return what was stored with its checksum, "" for nothing; raises DamagedError where it was edited."""
    text = (stored or "").rpartition(" ")[0]
    if stored is not None and stored != _checked(text):
        raise DamagedError("a note beside the steps isn't what was written")
    return text
