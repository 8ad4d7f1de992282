"""How a component changes its version, as a table: total, the old one safe until the new one is healthy."""

from __future__ import annotations

from itertools import product

import pytest

from supervisor.approvals.machine import FINAL, State
from supervisor.fleet.change_over import (
    RESTS,
    TABLE,
    UNDER_WAY,
    Command,
    Event,
    Phase,
    advance,
    diagram,
    judge_actor,
    judge_request,
)

GOES_WELL = (
    (Phase.SETTLED, Event.WANTED, Phase.DECIDING, Command.DECIDE),
    (Phase.DECIDING, Event.AWAITS, Phase.AWAITING, Command.TELL),
    (Phase.AWAITING, Event.ANSWERED, Phase.DECIDING, Command.DECIDE),
    (Phase.DECIDING, Event.GRANTED, Phase.COMPILING, Command.TELL),
    (Phase.COMPILING, Event.COMPILED, Phase.TRYING, Command.TRY),
    (Phase.TRYING, Event.HEALTHY, Phase.HANDING_OVER, Command.PASS_NAME),
    (Phase.HANDING_OVER, Event.FINISHED, Phase.SETTLED, Command.SETTLE),
)


def test_the_table_is_total() -> None:
    """Every pair of phase and event has a step, and nothing else is in the table."""
    assert set(TABLE) == set(product(Phase, Event))
    for phase, command in TABLE.values():
        assert isinstance(phase, Phase)
        assert isinstance(command, Command)


def test_a_phase_rests_or_is_under_way_or_hands_over() -> None:
    """Each is exactly one of the three."""
    assert sorted((*RESTS, *UNDER_WAY, Phase.HANDING_OVER)) == sorted(Phase)


@pytest.mark.parametrize(("before", "event", "after", "command"), GOES_WELL)
def test_the_long_way_through(before: Phase, event: Event, after: Phase, command: Command) -> None:
    """A version that is asked for, approved, compiled, tried out, and takes over."""
    assert advance(before, event) == (after, command)


def test_the_name_is_passed_only_to_what_was_tried_out_and_is_healthy() -> None:
    """No other step does, and nothing is tried out that wasn't granted and compiled."""
    passing = [step for step, (_, command) in TABLE.items() if command is Command.PASS_NAME]
    assert passing == [(Phase.TRYING, Event.HEALTHY)]
    trying = [step for step, (after, command) in TABLE.items() if command is Command.TRY or after is Phase.TRYING]
    assert [step for step in trying if step[0] is not Phase.TRYING] == [(Phase.COMPILING, Event.COMPILED)]
    compiling = [before for (before, _), (after, _) in TABLE.items() if after is Phase.COMPILING]
    assert set(compiling) == {Phase.DECIDING, Phase.COMPILING}


@pytest.mark.parametrize("phase", [*RESTS, *UNDER_WAY])
def test_a_name_that_means_another_version_is_decided_on_anew(phase: Phase) -> None:
    """Whatever was under way is given up first; what has failed or was refused is tried once more."""
    given_up = Command.GIVE_UP_AND_DECIDE if phase in UNDER_WAY else Command.DECIDE
    assert advance(phase, Event.WANTED) == (Phase.DECIDING, given_up)


def test_while_one_hands_over_another_wish_waits() -> None:
    """It is looked at afterwards: no more than two are there at a time."""
    assert advance(Phase.HANDING_OVER, Event.WANTED) == (Phase.HANDING_OVER, Command.LOOK_AFTERWARDS)


@pytest.mark.parametrize("phase", UNDER_WAY)
def test_the_end_of_all_gives_up_what_is_under_way(phase: Phase) -> None:
    """Nothing is left of it, and nothing is told of a failure that was none."""
    assert advance(phase, Event.STOPPING) == (Phase.SETTLED, Command.GIVE_UP)


@pytest.mark.parametrize("phase", UNDER_WAY)
def test_each_step_can_fail(phase: Phase) -> None:
    """The old one runs on, and what was begun of the new one is given up."""
    after, command = advance(phase, Event.FAILED)
    assert after is Phase.FAILED
    assert command is (Command.GIVE_UP if phase is Phase.TRYING else Command.TELL)


@pytest.mark.parametrize(
    ("health", "is_over", "found"),
    [
        ("healthy", False, Event.HEALTHY),
        ("degraded", False, Event.HEALTHY),
        ("unhealthy", False, Event.FAILED),
        ("unknown", False, None),
        ("unknown", True, Event.FAILED),
        ("anything", True, Event.FAILED),
    ],
)
def test_an_actor_is_judged_by_its_word(health: str, is_over: bool, found: Event | None) -> None:
    """One that says nothing in time has failed, too."""
    assert judge_actor(health, is_over) is found


@pytest.mark.parametrize(
    ("phase", "number", "state", "found"),
    [
        (Phase.AWAITING, 7, State.PENDING, None),
        (Phase.AWAITING, 7, State.REQUESTED, None),
        (Phase.AWAITING, 8, State.REQUESTED, Event.AWAITS),
        (Phase.AWAITING, 7, State.APPROVED, Event.ANSWERED),
        *[(Phase.AWAITING, 7, state, Event.REFUSED) for state in FINAL],
        (Phase.REFUSED, 8, State.PENDING, Event.AWAITS),
        (Phase.REFUSED, 8, State.APPROVED, Event.ANSWERED),
        *[(Phase.REFUSED, 7, state, None) for state in FINAL],
    ],
)
def test_a_request_is_news_once(phase: Phase, number: int, state: State, found: Event | None) -> None:
    """Request 7 was awaited; an answer to it, or to the one that was asked anew, moves the change."""
    assert judge_request(phase, 7, number, state) is found


def test_the_picture_has_every_phase() -> None:
    """Each can be come to, and left."""
    text = diagram()
    for phase in Phase:
        assert f"--> {phase}" in text
        assert f"\n    {phase} --> " in text
