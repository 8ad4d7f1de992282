"""An instance that is connected and has other rights from now on: what it lost is refused at the very next message."""

from __future__ import annotations

from driving import Driver, admission

from ipc.broker.events import Restricted
from ipc.broker.messages import (
    Accepted,
    Deliver,
    ErrorKind,
    Get,
    Invoke,
    ListComponents,
    Names,
    Publish,
    Refused,
    Send,
    Set,
    ToWorker,
)

ALL = {
    "messaging.send": ("b",),
    "messaging.receive": ("**",),
    "messaging.publish": ("**",),
    "messaging.subscribe": ("news", "other"),
    "storage.read": ("k",),
    "storage.write": ("k", "l"),
    "custom.pay.charge": ("**",),
}


def restricted(name: str, **kept: tuple[str, ...]) -> Restricted:
    """Return the event by which an instance keeps these grants."""
    grants = {action.replace("_", "."): texts for action, texts in kept.items()}
    return Restricted(f"{name}-1", admission(name, grants).rights)


def _kinds(answers: list[ToWorker]) -> list[str]:
    return [each.kind for each in answers if isinstance(each, Refused)]


def test_what_was_used_before_is_refused_at_the_next_use() -> None:
    """Messages, storage and custom capabilities, each of which was on record, and open; what is left goes on."""
    driver = Driver()
    driver.ready(admission("a", ALL), admission("b"))
    uses = (Send(1, "b", b""), Set(2, "k", b""), Invoke(3, "pay", "charge", b""))
    for use in uses:
        assert _kinds(driver.say("a-1", use)) == []
    driver.handle(restricted("a", storage_write=("l",), storage_read=("k",)))
    for use in uses:
        assert _kinds(driver.say("a-1", use)) == [ErrorKind.NOT_PERMITTED]
    assert _kinds(driver.say("a-1", Set(4, "l", b""), Get(5, "k"))) == []
    assert not driver.ended
    assert _kinds(driver.say("b-1", Send(6, "a", b""))) == [ErrorKind.NOT_PERMITTED], "it receives nothing any more"


def test_who_reaches_whom_is_found_anew() -> None:
    """A subscription that is gone gets nothing; one that is left does, and who isn't to be reached isn't named."""
    driver = Driver()
    driver.ready(admission("a", ALL), admission("b", {"messaging.publish": ("**",), "messaging.receive": ("a",)}))
    assert driver.say("b-1", Publish(1, "news", b"")) == [Accepted(1, 1)]
    assert driver.say("a-1", ListComponents(2)) == [Names(2, ("b",))]
    driver.handle(restricted("a", messaging_subscribe=("other",)))
    driver.take("a-1")
    driver.say("b-1", Publish(3, "news", b""), Publish(4, "other", b""))
    assert [each.topic for each in driver.take("a-1", Deliver) if isinstance(each, Deliver)] == ["other"]
    assert driver.say("a-1", ListComponents(5)) == [Names(5, ())]


def test_what_waits_for_its_record_is_decided_by_what_is_left() -> None:
    """A first use whose record isn't there yet when the grant is taken back doesn't happen."""
    driver = Driver()
    driver.ready(admission("a", ALL), admission("b"))
    driver.log_answers = False
    assert driver.say("a-1", Set(1, "k", b"")) == []
    driver.handle(restricted("a", storage_read=("k",)))
    driver.log_answers = True
    driver.record_all()
    assert _kinds(driver.take("a-1")) == [ErrorKind.NOT_PERMITTED]
    assert not driver.stores


def test_one_that_is_not_there_is_no_error() -> None:
    """It has ended meanwhile; one that has said that it ends is not found by the others again."""
    driver = Driver()
    driver.handle(restricted("a"))
    driver.ready(admission("a", ALL), admission("b"))
    driver.dismiss("a-1")
    driver.handle(restricted("a"))
    assert _kinds(driver.say("b-1", Send(1, "a", b""))) == [ErrorKind.UNKNOWN_TARGET]
