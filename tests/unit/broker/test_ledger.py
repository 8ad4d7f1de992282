"""What is on record before it takes effect, what is counted, and what happens when the log can't be written."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from driving import Driver, admission

from ipc.broker import messaging
from ipc.broker.core import HEARTBEAT_NS
from ipc.broker.events import Bounds
from ipc.broker.messages import (
    Accepted,
    Answer,
    Broadcast,
    Bye,
    CompareAndSet,
    Deliver,
    FromWorker,
    Handled,
    Health,
    Invoke,
    Publish,
    Refused,
    Request,
    Send,
    Set,
)


def held() -> Driver:
    """Components a and b, and a log that answers when the test says so."""
    driver = Driver()
    driver.ready(admission("a", bounds=Bounds(messages_per_s=None)), admission("b"))
    driver.log_answers = False
    return driver


def test_the_first_use_of_a_grant_is_on_record_before_it_takes_effect() -> None:
    """Nothing is delivered and nothing accepted until then; what comes behind waits in its order."""
    driver = held()
    assert driver.say("a-1", Send(1, "b", b"1"), Publish(2, "t", b"2"), Send(3, "b", b"3")) == []
    assert driver.say("a-1", Send(4, "b", b"4")) == []
    assert driver.take("b-1") == []
    (record,) = driver.records
    assert (record.event, record.action, record.resource, record.decision) == (
        "message",
        "messaging.send",
        "b",
        "allowed",
    )
    driver.record_all()  # the publication is another grant's first use
    assert [each.payload for each in driver.take("b-1", Deliver)] == [b"1", b"2", b"3", b"4"]
    assert [each.seq for each in driver.take("a-1", Accepted)] == [1, 2, 3, 4]


def test_what_ends_something_does_not_wait() -> None:
    """Answers, health and what is handled go on while a first use waits."""
    driver = held()
    driver.log_answers = True
    driver.say("b-1", Request(1, "a", b"?", 1000))
    (delivery,) = driver.take("a-1", Deliver)
    driver.log_answers = False
    driver.say("a-1", Send(1, "b", b""))
    driver.say("a-1", Answer(delivery.delivery, b"!"), Health("healthy"), Bye())
    assert [type(each).__name__ for each in driver.take("b-1")] == ["Accepted", "Callback"]
    assert driver.ended == []


@pytest.mark.parametrize(
    "make",
    [
        lambda seq: Send(seq, "b", bytes(10**6)),
        lambda seq: Send(seq, "b" * 10**6, b""),
        lambda seq: Publish(seq, "é" * 250_000, b""),
        lambda seq: Set(seq, "k", bytes(10**6)),
        lambda seq: CompareAndSet(seq, "k", bytes(10**6), None),
        lambda seq: Invoke(seq, "c" * 500_000, "d" * 500_000, b""),
    ],
)
def test_what_waits_for_the_log_is_bounded_whatever_it_consists_of(make: Callable[[int], FromWorker]) -> None:
    """While the disk hangs, bytes and texts that nobody has looked at yet don't fill the broker's memory."""
    driver = held()
    driver.say("a-1", Send(1, "b", b""))
    refused = driver.say("a-1", *(make(seq) for seq in range(2, 32)))
    assert {each.code for each in refused if isinstance(each, Refused)} == {"A3004"}
    assert 30 - len(refused) in (7, 8)


def test_the_counts_are_exact() -> None:
    """The first record and the counts that follow add up to what was sent, for each receiver."""
    driver = Driver()
    driver.ready(admission("a", bounds=Bounds(messages_per_s=None)), admission("b"), admission("c"))
    for _ in range(70):
        driver.say("a-1", Send(1, "b", b""), Send(2, "b", b""), Request(3, "c", b"", 1))
        for name in "bc":
            driver.say(f"{name}-1", *(Handled(each.delivery) for each in driver.take(f"{name}-1", Deliver)))
        driver.pass_time(10**9)
        driver.say("a-1", Health("healthy"))
    driver.dismiss("a-1")
    counts: dict[str, int] = {}
    for record in driver.records:
        if record.event.startswith("message"):
            counts[record.resource] = counts.get(record.resource, 0) + record.count
    assert counts == {"b": 140, "c": 70}
    assert len([record for record in driver.records if record.ticket and record.event == "message"]) == 1


def test_any_number_of_topics_is_one_count() -> None:
    """What a publisher can invent at will does not fill the log."""
    driver = Driver()
    driver.ready(admission("a", bounds=Bounds(messages_per_s=None)), admission("b"))
    for n in range(500):
        driver.say("a-1", Publish(n, f"topic.{n}", b""))
    driver.dismiss("a-1")
    assert [record.count for record in driver.records if record.action == "messaging.publish"] == [1, 499]


def test_a_refusal_waits_for_its_record_and_its_repeats_do_not() -> None:
    """The first one is durable before it is told; within ten seconds the same is told at once and counted."""
    driver = held()
    assert driver.say("a-1", Send(1, "nobody", b""), Send(2, "nobody", b"")) == []
    driver.record_all()
    assert [each.seq for each in driver.take("a-1")] == [1, 2]
    (refused,) = driver.say("a-1", Send(3, "nobody", b""))
    assert isinstance(refused, Refused)
    driver.pass_time(10 * 10**9)
    (closing,) = driver.events("denied_repeated")
    assert closing.count == 2
    assert dict(closing.detail)["total"] == 3
    assert driver.say("a-1", Send(4, "nobody", b"")) == []


def test_what_cannot_be_recorded_is_not_done_and_not_told() -> None:
    """All that waits is refused alike, whatever the decision was, and the next one tries again."""
    driver = held()
    driver.say("a-1", Send(1, "b", b""), Send(2, "b", b""), Send(3, "nobody", b""))
    driver.record_all("disk full")
    refused = driver.take("a-1")
    assert {(each.kind, each.code) for each in refused if isinstance(each, Refused)} == {("unavailable", "A3004")}
    assert sorted(each.seq for each in refused) == [1, 2, 3]
    assert driver.take("b-1") == []
    driver.say("a-1", Send(4, "b", b"again"))
    driver.record_all()
    assert driver.take("a-1") == [Accepted(4)]
    assert [each.payload for each in driver.take("b-1", Deliver)] == [b"again"]


def test_a_refusal_that_cannot_be_recorded_is_not_told() -> None:
    """Who asked learns that the log can't be written, nothing else; the next one is recorded anew."""
    driver = held()
    driver.say("a-1", Send(1, "nobody", b""))
    driver.record_all("disk full")
    (refused,) = driver.take("a-1")
    assert isinstance(refused, Refused)
    assert refused.code == "A3004"
    driver.say("a-1", Send(2, "nobody", b""))
    driver.record_all()
    assert [each.code for each in driver.take("a-1") if isinstance(each, Refused)] == ["A1801"]


