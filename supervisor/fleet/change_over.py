"""How a running component gets from one version to another, as a total table: (phase, event) → (phase, command). Pure.

The version that runs goes on in every phase but the last two: only one that was granted what it asks, compiled, started
and found healthy takes its place. `supervisor/fleet/change_overs.py` feeds events in and carries commands out. The
picture in the documentation is made from this table.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from supervisor.approvals.machine import State

HEALTH_WITHIN_NS: Final = 5 * 10**9
"""How long an actor that is ready has to say that it is healthy, or degraded; it is asked once it is initialised."""
TRIAL_NS: Final = 2 * 10**9
"""How long a command must run without failing: nobody can ask it how it is."""
READY_WITHIN_NS: Final = 60 * 10**9
"""How long a start may take altogether."""
FINISH_WITHIN_NS: Final = 5 * 10**9
"""How long the old version may take for what it was given; then it is asked to end as any other."""


class Phase(StrEnum):
    """Where a change of versions is."""

    SETTLED = "settled"
    DECIDING = "deciding"
    AWAITING = "awaiting"
    REFUSED = "refused"
    COMPILING = "compiling"
    TRYING = "trying"
    FAILED = "failed"
    HANDING_OVER = "handing_over"


class Event(StrEnum):
    """What the shell saw."""

    WANTED = "wanted"
    SAME = "same"
    GRANTED = "granted"
    AWAITS = "awaits"
    REFUSED = "refused"
    ANSWERED = "answered"
    COMPILED = "compiled"
    FAILED = "failed"
    HEALTHY = "healthy"
    FINISHED = "finished"
    RETURNED = "returned"
    STOPPING = "stopping"


class Command(StrEnum):
    """What the shell is to do next."""

    WAIT = "wait"
    DECIDE = "decide"
    TELL = "tell"
    TRY = "try"
    GIVE_UP = "give_up"
    GIVE_UP_AND_DECIDE = "give_up_and_decide"
    PASS_NAME = "pass_name"  # noqa: S105 # no password: the component's name, to another instance
    SETTLE = "settle"
    LOOK_AFTERWARDS = "look_afterwards"


RESTS: Final = (Phase.SETTLED, Phase.AWAITING, Phase.REFUSED, Phase.FAILED)
"""Nothing is under way: somebody has to do something first."""
UNDER_WAY: Final = (Phase.DECIDING, Phase.COMPILING, Phase.TRYING)
"""It can be given up, and nobody has noticed anything."""

_STEPS: Final = {
    (Phase.DECIDING, Event.SAME): (Phase.SETTLED, Command.SETTLE),
    (Phase.DECIDING, Event.GRANTED): (Phase.COMPILING, Command.TELL),
    (Phase.DECIDING, Event.AWAITS): (Phase.AWAITING, Command.TELL),
    (Phase.DECIDING, Event.REFUSED): (Phase.REFUSED, Command.TELL),
    (Phase.DECIDING, Event.FAILED): (Phase.FAILED, Command.TELL),
    (Phase.AWAITING, Event.ANSWERED): (Phase.DECIDING, Command.DECIDE),
    (Phase.AWAITING, Event.REFUSED): (Phase.REFUSED, Command.TELL),
    # Somebody has asked anew, or said yes to that.
    (Phase.REFUSED, Event.AWAITS): (Phase.AWAITING, Command.TELL),
    (Phase.REFUSED, Event.ANSWERED): (Phase.DECIDING, Command.DECIDE),
    # What runs is what was healthy last: what the name means has failed.
    (Phase.SETTLED, Event.RETURNED): (Phase.FAILED, Command.TELL),
    (Phase.COMPILING, Event.COMPILED): (Phase.TRYING, Command.TRY),
    (Phase.COMPILING, Event.FAILED): (Phase.FAILED, Command.TELL),
    (Phase.TRYING, Event.HEALTHY): (Phase.HANDING_OVER, Command.PASS_NAME),
    (Phase.TRYING, Event.FAILED): (Phase.FAILED, Command.GIVE_UP),
    # No record of it can be made, so the name isn't passed.
    (Phase.HANDING_OVER, Event.FAILED): (Phase.FAILED, Command.GIVE_UP),
    (Phase.HANDING_OVER, Event.FINISHED): (Phase.SETTLED, Command.SETTLE),
    (Phase.HANDING_OVER, Event.WANTED): (Phase.HANDING_OVER, Command.LOOK_AFTERWARDS),
}
"""What moves it, being wanted and the end of all aside."""


def _table() -> dict[tuple[Phase, Event], tuple[Phase, Command]]:
    table: dict[tuple[Phase, Event], tuple[Phase, Command]] = {}
    for phase in Phase:
        for event in Event:
            # What comes too late is no news: a thread's words can cross with our own decisions.
            step = (phase, Command.WAIT)
            if event is Event.WANTED and phase in RESTS:
                step = (Phase.DECIDING, Command.DECIDE)
            elif event is Event.WANTED and phase in UNDER_WAY:
                # The name means yet another version by now, or the same one is to be tried again.
                step = (Phase.DECIDING, Command.GIVE_UP_AND_DECIDE)
            elif event is Event.STOPPING and phase in UNDER_WAY:
                step = (Phase.SETTLED, Command.GIVE_UP)
            table[phase, event] = _STEPS.get((phase, event), step)
    return table


TABLE: Final = _table()


def advance(phase: Phase, event: Event) -> tuple[Phase, Command]:
    """Return the next phase and what to do; defined for every pair."""
    return TABLE[phase, event]


def diagram() -> str:
    """Return every step that leads to another phase as a Mermaid state diagram (docs/ARCHITECTURE.md)."""
    lines = ["stateDiagram-v2", f"    [*] --> {Phase.SETTLED}"]
    for (before, event), (after, command) in TABLE.items():
        if after is not before:
            said = "" if command is Command.WAIT else f" / {command}"
            lines.append(f"    {before} --> {after}: {event}{said}")
    return "\n".join(lines)


def judge_actor(health: str, is_over: bool) -> Event | None:
    """Return what an actor's own word makes of its trial, None while it says nothing yet.

    `is_over`: it has had the time to say something.
    """
    if health in ("healthy", "degraded"):
        return Event.HEALTHY
    return Event.FAILED if health == "unhealthy" or is_over else None


def judge_request(phase: Phase, awaited: int, number: int, state: State) -> Event | None:
    """Return what the newest request for a version makes of its change; None where that is no news.

    `awaited` is the number of the request that was known before.
    """
    if state is State.APPROVED:
        return Event.ANSWERED
    if state in (State.REQUESTED, State.PENDING):
        return Event.AWAITS if number != awaited or phase is Phase.REFUSED else None
    return Event.REFUSED if phase is Phase.AWAITING else None
