"""Long payloads of guests, through the hatch: the engine carries nothing, and the other side has all of it."""

from __future__ import annotations

import itertools
import json
import random
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import wasmtime
import wasmtime.component

from ipc import codec
from ipc.broker.messages import MAX_PAYLOAD_BYTES, Accepted, CompareAndSet, FromWorker, Get, Invoke, Value
from ipc.messages import EngineSettings
from ipc.policy.decision import PolicyDocument
from worker import abi, hatch
from worker import engine_package as package
from worker.engine import Runner
from worker.engine_api import EngineError
from worker.host import capabilities, custom, messaging, services, storage, types
from worker.payload_guard import guarded
from worker.value_types import Ok

pytestmark = pytest.mark.any_user
ROOT = Path(__file__).resolve().parents[3]
LONG, PIECE = hatch.LONG_BYTES, hatch.PIECE_BYTES
SIZES = [0, 1, LONG - 1, LONG, LONG + 1, PIECE, PIECE + 1, 65_536, 1 << 20, MAX_PAYLOAD_BYTES - 8]
BY_HAND = (ROOT / "tests/guests/wat/actor.wat").read_text(encoding="utf-8")
FULL_NAMES = BY_HAND
for each in ("handle-message", "handle-callback"):
    FULL_NAMES = FULL_NAMES.replace(
        f'(func (export "{each}")\n', f'(func (export "{types.interface("component-lifecycle")}#{each}")\n'
    )
    FULL_NAMES = FULL_NAMES.replace(
        f'(core func $main "{each}")', f'(core func $main "{types.interface("component-lifecycle")}#{each}")'
    )


_started: list[Bulk] = []


class Bulk:
    """One guest with its guards, and the host's own interfaces over a list and a dictionary in the broker's place."""

    def __init__(self, component: bytes, opened: bool = True) -> None:
        """Instantiate it; its hatch is opened, or stays closed as where nobody knows of it."""
        self.asked: list[FromWorker] = []
        self.values: dict[str, bytes] = {}
        self.carried: list[object] = []
        """The payloads and results that the engine moved itself."""
        self.hatch = hatch.Hatch()
        self.runner = Runner.new(EngineSettings(epoch=False))
        self.runner.memories.limit_bytes = 64 << 20
        if opened:
            self.runner.memories.hatch = self.hatch
        engine = package.engine_of(self.runner.engine)
        self.store = wasmtime.Store(engine)
        self.store.set_wasi(wasmtime.WasiConfig())
        linker = wasmtime.component.Linker(engine)
        linker.add_wasip2()
        imports = abi.Imports(failures := abi.Failures(), self.hatch)
        sequence = itertools.count()

        def ask(build: Callable[[int], FromWorker]) -> Accepted | Value:
            self.asked.append(message := build(next(sequence)))
            if isinstance(message, Get | Invoke):
                return Value(0, self.values.get(message.key if isinstance(message, Get) else message.action))
            return Accepted(0, 1, 1)

        interfaces: dict[str, Any] = {
            messaging.NAME: messaging.Messaging(None, ask, "self"),  # type: ignore[arg-type]
            storage.NAME: storage.Storage(ask, self.hatch),  # type: ignore[arg-type]
            custom.NAME: custom.Custom(ask, self.hatch),  # type: ignore[arg-type]
            services.NAME: services.Services(ask, None),  # type: ignore[arg-type]
            capabilities.NAME: capabilities.Capabilities(codec.pack_map(PolicyDocument("guest", "").to_wire())),
        }
        for name, interface in interfaces.items():
            imports.define(linker, name, interface.functions())
        self._linker = linker
        _started.append(self)
        instance = linker.instantiate(self.store, wasmtime.component.Component(engine, component))
        lifecycle = instance.get_export_index(self.store, types.interface("component-lifecycle"))

        def find(name: str) -> abi.Function:
            index = instance.get_export_index(self.store, name, lifecycle)
            assert index is not None
            func = instance.get_func(self.store, index)
            assert func is not None
            return abi.Function(self.store, func, failures)

        self._handle, self._hear = find("handle-message"), find("handle-callback")
        assert find("initialize")(b"") == Ok(None)

    def close(self) -> None:
        """Give its memory back."""
        self.store.close()
        self._linker.close()

    def ask(self, payload: bytes) -> Any:
        """Give it a message, as an actor's worker does; return its answer."""
        given = self.hatch.give(hatch.MESSAGE, payload)
        result = self._handle(("tester", given, None, True))
        self.carried = [given, result.value]
        handed_over = self.hatch.take()
        return handed_over[0] if handed_over else result.value

    def hear(self, payload: bytes) -> None:
        """Give it the answer to a request."""
        given = self.hatch.give(hatch.CALLBACK, payload)
        assert self._hear((1, Ok(given))) == Ok(None)
        self.carried = [given]


