"""What goes out: one frame a turn, order kept, slow readers bounded, the gone named."""

from __future__ import annotations

import zmq

from ipc.broker import messages as m
from ipc.broker.outbox import FRAME_BYTES, WAITING_BYTES, Outbox, frames


class Wire:
    """Takes frames, unless a route is full or gone."""

    def __init__(self) -> None:
        self.sent: list[tuple[bytes, list[m.ToWorker]]] = []
        self.full: set[bytes] = set()
        self.gone: set[bytes] = set()

    def send(self, route: bytes, frame: bytes) -> bool:
        """Take one."""
        if route in self.gone:
            raise zmq.ZMQError(zmq.EHOSTUNREACH)
        if route in self.full:
            return False
        self.sent.append((route, m.unpack_to_worker(frame)))
        return True


def test_the_messages_of_a_turn_share_a_frame() -> None:
    """One for each route, in the order in which they were added."""
    wire = Wire()
    outbox = Outbox(wire.send)
    outbox.add(b"a", [m.Accepted(1)])
    outbox.add(b"b", [m.Accepted(2)])
    outbox.add(b"a", [m.Accepted(3), m.Accepted(4)])
    outbox.flush()
    assert wire.sent == [(b"a", [m.Accepted(1), m.Accepted(3), m.Accepted(4)]), (b"b", [m.Accepted(2)])]


def test_frames_are_bounded() -> None:
    """By messages and by bytes; a larger message goes alone; nothing is lost or swapped."""
    messages: list[m.ToWorker] = [m.Value(n, bytes(1_000)) for n in range(2_000)]
    messages.insert(500, m.Value(-1, bytes(3_000_000)))
    packed = frames(messages)
    assert [message for frame in packed for message in m.unpack_to_worker(frame)] == messages
    assert sorted(len(frame) > FRAME_BYTES for frame in packed) == [False] * (len(packed) - 1) + [True]


def test_what_does_not_fit_in_waits_in_its_order() -> None:
    """For that route only, and goes first when there is room."""
    wire = Wire()
    outbox = Outbox(wire.send)
    wire.full = {b"a"}
    for number in range(3):
        outbox.add(b"a", [m.Accepted(number)])
        outbox.add(b"b", [m.Accepted(number)])
        outbox.flush()
    assert [route for route, _ in wire.sent] == [b"b"] * 3
    assert outbox.waits()
    wire.full = set()
    outbox.add(b"a", [m.Accepted(3)])
    outbox.flush()
    assert [messages for route, messages in wire.sent if route == b"a"] == [[m.Accepted(n)] for n in range(4)]
    assert not outbox.waits()


def test_a_slow_reader_is_named_once_and_its_backlog_dropped() -> None:
    """What waits for it is bounded."""
    wire = Wire()
    outbox = Outbox(wire.send)
    wire.full = {b"a"}
    for _ in range(WAITING_BYTES // 1_000_000 + 1):
        outbox.add(b"a", [m.Value(1, bytes(1_000_000))])
        outbox.flush()
    assert outbox.slow == [b"a"]
    assert not outbox.waits()


def test_who_is_gone_is_named() -> None:
    """At once, or when what waits is tried again."""
    wire = Wire()
    outbox = Outbox(wire.send)
    wire.full = {b"a"}
    outbox.add(b"a", [m.Accepted(1)])
    outbox.flush()
    wire.full, wire.gone = set(), {b"a", b"b"}
    outbox.add(b"b", [m.Accepted(1)])
    outbox.flush()
    assert outbox.gone == [b"a", b"b"]
    assert not outbox.waits()
