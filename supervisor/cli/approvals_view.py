"""How the list of approvals, and what has become of one, read for a person.

Whatever came from a component or from somebody is shown harmlessly. Pure.
"""

from __future__ import annotations

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
from supervisor.terminal import visible
from supervisor.units import counted


def list_lines(document: Document, closed: bool, place: str) -> list[str]:
    """Return a line for each request, and how to look at what waits; `place` says whose they are."""
    requests = maps(document, "requests")
    if not requests:
        nothing = "nothing was ever asked" if closed else "nothing waits for approval, and nothing is approved"
        all_of_it = [] if closed else ["what was answered or is over: airssys approvals list --all"]
        others = "approvals of another user: --socket PATH, of their supervisor"
        return [visible(f"{nothing} ({place})"), *all_of_it, others]
    rows = [("ID", "STATE", "YES", "ASKED (UTC)", "BY", "COMPONENT")]
    for each in requests:
        more = ", narrowed" if each["narrowed"] and each["state"] == "approved" else ""
        yes, asked = f"{each['votes']}/{each['needs_approvers']}", time_of(each["requested_at"])[:16]
        by = person(each["requested_by"]).partition(" (")[0]
        name = f"{identity_of(each)} {each['version']}{more}"
        rows.append((str(each["request"]), str(each["state"]), yes, asked, by, name))
    widths = [max(len(visible(row[column])) for row in rows) for column in range(5)]
    lines = [
        "  ".join([*(f"{visible(cell):<{width}}" for cell, width in zip(row, widths, strict=False)), visible(row[5])])
        for row in rows
    ]
    waiting = [each["request"] for each in requests if each["state"] in OPEN]
    hint = ["", f"to review what waits: airssys approvals show {waiting[0]}"] if waiting else []
    return [*lines, *hint, *clock_lines(document)]


def outcome_lines(what: str, document: Document) -> list[str]:
    """Return what has become of a request."""
    number, state = document["request"], document["state"]
    name = visible(identity_of(document))
    if what in ("approve", "import") and state != "approved":
        missing = missing_yes(document)
        waits = f"needs {counted(missing, 'more approver')}" if missing > 0 else "waits for the end of its review time"
        return [
            f"request {number} of {name}: {'your' if what == 'approve' else 'the'} yes counts; it {waits}",
            f"who has a vote, too, looks at it: airssys approvals show {number}",
        ][: 2 if missing > 0 else 1]
    narrowed = ", narrowed" if document["narrowed"] and state == "approved" else ""
    lines = [f"request {number} of {name} is {state}{narrowed}{terms_of(document) if state == 'approved' else ''}"]
    supersedes = document.get("supersedes")
    if isinstance(supersedes, list) and supersedes:
        lines.append(f"it supersedes request {', '.join(map(str, supersedes))}")
    if what == "request":
        lines.append(f"to review it: airssys approvals show {number}")
    if what == "reject":
        lines.append(f"nothing starts by it; to ask anew: airssys approvals request {number}")
    if what in ("approve", "import"):
        without = [ask for ask in maps(document, "asks") if not ask["granted"]]
        lines += [visible(f"  {left_out(ask)[1:-1]}: {ask['sentence']}") for ask in without]
        lines.append(f"what was refused can be started now; to take it back: airssys approvals revoke {number}")
    if what == "revoke":
        ended = [str(name) for name in listed(document.get("ended"))]
        ended += [f"a run (process {pid})" for pid in listed(document.get("ended_runs"))]
        lines.append(visible(f"ended: {', '.join(ended)}") if ended else "nothing ran by it that could be ended")
        left = ", ".join(str(pid) if pid else "one of another container" for pid in listed(document.get("left_runs")))
        lines.append(f"still running, and not this user's to end: {left}" if left else "nothing starts by it any more")
    return lines
