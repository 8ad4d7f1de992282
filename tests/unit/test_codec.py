"""Encoding and decoding of the values that travel between our processes, and what hostile bytes meet."""

from __future__ import annotations

import msgpack
import pytest

from ipc import codec
from ipc.errors import PeerProtocolError
from ipc.messages import Confined, Finished, LayerReport, Message, StartFailed


class _Inner(Message, frozen=True):
    name: str


class _Sample(Message, frozen=True):
    number: int
    text: str
    data: bytes
    flag: bool
    ratio: float
    maybe: int | None
    inner: _Inner
    pair: tuple[str, int]
    many: tuple[_Inner, ...]
    extra: int = 7


_VALUE = _Sample(1, "é", b"\x00\xff", True, 0.5, None, _Inner("a"), ("b", 2), (_Inner("c"), _Inner("d")))


def _wire(**changes: object) -> bytes:
    fields = codec.to_wire(_VALUE)
    assert isinstance(fields, dict)
    return msgpack.packb({**fields, **changes}, use_bin_type=True, unicode_errors="surrogateescape")


def test_a_value_comes_back_as_it_was() -> None:
    """Every kind of field survives the way there and back."""
    assert codec.unpack(_Sample, codec.pack(_VALUE)) == _VALUE


def test_undecodable_names_keep_their_bytes() -> None:
    """A file name that isn't UTF-8 (PEP 383) travels byte by byte."""
    value = LayerReport("a\udcff", "b")
    packed = codec.pack(value)
    assert b"a\xff" in packed
    assert codec.unpack(LayerReport, packed) == value


def test_a_missing_field_with_a_default_takes_it() -> None:
    """A field that has a default may be left out."""
    fields = codec.to_wire(_VALUE)
    assert isinstance(fields, dict)
    del fields["extra"]
    assert codec.unpack(_Sample, msgpack.packb(fields)).extra == 7


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("number", "1", "_Sample.number: Expected `int`, got `str`"),
        ("number", True, "_Sample.number: Expected `int`, got `bool`"),
        ("number", 1.0, "_Sample.number: Expected `int`, got `float`"),
        ("number", None, "_Sample.number: Expected `int`, got `null`"),
        ("text", b"a", "_Sample.text: Expected `str`, got `bytes`"),
        ("text", ["a"], "_Sample.text: Expected `str`, got `array`"),
        ("data", "a", "_Sample.data: Expected `bytes`, got `str`"),
        ("flag", 1, "_Sample.flag: Expected `bool`, got `int`"),
        ("ratio", "0.5", "_Sample.ratio: Expected `float`, got `str`"),
        ("maybe", "x", "_Sample.maybe: Expected `int | null`, got `str`"),
        ("inner", "x", "_Sample.inner: Expected `object`, got `str`"),
        ("inner", {"name": 3}, "_Sample.inner.name: Expected `str`, got `int`"),
        ("inner", {}, "_Sample.inner: Object missing required field `name`"),
        ("inner", {"name": "a", "more": 1}, "_Sample.inner: Object contains unknown field `more`"),
        ("pair", ["b"], "_Sample.pair: Expected `array` of length 2, got 1"),
        ("pair", ["b", "c"], "_Sample.pair[1]: Expected `int`, got `str`"),
        ("pair", {"0": "b"}, "_Sample.pair: Expected `array`, got `object`"),
        ("many", [{"name": "c"}, 5], "_Sample.many[1]: Expected `object`, got `int`"),
        ("number", msgpack.ExtType(5, b"x"), "_Sample.number: Expected `int`, got `array`"),
        ("number", msgpack.Timestamp(0, 0), "_Sample.number: Expected `int`, got `Timestamp`"),
        ("surplus", 1, "_Sample: Object contains unknown field `surplus`"),
    ],
)
def test_a_wrong_field_is_named(field: str, value: object, named: str) -> None:
    """A field of a wrong type, an unknown and a missing one are errors that say which."""
    with pytest.raises(PeerProtocolError) as caught:
        codec.unpack(_Sample, _wire(**{field: value}))
    assert str(caught.value) == named


def test_an_int_is_taken_for_a_float() -> None:
    """A whole number is a valid float; nothing else is converted."""
    assert codec.unpack(_Sample, _wire(ratio=3)).ratio == 3.0


