"""How a request reads for a reviewer: what was found out, what is asked, why that is dangerous, what is new. Pure.

Whatever came from a component or from somebody is shown harmlessly, and never begins a line: what is too long goes on
beneath its own beginning. What a package says of itself stands in quotation marks.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from supervisor.approvals.review import DIGEST_SHOWN
from supervisor.approvals.service import Document
from supervisor.cli.approval_words import (
    clock_lines,
    identity_of,
    indented,
    left_out,
    listed,
    look_alike,
    maps,
    missing_yes,
    named_row,
    person,
    row,
    terms_of,
    texts,
    time_of,
)
from supervisor.config.units import counted
from supervisor.report import paint, shell_quoted
from supervisor.terminal import visible

_COLOURS: Final = {"critical": "1;31", "high": "31", "medium": "33", "own": "2"}
_EFFECTS: Final = ("wider", "narrower", "none")
_INDENT: Final = 12
_ON_A_SCREEN: Final = 8
_SHOWN_AGAIN: Final = 4
OPEN: Final = ("requested", "pending")


def review_lines(document: Document, whole: bool, asks_now: bool = False, where: str = "") -> list[str]:
    """Return what a reviewer reads: of what is asked only what is new, where something was approved before.

    `where` is what a command needs behind its number to find it again, with a space in front.

    With `asks_now` the question follows, and how to answer isn't said.
    """
    number, since = document["request"], document["since"]
    state = str(document["state"])
    lines = [visible(f"request {number}: {identity_of(document)} {document['version']}, {state}")]
    lines += [*evidence_lines(document), *_answers(document), ""]
    if isinstance(since, dict) and not whole:
        lines += _difference_lines(document, since, where)
    else:
        lines += ask_lines(maps(document, "asks"))
    lines += ["", *program_lines(document, whole and not asks_now), *clock_lines(document)]
    asks = maps(document, "asks")
    if asks_now and len(asks) > _ON_A_SCREEN:
        # What stood first has left the screen by now: whoever packed it could have meant that.
        lines += ["", f"these are {len(asks)}; the most dangerous of them once more:"]
        lines += [line for ask in asks[:_SHOWN_AGAIN] for line in one_ask({**ask, "why": "", "rationale": None})]
    if state in OPEN and not asks_now:
        lines += ["", *_how_to_answer(document, where)]
    elif state == "approved" and not asks_now:
        narrow = f"airssys approvals narrow {number}{where} --without ACTION:PATTERN"
        digest = str(document["review"])[:DIGEST_SHOWN]
        lines += ["", f"to take it back: airssys approvals revoke {number}{where}"]
        lines.append(f"or a part of it: {narrow}   (without a terminal: --yes {digest})")
    elif state not in OPEN and not asks_now:
        lines += ["", f"it is over; to ask anew: airssys approvals request {number}{where}"]
    return lines


def evidence_lines(document: Mapping[str, object], who: Callable[[object], str] = person) -> list[str]:
    """Return where a package is from, who signed it, and what that is worth here, as the host has found it.

    `who` says what people are called: on another machine the same uid is somebody else.
    """
    lines = [
        *_origin(document, who),
        *_signatures(document),
        *_trust(document),
        *(row("package", str(document["package"])) if "package" in document else ()),
    ]
    refused = document.get("refused_before")
    if isinstance(refused, dict):
        why = f": {refused['reason']}" if refused.get("reason") else ""
        said = f"request {refused.get('request')} of it was {refused.get('how')} by {who(refused.get('by'))}"
        lines += row("before", f"{said} at {time_of(refused.get('at'))}{why}")
    return lines


def _trust(document: Mapping[str, object]) -> list[str]:
    why = f": {document['trust_why']}" if document.get("trust_why") else ""
    return row("trust", f"{document.get('trust')} when it was asked{why}")


def _origin(document: Mapping[str, object], who: Callable[[object], str]) -> list[str]:
    found = document.get("provenance")
    if not isinstance(found, dict):
        return row("from", f"directory {document.get('directory')}")
    branch = f", branch {found['branch']}" if found.get("branch") else ""
    inner = f", in {found['subdirectory']}" if found.get("subdirectory") else ""
    url = str(found.get("url"))
    lines = named_row("from", f"{found.get('kind')} {url}{branch}{inner}")
    if found.get("revision"):
        lines += row("revision", str(found["revision"]))
    if found.get("installed_at"):
        by = f" by {who(found['installed_by'])}" if found.get("installed_by") else ""
        lines += row("installed", f"{time_of(found['installed_at'])}{by}")
    else:
        lines += row("installed", "no: it is started from where it lies")
    return lines


def _signatures(document: Mapping[str, object]) -> list[str]:
    """Return each signature: whether it holds, by which key, and whose key that is by the host's settings."""
    if "signatures" not in document:
        return []
    lines: list[str] = []
    for each in maps(document, "signatures"):
        key = f"{each.get('fingerprint')} ({each.get('algorithm')})" if each.get("fingerprint") else "an unreadable key"
        if not each.get("holds"):
            lines += row("NOT VALID", f"a signature by {key} does not hold: {each.get('why')}", "1;31")
            continue
        known = maps(each, "listed")
        lines += row(
            "signed by", f"{key}: {'; '.join(map(_whose, known)) or 'whose key that is, nobody has said here'}"
        )
        for entry in known:
            lines += look_alike(str(entry.get("identity") or ""), _INDENT)
    if document.get("signatures_unread"):
        lines += row("signed by", f"can't be said: {document['signatures_unread']}")
    return lines or row("signed by", "nobody")


