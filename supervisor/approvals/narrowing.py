"""Less than was asked: what is left out or tightened, with the proof that nothing is in it that wasn't asked for. Pure.

What isn't proven (`ipc.policy.inclusion`) to be included counts as wider, and is refused by its name.
"""

from __future__ import annotations

from collections.abc import Sequence

from ipc.policy.capability import Grant
from ipc.policy.inclusion import Coverage
from supervisor.approvals.machine import Refusal
from supervisor.approvals.subject import grant_text, placed


def why_wider(asked: Sequence[Grant], narrowed: Sequence[Grant]) -> str:
    """Return which grant isn't included in what was asked, "" where all are. Grants name `${tmp}` and `${data}`."""
    coverage = Coverage(placed(asked))
    told = {(grant.action, frozenset(grant.metadata)) for grant in asked}
    for grant, there in zip(narrowed, placed(narrowed), strict=True):
        if not coverage.covers(there):
            return f"{grant_text(grant)} is not included in what it asks for"
        # What a provider makes of metadata, of less of it too, is its own affair.
        if grant.metadata and (grant.action, frozenset(grant.metadata)) not in told:
            return f"{grant_text(grant)} is told its provider otherwise than it asks for"
    return ""


def without(asked: Sequence[Grant], dropped: Sequence[str]) -> tuple[Grant, ...] | Refusal:
    """Return what is left without the grants that are named `ACTION:PATTERN`, as `show` prints them."""
    gone = []
    for text in dropped:
        found = [grant for grant in asked if text in (f"{grant.action}:{grant.pattern_text}", grant_text(grant))]
        if not found:
            return Refusal(f"it doesn't ask for {text}")
        gone += found
    return tuple(grant for grant in asked if grant not in gone)
