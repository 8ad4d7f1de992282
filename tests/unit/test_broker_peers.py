"""The table of keys: one handshake for each announcement, one connection at a time, numbers that are used again."""

from __future__ import annotations

from ipc.broker.peers import Peers, is_given_route

ROUTE, OTHER = b"\0aaaa", b"\0bbbb"


def connected(
    peers: Peers, instance: str = "one-1", key: str = "key", route: bytes = ROUTE, descriptor: int = 7
) -> None:
    """Let an instance connect, and say something."""
    peers.admit(instance, key)
    assert peers.announce(instance)
    peers.accepted(descriptor)
    assert peers.shake(key)
    assert peers.heard(key, route, descriptor)


def test_a_key_shakes_hands_once_for_each_announcement() -> None:
    """Not before it is admitted, not before it is announced, and not twice."""
    peers = Peers()
    assert not peers.announce("one-1")
    assert not peers.shake("key")
    assert peers.admit("one-1", "key")
    assert not peers.shake("key")
    assert peers.announce("one-1")
    assert peers.shake("key")
    assert not peers.shake("key")


def test_names_and_keys_are_admitted_once() -> None:
    """The same instance or the same key is not admitted again until it was dismissed."""
    peers = Peers()
    assert peers.admit("one-1", "key")
    assert not peers.admit("one-1", "other")
    assert not peers.admit("two-1", "key")
    peers.dismiss("one-1")
    assert peers.admit("two-1", "key")
    assert peers.instance_of("key") == "two-1"


def test_while_there_is_a_connection_none_is_announced() -> None:
    """And when it is lost, one is."""
    peers = Peers()
    connected(peers)
    assert not peers.announce("one-1")
    peers.closed(7)
    assert not peers.announce("one-1")
    (lost,) = peers.take_lost()
    assert (lost.key, lost.route) == ("key", ROUTE)
    assert peers.announce("one-1")


def test_what_a_closed_connection_left_behind_makes_no_connection() -> None:
    """A frame that is read after the connection was taken as lost is dropped."""
    peers = Peers()
    connected(peers)
    peers.closed(7)
    peers.take_lost()
    assert not peers.heard("key", ROUTE, 7)
    assert peers.announce("one-1")


def test_a_number_that_is_used_again_is_another_connection() -> None:
    """The end of the earlier connection with that number doesn't end the later one, in whatever order they are met."""
    peers = Peers()
    connected(peers)
    peers.closed(7)
    connected(peers, "two-1", "other", OTHER, 7)
    (lost,) = peers.take_lost()
    assert lost.key == "key"
    assert peers.connection_of(OTHER) is not None
    peers.closed(7)
    (lost,) = peers.take_lost()
    assert lost.key == "other"


def test_the_end_of_somebody_unknown_ends_nobody() -> None:
    """A raw connection that closes has the number of one that follows."""
    peers = Peers()
    peers.accepted(7)
    peers.closed(7)
    connected(peers)
    assert peers.take_lost() == []
    assert peers.connection_of(ROUTE) is not None


def test_nothing_is_taken_from_who_is_ended_or_dismissed() -> None:
    """Neither frames nor handshakes; its connection is forgotten with it."""
    peers = Peers()
    connected(peers)
    peers.end("one-1")
    assert not peers.heard("key", ROUTE, 7)
    assert not peers.announce("one-1")
    peers.dismiss("one-1")
    assert peers.connection_of(ROUTE) is None
    assert not peers.heard("key", ROUTE, 7)
    peers.closed(7)
    assert peers.take_lost() == []


def test_a_second_route_of_one_key_is_told_but_not_tied() -> None:
    """The core ends who does that; the table keeps the first."""
    peers = Peers()
    connected(peers)
    assert peers.heard("key", OTHER, 8)
    assert peers.connection_of(OTHER) is None


def test_who_shook_hands_and_is_silent() -> None:
    """Is known by its key until its first frame."""
    peers = Peers()
    peers.admit("one-1", "key")
    peers.announce("one-1")
    peers.accepted(7)
    peers.shake("key")
    assert peers.silent() == ("key",)
    assert peers.open_links() == {7: None}
    peers.heard("key", ROUTE, 7)
    assert peers.silent() == ()
    assert peers.open_links()[7] is peers.connection_of(ROUTE)


def test_which_routes_libzmq_gives() -> None:
    """A zero byte and four more; anything else a peer chose."""
    assert is_given_route(b"\0abcd")
    assert not any(map(is_given_route, (b"", b"\0", b"\0abc", b"\0abcde", b"abcde", b"sink")))
