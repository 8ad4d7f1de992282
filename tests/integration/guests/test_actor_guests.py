"""The example actors and the one that means harm, with plain functions for a host: they do what they say."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import wasmtime
from wasmtime.component import Variant

if TYPE_CHECKING:
    from conftest import Host

pytestmark = pytest.mark.any_user

NOT_PERMITTED = Variant("not-permitted", "no rule covers it")


@pytest.fixture
def harm(host: Callable[..., Host]) -> Host:
    """The actor that means harm."""
    return host("misbehaving")


@pytest.mark.parametrize("name", ["echo", "publisher", "subscriber", "misbehaving", "bench"])
def test_each_says_who_it_is(host: Callable[..., Host], name: str) -> None:
    """Metadata, health and the end in order, for each guest in C; as often as they are asked for."""
    guest = host(name)
    for _ in range(3):
        metadata = guest.call("metadata")
        assert (metadata.name, metadata.version) == (name, "1.0.0")
        assert guest.call("health") == "healthy"
    assert guest.call("shutdown") is None


@pytest.mark.parametrize("size", [0, 1, 255, 70_000])
def test_echo_answers_what_it_is_sent(host: Callable[..., Host], size: int) -> None:
    """Payloads of any size come back whole, and the memory of a call is used again by the next."""
    guest = host("echo", memory_bytes=22 << 16)  # 17 pages are there from the start
    payload = bytes(i % 251 for i in range(size))
    for _ in range(8):
        assert guest.ask(payload) == payload
    assert guest.ask(b"", topic="a.b", wants_answer=False) == b""


def test_news_reach_the_subscriber(host: Callable[..., Host]) -> None:
    """What the publisher is sent it publishes; the subscriber logs, keeps and tells it; a refusal is its answer."""
    publisher, subscriber = host("publisher"), host("subscriber")
    assert subscriber.ask(b"") == b"no news yet"
    assert publisher.ask(b"it rains") == b"2"
    assert publisher.published == [("news.today", b"it rains")]
    topic, payload = publisher.published[0]
    assert subscriber.ask(payload, sender="publisher", topic=topic, wants_answer=False) is None
    assert subscriber.logged == [("info", "it rains", [("from", "publisher"), ("topic", "news.today")])]
    assert subscriber.ask(b"") == b"it rains"
    quota = Variant("over-quota", subscriber.call("metadata"))
    for name, value in (("usage", 90), ("limit", 100), ("retry-after-ms", 0)):
        setattr(quota.payload, name, value)
    subscriber.refusals["set"] = quota
    refused = subscriber.ask(b"more", sender="publisher", topic=topic, wants_answer=False)
    assert (refused.tag, refused.payload.usage, refused.payload.limit) == ("over-quota", 90, 100)
    publisher.refusals["publish"] = NOT_PERMITTED
    assert publisher.ask(b"more") == NOT_PERMITTED


def test_every_function_of_the_world_is_called_from_c(harm: Host) -> None:
    """Each import of the header passes its arguments and returns what the host returned."""
    answers = [
        (b"send echo hello world", b"ok"),
        (b"request echo 250 hello", b"ok 4503599627370497"),
        (b"cancel 4503599627370497", b"ok"),
        (b"broadcast to all", b"ok 3"),
        (b"publish a.b to some", b"ok 2"),
        (b"who", b"ok echo counter"),
        (b"about echo", b"ok echo 2.0.0 of it"),
        (b"self", b"ok self-1a2b3c4d"),
        (b"get a:b", b"ok none"),
        (b"cas a:b - one two", b"ok true"),
        (b"get a:b", b"ok some one two"),
        (b"cas a:b one -", b"ok false"),
        (b"set a:c three", b"ok"),
        (b"exists a:c", b"ok true"),
        (b"list a:", b"ok a:b a:c"),
        (b"usage", b"ok 146 100000000"),
        (b"delete a:c", b"ok true"),
        (b"delete a:d", b"ok false"),
        (b"granted", b"ok messaging.send:echo storage.read:*"),
        (b"allows messaging.send echo", b"ok true"),
        (b"allows messaging.send other", b"ok false"),
        (b"invoke sql query select 1", b"ok sql.query:select 1"),
        (b"sleep 12", b"ok"),
        (b"time", b"ok 1700000000123456789 1700000000123"),
        (b"log a line", b"ok"),
        (b"late 34", b"ok late"),
        (b"echo a b", b"a b"),
    ]
    for order, answer in answers:
        assert harm.ask(order) == answer, order
    assert harm.sent == [("echo", b"hello world")]
    assert harm.requested == [("echo", b"hello", 250)]
    assert harm.cancelled == [(1 << 52) + 1]
    assert harm.published == [("", b"to all"), ("a.b", b"to some")]
    assert harm.slept_ms == [12, 34]
    assert harm.logged == [("info", "a line", [])]
    assert harm.ask(b"silent") is None
    assert harm.ask(b"fail on purpose") == Variant("failed", "on purpose")


def test_every_error_reaches_c(harm: Host) -> None:
    """Each case of the error variant arrives with its own payload: as a function's result and as a request's end."""
    quota = harm.call("metadata")
    for name, value in (("usage", 1 << 40), ("limit", 7), ("retry-after-ms", 1 << 33)):
        setattr(quota, name, value)
    cases = [
        (NOT_PERMITTED, b"not-permitted: no rule covers it"),
        (Variant("unknown-target"), b"unknown-target:"),
        (Variant("over-quota", quota), b"over-quota: usage 1099511627776 limit 7 retry-after-ms 8589934592"),
        (Variant("too-large", 1 << 35), b"too-large: 34359738368"),
        (Variant("mailbox-full"), b"mailbox-full:"),
        (Variant("target-gone"), b"target-gone:"),
        (Variant("timed-out"), b"timed-out:"),
        (Variant("unavailable", "later"), b"unavailable: later"),
        (Variant("invalid", "key"), b"invalid: key"),
        (Variant("failed", "theirs"), b"failed: theirs"),
    ]
    for number, (error, words) in enumerate(cases):
        harm.refusals["send"] = error
        assert harm.ask(b"send echo x") == words
        assert harm.answer((1 << 52) + number, error) is None
        assert harm.ask(b"last") == str((1 << 52) + number).encode() + b" " + words
    assert harm.answer(5, b"an answer") is None
    assert harm.ask(b"last") == b"5 ok an answer"
    assert harm.ask(b"callbacks") == b"ok 11"


@pytest.mark.parametrize(
    ("order", "words"),
    [
        (b"trap", "unreachable"),
        (b"recurse", "call stack exhausted|out of bounds"),
        (b"exit", "exit"),
        (b"blocks 100000000", "unreachable"),
        (b"unaligned", "out of bounds"),
        (b"bad-text", "utf-8"),
    ],
)
def test_it_can_be_made_to_end(host: Callable[..., Host], order: bytes, words: str) -> None:
    """Each order that ends the instance does, by a trap; without it the instance lives."""
    guest = host("misbehaving", memory_bytes=32 << 20)
    assert guest.ask(b"echo still here") == b"still here"
    with pytest.raises((wasmtime.Trap, wasmtime.WasmtimeError), match=f"(?i){words}"):
        guest.ask(order)


def test_it_spins_until_it_is_interrupted(harm: Host, engine: wasmtime.Engine) -> None:
    """An endless loop ends with the epoch."""
    engine.increment_epoch()
    with pytest.raises((wasmtime.Trap, wasmtime.WasmtimeError), match="interrupt"):
        harm.ask(b"spin")


def test_memory_that_is_refused_is_lived_with(host: Callable[..., Host]) -> None:
    """At the limit growing fails, the guest says how far it came, and goes on."""
    guest = host("misbehaving", memory_bytes=16 << 20)
    answer = guest.ask(b"memory 1000000000")
    assert answer.endswith(b" refused")
    assert 8 << 20 < int(answer.split()[1]) < 16 << 20


def test_many_of_everything(harm: Host) -> None:
    """Floods are as long as they are ordered to be, and tell how many were accepted and the first refusal."""
    assert harm.ask(b"flood 1000 echo") == b"ok 1000"
    assert harm.sent == [("echo", str(i).encode()) for i in range(1000)]
    assert harm.ask(b"requests 10 echo") == b"ok 10"
    assert harm.ask(b"topics 10 a.b") == b"ok 10"
    assert harm.ask(b"guess 100") == b"ok 100"
    assert len(set(harm.cancelled)) == 100
    assert max(harm.cancelled) < 1 << 53
    assert harm.ask(b"logs 100") == b"ok 100"
    assert len(harm.logged) == 100
    assert harm.ask(b"log-fields 100 1000") == b"ok"
    assert len(harm.logged[-1][2]) == 100
    assert harm.ask(b"fill 100 10") == b"ok 100"
    assert harm.ask(b"overwrite 100 10") == b"ok 100"
    assert len(harm.stored) == 101
    assert harm.ask(b"oversize 100000 echo") == b"ok"
    assert len(harm.sent[-1][1]) == 100_000
    assert len(harm.ask(b"huge 100000")) == 100_000
    harm.refusals["send"] = NOT_PERMITTED
    assert harm.ask(b"flood 10 echo") == b"ok 0 not-permitted: no rule covers it"


def test_what_is_too_large_is_an_error_value_where_guards_are(host: Callable[..., Host]) -> None:
    """With its guards a guest that hands over too much is refused before the engine looks; what fits passes."""
    guest = host("misbehaving", with_guards=True)
    for order in (b"oversize 2621441 echo", b"oversize 9000000 echo", b"fill 1 4000000"):
        assert guest.ask(order).endswith(b"too-large: 2621440"), order
    assert guest.ask(b"huge 3000000") == Variant("too-large", 2_621_440)
    assert (guest.sent, guest.stored) == ([], {})
    assert guest.ask(b"oversize 5000 echo") == b"ok"
    assert guest.ask(b"cas a - " + b"x" * 5000) == b"ok true"
    assert guest.ask(b"fill 2 100") == b"ok 2"
    assert (len(guest.sent[0][1]), len(guest.stored)) == (5000, 3)
    assert guest.ask(b"request echo 250 hello") == b"ok 4503599627370497"
    assert guest.ask(b"broadcast x") == b"ok 3"
    assert guest.ask(b"publish a.b x") == b"ok 2"
    assert guest.ask(b"invoke sql query x") == b"ok sql.query:x"
    assert guest.ask(b"silent") is None
    assert guest.ask(b"fail on purpose") == Variant("failed", "on purpose")
    assert len(guest.ask(b"huge 5000")) == 5000


def test_keys_and_log_lines_that_mean_harm(harm: Host) -> None:
    """Control characters, escapes and long keys come through as they are; to refuse or escape is the host's."""
    harm.ask(b"log-control")
    level, line, fields = harm.logged[0]
    assert level == "warn"
    assert {"\n", "\x1b", "\x9b", "\u202e", "\0"} < set(line)
    assert fields == [("field\nname", 'value\x1b]0;owned\x07\r\n{"seq":1}')]
    assert harm.ask(b"odd-key 612e2e2f000a") == b"ok"
    assert harm.ask(b"key-of 5000") == b"ok"
    assert sorted(harm.stored) == ["a../\0\n", "x" * 5000]


