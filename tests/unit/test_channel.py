"""The packet channel, with real socket pairs: boundaries, descriptors, bounds and what a hostile peer may send."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from ipc.channel import MAX_DESCRIPTORS, Channel
from ipc.codec import MAX_PACKET_BYTES, pack_tagged
from ipc.errors import LocalProtocolError, PeerProtocolError
from ipc.messages import CompileFailed, Finished, Go, LayerReport, Load


@pytest.fixture
def pair() -> Iterator[tuple[Channel, Channel]]:
    """Two connected ends, closed afterwards."""
    left, right = Channel.pair()
    yield left, right
    left.close()
    right.close()


@pytest.fixture
def raw() -> Iterator[tuple[socket.socket, Channel]]:
    """A bare socket, as a hostile peer has it, and our end."""
    theirs, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    channel = Channel(ours)
    yield theirs, channel
    theirs.close()
    channel.close()


def _open_descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def test_packets_keep_their_order_and_boundaries(pair: tuple[Channel, Channel]) -> None:
    """Two messages sent are two messages received."""
    left, right = pair
    left.send(Load())
    left.send(Finished("exited", 3))
    assert right.receive((Load,)) == (Load(), [])
    assert right.receive((Finished,)) == (Finished("exited", 3), [])


def test_a_descriptor_arrives_and_closes_on_exec(pair: tuple[Channel, Channel]) -> None:
    """A passed descriptor is the same open file, and is not inherited by what we exec."""
    left, right = pair
    reader, writer = os.pipe()
    try:
        left.send(Go(), (reader,))
        message, descriptors = right.receive((Go,))
        assert message == Go()
        assert len(descriptors) == 1
        assert os.path.sameopenfile(descriptors[0], reader)
        assert not os.get_inheritable(descriptors[0])
        os.close(descriptors[0])
    finally:
        os.close(reader)
        os.close(writer)


def test_the_end_of_the_peer_is_an_end_of_file(pair: tuple[Channel, Channel]) -> None:
    """A closed peer is EOFError to whoever reads and BrokenPipeError to whoever writes."""
    left, right = pair
    left.close()
    with pytest.raises(EOFError):
        right.receive((Go,))
    with pytest.raises(EOFError):
        right.read((Go,))
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        right.send(Go())


def test_nothing_to_read_is_a_timeout(pair: tuple[Channel, Channel]) -> None:
    """Both a zero and a short timeout end in TimeoutError."""
    _, right = pair
    for timeout_s in (0.0, 0.001):
        with pytest.raises(TimeoutError):
            right.receive((Go,), timeout_s)


def test_a_timeout_leaves_the_socket_blocking(pair: tuple[Channel, Channel]) -> None:
    """After a timed receive, `read` and `write` by descriptor still wait instead of failing with EAGAIN."""
    _, right = pair
    with pytest.raises(TimeoutError):
        right.receive((Go,), 0.0)
    assert os.get_blocking(right.fileno())


def test_a_message_in_time_is_received(pair: tuple[Channel, Channel]) -> None:
    """A timeout that isn't reached changes nothing."""
    left, right = pair
    left.send(Go())
    assert right.receive((Go,), 0.0) == (Go(), [])


def test_plain_read_and_write(pair: tuple[Channel, Channel]) -> None:
    """What a sealed worker uses, read(2) and write(2), speaks the same protocol."""
    left, right = pair
    left.write(Finished("trapped", 134, "unreachable"))
    assert right.receive((Finished,)) == (Finished("trapped", 134, "unreachable"), [])
    right.send(Go())
    assert left.read((Go,)) == Go()


@pytest.mark.parametrize("sender", ["send", "write"])
def test_too_large_a_message_is_our_own_error(pair: tuple[Channel, Channel], sender: str) -> None:
    """A message that no packet holds is refused before it is sent."""
    left, _ = pair
    with pytest.raises(LocalProtocolError, match="a packet holds 65536"):
        getattr(left, sender)(CompileFailed("x" * MAX_PACKET_BYTES))


