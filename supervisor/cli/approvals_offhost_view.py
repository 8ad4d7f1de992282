"""How exported requests and signed approvals read for a person.

What is asked is put into words here, from the very set that is signed: what the file says about itself is only what its
host has said. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

from ipc.policy.capability import Grant
from ipc.policy.inclusion import Coverage
from supervisor.approvals.statement import Exported, Statement
from supervisor.approvals.subject import STAND_INS, grant_terms, placed
from supervisor.cli.approval_words import indented, maps, row, texts, time_of
from supervisor.cli.review_view import evidence_lines, one_ask, program_lines
from supervisor.config.units import when
from supervisor.manifest.asks import describe_grant
from supervisor.manifest.danger_words import why_dangerous


def exported_lines(exported: Exported, granted: Sequence[Grant]) -> list[str]:
    """Return what a reviewer reads of an exported request; `granted` is what a yes would be to."""
    subject, said = exported.subject, exported.document
    lines = indented(f"request {exported.number} of {exported.host}: {subject.identity}", 0)
    lines += row("package", subject.package)
    lines += [
        "",
        *_set_lines("it asks to:", subject.asked, granted),
        "",
        *indented(f"{exported.host} says besides:", 0),
    ]
    lines += row("version", str(said.get("version")))
    lines += evidence_lines(said, str)
    for ask in maps(said, "asks"):
        if ask.get("rationale"):
            lines += row("reason", f'"{ask["rationale"]}" ({ask.get("action")}:{ask.get("resource")})')
    lines += row("asked", f"{time_of(said.get('requested_at'))} by {said.get('requested_by')}")
    lines += row("needs", f"{said.get('needs_approvers')} approvers; yes so far: {said.get('votes')}")
    for rule in texts(said, "rules"):
        lines += row("rule", rule)
    for vote in maps(said, "yes"):
        lines += row("yes", f"{time_of(vote.get('at'))} by {vote.get('by')}")
    lines += program_lines(said, whole=False)
    since = said.get("since")
    if isinstance(since, dict):
        lines += indented(f"since request {since.get('request')} ({since.get('version')}):", 0)
        for key, title in (("wider", "more"), ("narrower", "less")):
            for each in texts(since, key):
                lines += indented(f"it could do {title}: {each}", 2)
        lines += [] if since.get("wider") else ["  it asks for nothing more than was granted then"]
    return lines


def statement_lines(statement: Statement, with_set: bool = True) -> list[str]:
    """Return what a signed approval says; without its set where that was shown before."""
    once = ", for one start on each" if statement.once else ""
    until = _time(statement.expires_s) if statement.expires_s is not None else "taken back"
    lines = [
        "a yes:",
        *row("to", f"{statement.subject.identity}, package {statement.subject.package}"),
        *row("on", f"{', '.join(statement.hosts)}{once}"),
        *row("holds", f"until {until}"),
        *row("signed", f"{_time(statement.signed_s)}, to be imported before {_time(statement.import_before_s)}"),
        *row("reviewed", f"request {statement.number} of {statement.host}, as {statement.reviewed[:12]}"),
        *(row("reason", f'"{statement.reason}"') if statement.reason else ()),
    ]
    more = _set_lines("of what it asks, it may:", statement.subject.asked, statement.granted) if with_set else []
    return [*lines, *more]


def _set_lines(title: str, asked: Sequence[Grant], granted: Sequence[Grant]) -> list[str]:
    """Return each capability in words, the most dangerous first."""
    terms = [str(term) for term in grant_terms(granted)]
    described = [
        (*describe_grant(grant, there, STAND_INS), grant) for grant, there in zip(asked, placed(asked), strict=True)
    ]
    lines, coverage = [title], Coverage(placed(granted))
    for danger, sentence, grant in sorted(described, key=lambda each: (-each[0], each[2].action, each[2].pattern_text)):
        ask = {
            "danger": danger.word,
            "action": grant.action,
            "resource": " ".join([grant.pattern_text, *grant.methods]),
            "sentence": sentence,
            "why": why_dangerous(grant.action, danger.word),
            "granted": str(grant_terms([grant])[0]) in terms,
            "still_allowed": all(map(coverage.covers, placed([grant]))),
        }
        lines += one_ask(ask)
    return lines


def _time(at_s: int | None) -> str:
    return time_of(when(at_s) or "")
