"""When the supervisor is told of a level of storage: at once, then once a second at most, and never twice the same."""

from __future__ import annotations

from ipc.warden.telling import INTERVAL_NS, Telling

START_NS = 10**12


def test_a_change_is_told_at_once_and_the_next_one_later() -> None:
    """What changes within a second is told when that is over, as it is then; nothing stored isn't told at all."""
    telling = Telling()
    assert telling.left_ns(0, START_NS) is None
    assert not telling.is_due(0, START_NS)
    assert telling.is_due(5, START_NS)
    assert telling.left_ns(5, START_NS) is None
    assert not telling.is_due(6, START_NS + 1)
    assert telling.left_ns(6, START_NS + 1) == INTERVAL_NS - 1
    assert telling.left_ns(5, START_NS + 2) is None, "it is again as it was told"
    assert telling.is_due(7, START_NS + INTERVAL_NS)
    assert not telling.is_due(7, START_NS + 9 * INTERVAL_NS)
