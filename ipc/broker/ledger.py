"""What the broker's decisions leave in the audit log, and who waits until it is there. Pure.

- A refusal is answered when its record is durable; its repeats within ten seconds are counted and answered at once.
- The first use of each grant by an instance is durable before it takes effect: until then the instance's messages wait
  in their order. Later uses are counted, by receiver for what is sent, and each count is recorded within a minute.

What can't be recorded is not done, and who asked is told that only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ipc.audit.event import AuditEvent
from ipc.audit.folding import Folder, Key, Window
from ipc.broker.events import Record
from ipc.broker.messages import ErrorKind, Refused, ToWorker
from ipc.broker.sessions import Session
from ipc.policy.quota import QuotaLevel
from ipc.struct import Struct, replace

ALLOWED_WINDOW_NS: Final = 60_000_000_000
"""Within this repeated uses of a grant are one count; what a broker that dies takes along of the counts."""
ALLOWED_WINDOWS_MAX: Final = 16_384
"""Open counts of what was allowed; beyond, the oldest are recorded early."""
HELD_MAX: Final = 64
"""Answers that wait for one record: more of the same kind are answered as if it could not be written."""
NOT_RECORDED: Final = "A3004"
NOT_RECORDED_REASON: Final = "it can't be put on record now"


class Refusal(Struct, frozen=True):
    """Why something is not done: for who asked, and for the log."""

    kind: str
    code: str
    reason: str
    rule: str = ""
    nearest: str | None = None
    retry_after_ms: int = 0
    usage: int = 0
    limit: int = 0
    quota: str = ""

    def to_answer(self, seq: int) -> Refused:
        """Return what the worker is told."""
        reason = f"{self.reason}; nearest: {self.nearest}" if self.nearest else self.reason
        return Refused(seq, self.kind, self.code, reason, self.retry_after_ms, self.usage, self.limit)


UNRECORDED: Final = Refusal(ErrorKind.UNAVAILABLE, NOT_RECORDED, NOT_RECORDED_REASON)


class _Held:
    """A refusal whose record is not durable yet, and the answers that wait for it."""

    __slots__ = ("answers", "event", "key")

    def __init__(self, key: Key, event: AuditEvent) -> None:
        self.key = key
        self.event = event
        self.answers: list[tuple[Session, bytes | None, Refused]] = []


class _Grant:
    """The first use of a grant whose record is not durable yet."""

    __slots__ = ("event", "key", "session", "use")

    def __init__(self, key: Key, event: AuditEvent, session: Session, use: tuple[str, str]) -> None:
        self.key = key
        self.event = event
        self.session = session
        self.use = use


class Ledger:
    """Records are collected in `records`; `tell` sends an answer, `resume` goes on with an instance's messages.

    `resume(session, failed)`: with `failed` the messages that wait are refused instead.
    """

    def __init__(self, tell: Callable[[Session, ToWorker], None], resume: Callable[[Session, bool, int], None]) -> None:
        """Begin with nothing on record."""
        self.records: list[Record] = []
        self._tell = tell
        self._resume = resume
        self._allowed = Folder(ALLOWED_WINDOW_NS, ALLOWED_WINDOWS_MAX)
        self._refused = Folder()
        self._held: dict[Key, _Held] = {}
        self._waiting: dict[int, _Held | _Grant] = {}
        self._ticket = 0

    # -- what is refused -----------------------------------------------------------------------------------------------

    def refuse(self, session: Session, seq: int, action: str, resource: str, refusal: Refusal, now_ns: int) -> None:
        """Answer with a refusal, as soon as it is on record."""
        key = (session.instance, action, resource, refusal.rule, refusal.code)
        answer = refusal.to_answer(seq)
        if self._refused.repeat(key, now_ns):
            self._tell(session, answer)
            return
        if key not in self._held and session.refusals.take(now_ns):
            # Too many different ones: this kind is counted whatever it is about.
            key, resource = (session.instance, action, "", "", refusal.code), ""
            if self._refused.repeat(key, now_ns):
                self._tell(session, answer)
                return
        held = self._held.get(key)
        if held is None:
            event = _refusal_event(session, action, resource, refusal)
            held = self._held[key] = _Held(key, event)
            self._waiting[self._put(event)] = held
        if len(held.answers) < HELD_MAX:
            held.answers.append((session, session.route, answer))
        else:
            self._tell(session, UNRECORDED.to_answer(seq))

    def note_refusal(self, session: Session, action: str, resource: str, refusal: Refusal, now_ns: int) -> None:
        """Put on record what was not done and nobody waits for."""
        self._note(
            (session.instance, action, resource, refusal.rule, refusal.code),
            now_ns,
            lambda: _refusal_event(session, action, resource, refusal),
        )

    # -- what is allowed -----------------------------------------------------------------------------------------------

    def use(
        self,
        session: Session,
        action: str,
        resource: str,
        rule: str,
        now_ns: int,
        receiver_rule: str = "",
        *,
        each: bool = True,
    ) -> Window | None:
        """Count one use of a grant; None when the session has to wait first, until `resume` asks once more.

        The window that is returned may be counted into directly while it isn't closed. `each` resource has a count of
        its own; where there can be any number of them, the first stands for all.
        """
        key = (session.instance, action, resource if each else "", rule)
        window = self._allowed.window(key)
        if window is not None and not window.closed:
            if session.first_use == key:
                session.first_use = None  # the record that opened the window speaks of this very use
            else:
                window.repeats += 1
                window.last_ns = now_ns
            return window
        event = AuditEvent(
            "message" if action.startswith("messaging.") else "capability_used",
            instance=session.instance,
            action=action,
            resource=resource,
            decision="allowed",
            rule=rule,
            detail={"receiver_rule": receiver_rule} if receiver_rule else None,
        )
        if (action, rule) not in session.recorded:
            session.stalled_for = ticket = self._put(event)
            self._waiting[ticket] = _Grant(key, event, session, (action, rule))
            return None
        self.records.append(_to_record(event))
        return self._begin(key, event, now_ns)

    # -- what happens --------------------------------------------------------------------------------------------------

    def happened(self, record: Record) -> None:
        """Put on record, by itself, what nobody waits for."""
        self.records.append(record)

    def ticketed(self, record: Record) -> int:
        """Put on record what the caller waits for; the ticket."""
        self._ticket += 1
        self.records.append(replace(record, ticket=self._ticket))
        return self._ticket

    def crossed(self, session: Session, level: QuotaLevel, now_ns: int) -> None:
        """Put on record that a quota is in another status now; one that goes to and fro is counted."""
        self._note(
            (session.instance, "quota", level.name, level.status),
            now_ns,
            lambda: AuditEvent(
                "quota_crossed",
                instance=session.instance,
                reason=f"{level.name} is {level.status}: {level.words}",
                quota=level.to_json(),
            ),
        )

    def changed(self, session: Session, health: str, now_ns: int) -> None:
        """Put on record that a component says another thing of its health now; one that goes to and fro is counted."""
        before = session.health
        self._note(
            (session.instance, "health", health, "", ""),
            now_ns,
            lambda: AuditEvent(
                "health_changed",
                instance=session.instance,
                reason=f"it says that it is {health}; before: {before}",
                detail={"health": health, "before": before},
            ),
        )

    def recorded(self, ticket: int, failed: bool, now_ns: int) -> bool:
        """A record is durable, or can't be written: who waits for it goes on. False if the ticket is none of these."""
        waiting = self._waiting.pop(ticket, None)
        if waiting is None:
            return False
        if isinstance(waiting, _Grant):
            session = waiting.session
            if not failed:
                session.recorded.add(waiting.use)
                self._begin(waiting.key, waiting.event, now_ns)
            if session.stalled_for == ticket:
                session.stalled_for = 0
                session.first_use = None if failed else waiting.key
                self._resume(session, failed, now_ns)
            return True
        del self._held[waiting.key]
        if not failed:
            self._begin_refused(waiting.key, waiting.event, now_ns)
            if len(waiting.answers) > 1:
                self._refused.repeat(waiting.key, now_ns, len(waiting.answers) - 1)
        for session, route, answer in waiting.answers:
            if session.route is route:
                self._tell(session, UNRECORDED.to_answer(answer.seq) if failed else answer)
        return True

    def close_due(self, now_ns: int) -> None:
        """Record the counts whose time is over."""
        for folder in (self._allowed, self._refused):
            self.records += map(_to_record, folder.due(now_ns))

    def close_instance(self, instance: str) -> None:
        """Record the counts of an instance that has ended."""
        for folder in (self._allowed, self._refused):
            self.records += map(_to_record, folder.flush_component(instance))

    def next_due_ns(self) -> int | None:
        """When `close_due` will next have something to record."""
        due_ns, refused_ns = self._allowed.next_due_ns(), self._refused.next_due_ns()
        return refused_ns if due_ns is None or (refused_ns is not None and refused_ns < due_ns) else due_ns

    def _put(self, event: AuditEvent) -> int:
        return self.ticketed(_to_record(event))

    def _begin(self, key: Key, event: AuditEvent, now_ns: int) -> Window | None:
        self.records += map(_to_record, self._allowed.begin(key, event, now_ns))
        return self._allowed.window(key)

    def _begin_refused(self, key: Key, event: AuditEvent, now_ns: int) -> None:
        self.records += map(_to_record, self._refused.begin(key, event, now_ns))

    def _note(self, key: Key, now_ns: int, make: Callable[[], AuditEvent]) -> None:
        if self._refused.repeat(key, now_ns):
            return
        event = make()
        self.records.append(_to_record(event))
        self._begin_refused(key, event, now_ns)


def _refusal_event(session: Session, action: str, resource: str, refusal: Refusal) -> AuditEvent:
    return AuditEvent(
        "denied",
        instance=session.instance,
        action=action,
        resource=resource,
        decision="denied",
        code=refusal.code,
        reason=refusal.reason,
        rule=refusal.rule,
        quota={"name": refusal.quota, "usage": refusal.usage, "limit": refusal.limit} if refusal.quota else None,
        detail={"nearest": refusal.nearest} if refusal.nearest else None,
    )


def _to_record(event: AuditEvent) -> Record:
    quota, detail = event.quota or {}, event.detail or {}
    return Record(
        event.instance,
        event.event,
        event.action,
        event.resource,
        event.decision,
        event.code,
        event.reason,
        event.rule,
        None,
        _number(quota.get("usage")),
        _number(quota.get("limit")),
        0,
        tuple((name, value) for name, value in detail.items() if isinstance(value, str | int)),
        event.count,
        str(quota.get("name", "")),
    )


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0
