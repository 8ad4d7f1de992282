"""Types of the component model: what makes a value for the engine of what Python has, and back.

What Python sees: numbers, bool, str, bytes for `list<u8>`, list, a tuple for a record or tuple, `(case, payload)` for a
variant, the name for an enum, a frozenset for flags, None or the payload for an option (`Some` of it where that is
itself an option), `Ok` or `Err` for a result.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from ipc.struct import Struct
from worker.value_memory import (
    ENTRY_BYTES,
    KINDS,
    PAYLOAD_AT,
    VALUE,
    VALUE_BYTES,
    VECTOR,
    WORD,
    Source,
    memory,
    new_flags,
    new_list,
    new_record,
    new_tuple,
)

_STRING: Final = KINDS["STRING"]
_LIST: Final = KINDS["LIST"]


class Ok(NamedTuple):
    """A result that is well."""

    value: Any = None


class Err(NamedTuple):
    """A result that is an error."""

    value: Any = None


class Some(NamedTuple):
    """The payload of an option of an option: without it, `some(none)` would be None as well."""

    value: Any


class Type(Struct, frozen=True):
    """One type. `lower` makes a value for the engine, which owns what it points to; `lift` reads one and takes nothing.

    Two types that are spelled alike are equal.
    """

    def lower(self, value: Any, _source: Source, /) -> bytes:
        """Return the 32 bytes of a value; raises TypeError or ValueError for what isn't one."""
        raise NotImplementedError

    def lift(self, data: bytes, at: int) -> Any:
        """Return the value whose 32 bytes are at `at`."""
        raise NotImplementedError


