"""The code of the guards: core functions around those by which lists are handed over (`worker.payload_guard` puts them
there).

Each looks at a list's length first. More than anybody takes is an error value; what is long goes through the hatch
(`worker.hatch`), where that is open, and its length is 0 then. What is given to a guest that way is fetched into memory
of the guest's own allocator.

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
I32, I64 = b"\x7f", b"\x7e"
"""Types of parameters."""
_NO_VALUE: Final = b"\x40"
_HEAD: Final = b"\0asm\1\0\0\0"
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


class Fetched(NamedTuple):
    """A list that the guest gets: which one, and where its address and length lie.

    Of a function that the guest asks, in what it returns; of one that is asked of the guest, among its parameters.
    """

    what: int
    address: int
    length: int


class Guard(NamedTuple):
    """A core function that is to be guarded: its number, its memory's, the types of its parameters, and its lists."""

    function: int
    memory: int
    parameters: bytes
    lists: tuple[ListAt, ...] = ()
    """Those that the guest hands over when it asks."""
    fetched: Fetched | None = None
    allocator: int = -1
    """The guest's function that makes room for what it gets."""
    is_asked: bool = False
    """Whether it is a function of the guest's own, which returns an address."""
    answers: bool = False
    """Whether what lies there is handed over."""
    after: int = -1
    """The guest's function that is called after its answer was passed on; -1 where there is none."""


def hatch_module() -> bytes:
    """Return a module of one memory, which is the hatch."""
    memory = b"\1" + unsigned(1) + unsigned(hatch.PAGES_MAX)
    return _HEAD + section_of(5, vector([memory])) + section_of(7, vector([named("h") + b"\2\0"]))


class _Module:
    """A module that is put together."""

    def __init__(self) -> None:
        self.types: list[bytes] = []
        self.imports: list[bytes] = []
        self.exports: list[bytes] = []
        self.bodies: list[bytes] = []
        self.data: list[bytes] = []
        self._imported = 0
        self._defined: list[int] = []

    def _type(self, parameters: bytes, results: bytes) -> int:
        self.types.append(b"\x60" + sized(parameters) + sized(results))
        return len(self.types) - 1

    def imported(self, name: str, parameters: bytes, results: bytes = b"") -> int:
        """Import a function; all of them come before the first that is defined."""
        self.imports.append(named("") + named(name) + b"\0" + unsigned(self._type(parameters, results)))
        self._imported += 1
        return self._imported - 1

    def defined(self, parameters: bytes, body: bytes, results: bytes = b"", name: str = "") -> int:
        """Define a function, and export it by its name, if it has one."""
        self._defined.append(self._type(parameters, results))
        self.bodies.append(sized(body))
        function = self._imported + len(self._defined) - 1
        if name:
            self.exports.append(named(name) + b"\0" + unsigned(function))
        return function

    def encoded(self) -> bytes:
        """Return its bytes."""
        sections = (
            (1, self.types),
            (2, self.imports),
            (3, [unsigned(one) for one in self._defined]),
            (6, [I32 + b"\1" + _const(0) + _END]),
            (7, self.exports),
            (10, self.bodies),
            (11, self.data),
        )
        return _HEAD + b"".join(section_of(kind, vector(content)) for kind, content in sections if content)


