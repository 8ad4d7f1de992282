"""What components say to each other: who may, how much, what each refusal says, and how every request ends."""

from __future__ import annotations

import pytest
from driving import Driver, admission

from ipc.broker.events import Bounds, Received
from ipc.broker.mailbox import SMALL_BYTES, SMALL_WINDOW, WINDOW
from ipc.broker.messages import (
    Accepted,
    Answer,
    Broadcast,
    Bye,
    Callback,
    Cancel,
    Deliver,
    FromWorker,
    Handled,
    Publish,
    Refused,
    Request,
    Send,
)
from ipc.policy.access import AclEntry
from ipc.policy.decision import compile_policy
from ipc.policy.quotas import NEVER_MS
from ipc.struct import replace

SEND_TO_B = {"messaging.send": ("b",)}
RECEIVE_ALL = {"messaging.receive": ("**",)}
SUBSCRIBE_ALL = {"messaging.subscribe": ("**",)}


def pair(driver: Driver, a_bounds: Bounds | None = None, b_bounds: Bounds | None = None) -> None:
    """Components a and b, ready, which may do everything; a's first use of its grant is on record."""
    driver.ready(admission("a", bounds=a_bounds), admission("b", bounds=b_bounds))


def deliveries(driver: Driver, instance: str) -> list[Deliver]:
    """What was delivered to an instance since the last time."""
    return [each for each in driver.take(instance, Deliver) if isinstance(each, Deliver)]


def ask(driver: Driver, timeout_ms: int = 1_000, payload: bytes = b"?") -> int:
    """A request of a to b; its correlation."""
    (accepted,) = [
        each for each in driver.say("a-1", Request(1, "b", payload, timeout_ms)) if isinstance(each, Accepted)
    ]
    assert accepted.correlation
    return accepted.correlation


def test_a_message_is_accepted_and_delivered() -> None:
    """Accepted says that it lies in the mailbox, and an idle receiver has it in the same turn."""
    driver = Driver()
    pair(driver)
    assert driver.say("a-1", Send(7, "b", b"hello")) == [Accepted(7)]
    (delivery,) = deliveries(driver, "b-1")
    assert (delivery.sender, delivery.payload, delivery.wants_answer, delivery.topic) == ("a", b"hello", False, "")


@pytest.mark.parametrize(
    ("a", "b", "message", "kind", "code"),
    [
        ({}, RECEIVE_ALL, Send(1, "b", b""), "not-permitted", "A1201"),
        ({}, RECEIVE_ALL, Send(1, "nobody", b""), "not-permitted", "A1201"),
        ({"messaging.send": ("c",)}, RECEIVE_ALL, Send(1, "b", b""), "not-permitted", "A1203"),
        ({"messaging.send": ("c",)}, RECEIVE_ALL, Send(1, "nobody", b""), "not-permitted", "A1203"),
        (SEND_TO_B, {}, Send(1, "b", b""), "not-permitted", "A1201"),
        (SEND_TO_B, {"messaging.receive": ("c",)}, Send(1, "b", b""), "not-permitted", "A1203"),
        (SEND_TO_B, {"messaging.receive": ("c",)}, Request(1, "b", b"", 9), "not-permitted", "A1203"),
        ({"messaging.send": ("**",)}, RECEIVE_ALL, Send(1, "nobody", b""), "unknown-target", "A1801"),
        ({"messaging.send": ("**",)}, RECEIVE_ALL, Send(1, "", b""), "invalid", "A1207"),
        ({"messaging.send": ("**",)}, RECEIVE_ALL, Send(1, "b\n", b""), "invalid", "A1207"),
        ({"messaging.send": ("**",)}, RECEIVE_ALL, Send(1, "b" * 257, b""), "invalid", "A1808"),
        (SEND_TO_B, RECEIVE_ALL, Send(1, "b", b"x" * 1001), "too-large", "A1803"),
        (SEND_TO_B, RECEIVE_ALL, Request(1, "b", b"", -1), "invalid", "A1808"),
        (SEND_TO_B, RECEIVE_ALL, Request(1, "b", b"", 2**32), "invalid", "A1808"),
        ({}, SUBSCRIBE_ALL, Publish(1, "t", b""), "not-permitted", "A1201"),
        ({"messaging.publish": ("**",)}, SUBSCRIBE_ALL, Publish(1, "t", b"x" * 1001), "too-large", "A1803"),
        (
            {"messaging.publish": ("u",)},
            {"messaging.subscribe": ("**",)},
            Publish(1, "t", b""),
            "not-permitted",
            "A1203",
        ),
        ({"messaging.publish": ("**",)}, {"messaging.subscribe": ("**",)}, Publish(1, "t..u", b""), "invalid", "A1207"),
    ],
)
def test_a_refusal_names_its_reason_and_nothing_is_delivered(
    a: dict[str, tuple[str, ...]], b: dict[str, tuple[str, ...]], message: FromWorker, kind: str, code: str
) -> None:
    """Each refusal has its kind and code, is on record with both, and the receiver sees nothing of it."""
    driver = Driver()
    driver.ready(admission("a", a, Bounds(max_payload_bytes=1000)), admission("b", b))
    (refused,) = driver.say("a-1", message)
    assert isinstance(refused, Refused)
    assert (refused.seq, refused.kind, refused.code) == (1, kind, code)
    assert deliveries(driver, "b-1") == []
    (record,) = driver.events("denied")
    assert (record.instance, record.decision, record.code) == ("a-1", "denied", code)
    assert driver.ended == []


