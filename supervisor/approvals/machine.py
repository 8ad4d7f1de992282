"""The life of one request as a total table: (state, event) → the next state, or why there is none. Pure.

The table of docs/reference/approvals.md is made from it (a test compares them). `supervisor.approvals.steps` says
which event a step of somebody's is, and knows the time; nothing else moves a request.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from ipc.struct import Struct


class State(StrEnum):
    """Where a request is."""

    REQUESTED = "requested"
    PENDING = "pending"
    APPROVED = "approved"
    REJECTED = "rejected"
    EXPIRED = "expired"
    WITHDRAWN = "withdrawn"
    REVOKED = "revoked"
    SUPERSEDED = "superseded"


class Event(StrEnum):
    """What happened to it."""

    TOLD = "told"
    VOTED = "voted"
    CARRIED = "carried"
    REJECTED = "rejected"
    LAPSED = "lapsed"
    WITHDRAWN = "withdrawn"
    REVOKED = "revoked"
    SUPERSEDED = "superseded"
    NARROWED = "narrowed"
    USED = "used"
    SPENT = "spent"


class Refusal(Struct, frozen=True):
    """The step is not taken, and this is why; the request is as it was."""

    reason: str


MEANINGS: Final = {
    Event.TOLD: "the reviewers were told of it",
    Event.VOTED: "somebody said yes, and more is needed: another yes, or the end of the review time",
    Event.CARRIED: "nothing more is needed",
    Event.REJECTED: "somebody said no",
    Event.LAPSED: "its time is over: for an answer, or of the approval",
    Event.WITHDRAWN: "who asked has asked for something else since",
    Event.REVOKED: "somebody took the approval back",
    Event.SUPERSEDED: "another request of the same component was approved",
    Event.NARROWED: "somebody took a part of the approval back, or some of its time",
    Event.USED: "a start relies on it",
    Event.SPENT: "a start relies on it, and it was for one",
}
FINAL: Final = frozenset({State.REJECTED, State.EXPIRED, State.WITHDRAWN, State.REVOKED, State.SUPERSEDED})
"""What is over: who wants it after all asks anew. What may still run can still be revoked."""
_MAY_RUN: Final = frozenset({State.EXPIRED, State.SUPERSEDED})

_OPEN: Final[dict[Event, State | Refusal]] = {
    Event.TOLD: State.PENDING,
    Event.VOTED: State.PENDING,
    Event.CARRIED: State.APPROVED,
    Event.REJECTED: State.REJECTED,
    Event.LAPSED: State.EXPIRED,
    Event.WITHDRAWN: State.WITHDRAWN,
    Event.REVOKED: Refusal("it isn't approved: reject it"),
    Event.SUPERSEDED: Refusal("only what is approved is superseded"),
    Event.NARROWED: Refusal("it isn't approved: approve less of it"),
    Event.USED: Refusal("it awaits approval"),
    Event.SPENT: Refusal("it awaits approval"),
}
_APPROVED: Final[dict[Event, State | Refusal]] = {
    Event.TOLD: Refusal("it is approved already"),
    Event.VOTED: Refusal("it is approved already"),
    Event.CARRIED: Refusal("it is approved already"),
    Event.REJECTED: Refusal("it is approved already: revoke it"),
    Event.LAPSED: State.EXPIRED,
    Event.WITHDRAWN: Refusal("it is approved already: revoke it"),
    Event.REVOKED: State.REVOKED,
    Event.SUPERSEDED: State.SUPERSEDED,
    Event.NARROWED: State.APPROVED,
    Event.USED: State.APPROVED,
    Event.SPENT: State.EXPIRED,
}


def _of(state: State, event: Event) -> State | Refusal:
    if state in _MAY_RUN and event is Event.REVOKED:
        return State.REVOKED
    if state in FINAL:
        return Refusal(f"it is {state}, and that is final: ask anew")
    return (_APPROVED if state is State.APPROVED else _OPEN)[event]


TABLE: Final = {(state, event): _of(state, event) for state in State for event in Event}


def advance(state: State, event: Event) -> State | Refusal:
    """Return the next state, or why the event changes nothing; defined for every pair."""
    return TABLE[state, event]


def state_table() -> str:
    """Return the whole table in Markdown: a row a state, a column an event; empty where the event is refused."""
    lines = [f"| | {' | '.join(Event)} |", f"|---|{'---|' * len(Event)}"]
    for state in State:
        cells = [step if isinstance(step := TABLE[state, event], State) else "" for event in Event]
        lines.append(f"| **{state}** | {' | '.join(cells)} |")
    return "\n".join(lines)
