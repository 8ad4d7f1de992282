"""Which call is with which provider's process: one at a time, in turn, bounded, and every call ends once."""

from __future__ import annotations

import pytest

from ipc.broker.events import Provide, Provided
from ipc.broker.orders import ProviderTerms, ProviderUse
from ipc.broker.providing import SHARE, WAITING_BYTES, Drop, HandOver, Providing, Step
from ipc.provider.protocol import Answer

S = 10**9
TERMS = ProviderTerms("rates", ("rates", "taxes"), 5 * S, 1_000_000)


def order(ticket: int, instance: str = "a-1", payload: bytes = b"?", capability: str = "rates") -> Provide:
    """A call of a component."""
    return Provide(ticket, instance[:-2], instance, capability, "read", (("region", "eu"),), payload, 1_000)


def pool(*links: int, terms: ProviderTerms = TERMS) -> Providing:
    """One provider with these processes."""
    table = Providing()
    table.define((terms,))
    for link in links:
        assert table.arrived(link, terms.name, 0) == []
    return table


def handed(steps: list[Step]) -> list[tuple[int, int]]:
    """Which link got which call."""
    return [(step.link, step.request.call) for step in steps if isinstance(step, HandOver)]


def ended(steps: list[Step]) -> list[tuple[int, str]]:
    """Which calls ended, and how."""
    return [(step.ticket, step.kind) for step in steps if isinstance(step, Provided)]


def test_a_call_goes_to_a_free_process_with_all_that_it_is_about() -> None:
    """Who asks, what for, what stands beside the grant, how large an answer may be: the smaller of both limits."""
    (step,) = pool(7).call(order(1), 0)
    assert isinstance(step, HandOver)
    request = step.request
    assert (step.link, request.call, request.component, request.instance) == (7, 1, "a", "a-1")
    assert (request.capability, request.action, request.payload) == ("rates", "read", b"?")
    assert (request.metadata, request.max_answer_bytes) == ({"region": "eu"}, 1_000)


def test_a_process_has_one_call_at_a_time_and_instances_take_turns() -> None:
    """Whoever asks much waits behind who asks little."""
    table = pool(7)
    assert handed(table.call(order(1), 0)) == [(7, 1)]
    for ticket in (2, 3, 4):
        assert table.call(order(ticket), 0) == []
    assert table.call(order(5, "b-1"), 0) == []
    done = [table.answered(7, Answer(ticket, b"!"), 0) for ticket in (1, 2, 5, 3)]
    assert [handed(steps) for steps in done] == [[(7, 2)], [(7, 5)], [(7, 3)], [(7, 4)]]
    assert [ended(steps) for steps in done] == [[(1, "")], [(2, "")], [(5, "")], [(3, "")]]
    assert table.uses() == (ProviderUse("rates", 5, 0, 1, 0),)


def test_what_nobody_serves_is_unavailable() -> None:
    """A grant alone provides nothing."""
    assert ended(pool(7).call(order(1, capability="other"), 0)) == [(1, "unavailable")]


def test_a_death_ends_its_call_at_once_and_the_next_waits_for_another_process() -> None:
    """Others' calls go on; what comes before the restart is done after it."""
    table = pool(7, 8)
    table.call(order(1), 0)
    table.call(order(2, "b-1"), 0)
    steps = table.lost(7)
    assert steps[0] == Drop(7, "rates", "", "")
    assert ended(steps) == [(1, "unavailable")]
    assert table.call(order(3), 0) == []
    assert handed(table.arrived(9, "rates", 0)) == [(9, 3)]
    assert ended(table.answered(8, Answer(2, b"!"), 0)) == [(2, "")]


def test_a_hang_ends_the_process_and_its_call_as_timed_out() -> None:
    """At the time of its call, not before; who waited too long is told that it was not done."""
    table = pool(7)
    table.call(order(1), 0)
    table.call(order(2), 1 * S)
    assert table.next_due_ns() == 5 * S
    assert table.due(5 * S - 1) == []
    steps = table.due(5 * S)
    (drop,) = [step for step in steps if isinstance(step, Drop)]
    assert (drop.link, drop.code) == (7, "A1811")
    assert ended(steps) == [(1, "timed-out")]
    assert ended(table.due(6 * S)) == [(2, "unavailable")]
    assert table.next_due_ns() is None
    assert table.uses() == (ProviderUse("rates", 2, 2, 0, 0),)


