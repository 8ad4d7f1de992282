"""What follows the death of a warden, as a table: who is ended, who goes on, and when it is enough."""

from __future__ import annotations

from itertools import product

import pytest

from supervisor.fleet.deaths import DEATHS_MAX, WITHIN_NS, recent_deaths
from supervisor.host.warden_restart import (
    ANSWERED_WRONG,
    NOT_GONE,
    OUT_OF_REACH,
    UNANSWERED,
    EndRun,
    LetEnd,
    Replace,
    WardenLoss,
    decide_after_loss,
)
from supervisor.run.machine import Phase

LIVING = tuple(phase for phase in Phase if phase not in (Phase.ENDING, Phase.ENDED))
NOW_NS = 10**15


def _loss(
    phase: Phase, gone: bool = True, unanswered: bool = False, in_reach: bool = True, handing_over: bool = False
) -> WardenLoss:
    return WardenLoss(phase, gone, unanswered, handing_over, in_reach)


@pytest.mark.parametrize("phase", LIVING)
def test_a_worker_outside_of_a_call_gets_another_warden(phase: Phase) -> None:
    """Whatever the worker is at, one whose calls were all answered, or not yet received, loses nothing."""
    assert decide_after_loss(_loss(phase), [NOW_NS], NOW_NS) == Replace()


@pytest.mark.parametrize(
    ("gone", "unanswered", "in_reach", "reason"),
    [
        (True, True, True, UNANSWERED),
        (True, True, False, UNANSWERED),
        (False, True, True, UNANSWERED),
        (False, True, False, UNANSWERED),
        (False, False, True, NOT_GONE),
        (False, False, False, NOT_GONE),
        (True, False, False, OUT_OF_REACH),
    ],
)
@pytest.mark.parametrize("phase", LIVING)
def test_who_can_not_be_answered_is_ended(
    phase: Phase, gone: bool, unanswered: bool, in_reach: bool, reason: str
) -> None:
    """All other combinations end the worker, each with its reason; an unanswered call says most."""
    assert decide_after_loss(_loss(phase, gone, unanswered, in_reach), [NOW_NS], NOW_NS) == EndRun(reason)


@pytest.mark.parametrize("phase", LIVING)
def test_who_may_hold_a_wrong_number_is_ended_unless_its_filter_does_it(phase: Phase) -> None:
    """A death while a descriptor was handed over ends a worker that is not sealed yet; a sealed one ends by itself."""
    after = decide_after_loss(_loss(phase, handing_over=True), [NOW_NS], NOW_NS)
    assert after == (Replace() if phase is Phase.RUNNING else EndRun(ANSWERED_WRONG))


@pytest.mark.parametrize("phase", LIVING)
def test_a_call_that_was_not_answered_at_all_got_no_wrong_number(phase: Phase) -> None:
    """A death before the hand-over had begun in the kernel leaves the call unanswered: that is what is said."""
    assert decide_after_loss(_loss(phase, unanswered=True, handing_over=True), [NOW_NS], NOW_NS) == EndRun(UNANSWERED)


@pytest.mark.parametrize("phase", [Phase.ENDING, Phase.ENDED])
@pytest.mark.parametrize(("gone", "unanswered", "in_reach"), list(product((True, False), repeat=3)))
def test_a_worker_that_ends_needs_no_warden(phase: Phase, gone: bool, unanswered: bool, in_reach: bool) -> None:
    """Once a run is ending nothing is started for it, and its verdict is its own."""
    deaths = [NOW_NS] * (DEATHS_MAX + 5)
    assert decide_after_loss(_loss(phase, gone, unanswered, in_reach), deaths, NOW_NS) == LetEnd()


@pytest.mark.parametrize("count", range(1, DEATHS_MAX + 3))
def test_deaths_in_a_row_are_made_good_up_to_a_limit(count: int) -> None:
    """As many deaths as the limit says are made good; the next one ends the run, and says how many there were."""
    deaths = [NOW_NS - 10**9 * step for step in range(count)]
    after = decide_after_loss(_loss(Phase.RUNNING), deaths, NOW_NS)
    if count <= DEATHS_MAX:
        assert after == Replace()
    else:
        assert isinstance(after, EndRun)
        assert f"ended {count} times within 10 s" in after.reason


def test_old_deaths_are_forgotten() -> None:
    """What is as old as the window doesn't count, to the nanosecond."""
    deaths = (NOW_NS - WITHIN_NS, NOW_NS - WITHIN_NS + 1, NOW_NS)
    assert recent_deaths(deaths, NOW_NS) == deaths[1:]
    many = [NOW_NS - WITHIN_NS] * 100
    assert decide_after_loss(_loss(Phase.RUNNING), [*many, NOW_NS], NOW_NS) == Replace()
