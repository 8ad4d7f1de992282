"""What people do with approvals, whichever way they come: looking, and deciding as whoever the kernel says they are."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Callable
from typing import ClassVar, Final

from ipc.audit.event import AuditEvent
from ipc.errors import AuditError, ConfigError
from ipc.policy.capability import Grant
from ipc.struct import replace
from supervisor.approvals.asking import shown_document, tell, with_kept
from supervisor.approvals.chain import StoreError
from supervisor.approvals.ledger import Ledger
from supervisor.approvals.machine import FINAL, Refusal, State
from supervisor.approvals.narrowing import lost, nearest_hint, without
from supervisor.approvals.objections import NO_VOTE_OF_ROOT, REASON_MAX_CHARS
from supervisor.approvals.refused import RefusedAttempts
from supervisor.approvals.request import Narrowed, Rejected, Request, Revoked, Step, Voted
from supervisor.approvals.review import is_open, manifest_of, summary_of
from supervisor.approvals.rules import needed
from supervisor.approvals.signers import host_name
from supervisor.approvals.steps import take
from supervisor.approvals.store import ApprovalStore, BusyError
from supervisor.approvals.subject import STAND_INS, named, placed_value, spelled_out
from supervisor.config.host_policy import resolve_quota
from supervisor.config.settings import Settings
from supervisor.control.messages import DecideApproval, Role
from supervisor.control.roles import Peer, Roles
from supervisor.grants.file import grants_in
from supervisor.terminal import visible

NARROW_MAX_BYTES = 256 * 1024
_PREVIEWS: Final = {"preview": "approve", "preview-narrow": "narrow"}
_ADMINS: Final = ("reject", "revoke", "narrow", "preview-narrow", "settle", "import")
"""What admins do without a vote: it takes away, or is another's word."""
Document = dict[str, object]
_WOULD_BE = ("asks", "granted_set", "narrowed", "once", "lifetime_s", "until", "needs_approvers")
"""What a yes would change of what is shown."""

_WHO_VOTES: Final = (
    "who has: [control] approvers in airssys.toml, by --socket; by key: airssys approvals export, sign, import"
)


class RefusedError(ConfigError):
    """This is not done, by whoever asked for it."""

    exit_code: ClassVar[int] = 77  # EX_NOPERM


class UnknownRequestError(ConfigError):
    """There is no such request."""


