"""Guards in a component: put where they belong, valid for the engine, and nowhere else."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import wasmtime
from wasmtime.component import Component

from worker.payload_guard import guarded

ROOT = Path(__file__).resolve().parents[2]
ACTORS = [
    *(ROOT / "examples" / name / f"{name}.wasm" for name in ("echo", "publisher", "subscriber")),
    *(ROOT / "tests/guests/actors" / f"{name}.wasm" for name in ("misbehaving", "bench")),
]
OTHERS = [
    ROOT / "tests/guests/hello.component.wasm",
    ROOT / "tests/guests/hello.wasm",
    ROOT / "examples/hostile/hostile.wasm",
]


@pytest.fixture(scope="module")
def engine() -> wasmtime.Engine:
    """An engine that compiles."""
    return wasmtime.Engine()


def _ends(component: Component, engine: wasmtime.Engine) -> tuple[list[str], list[str]]:
    with component.type as kind:
        return sorted(kind.imports(engine)), sorted(kind.exports(engine))


@pytest.mark.parametrize("path", ACTORS, ids=lambda path: path.stem)
def test_an_actor_is_guarded_and_is_the_same_from_outside(engine: wasmtime.Engine, path: Path) -> None:
    """What is made of it compiles, and imports and exports what it did."""
    component = path.read_bytes()
    changed = guarded(component)
    assert changed != component
    assert _ends(Component(engine, changed), engine) == _ends(Component(engine, component), engine)


@pytest.mark.parametrize("path", OTHERS, ids=lambda path: path.stem)
def test_what_is_no_actor_stays_as_it_is(path: Path) -> None:
    """A command, a core module: nothing of them is touched."""
    program = path.read_bytes()
    assert guarded(program) is program


@pytest.mark.parametrize("path", ACTORS[:2], ids=lambda path: path.stem)
def test_damaged_bytes_are_left_to_the_engine(path: Path) -> None:
    """Cut short or changed anywhere, it is given back or rewritten, and nothing is raised."""
    component, chance = path.read_bytes(), random.Random(7)
    for _ in range(300):
        damaged = bytearray(component[: chance.randrange(len(component))] if chance.random() < 0.5 else component)
        for _ in range(chance.randrange(4) if damaged else 0):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        guarded(bytes(damaged))


def around(content: bytes, section: int = 4) -> bytes:
    """A component with one section: another component, unless something else is named."""
    size, encoded = len(content), b""
    while size > 0x7F:
        encoded += bytes((size & 0x7F | 0x80,))
        size >>= 7
    return b"\0asm\x0d\0\x01\0" + bytes((section,)) + encoded + bytes((size,)) + content


def test_what_is_deep_or_announces_much_costs_nothing() -> None:
    """A thousand components within each other, or a section of a few bytes that tells of 2^34 instances."""
    deep = ACTORS[0].read_bytes()
    for _ in range(1_000):
        deep = around(deep)
    assert guarded(deep) is deep
    many = around(b"\xff\xff\xff\xff\x3f", section=5)
    assert guarded(many) is many


def test_one_that_lies_within_another_is_guarded_there(engine: wasmtime.Engine) -> None:
    """Some toolchains wrap what they make in a component; what stands around it stays as it is."""
    within = ACTORS[0].read_bytes()
    assert guarded(around(within)) == around(guarded(within, depth=1, is_direct=False))
    Component(engine, guarded(around(within)))


ASKING = """(component
  (import "airssys:core/storage@1.0.0" (instance $s
    (export "set" (func (param "key" string) (param "value" (list u8)) (result (result (error string)))))))
  (core module $m (memory (export "m") 1) (func (export "d") (param i32))
    (func (export "r") (param i32 i32 i32 i32) (result i32) i32.const 0))
  (core instance $i (instantiate $m))
  (alias export $s "set" (func $set))
  (core func $low (canon lower (func $set) (memory (core memory $i "m")) (realloc (core func $i "r"))))
  (core instance $x (export "set" (func $low)))
"""
"""Whose guards are made by its end."""


@pytest.mark.parametrize(
    ("follows", "is_guarded"),
    [
        ("", True),
        ("(type $r (resource (rep i32))) (core func $drop (canon resource.drop $r))", True),
        ('(core func $d (alias core export $i "d")) (type $r (resource (rep i32) (dtor (core func $d))))', False),
        ('(import "l" (core module $m2 (export "f" (func)))) (core instance (instantiate $m2))', False),
        ("(core module $n) (core instance (instantiate $n))", False),
        ("(component $c (alias outer 1 $m (core module $o)) (core instance (instantiate $o)))", True),
    ],
)  # fmt: skip
def test_what_is_named_by_its_number_keeps_its_meaning(engine: wasmtime.Engine, follows: str, is_guarded: bool) -> None:
    """A module that is imported behind the guards, a resource's destructor: what would be another one stays."""
    component = bytes(wasmtime.wat2wasm(f"{ASKING} {follows})"))
    Component(engine, component)
    changed = guarded(component)
    assert (changed != component) is is_guarded
    Component(engine, changed)
