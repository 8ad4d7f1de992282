"""The broker's ends of its providers' sockets, with real ones: pieces, ends, garbage, who doesn't read."""

from __future__ import annotations

import contextlib
import socket
import time

import pytest
import zmq

from ipc.broker.events import Provide, Provided
from ipc.broker.orders import EndProvider, ProviderTerms
from ipc.broker.provider_links import ProviderLinks
from ipc.provider.protocol import HEAD, Answer, FrameReader, pack_frame

LARGE = 2_600_000


class Stage:
    """One provider that this test plays, and the turns of a loop around it."""

    def __init__(self) -> None:
        """Hand a socket over."""
        self.poller = zmq.Poller()
        self.finished: list[Provided] = []
        self.ended: list[EndProvider] = []
        self.links = ProviderLinks(self.poller, self.finished.append, self.ended.append)
        self.links.define((ProviderTerms("rates", ("rates",), 30 * 10**9, LARGE),))
        ours, theirs = socket.socketpair()
        self.theirs = theirs
        theirs.setblocking(False)
        self.links.add("rates", 4, ours.detach(), time.monotonic_ns())

    def call(self, ticket: int, payload: bytes = b"?") -> None:
        """A component asks."""
        order = Provide(ticket, "a", "a-1", "rates", "read", (), payload, LARGE)
        self.links.call(order, time.monotonic_ns())

    def turn(self) -> None:
        """What can be read and written now."""
        self.links.turn(dict(self.poller.poll(10)), time.monotonic_ns())

    def receive(self, frames: int) -> list[bytes]:
        """What the provider gets, as far as these many frames."""
        reader, found = FrameReader(2 * LARGE), []
        until_s = time.monotonic() + 30
        while len(found) < frames:
            assert time.monotonic() < until_s
            self.turn()
            try:
                found += reader.feed(self.theirs.recv(1 << 16))
            except BlockingIOError:
                continue
        return found

    def send(self, data: bytes) -> None:
        """What the provider says, in as many pieces as it takes."""
        while data:
            with contextlib.suppress(BlockingIOError):
                data = data[self.theirs.send(data) :]
            self.turn()


@pytest.fixture
def stage():
    """One, whose sockets are closed afterwards."""
    made = Stage()
    yield made
    made.theirs.close()
    made.turn()


def test_the_largest_payloads_go_both_ways_in_pieces(stage: Stage) -> None:
    """Neither is waited for; the next call follows."""
    payload = bytes(range(256)) * (LARGE // 256)
    for ticket in (1, 2):
        stage.call(ticket, payload)
        (body,) = stage.receive(1)
        assert payload in body
        stage.send(pack_frame(Answer(ticket, payload)))
    assert stage.finished == [Provided(1, payload), Provided(2, payload)]
    assert stage.ended == []


def test_an_answer_in_pieces_is_one(stage: Stage) -> None:
    """Byte by byte."""
    stage.call(1)
    for byte in pack_frame(Answer(1, b"!")):
        assert stage.finished == []
        stage.send(bytes([byte]))
    assert stage.finished == [Provided(1, b"!")]


def test_an_end_is_met_at_once_also_in_the_middle_of_an_answer(stage: Stage) -> None:
    """Its call ends, and the supervisor hears which process it was."""
    stage.call(1)
    stage.send(pack_frame(Answer(1, b"!"))[:-1])
    stage.theirs.close()
    stage.turn()
    assert [(each.ticket, each.kind) for each in stage.finished] == [(1, "unavailable")]
    assert stage.ended == [EndProvider("rates", 4, "", "")]


def test_a_process_that_left_its_socket_to_another_is_met_all_the_same(stage: Stage) -> None:
    """The supervisor's word ends the call, though the socket stays open; said twice it is no news."""
    stage.call(1)
    with stage.theirs.dup():
        stage.theirs.close()
        stage.turn()
        assert stage.finished == []
        stage.links.ended(3, 0)
        assert stage.finished == []
        stage.links.ended(4, 0)
        stage.links.ended(4, 0)
    assert [(each.ticket, each.kind) for each in stage.finished] == [(1, "unavailable")]


def test_what_a_process_said_before_its_end_counts(stage: Stage) -> None:
    """Its last answer, also where the supervisor's word of its end is the first to be read."""
    stage.call(1)
    stage.receive(1)
    stage.call(2)
    payload = bytes(100_000)
    stage.theirs.setblocking(True)
    stage.theirs.sendall(pack_frame(Answer(1, payload)))
    stage.links.ended(4, 0)
    assert stage.finished == [Provided(1, payload)]
    assert [each.process for each in stage.ended] == [4]
    assert stage.links.uses()[0].waiting == 1, "the next one is for the next process"


@pytest.mark.parametrize(
    "data",
    [
        b"Hello, world\n",
        HEAD.pack(LARGE + 16 * 1024 + 1),
        HEAD.pack(3) + b"\xc1\xc1\xc1",
        pack_frame(Answer(7, b"!")),
        pack_frame(Answer(1, b"!")) + pack_frame(Answer(1, b"!")),
    ],
)
def test_garbage_ends_it_and_nothing_more_is_read(stage: Stage, data: bytes) -> None:
    """A text, a frame too large, no msgpack, another's number, an answer twice."""
    stage.call(1)
    stage.send(data)
    assert [(each.provider, each.process, each.code) for each in stage.ended] == [("rates", 4, "A1813")]
    assert [each.ticket for each in stage.finished] == [1]
    stage.turn()
    assert len(stage.ended) == 1


def test_who_reads_nothing_holds_nobody_up(stage: Stage) -> None:
    """What can't be sent stays; the broker goes on, and the time ends it."""
    stage.call(1, bytes(LARGE))
    for _ in range(3):
        stage.turn()
    assert stage.ended == []
    stage.links.turn({}, time.monotonic_ns() + 31 * 10**9)
    assert [each.code for each in stage.ended] == ["A1811"]
    assert [(each.ticket, each.kind) for each in stage.finished] == [(1, "timed-out")]


def test_an_answer_before_the_request_is_read_ends_it(stage: Stage) -> None:
    """What is left of it would stand in front of the next one, whose component could write a request there."""
    stage.call(1, bytes(LARGE))
    stage.call(2, b"another's")
    stage.send(pack_frame(Answer(1, b"!")))
    stage.turn()
    assert [(each.process, each.code, each.reason) for each in stage.ended] == [
        (4, "A1813", "an answer before it has read the request")
    ]
    assert [(each.ticket, each.kind) for each in stage.finished] == [(1, "unavailable")]
    assert stage.links.uses()[0].waiting == 1, "the other one is for the next process"