@pytest.mark.parametrize("answer", [Answer(2, b"!"), Answer(1, bytes(1_000_001))])
def test_another_calls_answer_or_one_too_large_ends_the_process(answer: Answer) -> None:
    """What it says is of no use any more; its call ends."""
    table = pool(7)
    table.call(order(1), 0)
    steps = table.answered(7, answer, 0)
    (drop,) = [step for step in steps if isinstance(step, Drop)]
    assert drop.code == "A1813"
    assert ended(steps) == [(1, "unavailable")]
    assert table.answered(7, Answer(1, b"late"), 0) == []


def test_an_answer_that_nobody_asked_for_ends_the_process() -> None:
    """What stood in its output would be taken for the answer to the next call."""
    (drop,) = pool(7).answered(7, Answer(1, b"!"), 0)
    assert isinstance(drop, Drop)


@pytest.mark.parametrize("kind", ["failed", "invalid", "not-permitted", "unavailable", "too-large"])
def test_a_providers_own_error_is_passed_on(kind: str) -> None:
    """With its words, cut where they are too long; the process goes on."""
    table = pool(7)
    table.call(order(1), 0)
    (done,) = table.answered(7, Answer(1, None, kind, "x" * 5_000), 0)
    assert isinstance(done, Provided)
    assert (done.kind, len(done.reason), done.limit) == (kind, 1024, 1_000)
    assert handed(table.call(order(2), 0)) == [(7, 2)]


def test_a_payload_larger_than_the_provider_takes_never_reaches_it() -> None:
    """The smaller limit is told."""
    (done,) = pool(7, terms=ProviderTerms("rates", ("rates",), S, 3)).call(order(1, payload=b"1234"), 0)
    assert done == Provided(1, None, "too-large", "", 3)


def test_what_waits_is_bounded_in_all_and_for_each_instance() -> None:
    """One instance takes no more than its share, all together no more than there is; what is answered gives it back."""
    table = pool(terms=ProviderTerms("rates", ("rates",), S, WAITING_BYTES))
    part = bytes(WAITING_BYTES // SHARE)
    assert table.call(order(1, "a-1", part), 0) == []
    assert ended(table.call(order(2, "a-1"), 0)) == [(2, "unavailable")]
    for number, instance in enumerate(("b-1", "c-1", "d-1"), 3):
        assert table.call(order(number, instance, part), 0) == []
    assert ended(table.call(order(6, "e-1"), 0)) == [(6, "unavailable")]
    table.forget("b-1")
    assert table.call(order(7, "e-1"), 0) == []
    assert sorted(ended(table.due(S))) == [
        (1, "unavailable"),
        (4, "unavailable"),
        (5, "unavailable"),
        (7, "unavailable"),
    ]
    assert table.call(order(8, "a-1", part), S) == []


def test_a_provider_that_does_not_come_back_answers_at_once() -> None:
    """What waits and what comes hears why, until a process takes calls again."""
    table = pool(7)
    table.call(order(1), 0)
    table.call(order(2), 0)
    assert table.away("rates", "no such module") == []  # one is there still
    table.lost(7)
    (waiting,) = table.away("rates", "no such module")
    assert waiting == Provided(2, None, "unavailable", "no such module")
    assert ended(table.call(order(3), 0)) == [(3, "unavailable")]
    table.arrived(8, "rates", 0)
    assert handed(table.call(order(4), 0)) == [(8, 4)]


def test_an_instance_that_ended_has_nothing_done_any_more() -> None:
    """What it had waiting ends undone, or its note would be kept for ever; what is under way ends like any other."""
    table = pool(7)
    table.call(order(1), 0)
    table.call(order(2), 0)
    assert ended(table.forget("a-1")) == [(2, "unavailable")]
    assert table.forget("a-1") == []
    assert handed(table.answered(7, Answer(1, b"!"), 0)) == []


def test_a_process_that_has_ended_gets_nothing_more() -> None:
    """While what it said before is read it is free, and gone: what comes then waits for another one."""
    table = pool(7)
    assert handed(table.call(order(1), 0)) == [(7, 1)]
    table.leaves(7)
    assert ended(table.answered(7, Answer(1, b"!"), 0)) == [(1, "")]
    assert table.call(order(2), 0) == []
    assert ended(table.lost(7)) == []
    assert handed(table.arrived(8, "rates", 0)) == [(8, 2)]
