"""What one worker's calls leave in the audit log: a refusal before it is answered, an action before it is performed.

A refusal is on record, durable, when the method returns. So is the first action that a rule allows; what else the same
rule allows is recorded on its own too, with its resource, but doesn't wait for the disk: an fsync for each of a
compiler's thousand files would cost it seconds. At most `UNCONFIRMED_MAX` of these are not durable at a time.
Repeats are counted and their exact number is recorded when their window closes, at the latest when the worker is
detached. A rule's first record without closing ones tells that the warden died.
"""

from __future__ import annotations

import hashlib
import time
from typing import Final, Protocol

from ipc.audit.event import AuditEvent
from ipc.audit.folding import Folder, Key
from ipc.messages import AuditBudget
from ipc.policy.quota import QuotaLevel
from ipc.struct import replace
from ipc.warden.decide import Refusal
from ipc.warden.pace import Pace

ALLOWED_WINDOW_NS: Final = 600_000_000_000
"""Refusals are individual again after ten seconds (`ipc.audit.folding.WINDOW_NS`), allowances after this."""
DURABLE_TIMEOUT_S: Final = 10.0
HANDED_OVER_TOGETHER: Final = 64
"""Each hand-over wakes the thread of the audit stream, which then competes with this one."""
UNCONFIRMED_MAX: Final = 256
"""Allowed actions that may be performed before their records are known to be durable, after the first of their rule."""

USED_MAX: Final = 100_000
"""Distinct looks that are recorded of one worker for its manifest."""

RECORD_BYTES: Final = 1024
"""What a record of ordinary length has for the names in it. A longer one counts as several: else names of four thousand
control characters, which the log writes in six bytes each, fill the disk within any budget of records."""

DEFAULT_BUDGET: Final = AuditBudget()


class BudgetSpent(Exception):  # noqa: N818 # an outcome: the worker ends
    """A component has been over its audit budget for too long."""


class Sink(Protocol):
    """What is used of `ipc.audit.stream.AuditClient`."""

    def record(self, event: AuditEvent) -> int:
        """Hand over an event."""

    def record_durable(self, event: AuditEvent, timeout_s: float, before: list[AuditEvent]) -> None:
        """Hand over an event, behind those `before` it, and wait until all are on disk; raises AuditError.

        What was handed over is taken out of `before`, whatever happens then.
        """

    def flush(self, timeout_s: float) -> None:
        """Wait until everything handed over is on disk; raises AuditError."""

    @property
    def unacknowledged(self) -> int:
        """How many events are not known to be on disk."""


