"""The one writer of the audit log: a thread that takes events from producers and from the supervisor itself.

Group commit: whatever waits is written with one write and one fsync, and acknowledged after it. Producers come over a
ZeroMQ ROUTER with CURVE (RFC 26) and a ZAP handler (RFC 27); who they are follows from their key and from nothing that
they say. While the log can't be written nothing is acknowledged, what was taken is kept, and producers are asked to
wait; it resumes by itself.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping

import zmq
from zmq.utils import z85

from ipc.audit import protocol
from ipc.audit.errors import AuditLogError
from ipc.audit.event import SUPERVISOR, AuditEvent, AuditRecord, ComponentStamp, Origin
from ipc.audit.protocol import Batch, Reply
from ipc.errors import AirssysError, PeerProtocolError
from ipc.struct import Struct, field
from supervisor.audit_journal import JOURNAL_SOCKET, tell_journal
from supervisor.audit_log import SEALED, AuditLog, Entry

GROUP_EVENTS = 2048
GROUP_BYTES = 1024 * 1024
READ_FRAMES = 256
LOCAL_EVENTS = 4096
RETRY_MS = 250
STOP_WITHIN_NS = 500_000_000
RATE_PER_S = 20_000
"""How many events one producer may hand over in a second; beyond it, it is asked to wait. Folding stays far below."""

Subscriber = Callable[[Mapping[str, object]], None]


class _Producer(Struct):
    """One registered key: what it may call itself, and how far its stream has come."""

    name: str
    stamp: ComponentStamp
    stream: bytes = b""
    accepted: int = 0
    durable: int = 0
    address: bytes = b""
    ready_ns: int = 0


class _Local(Struct):
    """An event of the supervisor's own, and who waits for it."""

    event: AuditEvent
    done: threading.Event | None = None
    record: AuditRecord | None = None
    error: AuditLogError | None = None


