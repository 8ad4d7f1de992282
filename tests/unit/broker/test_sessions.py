"""The session's tables: total, every message in every phase, and only who speaks by its key on its one connection."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import get_args

import pytest
from driving import Driver, admission

from ipc.broker.core import BEATS, HEARTBEAT_NS
from ipc.broker.events import Announced, Due, EndPeer, Malformed, Received
from ipc.broker.messages import (
    Accepted,
    Answer,
    Broadcast,
    Bye,
    Cancel,
    CompareAndSet,
    Delete,
    Deliver,
    Describe,
    Exists,
    FromWorker,
    Get,
    GetMetadata,
    Handled,
    Health,
    Hello,
    Invoke,
    ListComponents,
    ListKeys,
    Ping,
    Publish,
    Request,
    Send,
    Set,
    Usage,
    Welcome,
)
from ipc.broker.sessions import ALLOWED, AT_ONCE, ENDED, HAPPENINGS, LEAVING, NEWS_PER_S, NEXT, ORDERED, PHASES, READY

MESSAGES: tuple[FromWorker, ...] = (
    Hello(1),
    Send(1, "b", b""),
    Request(1, "b", b"", 1000),
    Cancel(1, 5),
    Broadcast(1, b""),
    Publish(1, "t", b""),
    Handled(5),
    Answer(5, b""),
    Get(1, "k"),
    Set(1, "k", b""),
    Delete(1, "k"),
    Exists(1, "k"),
    ListKeys(1, ""),
    Usage(1),
    CompareAndSet(1, "k", None, None),
    ListComponents(1),
    GetMetadata(1, "b"),
    Invoke(1, "c", "d", b""),
    Health("healthy"),
    Describe("a", "1", "test"),
    Bye(),
)


def in_phase(phase: str) -> Driver:
    """A core with a component a in that phase, and b, which is ready."""
    driver = Driver()
    driver.ready(admission("b"))
    driver.admit(admission("a"))
    driver.routes["a-1"] = b"\0aaaa"
    if phase == "expected":
        driver.handle(Announced("a-1"))
    elif phase != "admitted":
        driver.connect("a-1")
        if phase == LEAVING:
            driver.say("a-1", Bye())
        elif phase == ENDED:
            driver.handle(Malformed("key of a-1", driver.routes["a-1"], "test", 1))
            driver.ended.clear()
    driver.inbox.clear()
    return driver


def test_the_tables_are_total() -> None:
    """Every phase has a next one for every happening, and a set of messages; every message has a place."""
    assert set(NEXT) == set(product(PHASES, HAPPENINGS))
    assert set(NEXT.values()) <= set(PHASES)
    assert set(ALLOWED) == set(PHASES)
    every = set(get_args(FromWorker))
    assert {type(message) for message in MESSAGES} == every
    assert ORDERED | AT_ONCE | {Hello} == every
    assert not ORDERED & AT_ONCE
    assert all(NEXT[ENDED, happening] == ENDED for happening in HAPPENINGS)


def test_the_picture_is_the_tables() -> None:
    """docs/reference/messaging.md shows every way from one phase to another; all others end the instance."""
    ways = [f"{phase} --> {to}: {happening}" for (phase, happening), to in NEXT.items() if to not in (phase, ENDED)]
    page = (Path(__file__).resolve().parents[3] / "docs" / "reference" / "messaging.md").read_text()
    picture = page.split("```mermaid")[1].split("```")[0]
    assert [line.strip() for line in picture.splitlines() if "-->" in line] == ["[*] --> admitted", *ways]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
@pytest.mark.parametrize("phase", PHASES)
def test_every_message_in_every_phase(phase: str, message: FromWorker) -> None:
    """What the table allows is taken, anything else ends the instance with a record; of one that has ended nothing is
    read."""
    driver = in_phase(phase)
    driver.say("a-1", message)
    if phase == ENDED or type(message) in ALLOWED[phase]:
        # Answers to what was never delivered are allowed messages, and wrong ones.
        wrong = phase == READY and isinstance(message, Handled | Answer)
        assert bool(driver.ended) == wrong
    else:
        assert [end.instance for end in driver.ended] == ["a-1"]
        assert driver.ended[0].code == "A1806"
        violations = driver.events("violation")
        assert [(each.instance, each.decision, each.code) for each in violations] == [("a-1", "denied", "A1806")]


def test_what_comes_behind_a_violation_is_not_read() -> None:
    """A batch is read up to the message that may not be there."""
    driver = Driver()
    driver.ready(admission("a"), admission("b"))
    driver.say("a-1", Send(0, "b", b"first"))
    driver.say("a-1", Send(1, "b", b"before"), Hello(1), Send(2, "b", b"behind"))
    assert [each.payload for each in driver.take("b-1", Deliver)] == [b"first", b"before"]
    assert len(driver.ended) == 1
    driver.say("a-1", Send(3, "b", b"later"))
    assert driver.take("b-1", Deliver) == []
    assert len(driver.ended) == 1


def test_a_greeting_is_answered_with_the_terms() -> None:
    """Welcome names the epoch, the greatest payload and the heartbeat, and the supervisor hears that it is ready."""
    driver = Driver()
    driver.admit(admission("a"))
    driver.connect("a-1")
    assert driver.take("a-1") == [Welcome(77, 1_000_000, HEARTBEAT_NS // 10**6)]
    assert [(each.instance, each.phase) for each in driver.phases] == [("a-1", "ready")]


def test_another_protocol_is_not_spoken() -> None:
    """A worker of another version is ended."""
    driver = Driver()
    driver.admit(admission("a"))
    driver.handle(Announced("a-1"))
    driver.routes["a-1"] = b"\0aaaa"
    driver.say("a-1", Hello(2))
    assert driver.ended[0].reason == "protocol 2, this is 1"


def test_a_key_that_was_never_admitted_is_nobody() -> None:
    """Nothing is taken from it, and nothing answered."""
    driver = Driver()
    driver.ready(admission("a"))
    assert driver.handle(Received("another key", b"\0zzzz", (Hello(1), Send(1, "a", b"")), 10)) == []
    assert driver.handle(Malformed("another key", b"\0zzzz", "why", 10)) == []


def test_a_second_connection_of_a_key_ends_its_instance() -> None:
    """A stolen key, or a worker that opens a second one: neither route is served any more."""
    driver = Driver()
    driver.ready(admission("a"), admission("b"))
    driver.handle(Received("key of a-1", b"\0zzzz", (Send(1, "b", b"forged"),), 10))
    assert driver.take("b-1", Deliver) == []
    assert driver.ended == [EndPeer("a-1", "A1806", "a second connection")]


def test_the_sender_is_who_holds_the_key() -> None:
    """What a receiver is told of the sender follows from the connection; no field of a message says it."""
    driver = Driver()
    driver.ready(admission("a"), admission("b"), admission("c"))
    for instance in ("a-1", "c-1"):
        driver.say(instance, Send(1, "b", b"I am a"))
    assert [each.sender for each in driver.take("b-1", Deliver)] == ["a", "c"]


def test_a_worker_that_comes_back_is_told_of_another_epoch() -> None:
    """What was on its way may be lost, so its own pending requests end, as after a restart of the broker."""
    driver = Driver()
    driver.ready(admission("a"), admission("b"))
    driver.lose("a-1")
    driver.connect("a-1", since=77)
    welcome = driver.take("a-1", Welcome)[0]
    assert welcome.epoch != 77
    assert [each.phase for each in driver.phases if each.instance == "a-1"] == ["ready", "lost", "ready"]


def test_an_idle_worker_is_asked_and_ended_when_it_stays_silent() -> None:
    """Three Pings, one an interval; any word in between starts anew."""
    driver = Driver()
    driver.ready(admission("a"))
    driver.pass_time(HEARTBEAT_NS)
    assert driver.take("a-1") == [Ping()]
    driver.say("a-1", Health("healthy"))
    driver.pass_time(3 * HEARTBEAT_NS + HEARTBEAT_NS // BEATS)
    assert driver.take("a-1") == [Ping()] * 3
    assert driver.ended == []
    driver.pass_time(HEARTBEAT_NS)
    assert [(each.instance, each.code) for each in driver.ended] == [("a-1", "A1810")]
    assert driver.core.next_due_ns() is None or driver.take("a-1") == []


def test_one_moment_serves_all_whose_time_has_come() -> None:
    """Workers that came within a beat of each other are asked together, at its end: nobody is woken up for each."""
    driver = Driver()
    for number in range(5):
        driver.now_ns += HEARTBEAT_NS // BEATS // 10
        driver.ready(admission(f"c{number}"))
    due_ns = driver.core.next_due_ns()
    assert due_ns is not None
    driver.now_ns = due_ns
    driver.handle(Due())
    assert [driver.take(f"c{number}-1") for number in range(5)] == [[Ping()]] * 5


def test_a_busy_worker_may_be_silent() -> None:
    """One that has a message, or a callback, to handle is not ended: its own time limit sees to that."""
    driver = Driver()
    driver.ready(admission("a"), admission("b"))
    driver.say("a-1", Request(1, "b", b"long work", 10**6))
    for _ in range(60):
        driver.say("a-1", Health("healthy"))
        driver.pass_time(HEARTBEAT_NS)
    assert driver.ended == []
    assert driver.take("b-1", Ping) == [Ping()] * 3
    delivery = driver.take("b-1", Deliver)[0].delivery
    driver.say("b-1", Answer(delivery, b"done"))
    for _ in range(8):
        driver.say("b-1", Health("healthy"))
        driver.pass_time(HEARTBEAT_NS)
    assert driver.ended == []


def test_a_broker_that_was_stopped_ends_nobody() -> None:
    """Silence counts only where somebody was asked."""
    driver = Driver()
    driver.ready(admission("a"))
    driver.now_ns += 3600 * 10**9
    driver.pass_time(1)
    assert driver.take("a-1") == [Ping()]
    assert driver.ended == []


def test_health_is_passed_on_when_it_changes() -> None:
    """The supervisor hears of each change once; a word that there isn't ends the instance."""
    driver = Driver()
    driver.ready(admission("a"))
    driver.phases.clear()
    for health in ("healthy", "healthy", "degraded"):
        driver.say("a-1", Health(health))
    assert [each.health for each in driver.phases] == ["healthy", "degraded"]
    driver.say("a-1", Health("splendid"))
    assert len(driver.ended) == 1


