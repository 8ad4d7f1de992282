"""What is kept of requests: found again, verified, repaired after a crash, bounded; on real files."""

from __future__ import annotations

import mmap
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from approvals_to_test import ALICE, ASKER, BOB, CAROL, READ, START_S, filed, subject, vote

from ipc.audit.errors import AuditLogError
from ipc.audit.event import SUPERVISOR, AuditEvent
from ipc.errors import ConfigError, LocalProtocolError
from supervisor.approvals import chain, verified
from supervisor.approvals import ledger as ledgers
from supervisor.approvals.chain import DamagedError, Row, StoreError
from supervisor.approvals.ledger import Ledger, TooManyError
from supervisor.approvals.machine import Refusal, State
from supervisor.approvals.request import Rejected, Request, Revoked, Step, Told
from supervisor.approvals.store import ApprovalStore, BusyError
from supervisor.audit.log import AuditLog


class Place:
    """A store with a real audit log, and a clock that is set."""

    def __init__(self, directory: Path) -> None:
        """Make nothing yet but the log."""
        self.directory = directory
        self.now_s = START_S
        self.log = AuditLog(str(directory / "audit"))
        self.events: list[AuditEvent] = []
        self.before: Callable[[AuditEvent], None] = lambda _: None
        self.after: Callable[[AuditEvent], None] = lambda _: None

    def record(self, event: AuditEvent) -> None:
        """Have it in the log."""
        self.before(event)
        self.log.append([(event.within_bounds(), SUPERVISOR)])
        self.events.append(event)
        self.after(event)

    def store(self, wait_s: float = 0.0) -> ApprovalStore:
        """Return the store."""
        return ApprovalStore(
            str(self.directory), self.log.directory, self.record, clock_s=lambda: self.now_s, wait_s=wait_s
        )

    @property
    def file(self) -> Path:
        """The SQLite file."""
        return self.directory / "approvals" / "approvals.sqlite"

    def request(self, number: int) -> Request:
        """Return a request as it is kept."""
        with self.store().open() as ledger:
            found = ledger.request(number)
        assert found is not None
        return found


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """A place for a store."""
    found = Place(tmp_path)
    yield found
    found.log.close()


def _take(ledger: Ledger, request: Request, *steps: Step) -> Request:
    for step in steps:
        after = ledger.take(request, step)
        assert not isinstance(after, Refusal), after
        request = after
    return request


def _approve(ledger: Ledger, request: Request) -> Request:
    request = _take(ledger, request, vote(request, ALICE, ledger.now_s))
    return _take(ledger, request, vote(request, BOB, ledger.now_s))


def _three(place: Place) -> None:
    """Make one that is approved, one that is rejected and one that waits."""
    with place.store().open() as ledger:
        _approve(ledger, ledger.file(filed()))
        other = ledger.file(filed(subject(component="other")))
        _take(ledger, other, Rejected(ledger.now_s, CAROL, "no"))
        ledger.file(filed(subject(component="third")))


def test_what_was_done_is_found_again(place: Place) -> None:
    """By its number, by exactly what it is about, and what counts for a component; private, and on record."""
    _three(place)
    with place.store().open() as ledger:
        states = [each.state for each in ledger.requests()]
        assert states == [State.APPROVED, State.REJECTED, State.REQUESTED]
        found = ledger.of_subject(subject().key)
        assert found is not None
        assert found == ledger.approved("reporter")
        assert ledger.of_subject(subject(package="00" * 32).key) is None
        assert ledger.approved("other") is None
    assert {os.stat(path).st_mode & 0o077 for path in (place.file, place.file.parent)} == {0}
    names = [event.event for event in place.events]
    assert names == [
        "approval_requested",
        "approval_voted",
        "approval_granted",
        "approval_requested",
        "approval_rejected",
        "approval_requested",
    ]
    granted = place.events[2]
    assert (granted.approval, granted.actor, granted.decision) == ("approval 1", f"uid {BOB}", "allowed")