def guard_module(guards: Sequence[Guard], through_hatch: bool) -> bytes:
    """Return a module that imports the guest's memory m and functions f0, f1…, and exports guards of them: g0, g1….

    With a hatch it imports that as well ("h"."h"), the allocators of those that fetch (r0, r1…), and what is called
    after an answer was passed on (p), where there is such a thing; a stands in its place.
    """
    module = _Module()
    module.imports.append(named("") + named("m") + b"\2\0\0")
    if through_hatch:
        module.imports.append(named("h") + named("h") + b"\2\1" + unsigned(1) + unsigned(hatch.PAGES_MAX))
    results = [I32 if guard.is_asked else b"" for guard in guards]
    functions = [
        module.imported(f"f{i}", guard.parameters, returns)
        for i, (guard, returns) in enumerate(zip(guards, results, strict=True))
    ]
    fetching = [i for i, guard in enumerate(guards) if through_hatch and guard.fetched is not None]
    allocators = {i: module.imported(f"r{i}", I32 * 4, I32) for i in fetching}
    answering = through_hatch and any(guard.answers for guard in guards)
    after = module.imported("p", I32) if answering and any(guard.after >= 0 for guard in guards) else -1
    put = module.defined(I32 * 3, _put_body()) if through_hatch else -1
    get = module.defined(I32 * 2, _get_body()) if fetching else -1
    for i, guard in enumerate(guards):
        fetch = b""
        if i in allocators:
            fetch = _fetch(guard, allocators[i], get)
            assert guard.fetched is not None
            if guard.is_asked:
                where = b"\2" + unsigned(_HATCHS) + _const(hatch.FETCHED_AT + guard.fetched.what) + _END
                module.data.append(where + sized(b"\1"))
        body = _asked_body if guard.is_asked else _asking_body
        module.defined(guard.parameters, _locals(3) + body(guard, functions[i], put, fetch) + _END, results[i], f"g{i}")
    if answering:
        module.defined(I32, _locals(0) + _after(after) + _END, name="a")
    return module.encoded()


# ---- instructions


def _get(local: int) -> bytes:
    return b"\x20" + unsigned(local)


def _set(local: int) -> bytes:
    return b"\x21" + unsigned(local)


def _locals(count: int) -> bytes:
    return b"\1" + unsigned(count) + I32 if count else b"\0"


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
_AND, _ADD, _SUB, _GREATER, _UNEQUAL, _IS_ZERO = b"\x71", b"\x6a", b"\x6b", b"\x4b", b"\x47", b"\x45"
_EXTEND: Final = b"\xad"
"""Unsigned 32 bits as 64."""
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


# ---- bodies; a guard has three numbers beside its parameters


def _fetch(guard: Guard, allocator: int, get: int) -> bytes:
    """Fetch what is given, if there is something, and put it where the list is that was carried, which is empty."""
    assert guard.fetched is not None
    result, at, length = (len(guard.parameters) + i for i in range(3))
    given = _const(0) + _at(_LOAD, 2, hatch.GIVEN_AT, _HATCHS)
    made = _const(0) + _const(0) + _const(1) + _get(length) + _call(allocator) + _set(at)
    fetched = given + _set(length) + made + _get(at) + _get(length) + _call(get)
    if guard.is_asked:
        is_wide = guard.parameters[guard.fetched.length : guard.fetched.length + 1] == I64
        fetched += _get(at) + _set(guard.fetched.address)
        fetched += _get(length) + (_EXTEND if is_wide else b"") + _set(guard.fetched.length)
    else:
        result = len(guard.parameters) - 1
        fetched += _get(result) + _get(at) + _at(_STORE, 2, guard.fetched.address)
        fetched += _get(result) + _get(length) + _at(_STORE, 2, guard.fetched.length)
    return given + _if(fetched)


def _called(guard: Guard, function: int) -> bytes:
    return b"".join(_get(one) for one in range(len(guard.parameters))) + _call(function)