def test_who_is_there_is_not_told_without_a_grant() -> None:
    """The same answer, word for word but for the name, whether or not there is a component of that name."""
    driver = Driver()
    driver.ready(admission("a", {"messaging.send": ("c",)}), admission("there"))
    answers = [driver.say("a-1", Send(1, name, b"")) for name in ("there", "absent")]
    assert answers[0] == answers[1]


def test_the_receivers_refusal_is_told_without_its_rules() -> None:
    """The sender learns that it isn't received, not what else the receiver takes."""
    driver = Driver()
    driver.ready(admission("a"), admission("b", {"messaging.receive": ("secret-partner",)}))
    (refused,) = driver.say("a-1", Send(1, "b", b""))
    assert isinstance(refused, Refused)
    assert refused.reason == "b does not receive from a"


def test_more_than_the_rate_is_refused_with_its_numbers() -> None:
    """At the time that is told the same is accepted; what was refused is on record once, and counted."""
    driver = Driver()
    pair(driver, Bounds(messages_per_s=10))
    assert driver.say("a-1", *(Send(n, "b", b"") for n in range(10))) == [Accepted(n) for n in range(10)]
    first, second = driver.say("a-1", Send(10, "b", b""), Send(11, "b", b""))
    assert isinstance(first, Refused)
    assert (first.kind, first.code, first.retry_after_ms, first.limit) == ("over-quota", "A1502", 100, 10)
    assert first.usage >= 10
    assert isinstance(second, Refused)
    driver.pass_time(100_000_000)
    assert driver.say("a-1", Send(12, "b", b"")) == [Accepted(12)]
    assert [record.quota for record in driver.events("denied")] == ["message_rate"]
    driver.pass_time(11 * 10**9)
    assert [record.count for record in driver.events("denied_repeated")] == [1]


def test_a_rate_survives_its_instance() -> None:
    """A component that ends and comes back doesn't get another second's worth."""
    driver = Driver()
    pair(driver, Bounds(messages_per_s=3))
    driver.say("a-1", *(Send(n, "b", b"") for n in range(3)))
    driver.dismiss("a-1")
    driver.ready(admission("a", bounds=Bounds(messages_per_s=3), generation=2))
    (refused,) = driver.say("a-2", Send(1, "b", b""))
    assert isinstance(refused, Refused)
    assert refused.code == "A1502"


def test_what_is_refused_is_not_free() -> None:
    """Asking for who isn't there counts, so that names can't be tried faster than the rate."""
    driver = Driver()
    pair(driver, Bounds(messages_per_s=5))
    kinds = [getattr(each, "kind", "") for each in driver.say("a-1", *(Send(n, f"n{n}", b"") for n in range(7)))]
    assert kinds == ["unknown-target"] * 5 + ["over-quota"] * 2


