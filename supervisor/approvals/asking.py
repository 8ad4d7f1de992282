"""A start that takes an approval: what it is about, whether there is one, and asking for it where there isn't."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence

from ipc.audit.event import AuditEvent
from ipc.errors import ConfigError
from ipc.policy.capability import Grant
from ipc.struct import Struct, replace
from supervisor.approvals.errors import AwaitingApprovalError, NotApprovedError
from supervisor.approvals.events import approval_of
from supervisor.approvals.evidence import Evidence
from supervisor.approvals.ledger import Ledger
from supervisor.approvals.machine import Refusal, State
from supervisor.approvals.reliance import Reliance, ends_at_boot_ns
from supervisor.approvals.request import Ask, Facts, Filed, Rejected, Request, Revoked, Superseded, Told, Used
from supervisor.approvals.rules import Needed
from supervisor.approvals.store import ApprovalStore
from supervisor.approvals.subject import Subject, named, named_value, placed
from supervisor.config.settings import Settings
from supervisor.config.toml_source import read_toml_bytes
from supervisor.config.units import counted
from supervisor.manifest import BoundManifest, Variables
from supervisor.manifest import Request as AskedFor
from supervisor.manifest.asks import Danger, describe_ask, describe_grant
from supervisor.packages.contents import MANIFEST_FILE, Contents
from supervisor.packages.directory import read_directory
from supervisor.terminal import visible
from supervisor.trust.level import TrustLevel

MANIFEST_MAX_BYTES = 256 * 1024
"""A manifest that is longer is nothing that anybody reviews."""


class Approved(Struct, frozen=True):
    """What is granted, by which approval, and for which program's bytes."""

    grants: tuple[Grant, ...]
    approval: str
    wasm_sha256: str
    reliance: Reliance


class Question(Struct, frozen=True):
    """What a start asks: about what, which approval that takes, and what a reviewer is told of it."""

    subject: Subject
    needed: Needed
    facts: Facts
    signers: tuple[str, ...] | None = None
    """The keys whose signatures held when it was installed; None for a directory, in which they lie."""


def question_of(
    bound: BoundManifest,
    granted: Sequence[Grant],
    needed: Needed,
    trust: TrustLevel = "unknown",
    instance: str = "",
    contents: Contents | None = None,
) -> Question:
    """Return the question; raises ConfigError for a directory that is no package, or that changes under our eyes.

    `contents` are what an installed package holds, verified when it was opened; None for a directory.
    """
    manifest = bound.manifest
    if contents is None:
        contents = read_directory(manifest.directory)
    program, text = contents.file(os.path.normpath(manifest.component.wasm)), contents.file(MANIFEST_FILE)
    if program is None:
        raise ConfigError(f"{visible(manifest.wasm_path)}: the program is no file of its package")
    path = os.path.join(manifest.directory, MANIFEST_FILE)
    data = read_toml_bytes(path, path)
    if len(data) > MANIFEST_MAX_BYTES:
        raise ConfigError(f"{visible(path)}: more than {MANIFEST_MAX_BYTES >> 10} KiB, and nobody reviews that")
    if text is None or {text.sha256, hashlib.sha256(data).hexdigest()} != {manifest.digest}:
        raise ConfigError(f"{visible(path)}: it changed while it was read", hint="try again")
    own = bound.variables
    asked = named(granted, own)
    facts = Facts(
        version=manifest.component.version,
        directory=own.component,
        manifest=data.decode("utf-8", "replace"),
        wasm_sha256=program.sha256,
        parameters=tuple((name, named_value(value, own)) for name, value in bound.parameters),
        asks=_words(bound, granted, asked),
        rules=needed.rules,
        trust=trust,
    )
    return Question(Subject(manifest.component.name, instance, contents.digest, asked), needed, facts)


def _words(bound: BoundManifest, granted: Sequence[Grant], asked: Sequence[Grant]) -> tuple[Ask, ...]:
    """Return what would be granted in words, the most dangerous first; `resource` is the pattern by its names.

    `granted` is what `asked` calls by their names. `--grant FILE` may have put another pattern in a manifest's place:
    that is judged as it is.
    """
    written = {(each.action, each.pattern_text): request for request, each in _pairs(bound)}
    found: list[tuple[Danger, Ask]] = []
    for grant, called in zip(granted, asked, strict=True):
        request = written.get((grant.action, grant.pattern_text)) or _as_request(grant)
        ask = describe_ask(request, grant, bound)
        danger, sentence = ask.danger, ask.sentence
        if called.pattern_text != grant.pattern_text:
            danger, sentence = describe_grant(called, grant, bound.variables)
        told = Ask(danger.word, grant.action, called.pattern_text, sentence, grant.required, ask.rationale)
        found.append((danger, told))
    return tuple(ask for _, ask in sorted(found, key=lambda pair: (-pair[0], pair[1].action, pair[1].resource)))


