"""What happens to the broker's core, and what it orders: values, which the shell makes and carries out."""

from __future__ import annotations

from typing import Protocol

from ipc.broker.messages import FromWorker, StorageCall, ToWorker
from ipc.policy.capability import Metadata
from ipc.policy.decision import Allow, Deny
from ipc.policy.quotas import MESSAGE_RATE, STORAGE
from ipc.struct import Struct


class Rights(Protocol):
    """What is used of `ipc.policy.decision.Policy`: actions of messaging, storage and custom capabilities."""

    def decide(self, action: str, resource: str) -> Allow | Deny:
        """Answer for one action on one resource."""

    def granted(self, action: str) -> tuple[str, ...]:
        """Return the patterns of the grants of an action, whatever else may forbid."""

    def metadata(self, rule: str) -> Metadata:
        """Return what stands beside the grant that a decision names."""


class SharedStorage(Struct, frozen=True, forbid_unknown_fields=True):
    """A namespace that the host shares with a component; all who have it may keep `limit_bytes` in it together."""

    name: str
    limit_bytes: int | None


class Bounds(Struct, frozen=True, forbid_unknown_fields=True):
    """What one component may use; integers, None is unlimited (only a host policy grants that)."""

    storage_bytes: int | None = STORAGE.default
    messages_per_s: int | None = MESSAGE_RATE.default
    max_payload_bytes: int = 1_000_000
    mailbox_messages: int = 1_000
    mailbox_bytes: int = 8_000_000
    requests_in_flight: int = 1_000
    shared_storage: tuple[SharedStorage, ...] = ()


class Admission(Struct, frozen=True):
    """A worker instance that may connect: `key` is its public CURVE key (Z85), `name` what others call it."""

    instance: str
    name: str
    key: str
    rights: Rights
    bounds: Bounds
    version: str = ""
    description: str = ""
    stands_by: bool = False
    """Nothing is sent to it until the name is passed to it."""


# -- events ------------------------------------------------------------------------------------------------------------


class Admitted(Struct, frozen=True):
    """The supervisor has started an instance; one of the same name must be dismissed before."""

    admission: Admission


class NamePassed(Struct, frozen=True):
    """The supervisor says that this instance, which stood by, has its component's name from now on."""

    instance: str


class Restricted(Struct, frozen=True):
    """The supervisor says that an instance has other rights from now on: some of its grants were taken back."""

    instance: str
    rights: Rights


class Dismissed(Struct, frozen=True):
    """The supervisor says that an instance has ended: nothing more is taken from its key."""

    instance: str


class Announced(Struct, frozen=True):
    """The warden connects this instance's socket now: its key may shake hands once more."""

    instance: str


class Received(Struct, frozen=True):
    """A batch came from the holder of `key` over the connection `route` (ROUTER's routing id)."""

    key: str
    route: bytes
    messages: tuple[FromWorker, ...]
    size_bytes: int


class Malformed(Struct, frozen=True):
    """A frame that is no batch came from the holder of `key`."""

    key: str
    route: bytes
    why: str
    size_bytes: int


class Disconnected(Struct, frozen=True):
    """The connection `route` of the holder of `key` is gone; another one may be announced."""

    key: str
    route: bytes


class Stored(Struct, frozen=True):
    """The store has answered the Store command with this ticket, and what it says is durable."""

    ticket: int
    result: StoreResult


class Recorded(Struct, frozen=True):
    """The Record command with this ticket is durable; `failed` says why it can't be, "" otherwise."""

    ticket: int
    failed: str = ""


class Provided(Struct, frozen=True):
    """The Provide command with this ticket has ended: a payload, or an error of this `kind` (`ErrorKind`).

    `limit` are the bytes of a payload that is too large.
    """

    ticket: int
    payload: bytes | None
    kind: str = ""
    reason: str = ""
    limit: int = 0


class OperatorCalled(Struct, frozen=True):
    """Somebody with the right to do so sends a message through the control socket; `sender` names who for the audit."""

    call: int
    to: str
    payload: bytes
    timeout_ms: int
    wants_answer: bool
    sender: str


class OperatorGone(Struct, frozen=True):
    """Nobody waits for that call any more."""

    call: int


class Due(Struct, frozen=True):
    """Time has passed: `Core.next_due_ns` was reached."""


Event = (
    Admitted
    | NamePassed
    | Restricted
    | Dismissed
    | Announced
    | Received
    | Malformed
    | Disconnected
    | Stored
    | Recorded
    | Provided
    | OperatorCalled
    | OperatorGone
    | Due
)

# -- commands ----------------------------------------------------------------------------------------------------------


class Transmit(Struct, frozen=True):
    """Send these to a connection, in order; the shell batches and never waits."""

    route: bytes
    messages: tuple[ToWorker, ...]


class Store(Struct, frozen=True):
    """Do this in the namespace, within its limit; answer with Stored. `rights` say which keys a listing shows."""

    ticket: int
    namespace: str
    call: StorageCall
    limit_bytes: int | None
    rights: Rights


class Record(Struct, frozen=True):
    """Put on record what was decided about this instance; with a ticket answer with Recorded once it is durable.

    The core folds: `count` says how many alike happenings the record stands for. `quota` names the one that `usage` and
    `limit` speak of; `actor` is the person who did it, where one did.
    """

    instance: str
    event: str
    action: str
    resource: str
    decision: str
    code: str = ""
    reason: str = ""
    rule: str = ""
    nearest: str | None = None
    usage: int = 0
    limit: int = 0
    ticket: int = 0
    detail: tuple[tuple[str, str | int], ...] = ()
    count: int = 1
    quota: str = ""
    actor: str = ""


class Provide(Struct, frozen=True):
    """Call the provider of a custom capability for this instance; answer with Provided.

    `metadata` is the grant's. An answer may have `answer_bytes` at most.
    """

    ticket: int
    component: str
    instance: str
    capability: str
    action: str
    metadata: Metadata
    payload: bytes
    answer_bytes: int


class EndPeer(Struct, frozen=True):
    """Have the supervisor end this instance: it broke the protocol."""

    instance: str
    code: str
    reason: str


class Phased(Struct, frozen=True):
    """Tell the supervisor of a session's phase: ready or lost, and what the component says of its health."""

    instance: str
    phase: str
    health: str = "unknown"


class HasFinished(Struct, frozen=True):
    """Tell the supervisor that this instance, whose name another one has, has nothing to do any more."""

    instance: str


class OperatorAnswered(Struct, frozen=True):
    """The end of an OperatorCalled: a payload, or an error of this kind."""

    call: int
    payload: bytes | None
    kind: str = ""
    reason: str = ""


Command = Transmit | Store | Record | Provide | EndPeer | Phased | HasFinished | OperatorAnswered


class StoreResult(Struct, frozen=True):
    """What the store says: a value, keys, numbers, or that it would be over the limit, or that the disk failed.

    `usage_bytes` is the namespace's after the call.
    """

    value: bytes | None = None
    keys: tuple[str, ...] = ()
    count: int = 0
    usage_bytes: int = 0
    over_limit: bool = False
    failure: str = ""
