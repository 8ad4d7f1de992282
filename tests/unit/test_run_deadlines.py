"""The deadlines of a run: one at a time, held while a person thinks, and set once by who says that it is through."""

from __future__ import annotations

from supervisor.run.deadlines import DRAIN_DEADLINE_NS, OUTER_GRACE_NS, START_DEADLINE_NS, Deadlines, is_due

SECOND_NS = 10**9


def test_a_start_has_a_deadline_and_a_guest_without_a_timeout_none() -> None:
    """The start is bounded; from the go on only what the limits say."""
    deadlines = Deadlines()
    deadlines.start(SECOND_NS)
    assert deadlines.next_ns() == SECOND_NS + START_DEADLINE_NS
    deadlines.go(2 * SECOND_NS, None)
    assert (deadlines.started_ns, deadlines.next_ns()) == (2 * SECOND_NS, 0)
    deadlines.go(2 * SECOND_NS, SECOND_NS)
    assert deadlines.next_ns() == 3 * SECOND_NS + OUTER_GRACE_NS


def test_a_questions_time_is_not_the_guests() -> None:
    """What was left when it was asked is left when it was answered, however long that took; twice changes nothing."""
    deadlines = Deadlines()
    deadlines.go(0, SECOND_NS)
    left_ns = deadlines.step_ns - 400
    deadlines.hold(400)
    assert deadlines.next_ns() == 0
    deadlines.hold(600)
    deadlines.go_on(100 * SECOND_NS)
    assert deadlines.step_ns == 100 * SECOND_NS + left_ns
    deadlines.go_on(200 * SECOND_NS)
    assert deadlines.step_ns == 100 * SECOND_NS + left_ns


def test_a_deadline_that_was_over_when_a_question_came_is_over_after_it() -> None:
    """It is not lost by being held: it is due at once."""
    deadlines = Deadlines()
    deadlines.go(0, SECOND_NS)
    deadlines.hold(5 * SECOND_NS)
    deadlines.go_on(6 * SECOND_NS)
    assert is_due(deadlines.step_ns, 6 * SECOND_NS + 1)


def test_saying_that_one_is_through_moves_the_deadline_once() -> None:
    """Who says it for ever doesn't live for ever; a kill is waited for anew."""
    deadlines = Deadlines()
    deadlines.go(0, None)
    deadlines.expect_end(SECOND_NS)
    deadlines.expect_end(3 * SECOND_NS)
    assert deadlines.step_ns == SECOND_NS + DRAIN_DEADLINE_NS
    deadlines.kill(4 * SECOND_NS)
    assert deadlines.step_ns == 4 * SECOND_NS + DRAIN_DEADLINE_NS


def test_the_earliest_counts_and_none_is_none() -> None:
    """Others' times count beside its own; without any, there is nothing to wake up for."""
    deadlines = Deadlines()
    assert deadlines.next_ns(0) == 0
    assert not is_due(0, SECOND_NS)
    deadlines.start(0)
    assert deadlines.next_ns(7) == 7
    assert deadlines.next_ns() == START_DEADLINE_NS