def _pairs(bound: BoundManifest) -> Iterator[tuple[AskedFor, Grant]]:
    return zip(bound.manifest.requests(), bound.grants, strict=True)


def _as_request(grant: Grant) -> AskedFor:
    return AskedFor(grant.action, grant.pattern_text, grant.required, "", 0, grant.methods, grant.metadata)


def decide_by_approval(
    store: ApprovalStore,
    question: Question,
    settings: Settings,
    where: str,
    uid: int,
    own: Variables,
    hold: Callable[[Reliance], Reliance],
    gather: Callable[[], Evidence] | None = None,
    standing: frozenset[str] = frozenset(),
) -> Approved:
    """Return what is approved; raises AwaitingApprovalError where it isn't: then it has been asked for.

    `hold` is called with the approval that is relied on, before anybody can take it back; what it returns counts.
    `gather` finds out what a reviewer is told of the package: called where a request is to be filed, and nothing is
    locked meanwhile. `standing` are packages that failed in this one's place: an approval that one of theirs has
    superseded counts as it did before.

    `where` is what has to be added to a command so that it finds this store; `uid` is who starts it; `own` are the
    directories of this start.
    """
    use = _Use(uid, own, hold, standing)
    with store.open() as ledger:
        found = _decided(ledger, question, settings, where, use, files=gather is None)
    if found is None and gather is not None:
        question = replace(question, facts=replace(question.facts, evidence=gather()))
        with store.open() as ledger:
            found = _decided(ledger, question, settings, where, use, files=True)
    if isinstance(found, Approved):
        return found
    assert found is not None, "what may be filed is filed"
    request = found.request
    if found.is_new or request.state is State.REQUESTED:
        request = tell(store, request, found.document, settings)
    raise awaiting(request, where)


class _Use(Struct, frozen=True):
    """Who would start it, where, and who is told that it relies on an approval."""

    uid: int
    own: Variables
    hold: Callable[[Reliance], Reliance]
    standing: frozenset[str]


class _Waiting(Struct, frozen=True):
    """A request that waits, whether it was filed just now, and what the reviewers are told."""

    request: Request
    is_new: bool
    document: dict[str, object]


def _decided(
    ledger: Ledger, question: Question, settings: Settings, where: str, use: _Use, files: bool
) -> Approved | _Waiting | None:
    """Return what is approved, or what waits; None where it has to be filed, and this doesn't."""
    found = ledger.of_subject(question.subject.key)
    request = None if found is None else ledger.settled(found)
    if request is not None and _counts(ledger, request, question.needed, use.standing):
        return _use(ledger, request, question, use)
    # Only here, as below: what reviewers read is nothing to a start that is approved.
    from supervisor.approvals.review import is_open

    if request is not None:
        _refuse_what_was_refused(request, where)
    is_new = request is None or not is_open(request)
    if request is None or is_new:
        if not files:
            return None
        request = ledger.file(_filed(question, use.uid, ledger.now_s))
    request = with_kept(ledger, request, settings, question.needed.approvers)
    if settings.approval_automatic:
        from supervisor.approvals.automatic import approve_by_rule

        request = approve_by_rule(ledger, request, settings, question.needed.approvers, question.signers)
    if _is_enough(request, question.needed):
        return _use(ledger, request, question, use)
    return _Waiting(request, is_new, shown_document(ledger, request, settings))


def shown_document(ledger: Ledger, request: Request, settings: Settings) -> dict[str, object]:
    """Return what a reviewer reads of a request now."""
    from supervisor.approvals.review import document_of

    before = ledger.answered(request.subject.identity)
    return document_of(request, before, settings, ledger.now_s)


def _is_enough(request: Request, needed: Needed) -> bool:
    """Whether it is approved, by as many people as today's rules take."""
    return request.state is State.APPROVED and request.votes_for(needed.approvers) >= needed.approvers


def _counts(ledger: Ledger, request: Request, needed: Needed, standing: frozenset[str]) -> bool:
    return _is_enough(request, needed) or _stands(ledger, request, needed, standing)


