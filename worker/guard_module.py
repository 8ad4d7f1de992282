"""The code of the guards: core functions around those that hand lists over (`worker.payload_guard` puts them there).

Each looks at a list's length first. More than anybody takes is an error value; what is long goes through the hatch
(`worker.hatch`), where that is open, and its length is 0 then.

Source: WebAssembly core, 5.4 ("Instructions"), 5.5 ("Modules"); the component model's CanonicalABI.md ("Flattening").
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from ipc.broker.messages import MAX_PAYLOAD_BYTES
from worker import hatch
from worker.component_bytes import named, section_of, signed, sized, unsigned, vector

_TOO_LARGE: Final = 3
"""`too-large` among the cases of `error` (wit/airssys-core.wit)."""
ANSWER_PARAMETERS: Final = 8
_I32, _I64, _NO_VALUE = b"\x7f", b"\x7e", b"\x40"
_GUESTS, _HATCHS = 0, 1
"""Memories of a module of guards."""
_KEPT: Final = 0
"""A global: the length of an answer that went through the hatch, until the guest is told that it was passed on."""


class ListAt(NamedTuple):
    """Where the length of a list lies among a core function's parameters, and whether there is one (an option).

    Its address is the parameter before.
    """

    length: int
    there: int = -1


class Guard(NamedTuple):
    """A core function that is to be guarded: its number, its memory's; its lists, none of which is what it answers."""

    function: int
    memory: int
    parameters: int
    lists: tuple[ListAt, ...]
    after: int = -1
    """Of what it answers: the function that is called after that was passed on; -1 where there is none."""

    @property
    def answers(self) -> bool:
        """Whether what it returns is looked at."""
        return not self.lists


def hatch_module() -> bytes:
    """Return a module of one memory, which is the hatch."""
    memory = b"\1" + unsigned(1) + unsigned(hatch.PAGES_MAX)
    return b"\0asm\1\0\0\0" + section_of(5, vector([memory])) + section_of(7, vector([named("h") + b"\2\0"]))


def guard_module(guards: Sequence[Guard], through_hatch: bool) -> bytes:
    """Return a module that imports the guest's memory m and functions f0, f1…, and exports guards of them: g0, g1….

    With a hatch it imports that as well ("h"."h"), and exports what is called after an answer was passed on: a, around
    an imported p where there is one.
    """
    answering = next((guard for guard in guards if guard.answers), None) if through_hatch else None
    types = [b"\x60" + vector([_I32] * guard.parameters) + vector([_I32] if guard.answers else []) for guard in guards]
    types += [b"\x60" + vector([_I32] * 3) + vector([]), b"\x60" + vector([_I32]) + vector([])]
    put_type, after_type = len(guards), len(guards) + 1
    imports = [named("") + named("m") + b"\2\0\0"]
    if through_hatch:
        imports.append(named("h") + named("h") + b"\2\1" + unsigned(1) + unsigned(hatch.PAGES_MAX))
    imports += [named("") + named(f"f{i}") + b"\0" + unsigned(i) for i in range(len(guards))]
    imported = len(guards)
    after = -1
    if answering is not None and answering.after >= 0:
        after = imported
        imports.append(named("") + named("p") + b"\0" + unsigned(after_type))
        imported += 1
    put = imported + len(guards) if through_hatch else -1
    functions = list(range(len(guards)))
    bodies = [
        _answering_body(i, put) if guard.answers else _asking_body(i, guard.parameters, guard.lists, put)
        for i, guard in enumerate(guards)
    ]
    exports = [named(f"g{i}") + b"\0" + unsigned(imported + i) for i in range(len(guards))]
    if through_hatch:
        functions.append(put_type)
        bodies.append(_put_body())
    if answering is not None:
        exports.append(named("a") + b"\0" + unsigned(imported + len(functions)))
        functions.append(after_type)
        bodies.append(_after_body(after))
    return b"".join(
        (
            b"\0asm\1\0\0\0",
            section_of(1, vector(types)),
            section_of(2, vector(imports)),
            section_of(3, vector([unsigned(one) for one in functions])),
            section_of(6, vector([_I32 + b"\1" + _const(0) + b"\x0b"])),
            section_of(7, vector(exports)),
            section_of(10, vector([sized(body) for body in bodies])),
        )
    )


# ---- instructions


def _get(local: int) -> bytes:
    return b"\x20" + unsigned(local)


def _set(local: int) -> bytes:
    return b"\x21" + unsigned(local)


def _const(value: int) -> bytes:
    return b"\x41" + signed(value)


def _call(function: int) -> bytes:
    return b"\x10" + unsigned(function)


def _if(body: bytes) -> bytes:
    return b"\x04" + _NO_VALUE + body + b"\x0b"


def _at(operation: int, align: int, offset: int, memory: int = _GUESTS) -> bytes:
    """Return a load or a store; of another memory than the first, which bit 6 of the alignment says."""
    where = unsigned(align) if memory == _GUESTS else unsigned(align | 0x40) + unsigned(memory)
    return bytes((operation,)) + where + unsigned(offset)


