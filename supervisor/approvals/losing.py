"""What is taken from who runs by an approval: when it is revoked, narrowed, over, or replaced by another set. Pure.

It is judged by what is so now, never by what somebody has just done: a step that a crash, or another process, has kept
from being carried through is found by whoever looks next.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from ipc.policy.capability import Grant
from ipc.struct import Struct
from supervisor.approvals.machine import State
from supervisor.approvals.narrowing import is_held, left, lost
from supervisor.approvals.request import Request, Superseded, Used
from supervisor.approvals.subject import grant_terms

OUTCOME_KEYS: Final = ("revoked", "ended_components", "narrowed_components", "ended_runs", "left_runs", "anew")
Find = Callable[[int], Request | None]


class Standing(Struct, frozen=True):
    """What who runs by an approval may still have, why that may be less than it was, and until when (UTC, seconds)."""

    granted: tuple[Grant, ...]
    why: str = ""
    ends_s: int | None = None


class Loss(Struct, frozen=True):
    """What somebody loses who runs by approval `number`, what they are left with, and whether they have to end."""

    number: int
    gone: tuple[Grant, ...]
    left: tuple[Grant, ...]
    ends: bool
    why: str


class EndedInstance(Struct, frozen=True):
    """An instance that was to end for what it has lost; `open_files` by the grant's name, None where not counted."""

    gone: tuple[Grant, ...]
    open_files: Mapping[str, int] | None
    has_ended: bool = True


class Outcome(Struct, frozen=True):
    """What has become of those who ran by what was taken back: components of a supervisor, and runs by their processes.

    `narrowed` are those that go on with less; `anew` those of the components that are started again, with what is left.
    """

    instances: tuple[EndedInstance, ...] = ()
    components: tuple[str, ...] = ()
    narrowed: tuple[str, ...] = ()
    runs: tuple[int, ...] = ()
    left: tuple[int, ...] = ()
    anew: tuple[str, ...] = ()

    def joined(self, other: Outcome) -> Outcome:
        """Return both as one."""
        return Outcome(
            self.instances + other.instances,
            self.components + other.components,
            self.narrowed + other.narrowed,
            self.runs + other.runs,
            self.left + other.left,
            self.anew + other.anew,
        )

    def to_json(self) -> dict[str, object]:
        """Return the keys that an answer has besides the request's; what there is nothing to say of is left out."""
        lists: tuple[list[object], ...] = (
            list(told_of((), self.instances)),
            list(self.components),
            list(self.narrowed),
            list(self.runs),
            list(self.left),
            list(self.anew),
        )
        return {key: value for key, value in zip(OUTCOME_KEYS, lists, strict=True) if value}


def standing_of(request: Request | None, find: Find, now_s: int) -> Standing:
    """Return what an approval still gives to who was started by it; `find` returns other requests by their numbers.

    Another set of the same package that was approved since takes the place of the one before. Another package doesn't
    end what runs: whoever replaces it sees to that, and until then it may come back.
    """
    if request is None:
        return Standing((), "the approval isn't there any more")
    first, counts = request, request
    after: Request | None = request
    seen: set[int] = set()
    while after is not None and after.number not in seen:
        seen.add(after.number)
        counts = after if after.subject.package == first.subject.package else counts
        after = find(after.ending.by) if isinstance(after.ending, Superseded) else None
    who = f"approval {first.number}"
    if counts is not first:
        who = f"approval {counts.number}, in the place of {who},"
    if counts.ends_s is not None and now_s >= counts.ends_s:
        return Standing((), f"{who} is over")
    if counts.state in (State.APPROVED, State.SUPERSEDED) or isinstance(counts.ending, Used):
        return Standing(counts.granted, f"{who} {'was narrowed' if counts is first else 'gives less'}", counts.ends_s)
    return Standing((), f"{who} was {counts.state}")


def loss_of(number: int, held: Sequence[Grant], standing: Standing) -> Loss | None:
    """Return what somebody loses who was started with `held`; None for nothing."""
    granted = standing.granted
    gone = lost(held, granted)
    if granted and not gone:
        return None
    kept = left(held, granted)
    return Loss(number, gone, kept, not kept or any(map(is_held, gone)), standing.why)


def told_of(taken: Sequence[Grant], ended: Sequence[EndedInstance]) -> list[dict[str, object]]:
    """Return what has become of each grant of a file, the network or a secret that was `taken` away or is lost."""
    grants = {str(grant_terms([grant])): grant for grant in (*taken, *(grant for each in ended for grant in each.gone))}
    return [_told_of(grant, ended) for grant in grants.values() if is_held(grant)]


def _told_of(grant: Grant, ended: Sequence[EndedInstance]) -> dict[str, object]:
    (term,) = grant_terms([grant])
    holders = [each for each in ended if term in grant_terms(each.gone)]
    gone = [each for each in holders if each.has_ended]
    name = f"{grant.action}:{grant.pattern_text}"
    counts = [None if each.open_files is None else each.open_files.get(name, 0) for each in gone]
    return {
        "action": grant.action,
        "resource": grant.pattern_text,
        "ended": len(gone),
        "open_files": None if None in counts else sum(count or 0 for count in counts),
        "left": len(holders) - len(gone),
    }
