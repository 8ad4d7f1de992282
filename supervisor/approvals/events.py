"""What the audit log is told of a step. Pure."""

from __future__ import annotations

from typing import Final

from ipc.audit.event import AuditEvent
from supervisor.approvals.chain import Row
from supervisor.approvals.machine import State
from supervisor.approvals.request import (
    Filed,
    Narrowed,
    Rejected,
    Request,
    Revoked,
    Step,
    Superseded,
    Told,
    Voted,
    Withdrawn,
)
from supervisor.approvals.subject import grant_terms, grant_text, hash_of

_NAMES: Final = {
    "filed": "approval_requested",
    "told": "approval_told",
    "voted": "approval_voted",
    "carried": "approval_granted",
    "rejected": "approval_rejected",
    "lapsed": "approval_expired",
    "withdrawn": "approval_withdrawn",
    "revoked": "approval_revoked",
    "narrowed": "approval_narrowed",
    "superseded": "approval_superseded",
    "used": "approval_used",
}
EVENTS: Final = frozenset((*_NAMES.values(), "approval_kept", "approval_unkept"))
_DECISIONS: Final = dict.fromkeys(("rejected", "revoked", "narrowed", "lapsed", "superseded"), "denied")
_SHOWN_CHARS: Final = 3_000


def approval_of(number: int) -> str:
    """Return what records, grants and requests to run call it."""
    return f"approval {number}"


def event_of(row: Row, after: Request, step: Step | Filed) -> AuditEvent:
    """Return the event of a step; `correlation` is the checksum of its row, by which a crash is repaired."""
    name = _NAMES[row.kind]
    granted = isinstance(step, Voted) and after.state is State.APPROVED
    subject = after.subject
    texts = [grant_text(grant) for grant in after.granted]
    detail: dict[str, object] = {
        "request": after.number,
        "state": str(after.state),
        "package": subject.package,
        "asked_sha256": subject.capability_set,
        "granted_sha256": hash_of(grant_terms(after.granted)),
        "votes": [vote.who for vote in after.votes],
        "needs": after.needs,
    }
    # Of many, the hash has to do: what is too long for a record would take the rest with it.
    if sum(map(len, texts)) <= _SHOWN_CHARS:
        detail["granted" if after.state is State.APPROVED else "asked"] = texts
    if isinstance(step, Withdrawn | Superseded):
        detail["by"] = step.by
    if isinstance(step, Voted) and step.signed is not None:
        detail.update(signed=step.signed.id, brought_by=f"uid {step.signed.brought_by}")
    return AuditEvent(
        "approval_granted" if granted else name,
        component=subject.component,
        instance=subject.instance,
        trust=after.filed.facts.trust,
        decision="allowed" if granted or row.kind == "carried" else _DECISIONS.get(row.kind, "info"),
        reason=_reason(step),
        approval=approval_of(after.number),
        actor=_actor(step),
        correlation=row.sum,
        detail=detail,
    )


def _actor(step: Step | Filed) -> str:
    if isinstance(step, Voted):
        return step.who
    uid = getattr(step, "uid", None)
    return "" if uid is None else f"uid {uid}"


def _reason(step: Step | Filed) -> str:
    match step:
        case Voted(reason=reason) | Rejected(reason=reason) | Revoked(reason=reason) | Narrowed(reason=reason):
            return reason
        case Told(trouble=trouble):
            return trouble
        case _:
            return ""
