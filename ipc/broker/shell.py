"""The broker's shell: reads its sockets and the clock, gives the core what happened, carries out what it orders.

Nothing here decides who may do what. One thread turns; another one is the store's, one the audit stream's, and libzmq
has its own. Started by `worker.broker`, which confines the process before anything is bound.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import zmq

from ipc import memory_file
from ipc.audit.event import AuditEvent
from ipc.broker import memory
from ipc.broker.announcing import Connecting, Expected
from ipc.broker.cutting import SILENT_READER, Cutting
from ipc.broker.events import (
    Announced,
    Command,
    Disconnected,
    Due,
    EndPeer,
    Event,
    HasFinished,
    Malformed,
    OperatorAnswered,
    Phased,
    Provide,
    Record,
    Store,
    Transmit,
)
from ipc.broker.holding import Holding
from ipc.broker.inbox import Inbox
from ipc.broker.mail import Mail
from ipc.broker.one_cpu import OneCpu
from ipc.broker.orders import (
    ActorCalled,
    BrokerReady,
    BrokerSetup,
    EndPeerNow,
    NamespaceRemoved,
    PeerFinished,
    PeerPhased,
    QuotaState,
)
from ipc.broker.orders_taken import OrdersTaken
from ipc.broker.outbox import RETRY_NS, Outbox
from ipc.broker.peers import Peers
from ipc.broker.provider_links import ProviderLinks
from ipc.broker.recorder import Recorder
from ipc.broker.sockets import Sockets
from ipc.broker.store import Store as StoreFile
from ipc.broker.store_thread import StoreThread
from ipc.channel import Channel
from ipc.messages import LayerReport

BROKE_PROTOCOL: Final = "A1806"
_HANDSHAKES_NS: Final = 1_000_000_000
"""Handshakes that fail have one record in so long a time, with their number."""
_READS_BEFORE_ANSWER: Final = 4
"""How often what waits is read before a warden is answered, so that a neighbour's flood doesn't delay that."""
_SWITCH_S: Final = 0.0002
"""How long another thread of this process, the store's or the audit stream's, may compute while the loop waits for it:
Python's own 5 ms are many times what a message takes."""
_RECORD_TIMEOUT_S: Final = 60.0
"""For the first record. While the log can't be written the supervisor starts one broker after the other, each of which
waits for it; so it goes on by itself."""


class CoreLike(Protocol):
    """What is used of `ipc.broker.core.Core`."""

    def handle(self, event: Event, now_ns: int) -> Sequence[Command]:
        """Take what happened, return what is to be done."""

    def next_due_ns(self) -> int | None:
        """Return when it wants to be given a `Due`."""

    def quota_states(self, now_ns: int) -> Sequence[QuotaState]:
        """Return how full the quotas are that it keeps."""


