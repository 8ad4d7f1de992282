"""What a message, a look or a deadline means for a run: values in, an event and the facts out."""

from __future__ import annotations

import signal

import pytest

from ipc.messages import (
    Attached,
    Confined,
    Ended,
    EndWorker,
    Finished,
    Sealed,
    Spawned,
    StartFailed,
    StorageExceeded,
    WorkerLimits,
)
from supervisor.host.warden_restart import ANSWERED_WRONG
from supervisor.run import watch
from supervisor.run.events import (
    Happened,
    deadline_passed,
    hand_over_broke_off,
    interrupted,
    keeper_said,
    seen_holding,
    warden_lost,
    warden_said,
    worker_said,
)
from supervisor.run.machine import Event, Phase
from supervisor.run.verdict import Facts, LimitReached, decide_verdict

LIMITS = WorkerLimits(memory_bytes=64 << 20, output_bytes=1 << 20)
NOTHING = Facts(LIMITS)
FAILED = StartFailed("confine", "landlock", "landlock_create_ruleset", 38, "not built in")
FINISHED = Finished("exited", 0)
ENDED = Ended(0, 10**6, 10**6, 1 << 20)
SECOND_NS = 10**9


@pytest.mark.parametrize(
    ("happened", "expected"),
    [
        pytest.param(keeper_said(Spawned(7), NOTHING), Happened(Event.SPAWNED, NOTHING), id="spawned"),
        pytest.param(keeper_said(ENDED, NOTHING), Happened(Event.ENDED, Facts(LIMITS, ended=ENDED)), id="ended"),
        pytest.param(keeper_said(None, NOTHING), Happened(Event.KEEPER_LOST, NOTHING), id="keeper gone"),
        pytest.param(worker_said(Confined(()), NOTHING, False), Happened(Event.CONFINED, NOTHING), id="confined"),
        pytest.param(worker_said(Sealed(()), NOTHING, False), Happened(Event.SEALED, NOTHING), id="sealed"),
        pytest.param(
            worker_said(FINISHED, NOTHING, True),
            Happened(Event.FINISHED, Facts(LIMITS, finished=FINISHED)),
            id="finished",
        ),
        pytest.param(
            worker_said(FAILED, NOTHING, False),
            Happened(Event.START_FAILED, Facts(LIMITS, start_failed=FAILED)),
            id="start failed",
        ),
        pytest.param(warden_said(Attached("w"), NOTHING), Happened(Event.ATTACHED, NOTHING), id="attached"),
        pytest.param(
            warden_said(EndWorker("w", "A3004", "the log is full", 0), NOTHING),
            Happened(Event.WARDEN_ORDERED_END, Facts(LIMITS, unrecorded="the log is full")),
            id="nothing can be recorded",
        ),
        pytest.param(
            warden_said(EndWorker("w", "A1706", "a foreign call", 41), NOTHING),
            Happened(Event.WARDEN_ORDERED_END, Facts(LIMITS, refused_code="A1706", refused_reason="a foreign call")),
            id="the warden orders the end",
        ),
        pytest.param(
            warden_said(StorageExceeded("w", 10, 11), NOTHING),
            Happened(
                Event.LIMIT_REACHED,
                Facts(LIMITS, limit_reached=LimitReached("storage", "A2009", 10, 11, "bytes")),
            ),
            id="storage",
        ),
    ],
)
def test_what_is_said_becomes_an_event(happened: Happened, expected: Happened) -> None:
    """Each message of the keeper, the worker and the warden has one event, and adds what it says to the facts."""
    assert happened == expected


def test_a_start_does_not_fail_after_it() -> None:
    """Who says after the start that it failed is taken at nothing but a broken protocol."""
    happened = worker_said(FAILED, NOTHING, said_go=True)
    assert happened.event is Event.PROTOCOL_BROKEN
    assert happened.facts.start_failed is None
    assert "after the start" in happened.facts.broken