def wasm_of(name: str) -> bytes:
    """Return a guest's bytes."""
    return (ROOT / name).read_bytes()


def content(size: int) -> bytes:
    """Return bytes of which no piece is like another."""
    return random.Random(size).randbytes(size)


@pytest.fixture(scope="module", autouse=True)
def _none_is_left() -> Iterator[None]:
    yield
    while _started:
        _started.pop().close()


@pytest.fixture(scope="module")
def by_hand() -> Bulk:
    """The actor of tests/guests/wat, whose exports have the names by which toolchains call them."""
    return Bulk(guarded(bytes(wasmtime.wat2wasm(FULL_NAMES))))


@pytest.fixture(scope="module")
def harm() -> Bulk:
    """The actor in C that means harm."""
    return Bulk(guarded(wasm_of("tests/guests/actors/misbehaving.wasm")))


@pytest.mark.parametrize(
    ("opened", "size"), [*((True, size) for size in SIZES), *((False, size) for size in (LONG + 1, 70_000))]
)
def test_a_message_comes_back_whole(opened: bool, size: int) -> None:
    """In C, of every size around the bounds: what is long isn't carried where the hatch is open."""
    echo = Bulk(guarded(wasm_of("examples/echo/echo.wasm")), opened)
    for _ in range(3):
        assert echo.ask(content(size)) == content(size)
        assert echo.carried == ([b"", b""] if opened and size > LONG else [content(size)] * 2)
    assert echo.ask(b"short") == b"short"


@pytest.mark.parametrize("size", [1, LONG, LONG + 1, 65_536, 1 << 20])
def test_each_way_in_and_out_is_in_bulk(by_hand: Bulk, size: int) -> None:
    """A message, a value that is kept and read, a request, a callback and what is sent on."""
    payload = content(size)
    by_hand.asked.clear()
    assert by_hand.ask(b"p" + payload) is None
    assert by_hand.ask(b"m" + payload) is None
    assert by_hand.ask(b"r" + payload) == (1).to_bytes(8, "little")
    by_hand.hear(payload)
    assert by_hand.carried == [b"" if size > LONG else payload]
    found = [getattr(each, "value", None) or getattr(each, "payload", None) for each in by_hand.asked]
    assert found == [payload] * 4
    by_hand.values["k"] = payload
    assert by_hand.ask(b"gk") == payload
    assert by_hand.ask(b"gother") is None


def test_the_guest_is_told_the_length_of_what_it_answered() -> None:
    """After its answer was taken it finds the length where it had put it: it has to free as much."""
    told = FULL_NAMES.replace(
        '(func (export "forget") (param i32)',
        '(func (export "forget") (param i32) (i32.store (i32.const 200) (i32.load offset=16 (local.get 0)))',
    ).replace(
        "(local.set $rest (i32.add",
        "(if (i32.eq (local.get $what) (i32.const 0x6f)) (then (return (call $some (i32.const 200) (i32.const 4)))))\n"
        "(local.set $rest (i32.add",
    )
    guest = Bulk(guarded(bytes(wasmtime.wat2wasm(told))))
    for size in (100, 70_000, 3, LONG + 1):
        assert guest.ask(b"e" + content(size)) == b"e" + content(size)
        assert guest.ask(b"o") == (size + 1).to_bytes(4, "little")


