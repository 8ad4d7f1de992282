"""Properties of the codec: what was packed comes back, and no bytes at all end in anything but a value or a refusal."""

from __future__ import annotations

import msgpack
from hypothesis import given
from hypothesis import strategies as st

from ipc import codec
from ipc.errors import PeerProtocolError
from ipc.messages import Compiled, Ended, Finished, LayerReport, StartFailed, WorkerLimits

# Text as os.fsdecode gives it: undecodable bytes are surrogates (PEP 383).
NAMES = st.binary(max_size=40).map(lambda data: data.decode("utf-8", "surrogateescape"))
INTEGERS = st.integers(-(2**63), 2**64 - 1)
ALLOWED = (Compiled, Ended, Finished, LayerReport, StartFailed, WorkerLimits)
VALUES = st.one_of(
    st.builds(LayerReport, NAMES, NAMES, NAMES),
    st.builds(Finished, NAMES, INTEGERS, NAMES, NAMES, INTEGERS, INTEGERS, INTEGERS, INTEGERS),
    st.builds(Ended, INTEGERS, INTEGERS, INTEGERS, INTEGERS, NAMES),
    st.builds(StartFailed, NAMES, NAMES, NAMES, INTEGERS, NAMES),
    st.builds(Compiled, NAMES, INTEGERS, st.lists(NAMES).map(tuple), st.lists(NAMES).map(tuple)),
    st.builds(WorkerLimits, INTEGERS, INTEGERS, st.none() | INTEGERS, st.none() | INTEGERS),
)
PLAIN = st.recursive(
    st.one_of(
        st.none(), st.booleans(), INTEGERS, st.floats(allow_nan=False), st.text(max_size=8), st.binary(max_size=8)
    ),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8) | st.integers(0, 9), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(VALUES)
def test_round_trip(value: object) -> None:
    """Any message comes back equal, undecodable names and the edges of 64 bits included."""
    assert codec.unpack_tagged(ALLOWED, codec.pack_tagged(value)) == value


@given(st.binary(max_size=200))
def test_bytes_are_a_value_or_refused(data: bytes) -> None:
    """Random bytes give a message of an allowed type or a protocol error."""
    try:
        value = codec.unpack_tagged(ALLOWED, data)
    except PeerProtocolError:
        return
    assert type(value) in ALLOWED


@given(VALUES, st.data())
def test_damaged_packets_are_a_value_or_refused(value: object, data: st.DataObject) -> None:
    """A valid packet with some bytes changed gives a message whose fields have their types, or a protocol error."""
    packet = bytearray(codec.pack_tagged(value))
    for _ in range(data.draw(st.integers(1, 3))):
        packet[data.draw(st.integers(0, len(packet) - 1))] = data.draw(st.integers(0, 255))
    try:
        read = codec.unpack_tagged(ALLOWED, bytes(packet))
    except PeerProtocolError:
        return
    assert codec.unpack_tagged(ALLOWED, codec.pack_tagged(read)) == read


@given(PLAIN)
def test_wellformed_but_undeclared_is_refused(document: object) -> None:
    """Plain msgpack of any other shape is refused, as a whole message and as its fields."""
    for packet in (msgpack.packb(document), msgpack.packb(["StartFailed", document])):
        try:
            value = codec.unpack_tagged((StartFailed,), packet)
        except PeerProtocolError:
            continue
        assert isinstance(value, StartFailed)