def test_a_name_has_one_live_instance() -> None:
    """An instance of a name that is admitted takes the place of an earlier one that nobody dismissed."""
    driver = Driver()
    driver.ready(admission("a"), admission("b"))
    driver.ready(admission("b", generation=2))
    assert driver.say("a-1", Send(1, "b", b"x")) == [Accepted(1)]
    assert len(driver.take("b-2", Deliver)) == 1
    assert driver.take("b-1") == []


def test_what_the_supervisor_is_told_of_one_instance_is_bounded() -> None:
    """Another health with each message, and connecting again and again, end an instance; now and then neither does."""
    for flood in ("health", "connecting"):
        driver = Driver()
        driver.ready(admission("a"))
        for turn in range(2 * NEWS_PER_S):
            driver.pass_time(10**9)
            driver.say("a-1", Health(("degraded", "healthy")[turn % 2]))
        assert not driver.ended
        told = len(driver.phases)
        for turn in range(2 * NEWS_PER_S):
            if driver.ended:
                break
            if flood == "health":
                driver.say("a-1", Health(("degraded", "healthy")[turn % 2]))
            else:
                driver.lose("a-1")
                driver.connect("a-1")
        assert [end.code for end in driver.ended] == ["A1806"]
        assert len(driver.phases) - told <= 2 * NEWS_PER_S