def test_a_full_mailbox_is_an_error_to_the_sender() -> None:
    """By number and by bytes; the receiver gets what was accepted, in order, when it goes on."""
    driver = Driver()
    pair(driver, b_bounds=Bounds(mailbox_messages=3, mailbox_bytes=100))
    sent = [Send(n, "b", n.to_bytes(2, "big")) for n in range(SMALL_WINDOW + 4)]
    answers = driver.say("a-1", *sent)
    assert answers[:-1] == [Accepted(n) for n in range(SMALL_WINDOW + 3)]
    assert isinstance(answers[-1], Refused)
    assert (answers[-1].kind, answers[-1].code) == ("mailbox-full", "A1802")
    got = deliveries(driver, "b-1")
    assert len(got) == SMALL_WINDOW
    driver.say("b-1", Handled(got[0].delivery))
    (too_many_bytes, too_many) = driver.say("a-1", Send(99, "b", b"x" * 99), Request(98, "b", b"x" * 99, 1))
    assert isinstance(too_many, Refused)
    assert too_many.kind == "mailbox-full"
    assert isinstance(too_many_bytes, Refused)
    got += deliveries(driver, "b-1")
    driver.say("b-1", *(Handled(each.delivery) for each in got[1:]))
    got += deliveries(driver, "b-1")
    assert [each.payload for each in got] == [message.payload for message in sent[:-1]]


@pytest.mark.parametrize("wants_answer", [False, True])
def test_few_large_or_awaited_messages_are_with_a_receiver(wants_answer: bool) -> None:
    """Of small ones that nobody waits for more; in any mixture they come in their order."""
    driver = Driver()
    pair(driver)

    def heavy(n: int) -> FromWorker:
        return Request(n, "b", b"", 10**6) if wants_answer else Send(n, "b", bytes(SMALL_BYTES + 1))

    driver.say("a-1", *(heavy(n) for n in range(WINDOW + 1)), Send(0, "b", b"small"))
    got = deliveries(driver, "b-1")
    assert len(got) == WINDOW
    driver.say("b-1", Answer(got[0].delivery, b"") if wants_answer else Handled(got[0].delivery))
    assert [each.payload for each in deliveries(driver, "b-1")][-1] == b"small"
    driver.say("a-1", *(Send(n, "b", bytes(SMALL_BYTES)) for n in range(SMALL_WINDOW)))
    assert len(deliveries(driver, "b-1")) == SMALL_WINDOW - WINDOW - 1


def test_a_component_that_starts_gets_what_was_sent_to_it() -> None:
    """From its admission on there is a mailbox; it is delivered when the worker says Hello."""
    driver = Driver()
    driver.ready(admission("a"))
    driver.admit(admission("b"))
    assert driver.say("a-1", Send(1, "b", b"early")) == [Accepted(1)]
    driver.connect("b-1")
    assert [each.payload for each in deliveries(driver, "b-1")] == [b"early"]


def test_a_request_is_answered_once() -> None:
    """The answer comes as a Callback with its correlation; a second answer to it ends who gives it."""
    driver = Driver()
    pair(driver)
    correlation = ask(driver)
    (delivery,) = deliveries(driver, "b-1")
    assert delivery.wants_answer
    driver.say("b-1", Answer(delivery.delivery, b"!"))
    assert driver.take("a-1", Callback) == [Callback(correlation, b"!")]
    driver.say("b-1", Answer(delivery.delivery, b"!!"))
    assert driver.take("a-1", Callback) == []
    assert [each.instance for each in driver.ended] == ["b-1"]


@pytest.mark.parametrize(
    ("answer", "payload", "kind", "reason"),
    [
        (lambda d: Answer(d, b""), b"", "", ""),
        (lambda d: Answer(d, None), None, "", ""),
        (lambda d: Handled(d), None, "", ""),
        (lambda d: Answer(d, None, "no such account"), None, "failed", "no such account"),
        (lambda d: Handled(d, "trapped"), None, "failed", "trapped"),
        (lambda d: Answer(d, b"x", "half done"), None, "failed", "half done"),
        (lambda d: Answer(d, None, "x" * 5000), None, "failed", "x" * 1024),
        (lambda d: Answer(d, b"x" * 2000), None, "failed", "its answer has 2000 bytes, and it may send 1000"),
    ],
)
def test_the_ends_that_a_receiver_can_give(answer, payload: bytes | None, kind: str, reason: str) -> None:
    """A payload, none, or what it said went wrong, bounded; an answer is bounded as everything that it sends."""
    driver = Driver()
    pair(driver, b_bounds=Bounds(max_payload_bytes=1000))
    correlation = ask(driver)
    driver.say("b-1", answer(deliveries(driver, "b-1")[0].delivery))
    assert driver.take("a-1", Callback) == [Callback(correlation, payload, kind, reason)]
    assert driver.ended == []


