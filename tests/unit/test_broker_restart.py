"""What follows a broker's death, as a table."""

from __future__ import annotations

import itertools

import pytest

from supervisor.fleet.broker_restart import BrokerLoss, GiveUp, Restart, decide_after_loss
from supervisor.fleet.deaths import DEATHS_MAX, WITHIN_NS, recent_deaths


@pytest.mark.parametrize(("was_ready", "own_end"), list(itertools.product((False, True), repeat=2)))
def test_every_loss(was_ready: bool, own_end: bool) -> None:
    """It is given up when it says that it can't start; else another one is started."""
    after = decide_after_loss(BrokerLoss(was_ready, own_end), (0,), 0)
    expected = GiveUp if own_end and not was_ready else Restart
    assert isinstance(after, expected)


def test_restarts_are_bounded_in_time() -> None:
    """So many deaths within the time are made good, one more isn't; old ones don't count."""
    loss = BrokerLoss(True, False)
    deaths = tuple(range(DEATHS_MAX))
    assert isinstance(decide_after_loss(loss, deaths, DEATHS_MAX), Restart)
    after = decide_after_loss(loss, (*deaths, DEATHS_MAX), DEATHS_MAX)
    assert isinstance(after, GiveUp)
    assert f"{DEATHS_MAX + 1} times within 10 s" in after.reason
    assert isinstance(decide_after_loss(loss, (*deaths, WITHIN_NS), WITHIN_NS), Restart)
    assert recent_deaths((0, 5, WITHIN_NS), WITHIN_NS) == (5, WITHIN_NS)