def _whose(entry: Mapping[str, object]) -> str:
    state = f", but {entry['state']}" if entry.get("state") else ""
    return f"{entry.get('identity') or 'nobody is named'}, by {entry.get('in')}{state}"


def _answers(document: Document) -> list[str]:
    """Return who has asked, who has said what, and what is still needed."""
    lines = row("asked", f"{time_of(document['requested_at'])} by {person(document['requested_by'])}")
    for yes in maps(document, "yes"):
        why = f": {yes['reason']}" if yes["reason"] else ""
        lines += row("yes", f"{time_of(yes['at'])} by {person(yes['by'])}{why}")
    ended = document["ended"]
    if isinstance(ended, dict):
        by = f" by {person(ended['by'])}" if "by" in ended else ""
        because = f" for request {ended['by_request']}" if "by_request" in ended else ""
        used = ", used up: it was for one start" if ended["how"] == "expired" and document["once"] else ""
        why = f": {ended['reason']}" if ended.get("reason") else ""
        lines += row(str(ended["how"]), f"{time_of(ended['at'])}{by}{because}{used}{why}")
    elif document["state"] == "approved":
        narrowed = "less than it asks for, " if document["narrowed"] else ""
        lines += row("approved", f"{narrowed}{time_of(document['approved_at'])}{terms_of(document)}")
        for each in maps(document, "narrowings"):
            why = f": {each['reason']}" if each["reason"] else ""
            lines += row("narrowed", f"by {person(each['by'])} at {time_of(each['at'])}{why}")
    else:
        missing = missing_yes(document)
        review = f", not before {time_of(document['opens_at'])}" if document["opens_at"] else ""
        needs = counted(missing, "approver") if missing > 0 else "nobody more"
        due = f"; waits until {time_of(document['due_at'])}" if document["due_at"] else ""
        lines += row("needs", f"{needs}{review}{due}")
        if terms_of(document):
            lines += row("holds", terms_of(document).strip(" ()"))
        for rule in texts(document, "rules"):
            lines += row("rule", rule)
    return lines


def ask_lines(asks: Sequence[Mapping[str, object]]) -> list[str]:
    """Return each thing that is asked for, the most dangerous first: what, why, and why that is dangerous."""
    lines: list[str] = []
    for required, title in ((True, "it asks to:"), (False, "it would also like to, and starts without:")):
        chosen = [ask for ask in asks if ask["required"] is required]
        if chosen:
            lines.append(title)
        for ask in chosen:
            lines += one_ask(ask)
    return lines or ["it asks for nothing"]


def one_ask(ask: Mapping[str, object]) -> list[str]:
    """Return one thing that is asked for."""
    danger, name = str(ask["danger"]), f"{ask['action']}:{ask['resource']}"
    word = paint(f"{visible(danger):<8}", _COLOURS.get(danger, "0"), sys.stdout)
    left = "" if ask["granted"] else paint(f"  {left_out(ask)}", "33", sys.stdout)
    sentence = indented(str(ask["sentence"]), _INDENT)
    lines = [f"  {word}  {sentence[0].lstrip()}", *sentence[1:]]
    lines[-1] += left
    lines += look_alike(name, _INDENT)
    if ask.get("why"):
        lines += indented(f"danger: {ask['why']}", _INDENT)
    if ask["danger"]:
        reason = ask.get("rationale")
        if reason is not None:
            lines += indented(f'its reason: "{reason}"' if reason else "its reason: none given", _INDENT)
        lines += indented(shell_quoted(name), _INDENT)
    return lines


