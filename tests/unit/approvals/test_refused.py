"""Refused attempts at approvals as records: by whom and why, and no more of them than anybody can read."""

from __future__ import annotations

import pytest
from approvals_to_test import ALICE, BOB, request

from supervisor.approvals.refused import OF_ONE_MAX, WINDOW_NS, RefusedAttempts


def test_an_attempt_is_told_with_whom_what_and_why() -> None:
    """Each different one at once; of a request by its component and number."""
    attempts = RefusedAttempts()
    (event,) = attempts.note(ALICE, "approve", request(number=7), "not by uid 1001", {"file_sha256": "ab"}, 0)
    assert (event.event, event.action, event.decision) == ("approval_refused", "approvals.approve", "denied")
    assert (event.component, event.approval, event.actor) == ("reporter", "approval 7", f"uid {ALICE}")
    assert (event.reason, event.detail) == ("not by uid 1001", {"file_sha256": "ab"})
    for uid, what, about in ((BOB, "approve", request(number=7)), (ALICE, "import", None)):
        assert len(attempts.note(uid, what, about, "no", {}, 1)) == 1
    (odd,) = attempts.note(ALICE, "\x1b[2J", None, "no", {}, 2)
    assert odd.action == "approvals.unknown"


def test_what_repeats_is_counted() -> None:
    """The next window begins with the count, and a record of its own."""
    attempts = RefusedAttempts()
    assert len(attempts.note(ALICE, "approve", request(), "no", {}, 0)) == 1
    for number in range(1, 1000):
        assert attempts.note(ALICE, "approve", request(), "no", {}, number) == ()
    closed, again = attempts.note(ALICE, "approve", request(), "no", {}, WINDOW_NS)
    assert (closed.event, closed.count, again.count) == ("approval_refused_repeated", 999, 1)
    attempts.note(ALICE, "approve", request(), "no", {}, WINDOW_NS + 1)
    assert [event.count for event in attempts.flush()] == [1]
    assert attempts.flush() == ()


@pytest.mark.parametrize("by", ["request", "reason", "file"])
def test_a_flood_of_different_ones_is_bounded_and_hides_nobody(by: str) -> None:
    """Of one person so many are told apart; the rest is one count, and another's attempt has its record."""
    attempts = RefusedAttempts()
    events = []
    for number in range(1, 10_001):
        about = request(number=number if by == "request" else 1)
        reason = f"it doesn't ask for {number}" if by == "reason" else "no"
        detail: dict[str, object] = {"file_sha256": f"{number}"} if by == "file" else {}
        events += attempts.note(ALICE, "reject", about, reason, detail, number)
    assert len(events) == OF_ONE_MAX + 1
    (other,) = attempts.note(BOB, "reject", request(number=3), "no", {}, 10_001)
    events += [other, *attempts.flush()]
    assert sum(event.count for event in events) == 10_001
    assert len(attempts.note(ALICE, "reject", request(number=9_999), "no", {}, 2 * WINDOW_NS)) == 1
