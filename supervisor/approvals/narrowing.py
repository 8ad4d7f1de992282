"""Less than was asked: what is left out or tightened, with the proof that nothing is in it that wasn't asked for. Pure.

What isn't proven (`ipc.policy.inclusion`) to be included counts as wider, and is refused by its name. So it counts as
lost for who runs with it: `lost` and `left` say what a narrower set takes from them, and what it leaves.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import Final

from ipc.policy.capability import Grant
from ipc.policy.inclusion import Coverage
from supervisor.approvals.machine import Refusal
from supervisor.approvals.subject import grant_text, placed
from supervisor.report import shell_quoted

_COMPARED_MAX: Final = 200
"""How many names, of how many characters, are looked through for what was meant."""
_DROPPED_COMPARED: Final = 3

ASKED_EACH_TIME: Final = ("messaging.", "storage.", "custom.")


def why_wider(asked: Sequence[Grant], narrowed: Sequence[Grant]) -> str:
    """Return which grant isn't included in what was asked, "" where all are. Grants name `${tmp}` and `${data}`."""
    return next((why for _, why in _beyond(asked, narrowed)), "")


def lost(held: Sequence[Grant], granted: Sequence[Grant]) -> tuple[Grant, ...]:
    """Return what somebody who holds `held` has to lose where no more than `granted` is granted."""
    return tuple(grant for grant, _ in _beyond(granted, held))


def left(held: Sequence[Grant], granted: Sequence[Grant]) -> tuple[Grant, ...]:
    """Return what both sets grant: never more than either."""
    gone = lost(held, granted)
    kept = [grant for grant in held if grant not in gone]
    beyond = lost(granted, held)
    return (*kept, *(grant for grant in granted if grant not in beyond and grant not in kept))


def _beyond(outer: Sequence[Grant], inner: Sequence[Grant]) -> Iterator[tuple[Grant, str]]:
    """Yield what of `inner` isn't proven to be in `outer`, and how that is said."""
    coverage = Coverage(placed(outer))
    told = {(grant.action, frozenset(grant.metadata)) for grant in outer}
    for grant, there in zip(inner, placed(inner), strict=True):
        if not coverage.covers(there):
            yield grant, f"{grant_text(grant)} is not included in what it asks for: only less can be approved"
        # What a provider makes of metadata, of less of it too, is its own affair.
        elif grant.metadata and (grant.action, frozenset(grant.metadata)) not in told:
            yield grant, f"{grant_text(grant)} is told its provider otherwise than it asks for"


def is_held(grant: Grant) -> bool:
    """Whether what was had by it can't be taken back from a process: a descriptor, a secret; it is to end instead.

    What goes through the broker is decided anew each time.
    """
    return not grant.action.startswith(ASKED_EACH_TIME)


def nearest_hint(dropped: Sequence[str], asked: Sequence[Grant], look: str) -> str:
    """Return what was probably meant by a name that isn't among what is asked, else where the names are."""
    names = [grant_text(grant)[:_COMPARED_MAX] for grant in asked[:_COMPARED_MAX]]
    for text in dropped[:_DROPPED_COMPARED]:
        near = get_close_matches(text[:_COMPARED_MAX], names, n=1) if text not in names else []
        if near:
            return f"did you mean this? --without {shell_quoted(near[0])}"
    return f"as they are called there: airssys approvals {look}"


def without(asked: Sequence[Grant], dropped: Sequence[str]) -> tuple[Grant, ...] | Refusal:
    """Return what is left without the grants that are named `ACTION:PATTERN`, as `show` prints them."""
    gone = []
    for text in dropped:
        found = [grant for grant in asked if text in (f"{grant.action}:{grant.pattern_text}", grant_text(grant))]
        if not found:
            return Refusal(f"it doesn't ask for {text}")
        gone += found
    return tuple(grant for grant in asked if grant not in gone)