def test_a_changed_component_is_another_subject(place: Place) -> None:
    """Other bytes or another set ask again, and the same person's earlier request is withdrawn."""
    with place.store().open() as ledger:
        first = ledger.file(filed())
        second = ledger.file(filed(subject(READ)))
        assert ledger.request(first.number).state is State.WITHDRAWN  # type: ignore[union-attr]
        third = ledger.file(filed(subject(package="00" * 32), uid=CAROL))
        assert ledger.request(second.number).state is State.REQUESTED  # type: ignore[union-attr]
    assert [first.number, second.number, third.number] == [1, 2, 3]


def test_of_one_component_one_approval_counts(place: Place) -> None:
    """Approving another supersedes it; an instance of its own is another component."""
    with place.store().open() as ledger:
        _approve(ledger, ledger.file(filed()))
        _approve(ledger, ledger.file(filed(subject(instance="acme"))))
        newer = ledger.settled(_approve(ledger, ledger.file(filed(subject(package="00" * 32)))))
        assert [each.state for each in ledger.requests()] == [State.SUPERSEDED, State.APPROVED, State.APPROVED]
        assert ledger.approved("reporter") == newer


def test_what_is_due_happens_when_somebody_looks(place: Place) -> None:
    """A request that nobody answered has expired, on record."""
    with place.store().open() as ledger:
        ledger.file(filed(expires_s=100))
    place.now_s += 100
    with place.store().open() as ledger:
        assert ledger.settle() == []
        assert [each.state for each in ledger.requests()] == [State.EXPIRED]
    assert place.events[-1].event == "approval_expired"


def test_a_clock_that_is_set_back_revives_nothing(place: Place) -> None:
    """What was seen of the time is kept: an approval that is over stays over; with the clock right it holds."""
    with place.store().open() as ledger:
        one = ledger.file(filed(needs=1))
        _take(ledger, one, vote(one, ALICE, ledger.now_s, lifetime_s=1000))
    place.now_s += 999
    with place.store().open() as ledger:
        assert ledger.settle()[0].state is State.APPROVED
    place.now_s += 200
    with place.store().open():
        pass  # somebody looked at the clock, and at nothing else
    place.now_s = START_S
    with place.store().open() as ledger:
        assert ledger.behind_s >= 1000
        assert ledger.settle() == []
        assert ledger.requests()[0].state is State.EXPIRED


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("kind", ["filed", "voted", "carried", "rejected", "revoked"])
def test_an_interrupted_step_is_finished_or_never_was(place: Place, kind: str, when: str) -> None:
    """By the log: what gives needs its record; what takes away happens, and gets its record late."""
    with place.store().open() as ledger:
        one = ledger.file(filed())
        if kind in ("carried", "revoked"):
            one = _take(ledger, one, vote(one, ALICE, ledger.now_s))
        if kind == "revoked":
            one = _take(ledger, one, vote(one, BOB, ledger.now_s))
    steps: dict[str, Step] = {
        "voted": vote(one, ALICE, START_S),
        "carried": vote(one, BOB, START_S),
        "rejected": Rejected(START_S, CAROL),
        "revoked": Revoked(START_S, CAROL),
    }
    known = len(place.events)

    def killed(_: AuditEvent) -> None:
        raise Killed

    setattr(place, when, killed)
    with pytest.raises(Killed), place.store().open() as ledger:
        ledger.file(filed(subject(component="late"))) if kind == "filed" else ledger.take(one, steps[kind])
    place.before = place.after = lambda _: None
    with place.store().open() as ledger:
        last = ledger.requests()[-1]
    happened = when == "after" or kind in ("rejected", "revoked")
    done = {"filed": last.number == 2, "voted": len(last.votes) == 1, "carried": last.state is State.APPROVED}
    assert done.get(kind, last.state == kind) is happened
    assert len(place.events) - known == happened, "its record is there once, or not at all"
    with place.store().open() as ledger:
        assert ledger.requests()[-1] == last


