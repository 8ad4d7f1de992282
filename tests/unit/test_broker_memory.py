"""Who is named when the broker's memory is high, with real sockets: whoever fills it, and nobody who only computes."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest

from ipc.broker.memory import LOOK_NS, STUCK_LOOKS, STUCK_LOOKS_CRITICAL, MemoryWatch
from supervisor.run.governor import HELD_MAX_NS


@contextlib.contextmanager
def watching(limit_bytes: int) -> Iterator[MemoryWatch]:
    """One for which memory is high: critical for a small limit."""
    made = MemoryWatch(limit_bytes)
    assert made.is_high()
    yield made
    made.close()


@pytest.fixture
def watch() -> Iterator[MemoryWatch]:
    """One for which memory is high at any time, and critical."""
    with watching(1 << 20) as made:
        yield made


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The broker's end of a connection, which doesn't wait, and a peer's."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        yield ours, theirs


def fill(ours: socket.socket) -> None:
    """Send until the socket takes no more."""
    with contextlib.suppress(BlockingIOError):
        while True:
            ours.send(b"x" * 8_192)


def named(watch: MemoryWatch, ours: socket.socket) -> list[int | None]:
    """Who is to be cut, in so many looks."""
    return [watch.look_unread([ours.fileno()]) for _ in range(STUCK_LOOKS_CRITICAL + 1)]


def test_who_has_a_question_or_some_messages_unread_is_not_named(watch, pair) -> None:
    """A component that computes for a while, or is held for its CPU time, reads nothing and fills nothing."""
    ours, _ = pair
    for size_bytes in (10, 100_000):
        ours.send(b"x" * size_bytes)
        assert set(named(watch, ours)) == {None}


def test_who_reads_nothing_of_a_full_socket_is_named(watch, pair) -> None:
    """Only then something is kept for it that nobody tells of; one that has read a little begins anew."""
    ours, theirs = pair
    fill(ours)
    assert named(watch, ours) == [None] * STUCK_LOOKS_CRITICAL + [ours.fileno()]
    assert theirs.recv(1 << 17)
    assert watch.look_unread([ours.fileno()]) is None
    fill(ours)
    assert named(watch, ours)[:-1] == [None] * STUCK_LOOKS_CRITICAL


def test_who_is_held_for_its_cpu_time_has_time_to_read(pair) -> None:
    """What others have sent it may fill its socket, and it goes on before it is blamed, unless there is no time."""
    ours, _ = pair
    fill(ours)
    assert STUCK_LOOKS * LOOK_NS > HELD_MAX_NS
    with watching(MemoryWatch(1 << 30).data_bytes() * 4 // 3) as high:
        looks = [high.look_unread([ours.fileno()]) for _ in range(STUCK_LOOKS + 1)]
    assert looks == [None] * STUCK_LOOKS + [ours.fileno()]