class ApprovalService:
    """The approvals of one store, by the rules and roles of its host."""

    def __init__(
        self,
        store: ApprovalStore,
        settings: Settings,
        roles: Roles,
        look: Callable[[Ledger], object] = lambda _: None,
        tells: bool = True,
    ) -> None:
        """Answer for a store. Who may not wait doesn't `tell` the reviewers: the next start does.

        `look` is called behind each step, with the approvals still held: who has more now than is approved?
        """
        self._look = look
        self._tells = tells
        self._store = store
        self._settings = settings
        self._roles = roles
        self._refused = RefusedAttempts()

    def listed(self, closed: bool) -> Document:
        """Return the requests that wait and the approvals that hold; with `closed` all."""
        if not self._store.exists:
            return {"requests": []}
        with self._store.open() as ledger:
            found = ledger.settle()
            self._look(ledger)
            found = ledger.requests() if closed else found
            return {"requests": [summary_of(each) for each in found], **_clock(ledger)}

    def shown(self, number: int) -> Document:
        """Return one request in full; raises UnknownRequestError."""
        self._require_any(number)
        with self._store.open() as ledger:
            found = self._found(ledger, number)
            self._look(ledger)
            return self._document(ledger, found)

    def decide(self, peer: Peer, decision: DecideApproval, narrow: bytes = b"") -> Document:
        """Carry a decision out, and return the request after it; raises RefusedError with the reason where it isn't.

        Who was refused what is on record.
        """
        about: list[Request] = []
        try:
            return self._decide(peer, decision, narrow, about)
        except (UnknownRequestError, BusyError, StoreError):
            raise
        except ConfigError as error:
            self.refused(peer, decision, error, narrow, about[0] if about else None)
            raise

    def refused(
        self, peer: Peer, decision: DecideApproval, why: ConfigError, file: bytes = b"", about: Request | None = None
    ) -> None:
        """Put on record that somebody was refused a decision; `file` is what came along, `about` what it was about."""
        detail: Document = {"file_sha256": hashlib.sha256(file).hexdigest()} if file else {}
        now_ns = time.monotonic_ns()
        self._put_on_record(self._refused.note(peer.uid, decision.what, about, why.message, detail, now_ns))

    def finish(self) -> None:
        """Put on record how often refusals repeated."""
        self._put_on_record(self._refused.flush())

    def _put_on_record(self, events: tuple[AuditEvent, ...]) -> None:
        # Nothing depends on it: what was refused stays refused.
        with contextlib.suppress(AuditError):
            for event in events:
                self._store.record(event)

    def _decide(self, peer: Peer, decision: DecideApproval, narrow: bytes, about: list[Request]) -> Document:
        """Decide; `about` is told which request it is about, once that is known."""
        if decision.what == "import":
            return self._bring(peer, narrow)
        self._require_any(decision.number)
        if len(decision.reason) > REASON_MAX_CHARS:
            raise RefusedError(f"a reason has at most {REASON_MAX_CHARS} characters")
        if decision.what == "request":
            return self._ask_anew(peer, decision.number, about)
        with self._store.open() as ledger:
            request = self._found(ledger, decision.number)
            about.append(request)
            self._require_vote_or_admin(peer, decision.what)
            if decision.what == "settle":
                self._look(ledger)
                return self._document(ledger, request)
            if decision.what in _PREVIEWS:
                # What would be isn't done: nothing has to have been seen for it.
                preview = replace(decision, what=_PREVIEWS[decision.what], seen=request.review)
                would_be = _taken(request, take(request, self._step(ledger, request, peer, preview, narrow)))
                shown, then = self._document(ledger, request), self._document(ledger, would_be)
                changed = {key: then[key] for key in _WOULD_BE}
                if preview.what == "narrow":
                    changed["due_at"] = then["due_at"]
                return {**shown, **changed, **_taken_away(request, would_be)}
            after = _taken(request, ledger.take(request, self._step(ledger, request, peer, decision, narrow)))
            before = [each.number for each in ledger.current() if each.state is State.APPROVED]
            after = ledger.settled(after)
            superseded = [number for number in before if number != after.number and _is_superseded(ledger, number)]
            self._look(ledger)
            return {**self._document(ledger, after), **_taken_away(request, after), "supersedes": superseded}

    def _ask_anew(self, peer: Peer, number: int, about: list[Request]) -> Document:
        """Ask for what a request asked that was refused or taken back."""
        with self._store.open() as ledger:
            request = self._found(ledger, number)
            about.append(request)
            if self._roles.role_of(peer) is not Role.ADMIN and peer.uid != request.filed.uid:
                raise RefusedError(
                    f"uid {peer.uid} didn't ask for it, and is no admin",
                    hint=f"uid {request.filed.uid} asks anew: airssys approvals request {number}",
                )
            newest = ledger.of_subject(request.subject.key)
            if newest is not None and (is_open(newest) or newest.state is State.APPROVED):
                raise RefusedError(
                    f"request {newest.number} asks for the same, and is {newest.state}",
                    hint=f"look at it: airssys approvals show {newest.number}",
                )
            filed = replace(request.filed, at_s=ledger.now_s, uid=peer.uid, needs=self._needs(request))
            new = with_kept(ledger, ledger.file(filed), self._settings, filed.needs)
            document = self._document(ledger, new)
        if self._tells and is_open(new):
            new = tell(self._store, new, document, self._settings)
        return {**document, "state": str(new.state)}

    def _bring(self, peer: Peer, data: bytes) -> Document:
        """Count a yes that was signed elsewhere, or keep it: the yes is the signer's, whoever brings it."""
        # Only here: what verifies signatures takes a while to be imported.
        from supervisor.approvals.importing import bring

        self._require_vote_or_admin(peer, "import")
        with self._store.open() as ledger:
            found = bring(ledger, data, self._settings, peer.uid, self._needs)
            if isinstance(found, Refusal):
                raise RefusedError(
                    f"not imported: {visible(found.reason)}", hint="read it: airssys approvals show FILE"
                )
            self._look(ledger)
            return self._document(ledger, found) if isinstance(found, Request) else found.to_json()

    def _step(self, ledger: Ledger, request: Request, peer: Peer, decision: DecideApproval, narrow: bytes) -> Step:
        match decision.what:
            case "approve":
                return self._vote(ledger, request, peer, decision, narrow)
            case "reject":
                return Rejected(ledger.now_s, peer.uid, decision.reason)
            case "revoke":
                return Revoked(ledger.now_s, peer.uid, decision.reason)
            case "narrow":
                granted = self._narrowed(request, decision, narrow)
                until_s = ledger.now_s + decision.lifetime_s if decision.lifetime_s else None
                return Narrowed(ledger.now_s, peer.uid, decision.seen, granted, until_s, decision.reason)
            case what:
                raise RefusedError(f"nothing is called {visible(what[:40])}")

    def _vote(self, ledger: Ledger, request: Request, peer: Peer, decision: DecideApproval, narrow: bytes) -> Voted:
        return Voted(
            at_s=ledger.now_s,
            uid=peer.uid,
            seen=decision.seen,
            needs=self._needs(request),
            granted=self._narrowed(request, decision, narrow),
            lifetime_s=decision.lifetime_s or None,
            once=decision.once,
            reason=decision.reason,
        )

    def _narrowed(self, request: Request, decision: DecideApproval, narrow: bytes) -> tuple[Grant, ...] | None:
        """Return what is to be granted, None for what is asked; raises RefusedError for what isn't asked."""
        grants = self._of_file(request, narrow) if narrow else request.granted
        left = without(grants, decision.without)
        if isinstance(left, Refusal):
            hint = nearest_hint(decision.without, grants, f"show {request.number} --whole")
            raise RefusedError(f"request {request.number}: {visible(left.reason)}", hint=hint)
        return left if narrow or decision.without else None

    def _of_file(self, request: Request, narrow: bytes) -> tuple[Grant, ...]:
        facts = request.filed.facts
        manifest = manifest_of(facts)
        if manifest is None:
            raise RefusedError("this version can't read the manifest that was asked with: use --without")
        parameters = {name: placed_value(value) for name, value in facts.parameters}
        # Its names were made real when it was asked; a link of today's is nobody's to follow here.
        found = grants_in(narrow, "--narrow", manifest, parameters, STAND_INS, "/", lambda path: path)
        # Somebody may have written where it lay then.
        return named(named(found, STAND_INS), replace(STAND_INS, component=facts.directory))

    def _needs(self, request: Request) -> int:
        """Return how many people it takes by today's rules."""
        manifest = manifest_of(request.filed.facts)
        if manifest is None:
            return request.filed.needs
        quota = resolve_quota(manifest, self._settings, request.subject.instance).quota
        found = needed(self._settings.approval_rules, request.subject.asked, quota)
        return 1 if found is None else found.approvers

    def _require_vote_or_admin(self, peer: Peer, what: str) -> None:
        if self._roles.has_vote(peer):
            return
        if self._roles.role_of(peer) is Role.ADMIN and (what in _ADMINS or peer.uid == 0):
            return  # who administers takes away; of root's yes the request itself says what it is worth
        raise RefusedError(
            f"uid {peer.uid} has no vote here",
            hint=_WHO_VOTES,
        )

    def _require_any(self, number: int) -> None:
        if not self._store.exists:
            raise _unknown(number)

    def _found(self, ledger: Ledger, number: int) -> Request:
        request = ledger.request(number)
        if request is None:
            raise _unknown(number)
        return ledger.settled(request)

    def _document(self, ledger: Ledger, request: Request) -> Document:
        shown = shown_document(ledger, request, self._settings)
        return {**shown, "host": host_name(self._settings), **_clock(ledger)}