def test_nobody_gets_more_than_it_may_take() -> None:
    """A worker's memory is measured by its own bound: what others send, publish and answer is within that, too."""
    driver = Driver()
    pair(driver, b_bounds=Bounds(max_payload_bytes=100))
    big = b"x" * 101
    answers = driver.say("a-1", Send(1, "b", big), Request(2, "b", big, 1000), Publish(3, "t", big), Broadcast(4, big))
    refused = [each for each in driver.take("a-1", Refused) if isinstance(each, Refused)]
    assert [(each.seq, each.kind, each.limit) for each in refused] == [(1, "too-large", 100), (2, "too-large", 100)]
    assert [each for each in answers if isinstance(each, Accepted)] == [Accepted(3, 1), Accepted(4, 0)]
    assert deliveries(driver, "b-1") == []
    driver.take("a-1")
    driver.say("b-1", Request(1, "a", b"?", 1000))
    driver.say("a-1", Answer(deliveries(driver, "a-1")[-1].delivery, big))
    (callback,) = driver.take("b-1", Callback)
    assert isinstance(callback, Callback)
    assert (callback.kind, callback.payload) == ("failed", None)


def test_a_request_times_out_at_its_time() -> None:
    """Not before, and the late answer finds nobody; who gives it has done nothing wrong."""
    driver = Driver()
    pair(driver)
    correlation = ask(driver, timeout_ms=50)
    driver.pass_time(49_999_999)
    assert driver.take("a-1", Callback) == []
    driver.pass_time(1)
    (callback,) = driver.take("a-1", Callback)
    assert isinstance(callback, Callback)
    assert (callback.correlation, callback.payload, callback.kind) == (correlation, None, "timed-out")
    driver.say("b-1", Answer(deliveries(driver, "b-1")[0].delivery, b"late"))
    assert driver.take("a-1", Callback) == []
    assert driver.ended == []


def test_after_a_cancel_no_callback_comes() -> None:
    """The count tells whether there was something to cancel; a foreign id is answered like one that never was."""
    driver = Driver()
    pair(driver)
    driver.ready(admission("c"))
    correlation = ask(driver)
    assert driver.say("c-1", Cancel(5, correlation)) == [Accepted(5, 0)]
    assert driver.say("a-1", Cancel(6, correlation)) == [Accepted(6, 1)]
    assert driver.say("a-1", Cancel(7, correlation)) == [Accepted(7, 0)]
    driver.say("b-1", Answer(deliveries(driver, "b-1")[0].delivery, b"!"))
    driver.pass_time(10**10)
    assert driver.take("a-1", Callback) == []


def test_only_who_was_asked_can_answer() -> None:
    """A delivery's number is good in the session that it was given to; who uses another's is ended."""
    driver = Driver()
    pair(driver)
    driver.ready(admission("c"))
    correlation = ask(driver)
    delivery = deliveries(driver, "b-1")[0].delivery
    driver.say("c-1", Answer(delivery, b"forged"))
    assert [each.instance for each in driver.ended] == ["c-1"]
    driver.say("b-1", Answer(delivery, b"true"))
    assert driver.take("a-1", Callback) == [Callback(correlation, b"true")]


def test_requests_in_flight_are_bounded() -> None:
    """One more is refused with the numbers, and accepted again when one has ended."""
    driver = Driver()
    pair(driver, Bounds(requests_in_flight=2))
    ask(driver)
    ask(driver)
    (refused,) = driver.say("a-1", Request(1, "b", b"", 1000))
    assert isinstance(refused, Refused)
    assert (refused.kind, refused.code, refused.usage, refused.limit) == ("over-quota", "A1809", 2, 2)
    driver.say("b-1", Answer(deliveries(driver, "b-1")[0].delivery, b""))
    ask(driver)


def test_a_request_that_ended_leaves_room_in_the_mailbox() -> None:
    """What waits for a stuck receiver and is awaited by nobody is dropped when room is needed, never delivered."""
    driver = Driver()
    pair(driver, b_bounds=Bounds(mailbox_messages=4))
    driver.say("a-1", *(Send(n, "b", b"") for n in range(SMALL_WINDOW)))
    for _ in range(3):
        ask(driver, timeout_ms=10, payload=b"dead")
    driver.pass_time(10**9)
    assert driver.say("a-1", Send(1, "b", b"1"), Send(2, "b", b"2"))[-1] == Accepted(2)
    got = deliveries(driver, "b-1")
    driver.say("b-1", *(Handled(each.delivery) for each in got))
    assert [each.payload for each in deliveries(driver, "b-1")] == [b"1", b"2"]