def test_a_step_that_can_not_be_recorded_is_not_taken(place: Place) -> None:
    """No audit record, no action; nothing is left over."""
    with place.store().open() as ledger:
        one = ledger.file(filed(needs=1))

    def full(_: AuditEvent) -> None:
        raise AuditLogError("no space left on device")

    place.before = full
    with pytest.raises(AuditLogError), place.store().open() as ledger:
        ledger.take(one, vote(one, ALICE, ledger.now_s))
    place.before = lambda _: None
    assert place.request(1) == one


def test_a_step_of_what_has_changed_meanwhile_is_not_taken(place: Place) -> None:
    """It would be no step of this request's, and what is kept could never be read again."""
    with place.store().open() as ledger:
        one = ledger.file(filed())
        after = _take(ledger, one, Rejected(ledger.now_s, CAROL))
        with pytest.raises(LocalProtocolError, match="has changed"):
            ledger.take(one, Told(ledger.now_s))
    assert place.request(1) == after


def test_what_takes_away_happens_once_it_can_be_recorded(place: Place) -> None:
    """A revocation that found the log full holds as soon as anybody looks again."""
    with place.store().open() as ledger:
        one = _approve(ledger, ledger.file(filed()))

    def full(_: AuditEvent) -> None:
        raise AuditLogError("no space left on device")

    place.before = full
    with pytest.raises(AuditLogError), place.store().open() as ledger:
        ledger.take(one, Revoked(ledger.now_s, CAROL))
    with pytest.raises(AuditLogError), place.store().open():
        pass  # nothing is allowed by it meanwhile
    place.before = lambda _: None
    assert place.request(1).state is State.REVOKED


def test_what_somebody_holds_is_waited_for_and_then_told(place: Place) -> None:
    """Two at once would be two truths."""
    with place.store().open(), pytest.raises(BusyError), place.store().open():
        pass


def test_a_directory_that_others_can_use_is_refused(place: Place) -> None:
    """And its file likewise."""
    _three(place)
    place.file.chmod(0o640)
    with pytest.raises(DamagedError, match="private"), place.store().open():
        pass
    place.file.chmod(0o600)
    place.file.parent.chmod(0o750)
    with pytest.raises(ConfigError, match="nobody else"), place.store().open():
        pass


