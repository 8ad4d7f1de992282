"""Cost of an actor's messages inside the worker: bytes across the component boundary, and one message handled."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import wasmtime
import wasmtime.component

from ipc.messages import EngineSettings
from worker import abi, hatch
from worker import engine_package as package
from worker.engine import Runner
from worker.host.types import interface
from worker.payload_guard import guarded

ROUNDS = 30
PAYLOAD = bytes(range(256)) * 256
OWN_PATH = "wasmtime-py's own path"
_ACTOR = Path(__file__).resolve().parents[2] / "tests/guests/wat/actor.wat"
_BYTES = """
(component
  (core module $m
    (memory (export "memory") 4)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
    (func (export "in") (param i32 i32))
    (func (export "out") (param i32) (result i32)
      (i32.store (i32.const 0) (i32.const 1024)) (i32.store (i32.const 4) (local.get 0)) (i32.const 0)))
  (core instance $i (instantiate $m))
  (alias core export $i "memory" (core memory $memory))
  (alias core export $i "realloc" (core func $realloc))
  (func (export "in") (param "a" (list u8)) (canon lift (core func $i "in") (memory $memory) (realloc $realloc)))
  (func (export "out") (param "a" u32) (result (list u8)) (canon lift (core func $i "out") (memory $memory))))
"""


def _interleaved(ours: Callable[[], Any], theirs: Callable[[], Any], repeat: int) -> tuple[list[float], list[float]]:
    """Return microseconds of processor time (nothing here waits) of each, a few of ours against one of theirs."""
    ours(), theirs()
    mine, other = [], []
    for _ in range(ROUNDS):
        for _ in range(repeat):
            begun = time.thread_time_ns()
            ours()
            mine.append((time.thread_time_ns() - begun) / 1e3)
        begun = time.thread_time_ns()
        theirs()
        other.append((time.thread_time_ns() - begun) / 1e3)
    return mine, other


def _row(name: str, ours: list[float], theirs: list[float]) -> dict[str, object]:
    p50, base = statistics.median(ours), statistics.median(theirs)
    return {
        "name": name,
        "p50": round(p50, 2),
        "p99": round(sorted(ours)[int(len(ours) * 0.99)], 2),
        "unit": "us",
        "n": len(ours),
        "baseline": OWN_PATH,
        "baseline_p50": round(base, 2),
        "ratio": round(p50 / base, 4),
    }


def _record(sender: str, payload: bytes) -> Any:
    value = wasmtime.component.Record()
    for name, one in (("sender", sender), ("payload", payload), ("topic", None), ("wants-answer", True)):
        setattr(value, name, one)
    return value


def _by_hand() -> bytes:
    """Return the actor that is written by hand, with names as toolchains give them, and an order for 64 KiB."""
    text = _ACTOR.read_text(encoding="utf-8")
    full = f"{interface('component-lifecycle')}#handle-message"
    for name in ('(func (export "handle-message")\n', '(core func $main "handle-message")'):
        assert name in text
        text = text.replace(name, name.replace("handle-message", full))
    is_order = "(i32.eq (local.get $what) (i32.const 0x6f))"  # o
    answers = f"(if {is_order} (then (return (call $some (i32.const 65536) (i32.const 65536)))))"
    before = "(local.set $rest (i32.add"
    return bytes(wasmtime.wat2wasm(text.replace(before, answers + before, 1)))


def _handle_message(engine: wasmtime.Engine, wasm: bytes) -> tuple[wasmtime.Store, Any]:
    store, linker = wasmtime.Store(engine), wasmtime.component.Linker(engine)
    actor = wasmtime.component.Component(engine, wasm)
    linker.define_unknown_imports_as_traps(actor)
    instance = linker.instantiate(store, actor)
    lifecycle = instance.get_export_index(store, interface("component-lifecycle"))
    index = instance.get_export_index(store, "handle-message", lifecycle)
    assert index is not None
    handle = instance.get_func(store, index)
    assert handle is not None
    return store, handle


def measure() -> Iterator[dict[str, object]]:
    """Yield one row a figure; the baseline is measured in between, in the same run."""
    engine = wasmtime.Engine()
    store = wasmtime.Store(engine)
    instance = wasmtime.component.Linker(engine).instantiate(store, wasmtime.component.Component(engine, _BYTES))
    into, out = (instance.get_func(store, name) for name in ("in", "out"))
    assert into is not None
    assert out is not None
    fast_into, fast_out = abi.Function(store, into), abi.Function(store, out)
    times = _interleaved(lambda: fast_into(PAYLOAD), lambda: into(store, PAYLOAD), 10)
    yield _row("64 KiB to a guest, as values", *times)
    times = _interleaved(lambda: fast_out(len(PAYLOAD)), lambda: out(store, len(PAYLOAD)), 10)
    yield _row("64 KiB from a guest, as values", *times)

    wasm, runner, through = _by_hand(), Runner.new(EngineSettings(epoch=False)), hatch.Hatch()
    runner.memories.limit_bytes = 64 << 20
    runner.memories.hatch = through
    store, handle = _handle_message(engine, wasm)
    guarded_store, guarded_handle = _handle_message(package.engine_of(runner.engine), guarded(wasm))
    fast_handle = abi.Function(guarded_store, guarded_handle)

    def ours(payload: bytes) -> bytes:
        given = through.give(hatch.MESSAGE, payload)
        result = fast_handle(("sender", given, None, True))
        answer: bytes = through.take().get(0, result.value)
        return answer

    def theirs(payload: bytes) -> object:
        return handle(store, _record("sender", payload))

    small, order = b"e" + PAYLOAD[:255], b"o"
    assert (ours(small), len(ours(order)), ours(b"e" + PAYLOAD)) == (small, len(PAYLOAD), b"e" + PAYLOAD)
    for name, payload, repeat in (
        ("64 KiB to a guest", b"?" + PAYLOAD[1:], 10),
        ("64 KiB from a guest", order, 10),
        ("64 KiB handled, host to guest to host", b"e" + PAYLOAD[1:], 10),
        ("256 B handled, host to guest to host", small, 50),
    ):
        times = _interleaved(functools.partial(ours, payload), functools.partial(theirs, payload), repeat)
        yield _row(name, *times)
    guarded_store.close()