def test_ever_new_refusals_fill_neither_the_log_nor_memory() -> None:
    """Fifty a second are on record by themselves; the others are counted by kind, all are answered, all are counted."""
    driver = Driver()
    driver.ready(admission("a", bounds=Bounds(messages_per_s=None)))
    for n in range(5_000):
        driver.say("a-1", Send(n, f"name-{n}", b""))
    assert len(driver.take("a-1", Refused)) == 5_000
    assert len(driver.records) <= 52
    driver.pass_time(11 * 10**9)
    driver.dismiss("a-1")
    assert sum(each.count for each in driver.records if each.event.startswith("denied")) == 5_000


def test_what_waits_for_a_log_that_hangs_is_bounded() -> None:
    """Beyond two frames of messages, or 64 answers to one refusal, it is answered as if it could not be written."""
    driver = held()
    for n in range(3):
        driver.say("a-1", *(Send(n * 512 + k, "b", b"") for k in range(512)))
    assert len(driver.take("a-1", Refused)) == 512
    other = held()
    other.say("a-1", *(Send(n, "nobody", b"") for n in range(100)))
    assert len(other.take("a-1", Refused)) == 36
    big = held()
    for _ in range(4):
        big.say("a-1", *(Send(k, "b", bytes(900_000)) for k in range(4)))
    assert len(big.take("a-1", Refused)) == 16 - 9


def test_what_waits_of_all_is_bounded_and_everybody_has_a_share() -> None:
    """Mailboxes that are filled leave the others theirs; the sum of all bounds would be far more than there is."""
    driver = Driver(waiting_bytes=1_000_000)
    many = Bounds(messages_per_s=None, mailbox_messages=10_000)
    driver.ready(admission("a", bounds=many), admission("b", bounds=many))
    driver.admit(*(admission(f"c{n}", bounds=many) for n in range(8)))  # none of them reads
    for name in (*(f"c{n}" for n in range(7)), "c7"):
        accepted = 0
        while isinstance(driver.say("a-1", Send(1, name, bytes(10_000)))[-1], Accepted):
            accepted += 1
        # The first ones take what there is, and after that each has its twentieth part.
        assert accepted >= 1_000_000 // 20 // 10_256
    pool = driver.core._board.pool
    assert pool.used_bytes <= 2 * 1_000_000
    assert isinstance(driver.say("a-1", Send(1, "b", bytes(10_000)))[-1], Accepted)
    for n in range(8):
        driver.dismiss(f"c{n}-1")
    assert pool.used_bytes == 0


def test_open_requests_of_all_are_bounded_and_everybody_has_a_share(monkeypatch) -> None:
    """When there are too many, who has more than a share gets no more, and who has less does."""
    monkeypatch.setattr(messaging, "REQUESTS_MAX", 9)
    driver = Driver()
    driver.ready(*(admission(name) for name in "abc"))
    for name, count in (("a", 9), ("b", 3), ("c", 3)):
        answers = driver.say(f"{name}-1", *(Request(n, "c", b"", 10**6) for n in range(12)))
        assert len([each for each in answers if isinstance(each, Accepted)]) == count


def test_a_broadcast_is_on_record_once() -> None:
    """Not once for each of five hundred receivers."""
    driver = Driver()
    driver.ready(admission("a"), *(admission(f"c{n}") for n in range(20)))
    driver.say("a-1", Broadcast(1, b""))
    driver.say("a-1", Broadcast(2, b""))
    assert [(each.resource, each.ticket > 0) for each in driver.records if each.event == "message"] == [("*", True)]


def test_crossings_of_the_message_rate_are_on_record() -> None:
    """Up and down, once each."""
    driver = Driver()
    driver.ready(admission("a", bounds=Bounds(messages_per_s=100)), admission("b"))
    for n in range(150):
        driver.say("a-1", Send(n, "b", b""))
        driver.pass_time(8_333_333)
    driver.pass_time(2 * HEARTBEAT_NS)
    reasons = [each.reason.split(":")[0] for each in driver.events("quota_crossed")]
    assert reasons[0] == "message_rate is warning"
    assert reasons[-1] == "message_rate is ok"
    assert {"message_rate is critical", "message_rate is exceeded"} <= set(reasons)
