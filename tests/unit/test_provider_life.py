"""The life of a provider's process: total, later each time it dies, and how a provider reads."""

from __future__ import annotations

import pytest

from supervisor.fleet.provider_life import (
    LONGEST_DELAY_NS,
    LONGEST_READY_DELAY_NS,
    NEXT,
    START_WITHIN_NS,
    STEADY_NS,
    Event,
    Life,
    Phase,
    advance,
    delay_ns,
    is_away,
    state_of,
)

NOW = 10**15


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("event", Event)
def test_every_pair_leads_somewhere(phase: Phase, event: Event) -> None:
    """Where the table says so, or nowhere: what comes too late changes nothing."""
    life = Life(phase, NOW - 1, deaths=1)
    after = advance(life, event, NOW, "why")
    expected = NEXT.get((phase, event))
    assert after.phase is (expected or phase)
    if expected is None:
        assert after is life
    assert (after.phase is Phase.STOPPED) is (event is Event.STOPPED or phase is Phase.STOPPED)


def test_the_first_death_is_made_good_at_once_and_later_ones_later() -> None:
    """Twice as late each time, up to half a minute."""
    assert [delay_ns(deaths) for deaths in (0, 1, 2, 3, 4)] == [0, 0, 10**8, 2 * 10**8, 4 * 10**8]
    assert delay_ns(10**6) == LONGEST_DELAY_NS
    life = Life(due_ns=1)
    for deaths in range(1, 5):
        life = advance(life, Event.STARTED, NOW)
        assert life.due_ns == NOW + START_WITHIN_NS
        life = advance(life, Event.ENDED, NOW, "no such module")
        assert (life.deaths, life.due_ns, life.reason) == (deaths, NOW + delay_ns(deaths), "no such module")


def test_one_that_has_worked_for_a_while_begins_anew() -> None:
    """Its earlier deaths are forgotten; one that dies soon after its greeting is waited for, but not for long."""
    life = Life(Phase.READY, NOW, deaths=7)
    assert advance(life, Event.ENDED, NOW + STEADY_NS, "x").deaths == 1
    after = advance(life, Event.ENDED, NOW + 5, "x")
    assert (after.deaths, after.due_ns, after.never_ready) == (8, NOW + 5 + LONGEST_READY_DELAY_NS, False)


def test_a_broker_that_was_lost_is_no_death_of_the_providers() -> None:
    """It is started anew at once."""
    life = advance(Life(Phase.READY, NOW, deaths=3), Event.WITHDRAWN, NOW)
    assert (life.phase, life.due_ns, life.deaths) == (Phase.WAITING, NOW, 3)


def test_how_a_provider_is_follows_from_its_processes() -> None:
    """Ready where one is; failing where none is about to come soon."""
    waiting, failing = Life(deaths=9), Life(deaths=2, never_ready=True)
    starting, ready = Life(Phase.STARTING), Life(Phase.READY)
    assert state_of([ready, failing]) == "ready"
    assert state_of([starting, failing]) == "starting"
    assert state_of([waiting, failing]) == "waiting"
    assert state_of([failing, failing]) == "failing"
    assert state_of([Life(Phase.STOPPED)]) == "stopped"
    assert not is_away([starting, failing])
