"""A fleet's side of the broker: who may connect there, what it says of them, and the calls of people through it.

It is a source of the event loop. The broker knows an instance by a key that is made here for it, and expects its
connection because the warden, which makes it, announces it; both hear of each other from here, whenever one of them is
replaced.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final, Protocol

import zmq

from ipc import codec
from ipc.broker.orders import (
    ActorCalled,
    Admit,
    BrokerReady,
    CallActor,
    ChangePolicy,
    EndPeerNow,
    EndProvider,
    PeerFinished,
    PeerPhased,
    PolicyChanged,
    ProviderUse,
    ProviderUses,
    Quotas,
    QuotaState,
)
from ipc.channel import Channel
from ipc.errors import ConfigError
from ipc.messages import ActorJob
from ipc.policy.document import PolicyDocument
from ipc.security_context import SecurityContext
from supervisor.event_loop import READ, Interest
from supervisor.fleet.broker_client import BrokerClient, BrokerOptions, Heard, Lost
from supervisor.fleet.broker_restart import GiveUp
from supervisor.fleet.member import Plan
from supervisor.fleet.providers import FleetProviders
from supervisor.host.component_directories import make_data_directory
from supervisor.host.host import Host
from supervisor.host.warden_client import WardenClient

KEY: Final = "broker"
WORKERS_SPARE: Final = 16
"""Of an instance that ends and one that follows it, both are admitted for a moment; of one that another is to take the
place of, for longer, so that each component may have two, and some a third."""
_SOCKET_DIRECTORY: Final = "b"
_SOCKET_BYTES_MAX: Final = 100


class Peers(Protocol):
    """Who hears what the broker says of instances."""

    def on_peer(self, instance: str, ready: bool, health: str) -> None:
        """A session has begun or was lost, or a component says how it is."""

    def on_peer_finished(self, instance: str) -> None:
        """This instance, whose name another one has, has nothing to do any more."""

    def on_end_peer(self, instance: str, code: str, reason: str) -> None:
        """This instance broke the protocol and must end."""

    def on_broker_lost(self, reason: str) -> None:
        """It has ended; `reason` says why there is no other one, "" where there is."""


class Askers(Protocol):
    """Who hears what the broker answers to people."""

    def on_called(self, call: int, kind: str, reason: str, payload: bytes | None) -> None:
        """A call has ended."""

    def on_quotas(self, states: tuple[QuotaState, ...]) -> None:
        """How full the quotas are that the broker sees to."""

    def on_provider_uses(self, uses: tuple[ProviderUse, ...]) -> None:
        """What was asked of the providers."""

    def on_nobody_answers(self) -> None:
        """The broker has ended; what it was asked it will not answer."""


class FleetBroker:
    """The broker of one fleet."""

    def __init__(
        self, host: Host, workers: int, peers: Peers, askers: Askers, providers: FleetProviders | None = None
    ) -> None:
        """Prepare one for so many workers; raises ConfigError where its places can't be made."""
        self._providers = providers
        self._host = host
        self._peers = peers
        self._askers = askers
        self._call = 0
        self._changing: dict[str, str] = {}
        options = host.options
        sockets = _private(os.path.join(host.session_directory, _SOCKET_DIRECTORY), host)
        store = _private(os.path.join(options.state_directory, "store"), host)
        if os.getuid() == 0:
            # Passed through on the way to the store, by whose identity it is; nobody but us lists it.
            os.chmod(options.state_directory, 0o711)  # noqa: S103
        required = tuple(layer for layer in options.required_layers if layer not in options.layers_off)
        self._client = BrokerClient(
            BrokerOptions(options.run_as, sockets, store, 2 * workers + WORKERS_SPARE, required_layers=required),
            host.writer,
            host.zygote.user_namespace,
            self._warden_channels,
        )
        if len(self._client.socket_path) > _SOCKET_BYTES_MAX:
            raise ConfigError(
                f"{self._client.socket_path}: too long for a unix socket (unix(7): 108 bytes)",
                hint="choose a shorter [host] run in airssys.toml, or a shorter --state-dir",
            )

    def start(self) -> None:
        """Start it; it becomes ready by itself."""
        if self._providers is not None:
            self._client.providers = self._providers.terms()
        self._client.start()
        self._host.supply.on_started = self._introduce

    def wait_ready(self) -> None:
        """Wait until it takes connections; raises ConfinementError when it can't."""
        self._client.wait_ready()
        self._has_begun()

    def close(self) -> None:
        """End it."""
        self._host.supply.on_started = None
        self._client.close()

    @property
    def is_ready(self) -> bool:
        """Whether it takes orders at the moment."""
        return self._client.is_ready

    # -- what it is told -----------------------------------------------------------------------------------------------

    def admit(self, plan: Plan, instance: str, stands_by: bool) -> ActorJob:
        """Let an instance of an actor connect, by a key that is made for it; return what the instance is told.

        Who `stands_by` is sent nothing until `pass_name`.
        """
        actor, artifact, document = plan.actor, plan.artifact, plan.request.document
        assert actor is not None, "only an actor speaks to the broker"
        assert artifact is not None, "what is known to be an actor is compiled"
        public, secret = zmq.curve_keypair()
        context = plan.request.context.of_program(artifact.record.wasm_sha256)
        order = Admit(instance, public, actor.bounds, context, plan.description, stands_by)
        self._client.admit(order, document)
        return ActorJob(
            name=plan.name,
            instance=instance,
            endpoint=self._client.endpoint,
            server_key=self._client.server_public_key,
            public_key=public,
            secret_key=secret,
            config=actor.config,
            document=codec.pack_map(document.to_wire()),
            call_timeout_ns=actor.call_timeout_ns,
        )

    def pass_name(self, instance: str) -> None:
        """Let an instance that stood by have its component's name; `on_peer_finished` follows for who had it."""
        self._client.pass_name(instance)

    def change_policy(self, instance: str, context: SecurityContext, document: PolicyDocument) -> None:
        """Have an instance decided about by another policy, from its next check on."""
        if self._client.change_policy(ChangePolicy(instance, context), document):
            self._changing[instance] = context.policy_digest

    def is_changing(self, instance: str) -> bool:
        """Whether the broker may still decide by a policy that was replaced."""
        return instance in self._changing

    def dismiss(self, instance: str) -> None:
        """Say that an instance has ended."""
        self._changing.pop(instance, None)
        self._client.dismiss(instance)

    def call(self, to: str, payload: bytes, timeout_ms: int, wants_answer: bool, sender: str) -> int:
        """Send a message for a person; return its number, 0 when there is no broker at the moment."""
        self._call += 1
        order = CallActor(self._call, to, timeout_ms, wants_answer, sender)
        return self._call if self._client.call(order, payload) else 0

    def forget_call(self, call: int) -> None:
        """Say that nobody waits for a call any more."""
        self._client.forget_call(call)

    def read_providers(self) -> bool:
        """Ask what was asked of the providers; False when there is no broker at the moment."""
        return self._client.read_providers()

    def read_quotas(self) -> bool:
        """Ask for the quotas; False when there is no broker at the moment."""
        return self._client.read_quotas()

    # -- as a source ---------------------------------------------------------------------------------------------------

    def interests(self) -> Iterator[Interest]:
        """Yield what to wait for now."""
        if self._client.fileno() >= 0:
            yield Interest(self._client.fileno(), READ, self._read)

    def next_ns(self) -> int:
        """Return when a broker that was started must have become ready."""
        return self._client.due_ns or 0

    def tick(self, now_ns: int) -> None:
        """See that one which doesn't become ready is lost."""
        if 0 < (self._client.due_ns or 0) <= now_ns:
            self._read()

    def _read(self) -> None:
        heard = self._client.receive(0)
        if isinstance(heard, Lost):
            self._changing.clear()  # the next one begins with what it was told last
            self._askers.on_nobody_answers()
            if self._providers is not None:
                self._providers.broker_lost()
            self._peers.on_broker_lost(heard.after.reason if isinstance(heard.after, GiveUp) else "")
        elif isinstance(heard, Heard):
            self._take(heard)

    def _take(self, heard: Heard) -> None:
        match heard.message:
            case PeerPhased(instance, phase, health):
                self._peers.on_peer(instance, phase == "ready", health)
            case PeerFinished(instance):
                self._peers.on_peer_finished(instance)
            case PolicyChanged(instance, digest):
                if self._changing.get(instance) == digest:
                    del self._changing[instance]
            case EndPeerNow(instance, code, reason):
                self._peers.on_end_peer(instance, code, reason)
            case ActorCalled(call, kind, reason):
                self._askers.on_called(call, kind, reason, heard.payload)
            case Quotas(states):
                self._askers.on_quotas(states)
            case ProviderUses(uses):
                self._askers.on_provider_uses(uses)
            case EndProvider():
                if self._providers is not None:
                    self._providers.end(heard.message)
            case BrokerReady():
                self._has_begun()

    def _has_begun(self) -> None:
        if self._providers is not None:
            self._providers.broker_ready(self._client)

    # -- broker and warden ---------------------------------------------------------------------------------------------

    def _warden_channels(self) -> list[int]:
        """Return the broker's end of a new channel to the warden there is now, which has got the other one."""
        warden = self._host.warden
        return [] if warden is None else self._join(warden)

    def _introduce(self, warden: WardenClient) -> None:
        """Tell a warden that was started in another's place where the broker is, and the broker of its channel."""
        if self._client.is_ready:
            for channel in self._join(warden):
                self._client.use_warden(channel)
                os.close(channel)

    def _join(self, warden: WardenClient) -> list[int]:
        ours, theirs = Channel.pair()
        try:
            warden.use_broker(self._client.socket_path, theirs.fileno())
        except OSError:  # it is gone; the one in its place is introduced when it is started
            ours.close()
            return []
        finally:
            theirs.close()
        return [ours.detach()]


def _private(path: str, host: Host) -> str:
    """Make a directory that belongs to the broker's identity alone."""
    return make_data_directory(path, host.options.run_as)
