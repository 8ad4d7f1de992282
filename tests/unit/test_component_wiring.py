"""Which of the components within another speak with the host itself: those of wrappers, and nobody behind others."""

from __future__ import annotations

import pytest
import wasmtime
import wasmtime.component

from worker.component_wiring import direct_within, has_code_within
from worker.guard_module import hatch_module
from worker.payload_guard import guarded

LIFECYCLE = "airssys:core/component-lifecycle@1.0.0"
STORAGE = "airssys:core/storage@1.0.0"
ANSWERS = f'(export "{LIFECYCLE}" (instance (export "handle-message" (func $f))))'
ACTOR = f"""(component $actor
  (import "{STORAGE}" (instance (export "set" (func))))
  (core module $m (func (export "f"))) (core instance $m (instantiate $m)) (func $f (canon lift (core func $m "f")))
  (instance $i (export "handle-message" (func $f))) (export "{LIFECYCLE}" (instance $i)))"""
BETWEEN = f"""(component $between
  (import "{STORAGE}" (instance $s (export "set" (func))))
  (export "{STORAGE}" (instance $s)))"""
HEARS = f"""(component $hears
  (import "{LIFECYCLE}" (instance $l (export "handle-message" (func))))
  (export "{LIFECYCLE}" (instance $l)))"""
HOST = f'(import "{STORAGE}" (instance $host (export "set" (func))))'
MADE = f'(instance $a (instantiate $actor (with "{STORAGE}" (instance $host))))'
OUT = f'(export "{LIFECYCLE}" (instance $a "{LIFECYCLE}"))'
TAKEN = f'(alias export $a "{LIFECYCLE}" (instance $l))'
HEARD = f'(instance $h (instantiate $hears (with "{LIFECYCLE}" (instance $l))))'
INTO_ACTOR = f'(instance $a (instantiate $actor (with "{STORAGE}" (instance $b))))'
WIRINGS = {
    "a wrapper": (f"{HOST} {ACTOR} {MADE} {OUT}", {0}),
    "one whose answers stay inside": (f"{HOST} {ACTOR} {MADE}", set()),
    "two of them": (f"{HOST} {ACTOR} {MADE} {MADE.replace('$a ', '$b ', 1)} {OUT}", set()),
    "somebody who is asked instead": (
        f"""{HOST} {ACTOR} {BETWEEN} (instance $p (instantiate $between (with "{STORAGE}" (instance $host))))
        (alias export $p "{STORAGE}" (instance $b)) {INTO_ACTOR} {OUT}""",
        set(),
    ),
    "somebody who is asked, made of functions": (
        f"""{HOST} {ACTOR} (alias export $host "set" (func $set)) (instance $b (export "set" (func $set)))
        {INTO_ACTOR} {OUT}""",
        set(),
    ),
    "another import in its place": (f"{HOST.replace(STORAGE, 'some:where/else')} {ACTOR} {MADE} {OUT}", set()),
    "somebody who hears its answers": (
        f"""{HOST} {ACTOR} {HEARS} {MADE} {TAKEN} {HEARD}
        (alias export $h "{LIFECYCLE}" (instance $o)) (export "{LIFECYCLE}" (instance $o))""",
        set(),
    ),
    "somebody who hears them too": (
        f'{HOST} {ACTOR} {HEARS} {MADE} {TAKEN} {HEARD} (export "{LIFECYCLE}" (instance $l))',
        set(),
    ),
    "one of its functions by itself": (
        f"""{HOST} {ACTOR} {MADE} {TAKEN} (alias export $l "handle-message" (func $f))
        (instance $x (export "handle-message" (func $f))) (export "{LIFECYCLE}" (instance $l))""",
        set(),
    ),
}


@pytest.mark.parametrize("name", WIRINGS)
def test_who_speaks_with_the_host_itself(name: str) -> None:
    """A wrapper passes on what it imports and exports; anything else between could be who is asked, or who answers."""
    text, direct = WIRINGS[name]
    wasm = bytes(wasmtime.wat2wasm(f"(component {text})"))
    wasmtime.component.Component(wasmtime.Engine(), wasm)
    assert direct_within(wasm) == direct
    assert has_code_within(wasm)


def test_who_only_names_types_anew_has_no_code() -> None:
    """What toolchains put around the functions that are exported."""
    assert not has_code_within(bytes(wasmtime.wat2wasm(f"(component {HOST} {BETWEEN})")))


def test_damaged_wiring_is_none() -> None:
    """Cut or altered anywhere it raises nothing, and nobody more is said to speak with the host."""
    wasm = bytes(wasmtime.wat2wasm(f"(component {WIRINGS['a wrapper'][0]})"))
    whole = direct_within(wasm)
    assert whole
    for end in range(8, len(wasm) - 1):
        assert direct_within(wasm[:end]) <= whole
    for at in range(8, len(wasm)):
        assert len(direct_within(wasm[:at] + b"\xff" + wasm[at + 1 :])) <= len(whole)


def test_a_component_with_code_beside_its_own_has_no_hatch() -> None:
    """Its lists are looked at as ever; whom it asks can't be told."""
    handle = f"{LIFECYCLE}#handle-message"
    own = f"""{HOST}
      (core module $m (memory (export "m") 1)
        (func (export "r") (param i32 i32 i32 i32) (result i32) i32.const 0)
        (func (export "{handle}") (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32) i32.const 0))
      (core instance $m (instantiate $m))
      (alias core export $m "m" (core memory $mem)) (alias core export $m "r" (core func $r))
      (func (export "f") (param "a" string) (param "b" (list u8)) (param "c" (option string)) (param "d" bool)
        (result string) (canon lift (core func $m "{handle}") (memory $mem) (realloc $r)))"""
    alone, beside = (bytes(wasmtime.wat2wasm(f"(component {more} {own})")) for more in ("", ACTOR))
    assert hatch_module() in guarded(alone)
    assert guarded(beside) != beside
    assert hatch_module() not in guarded(beside)
    assert hatch_module() not in guarded(alone, 1, is_direct=False)
