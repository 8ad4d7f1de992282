"""The broker's ends of its providers' sockets: frames out and answers in, never waited for, bounded.

What a call leads to is `providing`'s to say; this carries it out, and tells what came of it.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Final

import zmq

from ipc.broker.events import Provide, Provided
from ipc.broker.messages import MAX_PAYLOAD_BYTES
from ipc.broker.orders import EndProvider, ProviderTerms, ProviderUse
from ipc.broker.providing import Drop, HandOver, Providing, Step
from ipc.errors import PeerProtocolError
from ipc.provider.protocol import AROUND_BYTES, FrameReader, pack_frame, read_answer

READ_BYTES: Final = 256 * 1024
"""How much is read of one provider before everything else has its turn."""


class _Wire:
    """One socket: what of a frame is still to go out, and what of one has come."""

    __slots__ = ("out", "process", "reader", "socket")

    def __init__(self, connection: socket.socket, process: int, max_bytes: int) -> None:
        self.socket = connection
        self.process = process
        self.reader = FrameReader(max_bytes)
        self.out = memoryview(b"")


class ProviderLinks:
    """All of them; a link's number is its descriptor. `finished` hears of each call's end, `end` of who is to end."""

    def __init__(
        self, poller: zmq.Poller, finished: Callable[[Provided], None], end: Callable[[EndProvider], None]
    ) -> None:
        """Begin without providers."""
        self._poller = poller
        self._finished = finished
        self._end = end
        self._providing = Providing()
        self._terms: dict[str, ProviderTerms] = {}
        self._wires: dict[int, _Wire] = {}

    def define(self, terms: tuple[ProviderTerms, ...]) -> None:
        """Take the providers that there are."""
        self._terms = {each.name: each for each in terms}
        self._providing.define(terms)

    def add(self, name: str, process: int, descriptor: int, now_ns: int) -> None:
        """Take over the socket of a process that takes calls."""
        connection = socket.socket(fileno=descriptor)
        self._wires[descriptor] = _Wire(connection, process, self._terms[name].max_payload_bytes + AROUND_BYTES)
        self._poller.register(descriptor, zmq.POLLIN)
        self._carry_out(self._providing.arrived(descriptor, name, now_ns))

    def ended(self, process: int, now_ns: int) -> None:
        """A process has ended; what it has started and left may hold its end of the socket."""
        for descriptor in [number for number, wire in self._wires.items() if wire.process == process]:
            self._providing.leaves(descriptor)
            # What it had said before comes first: an answer in pieces at most.
            for _ in range(MAX_PAYLOAD_BYTES // READ_BYTES + 2):
                if not self._read(descriptor, now_ns):
                    break
            self._carry_out(self._providing.lost(descriptor))

    def away(self, name: str, reason: str) -> None:
        """None will come soon."""
        self._carry_out(self._providing.away(name, reason))

    def call(self, order: Provide, now_ns: int) -> None:
        """Have it done."""
        self._carry_out(self._providing.call(order, now_ns))

    def forget(self, instance: str) -> None:
        """An instance has ended."""
        self._carry_out(self._providing.forget(instance))

    def uses(self) -> tuple[ProviderUse, ...]:
        """How much was asked of each."""
        return self._providing.uses()

    def next_due_ns(self) -> int | None:
        """When `turn` has something to do though no socket is ready."""
        return self._providing.next_due_ns() if self._terms else None

    def turn(self, ready: dict[object, int], now_ns: int) -> None:
        """Read and write what can be, and see to what took too long; a broker without providers pays nothing."""
        if not self._terms:
            return
        for descriptor in ready.keys() & self._wires.keys():
            assert isinstance(descriptor, int)
            mask = ready[descriptor]
            if mask & zmq.POLLOUT:
                self._write(descriptor)
            if mask & ~zmq.POLLOUT:
                self._read(descriptor, now_ns)
        due_ns = self._providing.next_due_ns()
        if due_ns is not None and due_ns <= now_ns:
            self._carry_out(self._providing.due(now_ns))

    def _read(self, descriptor: int, now_ns: int) -> bool:
        """Take what has come; whether there may be more."""
        wire = self._wires.get(descriptor)
        if wire is None:
            return False
        providing = self._providing
        try:
            data = wire.socket.recv(READ_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self._carry_out(providing.lost(descriptor))
            return False
        try:
            for body in wire.reader.feed(data):
                if wire.out:
                    # What is left of that request would stand in front of the next one, and be read as part of it.
                    raise PeerProtocolError("an answer before it has read the request")
                self._carry_out(providing.answered(descriptor, read_answer(body), now_ns))
        except PeerProtocolError as error:
            self._carry_out(providing.broke(descriptor, str(error)))
            return False
        return True

    def _write(self, descriptor: int) -> None:
        wire = self._wires.get(descriptor)
        if wire is None:
            return
        try:
            while wire.out:
                wire.out = wire.out[wire.socket.send(wire.out, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL) :]
        except BlockingIOError:
            pass
        except OSError:
            wire.out = memoryview(b"")  # reading tells that it is gone
        self._poller.register(descriptor, zmq.POLLIN | zmq.POLLOUT if wire.out else zmq.POLLIN)

    def _carry_out(self, steps: list[Step]) -> None:
        for step in steps:
            match step:
                case HandOver(link, request):
                    self._wires[link].out = memoryview(pack_frame(request))
                    self._write(link)
                case Drop(link, provider, code, reason):
                    wire = self._wires.pop(link)
                    self._poller.unregister(link)
                    wire.socket.close()
                    self._end(EndProvider(provider, wire.process, code, reason))
                case Provided():
                    self._finished(step)
