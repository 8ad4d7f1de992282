"""msgpack to frozen structs and back, with bounds checked before and types checked after decoding.

What a worker sends is hostile until proven otherwise: a packet that is too large is refused unread, nesting is bounded
by the declared types (nothing undeclared is descended into), and a field of a wrong type is an error that names it.
"""

from __future__ import annotations

import typing

import msgpack

from ipc.errors import PeerProtocolError
from ipc.struct import ValidationError, convert, to_builtins

MAX_PACKET_BYTES = 64 * 1024
"""Upper bound of one packet on a channel; larger data travels in a sealed memory file beside it."""

_MAX_ERROR_CHARACTERS = 120
_AS_THEY_ARE = (bytes, bytearray, memoryview)

Wire = None | bool | int | float | str | bytes | list["Wire"] | dict[str, "Wire"]
"""What msgpack carries between our processes."""

T = typing.TypeVar("T")


def to_wire(value: object) -> Wire:
    """Turn a struct (recursively) into maps, lists and scalars; raises TypeError for what can't travel."""
    wire: Wire = to_builtins(value, builtin_types=_AS_THEY_ARE)
    return wire


def from_wire(cls: type[T], value: object) -> T:
    """Build `cls` from a decoded map; unknown, missing and mistyped fields raise PeerProtocolError naming the field."""
    try:
        # Without this, text would be taken for bytes: base64, as in JSON.
        return convert(value, cls, builtin_types=_AS_THEY_ARE)
    except ValidationError as error:
        said = str(error)
    except UnicodeError:
        said = "a field's name that isn't text"
    # What names an unknown field is the peer's own text, msgspec's path included if it likes: nothing of this reaches a
    # terminal or a log as it is, or at a length that the peer chose.
    if len(said) > _MAX_ERROR_CHARACTERS:
        said = said[:_MAX_ERROR_CHARACTERS] + "..."
    said = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in said)
    what, found, where = said.rpartition(" - at `$")
    told = f"{where.rstrip('`')}: {what}" if found else f": {said}"
    raise PeerProtocolError(cls.__name__ + told) from None


def pack(value: object) -> bytes:
    """Encode a struct as msgpack; names that aren't UTF-8 keep their bytes through surrogate escapes."""
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