def test_the_oldest_closed_ones_go_when_there_are_too_many(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits and what is approved stays, chained anew, behind a record; where nothing can go, no more are taken."""
    monkeypatch.setattr(ledgers, "REQUESTS_MAX", 6)
    monkeypatch.setattr(ledgers, "CLOSED_KEPT", 1)
    with place.store().open() as ledger:
        _approve(ledger, ledger.file(filed()))
        for number in range(4):
            one = ledger.file(filed(subject(component=f"c{number}")))
            _take(ledger, one, Rejected(ledger.now_s, CAROL))
        ledger.file(filed(subject(component="waits")))
        ledger.file(filed(subject(component="new")))
    with place.store().open() as ledger:
        kept = {each.subject.component: each.state for each in ledger.requests()}
        assert kept == {
            "reporter": State.APPROVED,
            "c3": State.REJECTED,
            "waits": State.REQUESTED,
            "new": State.REQUESTED,
        }
        assert [each.number for each in ledger.requests()] == [1, 5, 6, 7]
        monkeypatch.setattr(ledgers, "REQUESTS_MAX", 4)
        monkeypatch.setattr(ledgers, "CLOSED_KEPT", 9)
        with pytest.raises(TooManyError):
            ledger.file(filed(subject(component="one more")))
    assert "approvals_dropped" in [event.event for event in place.events]


def test_one_person_has_so_many_open_requests(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """And asking for the same component again takes no more; another person has their own."""
    monkeypatch.setattr(ledgers, "OPEN_OF_ONE_MAX", 3)
    with place.store().open() as ledger:
        for number in range(3):
            ledger.file(filed(subject(component=f"c{number}")))
        with pytest.raises(TooManyError, match=f"uid {ASKER}"):
            ledger.file(filed(subject(component="c3")))
        ledger.file(filed(subject(component="c0", package="00" * 32)))
        ledger.file(filed(subject(component="c3"), uid=CAROL))


def _edit(place: Place, *statements: str) -> None:
    with sqlite3.connect(place.file) as connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


@pytest.mark.parametrize("noted", [False, True])
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE steps SET body = replace(body, '\"no\"', '\"\"') WHERE kind = 'rejected'",
        "UPDATE steps SET kind = 'told' WHERE kind = 'rejected'",
        "UPDATE steps SET body = replace(body, '1002', '1004') WHERE seq = 3",
        "UPDATE steps SET request = 3 WHERE seq = 4",
        "UPDATE steps SET subject = (SELECT subject FROM steps WHERE seq = 1) WHERE seq = 6",
        "UPDATE steps SET identity = 'x' WHERE seq = 1",
        "DELETE FROM steps WHERE seq = 5",
        "DELETE FROM steps WHERE seq = 6",
        "DELETE FROM steps",
        "INSERT INTO meta (name, value) VALUES ('intent', '{}')",
        "INSERT INTO steps SELECT 7, request, kind, identity, subject, body, prev, sum FROM steps WHERE seq = 6",
        "DROP TABLE steps",
    ],
)
def test_what_was_edited_by_hand_is_refused(
    place: Place, statement: str, noted: bool, monkeypatch: pytest.MonkeyPatch, deadline
) -> None:
    """Said in one line, with what to do, also where it was noted before that they were verified; untouched it opens."""
    _three(place)
    if noted:
        _noted(place, monkeypatch, deadline)
    with place.store().open() as ledger:
        assert len(ledger.requests()) == 3
    _edit(place, statement)
    with pytest.raises(DamagedError, match="aren't what was written here") as refused, place.store().open() as ledger:
        ledger.requests()
    assert "mv " in str(refused.value.hint)
    assert "\n" not in refused.value.message


def _noted(place: Place, monkeypatch: pytest.MonkeyPatch, deadline) -> None:
    """Have it noted that what is there was verified: the file is quiet after 20 ms, more than a kernel's clock lags."""
    monkeypatch.setattr(verified, "QUIET_NS", 20_000_000)
    state = verified.state_of(os.stat(place.file))
    deadline.until(lambda: verified.is_quiet(state, time.time_ns()), "the file is quiet")
    with place.store().open() as ledger:
        noted = verified.noted_step(verified.read_note(str(place.file.parent)), state)
        assert noted == ledger.last


def test_what_was_verified_is_not_verified_again(place: Place, monkeypatch: pytest.MonkeyPatch, deadline) -> None:
    """As long as nobody writes to it; each row that is read is still looked at, and a step is taken as ever."""
    _three(place)
    _noted(place, monkeypatch, deadline)
    verified_rows: list[int] = []
    verify_rows = chain.verify_rows

    def counted(rows: Sequence[Row], origin: tuple[int, str]) -> None:
        verified_rows.append(len(rows))
        verify_rows(rows, origin)

    monkeypatch.setattr(chain, "verify_rows", counted)
    with place.store().open() as ledger:
        one = ledger.request(1)
        assert one is not None
        assert (one.state, verified_rows) == (State.APPROVED, [])
        _take(ledger, one, Revoked(ledger.now_s, CAROL))
    assert place.request(1).state is State.REVOKED
    assert verified_rows == [7]


def test_what_is_written_through_memory_is_not_what_was_verified(
    place: Place, monkeypatch: pytest.MonkeyPatch, deadline
) -> None:
    """Also by who had mapped the file, and written to it, before it was verified."""
    _three(place)
    with open(place.file, "r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        mapped[:1] = mapped[:1]
        _noted(place, monkeypatch, deadline)
        before = verified.state_of(os.stat(place.file))
        mapped[:1] = mapped[:1]
        now = verified.state_of(os.stat(place.file))
        if now == before:
            os.fsync(file.fileno())
            mapped[:1] = mapped[:1]
            if verified.state_of(os.stat(place.file)) == before:
                pytest.skip("this file system never tells of it")
        assert now.ctime_ns != before.ctime_ns
        assert verified.noted_step(verified.read_note(str(place.file.parent)), now) is None


def test_a_note_that_was_made_by_hand_hides_no_edit_of_what_is_read(
    place: Place, monkeypatch: pytest.MonkeyPatch, deadline
) -> None:
    """Whoever makes one for a file that they have edited: each row that is read is looked at."""
    _three(place)
    _noted(place, monkeypatch, deadline)
    last = verified.noted_step(verified.read_note(str(place.file.parent)), verified.state_of(os.stat(place.file)))
    assert last is not None
    _edit(place, "UPDATE steps SET body = replace(body, '1002', '1004') WHERE seq = 3")
    state = verified.state_of(os.stat(place.file))
    deadline.until(lambda: verified.is_quiet(state, time.time_ns()), "the file is quiet")
    verified.write_note(str(place.file.parent), verified.note_text(state, last))
    with pytest.raises(DamagedError, match="a step isn't what was written"), place.store().open() as ledger:
        ledger.request(1)


def test_a_log_beside_the_file_is_no_part_of_what_was_verified(
    place: Place, monkeypatch: pytest.MonkeyPatch, deadline
) -> None:
    """What a change that never ended has left is looked at with the file: all of it is verified."""
    _three(place)
    _noted(place, monkeypatch, deadline)
    beside = place.file.with_name(f"{place.file.name}-journal")
    beside.write_bytes(b"")
    monkeypatch.setattr(chain, "verify_rows", lambda *_: pytest.fail("verified"))
    with pytest.raises(pytest.fail.Exception), place.store().open():
        pass


@pytest.mark.parametrize("part", range(4))
def test_a_head_that_was_edited_is_refused(place: Place, part: int) -> None:
    """Its number, its checksum, the latest time that was seen, and the checksum over all of it."""
    _three(place)
    head = place.file.with_name("head")
    parts = head.read_text().strip().split(":")
    parts[part] = "1" if parts[part] != "1" else "2"
    head.write_text(":".join(parts) + "\n")
    with pytest.raises(DamagedError, match="the head beside them isn't what was written"), place.store().open():
        pass


def test_a_head_that_can_not_be_written_opens_nothing(place: Place) -> None:
    """Said in one line; once it can be, it goes on."""
    _three(place)
    place.now_s += 3600
    blocked = place.file.with_name("head.new")
    blocked.mkdir()
    with pytest.raises(StoreError, match=r"head can't be written: is a directory"), place.store().open():
        pass
    blocked.rmdir()
    assert place.request(1).state is State.APPROVED


def test_the_clock_is_remembered_without_a_step(place: Place) -> None:
    """What was seen of it a minute later counts, whatever the clock says then."""
    _three(place)
    place.now_s += 3600
    before = place.file.stat().st_ctime_ns
    with place.store().open():
        pass
    assert place.file.stat().st_ctime_ns == before
    place.now_s -= 3000
    with place.store().open() as ledger:
        assert (ledger.now_s, ledger.behind_s) == (START_S + 3600, 3000)


def test_an_older_copy_is_refused(place: Place) -> None:
    """It would bring a revoked approval back; the file that was there last opens."""
    _three(place)
    older = place.file.read_bytes()
    with place.store().open() as ledger:
        one = ledger.request(1)
        assert one is not None
        _take(ledger, one, Revoked(ledger.now_s, CAROL))
        _take(ledger, ledger.request(3), Told(ledger.now_s))  # type: ignore[arg-type]
    newer = place.file.read_bytes()
    place.file.write_bytes(older)
    with pytest.raises(DamagedError), place.store().open():
        pass
    place.file.unlink()
    with pytest.raises(DamagedError, match="gone"), place.store().open():
        pass
    place.file.write_bytes(newer)
    place.file.chmod(0o600)
    assert place.request(1).state is State.REVOKED


def test_what_is_no_database_is_refused(place: Place) -> None:
    """Whatever it is instead."""
    _three(place)
    place.file.write_bytes(b"not a database, whatever it is called" * 100)
    with pytest.raises(DamagedError), place.store().open():
        pass
