"""The way to the broker: who is expected, what is given, and answers that come too late."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipc.broker.announcing import Connecting, Expected
from ipc.channel import Channel
from ipc.warden import broker_door
from ipc.warden.broker_door import BrokerDoor, Connection


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    """A socket where a broker would listen."""
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(tmp_path / "s"))
        one.listen()
        yield one


@pytest.fixture
def door(listener: socket.socket) -> Iterator[tuple[BrokerDoor, Channel]]:
    """A door that leads there, and the broker's end of its channel."""
    ours, theirs = Channel.pair()
    door = BrokerDoor()
    door.lead_to(listener.getsockname(), ours)
    yield door, theirs
    theirs.close()
    ours.close()


def answering(channel: Channel, *answers: Expected) -> threading.Thread:
    """Answer that many announcements."""

    def serve() -> None:
        for answer in answers:
            channel.receive((Connecting,))
            channel.send(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


def test_a_worker_that_is_expected_is_connected(door: tuple[BrokerDoor, Channel], listener: socket.socket) -> None:
    """It is announced by its name, and gets a live socket; one that is not expected gets a dead one."""
    thread = answering(door[1], Expected("w", True), Expected("w", False))
    connection = Connection(door[0], "w")
    given = connection.open()
    peer, _ = listener.accept()
    with given, peer:
        connection.given(9)
        assert (connection.number, connection.is_at(given.fileno())) == (9, True)
        assert (connection.take_connected(), connection.take_connected()) == (True, False)
        peer.close()
        assert not connection.is_at(given.fileno())
    with connection.open() as dead:
        thread.join()
        assert connection.number == -1
        assert not connection.take_connected()
        assert not connection.is_at(dead.fileno())


def test_a_warden_takes_over_what_one_before_it_gave() -> None:
    """A live socket counts as connected and a dead one doesn't; a worker's channel was never given by a warden."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    connection = Connection(BrokerDoor(), "w")
    with near:
        with far:
            connection.take_over(7, near.fileno())
            assert (connection.number, connection.is_at(near.fileno())) == (7, True)
            assert (connection.take_connected(), connection.take_connected()) == (True, False)
        connection.take_over(7, near.fileno())
        assert not connection.take_connected()
    channel, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with channel, other:
        connection = Connection(BrokerDoor(), "w")
        connection.take_over(3, channel.fileno())
        assert connection.number == -1


def test_without_a_broker_the_socket_is_dead() -> None:
    """Before the first has come, after its channel was closed, and where nobody listens."""
    door = BrokerDoor()
    with Connection(door, "w").open() as one, pytest.raises(BrokenPipeError):
        one.send(b"x")
    ours, theirs = Channel.pair()
    door.lead_to("/nonexistent", ours)
    thread = answering(theirs, Expected("w", True))
    assert door.connect("w") is None
    thread.join()
    theirs.close()
    assert door.connect("w") is None
    ours.close()


def test_a_late_answer_is_not_another_workers(
    door: tuple[BrokerDoor, Channel], listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker answers the first announcement when the second has been made: each is counted off."""
    monkeypatch.setattr(broker_door, "_ANSWER_TIMEOUT_S", 0.0)
    assert door[0].connect("first") is None
    monkeypatch.setattr(broker_door, "_ANSWER_TIMEOUT_S", 20.0)

    def serve() -> None:
        for allowed in (True, False):
            message, _ = door[1].receive((Connecting,))
            assert isinstance(message, Connecting)
            door[1].send(Expected(message.instance, allowed))

    thread = threading.Thread(target=serve)
    thread.start()
    assert door[0].connect("second") is None
    thread.join()


def test_another_broker_takes_the_place_of_the_first(door: tuple[BrokerDoor, Channel], listener: socket.socket) -> None:
    """Who waits for the first one's answer is told at once that it is gone."""
    waiting = threading.Event()
    found: list[socket.socket | None] = []

    def wait() -> None:
        waiting.set()
        found.append(door[0].connect("w"))

    thread = threading.Thread(target=wait)
    thread.start()
    door[1].receive((Connecting,))
    ours, theirs = Channel.pair()
    door[0].lead_to(listener.getsockname(), ours)
    thread.join()
    assert found == [None]
    serving = answering(theirs, Expected("w", True))
    given = door[0].connect("w")
    serving.join()
    assert given is not None
    given.close()
    theirs.close()
    ours.close()
    assert os.path.exists(listener.getsockname())
