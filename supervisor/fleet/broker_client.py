"""The supervisor's end of the broker: starts it, tells it who may connect, hears it, and puts another in its place.

Nothing here waits but `start` and `wait_ready`: a loop polls `fileno` and gives what it gets from `receive` its place.
After a crash another broker gets the same server key, so that the workers that live on reach it, another epoch, and
everybody who was admitted. What was acknowledged is in its store and in the audit log.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import time
from collections.abc import Callable, Sequence

import zmq

from ipc import codec, memory_file
from ipc.audit.event import AuditEvent
from ipc.broker.messages import MAX_PAYLOAD_BYTES
from ipc.broker.orders import (
    ActorCalled,
    Admit,
    AreYouThere,
    BrokerReady,
    BrokerSetup,
    CallActor,
    ChangePolicy,
    Dismiss,
    EndPeerNow,
    EndProvider,
    ForgetCall,
    HereIAm,
    NamespaceRemoved,
    PassName,
    PeerFinished,
    PeerPhased,
    PolicyChanged,
    ProviderAway,
    ProviderEnded,
    ProviderUses,
    Quotas,
    ReadProviders,
    ReadQuotas,
    RemoveNamespace,
    SetProviders,
    UseProvider,
    UseWarden,
)
from ipc.channel import Channel
from ipc.errors import ConfinementError, LocalProtocolError, PeerProtocolError
from ipc.messages import LayerReport
from ipc.policy.decision import PolicyDocument
from ipc.struct import Struct, replace
from supervisor.audit.writer import AuditWriter
from supervisor.config.settings import REQUIRED_LAYERS
from supervisor.fleet.broker_pulse import BrokerPulse
from supervisor.fleet.broker_restart import (
    READY_WITHIN_NS,
    AfterBrokerLoss,
    BrokerLoss,
    GiveUp,
    Restart,
    decide_after_loss,
)
from supervisor.fleet.deaths import recent_deaths
from supervisor.host.identity import Identity
from supervisor.host.processes import BrokerProcess

MEMORY_BYTES = 512 << 20
_SEND_WITHIN = struct.pack("ll", 1, 0)
"""A struct timeval (socket(7)): a broker that takes no orders for a second is ended, and another one started."""
_OWN_ENDS = (69, 73)
"""EX_UNAVAILABLE, EX_CANTCREAT (sysexits.h): it can't be what it must be, and another one couldn't."""
SOCKET_NAME = "broker.sock"

BrokerMessage = (
    BrokerReady
    | PeerPhased
    | PeerFinished
    | PolicyChanged
    | EndPeerNow
    | ActorCalled
    | Quotas
    | NamespaceRemoved
    | EndProvider
    | ProviderUses
)
_MESSAGES = (*BrokerMessage.__args__, HereIAm)


class BrokerOptions(Struct, frozen=True):
    """Where a broker works, as whom, and within which bounds; both directories belong to `run_as` alone."""

    run_as: Identity
    socket_directory: str
    store_directory: str
    workers_max: int = 200
    memory_bytes: int = MEMORY_BYTES
    required_layers: tuple[str, ...] = REQUIRED_LAYERS


class Lost(Struct, frozen=True):
    """The broker has ended: what was decided, and why it ended as far as that is known."""

    after: AfterBrokerLoss
    detail: dict[str, object]


class Heard(Struct, frozen=True):
    """A message of the broker's, with the payload that came along."""

    message: BrokerMessage
    payload: bytes | None = None


