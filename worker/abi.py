"""Calls across the component boundary through wasmtime's C API (component/func.h, component/linker.h).

The binding looks types up at every call and converts each byte by itself. Here both are looked up once, and bytes move
with a stride: 64 KiB in 1.2 ms to a guest and 2.4 from one, of which the engine takes most, against some fifty. What is
long goes around the engine where it can (`worker.hatch`), in 0.04 ms.
"""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable, Iterator
from typing import Any, Final

from wasmtime import _bindings as bindings
from wasmtime.component import _types as binding_types

from ipc.errors import LocalProtocolError
from ipc.struct import Struct
from worker import engine_api as api
from worker.hatch import Hatch
from worker.value_memory import VALUE_BYTES, Giver, Lender, delete, memory
from worker.value_types import (
    Bool,
    Bytes,
    Char,
    Enum,
    Flags,
    Float,
    Integer,
    List,
    Option,
    Record,
    Result,
    String,
    Tuple,
    Type,
    Variant,
    lower_each,
)

_address = ctypes.c_void_p
_size = ctypes.c_size_t
# The guest runs in this one, so it does give the lock up.
_call = ctypes.CFUNCTYPE(_address, _address, _address, ctypes.c_char_p, _size, _address, _size)(
    ("wasmtime_component_func_call", bindings.dll)
)
_CALLBACK: Final = ctypes.CFUNCTYPE(_size, _address, _address, _address, _address, _size, _address, _size)
_FINALIZER: Final = ctypes.CFUNCTYPE(None, _address)
_add_function = ctypes.PYFUNCTYPE(_address, _address, ctypes.c_char_p, _size, _CALLBACK, _address, _FINALIZER)(
    ("wasmtime_component_linker_instance_add_func", bindings.dll)
)


_numbers: Final = itertools.count(1)
_callable: Final[dict[int, object]] = {}
"""What the engine may call, by the number that it gives back when it won't any more: ctypes keeps nothing."""


def _forget(number: int | None) -> None:
    _callable.pop(number or 0, None)


_drop: Final = _FINALIZER(_forget)


TOO_MANY_VALUES: Final = "its values are more than can be passed at once (2,796,202 bytes of a list)"
_TOO_MUCH_DATA: Final = "too much data is being copied between the host and the guest"
"""What the engine says of it, which bounds what one call may pass."""
_lender: Final = Lender()
"""One thread calls guests."""


class Signature(Struct, frozen=True):
    """The parameters' types and the result's; the parameters' names are for people."""

    parameters: tuple[Type, ...]
    result: Type | None = None
    names: tuple[str, ...] = ()

    def is_like(self, other: Signature) -> bool:
        """Whether a function of one can stand for a function of the other."""
        return (self.parameters, self.result) == (other.parameters, other.result)


_PLAIN: Final[dict[str, Type]] = {
    "Bool": Bool(),
    "Char": Char(),
    "String": String(),
    **{name.upper(): Integer(name) for name in ("u8", "u16", "u32", "u64", "s8", "s16", "s32", "s64")},
    **{name.upper(): Float(name) for name in ("f32", "f64")},
}


_LISTS: Final = (Bytes(), Option(Bytes()))
"""Parameters that are bytes: a guard numbers them by their order (`worker.payload_guard`)."""
_TYPES_MAX: Final = 10_000
"""Of one signature, each as often as it is named: a component of a few bytes can name one 2 to the n times."""


def signature_of(kind: Any, left: Iterator[int] | None = None) -> Signature:
    """Read a function's type (`wasmtime.component.FuncType`), once.

    Raises TypeError for one that is async or has types without values here.
    `left` counts down the types that may still be read, where several functions share a bound.
    """
    if bindings.wasmtime_component_func_type_async(kind.ptr()):
        raise TypeError("it is async, and a function is called to its end here")
    parameters = kind.params
    result = kind.result
    left = left or itertools.count(_TYPES_MAX, -1)
    return Signature(
        tuple(_type_of(one, left) for _, one in parameters),
        None if result is None else _type_of(result, left),
        tuple(name for name, _ in parameters),
    )


def _type_of(kind: Any, left: Iterator[int]) -> Type:
    if next(left) <= 0:
        raise TypeError("its types are too many")
    match kind:
        case binding_types.ListType():
            element = _type_of(kind.element, left)
            return Bytes() if element == _PLAIN["U8"] else List(element)
        case binding_types.RecordType():
            return Record(tuple((name, _type_of(one, left)) for name, one in kind.fields))
        case binding_types.TupleType():
            return Tuple(tuple(_type_of(one, left) for one in kind.elements))
        case binding_types.VariantType():
            return Variant(tuple((name, None if one is None else _type_of(one, left)) for name, one in kind.cases))
        case binding_types.EnumType():
            return Enum(tuple(kind.names))
        case binding_types.OptionType():
            return Option(_type_of(kind.payload, left))
        case binding_types.ResultType():
            return Result(*(None if one is None else _type_of(one, left) for one in (kind.ok, kind.err)))
        case binding_types.FlagsType():
            return Flags(tuple(kind.names))
    name = type(kind).__name__
    if name in _PLAIN:
        return _PLAIN[name]
    raise TypeError(f"values of the type {name} can't be passed here")


