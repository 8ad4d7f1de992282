"""Cost of an actor's messages inside the worker: bytes across the component boundary, and one message handled."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import wasmtime
import wasmtime.component

from worker import abi
from worker.host.types import interface

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


def measure() -> Iterator[dict[str, object]]:
    """Yield one row a figure; the baseline is measured in between, in the same run."""
    engine = wasmtime.Engine()
    store = wasmtime.Store(engine)
    linker = wasmtime.component.Linker(engine)
    instance = linker.instantiate(store, wasmtime.component.Component(engine, _BYTES))
    into, out = (instance.get_func(store, name) for name in ("in", "out"))
    assert into is not None
    assert out is not None
    fast_into, fast_out = abi.Function(store, into), abi.Function(store, out)
    times = _interleaved(lambda: fast_into(PAYLOAD), lambda: into(store, PAYLOAD), 10)
    yield _row("64 KiB to a guest", *times)
    times = _interleaved(lambda: fast_out(len(PAYLOAD)), lambda: out(store, len(PAYLOAD)), 10)
    yield _row("64 KiB from a guest", *times)

    actor = wasmtime.component.Component(engine, _ACTOR.read_text(encoding="utf-8"))
    linker.define_unknown_imports_as_traps(actor)
    instance = linker.instantiate(store, actor)
    lifecycle = instance.get_export_index(store, interface("component-lifecycle"))
    index = instance.get_export_index(store, "handle-message", lifecycle)
    assert index is not None
    handle = instance.get_func(store, index)
    assert handle is not None
    fast_handle = abi.Function(store, handle)
    payload = b"e" + PAYLOAD[:255]
    assert fast_handle(("sender", payload, None, True)) == (payload,)
    times = _interleaved(
        lambda: fast_handle(("sender", payload, None, True)), lambda: handle(store, _record("sender", payload)), 50
    )
    yield _row("256 B message handled, host to guest to host", *times)
