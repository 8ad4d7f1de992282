"""How exported requests and signed approvals read for a person.

What is asked is put into words here, from the very set that is signed: what the file says about itself is only what its
host has said. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

from ipc.policy.capability import Grant
from supervisor.approvals.review import when
from supervisor.approvals.statement import Exported, Statement
from supervisor.approvals.subject import STAND_INS, grant_terms, grant_text, placed
from supervisor.manifest_asks import describe_grant
from supervisor.terminal import visible

_SAID = ("version", "directory", "trust", "requested_by", "requested_at", "needs_approvers", "votes")


def exported_lines(exported: Exported, granted: Sequence[Grant]) -> list[str]:
    """Return what a reviewer reads of an exported request; `granted` is what a yes would be to."""
    subject = exported.subject
    lines = [
        f"request {exported.number} of {exported.host}: {subject.identity}",
        f"  package {subject.package}",
        "",
        *_set_lines(subject.asked, granted),
        "",
        f"{exported.host} says besides:",
    ]
    lines += [f"  {key.replace('_', ' ')}: {exported.document[key]}" for key in _SAID if key in exported.document]
    lines += [
        f"  because: {each['rationale']} ({each.get('action')}:{each.get('resource')})"
        for each in _list(exported.document.get("asks"))
        if isinstance(each, dict) and each.get("rationale")
    ]
    lines += [f"  rule: {each}" for each in _list(exported.document.get("rules"))]
    lines += [f"  its program: {each}" for each in _list(exported.document.get("undeclared"))]
    for vote in _list(exported.document.get("yes")):
        if isinstance(vote, dict):
            lines.append(f"  yes by {vote.get('by')} at {vote.get('at')}")
    since = exported.document.get("since")
    if isinstance(since, dict):
        lines.append(f"  since request {since.get('request')} ({since.get('version')}):")
        lines += [f"    it could do more: {each}" for each in _list(since.get("wider"))]
        lines += [f"    it could do less: {each}" for each in _list(since.get("narrower"))]
        lines += [] if since.get("wider") else ["    it asks for nothing more than was granted then"]
    return [visible(line) for line in lines]


def statement_lines(statement: Statement) -> list[str]:
    """Return what a signed approval says."""
    subject = statement.subject
    lines = [
        f"yes to {subject.identity}, package {subject.package},",
        f"  on {', '.join(statement.hosts)}" + (", for one start on each" if statement.once else ""),
        f"  signed at {_time(statement.signed_s)}, to be imported before {_time(statement.import_before_s)}",
        f"  it holds until {_time(statement.expires_s)}"
        if statement.expires_s is not None
        else "  it holds until revoked",
        f"  for request {statement.number} of {statement.host}, reviewed as {statement.reviewed[:12]}",
        *([f"  because: {statement.reason}"] if statement.reason else []),
        *_set_lines(subject.asked, statement.granted),
    ]
    return [visible(line) for line in lines]


def _set_lines(asked: Sequence[Grant], granted: Sequence[Grant]) -> list[str]:
    """Return each capability in words, the most dangerous first."""
    terms = [str(term) for term in grant_terms(granted)]
    described = [
        (*describe_grant(grant, there, STAND_INS), grant) for grant, there in zip(asked, placed(asked), strict=True)
    ]
    lines = ["it asks to:"]
    for danger, sentence, grant in sorted(described, key=lambda each: (-each[0], each[2].action, each[2].pattern_text)):
        left = "" if str(grant_terms([grant])[0]) in terms else "  [left out]"
        lines += [f"  {danger.word:<8}  {sentence}{left}", f"            {grant_text(grant)}"]
    return lines


def _time(at_s: int | None) -> str:
    return (when(at_s) or "").replace("T", " ").replace("Z", "")


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []
