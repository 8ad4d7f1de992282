"""The worker's end of its connection to the broker: a ZeroMQ DEALER with CURVE, one socket for each connection.

A connection that was lost is never taken up again by libzmq, which would send what it still holds before our Hello:
its socket is thrown away with all that lies in it, and the next one begins with Hello. Sockets come from the warden, so
an attempt costs nothing but asking.

One thread uses a link at a time: it holds `lock`. That is the guest's thread, or, while a guest is busy, the one that
keeps its time (`worker.call_clock`).
"""

from __future__ import annotations

import select
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

import zmq

from ipc.broker.messages import (
    MAX_BATCH,
    MAX_FRAME_BYTES,
    MAX_PAYLOAD_BYTES,
    PROTOCOL,
    Accepted,
    Answer,
    Bye,
    Callback,
    Deliver,
    Describe,
    ErrorKind,
    FromWorker,
    Handled,
    Health,
    Hello,
    Names,
    Numbers,
    Ping,
    Refused,
    ToWorker,
    Value,
    Welcome,
    pack,
    unpack_to_worker,
)
from ipc.errors import PeerProtocolError
from ipc.messages import ActorJob

Answered = Accepted | Value | Names | Numbers | Refused
"""What answers something that was asked."""

ANSWER_TIMEOUT_NS: Final = 5_000_000_000
"""How long an answer of the broker's is waited for, connecting included; a guest's own deadline can be nearer."""
_REQUESTS_OUTLIVE_NS: Final = 800_000_000
"""How long requests outlive a lost connection: if the broker is back by then, it may still know them."""
_RETRY_FIRST_NS: Final = 10_000_000
_RETRY_LAST_NS: Final = 320_000_000
_SILENT_HEARTBEATS: Final = 4
_WELCOME_NS: Final = 2_000_000_000
"""How long a Welcome is waited for before the connection is tried anew."""
_LINGER_MS: Final = 500
_HANDLED_TOGETHER: Final = 8
_NEVER_NS: Final = 1 << 62
_EVENTS: Final = (
    zmq.EVENT_DISCONNECTED
    | zmq.EVENT_CLOSED
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)
_EVENT: Final = struct.Struct("=HI")


class Unavailable(Exception):  # noqa: N818 # an outcome: the guest gets it as an error value
    """The broker can't be asked now, or did not answer: what was asked may or may not be done."""


