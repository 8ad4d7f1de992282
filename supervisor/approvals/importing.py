"""Signed yeses brought to a host: counted for the request that waits, or kept until somebody asks."""

from __future__ import annotations

from collections.abc import Callable

from ipc.audit.event import AuditEvent
from ipc.errors import ConfigError
from ipc.struct import Struct
from supervisor.approvals.kept import KeptFile
from supervisor.approvals.ledger import Ledger
from supervisor.approvals.machine import Refusal, State
from supervisor.approvals.request import Rejected, Request, Revoked
from supervisor.approvals.review import is_open
from supervisor.approvals.signed import SignedStatement, Voter, difference, read_signed, signer_of, vote_of
from supervisor.approvals.signers import host_name, user_of
from supervisor.config.settings import Settings
from supervisor.config.units import when


class KeptForLater(Struct, frozen=True):
    """Nobody has asked for it here yet; `others` says what is asked of the same component that isn't the same."""

    signed: SignedStatement
    who: str
    is_new: bool
    others: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        """Return its stable keys."""
        subject = self.signed.statement.subject
        return {
            "kept": self.signed.id,
            "is_new": self.is_new,
            "by": self.who,
            "component": subject.component,
            "instance": subject.instance or None,
            "package": subject.package,
            "until": when(self.signed.statement.import_before_s),
            "others": list(self.others),
        }


def bring(
    ledger: Ledger, data: bytes, settings: Settings, brought_by: int, needs: Callable[[Request], int]
) -> Request | KeptForLater | Refusal:
    """Count a signed yes, or keep it where nobody asks yet; what it was, or why it counts for nothing.

    Raises ConfigError for what can't be read, TooManyKeptError.
    """
    signed = read_signed(data)
    voter = _voter_of(ledger, signed, settings)
    if isinstance(voter, Refusal):
        return voter
    found = ledger.of_subject(signed.statement.subject.key)
    request = None if found is None else ledger.settled(found)
    if request is not None and is_open(request):
        return _count(ledger, request, signed, voter, brought_by, needs(request))
    if request is not None and request.state is State.APPROVED:
        return Refusal(f"request {request.number} is for the same, and is approved already")
    if request is not None and isinstance(request.ending, Rejected | Revoked):
        return Refusal(
            f"request {request.number} is for the same, and was {request.state} here: "
            f"ask anew first (airssys approvals request {request.number})"
        )
    return _keep(ledger, signed, voter, brought_by)


def count_kept(ledger: Ledger, request: Request, settings: Settings, needs: int) -> Request:
    """Return an open request once every yes that was kept for it has counted, if it still does."""
    for kept in ledger.kept.of_subject(request.subject.key) if is_open(request) else ():
        if not is_open(request):
            break
        try:
            signed = read_signed(kept.file)
            voter = _voter_of(ledger, signed, settings)
            after = (
                voter if isinstance(voter, Refusal) else _count(ledger, request, signed, voter, kept.brought_by, needs)
            )
        except ConfigError as error:
            after = Refusal(error.message)
        if isinstance(after, Refusal):
            ledger.kept.drop(kept.id, _unkept(request, kept, after.reason))
        else:
            request = after
            ledger.kept.drop(kept.id)
    return request


def _voter_of(ledger: Ledger, signed: SignedStatement, settings: Settings) -> Voter | Refusal:
    signers = settings.approval_signers
    signer = signer_of(signed, signers, host_name(settings), ledger.now_s)
    if isinstance(signer, Refusal):
        return signer
    counted = ledger.kept.counted_for(signed.id)
    if counted is not None:
        return Refusal(f"it has counted here already, for request {counted}: a signed yes is one yes on a host")
    refused_s = ledger.kept.refused_s(signed.statement.subject.key)
    if refused_s is not None and signed.statement.signed_s <= refused_s:
        return Refusal("it was signed before the same was rejected or revoked here")
    return Voter(signer, user_of(signer, signers))


def _count(
    ledger: Ledger, request: Request, signed: SignedStatement, voter: Voter, brought_by: int, needs: int
) -> Request | Refusal:
    vote = vote_of(signed, voter, request, ledger.now_s, needs, brought_by)
    after = vote if isinstance(vote, Refusal) else ledger.take(request, vote)
    return after if isinstance(after, Refusal) else ledger.settled(after)


def _keep(ledger: Ledger, signed: SignedStatement, voter: Voter, brought_by: int) -> KeptForLater | Refusal:
    statement = signed.statement
    same = [each for each in ledger.current() if each.subject.identity == statement.subject.identity]
    others = [(each, difference(statement, each)) for each in same]
    for each, how in others:
        if each.subject.package == statement.subject.package:
            return Refusal(f"request {each.number} is for the same package, and isn't what was signed: {how}")
    who = f"key {signed.signature.key.fingerprint} ({voter.signer.identity})"
    until_s = min(statement.import_before_s, statement.expires_s or statement.import_before_s)
    subject = statement.subject
    event = AuditEvent(
        "approval_kept",
        component=subject.component,
        instance=subject.instance,
        decision="info",
        reason=statement.reason,
        actor=who,
        detail={
            "package": subject.package,
            "asked_sha256": subject.capability_set,
            "signed": signed.id,
            "brought_by": f"uid {brought_by}",
        },
    )
    is_new = ledger.kept.add(KeptFile(signed.id, brought_by, signed.encoded), subject.key, until_s, ledger.now_s, event)
    return KeptForLater(signed, who, is_new, tuple(f"request {each.number}: {how}" for each, how in others))


def _unkept(request: Request, kept: KeptFile, reason: str) -> AuditEvent:
    subject = request.subject
    return AuditEvent(
        "approval_unkept",
        component=subject.component,
        instance=subject.instance,
        decision="denied",
        reason=reason,
        detail={"request": request.number, "signed": kept.id, "brought_by": f"uid {kept.brought_by}"},
    )