class Recorder:
    """The audit of one worker; used by one thread. Counts are of decisions, repeats included."""

    __slots__ = (
        "_allowed",
        "_allowed_pace",
        "_durable",
        "_refused",
        "_refused_pace",
        "_sink",
        "_stamp",
        "_used",
        "_waiting",
        "allowed_count",
        "refused_count",
    )

    def __init__(self, sink: Sink, stamp: AuditEvent, budget: AuditBudget = DEFAULT_BUDGET) -> None:
        """`stamp` holds the fields that all events of this worker share.

        Beyond its budget allowed actions are paced for as long as it lasts; refusals are paced, and then it is ended:
        else a program that was granted nothing could fill the disk with names that it asks for, and nothing is allowed
        when the log can't be written.
        """
        self._sink = sink
        self._stamp = stamp
        self._allowed = Folder(ALLOWED_WINDOW_NS)
        self._refused = Folder()
        self._allowed_pace = _pace(budget.allowed_per_s, budget.allowed_at_once, None)
        self._refused_pace = _pace(budget.refused_per_s, budget.refused_at_once, budget.refused_tolerated_ns)
        self._durable: set[tuple[str, str]] = set()
        self._waiting: list[AuditEvent] = []
        self._used: set[bytes] = set()
        self.allowed_count = 0
        self.refused_count = 0

    def allowed(self, action: str, resource: str, rule: str, call: str, to: str = "") -> None:
        """Put on record what is about to be done; folded until the worker is detached.

        `to` is the name that the object gets beside or in place of this one: each such pair is on record, as what may
        come under a name depends on both.
        """
        self.allowed_count += 1
        now_ns = time.monotonic_ns()
        key = (action, resource, rule, call, to)
        if self._allowed.repeat(key, now_ns):
            return
        _keep_pace(self._allowed_pace, now_ns, resource, to)
        event = replace(
            self._stamp,
            event="file_access",
            action=action,
            resource=resource,
            decision="allowed",
            rule=rule,
            detail={"call": call, "to": to} if to else {"call": call},
        )
        if (action, rule) in self._durable:
            self._waiting.append(event)
            if len(self._waiting) >= HANDED_OVER_TOGETHER:
                self.hand_over()
                if self._sink.unacknowledged > UNCONFIRMED_MAX - HANDED_OVER_TOGETHER:
                    self._sink.flush(DURABLE_TIMEOUT_S)
        else:
            self._make_durable(event)
            self._durable.add((action, rule))
        self._begin(self._allowed, key, event, now_ns)

    def refused(self, refusal: Refusal, call: str, asked: str) -> None:
        """Put a refusal on record; repeats within ten seconds are folded into one count."""
        self.refused_count += 1
        now_ns = time.monotonic_ns()
        key = (refusal.code, refusal.action, refusal.resource, refusal.rule)
        if self._refused.repeat(key, now_ns):
            return
        _keep_pace(self._refused_pace, now_ns, refusal.resource, asked)
        detail: dict[str, object] = {"call": call}
        if asked and asked != refusal.resource:
            detail["asked"] = asked
        if refusal.nearest:
            detail["nearest"] = refusal.nearest
        event = replace(
            self._stamp,
            event="denied",
            action=refusal.action,
            resource=refusal.resource,
            decision="denied",
            code=refusal.code,
            reason=refusal.reason,
            rule=refusal.rule,
            layer="operating system" if refusal.code == "A1601" else "policy",
            quota=None if refusal.quota is None else refusal.quota.to_json(),
            detail=detail,
        )
        self._make_durable(event)
        self._begin(self._refused, key, event, now_ns)

    def used(self, action: str, resource: str, call: str) -> None:
        """Put on record, once each, what was looked at beside what was allowed: for a manifest that covers it."""
        # Not the names themselves: a hundred thousand of four thousand letters each would be our memory.
        words = f"{action}\0{resource}\0{call}".encode("utf-8", "surrogatepass")
        key = hashlib.blake2b(words, digest_size=16).digest()
        if key in self._used or len(self._used) >= USED_MAX:
            return
        self._used.add(key)
        _keep_pace(self._allowed_pace, time.monotonic_ns(), resource)
        event = replace(self._stamp, event="file_used", action=action, resource=resource, detail={"call": call})
        self._waiting.append(event)
        if len(self._waiting) >= HANDED_OVER_TOGETHER:
            self.hand_over()

    def come_under(self, policy_digest: str) -> None:
        """What follows was decided by another policy."""
        self.hand_over()
        self._stamp = replace(self._stamp, policy=policy_digest)

    def undelivered(self, action: str, resource: str, call: str) -> None:
        """Put on record that something was done and its caller never heard of it."""
        event = replace(
            self._stamp,
            event="performed_not_delivered",
            action=action,
            resource=resource,
            decision="performed",
            reason="the caller was interrupted or killed before it got the answer",
            detail={"call": call},
        )
        self.hand_over()
        self._sink.record(event)

    def crossed(self, level: QuotaLevel) -> None:
        """Put on record that a quota is in another status now; one that goes to and fro is counted."""
        now_ns = time.monotonic_ns()
        key = ("quota", level.name, level.status)
        if self._refused.repeat(key, now_ns):
            return
        reason = f"{level.name} is {level.status}: {level.words}"
        event = replace(self._stamp, event="quota_crossed", decision="info", reason=reason, quota=level.to_json())
        self.hand_over()
        self._sink.record(event)
        self._begin(self._refused, key, event, now_ns)

    def violation(self, code: str, reason: str, number: int) -> None:
        """Put on record, durable, why the worker must end."""
        self.refused_count += 1
        event = replace(
            self._stamp,
            event="violation",
            action="process.system_call",
            resource=str(number),
            decision="denied",
            code=code,
            reason=reason,
            layer="seccomp",
            detail={"number": number},
        )
        self._make_durable(event)

    @property
    def waiting(self) -> bool:
        """Whether something was not handed over yet."""
        return bool(self._waiting)

    def hand_over(self) -> None:
        """Hand over what waits, in order."""
        for event in self._waiting:
            self._sink.record(event)
        self._waiting.clear()

    def close_due(self) -> None:
        """Record the counts whose time is over."""
        self.hand_over()
        now_ns = time.monotonic_ns()
        for folder in (self._allowed, self._refused):
            for event in folder.due(now_ns):
                self._sink.record(event)

    def close(self) -> None:
        """Record all counts and wait until they are on disk."""
        self.hand_over()
        for folder in (self._allowed, self._refused):
            for event in folder.flush():
                self._sink.record(event)
        self._sink.flush(DURABLE_TIMEOUT_S)

    def _make_durable(self, event: AuditEvent) -> None:
        """Wait until the event is on disk, and before it what waits: handed over alone, that would wake a thread."""
        self._sink.record_durable(event, DURABLE_TIMEOUT_S, self._waiting)

    def _begin(self, folder: Folder, key: Key, event: AuditEvent, now_ns: int) -> None:
        for closed in folder.begin(key, event, now_ns):
            self._sink.record(closed)


def _pace(per_s: int, at_once: int, tolerated_ns: int | None) -> Pace:
    return Pace(per_s, at_once * 10**9 // max(per_s, 1), tolerated_ns)


def _keep_pace(pace: Pace, now_ns: int, *names: str) -> None:
    length = sum(len(name) if name.isascii() and name.isprintable() else 6 * len(name) for name in names)
    wait_ns = pace.note(now_ns, 1 + length // RECORD_BYTES)
    if wait_ns < 0:
        raise BudgetSpent
    if wait_ns:
        time.sleep(wait_ns / 1e9)
