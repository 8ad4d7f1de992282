"""Small parts of the warden: pace, the table of answers, registers, forbidden calls, what is recorded."""

from __future__ import annotations

import errno

import pytest

from ipc import syscalls
from ipc.audit.event import AuditEvent
from ipc.errors import AuditError
from ipc.messages import AuditBudget
from ipc.warden import recorder as recording
from ipc.warden.context import signed
from ipc.warden.decide import Refusal
from ipc.warden.dispatch import ANSWERERS, answerers_by_number
from ipc.warden.forbidden_calls import name_of
from ipc.warden.pace import BURST_NS, TOLERATED_NS, Pace
from ipc.warden.recorder import UNCONFIRMED_MAX, BudgetSpent, Recorder

SECOND_NS = 1_000_000_000


@pytest.mark.parametrize("machine", sorted(syscalls.NOTIFIED))
def test_every_notified_call_has_an_answer(machine: str) -> None:
    """No name that the filters hand over is without an answerer, and none is answered that isn't handed over."""
    names = {name for calls in syscalls.NOTIFIED[machine].values() for name in calls}
    assert {name for name, _ in answerers_by_number(machine).values()} == names
    everywhere = {n for m in syscalls.NOTIFIED.values() for calls in m.values() for n in calls}
    assert set(ANSWERERS) == everywhere


@pytest.mark.parametrize(
    ("register", "value"),
    [
        (0, 0),
        (5, 5),
        (0xFFFF_FF9C, -100),
        (0xFFFF_FFFF_FFFF_FF9C, -100),
        (0x1_0000_0003, 3),
        (0x8000_0000, -(1 << 31)),
        (0x7FFF_FFFF, 0x7FFF_FFFF),
    ],
)
def test_a_register_is_read_as_the_kernel_reads_an_int(register: int, value: int) -> None:
    """Only the low 32 bits count, with their sign."""
    assert signed(register) == value


def test_forbidden_calls_have_names() -> None:
    """Known numbers are named on both architectures, and unknown ones are not guessed."""
    assert (name_of(101, "x86_64"), name_of(117, "aarch64")) == ("ptrace", "ptrace")
    assert name_of(59, "x86_64") == "execve"
    assert name_of(99_999, "x86_64") == "no name known"


