"""What is asked about a held call, what an answer grants, and when nothing more is asked. Pure.

Everything that names the resource came from the component: it is quoted, shown escaped, and shown once more in plain
ASCII where it holds other letters, so that no name can pass for another.
"""

from __future__ import annotations

import os
from enum import StrEnum
from typing import Final

from ipc.messages import Question
from ipc.policy.capability import Grant
from ipc.policy.patterns import PatternError, literal_pattern_text, parse_pattern, with_any_for_refused
from ipc.struct import Struct
from supervisor.config.units import counted
from supervisor.grants.broad import is_too_broad_grant
from supervisor.report import shell_quoted
from supervisor.terminal import visible

QUESTIONS_MAX: Final = 200
"""A program that wants more different things than this is refused the rest unasked: nobody reads so many."""
SOURCE: Final = "--ask"
_SHOWN_MAX: Final = 1_000


class Answer(StrEnum):
    """What a person can say to a question."""

    FILE = "file"
    DIRECTORY = "directory"
    NO = "no"
    QUIT = "quit"


_VERBS: Final = {
    "filesystem.read": "read",
    "filesystem.write": "create or change",
    "filesystem.list": "see the names in",
}
_KINDS: Final = {"missing": "doesn't exist", "directory": "a directory", "other": "no regular file"}


class Choice(Struct, frozen=True):
    """What an answer would grant: the grants, and how they read."""

    answer: Answer
    grants: tuple[Grant, ...]
    label: str


def choices(question: Question) -> tuple[Choice, ...]:
    """Return what can be granted: the thing itself, and all beneath its directory where that isn't too broad.

    Nothing where no pattern can name it: a name of thousands of brackets is longer as a pattern than one may be.
    """
    resource, action = question.resource, question.action
    literal = with_any_for_refused(literal_pattern_text(resource))
    listing = action == "filesystem.list"
    itself: tuple[Grant, ...] = (Grant(action, literal, SOURCE),)
    if listing:
        # The directory and the names in it; not what lies deeper.
        itself += (Grant(action, f"{literal.rstrip('/')}/*", SOURCE),)
    if not all(_is_pattern(grant.pattern_text) for grant in itself):
        return ()
    found = [Choice(Answer.FILE, itself, shell_quoted(resource))]
    directory = resource if question.kind == "directory" else os.path.dirname(resource)
    beneath = with_any_for_refused(literal_pattern_text(directory)).rstrip("/") + "/"
    tree = Grant(action, beneath, SOURCE)
    if directory != "/" and not is_too_broad_grant(tree):
        found.append(Choice(Answer.DIRECTORY, (tree,), f"all beneath {shell_quoted(directory)}"))
    return tuple(found)


def question_lines(component: str, question: Question) -> list[str]:
    """Return the question as a person reads it, without the line that waits for the answer."""
    kind = _KINDS.get(question.kind, "")
    verb = _VERBS.get(question.action, question.action)
    resource = _shortened(question.resource)
    lines = [f"airssys: {component} wants to {verb} {shell_quoted(resource)}" + (f" ({kind})" if kind else "")]
    if not question.resource.isascii():
        lines.append(f"  this name holds letters that may look like others: {resource!a}")
    if question.nearest:
        lines.append(f"  nearest grant: {visible(question.nearest)}")
    return lines


def answer_line(offered: tuple[Choice, ...]) -> str:
    """Return the line at whose end the answer is typed."""
    tree = next((choice for choice in offered if choice.answer is Answer.DIRECTORY), None)
    one = "allow [f]ile: this one, " if offered else "no grant can name it: "
    more = "" if tree is None else f"[d]irectory: {tree.label}, "
    return f"  {one}{more}[n]o, [q]uit? "


def parse_answer(text: str, offered: tuple[Choice, ...]) -> Answer | None:
    """Return what was typed, by its first letter or its word; None when it is none of what was offered."""
    word = text.strip().lower()
    for answer in Answer:
        offered_now = answer in (Answer.NO, Answer.QUIT) or any(choice.answer is answer for choice in offered)
        if offered_now and word in (answer.value[0], answer.value):
            return answer
    return None


def _is_pattern(text: str) -> bool:
    try:
        parse_pattern(text)
    except PatternError:
        return False
    return True


def _shortened(resource: str) -> str:
    if len(resource) <= _SHOWN_MAX:
        return resource
    half = _SHOWN_MAX // 2
    return f"{resource[:half]}…({counted(len(resource) - 2 * half, 'more character')})…{resource[-half:]}"