@pytest.mark.parametrize("end", ["dismissed", "bye", "violation", "disconnected"])
def test_the_end_of_a_receiver_ends_its_requests(end: str) -> None:
    """Those with it and those that wait; other messages are lost and counted in one record."""
    driver = Driver()
    pair(driver)
    with_it = ask(driver, 10**6)
    driver.say("a-1", *(Send(n, "b", b"") for n in range(SMALL_WINDOW)))
    waiting = ask(driver, 10**6)
    match end:
        case "dismissed":
            driver.dismiss("b-1")
        case "bye":
            driver.say("b-1", Bye())
        case "violation":
            driver.say("b-1", Handled(1))
        case _:
            driver.lose("b-1")
    callbacks = {each.correlation: each.kind for each in driver.take("a-1", Callback) if isinstance(each, Callback)}
    if end == "disconnected":
        # It may come back: what it has not got yet stays.
        assert callbacks == {with_it: "unavailable"}
        driver.connect("b-1", since=77)
        got = deliveries(driver, "b-1")[-2:]
        assert [each.wants_answer for each in got] == [False, True]
        driver.say("b-1", Answer(got[1].delivery, b"!"))
        assert driver.take("a-1", Callback) == [Callback(waiting, b"!")]
        lost = {"unhandled": SMALL_WINDOW - 1, "unread": 0, "requests": 1}
    else:
        assert callbacks == {with_it: "target-gone", waiting: "target-gone"}
        (refused,) = driver.say("a-1", Send(1, "b", b""))
        assert isinstance(refused, Refused)
        assert refused.kind == "unknown-target"
        lost = {"unhandled": SMALL_WINDOW - 1, "unread": 1, "requests": 2}
    (record,) = driver.events("messages_lost")
    assert (record.instance, dict(record.detail)) == ("b-1", lost)


def test_a_mailbox_that_was_emptied_counts_none_of_its_requests() -> None:
    """Also those that end after they were taken out of it: its receiver broke the protocol, and isn't dismissed yet."""
    driver = Driver()
    pair(driver)
    for _ in range(WINDOW + 2):
        ask(driver)
    mailbox = driver.core._board.by_instance["b-1"].mailbox
    assert len(mailbox) == 2
    driver.say("b-1", Handled(2**53))
    assert (len(mailbox), mailbox.dead) == (0, 0)
    assert len(driver.take("a-1", Callback)) == WINDOW + 2


def test_answers_to_an_earlier_connection_are_forgiven_a_few() -> None:
    """A worker that comes back may still be at what it had; more than that could be is a violation."""
    driver = Driver()
    pair(driver)
    ask(driver)
    old = deliveries(driver, "b-1")[0].delivery
    driver.lose("b-1")
    driver.connect("b-1", since=77)
    driver.say("b-1", Answer(old, b"!"))
    driver.say("b-1", *(Handled(n) for n in range(SMALL_WINDOW - 1)))
    assert driver.ended == []
    driver.say("b-1", Handled(5))
    assert len(driver.ended) == 1


@pytest.mark.parametrize("end", ["dismissed", "disconnected"])
def test_the_end_of_a_requester_ends_its_requests(end: str) -> None:
    """Nobody is called back, what waited is not delivered, what was delivered may be answered in vain."""
    driver = Driver()
    pair(driver)
    ask(driver, 10**6)
    driver.say("a-1", *(Send(n, "b", b"") for n in range(WINDOW - 1)))
    ask(driver, 10**6, b"waits")
    got = deliveries(driver, "b-1")
    if end == "dismissed":
        driver.dismiss("a-1")
        driver.ready(admission("a", generation=2))
    else:
        driver.lose("a-1")
        driver.connect("a-1", since=77)
    driver.say("b-1", Answer(got[0].delivery, b"in vain"), *(Handled(each.delivery) for each in got[1:]))
    driver.pass_time(10**12)
    assert deliveries(driver, "b-1") == []
    assert driver.take("a-1", Callback) == driver.take("a-2", Callback) == []


