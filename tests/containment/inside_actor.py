"""Loaded in the zygote of `tests/inside_up.py`: an actor that runs the Python that the operator sends it, sealed.

Python in the worker stands for native code that has taken it over: it has the worker's keys, its libzmq and its one way
to the broker, and every layer is on. Nothing can be imported there any more, so it is here.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator
from types import TracebackType

import zmq

from ipc.broker import messages as m
from worker import actor
from worker.broker_link import BrokerLink, Unavailable

MARK = b"#!"
OPERATOR = "@operator"


class Inside:
    """What a script has to work with."""

    def __init__(self, link: BrokerLink) -> None:
        """Take over a worker's link."""
        self.link = link
        self.job = link._job
        self.now = time.monotonic
        self.seq = 1_000_000

    def ask(self, build: Callable[[int], m.FromWorker]) -> object:
        """Ask as the worker's own code does; returns the answer."""
        return self.link.ask(build, time.monotonic_ns() + 10 * 10**9)

    def raw(self, frame: bytes) -> None:
        """Send any bytes as one frame over the connection that there is."""
        assert self.link._socket is not None
        self.link._socket.send(frame)

    def say(self, *messages: m.FromWorker) -> None:
        """Send messages as one frame, whatever the link thinks."""
        self.raw(m.pack(messages))

    def hear(self, timeout_s: float = 10.0) -> list[m.ToWorker]:
        """Return what comes next over the connection that there is; nothing when the time is over."""
        assert self.link._socket is not None
        if not self.link._socket.poll(timeout_s * 1000):
            return []
        return m.unpack_to_worker(self.link._socket.recv())

    def hear_until(self, condition: Callable[[m.ToWorker], bool], timeout_s: float = 10.0) -> m.ToWorker | None:
        """Return the first message that is the right one; None when none comes in time."""
        until_s = self.now() + timeout_s
        while self.now() < until_s:
            for message in self.hear(until_s - self.now()):
                if condition(message):
                    return message
        return None

    def drop(self) -> None:
        """Throw the worker's own connection away: another one can be had then."""
        self.link._drop()
        # libzmq closes it in a thread of its own; until then the warden gives no other one.
        until_s = self.now() + 10
        while self.now() < until_s:
            try:
                socket.socket(socket.AF_UNIX, socket.SOCK_STREAM).close()
            except PermissionError:
                self.rest(0.005)
            else:
                return

    def dealer(
        self,
        keys: tuple[bytes, bytes] | None = None,
        curve: bool = True,
        routing_id: bytes = b"",
        queued: int = 1000,
    ) -> zmq.Socket[bytes]:
        """Connect anew, with keys and a routing id of one's own choice, by the way that the worker has."""
        endpoint = self.link._context.socket(zmq.DEALER)
        endpoint.linger = 0
        endpoint.reconnect_ivl = -1
        endpoint.rcvhwm = queued
        if curve:
            endpoint.curve_serverkey = self.job.server_key
            endpoint.curve_publickey, endpoint.curve_secretkey = keys or (self.job.public_key, self.job.secret_key)
        if routing_id:
            endpoint.routing_id = routing_id
        endpoint.connect(self.job.endpoint)
        return endpoint

    def greets(self, endpoint: zmq.Socket[bytes], timeout_s: float = 10.0) -> bool:
        """Say hello; whether a Welcome comes."""
        endpoint.send(m.pack([m.Hello(m.PROTOCOL)]))
        return bool(endpoint.poll(timeout_s * 1000)) and isinstance(m.unpack_to_worker(endpoint.recv())[0], m.Welcome)

    def rest(self, seconds: float) -> None:
        """Do nothing for a while; a sealed worker has no call to sleep by."""
        select.poll().poll(seconds * 1000)

    def read(self, endpoint: socket.socket, timeout_s: float = 20.0) -> bytes:
        """Return what comes over a bare connection, b"" at its end."""
        poll = select.poll()
        poll.register(endpoint, select.POLLIN)
        assert poll.poll(timeout_s * 1000)
        with contextlib.suppress(ConnectionError):
            return endpoint.recv(100)
        return b""

    def wire(self) -> socket.socket:
        """Return the bare connection, without libzmq."""
        endpoint = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        endpoint.connect("/broker")
        return endpoint


def word(answer: object) -> str:
    """What kind of answer that is: the code of a refusal, the type of all else."""
    return answer.code if isinstance(answer, m.Refused) else type(answer).__name__


def run(script: str, link: BrokerLink) -> str:
    """Run a script; what it has put into `result`, or how it failed."""
    names = (contextlib, m, os, pickle, select, socket, struct, time, zmq)
    scope: dict[str, object] = {module.__name__.rpartition(".")[2]: module for module in names}
    scope |= {"m": m, "at": Inside(link), "word": word, "Unavailable": Unavailable, "result": None}
    try:
        exec(compile(script, "script", "exec"), scope)
    except BaseException as error:  # whatever it is, it is told
        lines = [frame.tb_lineno for frame in _frames(error) if frame.tb_frame.f_code.co_filename == "script"]
        return f"{type(error).__name__}: {error} in line {lines}"
    return repr(scope["result"])


def _frames(error: BaseException) -> Iterator[TracebackType]:
    here = error.__traceback__
    while here is not None:
        yield here
        here = here.tb_next


def _handle(self: actor.Actor, epoch: int, message: m.Deliver | m.Callback) -> None:
    if not isinstance(message, m.Deliver) or message.sender != OPERATOR or not message.payload.startswith(MARK):
        _guest(self, epoch, message)
        return
    said = run(message.payload[len(MARK) :].decode(), self._link)
    if message.wants_answer:
        self._link.finish(epoch, m.Answer(message.delivery, said.encode()))
    else:
        os.write(1, said.replace("\n", " | ").encode() + b"\n")
        self._link.finish(epoch, m.Handled(message.delivery))


_guest = actor.Actor._handle
actor.Actor._handle = _handle  # type: ignore[method-assign]
