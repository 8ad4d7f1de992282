"""What the supervisor orders a broker: each is read from its channel, and carried out or given to the core."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

from ipc import memory_file
from ipc.broker.events import (
    Admission,
    Admitted,
    Dismissed,
    Event,
    NamePassed,
    OperatorCalled,
    OperatorGone,
    Restricted,
)
from ipc.broker.mail import Mail
from ipc.broker.messages import MAX_PAYLOAD_BYTES
from ipc.broker.orders import (
    Admit,
    AreYouThere,
    CallActor,
    ChangePolicy,
    Dismiss,
    ForgetCall,
    HereIAm,
    PassName,
    PolicyChanged,
    ProviderAway,
    ProviderEnded,
    ProviderUses,
    Quotas,
    QuotaState,
    ReadProviders,
    ReadQuotas,
    RemoveNamespace,
    SetProviders,
    UseProvider,
    UseWarden,
)
from ipc.broker.peers import Peers
from ipc.broker.provider_links import ProviderLinks
from ipc.broker.recorder import Recorder
from ipc.broker.store_thread import StoreThread
from ipc.channel import Channel
from ipc.errors import LocalProtocolError
from ipc.policy.decision import compile_policy
from ipc.struct import replace
from ipc.warden.asking import POLICY_MAX_BYTES, read_document

_ORDERS: Final = (
    AreYouThere,
    Admit,
    ChangePolicy,
    Dismiss,
    PassName,
    UseWarden,
    CallActor,
    ForgetCall,
    RemoveNamespace,
    ReadQuotas,
    SetProviders,
    UseProvider,
    ProviderAway,
    ProviderEnded,
    ReadProviders,
)


class OrdersTaken:
    """The broker's end of the supervisor's channel."""

    def __init__(
        self,
        channel: Channel,
        mail: Mail,
        peers: Peers,
        recorder: Recorder,
        store: StoreThread,
        providers: ProviderLinks,
        handle: Callable[[Event], None],
        quota_states: Callable[[], Sequence[QuotaState]],
        use_warden: Callable[[int], None],
    ) -> None:
        """Bind the parts; `handle` gives the core what happened, `use_warden` listens to one that announces."""
        self._channel = channel
        self._mail = mail
        self._peers = peers
        self._recorder = recorder
        self._store = store
        self._providers = providers
        self._handle = handle
        self._quota_states = quota_states
        self._use_warden = use_warden

    def take(self) -> bool:
        """Take the next one; False where the supervisor has closed the channel. Raises LocalProtocolError."""
        try:
            message, descriptors = self._channel.receive(_ORDERS)
        except (EOFError, ConnectionResetError):
            return False
        expected = 1 if isinstance(message, Admit | ChangePolicy | UseWarden | CallActor | UseProvider) else 0
        if len(descriptors) != expected:
            raise LocalProtocolError(f"{type(message).__name__} with {len(descriptors)} descriptors")
        match message:
            case Admit():
                self._admit(message, descriptors[0])
            case PassName(instance):
                self._handle(NamePassed(instance))
            case ChangePolicy():
                self._change_policy(message, descriptors[0])
            case Dismiss(instance):
                self._handle(Dismissed(instance))
                self._peers.dismiss(instance)
                self._recorder.forget(instance)
                self._providers.forget(instance)
            case UseWarden():
                self._use_warden(descriptors[0])
            case CallActor(call, to, timeout_ms, wants_answer, sender):
                payload = memory_file.take(descriptors[0], MAX_PAYLOAD_BYTES)
                self._handle(OperatorCalled(call, to, payload, timeout_ms, wants_answer, sender))
            case ForgetCall(call):
                self._handle(OperatorGone(call))
            case RemoveNamespace(namespace):
                self._store.remove(namespace, 0)
            case AreYouThere():
                self._mail.send(HereIAm())
            case SetProviders(providers):
                self._providers.define(providers)
            case UseProvider(provider, process):
                self._providers.add(provider, process, descriptors[0], time.monotonic_ns())
            case ProviderEnded(process):
                self._providers.ended(process, time.monotonic_ns())
            case ProviderAway(provider, reason):
                self._providers.away(provider, reason)
            case ReadProviders():
                self._mail.send(ProviderUses(self._providers.uses()))
            case ReadQuotas():
                self._mail.send(Quotas(tuple(map(self._with_usage, self._quota_states()))))
        return True

    def _with_usage(self, state: QuotaState) -> QuotaState:
        """What is stored is the store's to say: the core knows it only of who has asked."""
        if state.quota != "storage":
            return state
        return replace(state, usage=self._store.usage_bytes(state.component))

    def _admit(self, order: Admit, policy_file: int) -> None:
        document = read_document(memory_file.take(policy_file, POLICY_MAX_BYTES))
        key = order.key.decode("ascii")
        if not self._peers.admit(order.instance, key):
            raise LocalProtocolError(f"Admit of {order.instance}: it or its key is known already")
        self._recorder.admit(order)
        admission = Admission(
            order.instance,
            order.context.component,
            key,
            compile_policy(document),
            order.bounds,
            order.context.version,
            order.description,
            order.stands_by,
        )
        self._handle(Admitted(admission))

    def _change_policy(self, order: ChangePolicy, policy_file: int) -> None:
        document = read_document(memory_file.take(policy_file, POLICY_MAX_BYTES))
        self._handle(Restricted(order.instance, compile_policy(document)))
        # Behind it: the counts that it closes are of what was before.
        self._recorder.admit(order)
        self._mail.send(PolicyChanged(order.instance, order.context.policy_digest))
