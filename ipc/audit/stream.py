"""The producer's end of the audit stream: events queue here until the writer of the log has made them durable.

The socket lives in one thread. Callers put packed events into a bounded queue; a full queue makes them wait, and after
their deadline they get an AuditError: nothing is ever dropped. What was not acknowledged is sent again after a
reconnection, and after a second without progress on a new socket; the writer drops what it has already.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable

import zmq

from ipc.audit.errors import AuditLogError
from ipc.audit.event import AuditEvent
from ipc.audit.protocol import (
    ACK,
    MAX_BATCH_BYTES,
    MAX_BATCH_EVENTS,
    MAX_FRAME_BYTES,
    REFUSED,
    STREAM_ID_BYTES,
    WAIT,
    Batch,
    pack_batch,
    pack_event,
    unpack_reply,
)
from ipc.errors import PeerProtocolError

QUEUE_EVENTS = 8192
QUEUE_BYTES = 8 * 1024 * 1024
QUEUE_DEADLINE_S = 5.0
STALL_NS = 1_000_000_000
"""Without progress for so long, what is not acknowledged is sent again over a new socket."""
REFUSALS_KEPT = 1024

_HINT = "see what the log says of itself: airssys audit verify; df -h of its directory"


class AuditClient:
    """A producer's connection to the audit writer. Thread-safe; make and use it in one process (no fork)."""

    def __init__(
        self,
        endpoint: str,
        server_key: bytes,
        public_key: bytes,
        secret_key: bytes,
        *,
        queue_events: int = QUEUE_EVENTS,
        queue_bytes: int = QUEUE_BYTES,
        queue_deadline_s: float = QUEUE_DEADLINE_S,
        on_progress: Callable[[], None] | None = None,
    ) -> None:
        """Connect to `endpoint` (ipc://…) with Z85 CURVE keys (RFC 32); returns at once, the connection follows.

        `on_progress` is called from the stream's thread when events became durable, or can't any more; it never waits.
        """
        self._endpoint = endpoint
        self._keys = (server_key, public_key, secret_key)
        self._queue_events = queue_events
        self._queue_bytes = queue_bytes
        self._queue_deadline_s = queue_deadline_s
        self._on_progress = on_progress
        self._stream = os.urandom(STREAM_ID_BYTES)
        self._changed = threading.Condition()
        # Everything below is guarded by _changed, except what only the thread touches (_sent, the sockets).
        self._pending: deque[bytes] = deque()
        self._pending_bytes = 0
        self._acked = 0
        self._last = 0
        self._refused: dict[int, str] = {}
        self._why_waiting = ""
        self._stopping = False
        self._broken = ""
        self._sent = 0
        self._tried = 0
        self._not_before_ns = 0
        self._wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._context = zmq.Context()
        # The context's threads start with its first socket: made here, so that a sandbox may be closed behind us.
        self._socket, self._monitor = self._connect()
        self._thread = threading.Thread(target=self._run, name="audit-stream", daemon=True)
        self._thread.start()

    # -- any thread ----------------------------------------------------------------------------------------------------

    def record(self, event: AuditEvent) -> int:
        """Queue an event and return its position; waits while the queue is full, AuditError when it stays so."""
        return self._enqueue(pack_event(event))

    def try_record(self, event: AuditEvent) -> int | None:
        """As `record`, without ever waiting: None when the queue is full. For who asks `acknowledged` later."""
        packed = pack_event(event)
        with self._changed:
            self._check_alive()
            if len(self._pending) >= self._queue_events or self._pending_bytes + len(packed) > self._queue_bytes:
                return None
            position = self._append(packed)
        self._wake()
        return position

    @property
    def acknowledged(self) -> int:
        """The position up to which everything is durable, or was refused; AuditError when the stream broke."""
        with self._changed:
            self._check_alive()
            return self._acked

    def take_refusal(self, position: int) -> str | None:
        """Return why the event at an acknowledged position was refused, once; None for one that was recorded."""
        with self._changed:
            return self._refused.pop(position, None)

    def record_durable(self, event: AuditEvent, timeout_s: float = 5.0) -> None:
        """Return when the event is durable; AuditError when that can't be known within `timeout_s`, or it was refused.

        After an error the event may still come to be recorded: the caller must not do what it announces.
        """
        deadline_s = time.monotonic() + timeout_s
        position = self._enqueue(pack_event(event))
        self._wait_for(position, deadline_s)
        with self._changed:
            why = self._refused.pop(position, None)
        if why is not None:
            raise AuditLogError(f"the audit log refused the event: {why}")

    def flush(self, timeout_s: float = 5.0) -> None:
        """Return when everything that was recorded so far is durable; AuditError after `timeout_s`."""
        self._wait_for(self._last, time.monotonic() + timeout_s)

    @property
    def unacknowledged(self) -> int:
        """How many events are not known to be durable yet."""
        return self._last - self._acked

    def close(self, timeout_s: float = 5.0) -> None:
        """Flush and disconnect; AuditError if something could not be flushed, after disconnecting all the same."""
        if self._stopping:
            return
        try:
            self.flush(timeout_s)
        finally:
            with self._changed:
                self._stopping = True
            self._wake()
            self._thread.join()
            self._context.destroy(linger=0)
            os.close(self._wake_fd)

    def _enqueue(self, packed: bytes) -> int:
        deadline_s = time.monotonic() + self._queue_deadline_s
        with self._changed:
            while (
                len(self._pending) >= self._queue_events or self._pending_bytes + len(packed) > self._queue_bytes
            ) and not (self._broken or self._stopping):
                left_s = deadline_s - time.monotonic()
                if left_s <= 0:
                    raise AuditLogError(
                        f"{len(self._pending)} audit events wait to be written and no more fit{self._because()}",
                        hint=_HINT,
                    )
                self._changed.wait(left_s)
            self._check_alive()
            position = self._append(packed)
        self._wake()
        return position

    def _append(self, packed: bytes) -> int:
        self._last += 1
        self._pending.append(packed)
        self._pending_bytes += len(packed)
        return self._last

    def _wait_for(self, position: int, deadline_s: float) -> None:
        with self._changed:
            while self._acked < position:
                self._check_alive()
                left_s = deadline_s - time.monotonic()
                if left_s <= 0:
                    waiting = self._last - self._acked
                    raise AuditLogError(
                        f"{waiting} audit events were not acknowledged in time{self._because()}", hint=_HINT
                    )
                self._changed.wait(left_s)

    def _check_alive(self) -> None:
        if self._broken or self._stopping:
            raise AuditLogError(self._broken or "the audit stream was closed", fatal=bool(self._broken))

    def _because(self) -> str:
        return f": {self._why_waiting}" if self._why_waiting else ": the audit writer does not answer"

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_write(self._wake_fd, 1)

    # -- the thread ----------------------------------------------------------------------------------------------------

    def _connect(self) -> tuple[zmq.Socket[bytes], zmq.Socket[bytes]]:
        dealer: zmq.Socket[bytes] = self._context.socket(zmq.DEALER)
        server_key, public_key, secret_key = self._keys
        dealer.curve_serverkey, dealer.curve_publickey, dealer.curve_secretkey = server_key, public_key, secret_key
        dealer.zap_domain = b"airssys.audit.client"
        dealer.linger = 0
        dealer.immediate = True  # queue to a live connection only: what waits, waits with us
        dealer.sndhwm = 64
        dealer.rcvhwm = 256
        dealer.maxmsgsize = MAX_FRAME_BYTES
        dealer.reconnect_ivl = 10
        dealer.reconnect_ivl_max = 500
        monitor: zmq.Socket[bytes] = dealer.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
        dealer.connect(self._endpoint)
        return dealer, monitor

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._turn()
        except Exception as error:
            with self._changed:
                self._broken = f"the audit stream of this process broke: {error!r}"
                self._changed.notify_all()
            if self._on_progress is not None:
                self._on_progress()
        finally:
            self._disconnect()

    def _disconnect(self) -> None:
        self._socket.disable_monitor()
        self._monitor.close(linger=0)
        self._socket.close(linger=0)

    def _turn(self) -> None:
        """Send what can be sent, and read what came; ends up on a new socket when the writer is silent for too long."""
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._monitor, zmq.POLLIN)
        poller.register(self._wake_fd, zmq.POLLIN)
        progress_ns = time.monotonic_ns()
        while not self._stopping:
            now_ns = time.monotonic_ns()
            blocked = now_ns >= self._not_before_ns and not self._send()
            poller.modify(self._socket, zmq.POLLIN | zmq.POLLOUT if blocked else zmq.POLLIN)
            idle = self._acked == self._last
            timeout_ms = -1 if idle else max(1, (self._until_ns(progress_ns) - now_ns) // 1_000_000 + 1)
            ready = dict(poller.poll(timeout_ms))
            if self._wake_fd in ready:
                os.eventfd_read(self._wake_fd)
                if idle:
                    progress_ns = time.monotonic_ns()
            if self._monitor in ready:
                while self._monitor.poll(0):
                    self._monitor.recv_multipart(zmq.NOBLOCK)
                # A new connection: what the old one swallowed is sent again.
                self._sent = self._acked
            if self._socket in ready and self._receive():
                progress_ns = time.monotonic_ns()
                if self._on_progress is not None:
                    self._on_progress()
            if self._acked < self._last and time.monotonic_ns() - progress_ns > STALL_NS:
                # libzmq gives a session up for good when its key is refused; a new socket tries again.
                self._disconnect()
                self._socket, self._monitor = self._connect()
                self._sent = self._acked
                return

    def _until_ns(self, progress_ns: int) -> int:
        stall_ns = progress_ns + STALL_NS
        return min(stall_ns, self._not_before_ns) if self._not_before_ns > time.monotonic_ns() else stall_ns

    def _send(self) -> bool:
        """Send what was not sent yet; False when the socket takes no more for now."""
        while self._sent < self._last:
            with self._changed:
                self._sent = max(self._sent, self._acked)
                events = _take(self._pending, self._sent - self._acked)
                frame = pack_batch(Batch(self._stream, self._acked, self._tried, self._sent + 1, events))
            try:
                self._socket.send(frame, zmq.NOBLOCK)
            except zmq.Again:
                return False
            self._sent += len(events)
            self._tried = max(self._tried, self._sent)
        return True

    def _receive(self) -> bool:
        """Take the writer's answers; True when one of them was progress."""
        progress = False
        while True:
            try:
                data = self._socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                return progress
            with contextlib.suppress(PeerProtocolError):
                reply = unpack_reply(data)
                if reply.stream != self._stream:
                    continue
                progress = True
                with self._changed:
                    if reply.kind == ACK:
                        self._acknowledge(reply.number)
                    elif reply.kind == REFUSED:
                        while len(self._refused) >= REFUSALS_KEPT:
                            self._refused.pop(next(iter(self._refused)))
                        self._refused[reply.number] = reply.why
                    elif reply.kind == WAIT:
                        self._why_waiting = reply.why
                        self._not_before_ns = time.monotonic_ns() + reply.number * 1_000_000
                        self._sent = self._acked

    def _acknowledge(self, position: int) -> None:
        if not self._acked < position <= self._last:
            return
        for _ in range(position - self._acked):
            self._pending_bytes -= len(self._pending.popleft())
        self._acked = position
        self._why_waiting = ""
        self._changed.notify_all()


def _take(pending: Iterable[bytes], skip: int) -> list[bytes]:
    events: list[bytes] = []
    size_bytes = 0
    for number, packed in enumerate(pending):
        if number < skip:
            continue
        size_bytes += len(packed) + 5
        if events and (size_bytes > MAX_BATCH_BYTES or len(events) >= MAX_BATCH_EVENTS):
            break
        events.append(packed)
    return events