def _stands(ledger: Ledger, request: Request, needed: Needed, standing: frozenset[str]) -> bool:
    """Whether all that ended an approval is those of versions which failed: then people have said yes to this one.

    What has superseded one of those in turn has ended this one, too: a narrower set of the same version, say.
    """
    ending = request.ending
    if not isinstance(ending, Superseded) or request.once or request.votes_for(needed.approvers) < needed.approvers:
        return False
    seen: set[int] = set()
    while isinstance(ending, Superseded) and ending.by not in seen:
        seen.add(ending.by)
        successor = ledger.request(ending.by)
        if successor is None or successor.subject.package not in standing - {request.subject.package}:
            return False
        ending = successor.ending
    return request.ends_s is None or ledger.now_s < request.ends_s


def with_kept(ledger: Ledger, request: Request, settings: Settings, needs: int) -> Request:
    """Return a request once what was signed for it elsewhere, and brought here before, has counted."""
    if not ledger.kept.of_subject(request.subject.key):
        return request
    # Only here: what verifies signatures takes a while to be imported.
    from supervisor.approvals.importing import count_kept

    return count_kept(ledger, request, settings, needs)


def _filed(question: Question, uid: int, now_s: int) -> Filed:
    needed = question.needed
    return Filed(now_s, uid, question.subject, needed.approvers, needed.review_s, needed.expires_s, question.facts)


def _use(ledger: Ledger, request: Request, question: Question, use: _Use) -> Approved:
    # Only what changes something is kept: of a start that relies on it the start's own records tell.
    if request.once:
        used = ledger.take(request, Used(ledger.now_s, use.uid))
        if isinstance(used, Refusal):
            raise ConfigError(f"approval {request.number}: {used.reason}", hint="start it again")
    until_boot_ns = ends_at_boot_ns(request.ends_s, ledger.now_s)
    reliance = use.hold(Reliance(request.number, request.granted, use.own, request.ends_s, until_boot_ns))
    approval = approval_of(request.number)
    grants = placed(request.granted, use.own)
    return Approved(
        tuple(replace(grant, source=f"{approval} ({grant.source})") for grant in grants),
        approval,
        question.facts.wasm_sha256,
        reliance,
    )


def tell(store: ApprovalStore, request: Request, document: dict[str, object], settings: Settings) -> Request:
    """Have the reviewers told, and put on record that they were, or why not; returns the request after it.

    The lock isn't held meanwhile: whoever is told may answer at once.
    """
    from supervisor.approvals.review import is_open

    trouble = ""
    if settings.approval_notify is not None:
        # Only here: starting a program imports what most starts have no use for.
        from supervisor.approvals.notify import tell_reviewers

        trouble = tell_reviewers(settings.approval_notify, document)
    with store.open() as ledger:
        current = ledger.request(request.number)
        if current is None or not is_open(current):
            return current or request
        told = ledger.take(current, Told(ledger.now_s, trouble))
        return current if isinstance(told, Refusal) else told


def awaiting(request: Request, where: str) -> AwaitingApprovalError:
    """Return what is said of a request that waits."""
    missing = request.needs - request.counting
    needs = f"needs {counted(request.needs, 'approver')}" + (f", {missing} more" if request.counting else "")
    return AwaitingApprovalError(
        request,
        f"{request.subject.identity}: awaiting approval: request {request.number} ({needs})",
        f"look at it: airssys approvals show {request.number}{where}",
    )


def _refuse_what_was_refused(request: Request, where: str) -> None:
    """Raise NotApprovedError for what somebody has said no to: it isn't asked again by itself."""
    ending = request.ending
    if isinstance(ending, Rejected | Revoked):
        # Only here: most starts are approved, and name nobody.
        from supervisor.approvals.people import person

        who = person(f"uid {ending.uid}")
        why = f": {ending.reason}" if ending.reason else ""
        raise NotApprovedError(
            request,
            f"{request.subject.identity}: request {request.number} was {request.state} by {who}{why}",
            f"to ask again: airssys approvals request {request.number}{where}",
        )


def refusal_event(error: AwaitingApprovalError, actor: str) -> AuditEvent:
    """Return the record of a start that was refused for want of an approval."""
    from supervisor.approvals.review import DIGEST_SHOWN

    subject = error.request.subject
    return AuditEvent(
        "run_refused",
        component=subject.component,
        instance=subject.instance,
        decision="denied",
        reason=f"request {error.request.number} is {error.request.state}",
        approval=approval_of(error.request.number),
        actor=actor,
        detail={"package": subject.package[:DIGEST_SHOWN]},
    )