def test_an_answer_that_nothing_is_called_after_is_put_back_too() -> None:
    """A guest that frees by itself: the guard's own function is called in the place of one that isn't there."""
    source = FULL_NAMES.replace(
        '#handle-message") (memory $mem) (realloc $realloc) (post-return $forget)',
        '#handle-message") (memory $mem) (realloc $realloc)',
    ).replace(
        "(local.set $rest (i32.add",
        "(if (i32.eq (local.get $what) (i32.const 0x6f)) (then (i32.store (i32.const 200) (i32.load (i32.const 80)))\n"
        "  (return (call $some (i32.const 200) (i32.const 4)))))\n(local.set $rest (i32.add",
    )
    assert source.count("(post-return $forget)") == 3
    guest = Bulk(guarded(bytes(wasmtime.wat2wasm(source))))
    assert guest.ask(b"e" + content(70_000)) == b"e" + content(70_000)
    assert guest.ask(b"o") == (70_001).to_bytes(4, "little")


@pytest.mark.parametrize("expected", ["-", "short", "x" * (LONG + 1), "y" * 65_537])
@pytest.mark.parametrize("value", ["-", "short", "z" * 70_000])
def test_both_lists_of_a_comparison_are_told_apart(harm: Bulk, expected: str, value: str) -> None:
    """None, short and long ones beside each other: each arrives where it belongs."""
    assert harm.ask(f"cas key {expected} {value}".encode()) == b"ok true"
    asked = harm.asked[-1]
    assert isinstance(asked, CompareAndSet)
    assert (asked.expected, asked.value) == tuple(None if one == "-" else one.encode() for one in (expected, value))


@pytest.mark.parametrize("size", [LONG, LONG + 1, 65_536, MAX_PAYLOAD_BYTES])
def test_everything_else_that_is_handed_over_is_in_bulk(harm: Bulk, size: int) -> None:
    """Broadcast, publish, a custom capability and its answer, and an answer that was made in the guest."""
    text = "t" * min(size, 1 << 20)
    for order in ("broadcast", "publish a.b", "invoke sql query", "set key", "send to"):
        harm.ask(f"{order} {text}".encode())
        asked = harm.asked[-1]
        assert (getattr(asked, "payload", None) or getattr(asked, "value", None)) == text.encode(), order
    harm.values["query"] = b"v" * min(size, 900)
    assert harm.ask(b"invoke sql query x") == b"ok " + harm.values["query"]
    assert harm.ask(f"huge {size}".encode()) == b"x" * size
    assert harm.carried[1] == (b"" if size > LONG else b"x" * size)


def test_what_is_too_large_is_refused_as_before(harm: Bulk) -> None:
    """An error value, and nothing of it is left to be taken for something else."""
    harm.asked.clear()
    assert harm.ask(f"oversize {MAX_PAYLOAD_BYTES + 1} to".encode()) == b"too-large: 2621440"
    assert harm.ask(f"huge {MAX_PAYLOAD_BYTES + 1}".encode()) == ("too-large", MAX_PAYLOAD_BYTES)
    assert harm.ask(b"send to ") == b"ok"
    assert [getattr(each, "payload", None) for each in harm.asked] == [b""]


def test_what_lies_beyond_its_memory_ends_the_guest() -> None:
    """Its answer has an address and a length that lead out: a trap, and not one byte of anything else."""
    source = FULL_NAMES.replace(
        "(call $some (local.get $at) (local.get $length))", "(call $some (i32.const -4096) (i32.const 70000))"
    )
    guest = Bulk(guarded(bytes(wasmtime.wat2wasm(source))))
    with pytest.raises(EngineError, match="out of bounds memory access"):
        guest.ask(b"e")


def test_its_page_is_counted_as_nobodys() -> None:
    """The guest's memory limit is for the guest's memory; where nobody opens the hatch its page is one as others."""
    source = bytes(wasmtime.wat2wasm(FULL_NAMES))
    opened, closed = Bulk(guarded(source)), Bulk(guarded(source), opened=False)
    assert opened.runner.memories.used_bytes == 16 << 16
    assert closed.runner.memories.used_bytes == 17 << 16
    before = opened.runner.memories.peak_bytes, opened.runner.memories.refusals
    opened.ask(b"e" + content(65_000))
    assert (opened.runner.memories.peak_bytes, opened.runner.memories.refusals) == before
    assert not opened.runner.memories.last_refused