class BrokerClient:
    """The one broker of a host. Use as a context manager: nothing is left behind."""

    def __init__(
        self,
        options: BrokerOptions,
        writer: AuditWriter,
        user_namespace: int | None,
        warden_channels: Callable[[], Sequence[int]] = tuple,
    ) -> None:
        """Prepare; `warden_channels` gives the ends of channels over which wardens announce, for each new broker."""
        self._options = options
        self._writer = writer
        self._user_namespace = user_namespace
        self._warden_channels = warden_channels
        self._server_keys = zmq.curve_keypair()
        self._audit_key = b""
        self._epoch = int.from_bytes(os.urandom(4), "big")
        self._process: BrokerProcess | None = None
        self._channel: Channel | None = None
        self._pulse = BrokerPulse()
        self._deaths_ns: tuple[int, ...] = ()
        self._admitted: dict[str, tuple[Admit, bytes]] = {}
        self.layers: tuple[LayerReport, ...] = ()
        self.restarts = 0
        self.providers: SetProviders | None = None
        """What serves custom capabilities, for each broker to know before anybody asks it."""

    def __enter__(self) -> BrokerClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- what others need to know --------------------------------------------------------------------------------------

    @property
    def socket_path(self) -> str:
        """Where it listens."""
        return os.path.join(self._options.socket_directory, SOCKET_NAME)

    @property
    def endpoint(self) -> str:
        """Where it listens, for ZeroMQ."""
        return f"ipc://{self.socket_path}"

    @property
    def server_public_key(self) -> bytes:
        """Its public CURVE key (Z85), the same for each broker of this client."""
        return self._server_keys[0]

    @property
    def is_ready(self) -> bool:
        """Whether it listens, and everybody is admitted."""
        return self._pulse.is_ready

    @property
    def pid(self) -> int | None:
        """Its process, if there is one."""
        return None if self._process is None else self._process.process.pid

    @property
    def due_ns(self) -> int | None:
        """When `receive` has something to do though nothing was said: to ask, or to see that it is lost."""
        return None if self._channel is None else self._pulse.due_ns

    def fileno(self) -> int:
        """Return the channel's descriptor, for poll(2); -1 while there is none."""
        return -1 if self._channel is None else self._channel.fileno()

    # -- its life ------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start a broker; it becomes ready by itself. Raises ConfinementError when its namespace can't be entered."""
        self._process = BrokerProcess.start_broker(self._user_namespace)
        self._process.endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _SEND_WITHIN)
        self._channel = Channel(self._process.endpoint)
        self._pulse.starts(time.monotonic_ns())
        # One that is gone already is met as the end of its channel.
        with contextlib.suppress(OSError):
            self._channel.send(self._new_setup())

    def wait_ready(self) -> None:
        """Wait until it listens; raises ConfinementError when it can't."""
        while not self.is_ready:
            heard = self.receive(READY_WITHIN_NS / 1e9)
            if isinstance(heard, Lost):
                why = str(heard.detail.get("last_words", "")) or f"it ended: {heard.detail}"
                raise ConfinementError("broker", "start", 0, why)

    def receive(self, timeout_s: float | None = 0) -> Heard | Lost | None:
        """Return what it says next, or that it is lost and what follows; None when there is nothing in time.

        A lost one is on record then, and where it is to be restarted, another one was started.
        """
        channel = self._channel
        if channel is None:
            return None
        try:
            message, descriptors = channel.receive(_MESSAGES, timeout_s)
        except TimeoutError:
            return self._watch(time.monotonic_ns())
        except (EOFError, OSError):
            return self._lose("")
        except PeerProtocolError as error:
            return self._lose(str(error))
        if isinstance(message, HereIAm):
            self._pulse.answered()
            return None
        assert isinstance(message, BrokerMessage)
        payload = None
        try:
            for descriptor in descriptors:
                payload = memory_file.take(descriptor, MAX_PAYLOAD_BYTES)
        except LocalProtocolError as error:
            return self._lose(str(error))
        if isinstance(message, BrokerReady):
            self.layers = message.layers
            self._pulse.is_now_ready(time.monotonic_ns())
            for warden in self._warden_channels():
                self._send(UseWarden(), warden)
                os.close(warden)
            if self.providers is not None:
                self._send(self.providers)
            for admit, document in self._admitted.values():
                self._send_with_file(admit, document)
            if self.restarts:
                event = AuditEvent("broker_restarted", detail={"pid": self.pid, "restarts": self.restarts})
                self._writer.local(event)
        return Heard(message, payload)

    def close(self) -> None:
        """End it, and wait for that; what it had acknowledged is kept."""
        process, self._process, self._channel = self._process, None, None
        if process is not None:
            process.close()
        if self._audit_key:
            self._writer.unregister(self._audit_key)
            self._audit_key = b""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.socket_path)

    def _watch(self, now_ns: int) -> Lost | None:
        """Nothing was said: see whether it is late, and ask whether it is there."""
        why = self._pulse.why_lost(now_ns)
        if why:
            return self._lose(why)
        if self._pulse.is_to_be_asked(now_ns):
            self._send(AreYouThere())
        return None

    def _lose(self, why: str) -> Lost:
        process = self._process
        assert process is not None
        was_ready, self._channel, self._process = self._pulse.ended(), None, None
        now_ns = time.monotonic_ns()
        self._deaths_ns = (*recent_deaths(self._deaths_ns, now_ns), now_ns)
        # It may be about to say why it ends; one that hangs says nothing.
        if not process.process.wait(0 if why else 0.5):
            process.see_gone()
        detail = process.ending()
        own_end = detail.get("status") in _OWN_ENDS
        if why:
            detail["last_words"] = why
        process.close()
        after = decide_after_loss(BrokerLoss(was_ready, own_end), self._deaths_ns, now_ns)
        self._writer.unregister(self._audit_key)
        reason = after.reason if isinstance(after, GiveUp) else ""
        self._writer.local(AuditEvent("broker_lost", reason=reason, detail=detail))
        if isinstance(after, Restart):
            self.restarts += 1
            self.start()
        return Lost(after, detail)

    def _new_setup(self) -> BrokerSetup:
        options = self._options
        # Never 0, which to a worker means that it has known none.
        self._epoch = (self._epoch + 1) % 2**32 or 1
        public, secret = self._writer.new_client_keys("broker")
        self._audit_key = public
        return BrokerSetup(
            uid=options.run_as.uid,
            gid=options.run_as.gid,
            socket_path=self.socket_path,
            server_public_key=self._server_keys[0],
            server_secret_key=self._server_keys[1],
            store_directory=options.store_directory,
            epoch=self._epoch,
            workers_max=options.workers_max,
            memory_bytes=options.memory_bytes,
            audit_endpoint=self._writer.endpoint,
            audit_server_key=self._writer.server_public_key,
            audit_public_key=public,
            audit_secret_key=secret,
            required=options.required_layers,
        )

    # -- what it is told -----------------------------------------------------------------------------------------------

    def admit(self, order: Admit, document: PolicyDocument) -> None:
        """Let an instance connect once it is announced, from now on and with each broker to come."""
        packed = codec.pack_map(document.to_wire())
        self._admitted[order.instance] = (order, packed)
        self._send_with_file(order, packed)

    def pass_name(self, instance: str) -> None:
        """Say that an instance which stood by has its component's name from now on, with each broker to come, too."""
        order, packed = self._admitted[instance]
        # Behind who had it: to another broker, that one's time is over at once.
        self._admitted[instance] = (replace(order, stands_by=False), packed)
        self._send(PassName(instance))

    def change_policy(self, order: ChangePolicy, document: PolicyDocument) -> bool:
        """Have an admitted instance decided about by another policy, with each broker to come, too.

        False where there is nothing to wait for: the next broker begins with it.
        """
        if order.instance not in self._admitted:
            return False
        packed = codec.pack_map(document.to_wire())
        admit, _ = self._admitted[order.instance]
        self._admitted[order.instance] = (replace(admit, context=order.context), packed)
        return self._send_with_file(order, packed)

    def dismiss(self, instance: str) -> None:
        """Say that an instance has ended."""
        if self._admitted.pop(instance, None) is not None:
            self._send(Dismiss(instance))

    def call(self, order: CallActor, payload: bytes) -> bool:
        """Deliver a payload for an operator; False when there is no broker at the moment."""
        return self._send_with_file(order, payload)

    def forget_call(self, call: int) -> None:
        """Say that nobody waits for a call any more."""
        self._send(ForgetCall(call))

    def read_quotas(self) -> bool:
        """Ask for the quotas; False when there is no broker at the moment."""
        return self._send(ReadQuotas())

    def use_provider(self, order: UseProvider, channel: int) -> None:
        """Let calls be given to a process over `channel`, which stays the caller's."""
        self._send(order, channel)

    def tell_of_provider(self, order: ProviderEnded | ProviderAway) -> None:
        """Say that a process of a provider has ended, or that a provider takes no calls for a while."""
        self._send(order)

    def read_providers(self) -> bool:
        """Ask what was asked of the providers; False when there is no broker at the moment."""
        return self._send(ReadProviders())

    def remove_namespace(self, namespace: str) -> bool:
        """Have all removed that a component keeps; False when there is no broker at the moment."""
        return self._send(RemoveNamespace(namespace))

    def use_warden(self, channel: int) -> None:
        """Let a warden announce connections over `channel`, which stays the caller's."""
        self._send(UseWarden(), channel)

    def _send_with_file(self, message: object, data: bytes) -> bool:
        if not self.is_ready:
            return False
        file = memory_file.from_bytes("broker", data)
        try:
            return self._send(message, file)
        finally:
            os.close(file)

    def _send(self, message: object, descriptor: int = -1) -> bool:
        if self._channel is None or not self.is_ready:
            return False
        try:
            self._channel.send(message, () if descriptor < 0 else (descriptor,))
        except BlockingIOError:
            # Stopped, or stuck: whoever supervises it has others to see to. Its end is met as the end of its channel.
            if self._process is not None:
                self._process.see_gone()
            return False
        except OSError:
            return False  # met as the end of its channel
        return True