def test_files_are_asked_for_through_wasi(host: Callable[..., Host], tmp_path: Path) -> None:
    """It reads, writes and lists in a directory that it was given, and finds nothing elsewhere or without one."""
    with_files, without = host("misbehaving", directory=str(tmp_path)), host("misbehaving")
    (tmp_path / "a").write_text("of a file")
    for size in (100, 20_000, 40_000, 60_000):
        # The memory of a call is used again: what the adapter to WASI keeps mustn't be in it.
        assert len(with_files.ask(b"echo " + b"\xff" * size)) == size
        assert with_files.ask(b"read /d/a") == b"ok of a file"
        assert with_files.ask(b"write /d/b") == b"ok 7"
        assert set(with_files.ask(b"ls /d").split()) == {b"ok", b".", b"..", b"a", b"b"}
        for guest in (with_files, without):
            for order in (b"read /etc/passwd", b"write /tmp/x", b"ls /"):
                assert guest.ask(order).startswith(b"errno "), order


def test_it_can_say_that_it_is_unwell(harm: Host) -> None:
    """Its health is what it was told to be."""
    assert harm.ask(b"unwell") == b"ok"
    assert harm.call("health") == "unhealthy"


def test_the_bench_counts_and_asks(host: Callable[..., Host]) -> None:
    """It echoes, counts what comes one way, sends so many, and asks one after the other with the times they took."""
    bench = host("bench")
    assert bench.ask(bytes(256)) == bytes(256)
    for _ in range(1000):
        bench.ask(bytes(256), wants_answer=False)
    assert bench.ask(b"!count") == b"1000 1700000000123456789 1700000000123456789"
    assert bench.ask(b"!count") == b"0 0 0"
    assert bench.ask(b"!send 50 256 echo").startswith(b"50 ")
    assert {(to, len(payload)) for to, payload in bench.sent} == {("echo", 256)}
    assert bench.ask(b"!ask 200 100 echo") == b"200"
    for number in range(200):
        bench.now_ns += 1000 * (200 - number)
        bench.answer(number, b"x" * 100)
    assert {(to, len(payload)) for to, payload, _ in bench.requested} == {("echo", 100)}
    assert len(bench.requested) == 200
    assert bench.ask(b"!asked") == b"0 0 101000 198000"


