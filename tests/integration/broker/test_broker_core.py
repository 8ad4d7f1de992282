"""The whole broker with its real core: grants on both sides, requests, storage, quotas, restarts and records."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import pytest

from ipc.broker import messages as m
from ipc.broker.orders import ActorCalled, CallActor, PeerPhased, Quotas, QuotaState
from supervisor.fleet import broker_pulse
from supervisor.fleet.broker_client import Heard

from .conftest import Stage

pytestmark = pytest.mark.any_user

SEND = (("messaging.send", "*"), ("messaging.receive", "*"))
STORE = (("storage.read", "**"), ("storage.write", "**"))


@pytest.fixture
def stage(new_stage: Callable[..., Stage]) -> Stage:
    """A broker with the core that is shipped."""
    return new_stage(code=None)


def test_messages_go_where_both_sides_allow_it(stage: Stage) -> None:
    """Sent, asked and answered between two that may; a third that may not send is refused, with a record before it."""
    one, two = stage.actor("one", *SEND), stage.actor("two", *SEND)
    assert one.ask(m.Send(1, "two", b"hello")) == m.Accepted(1)
    delivered = two.receive()
    assert isinstance(delivered, m.Deliver)
    assert (delivered.sender, delivered.payload) == ("one", b"hello")
    two.send(m.Handled(delivered.delivery))
    accepted = one.ask(m.Request(2, "two", b"question", 5_000))
    assert isinstance(accepted, m.Accepted)
    asked = two.receive()
    assert isinstance(asked, m.Deliver)
    two.send(m.Answer(asked.delivery, b"answer"))
    assert one.receive() == m.Callback(accepted.correlation, b"answer")
    three = stage.actor("three")
    refused = three.ask(m.Send(1, "two", b""))
    assert isinstance(refused, m.Refused)
    assert refused.kind == "not-permitted"
    denied = [record for record in stage.records if record["component"] == "three" and record["decision"] == "denied"]
    assert [record["resource"] for record in denied] == ["two"]


def test_storage_and_its_quota(stage: Stage) -> None:
    """What is set is there for this component; over the limit it is refused with the numbers; quotas tell the usage."""
    one = stage.actor("one", *STORE, storage_bytes=1_000)
    accepted = one.ask(m.Set(1, "a:b", b"value"))
    assert isinstance(accepted, m.Accepted)
    assert one.ask(m.Get(2, "a:b")) == m.Value(2, b"value")
    refused = one.ask(m.Set(3, "a:c", b"x" * 2_000))
    assert isinstance(refused, m.Refused)
    assert (refused.kind, refused.usage, refused.limit) == ("over-quota", 72, 1_000)
    assert stage.client.read_quotas()

    def told() -> list[QuotaState]:
        said = [heard.message for heard in stage.heard if isinstance(heard, Heard)]
        return [state for each in said if isinstance(each, Quotas) for state in each.states]

    stage.wait_for(told, "the quotas are told")
    assert QuotaState("one", "storage", 72, 1_000, "bytes") in told()


def test_after_kill_9_everybody_goes_on(stage: Stage) -> None:
    """Another broker is ready within a second or two, with another epoch; who is announced goes on; storage is kept."""
    keys = {name: stage.admit(name, *SEND, *STORE) for name in ("one", "two")}
    one, two = (stage.hello(name, keys[name]) for name in ("one", "two"))
    assert isinstance(one.ask(m.Set(1, "k", b"kept")), m.Accepted)
    assert isinstance(one.ask(m.Request(2, "two", b"", 60_000)), m.Accepted)
    pid = stage.client.pid
    assert pid is not None
    os.kill(pid, 9)
    assert stage.wait_restarted() < 10
    one.close()
    two.close()
    assert stage.announce("one")
    one = stage.connect(keys["one"])
    one.send(m.Hello(m.PROTOCOL, 1))
    welcome = one.receive()
    assert isinstance(welcome, m.Welcome)
    assert one.ask(m.Get(3, "k")) == m.Value(3, b"kept")
    two = stage.hello("two", keys["two"])
    assert one.ask(m.Send(4, "two", b"again")) == m.Accepted(4)
    assert isinstance(two.receive(), m.Deliver)
    (lost,) = stage.events("broker_lost")
    assert '"signal": 9' in str(lost["detail"]).replace("'", '"')
    stage.wait_for(lambda: stage.events("broker_restarted"), "the restart is on record")


def test_what_comes_before_hello_ends_the_peer(stage: Stage) -> None:
    """A message out of its phase: the supervisor is told to end it, the record names it, nothing is answered."""
    keys = stage.admit("one", *SEND)
    assert stage.announce("one")
    one = stage.connect(keys)
    one.send(m.Send(1, "one", b""))
    assert stage.wait_ended("one").code == "A1806"
    assert one.receive(0.2) is None


def test_a_lost_connection_is_told_and_may_come_again(stage: Stage) -> None:
    """The supervisor hears that it is ready, and that it is lost; announced again the session goes on."""
    keys = stage.admit("one", *SEND)
    one = stage.hello("one", keys)
    stage.wait_for(lambda: Heard(PeerPhased("one-1", "ready")) in stage.heard, "it is ready")
    one.close()
    stage.wait_for(lambda: Heard(PeerPhased("one-1", "lost")) in stage.heard, "it is lost")
    again = stage.hello("one", keys)
    again.send(m.Send(1, "one", b"to itself"))
    assert m.Accepted(1) in (again.receive(), again.receive())


def test_an_operator_calls(stage: Stage) -> None:
    """A call through the control socket is delivered, and its answer comes back."""
    two = stage.actor("two", *SEND)
    assert stage.client.call(CallActor(5, "two", 5_000, True, "uid 0"), b"question")
    asked = two.receive()
    assert isinstance(asked, m.Deliver)
    assert asked.payload == b"question"
    two.send(m.Answer(asked.delivery, b"answer"))
    stage.wait_for(lambda: Heard(ActorCalled(5), b"answer") in stage.heard, "the call is answered")


def test_a_broker_that_hangs_is_replaced(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped, it doesn't answer whether it is there: it is ended, and another one takes its place."""
    monkeypatch.setattr(broker_pulse, "ASK_NS", 50_000_000)
    monkeypatch.setattr(broker_pulse, "ANSWER_WITHIN_NS", 500_000_000)
    keys = stage.admit("one", *SEND)
    stage.hello("one", keys)
    until_ns = time.monotonic_ns() + 1_000_000_000
    stage.wait_for(lambda: time.monotonic_ns() > until_ns, "it answers for a second")
    assert stage.client.restarts == 0
    pid = stage.client.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    assert stage.wait_restarted() < 10
    stage.hello("one", keys)
    assert "did not answer" in str(stage.events("broker_lost")[0]["detail"])
