"""What the broker does for a component beside messages: storage, who is there, custom capabilities. Pure.

The store and the providers are elsewhere; here it is decided, ordered, and answered when they are done.
"""

from __future__ import annotations

from itertools import count
from typing import Final

from ipc.broker.board import Board
from ipc.broker.events import Provide, Provided, Store, StoreResult
from ipc.broker.ledger import Refusal
from ipc.broker.messages import (
    MAX_DESCRIPTION_BYTES,
    MAX_KEY_BYTES,
    MAX_LISTED,
    MAX_NAME_BYTES,
    Accepted,
    CompareAndSet,
    Delete,
    Describe,
    ErrorKind,
    Exists,
    Get,
    GetMetadata,
    Health,
    Invoke,
    ListComponents,
    ListKeys,
    Names,
    Numbers,
    Refused,
    Set,
    StorageCall,
    Usage,
    Value,
)
from ipc.broker.messaging import SEND, Messaging, to_refusal, too_large
from ipc.broker.namespaces import Namespace
from ipc.broker.sessions import Session
from ipc.policy.capability import is_action, normalise_name
from ipc.policy.decision import Deny
from ipc.policy.patterns import Malformed
from ipc.policy.quota import QuotaLevel
from ipc.policy.quotas import NEVER_MS, STORAGE
from ipc.struct import Struct, replace

READ: Final = "storage.read"
WRITE: Final = "storage.write"
STORING_MAX: Final = 16
"""Storage calls of one instance that may be on their way; a worker waits for each, so more are no working worker's.
Each may bring a payload of the largest size into memory."""
PROVIDING_MAX: Final = 64
"""Calls of providers, likewise; each holds a payload."""
HEALTHS: Final = frozenset(("healthy", "degraded", "unhealthy", "unknown"))
CROWDED: Final = Refusal(ErrorKind.UNAVAILABLE, "A1807", "too many such calls wait already")


class _Asked(Struct, frozen=True):
    """Who waits for a ticket, over which connection, for what. `call` None: nobody, it was our own question.

    `namespace` is where a storage call went.
    """

    session: Session
    route: bytes | None
    call: StorageCall | Invoke | None
    namespace: Namespace | None = None