class _Group(Struct):
    """What is written together: entries in order, who waits for them, and the answers that are due after the fsync."""

    entries: list[Entry] = field(default_factory=list)
    locals: dict[int, _Local] = field(default_factory=dict)
    producers: dict[bytes, _Producer] = field(default_factory=dict)
    refusals: list[tuple[_Producer, Reply]] = field(default_factory=list)
    size_bytes: int = 0

    def full(self) -> bool:
        return len(self.entries) >= GROUP_EVENTS or self.size_bytes >= GROUP_BYTES


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
        journal: str = JOURNAL_SOCKET,
    ) -> None:
        """Write to `log` what comes through the socket at `socket_path`, which `socket_owner_uid` may connect to.

        `server_keys` (public, secret; Z85) are made unless given; a writer that takes another's place needs the same.
        `on_fatal` is called once, from the thread, when the log is lost for this process. `journal`: syslog(3)'s.
        """
        self.socket_path = socket_path
        self._log = log
        self._owner_uid = socket_owner_uid
        self._server_public_key, self._server_secret_key = server_keys or zmq.curve_keypair()
        self._on_fatal = on_fatal
        self._journal = journal
        self._interval_ns = 1_000_000_000 // rate_per_s
        self._burst_ns = 1_000_000_000
        self._changed = threading.Condition()
        self._producers: dict[bytes, _Producer] = {}
        self._locals: deque[_Local] = deque()
        self._subscribers: list[Subscriber] = []
        self._trouble: AuditLogError | None = None
        self._stopping = False
        self._stop_by_ns = 0
        self._closed = False
        self._written = 0
        self._enqueued = 0
        self._wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._context = zmq.Context()
        self._lock_fd = -1
        self._group = _Group()
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
        return self._trouble

    def start(self) -> None:
        """Bind the socket and start the thread; AuditError when the socket can't be made."""
        self._bind()
        self._thread.start()

    def register(self, public_key: bytes, producer: str, stamp: ComponentStamp | None = None) -> None:
        """Let the holder of `public_key` (Z85) say things as `producer`; what `stamp` knows overrides what it says."""
        with self._changed:
            self._producers[public_key] = _Producer(producer, stamp or ComponentStamp())

    def new_client_keys(self, producer: str, stamp: ComponentStamp | None = None) -> tuple[bytes, bytes]:
        """Make and register a key pair for a producer; returns (public, secret), Z85."""
        public_key, secret_key = zmq.curve_keypair()
        self.register(public_key, producer, stamp)
        return public_key, secret_key

    def unregister(self, public_key: bytes) -> None:
        """Take nothing more from the holder of `public_key`."""
        with self._changed:
            self._producers.pop(public_key, None)

    def subscribe(self, callback: Subscriber) -> None:
        """Have `callback` called with each durable record (`AuditRecord.to_map`), in order, in the writer's thread."""
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
                    raise self._trouble or AuditLogError(f"{goal - self._written} events could not be written in time")
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
            if self._trouble is None or not self._trouble.fatal:
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
                if self._stopping or (self._trouble is not None and self._trouble.fatal):
                    raise self._trouble or AuditLogError("the audit writer was stopped")
                if len(self._locals) < LOCAL_EVENTS:
                    break
                left_s = deadline_s - time.monotonic()
                if left_s <= 0:
                    raise self._trouble or AuditLogError(f"{LOCAL_EVENTS} events wait to be written and no more fit")
                self._changed.wait(left_s)
            self._locals.append(item)
            if item.done is None:
                self._enqueued += 1
        self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_write(self._wake_fd, 1)

    def _bind(self) -> None:
        path = self.socket_path
        if len(os.fsencode(path)) > 107:
            raise AuditLogError(f"{path}: too long for a unix socket, at most 107 bytes: unix(7)")
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            self._lock_fd = os.open(path + ".lock", flags, 0o600)
            # libzmq takes over an existing socket file without a word: only one writer gets this far.
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._zap = self._context.socket(zmq.REP)
            self._zap.linger = 0
            self._zap.bind("inproc://zeromq.zap.01")
            self._router = self._context.socket(zmq.ROUTER)
            router = self._router
            router.curve_server = True
            router.curve_secretkey = self._server_secret_key
            router.zap_domain = protocol.ZAP_DOMAIN
            # Without a handler a CURVE server takes any key; with this, it takes none.
            router.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
            router.maxmsgsize = protocol.MAX_FRAME_BYTES
            router.rcvhwm = 64
            router.sndhwm = 1024
            router.linger = 200
            router.bind(self.endpoint)
            # Nobody else could connect since bind(2): that takes write permission, which only the owner was given.
            os.chmod(path, 0o600)
            if self._owner_uid is not None:
                os.chown(path, self._owner_uid, -1, follow_symlinks=False)
        except OSError as error:
            self._context.destroy(linger=0)
            if self._lock_fd >= 0:
                os.close(self._lock_fd)
                self._lock_fd = -1
            raise AuditLogError(f"the audit socket {path} can't be made: {error.strerror}") from None

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
            timeout_ms = RETRY_MS if self._trouble is not None else 0 if self._locals else -1
            ready = dict(poller.poll(timeout_ms))
            if self._wake_fd in ready:
                os.eventfd_read(self._wake_fd)
            if zap in ready:
                self._authenticate(zap)
            self._read(router)
            self._take_locals()
            group = self._group
            if group.entries or group.producers or self._trouble is not None:
                self._write(router)
            if self._stopping and not self._locals and self._may_stop(router):
                return

    def _may_stop(self, router: zmq.Socket[bytes]) -> bool:
        """Whether nothing more waits; a producer that never pauses is not waited for, it has no acknowledgement."""
        self._stop_by_ns = self._stop_by_ns or time.monotonic_ns() + STOP_WITHIN_NS
        return self._trouble is not None or not router.poll(0) or time.monotonic_ns() > self._stop_by_ns

    def _fail(self, error: AuditLogError) -> None:
        """The log is lost for this process: whoever waits is told, and so is the supervisor."""
        error.fatal = True
        with self._changed:
            self._trouble = error
            waiting = [*self._group.locals.values(), *self._locals]
            self._locals.clear()
            self._changed.notify_all()
        for item in waiting:
            item.error = error
            if item.done is not None:
                item.done.set()
        if self._on_fatal is not None:
            self._on_fatal(error)

    def _authenticate(self, zap: zmq.Socket[bytes]) -> None:
        """Answer ZAP requests (RFC 27): the User-Id is the key itself, so that it can't be mistaken for another's."""
        with contextlib.suppress(zmq.Again):
            while True:
                request = zap.recv_multipart(zmq.NOBLOCK)
                known = False
                if len(request) == 7 and request[2] == protocol.ZAP_DOMAIN and request[5] == b"CURVE":
                    key = z85.encode(request[6])
                    known = key in self._producers
                answer = [b"200", b"OK", key] if known else [b"400", b"not registered", b""]
                zap.send_multipart([b"1.0", request[1] if len(request) > 1 else b"", *answer, b""])

    def _read(self, router: zmq.Socket[bytes]) -> None:
        with contextlib.suppress(zmq.Again):
            for _ in range(READ_FRAMES):
                if self._group.full() and self._trouble is None:
                    return
                frames = router.recv_multipart(zmq.NOBLOCK, copy=False)
                try:
                    key = str(frames[-1].get("User-Id")).encode("ascii")
                except (zmq.ZMQError, KeyError):
                    continue
                producer = self._producers.get(key)
                if producer is not None:
                    producer.address = frames[0].bytes
                    self._take(router, key, producer, [frame.bytes for frame in frames[1:]])

    def _take(self, router: zmq.Socket[bytes], key: bytes, producer: _Producer, frames: list[bytes]) -> None:
        try:
            if len(frames) != 1:
                raise PeerProtocolError(f"audit batch: {len(frames)} frames, expected one")
            batch = protocol.unpack_batch(frames[0])
        except PeerProtocolError as error:
            self._refuse_frame(producer, frames, str(error))
            return
        if not self._follow_stream(producer, batch):
            self._refuse_frame(producer, frames, "a second stream under one key")
            return
        fresh = batch.events[max(0, producer.accepted + 1 - batch.first_seq) :]
        if batch.first_seq > producer.accepted + 1:
            # Something in between was lost with a connection: from there on, please.
            fresh = []
        if self._trouble is not None:
            # Answered, not left lying: what nobody reads piles up in libzmq with each reconnection.
            wait = Reply(protocol.WAIT, producer.stream, RETRY_MS, self._trouble.message)
            self._answer(router, producer, wait)
            return
        now_ns = time.monotonic_ns()
        producer.ready_ns = max(producer.ready_ns, now_ns - self._burst_ns)
        if fresh and producer.ready_ns > now_ns:
            wait_ms = (producer.ready_ns - now_ns) // 1_000_000 + 1
            self._answer(router, producer, Reply(protocol.WAIT, producer.stream, wait_ms, "too many events a second"))
            return
        producer.ready_ns += len(fresh) * self._interval_ns
        group = self._group
        for packed in fresh:
            producer.accepted += 1
            position = producer.accepted
            origin = Origin(producer.name, producer.stream.hex(), position)
            try:
                event = producer.stamp.apply(protocol.unpack_event(packed)).within_bounds()
            except PeerProtocolError as error:
                event = _refused(producer, [packed], str(error))
                reply = Reply(protocol.REFUSED, producer.stream, position, str(error))
                group.refusals.append((producer, reply))
            group.entries.append((event, origin))
            group.size_bytes += len(packed)
        group.producers[key] = producer

    def _follow_stream(self, producer: _Producer, batch: Batch) -> bool:
        """Know where the producer's stream stands; one begun under an earlier writer is looked up in the log, once."""
        if producer.stream == batch.stream:
            return True
        if producer.stream:
            return False
        producer.stream = batch.stream
        if batch.tried:
            found = self._log.last_position(batch.stream.hex())
            producer.accepted = producer.durable = max(found, batch.acked)
        return True

    def _refuse_frame(self, producer: _Producer, frames: list[bytes], why: str) -> None:
        """Record what can't be read as a batch; bounded by the producer's rate like everything else."""
        now_ns = time.monotonic_ns()
        if producer.ready_ns > now_ns or self._trouble is not None:
            return
        producer.ready_ns = max(producer.ready_ns, now_ns - self._burst_ns) + self._burst_ns
        self._group.entries.append((_refused(producer, frames, why), Origin(producer.name)))

    def _take_locals(self) -> None:
        group = self._group
        with self._changed:
            while self._locals and not group.full():
                item = self._locals.popleft()
                group.locals[len(group.entries)] = item
                group.entries.append((item.event, SUPERVISOR))
                group.size_bytes += 1024
            self._changed.notify_all()

    def _write(self, router: zmq.Socket[bytes]) -> None:
        group = self._group
        try:
            records = self._log.append(group.entries)
        except AuditLogError as error:
            if error.fatal:
                raise
            self._stall(router, error)
            return
        except AirssysError as error:
            raise AuditLogError(str(error), fatal=True) from error
        self._trouble = None
        self._group = _Group()
        # Subscribers first: who gets an acknowledgement may count on everyone having seen what it acknowledges.
        self._publish(records)
        own = len(records) - len(group.entries)
        plain = 0
        for place, item in group.locals.items():
            item.record = records[own + place]
            if item.done is not None:
                item.done.set()
            else:
                plain += 1
        for producer, reply in group.refusals:
            self._answer(router, producer, reply)
        for producer in group.producers.values():
            producer.durable = producer.accepted
            self._answer(router, producer, Reply(protocol.ACK, producer.stream, producer.durable))
        for record in records[: len(records) - len(group.entries)]:
            if record.event.event == SEALED:
                tell_journal(
                    f"audit segment sealed in {self._log.directory}, head {record.seq}:{record.hash}", self._journal
                )
        with self._changed:
            self._written += plain
            self._changed.notify_all()

    def _stall(self, router: zmq.Socket[bytes], error: AuditLogError) -> None:
        """The log can't be written now: whoever waits is told at once, everything else is kept for when it can be."""
        group = self._group
        first = self._trouble is None
        self._trouble = error
        gone = {place for place, item in group.locals.items() if item.done is not None}
        for place in gone:
            item = group.locals[place]
            item.error = error
            assert item.done is not None
            item.done.set()
        kept = [place for place in range(len(group.entries)) if place not in gone]
        group.locals = {new: group.locals[old] for new, old in enumerate(kept) if old in group.locals}
        group.entries = [group.entries[place] for place in kept]
        if first:
            for producer in group.producers.values():
                reply = Reply(protocol.WAIT, producer.stream, RETRY_MS, error.message)
                self._answer(router, producer, reply)

    def _answer(self, router: zmq.Socket[bytes], producer: _Producer, reply: Reply) -> None:
        # A peer that reads nothing loses its answers, not its events: it asks again.
        with contextlib.suppress(zmq.ZMQError):
            router.send_multipart([producer.address, protocol.pack_reply(reply)], zmq.NOBLOCK)

    def _publish(self, records: tuple[AuditRecord, ...]) -> None:
        subscribers = self._subscribers
        if not subscribers:
            return
        for record in records:
            values = record.to_map()
            for subscriber in subscribers:
                try:
                    subscriber(values)
                except Exception as error:
                    with self._changed:
                        self._subscribers = [s for s in self._subscribers if s is not subscriber]
                        reason = f"a subscriber to audit records failed and was removed: {error!r}"
                        self._locals.append(_Local(AuditEvent("subscriber_failed", reason=reason).within_bounds()))
                        self._enqueued += 1
                    self._wake()


def _refused(producer: _Producer, frames: list[bytes], why: str) -> AuditEvent:
    digest = hashlib.sha256()
    for frame in frames:
        digest.update(frame)
    detail: dict[str, object] = {"bytes": sum(map(len, frames)), "sha256": digest.hexdigest()}
    event = AuditEvent("audit_record_refused", decision="denied", reason=why, detail=detail)
    return producer.stamp.apply(event).within_bounds()
