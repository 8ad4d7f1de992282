"""The producer's end of the audit stream: events queue here until the writer of the log has made them durable.

Callers put packed events into a bounded queue; a full queue makes them wait, and after their deadline they get an
AuditError: nothing is ever dropped. What was not acknowledged is sent again after a reconnection, and after a second
without progress on a new socket; the writer drops what it has already.

One thread at a time *leads*: it sends what is in the queue, and takes the answers. Who waits until something is durable
leads, if nobody does: to wake another thread for that, and to be woken by it, takes longer than all that is done here
(docs/adr/0023). Else a thread of the stream's own leads, until everything is acknowledged.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable

from ipc.audit.dealer import Dealer
from ipc.audit.errors import AuditLogError
from ipc.audit.event import AuditEvent
from ipc.audit.protocol import (
    ACK,
    MAX_BATCH_BYTES,
    MAX_BATCH_EVENTS,
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

        `on_progress` is called by the thread that leads when events became durable, or can't any more; it never waits.
        """
        self._queue_events = queue_events
        self._queue_bytes = queue_bytes
        self._queue_deadline_s = queue_deadline_s
        self._on_progress = on_progress
        self._stream = os.urandom(STREAM_ID_BYTES)
        lock = threading.Lock()
        self._changed = threading.Condition(lock)
        self._wanted = threading.Condition(lock)
        """What the stream's own thread waits for."""
        # Everything below is guarded by the lock, except what only who leads touches (_sent, _tried, the socket).
        self._leads = False
        self._followers = 0
        self._pending: deque[bytes] = deque()
        self._pending_bytes = 0
        self._acked = 0
        self._last = 0
        self._progress_ns = 0
        self._refused: dict[int, str] = {}
        self._why_waiting = ""
        self._stopping = False
        self._broken = ""
        self._sent = 0
        self._tried = 0
        self._not_before_ns = 0
        self._dealer = Dealer(endpoint, server_key, public_key, secret_key)
        self._thread = threading.Thread(target=self._run, name="audit-stream", daemon=True)
        self._thread.start()

    # -- any thread ----------------------------------------------------------------------------------------------------

    def record(self, event: AuditEvent) -> int:
        """Queue an event and return its position; waits while the queue is full, AuditError when it stays so."""
        packed = pack_event(event)
        with self._changed:
            position = self._enqueue(packed)
            self._call()
            return position

    def try_record(self, event: AuditEvent) -> int | None:
        """As `record`, without ever waiting: None when the queue is full. For who asks `acknowledged` later."""
        packed = pack_event(event)
        with self._changed:
            self._check_alive()
            if len(self._pending) >= self._queue_events or self._pending_bytes + len(packed) > self._queue_bytes:
                return None
            position = self._append(packed)
            self._call()
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

    def record_durable(self, event: AuditEvent, timeout_s: float = 5.0, before: list[AuditEvent] | None = None) -> None:
        """Return when the event, and those `before` it, are durable; what was queued is taken out of `before`.

        AuditError when that can't be known within `timeout_s`, or the event was refused. After an error it may still
        come to be recorded: the caller must not do what it announces.
        """
        deadline_ns = time.monotonic_ns() + int(timeout_s * 1e9)
        earlier = [pack_event(each) for each in before] if before else ()
        packed = pack_event(event)
        with self._changed:
            if before:
                for each in earlier:
                    self._enqueue(each)
                    del before[0]
            position = self._enqueue(packed)
            leads = not self._leads
            if leads:
                self._leads = True
            else:
                self._dealer.wake()
        if leads:
            self._lead(position, deadline_ns)
        if self._acked < position:
            self._wait_for(position, deadline_ns)
        if self._refused:
            with self._changed:
                why = self._refused.pop(position, None)
            if why is not None:
                raise AuditLogError(f"the audit log refused the event: {why}")

    def flush(self, timeout_s: float = 5.0) -> None:
        """Return when everything that was recorded so far is durable; AuditError after `timeout_s`."""
        self._wait_for(self._last, time.monotonic_ns() + int(timeout_s * 1e9))

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
                self._changed.notify_all()
                self._wanted.notify()
                self._dealer.wake()
                while self._leads:
                    self._changed.wait()
            self._thread.join()
            self._dealer.close()

    def _enqueue(self, packed: bytes) -> int:
        """Put an event into the queue, under the lock, which is let go while the queue is full."""
        deadline_s = time.monotonic() + self._queue_deadline_s
        while (
            len(self._pending) >= self._queue_events or self._pending_bytes + len(packed) > self._queue_bytes
        ) and not (self._broken or self._stopping):
            self._call()
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                raise AuditLogError(
                    f"{len(self._pending)} audit events wait to be written and no more fit{self._because()}",
                    hint=_HINT,
                )
            self._changed.wait(left_s)
        self._check_alive()
        return self._append(packed)

    def _append(self, packed: bytes) -> int:
        if self._acked == self._last:
            self._progress_ns = time.monotonic_ns()
        self._last += 1
        self._pending.append(packed)
        self._pending_bytes += len(packed)
        return self._last

    def _call(self) -> None:
        """Have what is in the queue sent by who leads, or by the stream's own thread; under the lock."""
        if self._leads:
            self._dealer.wake()
        else:
            self._wanted.notify()

    def _wait_for(self, position: int, deadline_ns: int) -> None:
        while self._must_lead(position, deadline_ns):
            self._lead(position, deadline_ns)

    def _must_lead(self, position: int, deadline_ns: int) -> bool:
        """Follow until `position` is acknowledged, or nobody leads any more: then the caller does. AuditError."""
        with self._changed:
            self._followers += 1
            try:
                while self._acked < position:
                    self._check_alive()
                    left_ns = deadline_ns - time.monotonic_ns()
                    if left_ns <= 0:
                        waiting = self._last - self._acked
                        raise AuditLogError(
                            f"{waiting} audit events were not acknowledged in time{self._because()}", hint=_HINT
                        )
                    if not self._leads:
                        self._leads = True
                        return True
                    self._changed.wait(left_ns / 1e9)
                return False
            finally:
                self._followers -= 1
                self._pass_on()

    def _pass_on(self) -> None:
        """See to it that somebody leads while there is something to do; under the lock."""
        if self._leads or self._acked == self._last or self._stopping:
            return
        if self._followers:
            self._changed.notify_all()
        else:
            self._wanted.notify()

    def _check_alive(self) -> None:
        if self._broken or self._stopping:
            raise AuditLogError(self._broken or "the audit stream was closed", fatal=bool(self._broken))

    def _because(self) -> str:
        return f": {self._why_waiting}" if self._why_waiting else ": the audit writer does not answer"

    def _run(self) -> None:
        """Lead whenever something is to be sent and nobody waits for it: the body of the stream's own thread."""
        while True:
            with self._changed:
                while not self._stopping and (self._leads or self._acked == self._last or self._broken):
                    self._wanted.wait()
                if self._stopping:
                    return
                self._leads = True
            self._lead(0, 0)

    # -- who leads -----------------------------------------------------------------------------------------------------

    def _lead(self, position: int, deadline_ns: int) -> None:
        """Send and receive until `position` is acknowledged or the deadline is over; 0: all, however long it takes."""
        broken = ""
        try:
            while not self._stopping and self._acked < (position or self._last):
                now_ns = time.monotonic_ns()
                if deadline_ns and now_ns >= deadline_ns:
                    break
                self._turn(position, deadline_ns, now_ns)
        except Exception as error:
            broken = f"the audit stream of this process broke: {error!r}"
        finally:
            with self._changed:
                self._leads = False
                self._broken = self._broken or broken
                if self._stopping or self._broken:
                    self._changed.notify_all()
                self._pass_on()
        if broken and self._on_progress is not None:
            self._on_progress()

    def _turn(self, position: int, deadline_ns: int, now_ns: int) -> None:
        """Send what can be sent, wait for answers and take them; connect anew when the writer is silent too long."""
        blocked = now_ns >= self._not_before_ns and not self._send()
        until_ns = self._progress_ns + STALL_NS
        for other_ns in (self._not_before_ns, deadline_ns):
            if other_ns > now_ns:
                until_ns = min(until_ns, other_ns)
        answers, new = self._dealer.wait(max(1, (until_ns - now_ns) // 1_000_000 + 1), blocked)
        if new:
            # A new connection: what the old one swallowed is sent again.
            self._sent = self._acked
        if answers and self._receive(position):
            self._progress_ns = time.monotonic_ns()
            if self._on_progress is not None:
                self._on_progress()
        if self._acked < self._last and time.monotonic_ns() - self._progress_ns > STALL_NS:
            self._dealer.connect_anew()
            self._sent = self._acked
            self._progress_ns = time.monotonic_ns()

    def _send(self) -> bool:
        """Send what was not sent yet; False when the socket takes no more for now."""
        while self._sent < self._last:
            with self._changed:
                self._sent = max(self._sent, self._acked)
                events = _take(self._pending, self._sent - self._acked)
                frame = pack_batch(Batch(self._stream, self._acked, self._tried, self._sent + 1, events))
            if not self._dealer.send(frame):
                return False
            self._sent += len(events)
            self._tried = max(self._tried, self._sent)
        return True

    def _receive(self, position: int) -> bool:
        """Take the writer's answers, at the most until `position` is acknowledged; True when one was progress."""
        progress = False
        while not position or self._acked < position:
            data = self._dealer.receive()
            if data is None:
                break
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
        return progress

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
