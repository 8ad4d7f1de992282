"""The life of a run as a table: total, without dead ends, and with no way back from its end."""

from __future__ import annotations

from itertools import product

import pytest

from supervisor.run.machine import TABLE, Command, Event, Phase, advance, diagram

LIVING = (Phase.LAUNCHING, Phase.CONFINING, Phase.ATTACHING, Phase.LOADING, Phase.RUNNING)
STRAIGHT = (
    (Phase.LAUNCHING, Event.SPAWNED, Phase.CONFINING, Command.WAIT),
    (Phase.CONFINING, Event.CONFINED, Phase.ATTACHING, Command.ATTACH_AND_LOAD),
    (Phase.ATTACHING, Event.ATTACHED, Phase.LOADING, Command.WAIT),
    (Phase.LOADING, Event.SEALED, Phase.RUNNING, Command.VERIFY_AND_GO),
    (Phase.RUNNING, Event.FINISHED, Phase.ENDING, Command.WAIT),
    (Phase.ENDING, Event.ENDED, Phase.ENDED, Command.CONCLUDE),
)
OUT_OF_TURN = (Event.SPAWNED, Event.CONFINED, Event.ATTACHED, Event.SEALED, Event.FINISHED)
KILLING = (
    Event.WARDEN_ORDERED_END,
    Event.WARDEN_LOST,
    Event.LIMIT_REACHED,
    Event.INTERRUPTED,
    Event.PROTOCOL_BROKEN,
)
DYING = (Event.START_FAILED, Event.WORKER_LOST)
GONE = (Event.ENDED, Event.KEEPER_LOST)


def test_the_table_is_total() -> None:
    """Every pair of phase and event has a step, and nothing else is in the table."""
    assert set(TABLE) == set(product(Phase, Event))
    for phase, event in product(Phase, Event):
        after, command = advance(phase, event)
        assert isinstance(after, Phase)
        assert isinstance(command, Command)


@pytest.mark.parametrize(("before", "event", "after", "command"), STRAIGHT)
def test_the_straight_path(before: Phase, event: Event, after: Phase, command: Command) -> None:
    """A run in which nothing goes wrong takes these steps."""
    assert advance(before, event) == (after, command)


@pytest.mark.parametrize("event", Event)
def test_there_is_no_way_back_from_the_end(event: Event) -> None:
    """Whatever comes after the end changes nothing and asks for nothing."""
    assert advance(Phase.ENDED, event) == (Phase.ENDED, Command.WAIT)


@pytest.mark.parametrize("event", Event)
def test_an_ending_run_never_lives_again(event: Event) -> None:
    """From ENDING a run only stays or ends; nothing that starts it is asked for."""
    after, command = advance(Phase.ENDING, event)
    assert after in (Phase.ENDING, Phase.ENDED)
    assert command in (Command.WAIT, Command.KILL, Command.CONCLUDE)


@pytest.mark.parametrize(("phase", "event"), list(product(LIVING, KILLING)))
def test_what_must_kill_kills_in_every_phase(phase: Phase, event: Event) -> None:
    """Limits, interrupts, a lost or ordering warden and a broken protocol kill from any living phase."""
    assert advance(phase, event) == (Phase.ENDING, Command.KILL)


@pytest.mark.parametrize(("phase", "event"), list(product(LIVING, DYING)))
def test_a_dying_worker_is_waited_for(phase: Phase, event: Event) -> None:
    """A worker that ends by itself isn't killed: its own exit status says more."""
    assert advance(phase, event) == (Phase.ENDING, Command.WAIT)


@pytest.mark.parametrize(("phase", "event"), list(product((*LIVING, Phase.ENDING), GONE)))
def test_the_keepers_word_or_death_ends_every_phase(phase: Phase, event: Event) -> None:
    """Once the worker was reaped, or nobody is left to reap it, the run is concluded wherever it was."""
    assert advance(phase, event) == (Phase.ENDED, Command.CONCLUDE)


@pytest.mark.parametrize(
    ("phase", "event"),
    [
        pair
        for pair in product(LIVING, OUT_OF_TURN)
        if pair not in {(before, event) for before, event, _, _ in STRAIGHT}
    ],
)
def test_a_word_out_of_turn_ends_the_run(phase: Phase, event: Event) -> None:
    """What is said outside its turn never moves the run forward: it is broken off."""
    assert advance(phase, event) == (Phase.ENDING, Command.BREAK_OFF)


def test_go_is_said_only_after_the_seal() -> None:
    """The one step that starts the guest is taken from LOADING on SEALED, and no other step says it."""
    going = [pair for pair, (_, command) in TABLE.items() if command is Command.VERIFY_AND_GO]
    assert going == [(Phase.LOADING, Event.SEALED)]
    running = [pair for pair, (after, _) in TABLE.items() if after is Phase.RUNNING]
    assert running == [(Phase.LOADING, Event.SEALED)]


@pytest.mark.parametrize("event", [Event.INTERRUPTED, Event.LIMIT_REACHED])
def test_a_run_that_will_not_end_is_killed_again(event: Event) -> None:
    """A second interrupt or a limit while ending still kills."""
    assert advance(Phase.ENDING, event) == (Phase.ENDING, Command.KILL)


def test_every_phase_reaches_the_end() -> None:
    """From each phase some events lead to ENDED: there is no dead end."""
    reached = {Phase.ENDED}
    while True:
        more = {before for (before, _), (after, _) in TABLE.items() if after in reached} - reached
        if not more:
            break
        reached |= more
    assert reached == set(Phase)


def test_the_diagram_shows_the_straight_path_and_the_end() -> None:
    """The documentation's diagram holds every step of the straight path."""
    text = diagram()
    for before, event, after, command in STRAIGHT:
        assert f"{before} --> {after}: {event} / {command}" in text
    assert text.startswith("stateDiagram-v2\n    [*] --> launching")
    assert text.endswith("ended --> [*]")
