"""Another instance gets a component's name: which one gets which message, what ends with an error, and when."""

from __future__ import annotations

import pytest
from driving import Driver, admission

from ipc.broker.events import Bounds, NamePassed, OperatorCalled
from ipc.broker.mailbox import WINDOW
from ipc.broker.messages import (
    Accepted,
    Answer,
    Broadcast,
    Bye,
    Callback,
    Deliver,
    Handled,
    ListComponents,
    Names,
    Publish,
    Request,
    Send,
)
from ipc.struct import replace


def _pair(bounds: Bounds | None = None) -> Driver:
    """a and b are ready, and another instance of b stands by."""
    driver = Driver()
    driver.ready(admission("a"), admission("b"))
    driver.ready(replace(admission("b", bounds=bounds, generation=2), stands_by=True))
    return driver


def _given(driver: Driver, instance: str) -> list[Deliver]:
    return [each for each in driver.take(instance, Deliver) if isinstance(each, Deliver)]


def _ask(driver: Driver, seq: int = 1, payload: bytes = b"?", timeout_ms: int = 1_000) -> int:
    (accepted,) = [
        each for each in driver.say("a-1", Request(seq, "b", payload, timeout_ms)) if isinstance(each, Accepted)
    ]
    return accepted.correlation


def test_who_stands_by_speaks_and_is_sent_nothing() -> None:
    """Neither a message by name, nor a broadcast, nor a topic reaches it, nor does a listing name it twice."""
    driver = _pair()
    driver.say("a-1", Send(1, "b", b"x"), Broadcast(2, b"y"), Publish(3, "t", b"z"))
    assert [each.payload for each in _given(driver, "b-1")] == [b"x", b"y", b"z"]
    assert not _given(driver, "b-2")
    (listed,) = [each for each in driver.say("a-1", ListComponents(4)) if isinstance(each, Names)]
    assert list(listed.names).count("b") == 1
    assert driver.say("b-2", Send(1, "a", b"from the new one")) == [Accepted(1)]
    assert _given(driver, "a-1")[-1].sender == "b"


def test_the_old_one_finishes_and_then_the_new_one_gets_all_in_order() -> None:
    """What was with the old one stays there, what waited and what comes go to the new one, after it has finished."""
    driver = _pair()
    correlation = _ask(driver)
    for number in range(WINDOW + 2):
        driver.say("a-1", Request(10 + number, "b", b"%d" % number, 1_000))
    with_it = _given(driver, "b-1")
    assert len(with_it) == WINDOW
    driver.handle(NamePassed("b-2"))
    driver.say("a-1", Send(99, "b", b"last"))
    assert not _given(driver, "b-1")
    assert not _given(driver, "b-2")
    assert not driver.finished
    driver.say("b-1", *(Answer(each.delivery, b"!") for each in with_it))
    assert driver.finished == ["b-1"]
    assert not _given(driver, "b-1")
    waited = _given(driver, "b-2")
    assert [each.payload for each in waited] == [b"31", b"32", b"33", b"last"]
    driver.say("b-2", *(Answer(each.delivery, b"!") for each in waited))
    ended = [each for each in driver.take("a-1", Callback) if isinstance(each, Callback)]
    assert len(ended) == WINDOW + 3
    assert correlation in {each.correlation for each in ended}
    assert all(each.payload == b"!" and not each.kind for each in ended)
    assert not driver.events("messages_lost")


def test_an_idle_one_has_finished_at_once() -> None:
    """Nobody waits where nothing is under way; subscriptions go over, too."""
    driver = _pair()
    driver.handle(NamePassed("b-2"))
    assert driver.finished == ["b-1"]
    driver.say("a-1", Send(1, "b", b"x"), Publish(2, "t", b"y"))
    assert [each.payload for each in _given(driver, "b-2")] == [b"x", b"y"]
    driver.dismiss("b-1")
    driver.say("a-1", Send(3, "b", b"z"))
    assert [each.payload for each in _given(driver, "b-2")] == [b"z"]


def test_it_waits_for_the_answers_to_its_own_requests() -> None:
    """The old one gets them; then it has finished."""
    driver = _pair()
    driver.say("b-1", Request(1, "a", b"?", 1_000))
    (asked,) = _given(driver, "a-1")
    driver.handle(NamePassed("b-2"))
    assert not driver.finished
    driver.say("a-1", Answer(asked.delivery, b"!"))
    assert [each.payload for each in driver.take("b-1", Callback)] == [b"!"]
    assert driver.finished == ["b-1"]


@pytest.mark.parametrize("how", ["dismissed", "bye", "lost", "broke"])
def test_an_old_one_that_ends_holds_nobody_up(how: str) -> None:
    """Its requests end with an error each, and the new one gets what comes."""
    driver = _pair()
    correlation = _ask(driver)
    driver.handle(NamePassed("b-2"))
    driver.say("a-1", Send(2, "b", b"x"))
    if how == "dismissed":
        driver.dismiss("b-1")
    elif how == "bye":
        driver.say("b-1", Bye())
    elif how == "lost":
        driver.lose("b-1")
    else:
        driver.say("b-1", Handled(12345))
    (ended,) = [each for each in driver.take("a-1", Callback) if isinstance(each, Callback)]
    assert (ended.correlation, ended.payload) == (correlation, None)
    assert ended.kind
    assert [each.payload for each in _given(driver, "b-2")] == [b"x"]


def test_what_has_no_room_in_the_new_one_ends_with_an_error() -> None:
    """Its bounds are its own: a request is answered, what nobody waits for is on record."""
    driver = _pair(Bounds(mailbox_messages=1))
    for number in range(WINDOW):
        driver.say("a-1", Request(number, "b", b"", 1_000))
    correlations = [_ask(driver, 50 + number) for number in range(2)]
    driver.say("a-1", Send(60, "b", b"x"))
    driver.take("a-1")
    driver.handle(NamePassed("b-2"))
    (ended,) = [each for each in driver.take("a-1", Callback) if isinstance(each, Callback)]
    assert (ended.correlation, ended.kind) == (correlations[1], "target-gone")
    (lost,) = driver.events("messages_lost")
    assert dict(lost.detail) == {"unhandled": 0, "unread": 1, "requests": 1}


def test_the_calls_of_people_go_over_too() -> None:
    """One that waited is answered by the new instance."""
    driver = _pair()
    for number in range(WINDOW):
        driver.say("a-1", Request(number, "b", b"", 1_000))
    driver.handle(OperatorCalled(7, "b", b"hello", 1_000, True, "uid 5"))
    driver.handle(NamePassed("b-2"))
    driver.say("b-1", *(Answer(each.delivery, b"") for each in _given(driver, "b-1")))
    (delivery,) = _given(driver, "b-2")
    driver.say("b-2", Answer(delivery.delivery, b"hi"))
    assert [(each.call, each.payload) for each in driver.operator_answers] == [(7, b"hi")]


def test_who_stood_by_in_vain_leaves_nothing() -> None:
    """The old one goes on as before."""
    driver = _pair()
    driver.dismiss("b-2")
    driver.say("a-1", Send(1, "b", b"x"))
    assert [each.payload for each in _given(driver, "b-1")] == [b"x"]
    driver.handle(NamePassed("b-2"))
    assert not driver.finished


def test_a_name_that_nobody_has_is_had_at_once() -> None:
    """Who stood by while the old one ended gets the next message."""
    driver = _pair()
    driver.dismiss("b-1")
    driver.handle(NamePassed("b-2"))
    driver.say("a-1", Send(1, "b", b"x"))
    assert [each.payload for each in _given(driver, "b-2")] == [b"x"]
