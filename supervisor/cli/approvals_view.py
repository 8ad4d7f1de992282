"""How approvals read for a person. Whatever came from a component or from somebody is shown harmlessly. Pure."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Final

from supervisor.approvals.review import DIGEST_SHOWN
from supervisor.approvals.service import Document
from supervisor.report import paint
from supervisor.terminal import visible
from supervisor.units import counted, format_duration

_COLOURS: Final = {"critical": "1;31", "high": "31", "medium": "33", "own": "2"}

_EFFECTS: Final = ("wider", "narrower", "none")


def list_lines(document: Document, closed: bool) -> list[str]:
    """Return a line for each request."""
    requests = _maps(document, "requests")
    if not requests:
        return ["nothing was ever asked" if closed else "nothing waits for approval, and nothing is approved"]
    lines = [f"{'ID':>5}  {'STATE':<10}  {'COMPONENT':<24}  {'YES':<5}  {'ASKED':<19}  BY"]
    for each in requests:
        name = f"{_identity(each)} {each['version']}"
        yes = f"{each['votes']}/{each['needs_approvers']}"
        asked = _time(each["requested_at"])
        more = " (narrowed)" if each["narrowed"] and each["state"] == "approved" else ""
        lines.append(
            f"{each['request']:>5}  {each['state']:<10}  {visible(name):<24}  {yes:<5}  {asked:<19}  "
            f"{each['requested_by']}{more}"
        )
    return [*lines, *_clock_lines(document)]


def review_lines(document: Document, whole: bool) -> list[str]:
    """Return what a reviewer reads: of what is asked only what is new, where something was approved before."""
    number, since = document["request"], document["since"]
    package = str(document["package"])[:DIGEST_SHOWN]
    lines = [
        visible(f"request {number}: {_identity(document)} {document['version']}, {document['state']}"),
        visible(f"  package {package}, in {document['directory']}, trust {document['trust']}"),
        visible(f"  asked by {document['requested_by']} at {_time(document['requested_at'])}"),
        *_answers(document),
        "",
    ]
    if isinstance(since, dict) and not whole:
        lines += _difference_lines(document, since)
    else:
        lines += _ask_lines(document)
    undeclared = document.get("undeclared")
    if isinstance(undeclared, list):
        lines += [visible(f"  its program: {each}") for each in undeclared]
        lines += [] if undeclared else ["  its program imports nothing beyond what it declares"]
    for rule in _texts(document, "rules"):
        lines.append(visible(f"  rule {rule}"))
    lines += _clock_lines(document)
    if document["state"] in ("requested", "pending"):
        digest = str(document["review"])[:DIGEST_SHOWN]
        lines += ["", f"to approve it: airssys approvals approve {number}   (without a terminal: --yes {digest})"]
    return lines


def _answers(document: Document) -> list[str]:
    """Return who has said what, and what is still needed."""
    lines = []
    for yes in _maps(document, "yes"):
        why = f": {yes['reason']}" if yes["reason"] else ""
        lines.append(visible(f"  yes by {yes['by']} at {_time(yes['at'])}{why}"))
    ended = document["ended"]
    if isinstance(ended, dict):
        by = f" by {ended['by']}" if "by" in ended else ""
        because = f" for request {ended['by_request']}" if "by_request" in ended else ""
        why = f": {ended['reason']}" if ended.get("reason") else ""
        lines.append(visible(f"  {ended['how']}{by}{because} at {_time(ended['at'])}{why}"))
    elif document["state"] == "approved":
        lines.append(f"  approved at {_time(document['approved_at'])}{_terms(document)}")
    else:
        missing = int(str(document["needs_approvers"])) - int(str(document["votes"]))
        review = f", not before {_time(document['opens_at'])}" if document["opens_at"] else ""
        needs = f"needs {counted(missing, 'approver')}" if missing > 0 else "has all it needs"
        lines.append(f"  {needs}{review}; waits until {_time(document['due_at'])}{_terms(document)}")
    return lines


def _terms(document: Document) -> str:
    lifetime = document["lifetime_s"]
    parts = ["for one start" if document["once"] else ""]
    if isinstance(lifetime, int):
        due = document["due_at"] if document["state"] == "approved" else None
        parts.append(f"until {_time(due)}" if due else f"for {format_duration(lifetime * 10**9)}")
    if document.get("until"):
        parts.append(f"until {_time(document['until'])} at the latest")
    said = ", ".join(part for part in parts if part)
    return f" ({said})" if said else ""


def _ask_lines(document: Document) -> list[str]:
    asks = _maps(document, "asks")
    lines: list[str] = []
    for required, title in ((True, "it asks to:"), (False, "it would also like to, and starts without:")):
        chosen = [ask for ask in asks if ask["required"] is required]
        if chosen:
            lines.append(title)
        for ask in chosen:
            lines += _one_ask(ask)
    return lines or ["it asks for nothing"]


def _one_ask(ask: Mapping[str, object]) -> list[str]:
    danger = str(ask["danger"])
    word = paint(f"{danger:<8}", _COLOURS.get(danger, "0"), sys.stdout)
    left = "" if ask["granted"] else paint("  [left out]", "33", sys.stdout)
    lines = [f"  {word}  {visible(str(ask['sentence']))}{left}"]
    if ask["rationale"]:
        lines.append(visible(f"            because: {ask['rationale']}"))
    if ask["danger"]:
        lines.append(visible(f"            {ask['action']}:{ask['resource']}"))
    return lines


def _difference_lines(document: Document, since: Mapping[str, object]) -> list[str]:
    """Return what is asked beyond what was granted last, with the words of those asks; what less; what else."""
    lines = [visible(f"since request {since['request']} ({since['version']}, {since['state']}):")]
    asks = {f"{ask['action']}:{ask['resource']}": ask for ask in _maps(document, "asks")}
    more: list[str] = []
    for text in _texts(since, "wider"):
        ask = next((ask for name, ask in asks.items() if text == name or text.startswith(f"{name} ")), None)
        more += [visible(f"  {text}")] if ask is None else _one_ask(ask)
    less = [visible(f"  {text}") for text in _texts(since, "narrower")]
    changed = {
        effect: [_change(each) for each in _maps(since, "changed") if each["effect"] == effect] for effect in _EFFECTS
    }
    for title, colour, found in (
        ("it could do more:", "31", more + changed["wider"]),
        ("it could do less:", "32", less + changed["narrower"]),
        ("also different:", "0", changed["none"]),
    ):
        lines += [paint(title, colour, sys.stdout), *found] if found else []
    if not more + changed["wider"]:
        lines.append("it asks for nothing more than was granted then")
    same = int(str(since["same"]))
    whole = f"airssys approvals show {document['request']} --whole"
    return [*lines, f"the same: {counted(same, 'capability', 'capabilities')} ({whole})"]


def _change(change: Mapping[str, object]) -> str:
    nothing = "no limit" if change["kind"] == "limit" else "nothing"
    old, new = (nothing if side is None else side for side in (change["old"], change["new"]))
    what = change["what"] if change["kind"] in ("limit", "other", "name") else f"{change['kind']} {change['what']}"
    return visible(f"  {what}: {old} → {new}")


def outcome_lines(what: str, document: Document) -> list[str]:
    """Return what has become of a request."""
    number, state = document["request"], document["state"]
    name = visible(_identity(document))
    if what in ("approve", "import") and state != "approved":
        missing = int(str(document["needs_approvers"])) - int(str(document["votes"]))
        waits = f"needs {counted(missing, 'more approver')}" if missing > 0 else "waits for the end of its review time"
        return [f"request {number} of {name}: {'your' if what == 'approve' else 'the'} yes counts; it {waits}"]
    narrowed = ", narrowed" if document["narrowed"] and state == "approved" else ""
    lines = [f"request {number} of {name} is {state}{narrowed}{_terms(document) if state == 'approved' else ''}"]
    supersedes = document.get("supersedes")
    if isinstance(supersedes, list) and supersedes:
        lines.append(f"it supersedes request {', '.join(map(str, supersedes))}")
    if what in ("approve", "import"):
        lines += [visible(f"  left out: {ask['sentence']}") for ask in _maps(document, "asks") if not ask["granted"]]
    if what == "revoke":
        ended = [str(name) for name in _list(document, "ended")]
        ended += [f"a run (process {pid})" for pid in _list(document, "ended_runs")]
        lines.append(visible(f"ended: {', '.join(ended)}") if ended else "nothing ran by it that could be ended")
        left = ", ".join(str(pid) if pid else "one of another container" for pid in _list(document, "left_runs"))
        lines.append(f"still running, and not this user's to end: {left}" if left else "nothing starts by it any more")
    return lines


def _list(document: Document, key: str) -> list[object]:
    found = document.get(key)
    return found if isinstance(found, list) else []


def _clock_lines(document: Document) -> list[str]:
    behind = document.get("clock_behind_s")
    if not isinstance(behind, int):
        return []
    ago = format_duration(behind * 10**9)
    return [f"the clock was set back by {ago}: for so long the time of approvals stands still"]


def _identity(document: Mapping[str, object]) -> str:
    instance = document["instance"]
    return f"{document['component']}@{instance}" if instance else str(document["component"])


def _time(value: object) -> str:
    return str(value).replace("T", " ").replace("Z", "")


def _maps(document: Mapping[str, object], key: str) -> Sequence[Mapping[str, object]]:
    value = document[key]
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _texts(document: Mapping[str, object], key: str) -> Sequence[str]:
    value = document[key]
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []
