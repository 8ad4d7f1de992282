"""An actor inside all layers: its messages, its storage, its end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ipc.broker.messages import (
    MAX_PAYLOAD_BYTES,
    Answer,
    Bye,
    Cancel,
    Describe,
    ErrorKind,
    Get,
    Handled,
    Health,
    Hello,
    Request,
    Send,
    Set,
)
from ipc.messages import PROGRAM, StartFailed

if TYPE_CHECKING:
    from conftest import Stage

ROOT = Path(__file__).resolve().parents[3]
SECOND_NS = 10**9


def test_a_request_is_answered(stage: Stage) -> None:
    """It is initialised, says Hello and how it is, handles a request, and its answer has what the guest returned."""
    broker = stage.broker(1)
    actor = stage.running()
    assert broker.wait(Health) == [Health("healthy")]
    assert broker.wait(Describe) == [Describe("by hand", "1.0.0", "by hand")]
    payload = b"e" + bytes(range(256)) * 256
    assert broker.ask(payload) == Answer(1, payload)
    assert broker.ask(b"n") == Answer(2, b"")
    assert broker.ask(b"x") == Answer(3, None, "no")
    assert broker.wait(Hello) == [Hello(1, 0)]
    assert broker.users == {"worker"}
    finished = actor.stop()
    assert (finished.outcome, finished.exit_code) == ("exited", 0)
    assert broker.wait(Bye) == [Bye()]
    assert json.loads(actor.stderr()) == {"level": "info", "message": "stopped"}


@pytest.mark.any_user
@pytest.mark.parametrize("size", [1_000_000, 2**20 + 1, 2**21 + 1, MAX_PAYLOAD_BYTES])
def test_the_largest_message_is_handled(stage: Stage, size: int) -> None:
    """It comes in and goes out, and comes back from storage, within the worker's memory limits: also one that is just
    over a power of two, for which the engine's lists are twice as long.
    """
    broker = stage.broker(1)
    stage.running(payload_bytes=size)
    payload = b"e" + bytes(size - 1)
    for _ in range(2):
        assert broker.ask(payload).payload == payload
    assert broker.ask(b"p" + payload[1:]).failure == ""
    assert broker.ask(b"gk").payload == payload[1:]


@pytest.mark.any_user
def test_long_payloads_take_no_memory_of_the_engines(stage: Stage) -> None:
    """In a component of a toolchain's they go in bulk: with room for short messages alone the largest is echoed."""
    broker = stage.broker(1)
    stage.running(component=(ROOT / "examples/echo/echo.wasm").read_bytes(), payload_bytes=1_000)
    payload = bytes(range(256)) * (MAX_PAYLOAD_BYTES // 256)
    for _ in range(2):
        assert broker.ask(payload).payload == payload


def test_messages_are_handled_in_their_order(stage: Stage) -> None:
    """What nobody waits for is told as handled, with what went wrong; what it sends leaves in the order it came."""
    broker = stage.broker(1)
    stage.running()
    broker.wait(Hello)
    numbers = [broker.deliver(b"m%d" % i, wants_answer=False) for i in range(20)]
    last = broker.deliver(b"x", wants_answer=False)
    assert broker.wait_handled(last) == Handled(last, "no")
    assert [m.payload for m in broker.wait(Send, count=20)] == [b"%d" % i for i in range(20)]
    assert [m.delivery for m in broker.wait(Handled, count=21)] == [*numbers, last]


def test_storage_is_asked_of_the_broker(stage: Stage) -> None:
    """A value that was set is there, a missing one is nothing."""
    broker = stage.broker(1)
    stage.running()
    broker.wait(Hello)
    value = bytes(range(256)) * 300
    assert broker.ask(b"gk").payload == b""
    assert broker.ask(b"p" + value).failure == ""
    assert broker.ask(b"gk").payload == value
    assert [m.value for m in broker.wait(Set)] == [value]


def test_a_refusal_is_an_error_value(stage: Stage) -> None:
    """Denied, over a quota, too large or malformed: the guest gets a value that says so, and lives on."""
    broker = stage.broker(1)
    stage.running()
    broker.wait(Hello)
    assert broker.ask(b"gsecret:1").failure == "not-permitted: no grant covers it [A1201]"
    assert broker.ask(b"pmuch").failure == "over-quota: 90 of 100 used"
    assert broker.ask(b"g" + b"k" * 1025).failure == "invalid: the key has more than 1024 bytes"
    assert broker.ask(b"e").payload == b"e"
    assert [m.key for m in broker.wait(Get)] == ["secret:1"]


def test_what_was_granted_is_told(stage: Stage) -> None:
    """A question about a grant is answered from the policy that the worker was given."""
    broker = stage.broker(1)
    stage.running(grants=(("storage.read", "k:*"),))
    broker.wait(Hello)
    assert broker.ask(b"ak:1").payload == b"\1"
    assert broker.ask(b"aother").payload == b"\0"


def test_a_request_of_its_own_ends_in_a_callback(stage: Stage) -> None:
    """The answer and each kind of failure reach handle-callback; a correlation that isn't its own reaches nobody."""
    broker = stage.broker(1)
    stage.running()
    broker.wait(Hello)
    correlation = int.from_bytes(broker.ask(b"rhow?").payload or b"", "little")
    assert broker.wait(Request)[0].payload == b"how?"
    broker.callback(correlation + 1, b"for somebody else")
    broker.callback(correlation, b"so")
    assert [m.payload for m in broker.wait(Send)] == [b"so"]
    correlation = int.from_bytes(broker.ask(b"r").payload or b"", "little")
    broker.callback(correlation, None, ErrorKind.TIMED_OUT, "no answer in time")
    assert [m.payload for m in broker.wait(Send, count=2)] == [b"so", b"6"]
    broker.callback(correlation, b"twice")
    assert broker.ask(b"e").payload == b"e"
    assert len(broker.wait(Send)) == 2
    assert broker.wait(Cancel, count=0) == []


def test_it_says_how_it_is(stage: Stage) -> None:
    """A Ping is answered at once with what is known, and news follow."""
    broker = stage.broker(1)
    stage.running()
    broker.wait(Health)
    broker.ask(b"h")
    broker.ping()
    assert [m.health for m in broker.wait(Health, count=3)] == ["healthy", "healthy", "unhealthy"]


def test_a_busy_actor_answers_a_ping(stage: Stage) -> None:
    """While its guest sleeps in a call."""
    broker = stage.broker(1)
    stage.running(call_timeout_ns=60 * SECOND_NS)
    broker.wait(Health)
    broker.deliver(b"z")
    assert broker.ping() == Health("healthy")


@pytest.mark.any_user
def test_a_log_line_is_one_line(stage: Stage) -> None:
    """Text that would end the line or drive a terminal is spelled out, and is exact for a reader of JSON."""
    broker = stage.broker(1)
    actor = stage.running()
    text = 'a\n{"level": "error"}\x1b[2J\x7f\x9b\u202e\u2028é'
    broker.ask(b"l" + text.encode())
    actor.stop()
    written = actor.stderr()
    first, last, rest = written.split("\n")
    assert json.loads(first) == {"level": "info", "message": text}
    assert first.isprintable()
    assert "é" in first
    assert (json.loads(last)["message"], rest) == ("stopped", "")


@pytest.mark.parametrize(
    ("message", "outcome", "limit", "words"),
    [
        (b"t", "trapped", "", "in handle-message: wasm trap: wasm `unreachable` instruction executed"),
        (b"s", "limit", "timeout", "in handle-message: wasm trap: interrupt"),
        (b"z", "limit", "timeout", "in handle-message: wasm trap: interrupt"),
    ],
)
def test_a_guest_that_fails_ends_its_instance(
    stage: Stage, message: bytes, outcome: str, limit: str, words: str
) -> None:
    """A trap, an endless loop and an endless sleep each end the instance, which says in which call, and why."""
    broker = stage.broker(1)
    actor = stage.running(call_timeout_ns=SECOND_NS)
    broker.wait(Hello)
    assert broker.ask(b"e").payload == b"e"
    broker.deliver(message)
    finished = actor.wait_finished()
    assert (finished.outcome, finished.limit) == (outcome, limit)
    assert finished.message.startswith(words)
    assert finished.usage == (SECOND_NS if limit else 0)
    assert broker.wait(Bye, count=0) == []


def test_one_that_is_held_up_in_the_host_is_given_up(stage: Stage) -> None:
    """Its log is not read, so that its guest waits in the host, where no epoch reaches it; the clock ends it."""
    broker = stage.broker(1)
    actor = stage.running(call_timeout_ns=SECOND_NS)
    broker.wait(Hello)
    for _ in range(20):
        broker.deliver(b"l" + b"x" * 15_000, wants_answer=False)
    finished = actor.wait_finished()
    assert (finished.outcome, finished.limit) == ("limit", "timeout")
    assert finished.message == "in handle-message: its time was over while it waited in the host"


def test_what_initialize_returns_counts(stage: Stage) -> None:
    """An error ends it with 1 before any message, a trap is a trap; it can ask for what it keeps."""
    stage.stored["k"] = b"v"
    broker = stage.broker(1)
    failed = stage.running(config=b"x")
    assert (failed.wait_finished().exit_code, broker.wait(Hello, count=0)) == (1, [])
    assert json.loads(failed.stderr())["message"] == "initialize: no"
    assert stage.running(config=b"t").wait_finished().outcome == "trapped"
    stage.running(config=b"g")
    assert [m.key for m in broker.wait(Get)] == ["k"]
    assert broker.ask(b"e").payload == b"e"


NOT_ACTORS = {
    "a component without the interface": ("(component)", "component", "not an actor"),
    "a core module": ('(module (func (export "_start")))', "module", "core module"),
    "an import of another type": (
        '(component (import "airssys:core/storage@1.0.0" (instance (export "usage" (func (result u32))))))',
        "component",
        "another type",
    ),
    "an import that is not there": (
        '(component (import "airssys:core/storage@1.0.0" (instance (export "root-shell" (func)))))',
        "component",
        "no such function",
    ),
    "an interface that is not there": (
        '(component (import "airssys:core/host-files@1.0.0" (instance (export "open" (func)))))',
        "component",
        "imports what nothing here provides: airssys:core/host-files@1.0.0",
    ),
}


@pytest.mark.any_user
@pytest.mark.parametrize("name", NOT_ACTORS)
def test_what_is_no_actor_is_refused_before_it_runs(stage: Stage, name: str) -> None:
    """What is missing, or of another type, is named at loading."""
    stage.broker(1)
    source, wasm_kind, words = NOT_ACTORS[name]
    failed = stage.start(component=source, wasm_kind=wasm_kind)
    assert isinstance(failed, StartFailed)
    assert (failed.stage, failed.call) == ("loading", PROGRAM)
    assert words in failed.message