class Failures:
    """What went wrong in a host function, kept until the guest's call that it ended has returned."""

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        """Start with none."""
        self._kept: BaseException | None = None

    def keep(self, failure: BaseException) -> None:
        """Keep the first."""
        if self._kept is None:
            self._kept = failure

    def raise_kept(self) -> None:
        """Raise what was kept, once."""
        failure, self._kept = self._kept, None
        if failure is not None:
            raise failure


class Function:
    """An export of an instance, ready to be called."""

    __slots__ = ("_address", "_context", "_failures", "_func", "_result", "_result_address", "_store", "signature")

    def __init__(self, store: Any, func: Any, failures: Failures | None = None) -> None:
        """Look everything up, once; `func` is a `wasmtime.component.Func` of `store`."""
        with func.type(store) as kind:
            self.signature = signature_of(kind)
        self._func, self._store = func, store
        self._context = ctypes.cast(store._context(), ctypes.c_void_p).value
        self._address = ctypes.addressof(func._func)
        self._result = ctypes.create_string_buffer(VALUE_BYTES)
        self._result_address = ctypes.addressof(self._result)
        self._failures = failures or Failures()

    def __call__(self, *values: Any) -> Any:
        """Call the guest; raises what wasmtime makes of its end, and what a host function raised."""
        count, returns = len(values), self.signature.result
        try:
            lowered = b"".join(lower_each(self.signature.parameters, values, _lender))
            error = _call(self._address, self._context, lowered, count, self._result_address, returns is not None)
        finally:
            _lender.take_back()
        if error:
            try:
                _raise(error)
            finally:
                self._failures.raise_kept()
        if returns is None:
            return None
        try:
            return returns.lift(self._result.raw, 0)
        finally:
            delete(self._result_address)
            # The engine drops what it finds where it puts the next one: a bool, of which nothing can be freed twice.
            self._result[0] = b"\0"


def _raise(error: int) -> None:
    """Raise what the engine says of a call; what is no trap is about values that can't be passed."""
    try:
        api.check(error)
    except (api.ExitError, api.TrapError):
        raise
    except api.EngineError as failure:
        text = str(failure)
        raise api.CallError(TOO_MANY_VALUES if _TOO_MUCH_DATA in text else text) from None


class Imports:
    """Host functions on a `wasmtime.component.Linker`, which the engine keeps for as long as it can call them."""

    __slots__ = ("_failures", "_giver", "_hatch")

    def __init__(self, failures: Failures, hatch: Hatch) -> None:
        """Give the guest what no host function is meant to do as the end of its call; `failures` has the reason.

        Long lists of bytes come through the hatch.
        """
        self._failures = failures
        self._giver = Giver()
        self._hatch = hatch

    def define(self, linker: Any, interface: str, functions: dict[str, tuple[Signature, Callable[..., Any]]]) -> None:
        """Define one interface; the components' own types must have been compared with the signatures."""
        with linker.root() as root, root.add_instance(interface) as instance:
            pointer = ctypes.cast(instance.ptr(), ctypes.c_void_p).value
            for name, (signature, function) in functions.items():
                callback = _CALLBACK(self._called(signature, function))
                number = next(_numbers)
                _callable[number] = callback
                encoded = name.encode()
                if _add_function(pointer, encoded, len(encoded), callback, number, _drop):
                    raise LocalProtocolError(f"{interface} has {name} already")

    def _called(self, signature: Signature, function: Callable[..., Any]) -> Callable[..., int]:
        parameters, returns = signature.parameters, signature.result
        length = len(parameters) * VALUE_BYTES
        failures, giver, hatch = self._failures, self._giver, self._hatch
        lists = [i for i, kind in enumerate(parameters) if kind in _LISTS]

        def called(
            _data: int, _context: int, _kind: int, arguments: int, count: int, results: int, _results_count: int
        ) -> int:
            try:
                if count * VALUE_BYTES != length:
                    raise LocalProtocolError("a host function of another type")
                data = memory[arguments : arguments + length] if count else b""
                values = [kind.lift(data, i * VALUE_BYTES) for i, kind in enumerate(parameters)]
                for number, handed_over in hatch.take().items():
                    if number < len(lists) and values[lists[number]] == b"":
                        values[lists[number]] = handed_over
                value = function(*values)
                if returns is not None:
                    ctypes.memmove(results, returns.lower(value, giver), VALUE_BYTES)
            except BaseException as failure:
                failures.keep(failure)
                error = bindings.wasmtime_error_new(b"a host function failed")
                return ctypes.cast(error, ctypes.c_void_p).value or 0
            return 0

        return called
