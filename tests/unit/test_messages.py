"""Every message class goes there and back, and refuses each of its fields in another type."""

from __future__ import annotations

import types
import typing

import msgpack
import pytest
from msgspec import structs

from ipc import codec, messages
from ipc.errors import PeerProtocolError
from ipc.struct import Struct

ALL = tuple(
    value
    for value in vars(messages).values()
    if isinstance(value, type) and issubclass(value, messages.Message) and value is not messages.Message
)
_BY_SCALAR: dict[object, object] = {str: "ü\udc80", int: 42, bool: True, bytes: b"\x00\xff", float: 1.5}


def _example(declared: object) -> object:
    origin, arguments = typing.get_origin(declared), typing.get_args(declared)
    if origin in (types.UnionType, typing.Union):
        return _example(next(a for a in arguments if a is not types.NoneType))
    if origin is tuple:
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return (_example(arguments[0]), _example(arguments[0]))
        return tuple(_example(a) for a in arguments)
    if isinstance(declared, type) and issubclass(declared, Struct):
        return _full(declared)
    return _BY_SCALAR[declared]


def _full(cls: type) -> object:
    hints = typing.get_type_hints(cls)
    return cls(**{field.name: _example(hints[field.name]) for field in structs.fields(cls)})


def _fields_of(cls: type) -> list[tuple[type, str]]:
    return [(cls, field.name) for field in structs.fields(cls)]


def test_all_messages_are_found() -> None:
    """The tests below run over the real classes: a good two dozen of them."""
    assert len(ALL) >= 20
    assert messages.Finished in ALL


@pytest.mark.parametrize("cls", ALL, ids=lambda cls: cls.__name__)
def test_round_trip(cls: type) -> None:
    """With every field filled in, a message comes back equal."""
    value = _full(cls)
    assert codec.unpack_tagged((cls,), codec.pack_tagged(value)) == value


@pytest.mark.parametrize("cls", ALL, ids=lambda cls: cls.__name__)
def test_frozen_and_documented(cls: type) -> None:
    """A message can't be changed after it was made, and says who tells it to whom."""
    assert cls.__struct_config__.frozen  # type: ignore[attr-defined]
    assert not hasattr(_full(cls), "__dict__")
    assert cls.__doc__


@pytest.mark.parametrize(("cls", "name"), [pair for cls in ALL for pair in _fields_of(cls)])
def test_no_field_takes_another_type(cls: type, name: str) -> None:
    """Each field refuses a msgpack extension, a nested list and a map of the wrong shape, naming the field."""
    fields = codec.to_wire(_full(cls))
    assert isinstance(fields, dict)
    for hostile in (msgpack.ExtType(3, b""), [[[]]], {"\x00": 1}):
        with pytest.raises(PeerProtocolError, match=name):
            codec.unpack(cls, msgpack.packb({**fields, name: hostile}, unicode_errors="surrogateescape"))


@pytest.mark.parametrize("cls", ALL, ids=lambda cls: cls.__name__)
def test_every_cut_is_refused(cls: type) -> None:
    """A packet that is cut anywhere is a protocol error, never a message."""
    packed = codec.pack_tagged(_full(cls))
    for length in range(len(packed)):
        with pytest.raises(PeerProtocolError):
            codec.unpack_tagged((cls,), packed[:length])


def test_tag_names_are_unique() -> None:
    """The class name is the tag on the wire, so no two messages share one."""
    assert len({cls.__name__ for cls in ALL}) == len(ALL)
