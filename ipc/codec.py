"""msgpack to frozen dataclasses and back, with bounds checked before and types checked after decoding.

What a worker sends is hostile until proven otherwise: a packet that is too large is refused unread, nesting is bounded
by the declared types (nothing undeclared is descended into), and a field of a wrong type is an error that names it.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing

import msgpack

from ipc.errors import PeerProtocolError

MAX_PACKET_BYTES = 64 * 1024
"""Upper bound of one packet on a channel; larger data travels in a sealed memory file beside it."""

Wire = None | bool | int | float | str | bytes | list["Wire"] | dict[str, "Wire"]
"""What msgpack carries between our processes."""

T = typing.TypeVar("T")


def to_wire(value: object) -> Wire:
    """Turn a dataclass (recursively) into maps, lists and scalars; raises TypeError for what can't travel."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_wire(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, (tuple, list, frozenset)):
        return [to_wire(item) for item in value]
    if isinstance(value, dict):
        return {str(key): to_wire(item) for key, item in value.items()}
    if value is None or isinstance(value, (bool, int, float, str, bytes)):
        return value
    raise TypeError(f"{type(value).__name__} can't travel")


@functools.cache
def _hints(cls: type) -> dict[str, object]:
    return typing.get_type_hints(cls)


def _convert(declared: object, value: object, where: str) -> object:
    origin = typing.get_origin(declared)
    arguments = typing.get_args(declared)
    if origin in (types.UnionType, typing.Union):
        if value is None and types.NoneType in arguments:
            return None
        declared = next(a for a in arguments if a is not types.NoneType)
        return _convert(declared, value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise PeerProtocolError(f"{where}: expected a list, got {type(value).__name__}")
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return tuple(_convert(arguments[0], item, f"{where}[{n}]") for n, item in enumerate(value))
        if len(value) != len(arguments):
            raise PeerProtocolError(f"{where}: expected {len(arguments)} items, got {len(value)}")
        return tuple(
            _convert(a, item, f"{where}[{n}]") for n, (a, item) in enumerate(zip(arguments, value, strict=True))
        )
    if isinstance(declared, type) and dataclasses.is_dataclass(declared):
        return from_wire(declared, value, where)
    if declared is float and type(value) is int:
        return float(value)
    if isinstance(declared, type) and type(value) is declared:
        return value
    name = declared.__name__ if isinstance(declared, type) else str(declared)
    raise PeerProtocolError(f"{where}: expected {name}, got {type(value).__name__}")


def from_wire(cls: type[T], value: object, where: str = "") -> T:
    """Build `cls` from a decoded map; unknown, missing and mistyped fields raise PeerProtocolError naming the field."""
    where = where or cls.__name__
    if not isinstance(value, dict):
        raise PeerProtocolError(f"{where}: expected a map, got {type(value).__name__}")
    hints = _hints(typing.cast("typing.Hashable", cls))
    unknown = [str(key) for key in value if key not in hints]
    if unknown:
        raise PeerProtocolError(f"{where}: unknown field {unknown[0][:64]!r}")
    fields: dict[str, object] = {}
    for field in dataclasses.fields(cls):  # type: ignore[arg-type] # T is a dataclass by contract; mypy has no bound for that
        if field.name in value:
            fields[field.name] = _convert(hints[field.name], value[field.name], f"{where}.{field.name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise PeerProtocolError(f"{where}: field {field.name!r} is missing")
    return cls(**fields)


def pack(value: object) -> bytes:
    """Encode a dataclass as msgpack; names that aren't UTF-8 keep their bytes through surrogate escapes."""
    packed: bytes = msgpack.packb(to_wire(value), use_bin_type=True, unicode_errors="surrogateescape")
    return packed


def pack_map(fields: dict[str, object]) -> bytes:
    """Encode plain values, as a value's own `to_wire` gives them."""
    packed: bytes = msgpack.packb(fields, use_bin_type=True)
    return packed


def unpack_map(data: bytes | memoryview, max_bytes: int) -> object:
    """Decode plain values for a value's own `from_wire` to check; bounded before decoding."""
    if len(data) > max_bytes:
        raise PeerProtocolError(f"{len(data)} bytes, at most {max_bytes} are read")
    return _unpackb(data, "map")


def unpack(cls: type[T], data: bytes | memoryview, max_bytes: int = MAX_PACKET_BYTES) -> T:
    """Decode `data` as `cls`; raises PeerProtocolError for anything that isn't exactly that."""
    if len(data) > max_bytes:
        raise PeerProtocolError(f"{cls.__name__}: {len(data)} bytes, at most {max_bytes} are read")
    return from_wire(cls, _unpackb(data, cls.__name__))


def _unpackb(data: bytes | memoryview, what: str) -> object:
    try:
        # What a header promises is bounded by the length of `data` (msgpack's max_*_len).
        decoded: object = msgpack.unpackb(data, raw=False, strict_map_key=True, unicode_errors="surrogateescape")
    except (ValueError, msgpack.UnpackException, RecursionError) as error:
        raise PeerProtocolError(f"{what}: not a msgpack message ({type(error).__name__})") from None
    return decoded


def pack_tagged(message: object) -> bytes:
    """Encode a message of `ipc.messages` with its type's name in front."""
    packed: bytes = msgpack.packb(
        [type(message).__name__, to_wire(message)], use_bin_type=True, unicode_errors="surrogateescape"
    )
    return packed


def unpack_tagged(allowed: typing.Iterable[type], data: bytes) -> object:
    """Decode one packet as one of `allowed`; anything else raises PeerProtocolError."""
    if len(data) > MAX_PACKET_BYTES:
        raise PeerProtocolError(f"packet of {len(data)} bytes, at most {MAX_PACKET_BYTES} are read")
    decoded = _unpackb(data, "packet")
    if not (isinstance(decoded, list) and len(decoded) == 2 and isinstance(decoded[0], str)):
        raise PeerProtocolError("packet: expected [type, fields]")
    by_name = {cls.__name__: cls for cls in allowed}
    cls = by_name.get(decoded[0])
    if cls is None:
        raise PeerProtocolError(
            f"packet: {decoded[0][:64]!r} is not allowed here (allowed: {', '.join(sorted(by_name))})"
        )
    return from_wire(cls, decoded[1])
