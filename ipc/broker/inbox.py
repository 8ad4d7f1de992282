"""What comes from the workers: whose it is, decoded, and gathered into one event where frames of one peer follow.

Under load most of what a message costs is what is done once for each frame and once for each event. So the more waits,
the less each costs; a single message is not held back for that.
"""

from __future__ import annotations

from typing import Final, NamedTuple, Protocol

import zmq

from ipc.broker.events import Malformed, Received
from ipc.broker.messages import MAX_BATCH, FromWorker, unpack_from_worker
from ipc.broker.peers import Peers, is_given_route
from ipc.errors import PeerProtocolError

READ_FRAMES: Final = 64
"""How many frames are taken before everything else has its turn."""
READ_BYTES: Final = 4 << 20
"""After so many bytes no other frame is taken: what one turn takes is in memory at once."""


class Incoming(NamedTuple):
    """A whole message: whose key, by which routing id; `body` is its first frame, the only one if `is_one`."""

    key: str
    route: bytes
    body: zmq.Frame
    size_bytes: int
    is_one: bool


class Source(Protocol):
    """What is used of `ipc.broker.sockets.Sockets`."""

    def receive(self) -> Incoming | None:
        """Return the next message; None when none waits."""

    def waits(self) -> bool:
        """Whether a message waits."""

    def descriptor_of(self, incoming: Incoming) -> int:
        """Return over which connection a message came; -1 where that isn't known any more."""

    def watch(self, peers: Peers) -> None:
        """Note which connections were made and closed since the last time."""


class _Gathered:
    """Messages of one peer, in a row."""

    __slots__ = ("key", "messages", "route", "size_bytes")

    def __init__(self, key: str, route: bytes, messages: list[FromWorker], size_bytes: int) -> None:
        self.key = key
        self.route = route
        self.messages = messages
        self.size_bytes = size_bytes

    def takes(self, key: str, route: bytes, more: int) -> bool:
        return self.key == key and self.route == route and len(self.messages) + more <= MAX_BATCH

    def event(self) -> Received:
        return Received(self.key, self.route, tuple(self.messages), self.size_bytes)


class Inbox:
    """Reads what has come, a turn at a time."""

    def __init__(self, source: Source, peers: Peers) -> None:
        """Read from `source`; what is taken from whom is up to `peers`."""
        self._source = source
        self._peers = peers
        self.is_empty = True
        """Whether the last `read` has taken all that had come."""
        self.frames = 0
        """How many frames it has taken."""

    def read(self) -> list[Received | Malformed]:
        """Return what has come, in its order, for one turn."""
        events: list[Received | Malformed] = []
        gathered: _Gathered | None = None
        read_bytes = 0
        receive = self._source.receive
        self.is_empty = False
        self.frames = 0
        for number in range(READ_FRAMES):
            # Where one comes at a time it is asked whether another waits: cheaper than an attempt in vain. Where many
            # do they are tried: to ask before each costs as much as reading it.
            incoming = None if number == 1 and not self._source.waits() else receive()
            if incoming is None:
                self.is_empty = True
                break
            self.frames = number + 1
            if not self._is_taken(incoming):
                continue
            key, route, _, size_bytes, _ = incoming
            messages, why = _decode(incoming)
            if gathered is not None and (why or not gathered.takes(key, route, len(messages))):
                events.append(gathered.event())
                gathered = None
            if why:
                events.append(Malformed(key, route, why, size_bytes))
            elif gathered is None:
                gathered = _Gathered(key, route, messages, size_bytes)
            else:
                gathered.messages += messages
                gathered.size_bytes += size_bytes
            read_bytes += size_bytes
            if read_bytes >= READ_BYTES:
                break
        if gathered is not None:
            events.append(gathered.event())
        return events

    def _is_taken(self, incoming: Incoming) -> bool:
        """Note a message; False if nothing is taken from who sent it."""
        peers, key, route = self._peers, incoming.key, incoming.route
        taken = peers.heard_again(key, route)
        if taken is None:
            self._source.watch(peers)  # a connection was accepted before anything came over it
            taken = peers.heard(key, route, self._source.descriptor_of(incoming))
        return taken


def _decode(incoming: Incoming) -> tuple[list[FromWorker], str]:
    """Return the messages of a frame, or why it isn't one."""
    if not is_given_route(incoming.route):
        return [], "a routing id of its own choice"
    if not incoming.is_one:
        return [], "a message of several frames"
    try:
        return unpack_from_worker(incoming.body.buffer), ""
    except PeerProtocolError as error:
        return [], str(error)
