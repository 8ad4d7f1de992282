"""The one writer of the audit log: a thread that takes events from producers and from the supervisor itself.

Group commit: whatever waits is written with one write and one fsync, and acknowledged after it. What producers hand
over comes by the socket (`supervisor.audit.intake`). While the log can't be written nothing is acknowledged, what was
taken is kept, and producers are asked to wait; it resumes by itself.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable

import zmq

from ipc.audit import protocol
from ipc.audit.errors import AuditLogError
from ipc.audit.event import SUPERVISOR, AuditEvent, AuditRecord, ComponentStamp
from ipc.audit.protocol import Reply
from ipc.errors import AirssysError
from ipc.struct import Struct
from supervisor.audit.intake import RATE_PER_S, RETRY_MS, Intake, Producer, answer, bind_stream
from supervisor.audit.log import AuditLog
from supervisor.config.units import counted

LOCAL_EVENTS = 4096
STOP_WITHIN_NS = 500_000_000

Subscriber = Callable[[AuditRecord], None]


class _Local(Struct):
    """An event of the supervisor's own, and who waits for it."""

    event: AuditEvent
    done: threading.Event | None = None
    record: AuditRecord | None = None
    error: AuditLogError | None = None


class AuditWriter:
    """Owns an `AuditLog` and the socket of the audit stream. Methods may be called from any thread."""

    def __init__(
        self,
        log: AuditLog,
        socket_path: str,
        *,
        socket_owner_uid: int | None = None,
        server_keys: tuple[bytes, bytes] | None = None,
        on_fatal: Callable[[AuditLogError], None] | None = None,
        rate_per_s: int = RATE_PER_S,
    ) -> None:
        """Write to `log` what comes through the socket at `socket_path`, which `socket_owner_uid` may connect to.

        `server_keys` (public, secret; Z85) are made unless given; a writer that takes another's place needs the same.
        `on_fatal` is called once, from the thread, when the log is lost for this process.
        """
        self.socket_path = socket_path
        self._log = log
        self._owner_uid = socket_owner_uid
        self._server_public_key, self._server_secret_key = server_keys or zmq.curve_keypair()
        self._on_fatal = on_fatal
        self.on_trouble: Callable[[AuditLogError | None], None] | None = None
        """Called from the thread when the log can't be written at the moment, and with None when it can again."""
        self._changed = threading.Condition()
        self._intake = Intake(log, rate_per_s)
        self._waiting: dict[int, _Local] = {}  # which entries of the group are the supervisor's own
        self._locals: deque[_Local] = deque()
        self._subscribers: list[Subscriber] = []
        self._stopping = False
        self._stop_by_ns = 0
        self._closed = False
        self._written = 0
        self._enqueued = 0
        self._wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._context = zmq.Context()
        self._lock_fd = -1
        self._router: zmq.Socket[bytes] | None = None
        self._zap: zmq.Socket[bytes] | None = None
        self._thread = threading.Thread(target=self._run, name="audit-writer", daemon=True)

    # -- set-up --------------------------------------------------------------------------------------------------------

    @property
    def endpoint(self) -> str:
        """The ZeroMQ endpoint that producers connect to."""
        return f"ipc://{self.socket_path}"

    @property
    def server_public_key(self) -> bytes:
        """The writer's public CURVE key (Z85)."""
        return self._server_public_key

    @property
    def trouble(self) -> AuditLogError | None:
        """Why nothing can be recorded at the moment; None when all is well."""
        return self._intake.trouble

    def start(self) -> None:
        """Bind the socket and start the thread; AuditError when the socket can't be made."""
        self._bind()
        self._thread.start()

    def register(self, public_key: bytes, producer: str, stamp: ComponentStamp | None = None) -> None:
        """Let the holder of `public_key` (Z85) say things as `producer`; what `stamp` knows overrides what it says."""
        with self._changed:
            self._intake.producers[public_key] = Producer(producer, (stamp or ComponentStamp()).within_bounds())

    def new_client_keys(self, producer: str, stamp: ComponentStamp | None = None) -> tuple[bytes, bytes]:
        """Make and register a key pair for a producer; returns (public, secret), Z85."""
        public_key, secret_key = zmq.curve_keypair()
        self.register(public_key, producer, stamp)
        return public_key, secret_key

    def unregister(self, public_key: bytes) -> None:
        """Take nothing more from the holder of `public_key`."""
        with self._changed:
            self._intake.producers.pop(public_key, None)

    def subscribe(self, callback: Subscriber) -> None:
        """Have `callback` called with each durable record, in order, in the writer's thread."""
        with self._changed:
            self._subscribers = [*self._subscribers, callback]

    # -- the supervisor's own events -----------------------------------------------------------------------------------

    def local(self, event: AuditEvent, timeout_s: float = 5.0) -> None:
        """Queue an event of the supervisor's own; waits while the queue is full, AuditError when it stays so."""
        self._enqueue(_Local(event.within_bounds()), timeout_s)

    def local_durable(self, event: AuditEvent, timeout_s: float = 5.0) -> AuditRecord:
        """Return the record of an event when it is durable; AuditError when it isn't: then it will not be recorded."""
        item = _Local(event.within_bounds(), threading.Event())
        assert item.done is not None
        self._enqueue(item, timeout_s)
        if not item.done.wait(timeout_s):
            with self._changed, contextlib.suppress(ValueError):
                self._locals.remove(item)
            item.error = item.error or AuditLogError(
                f"the audit log took longer than {timeout_s:g} s", hint=f"look at the disk: df -h {self._log.directory}"
            )
        if item.record is None:
            assert item.error is not None
            raise item.error
        return item.record

    def flush(self, timeout_s: float = 5.0) -> None:
        """Return when everything that was queued by `local` is durable; AuditError after `timeout_s`."""
        deadline_s = time.monotonic() + timeout_s
        with self._changed:
            goal = self._enqueued
            while self._written < goal:
                left_s = deadline_s - time.monotonic()
                if left_s <= 0 or not self._thread.is_alive():
                    raise self.trouble or AuditLogError(
                        f"{counted(goal - self._written, 'event')} could not be written in time"
                    )
                self._changed.wait(min(left_s, 0.1))

    def close(self, timeout_s: float = 5.0) -> None:
        """Write what has come, stop, close the log; AuditError when something could not be written, after stopping."""
        if self._closed:
            return
        self._closed = True
        if self._lock_fd < 0:
            # Never started, or the socket could not be made.
            self._context.destroy(linger=0)
            os.close(self._wake_fd)
            self._log.close()
            return
        try:
            if self.trouble is None or not self.trouble.fatal:
                self.flush(timeout_s)
        finally:
            with self._changed:
                self._stopping = True
            self._wake()
            self._thread.join()
            self._context.destroy(linger=200)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.socket_path)
            os.close(self._wake_fd)
            os.close(self._lock_fd)
            self._log.close()

    def _enqueue(self, item: _Local, timeout_s: float) -> None:
        deadline_s = time.monotonic() + timeout_s
        with self._changed:
            while True:
                if self._stopping or (self.trouble is not None and self.trouble.fatal):
                    raise self.trouble or AuditLogError("the audit writer was stopped")
                if len(self._locals) < LOCAL_EVENTS:
                    break
                left_s = deadline_s - time.monotonic()
                if left_s <= 0:
                    raise self.trouble or AuditLogError(f"{LOCAL_EVENTS} events wait to be written and no more fit")
                self._changed.wait(left_s)
            self._locals.append(item)
            if item.done is None:
                self._enqueued += 1
        self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_write(self._wake_fd, 1)

    def _bind(self) -> None:
        made = bind_stream(self._context, self.socket_path, self._server_secret_key, self._owner_uid)
        self._lock_fd, self._zap, self._router = made

    # -- the thread ----------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        assert self._router is not None
        assert self._zap is not None
        try:
            self._loop(self._router, self._zap)
        except AuditLogError as error:
            self._fail(error)
        except Exception as error:
            self._fail(AuditLogError(f"the audit writer broke: {error!r}", fatal=True))
        finally:
            self._zap.close(linger=0)
            self._router.close(linger=200)

    def _loop(self, router: zmq.Socket[bytes], zap: zmq.Socket[bytes]) -> None:
        poller = zmq.Poller()
        poller.register(zap, zmq.POLLIN)
        poller.register(self._wake_fd, zmq.POLLIN)
        poller.register(router, zmq.POLLIN)
        while True:
            timeout_ms = RETRY_MS if self.trouble is not None else 0 if self._locals else -1
            ready = dict(poller.poll(timeout_ms))
            if self._wake_fd in ready:
                os.eventfd_read(self._wake_fd)
            if zap in ready:
                self._intake.authenticate(zap)
            if router in ready:
                self._intake.read(router)
            self._take_locals()
            group = self._intake.group
            if group.entries or group.producers or self.trouble is not None:
                self._write(router)
            if self._stopping and not self._locals and self._may_stop(router):
                return

    def _may_stop(self, router: zmq.Socket[bytes]) -> bool:
        """Whether nothing more waits; a producer that never pauses is not waited for, it has no acknowledgement."""
        self._stop_by_ns = self._stop_by_ns or time.monotonic_ns() + STOP_WITHIN_NS
        return self.trouble is not None or not router.poll(0) or time.monotonic_ns() > self._stop_by_ns

    def _fail(self, error: AuditLogError) -> None:
        """The log is lost for this process: whoever waits is told, and so is the supervisor."""
        error.fatal = True
        with self._changed:
            self._intake.trouble = error
            waiting = [*self._waiting.values(), *self._locals]
            self._locals.clear()
            self._changed.notify_all()
        for item in waiting:
            item.error = error
            if item.done is not None:
                item.done.set()
        if self._on_fatal is not None:
            self._on_fatal(error)

    def _take_locals(self) -> None:
        group = self._intake.group
        with self._changed:
            while self._locals and not group.full():
                item = self._locals.popleft()
                self._waiting[len(group.entries)] = item
                group.entries.append((item.event, SUPERVISOR))
                group.size_bytes += 1024
            self._changed.notify_all()

    def _write(self, router: zmq.Socket[bytes]) -> None:
        group = self._intake.group
        try:
            records = self._log.append(group.entries)
            if not records and self.trouble is not None:
                # What could not be written was given up by who waited for it: nothing is proven by writing nothing.
                self._log.probe()
        except AuditLogError as error:
            if error.fatal:
                raise
            self._stall(router, error)
            return
        except AirssysError as error:
            raise AuditLogError(str(error), fatal=True) from error
        self._set_trouble(None)
        self._intake.begin_group()
        waiting, self._waiting = self._waiting, {}
        # Subscribers first: who gets an acknowledgement may count on everyone having seen what it acknowledges.
        self._publish(records)
        own = len(records) - len(group.entries)
        plain = 0
        for place, item in waiting.items():
            item.record = records[own + place]
            if item.done is not None:
                item.done.set()
            else:
                plain += 1
        for producer, reply in group.refusals:
            answer(router, producer, reply)
        for producer in group.producers.values():
            producer.durable = producer.accepted
            answer(router, producer, Reply(protocol.ACK, producer.stream, producer.durable))
        with self._changed:
            self._written += plain
            self._changed.notify_all()

    def _stall(self, router: zmq.Socket[bytes], error: AuditLogError) -> None:
        """The log can't be written now: whoever waits is told at once, everything else is kept for when it can be."""
        group = self._intake.group
        first = self.trouble is None
        self._set_trouble(error)
        gone = {place for place, item in self._waiting.items() if item.done is not None}
        for place in gone:
            item = self._waiting[place]
            item.error = error
            assert item.done is not None
            item.done.set()
        kept = [place for place in range(len(group.entries)) if place not in gone]
        self._waiting = {new: self._waiting[old] for new, old in enumerate(kept) if old in self._waiting}
        group.entries = [group.entries[place] for place in kept]
        if first:
            for producer in group.producers.values():
                reply = Reply(protocol.WAIT, producer.stream, RETRY_MS, error.message)
                answer(router, producer, reply)

    def _set_trouble(self, error: AuditLogError | None) -> None:
        changed = (error is None) is not (self.trouble is None)
        self._intake.trouble = error
        if changed and self.on_trouble is not None:
            self.on_trouble(error)

    def _publish(self, records: tuple[AuditRecord, ...]) -> None:
        subscribers = self._subscribers
        if not subscribers:
            return
        for record in records:
            for subscriber in subscribers:
                try:
                    subscriber(record)
                except Exception as error:
                    with self._changed:
                        self._subscribers = [s for s in self._subscribers if s is not subscriber]
                        reason = f"a subscriber to audit records failed and was removed: {error!r}"
                        self._locals.append(_Local(AuditEvent("subscriber_failed", reason=reason).within_bounds()))
                        self._enqueued += 1
                    self._wake()