def test_a_guest_that_makes_a_hatch_of_its_own_gains_a_page() -> None:
    """One page beside its limit, once; what it writes there is read within the page, and is its own payload at most."""
    memory = f"1 {hatch.PAGES_MAX}"

    def rings(number: int, size: int, pages: int = hatch.TAKE_PAGES) -> str:
        stored = ((hatch.LIST_AT, number), (hatch.SIZE_AT, size), (hatch.PIECE_AT, 0x636261))
        written = "".join(f"(i32.store offset={at} (i32.const 0) (i32.const {value}))" for at, value in stored)
        return f"{written} (drop (memory.grow (i32.const {pages})))"

    forged = rings(0, -1) + rings(0, 65_536) + rings(9, 3) + rings(0, 3) + rings(1, 3, 700) + rings(0, 3, 19_067)
    source = BY_HAND.replace(
        "(core module $Memory",
        f"(core module $Own (memory {memory}) (memory {memory}) (func $f {forged}) (start $f))\n"
        "(core instance $own (instantiate $Own))\n(core module $Memory",
        1,
    )
    guest = Bulk(bytes(wasmtime.wat2wasm(source)))
    assert guest.runner.memories.used_bytes == (16 + 1) << 16
    assert guest.hatch.take() == {0: b"abc"}
    assert guest.ask(b"e" + content(70_000)) == b"e" + content(70_000)
    # The guards' own hatch is a memory as others are then, and is used by nobody.
    also_guarded = Bulk(guarded(bytes(wasmtime.wat2wasm(source))))
    assert also_guarded.runner.memories.used_bytes == (16 + 2) << 16
    assert also_guarded.ask(b"p" + content(70_000)) is None
    assert getattr(also_guarded.asked[-1], "value", b"") == content(70_000)


def wrapped(body: str) -> bytes:
    """Return the actor inside a component of a toolchain's, which imports and exports what the actor does."""
    begin, end = body.index("(import"), body.index("(core module $Memory")
    names = ("types", "messaging", "services", "storage", "capabilities")
    full = {"types": "types", "messaging": "host-messaging", "services": "host-services"}
    given = "".join(f'(with "{types.interface(full.get(name, name))}" (instance ${name}))' for name in names)
    lifecycle = types.interface("component-lifecycle")
    inner = body[body.index("(component") :].replace("(component", "(component $inner", 1)
    text = f"(component {body[begin:end]} {inner} (instance $i (instantiate $inner {given}))"
    return bytes(wasmtime.wat2wasm(text + f'(export "{lifecycle}" (instance $i "{lifecycle}")))'))


def test_one_in_a_wrapper_is_in_bulk() -> None:
    """As a toolchain for JavaScript makes them: asked and answered by nobody but the host."""
    guest = Bulk(guarded(wrapped(FULL_NAMES)))
    guest.values["k"] = content(70_000)
    assert guest.ask(b"gk") == content(70_000)
    assert guest.carried[1] == b""
    assert guest.ask(b"e" + content(70_000)) == b"e" + content(70_000)
    assert guest.carried == [b"", b""]


@pytest.mark.slow
@pytest.mark.toolchain
def test_in_javascript() -> None:
    """Another toolchain, another allocator: a long message, a long request, and long answers to and from it."""
    subprocess.run([ROOT / "scripts/build-guests", "requester"], check=True, timeout=500, capture_output=True)
    requester = Bulk(guarded(wasm_of("examples/requester/requester.wasm")))
    order = json.dumps({"to": "other", "ask": "x" * 20_000}).encode()
    for number in (1, 2):
        assert json.loads(requester.ask(order)) == {"asked": "other", "request": number}
        assert requester.carried[0] == b""
        assert getattr(requester.asked[-1], "payload", b"") == b'"' + b"x" * 20_000 + b'"'
    requester.hear(json.dumps("y" * 20_000).encode())
    assert requester.carried == [b""]
    assert json.loads(requester.ask(b""))[0]["answer"] == "y" * 20_000
    assert requester.carried[1] == b""
