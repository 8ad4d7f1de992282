"""Whether a broker is there, by the clock alone."""

from __future__ import annotations

from supervisor.fleet.broker_pulse import ANSWER_WITHIN_NS, ASK_NS, BrokerPulse
from supervisor.fleet.broker_restart import READY_WITHIN_NS

START_NS = 5 * 10**9


def test_one_that_does_not_become_ready_is_lost() -> None:
    """It has its time from its start on, and is asked nothing before it listens."""
    pulse = BrokerPulse()
    pulse.starts(START_NS)
    assert pulse.due_ns == START_NS + READY_WITHIN_NS
    assert pulse.why_lost(pulse.due_ns - 1) == ""
    assert not pulse.is_to_be_asked(pulse.due_ns)
    assert pulse.why_lost(pulse.due_ns) == "it did not become ready in time"
    assert not pulse.ended()


def test_one_that_answers_is_asked_again_and_again() -> None:
    """Each time that is due it is asked once; what it answered counts for nothing later."""
    pulse = BrokerPulse()
    pulse.starts(START_NS)
    pulse.is_now_ready(START_NS)
    for turn in range(1, 20):
        due_ns = pulse.due_ns
        assert due_ns == START_NS + turn * ASK_NS
        assert not pulse.is_to_be_asked(due_ns - 1)
        assert pulse.is_to_be_asked(due_ns)
        assert not pulse.is_to_be_asked(due_ns)
        pulse.answered()
        assert pulse.why_lost(due_ns) == ""
    assert pulse.ended()


def test_one_that_owes_an_answer_is_lost_in_time() -> None:
    """It isn't asked twice, and the time runs from when it was asked; the next one begins anew."""
    pulse = BrokerPulse()
    pulse.starts(START_NS)
    pulse.is_now_ready(START_NS)
    asked_ns = pulse.due_ns
    assert pulse.is_to_be_asked(asked_ns)
    assert not pulse.is_to_be_asked(asked_ns + ASK_NS)
    assert pulse.why_lost(asked_ns + ANSWER_WITHIN_NS - 1) == ""
    assert pulse.why_lost(asked_ns + ANSWER_WITHIN_NS) == "it did not answer"
    assert pulse.ended()
    pulse.starts(asked_ns)
    pulse.is_now_ready(asked_ns)
    assert pulse.why_lost(asked_ns + ANSWER_WITHIN_NS) == ""
