"""The life of a component that is kept up, as a total table: (phase, event) → (phase, command). Pure.

`supervisor/run/machine.py` is the life of one run of it, from fork to end. This is what stands above: whether a run is
wanted, whether the component is at work, and what its end means. `supervisor/fleet/fleet.py` feeds events in and
carries commands out. The documentation's diagram is made from this table. WANTED leads out of every end: there restarts
will come in.
"""

from __future__ import annotations

from enum import StrEnum


class Phase(StrEnum):
    """Where a component is; `status` shows these words."""

    DOWN = "down"
    COMPILING = "compiling"
    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    RECONNECTING = "reconnecting"
    STOPPING = "stopping"
    KILLING = "killing"
    STOPPED = "stopped"
    DONE = "done"
    FAILED = "failed"


class Event(StrEnum):
    """What the shell saw."""

    COMPILES = "compiles"
    COMPILED = "compiled"
    WANTED = "wanted"
    TURN_CAME = "turn_came"
    NOT_LAUNCHED = "not_launched"
    READY = "ready"
    CONNECTION_LOST = "connection_lost"
    STOP_ASKED = "stop_asked"
    STOP_OVERDUE = "stop_overdue"
    ENDED_WELL = "ended_well"
    ENDED_BADLY = "ended_badly"


class Command(StrEnum):
    """What the shell is to do next."""

    WAIT = "wait"
    QUEUE = "queue"
    LAUNCH = "launch"
    TELL_READY = "tell_ready"
    ASK_TO_END = "ask_to_end"
    KILL = "kill"
    TELL_ENDED = "tell_ended"
    TELL_FAILED = "tell_failed"


ENDS = (Phase.DOWN, Phase.STOPPED, Phase.DONE, Phase.FAILED)
"""Nothing of it runs, and nothing is about to."""
LIVING = (Phase.STARTING, Phase.RUNNING, Phase.RECONNECTING, Phase.STOPPING, Phase.KILLING)
"""It has a run, and so processes."""

_STEPS = {
    (Phase.DOWN, Event.COMPILES): (Phase.COMPILING, Command.WAIT),
    (Phase.COMPILING, Event.COMPILED): (Phase.DOWN, Command.WAIT),
    (Phase.COMPILING, Event.STOP_ASKED): (Phase.STOPPED, Command.WAIT),
    (Phase.QUEUED, Event.TURN_CAME): (Phase.STARTING, Command.LAUNCH),
    (Phase.QUEUED, Event.STOP_ASKED): (Phase.STOPPED, Command.WAIT),
    (Phase.STARTING, Event.NOT_LAUNCHED): (Phase.FAILED, Command.TELL_FAILED),
    (Phase.STARTING, Event.READY): (Phase.RUNNING, Command.TELL_READY),
    (Phase.STARTING, Event.STOP_ASKED): (Phase.KILLING, Command.KILL),
    (Phase.RUNNING, Event.CONNECTION_LOST): (Phase.RECONNECTING, Command.WAIT),
    (Phase.RUNNING, Event.STOP_ASKED): (Phase.STOPPING, Command.ASK_TO_END),
    (Phase.RECONNECTING, Event.READY): (Phase.RUNNING, Command.WAIT),
    (Phase.RECONNECTING, Event.STOP_ASKED): (Phase.STOPPING, Command.ASK_TO_END),
    (Phase.STOPPING, Event.STOP_OVERDUE): (Phase.KILLING, Command.KILL),
    # Asked a second time: whoever asks has lost patience.
    (Phase.STOPPING, Event.STOP_ASKED): (Phase.KILLING, Command.KILL),
    (Phase.KILLING, Event.STOP_ASKED): (Phase.KILLING, Command.KILL),
    (Phase.KILLING, Event.STOP_OVERDUE): (Phase.KILLING, Command.KILL),
}
"""What moves a component, its ends aside."""


def _table() -> dict[tuple[Phase, Event], tuple[Phase, Command]]:
    table: dict[tuple[Phase, Event], tuple[Phase, Command]] = {}
    for phase in Phase:
        for event in Event:
            # What comes too late, or twice, is no news: a worker's words can cross with our own decisions.
            step = (phase, Command.WAIT)
            if phase in ENDS and event is Event.WANTED:
                step = (Phase.QUEUED, Command.QUEUE)
            elif phase in (Phase.STOPPING, Phase.KILLING) and event in (Event.ENDED_WELL, Event.ENDED_BADLY):
                # However it ended: it was to end.
                step = (Phase.STOPPED, Command.TELL_ENDED)
            elif phase in LIVING and event is Event.ENDED_WELL:
                step = (Phase.DONE, Command.TELL_ENDED)
            elif phase in LIVING and event is Event.ENDED_BADLY:
                step = (Phase.FAILED, Command.TELL_FAILED)
            table[phase, event] = _STEPS.get((phase, event), step)
    return table


TABLE = _table()


def advance(phase: Phase, event: Event) -> tuple[Phase, Command]:
    """Return the next phase and what to do; defined for every pair."""
    return TABLE[phase, event]


def diagram() -> str:
    """Return every step that leads to another phase as a Mermaid state diagram (docs/ARCHITECTURE.md)."""
    lines = ["stateDiagram-v2", f"    [*] --> {Phase.DOWN}"]
    for (before, event), (after, command) in TABLE.items():
        if after is not before:
            said = "" if command is Command.WAIT else f" / {command}"
            lines.append(f"    {before} --> {after}: {event}{said}")
    return "\n".join(lines)