class Services:
    """Handlers for a session that is ready. Each takes the session, the message and the time."""

    def __init__(self, board: Board, messaging: Messaging) -> None:
        """Work on this board."""
        self._board = board
        self._messaging = messaging
        self._tickets = count(1)
        self._asked: dict[int, _Asked] = {}

    # -- storage -------------------------------------------------------------------------------------------------------

    def measure(self, session: Session) -> None:
        """Ask the store how much a component keeps: that is counted from what is there."""
        self._order(session, Usage(0), None, session.namespaces.own)

    def get(self, session: Session, message: Get | Exists, now_ns: int) -> None:
        """Read one key, or see whether it is there."""
        self._keyed(session, message, (READ,), now_ns)

    def write(self, session: Session, message: Set | Delete, now_ns: int) -> None:
        """Change one key."""
        self._keyed(session, message, (WRITE,), now_ns)

    def compare_and_set(self, session: Session, message: CompareAndSet, now_ns: int) -> None:
        """Change one key if it holds what is expected: that takes reading, too."""
        self._keyed(session, message, (READ, WRITE), now_ns)

    def list_keys(self, session: Session, message: ListKeys, now_ns: int) -> None:
        """List keys; the store leaves out those that may not be read."""
        for text in (message.prefix, message.after):
            if not _is_part_of_a_key(text):
                self._refuse_storage(session, message, READ, "", _INVALID_KEY, now_ns)
                return
        if message.limit < 1:
            reason = f"a listing has 1 to {MAX_LISTED} keys"
            self._refuse_storage(session, message, READ, "", Refusal(ErrorKind.INVALID, "A1808", reason), now_ns)
            return
        namespace = session.namespaces.of(message)
        if namespace is None:
            self._refuse_storage(session, message, READ, message.prefix, _NOT_SHARED, now_ns)
            return
        self._store(session, replace(message, limit=min(message.limit, MAX_LISTED)), namespace)

    def usage(self, session: Session, message: Usage, _now_ns: int) -> None:
        """Say how full its own namespace is; that needs no grant."""
        self._store(session, message, session.namespaces.own)

    def stored(self, ticket: int, result: StoreResult, now_ns: int) -> None:
        """The store is done with a call: answer it."""
        asked = self._asked.pop(ticket, None)
        if asked is None or isinstance(asked.call, Invoke):
            return
        session, call, namespace = asked.session, asked.call, asked.namespace
        assert namespace is not None
        if not result.failure and namespace is session.namespaces.own:
            session.storage_bytes = result.usage_bytes
            self._look(session, now_ns)
        if call is None:
            return
        session.storing -= 1
        if session.route is None or session.route is not asked.route:
            return
        action = WRITE if isinstance(call, Set | Delete | CompareAndSet) else READ
        key = call.key if isinstance(call, Get | Set | Delete | Exists | CompareAndSet) else ""
        if result.failure:
            failed = Refusal(ErrorKind.UNAVAILABLE, "A1807", result.failure)
            self._refuse_storage(session, call, action, key, failed, now_ns)
        elif result.over_limit:
            limit = namespace.limit_bytes or 0
            level = QuotaLevel(STORAGE.name, result.usage_bytes, limit)
            is_own = namespace is session.namespaces.own
            whose = "the storage quota" if is_own else f"the shared storage {namespace.name}"
            full = Refusal(
                ErrorKind.OVER_QUOTA,
                "A1501",
                f"no room is left in {whose}: {level.words} are used",
                retry_after_ms=NEVER_MS,
                usage=result.usage_bytes,
                limit=limit,
                quota=STORAGE.name,
            )
            self._refuse_storage(session, call, action, key, full, now_ns)
        else:
            self._answer(session, call, result)

    def _answer(self, session: Session, call: StorageCall, result: StoreResult) -> None:
        tell = self._board.tell
        match call:
            case Get():
                tell(session, Value(call.seq, result.value))
            case ListKeys():
                tell(session, Names(call.seq, result.keys))
            case Usage():
                limit = session.admission.bounds.storage_bytes
                tell(session, Numbers(call.seq, (result.usage_bytes, -1 if limit is None else limit, result.count)))
            case _:
                tell(session, Accepted(call.seq, result.count))

    def _keyed(
        self,
        session: Session,
        message: Get | Exists | Set | Delete | CompareAndSet,
        actions: tuple[str, ...],
        now_ns: int,
    ) -> None:
        key, last = message.key, actions[-1]
        if not _is_key(key):
            self._refuse_storage(session, message, last, key[:MAX_KEY_BYTES], _INVALID_KEY, now_ns)
            return
        for action in actions:
            decision = session.rights.decide(action, key)
            if isinstance(decision, Deny):
                self._refuse_storage(session, message, action, key, to_refusal(decision), now_ns)
                return
        namespace = session.namespaces.of(message)
        if namespace is None:
            self._refuse_storage(session, message, last, key, _NOT_SHARED, now_ns)
            return
        if isinstance(message, Set | CompareAndSet) and len(message.value or b"") > session.max_payload_bytes:
            self._refuse_storage(session, message, last, key, too_large(session.max_payload_bytes), now_ns)
            return
        assert not isinstance(decision, Deny)
        # Any number of keys: the first one stands for all that the same grant allows.
        if self._board.ledger.use(session, last, key, decision.rule, now_ns, each=False) is None:
            self._board.stall(session, message)
            return
        self._store(session, message, namespace)

    def _store(self, session: Session, call: StorageCall, namespace: Namespace) -> None:
        if session.storing >= STORING_MAX:
            self._board.tell(session, CROWDED.to_answer(call.seq))
            return
        session.storing += 1
        self._order(session, call, call, namespace)

    def _order(self, session: Session, call: StorageCall, asked: StorageCall | None, namespace: Namespace) -> None:
        ticket = next(self._tickets)
        self._asked[ticket] = _Asked(session, session.route, asked, namespace)
        self._board.commands.append(Store(ticket, namespace.name, call, namespace.limit_bytes, session.rights))

    def _look(self, session: Session, now_ns: int) -> None:
        level = storage_level(session)
        if session.storage_crossings.note(level):
            self._board.ledger.crossed(session, level, now_ns)

    def _refuse_storage(
        self, session: Session, call: StorageCall, action: str, key: str, refusal: Refusal, now_ns: int
    ) -> None:
        # What can be about any key, and is the same for all, is counted together.
        resource = "" if refusal.quota or refusal.kind == ErrorKind.UNAVAILABLE else key
        self._board.ledger.refuse(session, call.seq, action, resource, refusal, now_ns)

    # -- who is there --------------------------------------------------------------------------------------------------

    def list_components(self, session: Session, message: ListComponents, _now_ns: int) -> None:
        """Name those that it may send to."""
        names = [route.target.name for route in self._messaging.reach(session)]
        self._board.tell(session, Names(message.seq, tuple(names[:MAX_LISTED])))

    def get_metadata(self, session: Session, message: GetMetadata, now_ns: int) -> None:
        """Describe one that it may send to."""
        found = self._messaging.permit(session, message.name)
        if isinstance(found, Refusal):
            name = message.name[:MAX_NAME_BYTES]
            self._board.ledger.refuse(session, message.seq, SEND, name, found, now_ns)
            return
        target = found.target
        self._board.tell(session, Names(message.seq, (*target.described, target.health)))

    # -- custom capabilities -------------------------------------------------------------------------------------------

    def invoke(self, session: Session, message: Invoke, now_ns: int) -> None:
        """Have a provider called."""
        capability = message.capability[:MAX_NAME_BYTES]
        action = f"custom.{capability}.{message.action[:MAX_NAME_BYTES]}"
        if not is_action(action):
            refusal = Refusal(ErrorKind.INVALID, "A1808", "there can't be such a capability or action")
            self._board.ledger.refuse(session, message.seq, "custom", action, refusal, now_ns)
            return
        decision = session.rights.decide(action, capability)
        if isinstance(decision, Deny):
            self._board.ledger.refuse(session, message.seq, action, capability, to_refusal(decision), now_ns)
            return
        if len(message.payload) > session.max_payload_bytes:
            self._board.ledger.refuse(
                session, message.seq, action, capability, too_large(session.max_payload_bytes), now_ns
            )
            return
        if self._board.ledger.use(session, action, capability, decision.rule, now_ns) is None:
            self._board.stall(session, message)
            return
        if session.providing >= PROVIDING_MAX:
            self._board.tell(session, CROWDED.to_answer(message.seq))
            return
        session.providing += 1
        ticket = next(self._tickets)
        # Not its payload: the provider has it.
        self._asked[ticket] = _Asked(session, session.route, replace(message, payload=b""))
        self._board.commands.append(
            Provide(
                ticket,
                session.name,
                session.instance,
                message.capability,
                message.action,
                session.rights.metadata(decision.rule),
                message.payload,
                session.max_payload_bytes,
            )
        )

    def provided(self, done: Provided, now_ns: int) -> None:
        """A provider is done, or nobody does it: answer it."""
        asked = self._asked.get(done.ticket)
        if asked is None or not isinstance(asked.call, Invoke):
            return
        del self._asked[done.ticket]
        session, call = asked.session, asked.call
        session.providing -= 1
        if session.route is None or session.route is not asked.route:
            return
        tell = self._board.tell
        if not done.kind and len(done.payload or b"") <= session.max_payload_bytes:
            tell(session, Value(call.seq, done.payload))
            return
        if not done.kind:
            done = Provided(done.ticket, None, ErrorKind.TOO_LARGE, "", session.max_payload_bytes)
        if done.kind in (ErrorKind.FAILED, ErrorKind.INVALID):
            # Its own words about what it was asked: nothing was refused, and the call is on record.
            tell(session, Refused(call.seq, done.kind, "", done.reason))
            return
        action = f"custom.{call.capability}.{call.action}"
        self._board.ledger.refuse(session, call.seq, action, call.capability, _refusal_of(done), now_ns)

    # -- how it is -----------------------------------------------------------------------------------------------------

    def health(self, session: Session, message: Health, now_ns: int) -> None:
        """Note what a component says of itself; that it is well from the start is nobody's news."""
        if message.health not in HEALTHS:
            self._board.violated(session, "a health that there isn't")
        elif message.health != session.health:
            if session.news.take(now_ns):
                self._board.violated(session, "it changes its health without end")
                return
            if (session.health, message.health) != ("unknown", "healthy"):
                self._board.ledger.changed(session, message.health, now_ns)
            session.health = message.health
            self._board.phased(session)

    def describe(self, session: Session, message: Describe, _now_ns: int) -> None:
        """Note what a component says that it is."""
        described = (message.name, message.version, message.description)
        if max(len(text.encode()) for text in described) > MAX_DESCRIPTION_BYTES:
            self._board.violated(session, f"a description of more than {MAX_DESCRIPTION_BYTES} bytes")
        else:
            session.described = described