def test_the_first_interrupt_counts() -> None:
    """A second signal kills again, and the first one stays the reason."""
    again = interrupted(interrupted(NOTHING, 2).facts, 15)
    assert again == Happened(Event.INTERRUPTED, Facts(LIMITS, interrupted_by=2))


@pytest.mark.parametrize("phase", Phase)
def test_a_lost_warden_is_the_reason_unless_there_was_one(phase: Phase) -> None:
    """Its loss breaks a living run; one that was ending, or broken already, has its own reason."""
    happened = warden_lost(phase, NOTHING, "gone")
    assert happened.event is Event.WARDEN_LOST
    assert happened.facts.broken == ("" if phase is Phase.ENDING else "gone")
    before = Facts(LIMITS, broken="before")
    assert warden_lost(phase, before, "gone").facts == before


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase not in (Phase.ENDING, Phase.ENDED)])
@pytest.mark.parametrize("timeout_ns", [None, SECOND_NS])
def test_a_deadline_that_passes_says_what_hung(phase: Phase, timeout_ns: int | None) -> None:
    """Of a running guest with a timeout it is the timeout, with what was used; of everything else a hang."""
    happened = deadline_passed(phase, NOTHING, 2 * SECOND_NS, timeout_ns, killed=False)
    if phase is Phase.RUNNING and timeout_ns is not None:
        reached = LimitReached("timeout", "A2002", SECOND_NS, 2 * SECOND_NS, "ns")
        assert happened == Happened(Event.LIMIT_REACHED, Facts(LIMITS, limit_reached=reached))
    else:
        assert happened == Happened(Event.PROTOCOL_BROKEN, Facts(LIMITS, broken=f"it hung while {phase}"))


def test_a_process_that_does_not_end_is_killed_and_then_left() -> None:
    """First it is killed and named; one that was killed already can't be reaped, and is not waited for."""
    first = deadline_passed(Phase.ENDING, NOTHING, 0, None, killed=False)
    assert first.event is Event.LIMIT_REACHED  # which kills also in ENDING, and is no limit: the facts name none
    assert first.facts.limit_reached is None
    assert decide_verdict(first.facts).message == "its process didn't end after its guest had, and was killed"
    second = deadline_passed(Phase.ENDING, first.facts, 0, None, killed=True)
    assert second == Happened(Event.KEEPER_LOST, first.facts)


def test_what_a_worker_holds_is_judged() -> None:
    """At its bounds it is left alone; a byte or a thread more ends it, memory first."""
    bound_bytes, threads = 100, watch.MAX_THREADS
    assert seen_holding(NOTHING, watch.Usage(bound_bytes, threads), bound_bytes, LIMITS) is None
    more_memory = seen_holding(NOTHING, watch.Usage(bound_bytes + 1, threads + 1), bound_bytes, LIMITS)
    assert more_memory is not None
    assert more_memory.event is Event.LIMIT_REACHED
    assert more_memory.facts.limit_reached == LimitReached("memory", "A2001", LIMITS.memory_bytes, 101, "bytes")
    more_threads = seen_holding(NOTHING, watch.Usage(bound_bytes, threads + 1), bound_bytes, LIMITS)
    assert more_threads is not None
    assert more_threads.facts.refused_code == "A1706"


@pytest.mark.parametrize(("status", "named"), [(signal.SIGSYS, True), (signal.SIGKILL, False), (0, False)])
def test_a_hand_over_that_broke_off_explains_its_filters_kill(status: int, named: bool) -> None:
    """A worker that got a wrong number is ended by its filter; one that ended otherwise had got the right one."""
    facts = Facts(LIMITS, ended=Ended(status, 0, 0, 0), finished=None if status else FINISHED)
    told = hand_over_broke_off(facts)
    assert told.broken == (ANSWERED_WRONG if named else "")
    assert decide_verdict(told).exit_code == (70 if named else decide_verdict(facts).exit_code)