@pytest.mark.slow
@pytest.mark.toolchain
def test_the_counter_in_python(host: Callable[..., Host]) -> None:
    """It adds, keeps what it counted, loses nothing to one who is quicker, and says what it can't read."""
    counter = host("counter")
    assert counter.call("metadata").name == "counter"
    assert json.loads(counter.ask(b'{"name": "visits", "add": 2}')) == {"name": "visits", "count": 2}
    assert counter.stored == {"count:visits": b"2"}

    def quicker() -> None:
        counter.stored["count:visits"] = b"10"
        counter.before_set = lambda: None

    counter.before_set = quicker
    assert json.loads(counter.ask(b'{"name": "visits", "add": 1}')) == {"name": "visits", "count": 11}
    assert json.loads(counter.ask(b'{"name": "visits"}')) == {"name": "visits", "count": 11}
    assert json.loads(counter.ask(b'{"name": "none"}')) == {"name": "none", "count": 0}
    for wrong in (b"", b"[]", b'{"add": 1}', b'{"name": "a", "add": "much"}'):
        assert counter.ask(wrong).tag == "invalid", wrong
    counter.refusals["compare-and-set"] = NOT_PERMITTED
    assert counter.ask(b'{"name": "visits", "add": 1}') == NOT_PERMITTED
    assert (counter.call("health"), counter.call("shutdown")) == ("healthy", None)


