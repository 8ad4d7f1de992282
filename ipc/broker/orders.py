"""What the supervisor and the wardens tell the broker over their channels (AF_UNIX SOCK_SEQPACKET), and it them."""

from __future__ import annotations

from ipc.broker.events import Bounds
from ipc.messages import LayerReport, Message
from ipc.security_context import SecurityContext


class BrokerSetup(Message, frozen=True):
    """Supervisor → broker, first: whose identity, where to listen, where to keep, where to report.

    `socket_path` lies in a private directory; keys are CURVE's (Z85). `epoch` is another for each broker.
    """

    uid: int
    gid: int
    socket_path: str
    server_public_key: bytes
    server_secret_key: bytes
    store_directory: str
    epoch: int
    workers_max: int
    memory_bytes: int
    audit_endpoint: str
    audit_server_key: bytes
    audit_public_key: bytes
    audit_secret_key: bytes
    required: tuple[str, ...] = ()


class BrokerReady(Message, frozen=True):
    """Broker → supervisor: it listens; what confines it."""

    layers: tuple[LayerReport, ...]


class AreYouThere(Message, frozen=True):
    """Supervisor → broker: answer at once, with HereIAm."""


class HereIAm(Message, frozen=True):
    """Broker → supervisor: its loop turns."""


class Admit(Message, frozen=True):
    """Supervisor → broker, with [policy]: the holder of `key` is this instance. The file is a packed PolicyDocument."""

    instance: str
    key: bytes
    bounds: Bounds
    context: SecurityContext
    description: str = ""
    stands_by: bool = False
    """It doesn't get the name yet: another instance has it until PassName."""


class PassName(Message, frozen=True):
    """Supervisor → broker: this instance, which stood by, has its component's name from now on.

    Who had it finishes what it was given: PeerFinished says so. Then, or when that one has ended, this one gets what
    waited.
    """

    instance: str


class PeerFinished(Message, frozen=True):
    """Broker → supervisor: this instance, whose name another one has, has nothing to do any more."""

    instance: str


class ChangePolicy(Message, frozen=True):
    """Supervisor → broker, with [policy]: from now on this instance, which may be connected, has this one.

    Answer: PolicyChanged. Nothing is forgotten of it but what its old policy allowed.
    """

    instance: str
    context: SecurityContext


class PolicyChanged(Message, frozen=True):
    """Broker → supervisor: answer to ChangePolicy; the next check of the instance is by the policy of this digest."""

    instance: str
    policy_digest: str


class Dismiss(Message, frozen=True):
    """Supervisor → broker: this instance has ended."""

    instance: str


class UseWarden(Message, frozen=True):
    """Supervisor → broker, with [channel]: a warden announces connections there."""


class PeerPhased(Message, frozen=True):
    """Broker → supervisor: a session is `ready` or `lost`; what the component says of its health."""

    instance: str
    phase: str
    health: str = "unknown"


class EndPeerNow(Message, frozen=True):
    """Broker → supervisor: this instance broke the protocol and must end."""

    instance: str
    code: str
    reason: str


class CallActor(Message, frozen=True):
    """Supervisor → broker, with [payload]: deliver this for an operator; answer with ActorCalled."""

    call: int
    to: str
    timeout_ms: int
    wants_answer: bool
    sender: str


class ForgetCall(Message, frozen=True):
    """Supervisor → broker: nobody waits for that call any more."""

    call: int


class ActorCalled(Message, frozen=True):
    """Broker → supervisor, with [payload] where there is one: how a CallActor ended; `kind` "" is well."""

    call: int
    kind: str = ""
    reason: str = ""


class RemoveNamespace(Message, frozen=True):
    """Supervisor → broker: remove all that a component keeps, of which none is admitted. Answer: NamespaceRemoved."""

    namespace: str


class NamespaceRemoved(Message, frozen=True):
    """Broker → supervisor: answer to RemoveNamespace, durable; `failure` says why it could not be, "" is well."""

    namespace: str
    failure: str = ""


class ProviderTerms(Message, frozen=True):
    """One provider: what it serves, how long a call may take, how many bytes a payload may have."""

    name: str
    capabilities: tuple[str, ...]
    timeout_ns: int
    max_payload_bytes: int


class SetProviders(Message, frozen=True):
    """Supervisor → broker, once: the providers that there are."""

    providers: tuple[ProviderTerms, ...]


class UseProvider(Message, frozen=True):
    """Supervisor → broker, with [socket]: a process of this provider, numbered by the supervisor, takes calls there."""

    provider: str
    process: int


class ProviderEnded(Message, frozen=True):
    """Supervisor → broker: this process has ended, whoever else may still hold its socket."""

    process: int


class ProviderAway(Message, frozen=True):
    """Supervisor → broker: no process of this provider will take calls soon, and why."""

    provider: str
    reason: str


class EndProvider(Message, frozen=True):
    """Broker → supervisor: this process has nothing to do any more and must end. `code` "" where it ended itself."""

    provider: str
    process: int
    code: str
    reason: str


class ReadProviders(Message, frozen=True):
    """Supervisor → broker: what was asked of the providers? Answer: ProviderUses."""


class ProviderUse(Message, frozen=True):
    """What was asked of one provider since this broker began, how much of it failed, is with it, and waits."""

    provider: str
    calls: int
    failed: int
    busy: int
    waiting: int


class ProviderUses(Message, frozen=True):
    """Broker → supervisor: answer to ReadProviders."""

    uses: tuple[ProviderUse, ...]


class ReadQuotas(Message, frozen=True):
    """Supervisor → broker: how full are the quotas? Answer: Quotas."""


class QuotaState(Message, frozen=True):
    """One quota of one component; `limit` None is unlimited."""

    component: str
    quota: str
    usage: int
    limit: int | None
    unit: str


class Quotas(Message, frozen=True):
    """Broker → supervisor: answer to ReadQuotas."""

    states: tuple[QuotaState, ...]
