"""The life of one run as a total table: (phase, event) → (phase, command). The documentation's diagram is made from it.

Nothing here reads a clock or a descriptor: `supervisor/run/loop.py` feeds events in and carries commands out.
"""

from __future__ import annotations

from enum import StrEnum


class Phase(StrEnum):
    """Where a run is."""

    LAUNCHING = "launching"
    CONFINING = "confining"
    ATTACHING = "attaching"
    LOADING = "loading"
    RUNNING = "running"
    ENDING = "ending"
    ENDED = "ended"


class Event(StrEnum):
    """What the shell saw."""

    SPAWNED = "spawned"
    CONFINED = "confined"
    ATTACHED = "attached"
    SEALED = "sealed"
    FINISHED = "finished"
    START_FAILED = "start_failed"
    WORKER_LOST = "worker_lost"
    ENDED = "ended"
    KEEPER_LOST = "keeper_lost"
    WARDEN_ORDERED_END = "warden_ordered_end"
    WARDEN_LOST = "warden_lost"
    LIMIT_REACHED = "limit_reached"
    INTERRUPTED = "interrupted"
    PROTOCOL_BROKEN = "protocol_broken"


class Command(StrEnum):
    """What the shell is to do next."""

    WAIT = "wait"
    ATTACH_AND_LOAD = "attach_and_load"
    VERIFY_AND_GO = "verify_and_go"
    KILL = "kill"
    CONCLUDE = "conclude"
    BREAK_OFF = "break_off"


_ENDING_EVENTS = {
    Event.START_FAILED: (Phase.ENDING, Command.WAIT),
    Event.WORKER_LOST: (Phase.ENDING, Command.WAIT),
    Event.ENDED: (Phase.ENDED, Command.CONCLUDE),
    Event.KEEPER_LOST: (Phase.ENDED, Command.CONCLUDE),
    Event.WARDEN_ORDERED_END: (Phase.ENDING, Command.KILL),
    Event.WARDEN_LOST: (Phase.ENDING, Command.KILL),
    Event.LIMIT_REACHED: (Phase.ENDING, Command.KILL),
    Event.INTERRUPTED: (Phase.ENDING, Command.KILL),
    Event.PROTOCOL_BROKEN: (Phase.ENDING, Command.KILL),
}
"""What ends a run from any living phase."""

_STEPS = {
    (Phase.LAUNCHING, Event.SPAWNED): (Phase.CONFINING, Command.WAIT),
    (Phase.CONFINING, Event.CONFINED): (Phase.ATTACHING, Command.ATTACH_AND_LOAD),
    (Phase.ATTACHING, Event.ATTACHED): (Phase.LOADING, Command.WAIT),
    (Phase.LOADING, Event.SEALED): (Phase.RUNNING, Command.VERIFY_AND_GO),
    (Phase.RUNNING, Event.FINISHED): (Phase.ENDING, Command.WAIT),
}
"""The straight path."""

_LATE = dict.fromkeys(
    (
        Event.FINISHED,
        Event.ATTACHED,
        Event.START_FAILED,
        Event.WORKER_LOST,
        Event.WARDEN_ORDERED_END,
        Event.WARDEN_LOST,
        Event.PROTOCOL_BROKEN,
        Event.SPAWNED,
        Event.CONFINED,
        Event.SEALED,
    ),
    (Phase.ENDING, Command.WAIT),
) | {
    # A second interrupt, or a limit met while ending (a guest that won't die), still kills.
    Event.LIMIT_REACHED: (Phase.ENDING, Command.KILL),
    Event.INTERRUPTED: (Phase.ENDING, Command.KILL),
    Event.ENDED: (Phase.ENDED, Command.CONCLUDE),
    Event.KEEPER_LOST: (Phase.ENDED, Command.CONCLUDE),
}
"""What may still arrive once the run is ending."""


def _table() -> dict[tuple[Phase, Event], tuple[Phase, Command]]:
    table: dict[tuple[Phase, Event], tuple[Phase, Command]] = {}
    for phase in Phase:
        for event in Event:
            if phase is Phase.ENDED:
                step = (Phase.ENDED, Command.WAIT)
            elif phase is Phase.ENDING:
                step = _LATE[event]
            else:
                # An event out of turn is a worker (or one of us) that doesn't keep to the protocol: it ends the run.
                step = _STEPS.get((phase, event)) or _ENDING_EVENTS.get(event) or (Phase.ENDING, Command.BREAK_OFF)
            table[phase, event] = step
    return table


TABLE = _table()


def advance(phase: Phase, event: Event) -> tuple[Phase, Command]:
    """Return the next phase and what to do; defined for every pair."""
    return TABLE[phase, event]


def diagram() -> str:
    """Return the straight path and the ways out as a Mermaid state diagram (docs/ARCHITECTURE.md)."""
    lines = ["stateDiagram-v2", f"    [*] --> {Phase.LAUNCHING}"]
    for (before, event), (after, command) in sorted(_STEPS.items()):
        lines.append(f"    {before} --> {after}: {event} / {command}")
    for event, (after, command) in sorted(_ENDING_EVENTS.items()):
        lines.append(f"    running --> {after}: {event} / {command}")
    lines.append(f"    {Phase.ENDING} --> {Phase.ENDED}: {Event.ENDED} / {Command.CONCLUDE}")
    lines.append(f"    {Phase.ENDED} --> [*]")
    return "\n".join(lines)