class BrokerLink:
    """One worker's link; see the module for who may use it when."""

    def __init__(self, job: ActorJob, wake_up: int) -> None:
        """Connect, as far as that goes at once; `wake_up` is a descriptor whose readability ends each `wait`."""
        self.lock = threading.Lock()
        self.health = "unknown"
        """What a Ping is answered with."""
        self._description: Describe | None = None
        self._job = job
        self._wake_up = wake_up
        self._context = zmq.Context(io_threads=1)
        self._socket: zmq.Socket[bytes] | None = None
        self._monitor: zmq.Socket[bytes] | None = None
        self._descriptors = (-1, -1)
        self._poll = select.poll()
        self._wake_up_poll = select.poll()
        """As `_poll`, and the wake-up beside."""
        self._wake_up_poll.register(wake_up, select.POLLIN)
        self._greeting = False
        self._pinged = False
        self._ready = False
        self._epoch = 0
        self._heartbeat_ns = 0
        self._heard_ns = 0
        self._generation = 0
        """Counts the connections that were lost."""
        self._retry_ns = 0
        self._retry_wait_ns = _RETRY_FIRST_NS
        self._seq = 0
        self._awaited = 0
        self._answers: list[Answered] = []
        self._inbox: deque[tuple[int, Deliver | Callback]] = deque()
        self._outbox: list[FromWorker] = []
        self._requests: set[int] = set()
        self._requests_end_ns = 0
        self._connect()

    # -- what the guest's thread does ---------------------------------------------------------------------------------

    def greet(self) -> None:
        """Say Hello, if it wasn't said: from here on there is a session."""
        with self.lock:
            if not self._greeting:
                self._greeting = True
                self._say_hello()

    def ask(self, build: Callable[[int], FromWorker], deadline_ns: int) -> Answered:
        """Ask the broker and wait for its answer; deliveries that come meanwhile are kept for later.

        Raises Unavailable.
        """
        self.greet()
        with self.lock:
            deadline_ns = min(deadline_ns, time.monotonic_ns() + ANSWER_TIMEOUT_NS)
            while not self._ready:
                if not self._turn(deadline_ns):
                    raise Unavailable("the broker can't be reached")
            self._seq += 1
            self._awaited = self._seq
            self._answers.clear()
            generation = self._generation
            self._put(build(self._seq))
            self._flush()
            try:
                while not self._answers:
                    if generation != self._generation:
                        raise Unavailable("the broker went away before it answered")
                    if not self._turn(deadline_ns):
                        raise Unavailable("the broker did not answer in time")
                return self._answers.pop()
            finally:
                self._awaited = 0

    def forget(self, correlation: int) -> bool:
        """Take back what has come for a request; False when nothing has, and the broker must be asked to cancel it."""
        with self.lock:
            for item in self._inbox:
                if isinstance(item[1], Callback) and item[1].correlation == correlation:
                    self._inbox.remove(item)
                    return True
            return False

    def note_cancelled(self, correlation: int) -> None:
        """The broker has cancelled a request: nothing comes for it."""
        with self.lock:
            self._requests.discard(correlation)

    def take(self) -> tuple[int, Deliver | Callback] | None:
        """Return what came first and was not taken yet, with the epoch that it belongs to."""
        with self.lock:
            if not self._inbox:
                self._flush()
                self._receive()
            return self._inbox.popleft() if self._inbox else None

    def wait(self) -> bool:
        """Wait for a message of any kind, or the wake-up; False for the wake-up."""
        with self.lock:
            self._flush()
            if self._inbox:
                return not self.is_woken()
            return self._turn(_NEVER_NS, self._wake_up_poll)

    def is_woken(self) -> bool:
        """Whether the wake-up is there."""
        poll = select.poll()
        poll.register(self._wake_up, select.POLLIN)
        return bool(poll.poll(0))

    def finish(self, epoch: int, message: Handled | Answer) -> None:
        """Say that a delivery is done with; a broker of another epoch has never heard of it."""
        with self.lock:
            if epoch == self._epoch:
                self._put(message)
                # Somebody waits for an answer. That a message was handled can wait for a few others.
                if isinstance(message, Answer) or not self._inbox or len(self._outbox) >= _HANDLED_TOGETHER:
                    self._flush()

    def was_pinged(self) -> bool:
        """Whether a Ping was answered since this was asked: time to look how the component is."""
        pinged, self._pinged = self._pinged, False
        return pinged

    def tell_health(self, health: str) -> None:
        """Say how the component is, if that is news."""
        with self.lock:
            if health != self.health:
                self.health = health
                self._put(Health(health))

    def describe(self, description: Describe) -> None:
        """Say what the component is, on this connection and on those that come."""
        with self.lock:
            self._description = description
            self._put(description)

    def close(self, in_order: bool) -> None:
        """End the session; `in_order` says so to the broker. Waits until what was said is on its way."""
        with self.lock:
            if in_order:
                self._put(Bye())
            linger_ms = _LINGER_MS if self._ready else 0
            self._flush()
            self._drop(linger_ms)
            self._context.term()

    # -- what the thread does that keeps time --------------------------------------------------------------------------

    def attend(self) -> None:
        """Take in what has come and answer Pings, unless the other thread is about to."""
        if self.lock.acquire(blocking=False):
            try:
                self._receive()
                self._turn(0)
            finally:
                self.lock.release()

    # -- with the lock -------------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        job = self._job
        endpoint = self._context.socket(zmq.DEALER)
        endpoint.curve_serverkey = job.server_key
        endpoint.curve_publickey = job.public_key
        endpoint.curve_secretkey = job.secret_key
        endpoint.linger = 0
        endpoint.reconnect_ivl = -1
        endpoint.maxmsgsize = MAX_FRAME_BYTES
        monitor = endpoint.get_monitor_socket(_EVENTS)
        endpoint.connect(job.endpoint)
        self._socket, self._monitor = endpoint, monitor
        self._descriptors = (endpoint.FD, monitor.FD)
        for descriptor in self._descriptors:
            self._poll.register(descriptor, select.POLLIN)
            self._wake_up_poll.register(descriptor, select.POLLIN)
        self._heard_ns = time.monotonic_ns()
        if self._greeting:
            self._say_hello()
        self._heed_monitor()  # as it is waited for from here on: found empty once

    def _say_hello(self) -> None:
        if self._socket is not None:
            self._heard_ns = time.monotonic_ns()
            self._socket.send(pack([Hello(PROTOCOL, self._epoch)]), zmq.NOBLOCK)

    def _drop(self, linger_ms: int = 0) -> None:
        """Throw the connection away; the next one is tried for a little later."""
        if self._socket is None or self._monitor is None:
            return
        for descriptor in self._descriptors:
            self._poll.unregister(descriptor)
            self._wake_up_poll.unregister(descriptor)
        self._descriptors = (-1, -1)
        self._socket.disable_monitor()
        self._monitor.close(0)
        self._socket.close(linger_ms)
        self._socket = self._monitor = None
        now_ns = time.monotonic_ns()
        if self._ready:
            self._ready = False
            self._requests_end_ns = now_ns + _REQUESTS_OUTLIVE_NS
            self._generation += 1
        self._retry_ns = now_ns + self._retry_wait_ns
        self._retry_wait_ns = min(2 * self._retry_wait_ns, _RETRY_LAST_NS)

    def _turn(self, deadline_ns: int, poll: select.poll | None = None) -> bool:
        """Do what is due, wait until something has come, and take it in; False when the time was over, or was woken."""
        poll = poll or self._poll
        while True:
            kept = len(self._inbox)
            now_ns = time.monotonic_ns()
            until_ns = min(deadline_ns, self._do_due(now_ns))
            # Last before the wait: a descriptor of libzmq's tells only of what comes after its socket was found empty.
            if self._receive() or len(self._inbox) > kept:
                return True
            ready = poll.poll(None if until_ns == _NEVER_NS else max(0, until_ns - now_ns + 999_999) // 1_000_000)
            descriptors = [descriptor for descriptor, _ in ready]
            if self._descriptors[1] in descriptors:
                self._heed_monitor()
            elif self._wake_up in descriptors or (not ready and time.monotonic_ns() >= deadline_ns):
                return False

    def _do_due(self, now_ns: int) -> int:
        """Connect, or give up waiting, when it is time; returns when something is due next."""
        if self._socket is not None and now_ns >= self._silence_ends_ns():
            self._drop()
        if self._socket is None and now_ns >= self._retry_ns:
            self._connect()
        # A connection can be over as soon as it was tried.
        due_ns = self._retry_ns if self._socket is None else self._silence_ends_ns()
        if not self._ready and self._requests:
            if now_ns >= self._requests_end_ns:
                self._fail_requests("the broker is away")
            else:
                due_ns = min(due_ns, self._requests_end_ns)
        return due_ns

    def _silence_ends_ns(self) -> int:
        """When a connection on which nothing is heard counts as lost."""
        if self._ready:
            return self._heard_ns + _SILENT_HEARTBEATS * self._heartbeat_ns if self._heartbeat_ns else _NEVER_NS
        return self._heard_ns + _WELCOME_NS if self._greeting else _NEVER_NS

    def _heed_monitor(self) -> None:
        lost = False
        try:
            while self._monitor is not None:
                event = self._monitor.recv_multipart(zmq.NOBLOCK)
                lost = lost or bool(_EVENT.unpack(event[0])[0] & _EVENTS)
        except zmq.Again:
            pass
        if lost:
            # What came before the end counts.
            self._receive()
            self._drop()

    def _receive(self) -> bool:
        """Take in every frame that is here."""
        found = False
        while self._socket is not None:
            try:
                frame = self._socket.recv(zmq.NOBLOCK)
                for message in unpack_to_worker(frame):
                    self._take_in(message)
            except zmq.Again:
                break
            except PeerProtocolError:
                self._drop()
            found = True
        if found:
            self._heard_ns = time.monotonic_ns()
        return found

    def _take_in(self, message: ToWorker) -> None:
        match message:
            case Deliver():
                self._inbox.append((self._epoch, message))
            case Callback():
                if message.correlation in self._requests:
                    self._requests.discard(message.correlation)
                    self._inbox.append((self._epoch, message))
            case Ping():
                self._pinged = True
                self._put(Health(self.health))
                self._flush()
            case Welcome():
                self._take_welcome(message)
            case _:
                if message.seq == self._awaited:
                    self._answers.append(message)
                    if isinstance(message, Accepted) and message.correlation:
                        self._requests.add(message.correlation)

    def _take_welcome(self, welcome: Welcome) -> None:
        if welcome.epoch != self._epoch:
            # It knows nothing of what was asked or delivered before.
            self._fail_requests("the broker was restarted")
            self._outbox.clear()
            self._epoch = welcome.epoch
        self._heartbeat_ns = welcome.heartbeat_ms * 1_000_000
        self._retry_wait_ns = _RETRY_FIRST_NS
        self._ready = True
        if self.health != "unknown":
            self._put(Health(self.health))
        if self._description is not None:
            self._put(self._description)
        self._flush()

    def _fail_requests(self, reason: str) -> None:
        for correlation in sorted(self._requests):
            self._inbox.append((self._epoch, Callback(correlation, None, ErrorKind.UNAVAILABLE, reason)))
        self._requests.clear()

    def _put(self, message: FromWorker) -> None:
        self._outbox.append(message)

    def _flush(self) -> None:
        """Send what was put, in as few frames as it fits in; it stays where it is while there is no session."""
        if not self._outbox or not self._ready or self._socket is None:
            return
        try:
            for batch in _batches(self._outbox):
                self._socket.send(pack(batch), zmq.NOBLOCK)
        except zmq.Again:
            # It takes nothing any more: gone, which the monitor is about to say, or stuck.
            self._drop()
        self._outbox.clear()


def _batches(messages: list[FromWorker]) -> Iterator[list[FromWorker]]:
    batch: list[FromWorker] = []
    size_bytes = 0
    for message in messages:
        payload_bytes = _payload_bytes(message)
        if batch and (len(batch) == MAX_BATCH or size_bytes + payload_bytes > MAX_PAYLOAD_BYTES):
            yield batch
            batch, size_bytes = [], 0
        batch.append(message)
        size_bytes += payload_bytes
    yield batch


def _payload_bytes(message: FromWorker) -> int:
    match message:
        case Answer() | Handled():
            payload = message.payload if isinstance(message, Answer) else None
            return len(payload or b"") + 4 * len(message.failure)
    return 0  # of what is asked there is one at a time
