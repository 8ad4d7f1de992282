"""What comes from the workers: frames of one peer in a row are one event, and whose they are is certain."""

from __future__ import annotations

from collections import deque

import pytest

from ipc.broker.events import Malformed, Received
from ipc.broker.inbox import READ_BYTES, READ_FRAMES, Inbox, Incoming
from ipc.broker.messages import MAX_BATCH, FromWorker, Handled, Health, Send, pack
from ipc.broker.peers import Peers

ROUTES = {"one": b"\0one1", "two": b"\0two2"}
DESCRIPTORS = {"one": 11, "two": 12}


class _Frame:
    """A frame of libzmq's, as far as it is looked at."""

    def __init__(self, content: bytes) -> None:
        self.buffer = memoryview(content)


class Wire:
    """What lies in the socket, and how often its monitor was read."""

    def __init__(self) -> None:
        self.waiting: deque[Incoming] = deque()
        self.watched = 0

    def put(self, key: str, *messages: FromWorker, route: bytes = b"", content: bytes | None = None) -> None:
        """Lay a frame down."""
        packed = pack(messages) if content is None else content
        self.waiting.append(Incoming(key, route or ROUTES[key], _Frame(packed), len(packed), True))  # type: ignore[arg-type]

    def receive(self) -> Incoming | None:
        """Give the next."""
        return self.waiting.popleft() if self.waiting else None

    def waits(self) -> bool:
        """Tell whether there is a next."""
        return bool(self.waiting)

    def descriptor_of(self, incoming: Incoming) -> int:
        """Tell the number of its connection."""
        return DESCRIPTORS[incoming.key]

    def watch(self, peers: Peers) -> None:
        """Tell of the connections, each once."""
        self.watched += 1
        for descriptor in DESCRIPTORS.values():
            if descriptor not in peers.open_links():
                peers.accepted(descriptor)


@pytest.fixture
def wire() -> Wire:
    """An empty one."""
    return Wire()


@pytest.fixture
def peers() -> Peers:
    """Two that have shaken hands."""
    table = Peers()
    for key in ROUTES:
        assert table.admit(f"{key}-1", key)
        assert table.announce(f"{key}-1")
        assert table.shake(key)
    return table


@pytest.fixture
def inbox(wire: Wire, peers: Peers) -> Inbox:
    """One that reads it."""
    return Inbox(wire, peers)


def sends(*numbers: int) -> tuple[Send, ...]:
    """Messages that can be told apart."""
    return tuple(Send(number, "two", b"x") for number in numbers)


def test_frames_in_a_row_are_one_event(wire: Wire, inbox: Inbox) -> None:
    """Of one peer, in their order; another's frame between keeps its place."""
    wire.put("one", *sends(1, 2))
    wire.put("one", *sends(3))
    wire.put("two", Handled(1))
    wire.put("one", *sends(4))
    events = inbox.read()
    assert [(event.key, event.messages) for event in events if isinstance(event, Received)] == [
        ("one", sends(1, 2, 3)),
        ("two", (Handled(1),)),
        ("one", sends(4)),
    ]
    assert len(events) == 3
    assert (inbox.is_empty, inbox.frames) == (True, 4)
    assert inbox.read() == []
    assert inbox.frames == 0


def test_an_event_has_no_more_messages_than_a_frame(wire: Wire, inbox: Inbox) -> None:
    """However many frames follow each other."""
    for number in range(5):
        wire.put("one", *sends(*range(200 * number, 200 * number + 200)))
    events = inbox.read()
    assert all(isinstance(event, Received) and len(event.messages) <= MAX_BATCH for event in events)
    assert [message for event in events if isinstance(event, Received) for message in event.messages] == list(
        sends(*range(1000))
    )


def test_a_frame_that_is_none_is_told_of_behind_what_came_before(wire: Wire, inbox: Inbox) -> None:
    """What its sender said before counts."""
    wire.put("one", *sends(1))
    wire.put("one", content=b"\xc1")
    wire.put("two", Health("healthy"))
    kinds = [type(event) for event in inbox.read()]
    assert kinds == [Received, Malformed, Received]


def test_several_frames_or_a_routing_id_of_ones_own_are_none(wire: Wire, inbox: Inbox, peers: Peers) -> None:
    """Each is told with what is wrong."""
    wire.put("one", *sends(1))
    wire.waiting[0] = wire.waiting[0]._replace(is_one=False)
    wire.put("two", *sends(1), route=b"mine!")
    events = inbox.read()
    assert [(event.key, event.why) for event in events if isinstance(event, Malformed)] == [
        ("one", "a message of several frames"),
        ("two", "a routing id of its own choice"),
    ]


def test_whose_a_frame_is_is_asked_for_each(wire: Wire, inbox: Inbox, peers: Peers) -> None:
    """Another's frame over a known routing id is not the holder's, and one of nobody's is dropped."""
    wire.put("one", *sends(1))
    wire.put("two", *sends(2), route=ROUTES["one"])
    events = inbox.read()
    assert [(event.key, event.messages) for event in events if isinstance(event, Received)] == [
        ("one", sends(1)),
        ("two", sends(2)),
    ]
    peers.end("one-1")
    wire.put("one", *sends(3))
    wire.waiting.append(wire.waiting[0]._replace(key="nobody"))
    DESCRIPTORS["nobody"] = 13
    try:
        assert inbox.read() == []
    finally:
        del DESCRIPTORS["nobody"]
    assert inbox.is_empty


def test_the_monitor_is_read_before_a_new_connection_counts(wire: Wire, inbox: Inbox, peers: Peers) -> None:
    """Once for each connection, not for each frame."""
    for _ in range(3):
        wire.put("one", *sends(1))
    inbox.read()
    assert wire.watched == 1
    connection = peers.open_links()[DESCRIPTORS["one"]]
    assert connection is not None
    assert connection.frames == 3


def test_one_turn_takes_so_much(wire: Wire, inbox: Inbox) -> None:
    """By number and by bytes; the rest waits for the next one."""
    for number in range(READ_FRAMES + 1):
        wire.put("one", *sends(number))
    inbox.read()
    assert not inbox.is_empty
    assert len(wire.waiting) == 1
    inbox.read()
    assert inbox.is_empty
    for _ in range(4):
        wire.put("one", Send(1, "two", bytes(READ_BYTES // 2)))
    inbox.read()
    assert not inbox.is_empty
    assert len(wire.waiting) == 2
