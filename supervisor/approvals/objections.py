"""Why a yes doesn't count, and why an approval isn't narrowed: in words for whoever wanted it. Pure."""

from __future__ import annotations

from typing import Final

from supervisor.approvals.narrowing import why_wider
from supervisor.approvals.request import Narrowed, Request, Voted, least
from supervisor.approvals.subject import grant_terms

ROOT: Final = 0
NO_VOTE_OF_ROOT: Final = "root administers, and has no vote"
REASON_MAX_CHARS: Final = 500
SEEN_LEAST: Final = 8
"""How many digits of the digest that was reviewed have to be named."""
LIFETIME_MAX_S: Final = 2**31 - 1
"""How long an approval may hold: longer than anybody reviews for, and its end is still a time that can be written."""
_TOO_LONG: Final = f"a reason has at most {REASON_MAX_CHARS} characters"
_TOO_FAR: Final = f"an approval holds for {LIFETIME_MAX_S} s at most"


def why_no_vote(request: Request, vote: Voted, needs: int) -> str:
    """Return why a yes doesn't count, "" where it does."""
    if request.is_over(vote.at_s):
        return "its time is over"
    if vote.uid == ROOT:
        return NO_VOTE_OF_ROOT
    if vote.rule and needs > 1:
        return f"a rule approves nothing that takes {needs} people"
    if vote.uid is None and vote.signed is None and not vote.rule:
        return "nobody has said it"
    if any(vote.is_by_who_voted(each) for each in request.votes):
        return f"{vote.who} has said yes already, and {needs} different people are needed"
    if needs > 1 and vote.uid == request.filed.uid:
        return f"{vote.who} asked for it, and {needs} other people are needed"
    if vote.signed is not None:
        if vote.signed.subject != request.subject.key:
            return "it was signed for something else"
        if vote.at_s >= vote.signed.import_before_s:
            return "the time in which it could be imported is over"
    elif why := _why_unseen(request, vote.seen):
        return why
    if len(vote.reason) > REASON_MAX_CHARS:
        return _TOO_LONG
    if vote.lifetime_s is not None and vote.lifetime_s > LIFETIME_MAX_S:
        return _TOO_FAR
    ends_s = least(None if vote.lifetime_s is None else vote.at_s + vote.lifetime_s, vote.until_s)
    if ends_s is not None and ends_s <= vote.at_s:
        return "it would be over at once"
    if vote.granted is not None:
        return "nothing would be granted: reject it" if not vote.granted else why_wider(request.granted, vote.granted)
    return ""


def why_not_narrower(request: Request, step: Narrowed, narrowed: Request) -> str:
    """Return why nothing is taken away, "" where it is."""
    if request.is_over(step.at_s):
        return "its time is over"
    if why := _why_unseen(request, step.seen):
        return why
    if len(step.reason) > REASON_MAX_CHARS:
        return _TOO_LONG
    if step.until_s is not None and step.until_s - step.at_s > LIFETIME_MAX_S:
        return _TOO_FAR
    if not narrowed.granted or narrowed.is_over(step.at_s):
        return "nothing would be left of it: revoke it"
    if why := why_wider(request.granted, narrowed.granted):
        return why
    if grant_terms(narrowed.granted) == grant_terms(request.granted) and narrowed.ends_s == request.ends_s:
        return "nothing would be taken away"
    return ""


def _why_unseen(request: Request, seen: str) -> str:
    """Return why that isn't what it is now, "" where it is."""
    if len(seen) < SEEN_LEAST or not request.review.startswith(seen):
        return f"it isn't what was reviewed ({seen[:12]}): it is {request.review[:12]} now"
    return ""