def test_a_burst_is_free_and_the_rate_is_kept() -> None:
    """A second's worth of calls waits for nothing; after it each call waits for its turn."""
    pace = Pace(100)
    interval_ns = SECOND_NS // 100
    assert [pace.note(0) for _ in range(BURST_NS // interval_ns)] == [0] * 100
    assert pace.note(0) == interval_ns
    assert pace.note(interval_ns) == interval_ns


def test_who_stays_paced_is_ended_and_who_pauses_is_not() -> None:
    """Only paced calls without a break for the tolerated time end a worker."""
    pace, now_ns = Pace(10), 0
    while (wait_ns := pace.note(now_ns)) >= 0:
        now_ns += wait_ns + 1
    assert TOLERATED_NS <= now_ns <= TOLERATED_NS + SECOND_NS
    patient = Pace(10)
    for start_s in range(0, 60, 4):
        assert all(patient.note(start_s * SECOND_NS) >= 0 for _ in range(15))


class Log:
    """A sink that keeps what it is given; `broken` refuses to make anything durable."""

    def __init__(self) -> None:
        self.events: list[AuditEvent] = []
        self.broken = False
        self.durable = 0

    @property
    def unacknowledged(self) -> int:
        """All since the last one that was waited for."""
        return len(self.events) - self.durable

    def record(self, event: AuditEvent) -> int:
        """Keep it."""
        self.events.append(event)
        return len(self.events)

    def record_durable(self, event: AuditEvent, timeout_s: float, before: list[AuditEvent]) -> None:
        """Keep it behind those before it, or fail."""
        if self.broken:
            raise AuditError("disk full")
        self.events += before
        before.clear()
        self.events.append(event)
        self.durable = len(self.events)

    def flush(self, timeout_s: float) -> None:
        """Make all durable."""
        self.durable = len(self.events)


def test_repeats_are_folded_with_exact_counts() -> None:
    """Of a thousand alike happenings two records are left, whose counts add up."""
    log = Log()
    recorder = Recorder(log, AuditEvent("stamp", component="c"))
    refusal = Refusal(errno.EACCES, "filesystem.read", "/x", "A1203", "no grant", "rule", "near")
    for _ in range(1000):
        recorder.allowed("filesystem.read", "/a", "rule", "openat2")
        recorder.refused(refusal, "openat2", "x")
    assert len(log.events) == 2
    recorder.close()
    assert [(e.decision, e.count) for e in log.events] == [
        ("allowed", 1),
        ("denied", 1),
        ("allowed", 999),
        ("denied", 999),
    ]
    assert (recorder.allowed_count, recorder.refused_count) == (1000, 1000)
    assert {e.component for e in log.events} == {"c"}


def test_what_can_not_be_recorded_is_not_allowed() -> None:
    """If the first record fails so does the action, and the next of its kind tries to be recorded again."""
    log = Log()
    recorder = Recorder(log, AuditEvent("stamp"))
    log.broken = True
    for _ in range(2):
        with pytest.raises(AuditError):
            recorder.allowed("filesystem.read", "/a", "rule", "openat2")
    log.broken = False
    recorder.allowed("filesystem.read", "/a", "rule", "openat2")
    assert len(log.events) == 1


def test_a_rules_first_action_waits_for_the_disk_and_few_run_ahead() -> None:
    """The first action under each rule is durable at once; later resources are recorded, never more than 256 ahead."""
    log = Log()
    recorder = Recorder(log, AuditEvent("stamp"))
    recorder.allowed("filesystem.read", "/a", "rule", "openat2")
    assert log.unacknowledged == 0
    for number in range(1000):
        recorder.allowed("filesystem.read", f"/a{number}", "rule", "openat2")
        assert log.unacknowledged <= UNCONFIRMED_MAX
    recorder.hand_over()
    assert len({e.resource for e in log.events}) == 1001
    recorder.allowed("filesystem.write", "/a", "other rule", "openat2")
    assert log.unacknowledged == 0


def _refuse(recorder: Recorder, resource: str) -> None:
    recorder.refused(Refusal(errno.EACCES, "filesystem.read", resource, "A1203", "no grant"), "openat2", resource)


def test_what_waits_is_on_record_before_what_is_waited_for() -> None:
    """Allowed actions that weren't handed over go with the next refusal, before it; where that fails they are kept."""
    log = Log()
    recorder = Recorder(log, AuditEvent("stamp"))
    for resource in ("/a", "/b"):
        recorder.allowed("filesystem.read", resource, "rule", "openat2")
    assert recorder.waiting
    log.broken = True
    with pytest.raises(AuditError):
        _refuse(recorder, "/x")
    assert recorder.waiting
    log.broken = False
    _refuse(recorder, "/x")
    assert not recorder.waiting
    assert [event.resource for event in log.events] == ["/a", "/b", "/x"]
    assert log.unacknowledged == 0


def test_ever_new_refusals_end_a_worker_and_repeated_ones_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over the budget of records new names are paced, then an end; the same name again and again costs nothing."""
    log = Log()
    budget = AuditBudget(refused_at_once=10, refused_per_s=1_000_000, refused_tolerated_ns=-1)
    recorder = Recorder(log, AuditEvent("stamp"), budget)
    monkeypatch.setattr(recording.time, "monotonic_ns", lambda: SECOND_NS)
    for _ in range(1000):
        _refuse(recorder, "/x")
    for number in range(9):
        _refuse(recorder, f"/{number}")
    assert len(log.events) == 10
    with pytest.raises(BudgetSpent):
        _refuse(recorder, "/one-more")
    assert len(log.events) == 10


def test_long_names_count_as_many_records(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes twenty times the room of an ordinary record in the log takes as much of the budget."""
    monkeypatch.setattr(recording.time, "monotonic_ns", lambda: SECOND_NS)
    longest = "\x01" * 4000
    for name, expected in (("/short", 100), (longest, 2)):
        log = Log()
        budget = AuditBudget(refused_at_once=100, refused_per_s=1_000_000, refused_tolerated_ns=-1)
        recorder = Recorder(log, AuditEvent("stamp"), budget)
        for number in range(expected):
            _refuse(recorder, f"{number}{name}")
        with pytest.raises(BudgetSpent):
            _refuse(recorder, f"{expected}{name}")
        assert len(log.events) == expected


def test_ever_new_allowed_actions_are_only_paced() -> None:
    """Over a budget without an end each new one waits for its turn, however long that goes on."""
    pace = Pace(10, burst_ns=SECOND_NS, tolerated_ns=None)
    now_ns = 0
    for _ in range(1_000):
        wait_ns = pace.note(now_ns)
        assert wait_ns >= 0
        now_ns += wait_ns
    assert now_ns == 99 * SECOND_NS