class Broker:
    """The sockets, the core and its surroundings, bound together."""

    def __init__(
        self,
        channel: Channel,
        core: CoreLike,
        sockets: Sockets,
        store: StoreThread,
        holding: Holding,
        watch: memory.MemoryWatch,
        one_cpu: OneCpu,
    ) -> None:
        """Bind the parts; nothing is served yet."""
        self._core = core
        self._sockets = sockets
        self._store = store
        self._holding = holding
        self._recorder = Recorder(holding)
        self._one_cpu = one_cpu
        self._mail = Mail(channel)
        self._peers = Peers()
        self._inbox = Inbox(sockets, self._peers)
        self._outbox = Outbox(sockets.send)
        self._wardens: dict[int, Channel] = {}
        self._poller = zmq.Poller()
        self._ordered, self._stored, self._recorded = channel.fileno(), store.fileno(), holding.fileno()
        for readable in (
            sockets.router,
            sockets.zap,
            sockets.monitor,
            self._ordered,
            self._stored,
            self._recorded,
        ):
            self._poller.register(readable, zmq.POLLIN)
        self._providers = ProviderLinks(self._poller, self._handle, self._mail.send)
        self._orders = OrdersTaken(
            channel,
            self._mail,
            self._peers,
            self._recorder,
            store,
            self._providers,
            self._handle,
            self._quota_states,
            self._use_warden,
        )
        self._reads = True
        self._cutting = Cutting(watch, self._peers, self._handle)
        self._due_ns: int | None = None
        self._told_broken = False
        self._handshakes_ns = 0
        self._closing = False

    # -- the loop ------------------------------------------------------------------------------------------------------

    def serve(self) -> None:
        """Turn until the supervisor closes the channel."""
        while not self._closing:
            self._turn()

    def _turn(self) -> None:
        ready = dict(self._poller.poll(self._one_cpu.patience_ms(self._timeout_ms())))
        now_ns = time.monotonic_ns()
        sockets = self._sockets
        if sockets.zap in ready:
            sockets.authenticate(self._peers)
        if self._ordered in ready:
            self._closing = not self._orders.take()
        for descriptor in ready.keys() & self._wardens.keys():
            self._take_announcement(descriptor)
        if self._stored in ready:
            self._take_stored()
        held_due_ns = self._holding.next_due_ns()
        if self._recorded in ready or (held_due_ns is not None and held_due_ns <= now_ns):
            for done in self._holding.take_recorded(now_ns):
                self._handle(done)
        if sockets.monitor in ready:
            sockets.watch(self._peers)
        if self._reads and self._read():
            # Only now: what came over a connection before it was closed has been read.
            for lost in self._peers.take_lost():
                self._outbox.forget(lost.route)
                self._handle(Disconnected(lost.key, lost.route))
        is_alone = len(ready) == 1 and sockets.router in ready
        self._one_cpu.note_turn(now_ns, self._inbox.frames if is_alone else 0)
        self._providers.turn(ready, now_ns)
        if self._due_ns is not None and self._due_ns <= now_ns:
            self._handle(Due())
        self._flush()
        if self._mail.waiting:
            self._mail.flush()
        self._hold_back()
        if self._peers.failed and now_ns >= self._handshakes_ns:
            self._record_handshakes(now_ns)
        if now_ns >= self._cutting.due_ns:
            self._cutting.look(now_ns)

    def _timeout_ms(self) -> int:
        now_ns = time.monotonic_ns()
        until_ns = self._cutting.due_ns
        self._due_ns = self._core.next_due_ns()
        for due_ns in (self._due_ns, self._holding.next_due_ns(), self._providers.next_due_ns()):
            if due_ns is not None and due_ns < until_ns:
                until_ns = due_ns
        if self._peers.failed:
            until_ns = min(until_ns, self._handshakes_ns)
        if self._outbox.waits() or self._mail.waiting:
            until_ns = min(until_ns, now_ns + RETRY_NS)
        return max(0, -((now_ns - until_ns) // 1_000_000))

    def _read(self) -> bool:
        """Take what has come, for one turn; whether that was all."""
        for event in self._inbox.read():
            try:
                self._handle(event)
            except MemoryError:
                raise  # whoever has filled it, it need not be who says something now
            except Exception as error:
                # Our fault, and this process can't be trusted after it; but who has found it must not do it again.
                instance = self._peers.instance_of(event.key)
                if instance is not None:
                    why = f"the broker broke on its message: {error!r}"
                    self._mail.send(EndPeerNow(instance, BROKE_PROTOCOL, why[:512]))
                raise
        return self._inbox.is_empty

    def _hold_back(self) -> None:
        """Read no messages while their records have nowhere to go."""
        reads = not self._holding.is_full()
        if reads is not self._reads:
            self._reads = reads
            if reads:
                self._poller.register(self._sockets.router, zmq.POLLIN)
            else:
                self._poller.unregister(self._sockets.router)

    def _flush(self) -> None:
        outbox = self._outbox
        outbox.flush()
        while outbox.slow or outbox.gone:
            gone, outbox.gone = outbox.gone, []
            slow, outbox.slow = outbox.slow, []
            for route in slow:
                connection = self._peers.connection_of(route)
                if connection is not None:
                    self._handle(Malformed(connection.key, route, SILENT_READER, 0))
                    memory.cut(connection.link.descriptor)
            for route in gone:
                outbox.forget(route)
            outbox.flush()

    # -- what the core orders ------------------------------------------------------------------------------------------

    def _handle(self, event: Event) -> None:
        for command in self._core.handle(event, time.monotonic_ns()):
            self._carry_out(command)

    def _carry_out(self, command: Command) -> None:
        match command:
            case Transmit(route, messages):
                self._outbox.add(route, messages)
            case Store():
                self._store.submit(command)
            case Record():
                self._recorder.record(command, time.monotonic_ns())
            case EndPeer(instance, code, reason):
                self._peers.end(instance)
                self._mail.send(EndPeerNow(instance, code, reason[:1024]))
            case Phased(instance, phase, health):
                self._mail.send(PeerPhased(instance, phase, health))
            case Provide():
                self._providers.call(command, time.monotonic_ns())
            case HasFinished(instance):
                self._mail.send(PeerFinished(instance))
            case OperatorAnswered(call, payload, kind, reason):
                payload_file = -1 if payload is None else memory_file.from_bytes("payload", payload, sealed=False)
                self._mail.send(ActorCalled(call, kind, reason[:1024]), payload_file)

    def _record_handshakes(self, now_ns: int) -> None:
        self._recorder.record_handshakes(self._peers.failed, self._peers.announced(), now_ns)
        self._peers.failed = 0
        self._handshakes_ns = now_ns + _HANDSHAKES_NS

    def _take_stored(self) -> None:
        for stored in self._store.take_stored():
            self._handle(stored)
        if self._store.broken and not self._told_broken:
            self._told_broken = True
            self._recorder.record_store_failed(self._store.broken, time.monotonic_ns())
        for removed in self._store.take_removed():
            self._mail.send(NamespaceRemoved(removed.namespace, removed.failure))

    # -- what the wardens say ------------------------------------------------------------------------------------------

    def _use_warden(self, descriptor: int) -> None:
        self._wardens[descriptor] = Channel.from_descriptor(descriptor)
        self._poller.register(descriptor, zmq.POLLIN)

    def _quota_states(self) -> Sequence[QuotaState]:
        return self._core.quota_states(time.monotonic_ns())

    def _take_announcement(self, descriptor: int) -> None:
        warden = self._wardens[descriptor]
        try:
            message, _ = warden.receive((Connecting,))
            assert isinstance(message, Connecting)
            # What has closed is noted first: a worker that connects again has closed before.
            self._sockets.watch(self._peers)
            for _ in range(_READS_BEFORE_ANSWER):
                if self._read():
                    break
            for lost in self._peers.take_lost():
                self._handle(Disconnected(lost.key, lost.route))
            allowed = self._peers.announce(message.instance)
            if allowed:
                self._handle(Announced(message.instance))
            warden.send(Expected(message.instance, allowed))
        except (EOFError, ConnectionError):
            self._poller.unregister(descriptor)
            self._wardens.pop(descriptor).close()


def serve(
    channel: Channel,
    setup: BrokerSetup,
    layers: Sequence[LayerReport],
    context: zmq.Context[zmq.Socket[bytes]],
    new_core: Callable[[BrokerSetup], CoreLike],
    watch: memory.MemoryWatch,
    one_cpu: OneCpu,
) -> None:
    """Be the broker until the supervisor closes the channel; the process is confined already.

    Raises StoreError, OSError or AuditError when it can't begin or go on.
    """
    holding = Holding(setup.audit_endpoint, setup.audit_server_key, setup.audit_public_key, setup.audit_secret_key)
    store = StoreThread(StoreFile(setup.store_directory))
    sockets = Sockets(context, setup.socket_path, setup.server_secret_key)
    holding.client.record_durable(
        AuditEvent(
            "broker_started",
            detail={
                "uid": os.getuid(),
                "epoch": setup.epoch,
                "layers": {layer.layer: layer.status for layer in layers},
            },
        ),
        _RECORD_TIMEOUT_S,
    )
    sys.setswitchinterval(_SWITCH_S)
    gc.freeze()
    gc.enable()
    channel.send(BrokerReady(tuple(layers)))
    broker = Broker(channel, new_core(setup), sockets, store, holding, watch, one_cpu)
    try:
        broker.serve()
    finally:
        store.close()
        sockets.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(setup.socket_path)
        holding.close()
