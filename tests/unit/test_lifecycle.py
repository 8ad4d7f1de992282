"""The life of a component that is kept up, as a table: total, every end reachable, and nothing lives after its end."""

from __future__ import annotations

from itertools import product

import pytest

from supervisor.fleet.lifecycle import ENDS, LIVING, TABLE, Command, Event, Phase, advance, diagram

GOES_ON = (
    (Phase.DOWN, Event.COMPILES, Phase.COMPILING, Command.WAIT),
    (Phase.COMPILING, Event.COMPILED, Phase.DOWN, Command.WAIT),
    (Phase.DOWN, Event.WANTED, Phase.QUEUED, Command.QUEUE),
    (Phase.QUEUED, Event.TURN_CAME, Phase.STARTING, Command.LAUNCH),
    (Phase.STARTING, Event.READY, Phase.RUNNING, Command.TELL_READY),
    (Phase.RUNNING, Event.CONNECTION_LOST, Phase.RECONNECTING, Command.WAIT),
    (Phase.RECONNECTING, Event.READY, Phase.RUNNING, Command.WAIT),
    (Phase.RUNNING, Event.STOP_ASKED, Phase.STOPPING, Command.ASK_TO_END),
    (Phase.STOPPING, Event.STOP_OVERDUE, Phase.KILLING, Command.KILL),
    (Phase.KILLING, Event.ENDED_BADLY, Phase.STOPPED, Command.TELL_ENDED),
)
WAITING = (Phase.COMPILING, Phase.QUEUED)
"""It is on its way to a run."""
ENDED = (Event.ENDED_WELL, Event.ENDED_BADLY)
PROCESSES = (Command.LAUNCH, Command.ASK_TO_END, Command.KILL)
"""What is done to processes."""


def test_the_table_is_total() -> None:
    """Every pair of phase and event has a step, and nothing else is in the table."""
    assert set(TABLE) == set(product(Phase, Event))
    for step in TABLE.values():
        assert isinstance(step[0], Phase)
        assert isinstance(step[1], Command)


def test_a_phase_is_an_end_or_waits_or_lives() -> None:
    """Each phase is exactly one of the three; what is done about processes follows from it."""
    assert sorted((*ENDS, *WAITING, *LIVING)) == sorted(Phase)


@pytest.mark.parametrize(("before", "event", "after", "command"), GOES_ON)
def test_the_long_way_through(before: Phase, event: Event, after: Phase, command: Command) -> None:
    """A component that starts, loses its connection, gets it back, and has to be killed in the end."""
    assert advance(before, event) == (after, command)


AT_AN_END = [each for each in product(ENDS, Event) if each != (Phase.DOWN, Event.COMPILES)]
"""What was never wanted is compiled first."""


@pytest.mark.parametrize(("phase", "event"), AT_AN_END)
def test_an_end_is_left_only_when_it_is_wanted_again(phase: Phase, event: Event) -> None:
    """What comes after an end changes nothing, but that it is wanted again, as a restart will want it."""
    assert advance(phase, event) == ((Phase.QUEUED, Command.QUEUE) if event is Event.WANTED else (phase, Command.WAIT))


@pytest.mark.parametrize(("phase", "event"), list(product(LIVING, ENDED)))
def test_the_end_of_a_run_is_an_end_and_is_told(phase: Phase, event: Event) -> None:
    """Wherever a run ends, its component is at an end and somebody is told; what was to end has not failed."""
    after, command = advance(phase, event)
    assert after in ENDS
    if phase in (Phase.STOPPING, Phase.KILLING):
        assert (after, command) == (Phase.STOPPED, Command.TELL_ENDED)
    else:
        failed = event is Event.ENDED_BADLY
        assert after is (Phase.FAILED if failed else Phase.DONE)
        assert command is (Command.TELL_FAILED if failed else Command.TELL_ENDED)


@pytest.mark.parametrize(("phase", "event"), list(product((*ENDS, *WAITING), Event)))
def test_without_a_run_there_is_nothing_to_kill(phase: Phase, event: Event) -> None:
    """Nothing but a launch is ever done about the processes of a component that has none."""
    command = advance(phase, event)[1]
    assert command not in (Command.KILL, Command.ASK_TO_END)
    assert (command is Command.LAUNCH) is ((phase, event) == (Phase.QUEUED, Event.TURN_CAME))


@pytest.mark.parametrize(("phase", "event"), list(product(LIVING, Event)))
def test_a_run_is_never_forgotten(phase: Phase, event: Event) -> None:
    """A component with processes gets to an end only by their end, or because they were never launched."""
    after, command = advance(phase, event)
    if after not in LIVING:
        assert event in ENDED or (phase, event) == (Phase.STARTING, Event.NOT_LAUNCHED)
    assert command is not Command.LAUNCH


@pytest.mark.parametrize("phase", Phase)
def test_asked_to_stop_often_enough_everything_stops(phase: Phase) -> None:
    """From any phase, two times asked and the end of the run lead to an end; nobody hangs in between."""
    for event in (Event.STOP_ASKED, Event.STOP_ASKED, Event.ENDED_BADLY):
        phase, _ = advance(phase, event)
    assert phase in ENDS


def test_everything_can_happen() -> None:
    """Every phase can be reached from the first, and every command is given somewhere."""
    reached = {Phase.DOWN}
    while more := {TABLE[phase, event][0] for phase, event in product(reached, Event)} - reached:
        reached |= more
    assert reached == set(Phase)
    assert {command for _, command in TABLE.values()} == set(Command)


def test_the_diagram_shows_every_move() -> None:
    """Each step to another phase is one line of the diagram."""
    moves = [(before, event) for (before, event), (after, _) in TABLE.items() if after is not before]
    lines = diagram().splitlines()[2:]
    assert len(lines) == len(moves)
    for before, event in moves:
        assert any(line.startswith(f"    {before} --> ") and f": {event}" in line for line in lines)
