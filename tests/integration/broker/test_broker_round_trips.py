"""Real clients on the real process: round trips, refusals that wait for their record, storage, an operator's call."""

from __future__ import annotations

import pytest

from ipc.broker import messages as m
from ipc.broker.orders import ActorCalled, CallActor, NamespaceRemoved
from ipc.broker.store import FILE
from supervisor.fleet.broker_client import Heard

from .conftest import Stage

pytestmark = pytest.mark.any_user


def test_a_message_goes_from_one_to_the_other(stage: Stage) -> None:
    """Two actors say hello; what one sends is accepted, and delivered to the other with the sender's name."""
    one, other = stage.actor("one"), stage.actor("other")
    assert one.ask(m.Send(1, "other", b"hello")) == m.Accepted(1)
    assert other.receive() == m.Deliver(1, "one", b"hello")


def test_a_request_comes_back(stage: Stage) -> None:
    """A request is delivered, its answer comes to who asked, with the correlation id that was accepted."""
    one, other = stage.actor("one"), stage.actor("other")
    accepted = one.ask(m.Request(1, "other", b"question", 1_000))
    assert isinstance(accepted, m.Accepted)
    delivered = other.receive()
    assert isinstance(delivered, m.Deliver)
    assert delivered.wants_answer
    other.send(m.Answer(delivered.delivery, b"answer"))
    assert one.receive() == m.Callback(accepted.correlation, b"answer")


def test_the_largest_payload_goes_both_ways_and_small_ones_share_frames(stage: Stage) -> None:
    """A payload of a megabyte arrives as it was sent; 500 messages in one frame arrive in their order."""
    one, other = stage.actor("one"), stage.actor("other")
    large = bytes(range(256)) * 4_000
    one.send(m.Send(1, "other", large))
    assert other.receive() == m.Deliver(1, "one", large)
    one.send(*[m.Send(n, "other", b"%d" % n) for n in range(2, 502)])
    assert [other.receive() for _ in range(500)] == [m.Deliver(n, "one", b"%d" % n) for n in range(2, 502)]


def test_a_refusal_is_on_record_when_it_arrives(stage: Stage) -> None:
    """The refusal comes after its record is durable, stamped with who was refused."""
    one = stage.actor("one")
    refused = one.ask(m.Send(7, "nobody", b""))
    assert isinstance(refused, m.Refused)
    assert (refused.seq, refused.reason) == (7, "")
    (record,) = stage.events("message_refused")
    assert [record[key] for key in ("component", "instance", "resource", "decision", "producer")] == [
        "one",
        "one-1",
        "nobody",
        "denied",
        "broker",
    ]


def test_storage_is_kept_by_component(stage: Stage) -> None:
    """What one sets it gets, and the other doesn't; usage is exact; a listing shows what may be read only."""
    one = stage.actor("one", ("storage.read", "open:*"))
    other = stage.actor("other", ("storage.read", "open:*"))
    assert one.ask(m.Set(1, "open:a", b"value")) == m.Accepted(1, 1)
    assert one.ask(m.Set(2, "shut:a", b"value")) == m.Accepted(2, 1)
    assert one.ask(m.Get(3, "open:a")) == m.Value(3, b"value")
    assert other.ask(m.Get(1, "open:a")) == m.Value(1, None)
    assert one.ask(m.ListKeys(4, "")) == m.Names(4, ("open:a",))
    assert one.ask(m.Usage(5)) == m.Numbers(5, (2 * (6 + 5 + 64), -1, 2))
    assert other.ask(m.Usage(2)) == m.Numbers(2, (0, -1, 0))


def test_a_removed_namespace_leaves_nothing(stage: Stage) -> None:
    """After the answer no byte of the keys or values is in any file of the store."""
    one = stage.actor("one", storage_bytes=None)
    for number in range(20):
        assert one.ask(m.Set(number, f"secret-key-{number}", b"secret-value" * 500)) == m.Accepted(number, 1)
    held = b"".join(path.read_bytes() for path in (stage.directory / "store").iterdir())
    assert b"secret-key" in held
    assert b"secret-value" in held
    assert stage.client.remove_namespace("one")
    stage.wait_for(lambda: Heard(NamespaceRemoved("one")) in stage.heard, "the namespace is removed")
    files = list((stage.directory / "store").iterdir())
    assert FILE in {path.name for path in files}
    held = b"".join(path.read_bytes() for path in files)
    assert b"secret-key" not in held
    assert b"secret-value" not in held


def test_an_operators_call_is_answered(stage: Stage) -> None:
    """The payload goes in beside the order, and comes back beside the answer."""
    assert stage.client.call(CallActor(5, "one", 1_000, True, "uid 0"), b"x" * 100_000)
    answer = Heard(ActorCalled(5), b"x" * 100_000 + b"one")
    stage.wait_for(lambda: answer in stage.heard, "the call is answered")
