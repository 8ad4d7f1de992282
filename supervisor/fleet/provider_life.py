"""The life of one process of a provider: started, ready, dead, and started again, later each time it dies. Pure."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from ipc.struct import Struct

START_WITHIN_NS: Final = 30 * 10**9
"""How long it may take until it says that it takes calls."""
STEADY_NS: Final = 10 * 10**9
"""Who has taken calls for so long before it died is started anew as if it had never died."""
FIRST_DELAY_NS: Final = 100_000_000
LONGEST_DELAY_NS: Final = 30 * 10**9
"""For one that can't be started."""
LONGEST_READY_DELAY_NS: Final = 10**9
"""For one that died after it was ready: what it was asked may have done that, and others wait for it."""


class Phase(StrEnum):
    """Where it is."""

    WAITING = "waiting"
    STARTING = "starting"
    READY = "ready"
    STOPPED = "stopped"


class Event(StrEnum):
    """What happens to it."""

    STARTED = "started"
    GREETED = "greeted"
    ENDED = "ended"
    WITHDRAWN = "withdrawn"
    STOPPED = "stopped"


NEXT: Final = {
    (Phase.WAITING, Event.STARTED): Phase.STARTING,
    (Phase.STARTING, Event.GREETED): Phase.READY,
    (Phase.STARTING, Event.ENDED): Phase.WAITING,
    (Phase.READY, Event.ENDED): Phase.WAITING,
    # The broker that it served is gone: that is no fault of its own.
    (Phase.STARTING, Event.WITHDRAWN): Phase.WAITING,
    (Phase.READY, Event.WITHDRAWN): Phase.WAITING,
    **{(phase, Event.STOPPED): Phase.STOPPED for phase in Phase},
}
"""(phase, event) → phase; what isn't here changes nothing: it comes too late."""


class Life(Struct, frozen=True):
    """A process's phase since `since_ns`, how often in a row it has died, and why last; `due_ns` 0: nothing is due.

    `never_ready`: when it died last, it hadn't become ready.
    """

    phase: Phase = Phase.WAITING
    since_ns: int = 0
    due_ns: int = 0
    deaths: int = 0
    reason: str = ""
    never_ready: bool = False


def advance(life: Life, event: Event, now_ns: int, reason: str = "") -> Life:
    """Return what becomes of it; `due_ns` is when it is to be started, or must have become ready."""
    phase = NEXT.get((life.phase, event))
    if phase is None:
        return life
    if phase is Phase.STARTING:
        return Life(phase, now_ns, now_ns + START_WITHIN_NS, life.deaths, life.reason, life.never_ready)
    if phase is Phase.READY:
        return Life(phase, now_ns, 0, life.deaths)
    if phase is Phase.STOPPED:
        return Life(phase, now_ns)
    if event is Event.WITHDRAWN:
        return Life(phase, now_ns, now_ns, life.deaths)
    was_ready = life.phase is Phase.READY
    deaths = 1 if was_ready and now_ns - life.since_ns >= STEADY_NS else life.deaths + 1
    due_ns = now_ns + delay_ns(deaths, LONGEST_READY_DELAY_NS if was_ready else LONGEST_DELAY_NS)
    return Life(phase, now_ns, due_ns, deaths, reason, not was_ready)


def delay_ns(deaths: int, longest_ns: int = LONGEST_DELAY_NS) -> int:
    """How long it is waited after so many deaths in a row: not at all after the first, twice as long each time."""
    return 0 if deaths < 2 else min(longest_ns, FIRST_DELAY_NS << min(deaths - 2, 16))


def is_away(lives: list[Life]) -> bool:
    """Whether none of a provider's processes takes calls, or is likely to before long."""
    return all(life.phase is Phase.WAITING and life.deaths > 1 and life.never_ready for life in lives)


def state_of(lives: list[Life]) -> str:
    """Say in a word how a provider is."""
    phases = {life.phase for life in lives}
    for phase in (Phase.READY, Phase.STARTING, Phase.WAITING):
        if phase in phases:
            return "failing" if phase is Phase.WAITING and is_away(lives) else str(phase)
    return str(Phase.STOPPED)