def program_lines(document: Mapping[str, object], whole: bool) -> list[str]:
    """Return how its program is started, and what it really imports, beside what it declares."""
    lines = ["its program:"]
    program = document.get("program")
    if isinstance(program, dict):
        if program.get("description"):
            lines += row("it says", f'"{program["description"]}"')
        started = [program.get("wasm"), *listed(program.get("args"))]
        lines += named_row("starts as", " ".join(shell_quoted(str(each)) for each in started))
        for title, key, text in (("with", "env", "{0}={1}"), ("sees", "mounts", "{1} as {0}")):
            entries = program.get(key)
            for name, value in entries.items() if isinstance(entries, dict) else ():
                lines += named_row(title, text.format(name, value))
        parameters = document.get("parameters")
        for name, value in parameters.items() if isinstance(parameters, dict) else ():
            lines += named_row("where", f"{name} = {value}")
        if program.get("limits"):
            lines += row("limits", ", ".join(str(each) for each in listed(program["limits"])))
    if document.get("imports_unread"):
        lines += row("imports", f"can't be said: {document['imports_unread']}")
    elif isinstance(document.get("imports"), list):
        lines += _imports(document, whole)
    return lines if len(lines) > 1 else []


def _imports(document: Mapping[str, object], whole: bool) -> list[str]:
    groups: dict[str, list[str]] = {}
    for name in texts(document, "imports"):
        # Core imports are `module.name`, those of components `namespace:package/interface@version`.
        group, _, member = name.partition("/" if "/" in name else ".")
        groups.setdefault(group, []).append(member)
    kept, count = sum(map(len, groups.values())), document.get("imports_count")
    said = [f"{group}: {', '.join(names)}" if whole else f"{group} ({len(names)})" for group, names in groups.items()]
    said += [f"and {count - kept} more"] if isinstance(count, int) and count > kept else []
    lines = named_row("imports", ("; " if whole else ", ").join(said) or "nothing")
    undeclared = texts(document, "undeclared")
    for each in undeclared:
        lines += named_row("but", each)
    return lines if undeclared else [*lines, *row("", "nothing beyond what it declares")]


def _difference_lines(document: Document, since: Mapping[str, object], where: str) -> list[str]:
    """Return what is asked beyond what was granted last, with the words of those asks; what less; what else."""
    lines = [visible(f"since request {since['request']} ({since['version']}, {since['state']}):")]
    asks = {f"{ask['action']}:{ask['resource']}": ask for ask in maps(document, "asks")}
    more: list[str] = []
    for text in texts(since, "wider"):
        # Behind a name may stand methods.
        ask = asks.get(text) or next((ask for name, ask in asks.items() if text.startswith(f"{name} ")), None)
        more += indented(text, 2) if ask is None else one_ask(ask)
    less = [line for text in texts(since, "narrower") for line in indented(text, 2)]
    changed = {
        effect: [line for each in maps(since, "changed") if each["effect"] == effect for line in _change(each)]
        for effect in _EFFECTS
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
    whole = f"airssys approvals show {document['request']}{where} --whole"
    return [*lines, f"the same: {counted(same, 'capability', 'capabilities')} ({whole})"]


def _change(change: Mapping[str, object]) -> list[str]:
    nothing = "no limit" if change["kind"] == "limit" else "nothing"
    old, new = (nothing if side is None else side for side in (change["old"], change["new"]))
    alone = change["kind"] in ("limit", "other", "name", "origin")
    what = change["what"] if alone else f"{change['kind']} {change['what']}"
    return [*indented(f"{what}: {old} → {new}", 2), *look_alike(f"{old} {new}", 4)]


def _how_to_answer(document: Document, where: str) -> list[str]:
    """Return the commands for each answer, with a thing of this very request to be left out."""
    number, digest = document["request"], str(document["review"])[:DIGEST_SHOWN]
    approve = f"airssys approvals approve {number}{where}"
    lines = [f"to approve it:     {approve}   (without a terminal: --yes {digest})"]
    granted = [ask for ask in maps(document, "asks") if ask["granted"] and ask["danger"]]
    if len(granted) > 1:
        names = [f"{ask['action']}:{ask['resource']}" for ask in granted]
        since = document["since"]
        new = texts(since, "wider") if isinstance(since, dict) else ()
        name = next((name for name in names if name in new), names[0])
        lines.append(f"less of it:        {approve} --without {shell_quoted(name)}")
    lines.append(f"for a while, once: {approve} --expires 30d, or --once")
    return [*lines, f"to refuse it:      airssys approvals reject {number}{where} --reason TEXT"]
