"""What a reviewer reads of a request, as plain values: whole, and what differs from what was approved last. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ipc.errors import ConfigError
from ipc.policy.capability import FILE_ACTIONS, Grant
from ipc.policy.inclusion import Coverage
from ipc.struct import replace
from supervisor.approvals.evidence import evidence_json, origin_changes
from supervisor.approvals.machine import FINAL, State
from supervisor.approvals.request import Facts, Rejected, Request, Revoked, Superseded, Withdrawn
from supervisor.approvals.subject import STAND_INS, grant_terms, grant_text, placed, spelled_out
from supervisor.config.host_policy import resolve_quota
from supervisor.config.settings import Settings
from supervisor.config.units import when
from supervisor.manifest import Manifest, parse_manifest
from supervisor.manifest.asks import describe_limits
from supervisor.manifest.danger_words import why_dangerous
from supervisor.manifest.diff import Change, Version, compare

DIGEST_SHOWN: Final = 12


def summary_of(request: Request) -> dict[str, object]:
    """Return what a list says of it."""
    return {
        "request": request.number,
        "state": str(request.state),
        "component": request.subject.component,
        "instance": request.subject.instance or None,
        "version": request.filed.facts.version,
        "package": request.subject.package,
        "requested_by": f"uid {request.filed.uid}",
        "requested_at": when(request.filed.at_s),
        "votes": request.counting,
        "needs_approvers": request.needs,
        "due_at": None if request.state in FINAL else when(request.due_s),
        "narrowed": request.narrowed,
        "once": request.once,
    }


def document_of(request: Request, answered: Sequence[Request], settings: Settings, now_s: int) -> dict[str, object]:
    """Return all of it; `answered` are the component's requests that somebody has said yes or no to."""
    facts = request.filed.facts
    last, refused = last_approved(answered, request), last_refused(answered, request)
    evidence = {} if facts.evidence is None else evidence_json(facts.evidence, settings, now_s)
    return {
        **summary_of(request),
        "review": request.review,
        "directory": facts.directory,
        "trust": facts.trust,
        **evidence,
        "wasm_sha256": facts.wasm_sha256,
        "manifest": facts.manifest,
        "program": _program(facts),
        "parameters": dict(facts.parameters),
        "rules": list(facts.rules),
        "opens_at": when(request.opens_s) if request.filed.review_s else None,
        "approved_at": when(request.approved_s),
        "lifetime_s": request.lifetime_s,
        "until": when(request.until_s),
        "asked_set": spelled_out(request.subject.asked),
        "granted_set": spelled_out(request.granted),
        "asks": _asks(request),
        "yes": [{"by": vote.who, "at": when(vote.at_s), "reason": vote.reason} for vote in request.votes],
        "narrowings": [
            {"by": f"uid {each.uid}", "at": when(each.at_s), "reason": each.reason} for each in request.narrowings
        ],
        "ended": _ending(request),
        "refused_before": None if refused is None else {"request": refused.number, **(_ending(refused) or {})},
        "since": None if last is None else _differences(last, request, settings),
    }


def _asks(request: Request) -> list[dict[str, object]]:
    """Return each thing that is asked for, the most dangerous first, and whether it is (or would be) granted."""
    granted = {str(term) for term in grant_terms(request.granted)}
    coverage = Coverage(placed(request.granted))
    named: dict[tuple[str, str], list[Grant]] = {}
    for grant in request.subject.asked:
        named.setdefault((grant.action, grant.pattern_text), []).append(grant)
    told: list[dict[str, object]] = []
    for ask in request.filed.facts.asks:
        # Methods and words to a provider belong to it: each has to be granted as it is asked.
        grants = named.get((ask.action, ask.resource), [])
        told.append(
            {
                "danger": ask.danger,
                "action": ask.action,
                "resource": ask.resource,
                "sentence": ask.sentence,
                "required": ask.required,
                "rationale": ask.rationale,
                "why": why_dangerous(ask.action, ask.danger),
                "granted": all(str(term) in granted for term in grant_terms(grants)),
                # Reading allows to list, too: what is left out may be allowed by the rest all the same.
                "still_allowed": all(coverage.covers(grant) for grant in placed(grants)),
            }
        )
    asked = {str(term) for term in grant_terms(request.subject.asked)}
    for grant in request.granted:
        (term,) = grant_terms([grant])
        if str(term) in granted - asked:
            told.append(
                {
                    "danger": "",
                    "action": grant.action,
                    "resource": grant.pattern_text,
                    "sentence": f"(narrowed) {grant_text(grant)}",
                    "required": grant.required,
                    "rationale": "",
                    "why": "",
                    "granted": True,
                    "still_allowed": True,
                }
            )
    return told