class Integer(Type, frozen=True):
    """`u8` to `s64`."""

    name: str

    @property
    def bounds(self) -> tuple[int, int]:
        """The least and the greatest of its values."""
        bits = int(self.name[1:])
        return (0, (1 << bits) - 1) if self.name[0] == "u" else (-1 << bits - 1, (1 << bits - 1) - 1)

    def lower(self, value: Any, _source: Source, /) -> bytes:
        """Take an int within the type's bounds."""
        low, high = self.bounds
        if type(value) is not int or not low <= value <= high:
            raise ValueError(f"{value!r} is no {self.name}")
        return VALUE.pack(KINDS[self.name.upper()], value & 0xFFFF_FFFF_FFFF_FFFF, 0, 0)

    def lift(self, data: bytes, at: int) -> int:
        """Return an int."""
        at += PAYLOAD_AT
        return int.from_bytes(data[at : at + int(self.name[1:]) // 8], "little", signed=self.name[0] == "s")


class Float(Type, frozen=True):
    """`f32` and `f64`."""

    name: str

    def lower(self, value: Any, _source: Source, /) -> bytes:
        """Take a float or an int."""
        if type(value) not in (float, int):
            raise TypeError(f"{value!r} is no {self.name}")
        payload = struct.pack("<f4x" if self.name == "f32" else "<d", value)
        return VALUE.pack(KINDS[self.name.upper()], *WORD.unpack(payload), 0, 0)

    def lift(self, data: bytes, at: int) -> float:
        """Return a float."""
        value: float
        (value,) = struct.unpack_from("<f" if self.name == "f32" else "<d", data, at + PAYLOAD_AT)
        return value


class Bool(Type, frozen=True):
    """`bool`."""

    def lower(self, value: Any, _source: Source, /) -> bytes:
        """Take a bool."""
        if type(value) is not bool:
            raise TypeError(f"{value!r} is no bool")
        return VALUE.pack(KINDS["BOOL"], value, 0, 0)

    def lift(self, data: bytes, at: int) -> bool:
        """Return a bool."""
        return data[at + PAYLOAD_AT] != 0


class Char(Type, frozen=True):
    """`char`."""

    def lower(self, value: Any, _source: Source, /) -> bytes:
        """Take a text of one character."""
        if type(value) is not str or len(value) != 1 or 0xD800 <= ord(value) <= 0xDFFF:
            raise TypeError(f"{value!r} is no character")
        return VALUE.pack(KINDS["CHAR"], ord(value), 0, 0)

    def lift(self, data: bytes, at: int) -> str:
        """Return a text of one character."""
        return chr(int.from_bytes(data[at + PAYLOAD_AT : at + PAYLOAD_AT + 4], "little"))


class String(Type, frozen=True):
    """`string`."""

    def lower(self, value: Any, source: Source, /) -> bytes:
        """Take text; lone surrogates are a ValueError."""
        if type(value) is not str:
            raise TypeError(f"{type(value).__name__} is no text")
        return VALUE.pack(_STRING, *source.vector(value.encode()), 0)

    def lift(self, data: bytes, at: int) -> str:
        """Return text; the engine has checked that it is UTF-8."""
        size, pointer = VECTOR.unpack_from(data, at + PAYLOAD_AT)
        return str(memory[pointer : pointer + size], "utf-8") if size else ""


class Bytes(Type, frozen=True):
    """`list<u8>`."""

    def lower(self, value: Any, source: Source, /) -> bytes:
        """Take bytes."""
        if type(value) is not bytes:
            raise TypeError(f"{type(value).__name__} is no bytes")
        return VALUE.pack(_LIST, *source.rows(value), 0)

    def lift(self, data: bytes, at: int) -> bytes:
        """Return bytes."""
        size, pointer = VECTOR.unpack_from(data, at + PAYLOAD_AT)
        if not size:
            return b""
        content: bytes = memory[pointer + PAYLOAD_AT : pointer + size * VALUE_BYTES : VALUE_BYTES]
        return content


class List(Type, frozen=True):
    """`list<T>`, T not u8."""

    element: Type

    def lower(self, value: Any, source: Source, /) -> bytes:
        """Take a list."""
        if type(value) is not list:
            raise TypeError(f"{type(value).__name__} is no list")
        content = b"".join([self.element.lower(one, source) for one in value])
        return VALUE.pack(_LIST, *source.array(new_list, len(value), content), 0)

    def lift(self, data: bytes, at: int) -> list[Any]:
        """Return a list."""
        return list(_lift_all(data, at, self.element))


class Tuple(Type, frozen=True):
    """`tuple<...>`."""

    elements: tuple[Type, ...]

    def lower(self, value: Any, source: Source, /) -> bytes:
        """Take a tuple."""
        content = b"".join(lower_each(self.elements, value, source))
        return VALUE.pack(KINDS["TUPLE"], *source.array(new_tuple, len(self.elements), content), 0)

    def lift(self, data: bytes, at: int) -> tuple[Any, ...]:
        """Return a tuple."""
        _, pointer = VECTOR.unpack_from(data, at + PAYLOAD_AT)
        content = memory[pointer : pointer + len(self.elements) * VALUE_BYTES]
        return tuple([kind.lift(content, i * VALUE_BYTES) for i, kind in enumerate(self.elements)])


class Record(Type, frozen=True):
    """`record`: (name, type) pairs; its values are tuples in the order of the fields."""

    fields: tuple[tuple[str, Type], ...]

    def lower(self, value: Any, source: Source, /) -> bytes:
        """Take a tuple."""
        lowered = lower_each([kind for _, kind in self.fields], value, source)
        content = b"".join(
            [
                VECTOR.pack(*source.vector(name.encode())) + one
                for (name, _), one in zip(self.fields, lowered, strict=True)
            ]
        )
        return VALUE.pack(KINDS["RECORD"], *source.array(new_record, len(self.fields), content), 0)

    def lift(self, data: bytes, at: int) -> tuple[Any, ...]:
        """Return a tuple."""
        _, pointer = VECTOR.unpack_from(data, at + PAYLOAD_AT)
        content = memory[pointer : pointer + len(self.fields) * ENTRY_BYTES]
        return tuple([kind.lift(content, i * ENTRY_BYTES + 16) for i, (_, kind) in enumerate(self.fields)])


class Variant(Type, frozen=True):
    """`variant`: (case, type or None) pairs; its values are (case, payload or None)."""

    cases: tuple[tuple[str, Type | None], ...]

    def lower(self, value: Any, source: Source, /) -> bytes:
        """Take (case, payload)."""
        case, payload = value
        kind = self._case(case)
        boxed = 0 if kind is None else source.box(kind.lower(payload, source))
        return VALUE.pack(KINDS["VARIANT"], *source.vector(case.encode()), boxed)

    def lift(self, data: bytes, at: int) -> tuple[str, Any]:
        """Return (case, payload)."""
        case = _STRING_TYPE.lift(data, at)
        kind = self._case(case)
        return case, None if kind is None else _unbox(kind, data, at + 24)

    def _case(self, name: str) -> Type | None:
        for case, kind in self.cases:
            if case == name:
                return kind
        raise ValueError(f"no case {name!r}")


class Enum(Type, frozen=True):
    """`enum`; its values are names."""

    names: tuple[str, ...]

    def lower(self, value: Any, source: Source, /) -> bytes:
        """Take a name."""
        if value not in self.names:
            raise ValueError(f"{value!r} is none of {', '.join(self.names)}")
        return VALUE.pack(KINDS["ENUM"], *source.vector(value.encode()), 0)

    def lift(self, data: bytes, at: int) -> str:
        """Return a name."""
        return _STRING_TYPE.lift(data, at)


class Option(Type, frozen=True):
    """`option<T>`; nothing is None."""

    payload: Type

    @property
    def is_nested(self) -> bool:
        """Whether the payload is an option too, and so comes in a `Some`."""
        return isinstance(self.payload, Option)

    def lower(self, value: Any, source: Source, /) -> bytes:
        """Take None or a payload."""
        boxed = 0
        if value is not None:
            if self.is_nested:
                if not isinstance(value, Some):
                    raise TypeError(f"{type(value).__name__} is no Some")
                value = value.value
            boxed = source.box(self.payload.lower(value, source))
        return VALUE.pack(KINDS["OPTION"], boxed, 0, 0)

    def lift(self, data: bytes, at: int) -> Any:
        """Return None or the payload."""
        if not self.is_nested:
            return _unbox(self.payload, data, at + PAYLOAD_AT)
        is_some = WORD.unpack_from(data, at + PAYLOAD_AT)[0]
        return Some(_unbox(self.payload, data, at + PAYLOAD_AT)) if is_some else None


class Result(Type, frozen=True):
    """`result<T, E>`; either may be None."""

    ok: Type | None
    err: Type | None

    def lower(self, value: Any, source: Source, /) -> bytes:
        """Take an Ok or an Err."""
        is_ok = isinstance(value, Ok)
        if not is_ok and not isinstance(value, Err):
            raise TypeError(f"{type(value).__name__} is no result")
        kind = self.ok if is_ok else self.err
        return VALUE.pack(KINDS["RESULT"], is_ok, 0 if kind is None else source.box(kind.lower(value.value, source)), 0)

    def lift(self, data: bytes, at: int) -> Ok | Err:
        """Return an Ok or an Err."""
        is_ok = data[at + PAYLOAD_AT] != 0
        kind = self.ok if is_ok else self.err
        payload = None if kind is None else _unbox(kind, data, at + PAYLOAD_AT + 8)
        return Ok(payload) if is_ok else Err(payload)


class Flags(Type, frozen=True):
    """`flags`; its values are frozensets of names."""

    names: tuple[str, ...]

    def lower(self, value: Any, source: Source, /) -> bytes:
        """Take a set of names."""
        if not set(value) <= set(self.names):
            raise ValueError(f"{value!r} isn't all of {', '.join(self.names)}")
        content = b"".join([VECTOR.pack(*source.vector(name.encode())) for name in self.names if name in value])
        return VALUE.pack(KINDS["FLAGS"], *source.array(new_flags, len(set(value)), content), 0)

    def lift(self, data: bytes, at: int) -> frozenset[str]:
        """Return a set of names."""
        size, pointer = VECTOR.unpack_from(data, at + PAYLOAD_AT)
        # Each is a vector, as the text of a value is: one view of both.
        content = bytes(PAYLOAD_AT) + (memory[pointer : pointer + size * VECTOR.size] if size else b"")
        return frozenset(_STRING_TYPE.lift(content, i * VECTOR.size) for i in range(size))


def lower_each(kinds: Sequence[Type], value: Any, source: Source) -> list[bytes]:
    """Return the values of a tuple, each of its type."""
    if type(value) is not tuple or len(value) != len(kinds):
        raise TypeError(f"{len(kinds)} values are needed")
    return [kind.lower(one, source) for kind, one in zip(kinds, value, strict=True)]


def _lift_all(data: bytes, at: int, kind: Type) -> Iterator[Any]:
    size, pointer = VECTOR.unpack_from(data, at + PAYLOAD_AT)
    content = memory[pointer : pointer + size * VALUE_BYTES] if size else b""
    return (kind.lift(content, i * VALUE_BYTES) for i in range(size))


def _unbox(kind: Type, data: bytes, at: int) -> Any:
    (pointer,) = WORD.unpack_from(data, at)
    return kind.lift(memory[pointer : pointer + VALUE_BYTES], 0) if pointer else None


_STRING_TYPE: Final = String()