def _asking_body(guard: Guard, function: int, put: int, fetch: bytes) -> bytes:
    total = b"\x42\0"  # i64.const 0
    for one in guard.lists:
        total += _get(one.length) + _EXTEND
        if one.there >= 0:
            total += b"\x42\0" + _get(one.there) + _SELECT  # 0 where there is none
        total += b"\x7c"  # i64.add
    is_too_large = total + b"\x42" + signed(MAX_PAYLOAD_BYTES) + b"\x56"  # i64.gt_u
    refused = is_too_large + _if(_say_too_large(len(guard.parameters) - 1) + _RETURN)
    handed_over = b""
    for i, one in enumerate(guard.lists if put >= 0 else ()):
        is_long = _get(one.length) + _const(hatch.LONG_BYTES) + _GREATER
        if one.there >= 0:
            is_long += _get(one.there) + _IS_ZERO + _IS_ZERO + _AND
        passed = _const(i) + _get(one.length - 1) + _get(one.length) + _call(put)
        handed_over += is_long + _if(passed + _const(0) + _set(one.length))
    looked_at = (refused if guard.lists else b"") + (_IS_OPEN + _if(handed_over) if handed_over else b"")
    if not fetch:
        return looked_at + _called(guard, function)
    # Others of this component may ask the same without a guard: only who says so is given something here.
    where = hatch.FETCHED_AT + hatch.RESULT
    says, says_no_more = (_const(0) + _const(i) + _at(_STORE_BYTE, 0, where, _HATCHS) for i in (1, 0))
    return looked_at + says + _called(guard, function) + says_no_more + fetch


def _asked_body(guard: Guard, function: int, put: int, fetch: bytes) -> bytes:
    """Where it answers, that's result<option<list<u8>>, error>, with its list at 12 and the length at 16."""
    called = fetch + _called(guard, function)
    if not guard.answers:
        return called
    result = len(guard.parameters)
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
    return called + _set(result) + is_there + _if(refused + handed_over) + _get(result)


def _after(after: int) -> bytes:
    """Put the answer's length back where it was before the guest looks for what it has to free."""
    kept = b"\x23" + unsigned(_KEPT)  # global.get
    back = _get(0) + kept + _at(_STORE, 2, 16) + _const(0) + b"\x24" + unsigned(_KEPT)
    return kept + _if(back) + (_get(0) + _call(after) if after >= 0 else b"")


def _pieces(size: int, at: int, left: int, move: bytes) -> bytes:
    """Loop over the pieces of a list whose address and length, which isn't 0, are in locals."""
    bounded = _const(hatch.PIECE_BYTES) + _get(left) + _get(left) + _const(hatch.PIECE_BYTES) + _GREATER + _SELECT
    moved = _get(at) + _get(size) + _ADD + _set(at) + _get(left) + _get(size) + _SUB + _set(left)
    turn = bounded + _set(size) + move + moved + _get(left) + b"\x0d\0"  # br_if
    return _locals(1) + b"\x03" + _NO_VALUE + turn + _END + _END  # loop


def _copy(to: int, out_of: int) -> bytes:
    return b"\xfc\x0a" + unsigned(to) + unsigned(out_of)  # memory.copy


def _grow(pages: int) -> bytes:
    return _const(pages) + b"\x40" + unsigned(_HATCHS) + _DROP  # memory.grow


def _put_body() -> bytes:
    """Hand a list over: (its number, address, length). Each piece is copied, told of, and taken.

    Beyond the guest's memory the copy traps; a piece that wasn't taken is a trap as well.
    """
    which, at, left, size = 0, 1, 2, 3
    copied = _const(hatch.PIECE_AT) + _get(at) + _get(size) + _copy(_HATCHS, _GUESTS)
    told = _const(0) + _get(which) + _at(_STORE, 2, hatch.LIST_AT, _HATCHS)
    told += _const(0) + _get(size) + _at(_STORE, 2, hatch.SIZE_AT, _HATCHS)
    is_left_there = _const(0) + _at(_LOAD, 2, hatch.SIZE_AT, _HATCHS)
    return _pieces(size, at, left, copied + told + _grow(hatch.TAKE_PAGES) + is_left_there + _if(_UNREACHABLE))


def _get_body() -> bytes:
    """Fetch what is given: (to this address, so many bytes). What is in the page is what is wanted, or all ends."""
    at, left, size = 0, 1, 2
    given = _const(0) + _at(_LOAD, 2, hatch.GIVEN_AT, _HATCHS)
    copied = _get(at) + _const(hatch.PIECE_AT) + _get(size) + _copy(_GUESTS, _HATCHS)
    return _pieces(size, at, left, given + _get(left) + _UNEQUAL + _if(_UNREACHABLE) + copied + _grow(hatch.MORE_PAGES))