def test_the_largest_packet_passes(pair: tuple[Channel, Channel]) -> None:
    """The bound itself is allowed (the control of the test above)."""
    left, right = pair
    overhead = len(pack_tagged(CompileFailed("x" * 60_000))) - 60_000
    message = CompileFailed("x" * (MAX_PACKET_BYTES - overhead))
    assert len(pack_tagged(message)) == MAX_PACKET_BYTES
    left.send(message)
    assert right.receive((CompileFailed,)) == (message, [])


def test_a_peers_oversized_packet_is_refused(raw: tuple[socket.socket, Channel]) -> None:
    """A packet beyond the bound is a protocol error, by either way of reading, and the next one is read again."""
    theirs, ours = raw
    for read in (lambda: ours.receive((Go,)), lambda: ours.read((Go,))):
        theirs.send(b"\xc0" * (MAX_PACKET_BYTES + 100))
        with pytest.raises(PeerProtocolError):
            read()
    theirs.send(pack_tagged(Go()))
    assert ours.receive((Go,)) == (Go(), [])


def test_an_empty_packet_reads_as_the_end(raw: tuple[socket.socket, Channel]) -> None:
    """A packet without a byte can't be told from the end of the stream (recv(2)), and is treated as that."""
    theirs, ours = raw
    theirs.send(b"")
    with pytest.raises(EOFError):
        ours.receive((Go,))


@pytest.mark.parametrize("data", [b"\x00", b"\xc1", b"\x92\xa2Go", pack_tagged(Load()), b"A" * 500])
def test_descriptors_of_a_refused_packet_are_closed(raw: tuple[socket.socket, Channel], data: bytes) -> None:
    """A hostile packet leaves nothing open on our side."""
    theirs, ours = raw
    before = _open_descriptors()
    reader, writer = os.pipe()
    try:
        socket.send_fds(theirs, [data], [reader, writer])
        with pytest.raises(PeerProtocolError):
            ours.receive((Go,))
    finally:
        os.close(reader)
        os.close(writer)
    assert _open_descriptors() == before


def test_too_many_descriptors_are_refused_and_closed(raw: tuple[socket.socket, Channel]) -> None:
    """More descriptors than a message may carry are a protocol error; those that came are closed."""
    theirs, ours = raw
    before = _open_descriptors()
    reader, writer = os.pipe()
    try:
        socket.send_fds(theirs, [pack_tagged(Go())], [reader] * (MAX_DESCRIPTORS + 5))
        with pytest.raises(PeerProtocolError):
            ours.receive((Go,))
        socket.send_fds(theirs, [pack_tagged(Go())], [reader] * MAX_DESCRIPTORS)
        _, descriptors = ours.receive((Go,))
        assert len(descriptors) == MAX_DESCRIPTORS
        for descriptor in descriptors:
            os.close(descriptor)
    finally:
        os.close(reader)
        os.close(writer)
    assert _open_descriptors() == before


def test_a_message_of_another_type_is_refused(pair: tuple[Channel, Channel]) -> None:
    """The receiver's list of types decides what may be said."""
    left, right = pair
    left.send(LayerReport("a", "b"))
    with pytest.raises(PeerProtocolError, match="'LayerReport' is not allowed here"):
        right.receive((Go, Finished))


def test_a_detached_descriptor_can_be_taken_over(pair: tuple[Channel, Channel]) -> None:
    """`detach` and `from_descriptor` hand one end on without closing it."""
    left, right = pair
    taken = Channel.from_descriptor(left.detach())
    try:
        taken.send(Go())
        assert right.receive((Go,)) == (Go(), [])
    finally:
        taken.close()


def test_both_ends_close_on_exec(pair: tuple[Channel, Channel]) -> None:
    """Neither end of a new pair is inherited by what we exec."""
    assert not any(os.get_inheritable(end.fileno()) for end in pair)