def test_a_broadcast_goes_to_whom_both_sides_allow() -> None:
    """Not to the sender, not to who doesn't receive from it; it costs one and one for each receiver."""
    driver = Driver()
    driver.ready(
        admission("a", {"messaging.send": ("b", "c", "a")}, Bounds(messages_per_s=4)),
        admission("b"),
        admission("c", {"messaging.receive": ("b",)}),
        admission("d"),
    )
    assert driver.say("a-1", Broadcast(1, b"all")) == [Accepted(1, 1)]
    assert [len(deliveries(driver, each)) for each in ("a-1", "b-1", "c-1", "d-1")] == [0, 1, 0, 0]
    assert driver.say("a-1", Broadcast(2, b"all")) == [Accepted(2, 1)]
    (refused,) = driver.say("a-1", Broadcast(3, b"all"))
    assert isinstance(refused, Refused)
    assert refused.kind == "over-quota"


def test_a_broadcast_to_more_than_the_rate_never_goes() -> None:
    """It says that waiting is in vain."""
    driver = Driver()
    driver.ready(admission("a", bounds=Bounds(messages_per_s=2)), *(admission(name) for name in "bcd"))
    (refused,) = driver.say("a-1", Broadcast(1, b""))
    assert isinstance(refused, Refused)
    assert refused.retry_after_ms == NEVER_MS


def test_a_publication_costs_one_and_one_for_each_subscriber() -> None:
    """However many listen, the broker carries no more than the publisher's rate; one that nobody hears costs one."""
    driver = Driver()
    driver.ready(
        admission("a", {"messaging.publish": ("**",), "messaging.subscribe": ("own",)}, Bounds(messages_per_s=8)),
        *(admission(name, {"messaging.subscribe": ("t",)}) for name in "bcd"),
    )
    assert driver.say("a-1", Publish(1, "t", b"")) == [Accepted(1, 3)]
    assert driver.say("a-1", Publish(2, "own", b""))[-1] == Accepted(2, 1)
    assert driver.say("a-1", Publish(3, "nobody hears", b"")) == [Accepted(3, 0)]
    (refused,) = driver.say("a-1", Publish(4, "t", b""))
    assert isinstance(refused, Refused)
    assert (refused.kind, refused.code, refused.retry_after_ms) == ("over-quota", "A1502", 375)
    assert driver.say("a-1", Publish(5, "nobody hears", b"")) == [Accepted(5, 0)]
    driver.pass_time(10**9)
    assert driver.say("a-1", Publish(6, "t", b"")) == [Accepted(6, 3)]


def test_who_comes_and_goes_is_in_the_next_broadcast_or_not() -> None:
    """The list of receivers is kept, and never for longer than it is true."""
    driver = Driver()
    pair(driver)
    assert driver.say("a-1", Broadcast(1, b"")) == [Accepted(1, 1)]
    driver.ready(admission("c"))
    assert driver.say("a-1", Broadcast(2, b"")) == [Accepted(2, 2)]
    driver.dismiss("b-1")
    assert driver.say("a-1", Broadcast(3, b"")) == [Accepted(3, 1)]


def test_what_is_published_goes_to_its_subscribers() -> None:
    """By pattern, the publisher itself included if it subscribes; each gets it once."""
    driver = Driver()
    driver.ready(
        admission("a", {"messaging.publish": ("**",), "messaging.subscribe": ("own.*",)}),
        admission("b", {"messaging.subscribe": ("news.*", "news.sport", "**.sport")}),
        admission("c", {"messaging.subscribe": ("news.**",)}),
        admission("d", {"messaging.subscribe": ("other",)}),
    )
    assert driver.say("a-1", Publish(1, "news.sport", b"1")) == [Accepted(1, 2)]
    assert driver.say("a-1", Publish(2, "news.a.b", b"2")) == [Accepted(2, 1)]
    assert driver.say("a-1", Publish(3, "nothing", b"3")) == [Accepted(3, 0)]
    driver.say("a-1", Publish(4, "own.x", b"4"))
    got = {name: [(each.topic, each.payload) for each in deliveries(driver, f"{name}-1")] for name in "abcd"}
    assert got == {
        "a": [("own.x", b"4")],
        "b": [("news.sport", b"1")],
        "c": [("news.sport", b"1"), ("news.a.b", b"2")],
        "d": [],
    }


def test_subscribers_that_come_and_go() -> None:
    """A topic's subscribers are kept, and never for longer than they are true."""
    driver = Driver()
    driver.ready(admission("a", {"messaging.publish": ("**",)}), admission("b"))
    assert driver.say("a-1", Publish(1, "t", b"")) == [Accepted(1, 1)]
    driver.ready(admission("c", {"messaging.subscribe": ("t",)}))
    assert driver.say("a-1", Publish(2, "t", b"")) == [Accepted(2, 2)]
    driver.dismiss("c-1")
    driver.dismiss("b-1")
    assert driver.say("a-1", Publish(3, "t", b"")) == [Accepted(3, 0)]