def _ending(request: Request) -> dict[str, object] | None:
    ending = request.ending
    if ending is None:
        return None
    document: dict[str, object] = {"how": str(request.state), "at": when(ending.at_s)}
    if isinstance(ending, Rejected | Revoked):
        document.update(by=f"uid {ending.uid}", reason=ending.reason)
    if isinstance(ending, Withdrawn | Superseded):
        document["by_request"] = ending.by
    return document


def _differences(last: Request, new: Request, settings: Settings) -> dict[str, object]:
    """Return what is asked beyond what was granted last (which may have been narrowed), what less, what else."""
    before, after = comparable(last.granted, last.filed.facts), comparable(new.subject.asked, new.filed.facts)
    covered_before, covered_after = Coverage(before), Coverage(after)
    told = {(grant.action, grant.metadata) for grant in before}
    wider = [
        grant_text(grant)
        for grant, there in zip(new.subject.asked, after, strict=True)
        if not covered_before.covers(there) or (grant.metadata and (grant.action, grant.metadata) not in told)
    ]
    narrower = [
        grant_text(grant) for grant, there in zip(last.granted, before, strict=True) if not covered_after.covers(there)
    ]
    rest = manifest_changes(last, new, settings)
    old, found = last.filed.facts.evidence, new.filed.facts.evidence
    origins = [] if old is None or found is None else origin_changes(old, found)
    return {
        "request": last.number,
        "version": last.filed.facts.version,
        "state": str(last.state),
        "wider": wider,
        "narrower": narrower,
        "same": len(after) - len(wider),
        "changed": [
            {"effect": effect, "kind": each.kind, "what": each.what, "old": each.old, "new": each.new}
            for effect, each in rest or ()
        ]
        + [{"effect": "none", "kind": "origin", "what": what, "old": was, "new": now} for what, was, now in origins],
    }


def manifest_changes(last: Request, new: Request, settings: Settings) -> list[tuple[str, Change]] | None:
    """Return what `airssys diff` finds beside the capabilities, each `wider`, `narrower` or `none`, on this host today.

    Capabilities are compared by what was granted, and not by what was asked. None where a manifest can't be read.
    """
    versions = []
    for facts in (last.filed.facts, new.filed.facts):
        manifest = manifest_of(facts)
        if manifest is None:
            return None
        quota = resolve_quota(manifest, settings, new.subject.instance).quota
        versions.append(Version(manifest, quota, facts.wasm_sha256))
    found = compare(*versions)
    effects = (("wider", found.wider), ("narrower", found.narrower), ("none", found.changed))
    return [(effect, each) for effect, changes in effects for each in changes if each.kind != "capability"]


def comparable(grants: Sequence[Grant], facts: Facts) -> list[Grant]:
    """Return grants whose `${tmp}`, `${data}` and own directory are called alike, wherever a version lies."""

    def moved(grant: Grant) -> Grant:
        directory, text = facts.directory, grant.pattern_text
        if grant.action in FILE_ACTIONS and (text == directory or text.startswith(f"{directory}/")):
            return replace(grant, pattern_text=STAND_INS.component + text[len(directory) :])
        return grant

    return [moved(grant) for grant in placed(grants)]


def manifest_of(facts: Facts) -> Manifest | None:
    """Return the manifest that was asked with; None where this version can't read it any more."""
    try:
        return parse_manifest(facts.manifest.encode(), file="Component.toml", directory=facts.directory)
    except ConfigError:
        return None


def last_approved(requests: Sequence[Request], request: Request) -> Request | None:
    """Return what was approved of this component last, this one left out, unless somebody has taken that back."""
    found = [each for each in _others(requests, request) if each.approved_s is not None]
    last = max(found, key=lambda each: (each.approved_s or 0, each.number), default=None)
    return None if last is None or last.state is State.REVOKED else last


def last_refused(requests: Sequence[Request], request: Request) -> Request | None:
    """Return which of the component's earlier requests somebody has said no to, or taken back, last."""
    found = [each for each in _others(requests, request) if isinstance(each.ending, Rejected | Revoked)]
    return max(found, key=lambda each: (each.latest_s, each.number), default=None)


def _others(requests: Sequence[Request], request: Request) -> list[Request]:
    identity = request.subject.identity
    return [each for each in requests if each.number != request.number and each.subject.identity == identity]


def _program(facts: Facts) -> dict[str, object] | None:
    """Return how its program is started, and within which limits of its own; None where that can't be read any more."""
    manifest = manifest_of(facts)
    if manifest is None:
        return None
    component = manifest.component
    return {
        "description": component.description,
        "wasm": component.wasm,
        "args": list(component.args),
        "env": dict(component.env),
        "mounts": {mount.guest: mount.host for mount in component.mounts},
        "limits": list(describe_limits(manifest)),
    }


def is_open(request: Request) -> bool:
    """Whether it waits for an answer."""
    return request.state in (State.REQUESTED, State.PENDING)