_PROVIDER_CODES: Final = {
    ErrorKind.NOT_PERMITTED: "A1812",
    ErrorKind.TIMED_OUT: "A1811",
    ErrorKind.UNAVAILABLE: "A1807",
}


def _refusal_of(done: Provided) -> Refusal:
    if done.kind == ErrorKind.TOO_LARGE:
        return too_large(done.limit)
    return Refusal(done.kind, _PROVIDER_CODES[done.kind], done.reason)


_INVALID_KEY: Final = Refusal(
    ErrorKind.INVALID,
    "A1808",
    f"a key is 1 to {MAX_KEY_BYTES} bytes of text without control characters, in parts between colons",
)


_NOT_SHARED: Final = Refusal(
    ErrorKind.NOT_PERMITTED,
    "A1814",
    "the host shares no such storage with it, or none of its grants names it before the first colon",
)


def storage_level(session: Session) -> QuotaLevel:
    """How full the storage of a component is, as the store said last."""
    return QuotaLevel(STORAGE.name, session.storage_bytes, session.admission.bounds.storage_bytes, STORAGE.unit)


def _is_key(key: str) -> bool:
    return not isinstance(normalise_name(key, ":"), Malformed) and len(key.encode()) <= MAX_KEY_BYTES


def _is_part_of_a_key(text: str) -> bool:
    """Whether a key could begin so: what stands beside it can be anything, so it may end with a colon."""
    return not text or _is_key(text.removesuffix(":") or "a")