def test_a_subscriber_whose_mailbox_is_full_is_left_out() -> None:
    """The count says how many got it; that one did not is on record."""
    driver = Driver()
    may = {"messaging.send": ("**",), "messaging.publish": ("**",)}
    driver.ready(admission("a", may), admission("b", bounds=Bounds(mailbox_messages=0)))
    driver.say("a-1", *(Send(n, "b", b"") for n in range(SMALL_WINDOW)))
    assert driver.say("a-1", Publish(1, "t", b"")) == [Accepted(1, 0)]
    assert driver.say("a-1", Broadcast(2, b"")) == [Accepted(2, 0)]
    denied = driver.events("denied")
    assert [(each.resource, each.code) for each in denied] == [("b", "A1802"), ("b", "A1802")]


def test_order_is_kept_for_each_sender_and_receiver() -> None:
    """Through the window, the mailbox, a lost connection, and whatever way it was sent."""
    driver = Driver()
    pair(driver)
    sent: list[bytes] = []
    for n in range(SMALL_WINDOW + 20):
        payload = n.to_bytes(2, "big")
        sent.append(payload)
        message: FromWorker = [Send(n, "b", payload), Publish(n, "t", payload), Broadcast(n, payload)][n % 3]
        driver.say("a-1", message)
    got = deliveries(driver, "b-1")
    while len(got) < len(sent):
        driver.say("b-1", Handled(got[-SMALL_WINDOW].delivery))
        new = deliveries(driver, "b-1")
        assert new
        got += new
    assert [each.payload for each in got] == sent


def test_asking_and_cancelling_in_turn_fills_no_memory() -> None:
    """The timers of requests that have ended are cleared away long before their time."""
    driver = Driver()
    pair(driver, Bounds(messages_per_s=None))
    for _ in range(1_000):
        driver.say("a-1", Cancel(2, ask(driver, 2**32 - 1)))
        driver.say("b-1", *(Handled(each.delivery) for each in deliveries(driver, "b-1")))
    requests = driver.core._board.requests
    assert (len(requests), len(requests._calls)) == (0, 0)
    assert len(requests._timers) <= 66


def test_the_hosts_rules_decide_on_a_subscription_too() -> None:
    """A subscription grant is not enough where the host's access control list denies the topic."""
    driver = Driver()
    deny = AclEntry("b", "messaging.subscribe", "news.secret", "deny")
    driver.ready(admission("a", {"messaging.publish": ("**",)}))
    each = admission("b")
    document = replace(each.rights.document, acl=(deny,))  # type: ignore[attr-defined]
    driver.ready(replace(each, rights=compile_policy(document)))
    assert driver.say("a-1", Publish(1, "news.open", b""), Publish(2, "news.secret", b"")) == [
        Accepted(1, 1),
        Accepted(2, 0),
    ]


def test_the_topics_that_are_remembered_are_bounded() -> None:
    """Ever new topics push the oldest out, and are delivered all the same."""
    driver = Driver()
    driver.ready(admission("a", {"messaging.publish": ("**",)}, Bounds(messages_per_s=None)), admission("b"))
    for n in range(1_100):
        assert driver.say("a-1", Publish(n, f"t.{n}", b"")) == [Accepted(n, 1)]
        driver.say("b-1", *(Handled(each.delivery) for each in deliveries(driver, "b-1")))
    assert len(driver.core._board.subscriptions._topics) == 1_024


def test_the_same_events_give_the_same_commands() -> None:
    """Nothing in the core depends on anything but its events, their times and the numbers that it is given."""

    def run() -> list[object]:
        driver = Driver(seed=5)
        driver.ready(*(admission(name) for name in "abc"))
        commands: list[object] = []
        for n in range(40):
            driver.now_ns += 1_000_000
            batch = (
                Send(n, "bc"[n % 2], b""),
                Request(n, "b", b"", n),
                Publish(n, f"t{n % 3}", b""),
                Broadcast(n, b""),
            )
            commands += driver.handle(Received("key of a-1", driver.routes["a-1"], batch, 1))
        return commands

    assert run() == run()
