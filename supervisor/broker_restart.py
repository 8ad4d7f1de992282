"""What follows when the broker has died: another one, or messaging stays down. Pure; `broker_client` carries it out."""

from __future__ import annotations

from collections.abc import Sequence

from ipc.struct import Struct

DEATHS_MAX = 5
"""So many deaths within `WITHIN_NS` are made good; after one more the broker is not started again."""
WITHIN_NS = 10 * 10**9
READY_WITHIN_NS = 10 * 10**9
"""How long a broker may take until it listens."""


class BrokerLoss(Struct, frozen=True):
    """What is known when a broker's channel has closed.

    `was_ready`: it had listened. `own_end`: it ended by itself with a status that says why it can't be what it must be
    (sysexits.h), so that another one would end likewise. `closing`: its end was asked for.
    """

    was_ready: bool
    own_end: bool
    closing: bool


class Restart(Struct, frozen=True):
    """Start another one, and admit everybody there."""


class GiveUp(Struct, frozen=True):
    """None is started; whoever needs it is to be told why."""

    reason: str


class LetRest(Struct, frozen=True):
    """It was meant to end."""


AfterBrokerLoss = Restart | GiveUp | LetRest


def decide_after_loss(loss: BrokerLoss, deaths_ns: Sequence[int], now_ns: int) -> AfterBrokerLoss:
    """Return what is to be done; `deaths_ns` are the monotonic times of lost brokers, this one included."""
    if loss.closing:
        return LetRest()
    if loss.own_end and not loss.was_ready:
        return GiveUp("the broker can't start")
    recent = recent_deaths(deaths_ns, now_ns)
    if len(recent) > DEATHS_MAX:
        return GiveUp(
            f"the broker ended {len(recent)} times within {WITHIN_NS // 10**9} s; it is not started once more"
        )
    return Restart()


def recent_deaths(deaths_ns: Sequence[int], now_ns: int) -> tuple[int, ...]:
    """Return the times that still count; older ones may be forgotten."""
    return tuple(death_ns for death_ns in deaths_ns if now_ns - death_ns < WITHIN_NS)