_LOAD, _LOAD_BYTE, _STORE, _STORE_LONG, _STORE_BYTE = 0x28, 0x2D, 0x36, 0x37, 0x3A
_AND, _ADD, _SUB, _GREATER, _IS_ZERO = b"\x71", b"\x6a", b"\x6b", b"\x4b", b"\x45"
_RETURN, _UNREACHABLE, _DROP, _SELECT, _END = b"\x0f", b"\x00", b"\x1a", b"\x1b", b"\x0b"
_IS_OPEN: Final = _const(0) + _at(_LOAD_BYTE, 0, hatch.OPEN_AT, _HATCHS)


def _say_too_large(local: int) -> bytes:
    """Write `err(too-large(MAX))` where a local points: result<_, error>, whose error has the alignment of a u64."""
    return b"".join(
        (
            _get(local) + _const(1) + _at(_STORE_BYTE, 0, 0),
            _get(local) + _const(_TOO_LARGE) + _at(_STORE_BYTE, 0, 8),
            _get(local) + b"\x42" + signed(MAX_PAYLOAD_BYTES) + _at(_STORE_LONG, 3, 16),
        )
    )


# ---- bodies


def _asking_body(function: int, parameters: int, lists: Sequence[ListAt], put: int) -> bytes:
    total = b"\x42\0"  # i64.const 0
    for one in lists:
        total += _get(one.length) + b"\xad"  # i64.extend_i32_u
        if one.there >= 0:
            total += b"\x42\0" + _get(one.there) + _SELECT  # 0 where there is none
        total += b"\x7c"  # i64.add
    is_too_large = total + b"\x42" + signed(MAX_PAYLOAD_BYTES) + b"\x56"  # i64.gt_u
    refused = is_too_large + _if(_say_too_large(parameters - 1) + _RETURN)
    handed_over = b""
    for i, one in enumerate(lists if put >= 0 else ()):
        is_long = _get(one.length) + _const(hatch.LONG_BYTES) + _GREATER
        if one.there >= 0:
            is_long += _get(one.there) + _IS_ZERO + _IS_ZERO + _AND
        passed = _const(i) + _get(one.length - 1) + _get(one.length) + _call(put)
        handed_over += is_long + _if(passed + _const(0) + _set(one.length))
    called = b"".join(_get(one) for one in range(parameters)) + _call(function)
    return b"\0" + refused + (_IS_OPEN + _if(handed_over) if handed_over else b"") + called + _END


def _answering_body(function: int, put: int) -> bytes:
    """Look at what it returns the address of: result<option<list<u8>>, error>, its list at 12 and the length at 16."""
    result = ANSWER_PARAMETERS
    called = b"".join(_get(one) for one in range(ANSWER_PARAMETERS)) + _call(function) + _set(result)
    is_there = _get(result) + _at(_LOAD_BYTE, 0, 0) + _IS_ZERO + _get(result) + _at(_LOAD_BYTE, 0, 8) + _AND
    length = _get(result) + _at(_LOAD, 2, 16)
    refused = length + _const(MAX_PAYLOAD_BYTES) + _GREATER + _if(_say_too_large(result) + _get(result) + _RETURN)
    handed_over = b""
    if put >= 0:
        passed = _const(0) + _get(result) + _at(_LOAD, 2, 12) + length + _call(put)
        kept = length + b"\x24" + unsigned(_KEPT)  # global.set
        emptied = _get(result) + _const(0) + _at(_STORE, 2, 16)
        is_long = length + _const(hatch.LONG_BYTES) + _GREATER + _IS_OPEN + _AND
        handed_over = is_long + _if(passed + kept + emptied)
    return b"\1\1" + _I32 + called + is_there + _if(refused + handed_over) + _get(result) + _END


def _after_body(after: int) -> bytes:
    """Put the answer's length back where it was before the guest looks for what it has to free."""
    kept = b"\x23" + unsigned(_KEPT)  # global.get
    back = _get(0) + kept + _at(_STORE, 2, 16) + _const(0) + b"\x24" + unsigned(_KEPT)
    return b"\0" + kept + _if(back) + (_get(0) + _call(after) if after >= 0 else b"") + _END


def _put_body() -> bytes:
    """Hand a list over: (its number, address, length, which isn't 0). Each piece is copied, told of, and taken.

    Beyond the guest's memory the copy traps; a piece that wasn't taken is a trap as well.
    """
    which, at, left, size = 0, 1, 2, 3
    bounded = _const(hatch.PIECE_BYTES) + _get(left) + _get(left) + _const(hatch.PIECE_BYTES) + _GREATER + _SELECT
    copied = _const(hatch.PIECE_AT) + _get(at) + _get(size) + b"\xfc\x0a" + unsigned(_HATCHS) + unsigned(_GUESTS)
    told = _const(0) + _get(which) + _at(_STORE, 2, hatch.LIST_AT, _HATCHS)
    told += _const(0) + _get(size) + _at(_STORE, 2, hatch.SIZE_AT, _HATCHS)
    rung = _const(1) + b"\x40" + unsigned(_HATCHS) + _DROP  # memory.grow
    is_left_there = _const(0) + _at(_LOAD, 2, hatch.SIZE_AT, _HATCHS)
    moved = _get(at) + _get(size) + _ADD + _set(at) + _get(left) + _get(size) + _SUB + _set(left)
    piece = bounded + _set(size) + copied + told + rung + is_left_there + _if(_UNREACHABLE) + moved
    return b"\1\1" + _I32 + b"\x03" + _NO_VALUE + piece + _get(left) + b"\x0d\0" + _END + _END  # loop … br_if