def _taken(request: Request, after: Request | Refusal) -> Request:
    """Return the request after a step; raises RefusedError where it wasn't taken."""
    if isinstance(after, Refusal):
        raise RefusedError(f"request {request.number}: {visible(after.reason)}", hint=_what_now(request, after.reason))
    return after


def _what_now(request: Request, reason: str) -> str:
    """Return which command helps who wanted a step that isn't taken."""
    if request.state is State.SUPERSEDED:
        return (
            f"what still runs by it is ended with: airssys approvals revoke {request.number}; "
            f"to ask anew: airssys approvals request {request.number}"
        )
    if request.state in FINAL:
        return f"to ask anew: airssys approvals request {request.number}"
    if reason == NO_VOTE_OF_ROOT:
        return _WHO_VOTES
    if request.state is State.APPROVED:
        return f"to take it back: airssys approvals revoke {request.number}"
    return f"look at it: airssys approvals show {request.number} --whole"


def _taken_away(before: Request, after: Request) -> Document:
    """Return which grants are gone that were approved."""
    if before.approved_s is None:
        return {}
    gone = lost(before.granted, after.granted) if after.state is State.APPROVED else before.granted
    return {"taken": spelled_out(gone)}


def _is_superseded(ledger: Ledger, number: int) -> bool:
    request = ledger.request(number)
    return request is not None and request.state is State.SUPERSEDED


def _clock(ledger: Ledger) -> Document:
    return {"clock_behind_s": ledger.behind_s} if ledger.behind_s else {}


def _unknown(number: int) -> UnknownRequestError:
    return UnknownRequestError(
        f"there is no request {number} here",
        hint="what there is: airssys approvals list --all; another user's: --socket PATH, of their supervisor",
    )


def encoded(document: Document) -> bytes:
    """Return a document as it travels."""
    return json.dumps(document, ensure_ascii=True).encode()
