"""What comes in through the socket of the audit stream: who may speak, and what is taken into the next group.

Producers come over a ZeroMQ ROUTER with CURVE (RFC 26) and a ZAP handler (RFC 27); who they are follows from their key
and from nothing that they say. Used by the writer's thread.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import time
from typing import TYPE_CHECKING

import zmq
from zmq.utils import z85

from ipc.audit import protocol
from ipc.audit.errors import AuditLogError
from ipc.audit.event import AuditEvent, ComponentStamp, Origin
from ipc.audit.protocol import Batch, Reply
from ipc.errors import PeerProtocolError
from ipc.struct import Struct, field

if TYPE_CHECKING:
    from supervisor.audit.log import AuditLog, Entry

GROUP_EVENTS = 2048
GROUP_BYTES = 1024 * 1024
READ_FRAMES = 256
RETRY_MS = 250
BURST_NS = 1_000_000_000
RATE_PER_S = 20_000
"""How many events one producer may hand over in a second; beyond it, it is asked to wait. Folding stays far below."""


class Producer(Struct):
    """One registered key: what it may call itself, and how far its stream has come."""

    name: str
    stamp: ComponentStamp
    stream: bytes = b""
    accepted: int = 0
    durable: int = 0
    address: bytes = b""
    ready_ns: int = 0


class Group(Struct):
    """What is written together: entries in order, and the answers that are due after the fsync."""

    entries: list[Entry] = field(default_factory=list)
    producers: dict[bytes, Producer] = field(default_factory=dict)
    refusals: list[tuple[Producer, Reply]] = field(default_factory=list)
    size_bytes: int = 0

    def full(self) -> bool:
        """Whether the next write should come first."""
        return len(self.entries) >= GROUP_EVENTS or self.size_bytes >= GROUP_BYTES


class Intake:
    """The producers of one writer, and what they handed over since the last write."""

    def __init__(self, log: AuditLog, rate_per_s: int) -> None:
        """Take at most `rate_per_s` events of each producer; where a stream stands is looked up in `log`."""
        self.group = Group()
        self.producers: dict[bytes, Producer] = {}
        self.trouble: AuditLogError | None = None
        """Why nothing can be recorded at the moment."""
        self._log = log
        self._interval_ns = 1_000_000_000 // rate_per_s

    def begin_group(self) -> None:
        """Begin a new group; the one before was written."""
        self.group = Group()

    def authenticate(self, zap: zmq.Socket[bytes]) -> None:
        """Answer ZAP requests (RFC 27): the User-Id is the key itself, so that it can't be mistaken for another's."""
        with contextlib.suppress(zmq.Again):
            while True:
                request = zap.recv_multipart(zmq.NOBLOCK)
                known = False
                if len(request) == 7 and request[2] == protocol.ZAP_DOMAIN and request[5] == b"CURVE":
                    key = z85.encode(request[6])
                    known = key in self.producers
                verdict = [b"200", b"OK", key] if known else [b"400", b"not registered", b""]
                zap.send_multipart([b"1.0", request[1] if len(request) > 1 else b"", *verdict, b""])

    def read(self, router: zmq.Socket[bytes]) -> None:
        """Take what has come, until the group is full; while there is trouble everybody is asked to wait."""
        with contextlib.suppress(zmq.Again):
            for _ in range(READ_FRAMES):
                if self.group.full() and self.trouble is None:
                    return
                # Asked first: that nothing has come is no error then, whose making takes longer than a message.
                if not int(router.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
                    return
                address = router.recv(zmq.NOBLOCK)
                frames = [router.recv(zmq.NOBLOCK, copy=False)]
                while frames[-1].more:
                    frames.append(router.recv(zmq.NOBLOCK, copy=False))
                try:
                    key = str(frames[-1].get("User-Id")).encode("ascii")
                except (zmq.ZMQError, KeyError):
                    continue
                producer = self.producers.get(key)
                if producer is not None:
                    producer.address = address
                    self._take(router, key, producer, [frame.bytes for frame in frames])

    def _take(self, router: zmq.Socket[bytes], key: bytes, producer: Producer, frames: list[bytes]) -> None:
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
        if self.trouble is not None:
            # Answered, not left lying: what nobody reads piles up in libzmq with each reconnection.
            wait = Reply(protocol.WAIT, producer.stream, RETRY_MS, self.trouble.message)
            answer(router, producer, wait)
            return
        now_ns = time.monotonic_ns()
        producer.ready_ns = max(producer.ready_ns, now_ns - BURST_NS)
        if fresh and producer.ready_ns > now_ns:
            wait_ms = (producer.ready_ns - now_ns) // 1_000_000 + 1
            answer(router, producer, Reply(protocol.WAIT, producer.stream, wait_ms, "too many events a second"))
            return
        producer.ready_ns += len(fresh) * self._interval_ns
        group = self.group
        for packed in fresh:
            producer.accepted += 1
            position = producer.accepted
            origin = Origin(producer.name, producer.stream.hex(), position)
            try:
                event = producer.stamp.apply(protocol.unpack_event(packed))
            except PeerProtocolError as error:
                event = _refused(producer, [packed], str(error))
                reply = Reply(protocol.REFUSED, producer.stream, position, str(error))
                group.refusals.append((producer, reply))
            group.entries.append((event, origin))
            group.size_bytes += len(packed)
        group.producers[key] = producer

    def _follow_stream(self, producer: Producer, batch: Batch) -> bool:
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

    def _refuse_frame(self, producer: Producer, frames: list[bytes], why: str) -> None:
        """Record what can't be read as a batch; bounded by the producer's rate like everything else."""
        now_ns = time.monotonic_ns()
        if producer.ready_ns > now_ns or self.trouble is not None:
            return
        producer.ready_ns = max(producer.ready_ns, now_ns - BURST_NS) + BURST_NS
        self.group.entries.append((_refused(producer, frames, why), Origin(producer.name)))


def bind_stream(
    context: zmq.Context[zmq.Socket[bytes]], path: str, secret_key: bytes, owner_uid: int | None
) -> tuple[int, zmq.Socket[bytes], zmq.Socket[bytes]]:
    """Make the socket at `path`, for `owner_uid` alone; returns its lock, the ZAP socket and the router.

    AuditLogError when it can't be made or another writer has it; the context is then gone.
    """
    if len(os.fsencode(path)) > 107:
        raise AuditLogError(f"{path}: too long for a unix socket, at most 107 bytes: unix(7)")
    lock_fd = -1
    try:
        lock_fd = os.open(path + ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        # libzmq takes over an existing socket file without a word: only one writer gets this far.
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        zap = context.socket(zmq.REP)
        zap.linger = 0
        zap.bind("inproc://zeromq.zap.01")
        router = context.socket(zmq.ROUTER)
        router.curve_server = True
        router.curve_secretkey = secret_key
        router.zap_domain = protocol.ZAP_DOMAIN
        # Without a handler a CURVE server takes any key; with this, it takes none.
        router.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
        router.maxmsgsize = protocol.MAX_FRAME_BYTES
        router.rcvhwm = 64
        router.sndhwm = 1024
        router.linger = 200
        router.bind(f"ipc://{path}")
        # Nobody else could connect since bind(2): that takes write permission, which only the owner was given.
        os.chmod(path, 0o600)
        if owner_uid is not None:
            os.chown(path, owner_uid, -1, follow_symlinks=False)
    except OSError as error:
        context.destroy(linger=0)
        if lock_fd >= 0:
            os.close(lock_fd)
        raise AuditLogError(f"the audit socket {path} can't be made: {error.strerror}") from None
    return lock_fd, zap, router


def answer(router: zmq.Socket[bytes], producer: Producer, reply: Reply) -> None:
    """Answer a producer, without ever waiting for it."""
    # A peer that reads nothing loses its answers, not its events: it asks again.
    with contextlib.suppress(zmq.ZMQError):
        router.send(producer.address, zmq.NOBLOCK | zmq.SNDMORE)
        router.send(protocol.pack_reply(reply), zmq.NOBLOCK)


def _refused(producer: Producer, frames: list[bytes], why: str) -> AuditEvent:
    digest = hashlib.sha256()
    for frame in frames:
        digest.update(frame)
    detail: dict[str, object] = {"bytes": sum(map(len, frames)), "sha256": digest.hexdigest()}
    event = AuditEvent("audit_record_refused", decision="denied", reason=why, detail=detail)
    return producer.stamp.apply(event).within_bounds()
