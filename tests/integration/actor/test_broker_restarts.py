"""A broker that ends, comes back, or says nothing, as an actor inside its final filters lives through it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipc.broker.messages import Answer, Get, Health, Hello, Request, Send

if TYPE_CHECKING:
    from conftest import Stage

SECOND_NS = 10**9


def test_an_actor_lives_through_a_restart_of_its_broker(stage: Stage) -> None:
    """It comes back through the warden with the same key, says which broker it knew, and goes on."""
    broker = stage.broker(1)
    actor = stage.running()
    assert broker.ask(b"e1").payload == b"e1"
    for epoch in (2, 3):
        stage.stop_broker()
        broker = stage.broker(epoch)
        assert broker.wait(Hello) == [Hello(1, epoch - 1)]
        assert broker.wait(Health) == [Health("healthy")]
        assert broker.ask(b"e2").payload == b"e2"
        assert broker.users == {"worker"}
        assert broker.announced
        assert set(broker.announced) == {"actor-00000000"}
    assert actor.stop().outcome == "exited"


def test_requests_end_when_the_broker_is_another_one(stage: Stage) -> None:
    """What was asked of the first can't be answered by the second: the guest hears `unavailable`."""
    broker = stage.broker(1)
    stage.running()
    broker.wait(Hello)
    broker.ask(b"r")
    assert broker.wait(Request)
    stage.stop_broker()
    broker = stage.broker(2)
    assert [m.payload for m in broker.wait(Send)] == [b"7"]


def test_a_call_made_while_the_broker_is_away_waits_for_it(stage: Stage) -> None:
    """A delivery that was in hand when it ended is handled; what it asks goes to the next, its answer to nobody."""
    broker = stage.broker(1)
    stage.running()
    broker.wait(Hello)
    broker.silent = True
    broker.deliver(b"gk")
    broker.deliver(b"gk2")
    broker.wait(Get)
    stage.stop_broker()
    broker = stage.broker(2)
    # The first call's question was lost with its connection; the second call's is asked of this broker.
    assert [m.key for m in broker.wait(Get)] == ["k2"]
    assert broker.ask(b"e").payload == b"e"
    assert [m.delivery for m in broker.wait(Answer)] == [1]


def test_a_broker_that_says_nothing_costs_an_error_not_a_hang(stage: Stage) -> None:
    """A storage call without an answer ends in `unavailable` before its own call's time is over."""
    broker = stage.broker(1)
    stage.running(call_timeout_ns=SECOND_NS)
    broker.wait(Hello)
    broker.silent = True
    assert broker.ask(b"gk").failure == "unavailable: the broker did not answer in time"
    broker.silent = False
    assert broker.ask(b"gk").failure == ""


def test_an_actor_starts_without_a_broker(stage: Stage) -> None:
    """It is initialised, and connects when there is one."""
    stage.running()
    broker = stage.broker(1)
    assert broker.ask(b"e").payload == b"e"


def test_a_worker_that_is_not_expected_is_not_connected(stage: Stage) -> None:
    """The broker says whom it expects; nothing reaches it from another. One that is expected comes in."""
    broker = stage.broker(1, expects=False)
    stage.running()
    broker.wait_announced(3)
    assert broker.users == set()
    broker.expects = True
    assert broker.ask(b"e").payload == b"e"


def test_without_a_grant_of_the_plan_there_is_no_connection(stage: Stage) -> None:
    """A worker whose policy has no broker gets EACCES, on record, and the broker never hears of it."""
    broker = stage.broker(1)
    actor = stage.running(broker=False)
    assert actor.stop().outcome == "exited"
    assert (broker.announced, broker.users) == ([], set())
    denied = stage.recorded(decision="denied", code="A1702")
    assert "socket(family 1, type 1)" in {str(record["resource"]) for record in denied}