@pytest.mark.slow
@pytest.mark.toolchain
def test_the_requester_in_javascript(host: Callable[..., Host]) -> None:
    """It asks whom it is told to, keeps and logs what comes back or went wrong, and passes a refusal on."""
    requester = host("requester")
    assert requester.call("metadata").name == "requester"
    order = b'{"to": "counter", "ask": {"name": "visits\xc3\xa4", "add": 1}}'
    assert json.loads(requester.ask(order)) == {"asked": "counter", "request": 1}
    assert json.loads(requester.ask(order)) == {"asked": "counter", "request": 2}
    to, payload, timeout_ms = requester.requested[0]
    assert (to, json.loads(payload), timeout_ms) == ("counter", {"name": "visitsä", "add": 1}, 5000)
    assert requester.answer((1 << 52) + 2, Variant("timed-out")) is None
    assert requester.answer((1 << 52) + 1, b'{"count": 4}') is None
    assert json.loads(requester.ask(b"")) == [
        {"request": 2, "to": "counter", "error": "timed-out"},
        {"request": 1, "to": "counter", "answer": {"count": 4}},
    ]
    assert requester.logged == [
        ("warn", 'counter answered "timed-out"', [("request", "2")]),
        ("info", 'counter answered {"count":4}', [("request", "1")]),
    ]
    for wrong in (b"{}", b"\xff", b"[1]", b'{"to": 1, "ask": 2}', b"null"):
        assert requester.ask(wrong).tag == "invalid", wrong
    assert requester.answer(1, b"nobody asked") is None
    requester.refusals["request"] = NOT_PERMITTED
    assert requester.ask(order) == NOT_PERMITTED
    assert (requester.call("health"), requester.call("shutdown")) == ("healthy", None)
