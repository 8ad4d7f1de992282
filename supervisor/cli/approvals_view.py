"""How the list of approvals, and what has become of one, read for a person.

Whatever came from a component or from somebody is shown harmlessly. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping

from supervisor.approvals.losing import OUTCOME_KEYS
from supervisor.approvals.narrowing import ASKED_EACH_TIME
from supervisor.approvals.service import Document
from supervisor.cli.approval_words import (
    clock_lines,
    identity_of,
    left_out,
    listed,
    maps,
    missing_yes,
    person,
    terms_of,
    time_of,
)
from supervisor.cli.review_view import OPEN
from supervisor.config.units import counted
from supervisor.terminal import visible


def list_lines(document: Document, closed: bool, place: str, where: str = "") -> list[str]:
    """Return a line for each request, and how to look at what waits; `place` says whose they are.

    `where` is what a command needs behind its number to find them, with a space in front.
    """
    requests = maps(document, "requests")
    if not requests:
        nothing = "nothing was ever asked" if closed else "nothing waits for approval, and nothing is approved"
        all_of_it = [] if closed else [f"what was answered or is over: airssys approvals list --all{where}"]
        others = "approvals of another user: --socket PATH, of their supervisor"
        return [visible(f"{nothing} ({place})"), *all_of_it, others]
    rows = [("ID", "STATE", "YES", "ASKED (UTC)", "UNTIL (UTC)", "BY", "COMPONENT")]
    for each in requests:
        more = ", narrowed" if each["narrowed"] and each["state"] == "approved" else ""
        yes, asked = f"{each['votes']}/{each['needs_approvers']}", time_of(each["requested_at"])[:16]
        due = str(each["due_at"] or "") if each["state"] in (*OPEN, "approved") else ""
        until = time_of(due)[:16] if due else ""
        by = person(each["requested_by"]).partition(" (")[0]
        name = f"{identity_of(each)} {each['version']}{more}"
        rows.append((str(each["request"]), str(each["state"]), yes, asked, until, by, name))
    widths = [max(len(visible(row[column])) for row in rows) for column in range(6)]
    lines = [
        "  ".join([*(f"{visible(cell):<{width}}" for cell, width in zip(row, widths, strict=False)), visible(row[6])])
        for row in rows
    ]
    waiting = [each["request"] for each in requests if each["state"] in OPEN]
    hint = ["", f"to review what waits: airssys approvals show {waiting[0]}{where}"] if waiting else []
    return [*lines, *hint, *clock_lines(document)]


def outcome_lines(what: str, document: Document, where: str = "") -> list[str]:
    """Return what has become of a request; `where` as in `list_lines`."""
    number, state = document["request"], document["state"]
    name = visible(identity_of(document))
    if what in ("approve", "import") and state != "approved":
        missing = missing_yes(document)
        waits = f"needs {counted(missing, 'more approver')}" if missing > 0 else "waits for the end of its review time"
        return [
            f"request {number} of {name}: {'your' if what == 'approve' else 'the'} yes counts; it {waits}",
            f"who has a vote, too, looks at it: airssys approvals show {number}{where}",
        ][: 2 if missing > 0 else 1]
    narrowed = ", narrowed" if document["narrowed"] and state == "approved" else ""
    lines = [f"request {number} of {name} is {state}{narrowed}{terms_of(document) if state == 'approved' else ''}"]
    supersedes = document.get("supersedes")
    if isinstance(supersedes, list) and supersedes:
        lines.append(f"it supersedes request {', '.join(map(str, supersedes))}")
    if what == "request":
        lines.append(f"to review it: airssys approvals show {number}{where}")
    if what == "reject":
        lines.append(f"nothing starts by it; to ask anew: airssys approvals request {number}{where}")
    if what in ("approve", "import"):
        without = [ask for ask in maps(document, "asks") if not ask["granted"]]
        lines += [visible(f"  {left_out(ask)[1:-1]}: {ask['sentence']}") for ask in without]
        lines.append(f"what was refused can be started now; to take it back: airssys approvals revoke {number}{where}")
    if what in ("revoke", "narrow") or any(document.get(key) for key in OUTCOME_KEYS):
        lines += _taken_lines(what, document)
    if what == "revoke":
        lines.append(f"to ask anew: airssys approvals request {number}{where}")
    return lines


def narrowing_lines(document: Document) -> list[str]:
    """Return what would be taken away and what would be left, for who is to say whether it is to be so."""
    name = f"{identity_of(document)} {document['version']}"
    lines = [visible(f"request {document['request']}: {name}, {document['state']}")]
    taken = maps(document, "taken")
    lines += ["this would be taken away:"] if taken else []
    for grant in taken:
        asked_each_time = str(grant["action"]).startswith(ASKED_EACH_TIME)
        fate = "refused from the next use on" if asked_each_time else "who holds it now is ended"
        lines.append(visible(f"  {grant['action']} {grant['resource']}   ({fate})"))
    until = f" until {time_of(document['due_at'])}" if document["due_at"] else ""
    lines.append(f"this would be left{until}:")
    return [*lines, *(visible(f"  {each['action']} {each['resource']}") for each in maps(document, "granted_set"))]


def _taken_lines(what: str, document: Document) -> list[str]:
    """Return what has become of each grant that was taken back, and of those who had it."""
    told = {(each["action"], each["resource"]): each for each in maps(document, "revoked")}
    taken = [(each["action"], each["resource"]) for each in maps(document, "taken")]
    lines = []
    for action, resource in dict.fromkeys((*taken, *told)):
        if str(action).startswith(ASKED_EACH_TIME):
            lines.append(visible(f"revoked {action} {resource}; refused from the next use on"))
        else:
            lines.append(visible(f"revoked {action} {resource}{_fate(told.get((action, resource), {}))}"))
    ended = [str(name) for name in listed(document.get("ended_components"))]
    ended += [f"a run (process {pid})" for pid in listed(document.get("ended_runs"))]
    lines += [visible(f"ended: {', '.join(ended)}")] if ended else []
    narrowed = ", ".join(str(name) for name in listed(document.get("narrowed_components")))
    lines += [visible(f"goes on with less: {narrowed}")] if narrowed else []
    anew = ", ".join(str(name) for name in listed(document.get("anew")))
    lines += [visible(f"starts anew with what is left: {anew}")] if anew else []
    left = ", ".join(str(pid) if pid else "one of another container" for pid in listed(document.get("left_runs")))
    if left:
        return [*lines, f"still running, and not this user's to end: {left}"]
    if what == "revoke":
        lines += [] if ended else ["nothing ran by it that could be ended"]
        lines.append("nothing starts by it any more")
    return lines


def _fate(told: Mapping[str, object]) -> str:
    """Return what has become of those who held a grant."""
    ended, open_files, left = (told.get(key) for key in ("ended", "open_files", "left"))
    instances = f"; ended {counted(ended, 'instance')}" if isinstance(ended, int) and ended else ""
    files = f" ({counted(open_files, 'open file')})" if instances and isinstance(open_files, int) else ""
    holds = f"{counted(left, 'instance')} still there" if isinstance(left, int) and left else "none holds it now"
    return f"{instances}{files}; {holds}"
