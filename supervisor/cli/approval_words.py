"""What the views of approvals share: names, times and people in words, and lines that nobody's text can break. Pure."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import Final

from ipc.naming import identity_text
from supervisor.approvals.people import person as person
from supervisor.approvals.service import Document
from supervisor.config.units import format_duration
from supervisor.report import paint
from supervisor.terminal import folded, visible

_LABEL: Final = 12
_WIDTH_LEAST: Final = 60
_WIDTH_MOST: Final = 120


def row(label: str, text: str, colour: str = "") -> list[str]:
    """Return a label and its text; what is too long goes on beneath the text's beginning."""
    lines = indented(text, _LABEL)
    name = f"{label:<{_LABEL - 2}}"
    return [f"  {paint(name, colour, sys.stdout) if colour else name}{lines[0][_LABEL:]}", *lines[1:]]


def named_row(label: str, text: str) -> list[str]:
    """Return a row of a name that somebody else has chosen, with a warning where it may pass for another."""
    return [*row(label, text), *look_alike(text, _LABEL)]


def indented(text: str, indent: int) -> list[str]:
    """Return a text, harmless, in indented lines no wider than the terminal: none of them begins at its margin."""
    columns = min(max(shutil.get_terminal_size((100, 24)).columns, _WIDTH_LEAST), _WIDTH_MOST)
    blanks = " " * indent
    return folded(blanks + visible(text), columns, blanks).split("\n")


def look_alike(text: str, indent: int) -> list[str]:
    """Return a warning where a name holds letters that may pass for others, with the name in plain ASCII."""
    return [] if text.isascii() else indented(f"this holds letters that may look like others: {text!a}", indent)


def left_out(ask: Mapping[str, object]) -> str:
    """Return that something isn't granted, and whether that makes a difference."""
    return "[left out, but the rest allows it]" if ask.get("still_allowed") else "[left out]"


def time_of(value: object) -> str:
    """Return a time of a document as people read it."""
    return str(value).replace("T", " ").replace("Z", " UTC")


def terms_of(document: Document) -> str:
    """Return within which limits it is approved, or would be, in parentheses."""
    lifetime = document["lifetime_s"]
    parts = ["for one start" if document["once"] else ""]
    if isinstance(lifetime, int):
        due = document["due_at"] if document["state"] == "approved" else None
        parts.append(f"until {time_of(due)}" if due else f"for {format_duration(lifetime * 10**9)}")
    if document.get("until"):
        parts.append(f"until {time_of(document['until'])} at the latest")
    said = ", ".join(part for part in parts if part)
    return f" ({said})" if said else ""


def missing_yes(document: Document) -> int:
    """Return how many more people have to say yes."""
    return int(str(document["needs_approvers"])) - int(str(document["votes"]))


def clock_lines(document: Document) -> list[str]:
    """Return that the clock was set back, where it was."""
    behind = document.get("clock_behind_s")
    if not isinstance(behind, int):
        return []
    ago = format_duration(behind * 10**9)
    return [f"the clock was set back by {ago}: for so long the time of approvals stands still"]


def identity_of(document: Mapping[str, object]) -> str:
    """Return `NAME`, or `NAME@INSTANCE`."""
    return identity_text(str(document["component"]), str(document["instance"] or ""))


def maps(document: Mapping[str, object], key: str) -> Sequence[Mapping[str, object]]:
    """Return what is a list of documents under a key."""
    return [each for each in listed(document.get(key)) if isinstance(each, dict)]


def texts(document: Mapping[str, object], key: str) -> Sequence[str]:
    """Return what is a list of texts under a key."""
    return [each for each in listed(document.get(key)) if isinstance(each, str)]


def listed(value: object) -> list[object]:
    """Return a list, or an empty one for what is none."""
    return value if isinstance(value, list) else []