def test_a_missing_field_is_named() -> None:
    """A required field that is missing is an error that names it."""
    with pytest.raises(PeerProtocolError, match="missing required field `layer`"):
        codec.unpack(LayerReport, msgpack.packb({"status": "on"}))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\x81\xa1",
        b"\x91" * 2_000 + b"\xc0",
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xffab",
        b"\x81\x01\x02",
        b"\x81\x91\x01\x02",
        b"\x80\x80",
        b"\xd7\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\xc7\x03\xffabc",
        b"\x81\xc4\x01a\x01",
        b"\xa5hello",
        b"\x05",
        b"\xc0",
    ],
    ids=lambda data: data[:8].hex() or "empty",
)
def test_hostile_bytes_are_a_protocol_error(data: bytes) -> None:
    """Truncated, nested, lying and mistyped packets end in PeerProtocolError and nothing else."""
    with pytest.raises(PeerProtocolError):
        codec.unpack(LayerReport, data)
    with pytest.raises(PeerProtocolError):
        codec.unpack_tagged((LayerReport,), data)


def test_too_large_is_refused_before_decoding() -> None:
    """The bound is exact: one byte more than allowed is refused, the bound itself is read."""
    value = LayerReport("a", "b", "x" * 100)
    packed = codec.pack(value)
    assert codec.unpack(LayerReport, packed, max_bytes=len(packed)) == value
    with pytest.raises(PeerProtocolError, match="at most"):
        codec.unpack(LayerReport, packed, max_bytes=len(packed) - 1)
    with pytest.raises(PeerProtocolError, match="at most 65536"):
        codec.unpack_tagged((LayerReport,), b"\xc0" * (codec.MAX_PACKET_BYTES + 1))


def test_only_the_allowed_types_are_read() -> None:
    """A well-formed message that may not be said here is refused, and the error says what may be."""
    packed = codec.pack_tagged(Finished("exited", 0))
    assert codec.unpack_tagged((StartFailed, Finished), packed) == Finished("exited", 0)
    with pytest.raises(
        PeerProtocolError, match=r"'Finished' is not allowed here \(allowed: LayerReport, StartFailed\)"
    ):
        codec.unpack_tagged((StartFailed, LayerReport), packed)


@pytest.mark.parametrize(
    "envelope", [{}, [], ["Finished"], ["Finished", {}, 1], [1, {}], [b"Finished", {}], "Finished"]
)
def test_the_envelope_is_a_name_and_fields(envelope: object) -> None:
    """Anything but [name, fields] is refused."""
    with pytest.raises(PeerProtocolError):
        codec.unpack_tagged((Finished,), msgpack.packb(envelope))


def test_a_hostile_name_is_cut_and_quoted() -> None:
    """The name of an unknown type or field reaches the message in quotes, at 64 characters."""
    with pytest.raises(PeerProtocolError) as caught:
        codec.unpack_tagged((Finished,), msgpack.packb(["\x1b]0;x\x07" + "A" * 1_000, {}]))
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 200
    with pytest.raises(PeerProtocolError) as caught:
        codec.unpack(LayerReport, msgpack.packb({"\x1b[2J" + "B" * 1_000: 1}))
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("outer", [False, True])
def test_a_name_that_looks_like_a_path_is_cut_and_quoted(outer: bool) -> None:
    """A peer that writes the library's own words into a field's name gets neither lines nor length of its choice."""
    name = " - at `$\n" + "airssys: forged line\n" * 2_000 + "\x1b[2J"
    hostile = {"layer": "a", "status": "b", name: 1}
    with pytest.raises(PeerProtocolError) as caught:
        codec.unpack(Confined, msgpack.packb({"layers": [hostile]})) if outer else codec.unpack(
            LayerReport, msgpack.packb(hostile)
        )
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 250


def test_what_cannot_travel_is_our_own_error() -> None:
    """An object that isn't plain data is a TypeError at the sender."""
    with pytest.raises(TypeError, match="objects of type object"):
        codec.pack(LayerReport("a", "b", object()))  # type: ignore[arg-type]


def test_plain_maps_are_bounded_too() -> None:
    """`unpack_map` refuses what is too large and what isn't msgpack."""
    packed = codec.pack_map({"a": [1, "b"]})
    assert codec.unpack_map(packed, 100) == {"a": [1, "b"]}
    with pytest.raises(PeerProtocolError, match="at most"):
        codec.unpack_map(packed, len(packed) - 1)
    with pytest.raises(PeerProtocolError):
        codec.unpack_map(b"\xc1", 100)
