"""Who may shake hands, and which connection is whose: the table of admitted keys. Pure.

A key passes the handshake if its instance was admitted and a connection of it announced, once per announcement. The
first frame ties the connection to the key; until it is gone no other one is announced.
"""

from __future__ import annotations

from typing import Final

from ipc.struct import Struct

ROUTE_BYTES: Final = 5
"""A routing id that libzmq chose: a zero byte and 32 bits (zmq_socket(3), ROUTER)."""


class Link(Struct, frozen=True):
    """One connection as libzmq's monitor knows it: numbers of descriptors are used again, so they are counted."""

    descriptor: int
    generation: int


class Connection(Struct):
    """A live connection: whose, by which routing id, over which link, and how many frames have come."""

    key: str
    route: bytes
    link: Link
    frames: int = 0


class Peer(Struct):
    """An admitted instance."""

    instance: str
    key: str
    announced: bool = False
    shaken: bool = False
    """A handshake was let through, and nothing has come over that connection yet."""
    ended: bool = False
    connection: Connection | None = None


class Peers:
    """The table. `descriptor` is the number by which libzmq knows a connection (ZMQ_SRCFD, its monitor).

    What the monitor has told is to be noted before a frame is: a connection was accepted before anything came over it.
    """

    def __init__(self) -> None:
        """Nobody may shake hands."""
        self._by_instance: dict[str, Peer] = {}
        self._by_key: dict[str, Peer] = {}
        self._by_route: dict[bytes, Connection] = {}
        self._by_link: dict[Link, Connection] = {}
        self._generations: dict[int, int] = {}
        self._open: dict[int, Connection | None] = {}
        self._closed: list[Link] = []
        self.failed = 0
        """Handshakes that failed and are not on record yet."""

    def admit(self, instance: str, key: str) -> bool:
        """Know an instance; False when its name or its key is known already."""
        if instance in self._by_instance or key in self._by_key:
            return False
        self._by_instance[instance] = self._by_key[key] = Peer(instance, key)
        return True

    def dismiss(self, instance: str) -> None:
        """Forget an instance: its key opens nothing any more."""
        peer = self._by_instance.pop(instance, None)
        if peer is not None:
            del self._by_key[peer.key]
            if peer.connection is not None:
                self._forget(peer.connection)

    def announce(self, instance: str) -> bool:
        """Let the instance's key shake hands once more; False if it is unknown, ended, or has a connection."""
        peer = self._by_instance.get(instance)
        if peer is None or peer.ended or peer.connection is not None:
            return False
        peer.announced = True
        return True

    def shake(self, key: str) -> bool:
        """Whether the holder of `key` may shake hands now; uses the announcement up."""
        peer = self._by_key.get(key)
        if peer is None or not peer.announced or peer.ended:
            return False
        peer.announced = False
        peer.shaken = True
        return True

    def end(self, instance: str) -> None:
        """Take nothing more from an instance, which is being ended."""
        peer = self._by_instance.get(instance)
        if peer is not None:
            peer.ended = True

    def accepted(self, descriptor: int) -> None:
        """Note that somebody has connected."""
        self._generations[descriptor] = self._generations.get(descriptor, 0) + 1
        self._open[descriptor] = None

    def closed(self, descriptor: int) -> None:
        """Note that a connection is closed; it counts until `take_lost`, for what has come over it and wasn't read."""
        self._open.pop(descriptor, None)
        self._closed.append(Link(descriptor, self._generations.get(descriptor, 0)))

    def heard(self, key: str, route: bytes, descriptor: int) -> bool:
        """Note a frame; False if nothing is taken from who sent it."""
        known = self.heard_again(key, route)
        if known is not None:
            return known
        peer = self._by_key.get(key)
        if peer is None or peer.ended:
            return False
        if peer.connection is None:
            if not peer.shaken:
                return False  # left behind by a connection that is gone
            peer.shaken = False
            link = Link(descriptor, self._generations.get(descriptor, 0))
            peer.connection = Connection(key, route, link, 1)
            self._by_route[route] = self._by_link[link] = peer.connection
            if descriptor in self._open:
                self._open[descriptor] = peer.connection
        return True

    def heard_again(self, key: str, route: bytes) -> bool | None:
        """Note a frame of a connection that is known as that key's, as `heard` does; None where it isn't known."""
        connection = self._by_route.get(route)
        if connection is None or connection.key != key:
            return None
        connection.frames += 1
        return not self._by_key[key].ended

    def take_lost(self) -> list[Connection]:
        """Forget the connections that were closed, and return those that were somebody's."""
        closed, self._closed = self._closed, []
        lost = [self._by_link[link] for link in closed if link in self._by_link]
        for connection in lost:
            self._by_key[connection.key].connection = None
            self._forget(connection)
        return lost

    def connection_of(self, route: bytes) -> Connection | None:
        """Return the live connection with that routing id."""
        return self._by_route.get(route)

    def open_links(self) -> dict[int, Connection | None]:
        """Return descriptor → connection, None for one over which nothing has come yet."""
        return self._open

    def silent(self) -> tuple[str, ...]:
        """Return the keys that shook hands and have not sent a whole message yet."""
        return tuple(peer.key for peer in self._by_key.values() if peer.shaken and not peer.ended)

    def announced(self) -> tuple[str, ...]:
        """Return the instances whose connection was announced and has not shaken hands."""
        return tuple(peer.instance for peer in self._by_key.values() if peer.announced)

    def instance_of(self, key: str) -> str | None:
        """Return whose key that is."""
        peer = self._by_key.get(key)
        return None if peer is None else peer.instance

    def _forget(self, connection: Connection) -> None:
        self._by_route.pop(connection.route, None)
        self._by_link.pop(connection.link, None)


def is_given_route(route: bytes) -> bool:
    """Whether libzmq chose this routing id; a peer that chose its own could choose another's."""
    return len(route) == ROUTE_BYTES and route[0] == 0
