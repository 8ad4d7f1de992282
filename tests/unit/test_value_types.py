"""Values of the component model: what is refused, and what a host function's types are compared by."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import wasmtime
import wasmtime.component

from worker.abi import Failures, Function, Imports, Signature
from worker.actor import _EXPORTS
from worker.hatch import Hatch
from worker.host import capabilities, custom, messaging, services, storage
from worker.host.types import CALLBACK, ERROR, HEALTH, LOG_LEVEL, MESSAGE, METADATA
from worker.value_memory import Lender
from worker.value_types import (
    Bool,
    Bytes,
    Char,
    Enum,
    Err,
    Flags,
    Float,
    Integer,
    List,
    Ok,
    Option,
    Record,
    Result,
    String,
    Tuple,
    Type,
    Variant,
)

WIT = Path(__file__).resolve().parents[2] / "wit/airssys-core.wit"
NAMED: dict[Type, str] = {
    ERROR: "error",
    MESSAGE: "message",
    CALLBACK: "callback",
    METADATA: "component-metadata",
    HEALTH: "health-status",
    LOG_LEVEL: "log-level",
}


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Integer("u8"), 256),
        (Integer("u8"), -1),
        (Integer("s8"), 128),
        (Integer("u64"), 1 << 64),
        (Integer("u32"), True),
        (Integer("u32"), 1.0),
        (Bool(), 1),
        (Float("f64"), "1"),
        (Char(), "ab"),
        (Char(), "\ud800"),
        (String(), b"bytes"),
        (String(), "\ud800"),
        (Bytes(), "text"),
        (Bytes(), bytearray(b"x")),
        (List(String()), ("a",)),
        (List(String()), [1]),
        (Tuple((String(), Bool())), ("a",)),
        (Record((("a", String()),)), ["a"]),
        (Variant((("a", None),)), ("b", None)),
        (Enum(("a",)), "b"),
        (Flags(("a",)), {"b"}),
        (Result(None, String()), None),
        (Option(String()), 1),
    ],
)
def test_what_is_no_value_of_a_type_is_refused(kind: Type, value: Any) -> None:
    """Out of bounds, of another type, or of another shape: TypeError or ValueError, never another value."""
    with pytest.raises((TypeError, ValueError)):
        kind.lower(value, Lender())


ECHO = """
(component
  (import "test:t/host" (instance $host (export "turn" (func (param "a" (list u8)) (param "b" string)
    (result (tuple (list u8) string))))))
  (core module $memory
    (memory (export "memory") 64)
    (global $next (mut i32) (i32.const 1024))
    (func (export "realloc") (param i32 i32 i32) (param $size i32) (result i32)
      (local $at i32)
      (local.set $at (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
      (global.set $next (i32.add (local.get $at) (local.get $size)))
      (local.get $at))
    (func (export "forget") (param i32) (global.set $next (i32.const 1024))))
  (core instance $m (instantiate $memory))
  (alias core export $m "memory" (core memory $mem))
  (alias core export $m "realloc" (core func $realloc))
  (core func $turn (canon lower (func $host "turn") (memory $mem) (realloc $realloc)))
  (core module $main
    (import "h" "turn" (func $turn (param i32 i32 i32 i32 i32)))
    (func (export "f") (param i32 i32 i32 i32) (result i32)
      (call $turn (local.get 0) (local.get 1) (local.get 2) (local.get 3) (i32.const 64)) (i32.const 64)))
  (core instance $i (instantiate $main (with "h" (instance (export "turn" (func $turn))))))
  (func (export "f") (param "a" (list u8)) (param "b" string) (result (tuple (list u8) string))
    (canon lift (core func $i "f") (memory $mem) (realloc $realloc) (post-return (core func $m "forget")))))
"""


@pytest.fixture
def echo() -> Callable[[Callable[..., Any]], Function]:
    """Return what makes a guest that calls a host function with what it gets, and returns what that returns."""

    def make(function: Callable[..., Any]) -> Function:
        engine = wasmtime.Engine()
        store = wasmtime.Store(engine)
        linker = wasmtime.component.Linker(engine)
        failures = Failures()
        imports = Imports(failures, Hatch())
        signature = Signature((Bytes(), String()), Tuple((Bytes(), String())))
        imports.define(linker, "test:t/host", {"turn": (signature, function)})
        instance = linker.instantiate(store, wasmtime.component.Component(engine, ECHO))
        return Function(store, instance.get_func(store, "f"), failures)

    return make


Make = Callable[[Callable[..., Any]], Function]


def test_values_cross_the_boundary_both_ways_and_back(echo: Make) -> None:
    """Host to guest to host function and back, many times, of every size around the bounds of kept memory."""
    turned = echo(lambda data, text: (data[::-1], text + "!"))
    for size in (0, 1, 1023, 1024, 1025, 65_535, 65_536, 65_537, 100_000, 3):
        data = (bytes(range(251)) * (size // 251 + 1))[:size]
        assert turned(data, "é" * 3) == (data[::-1], "ééé!")


def test_what_a_host_function_raises_comes_out_of_the_call(echo: Make) -> None:
    """The guest's call ends, and the reason is the very exception."""

    def fails(data: bytes, text: str) -> tuple[bytes, str]:
        raise KeyError(text)

    with pytest.raises(KeyError, match="why"):
        echo(fails)(b"", "why")


def test_what_a_host_function_returns_is_checked(echo: Make) -> None:
    """A value of another type is an error of ours, and never memory that the engine misreads."""
    with pytest.raises(TypeError):
        echo(lambda data, text: (text, data))(b"", "")


def _spelled(kind: Type | None) -> str:
    if kind in NAMED:
        return NAMED[kind]
    match kind:
        case None:
            return "_"
        case Integer(name):
            return name
        case Bool():
            return "bool"
        case String():
            return "string"
        case Bytes():
            return "payload"
        case List(element):
            return f"list<{_spelled(element)}>"
        case Option(payload):
            return f"option<{_spelled(payload)}>"
        case Tuple(elements):
            return f"tuple<{', '.join(map(_spelled, elements))}>"
        case Result(ok, err):
            return f"result<{_spelled(ok)}, {_spelled(err)}>"
    raise AssertionError(kind)


def _signature(signature: Signature) -> str:
    parameters = ", ".join(map(_spelled, signature.parameters))
    return f"({parameters})" + (f" -> {_spelled(signature.result)}" if signature.result is not None else "")


def test_host_functions_are_those_of_the_world() -> None:
    """Every function of wit/airssys-core.wit is there with the same type, and no other is."""
    text = re.sub(r"///.*", "", WIT.read_text(encoding="utf-8"))
    written: dict[str, dict[str, str]] = {}
    for name, body in re.findall(r"interface ([\w-]+) \{(.*?)\n\}", text, re.S):
        written[name] = {
            function: "(" + re.sub(r"%?[\w-]+: ", "", parameters) + ")" + (f" -> {result.strip()}" if result else "")
            for function, parameters, result in re.findall(r"([\w-]+): func\((.*?)\)(?: -> (.*?))?;", body)
        }
    del written["types"]
    none: Any = None
    offered = {
        "host-messaging": messaging.Messaging(none, none, "").functions(),
        "host-services": services.Services(none, none).functions(),
        "storage": storage.Storage(none, none).functions(),
        "custom": custom.Custom(none, none).functions(),
        "capabilities": capabilities.Capabilities(_document()).functions(),
    }
    found = {
        interface: {name: _signature(signature) for name, (signature, _) in functions.items()}
        for interface, functions in offered.items()
    }
    found["component-lifecycle"] = {name: _signature(signature) for name, signature in _EXPORTS.items()}
    assert found == written


def _document() -> bytes:
    from ipc import codec
    from ipc.policy.decision import PolicyDocument

    return codec.pack_map(PolicyDocument("c", "").to_wire())


def test_an_error_value_says_what_it_is() -> None:
    """In words for whoever waits for an answer: never empty, whatever the guest put in."""
    from worker.host.types import error_of, words_of

    for kind, _ in ERROR.cases:
        error = error_of(kind, "why", 10, 9, 8)
        assert isinstance(error, Err)
        assert words_of(error.value)
        assert ERROR.lift(ERROR.lower(error.value, Lender()), 0) == error.value
    assert words_of(("failed", "")) == "failed"
    assert words_of(("unknown-target", None)) == "unknown-target"
    assert words_of(error_of("of another world", "why").value) == "why"
    assert Ok().value is None
