"""What follows when the broker has died: another one, or messaging stays down. Pure; `broker_client` carries it out."""

from __future__ import annotations

from collections.abc import Sequence

from ipc.struct import Struct
from supervisor.fleet.deaths import too_many_words

READY_WITHIN_NS = 10 * 10**9
"""How long a broker may take until it listens."""


class BrokerLoss(Struct, frozen=True):
    """What is known when a broker's channel has closed.

    `was_ready`: it had listened. `own_end`: it ended by itself with a status that says why it can't be what it must be
    (sysexits.h), so that another one would end likewise.
    """

    was_ready: bool
    own_end: bool


class Restart(Struct, frozen=True):
    """Start another one, and admit everybody there."""


class GiveUp(Struct, frozen=True):
    """None is started; whoever needs it is to be told why."""

    reason: str


AfterBrokerLoss = Restart | GiveUp


def decide_after_loss(loss: BrokerLoss, deaths_ns: Sequence[int], now_ns: int) -> AfterBrokerLoss:
    """Return what is to be done; `deaths_ns` are the monotonic times of lost brokers, this one included."""
    if loss.own_end and not loss.was_ready:
        return GiveUp("the broker can't start")
    too_many = too_many_words("broker", deaths_ns, now_ns)
    return GiveUp(too_many) if too_many else Restart()
