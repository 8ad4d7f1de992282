"""The steps that change a request: each is checked, and then is one event of the table. Pure."""

from __future__ import annotations

from ipc.struct import replace
from supervisor.approvals.machine import FINAL, Event, Refusal, State, advance
from supervisor.approvals.objections import why_no_vote, why_not_narrower
from supervisor.approvals.request import (
    Carried,
    Filed,
    Lapsed,
    Narrowed,
    Rejected,
    Request,
    Revoked,
    Step,
    Superseded,
    Told,
    Used,
    Voted,
    Withdrawn,
    least,
)


def file_request(number: int, filed: Filed) -> Request:
    """Return a request as it begins."""
    return Request(number, filed, State.REQUESTED, filed.subject.asked, max(1, filed.needs), filed.at_s)


def due_step(request: Request, now_s: int) -> Step | None:
    """Return what time alone makes of a request by now; None for nothing."""
    if request.state in FINAL:
        return None
    if request.is_over(now_s):
        return Lapsed(now_s)
    if request.state is State.PENDING and _is_carried(request, now_s):
        return Carried(now_s)
    return None


def take(request: Request, step: Step) -> Request | Refusal:
    """Return the request after a step, or why it isn't taken: then nothing changes."""
    if step.at_s < request.latest_s:
        return Refusal("the clock was set back: it is earlier than the step before")
    match step:
        case Told():
            return _moved(request, step, Event.TOLD)
        case Voted():
            return _vote(request, step)
        case Carried():
            if not _is_carried(request, step.at_s):
                return Refusal("it isn't approved by enough people, or its review time isn't over")
            return _approved(request, step)
        case Rejected():
            return _moved(request, step, Event.REJECTED)
        case Lapsed():
            if request.due_s is None or step.at_s < request.due_s:
                return Refusal("its time isn't over")
            return _moved(request, step, Event.LAPSED)
        case Withdrawn():
            if step.uid != request.filed.uid:
                return Refusal("only who asked withdraws it")
            return _moved(request, step, Event.WITHDRAWN)
        case Revoked():
            if request.state is State.EXPIRED and not isinstance(request.ending, Used):
                return Refusal("its time is over, and nothing runs by it")
            return _moved(request, step, Event.REVOKED)
        case Narrowed():
            return _narrow(request, step)
        case Superseded():
            return _moved(request, step, Event.SUPERSEDED)
        case Used():
            if request.is_over(step.at_s):
                return Refusal("its time is over")
            return _moved(request, step, Event.SPENT if request.once else Event.USED)


def _is_carried(request: Request, at_s: int) -> bool:
    return request.counting >= request.needs and at_s >= request.opens_s


def _moved(request: Request, step: Step, event: Event) -> Request | Refusal:
    state = advance(request.state, event)
    if isinstance(state, Refusal):
        return state
    return replace(request, state=state, latest_s=step.at_s, ending=step if state in FINAL else None)


def _approved(request: Request, step: Step) -> Request | Refusal:
    moved = _moved(request, step, Event.CARRIED)
    return moved if isinstance(moved, Refusal) else replace(moved, approved_s=step.at_s)


def _vote(request: Request, vote: Voted) -> Request | Refusal:
    state = advance(request.state, Event.VOTED)
    if isinstance(state, Refusal):
        return state
    needs = max(request.needs, vote.needs)
    why = why_no_vote(request, vote, needs)
    if why:
        return Refusal(why)
    counted = replace(
        request,
        votes=(*request.votes, vote),
        granted=request.granted if vote.granted is None else vote.granted,
        needs=needs,
        lifetime_s=least(request.lifetime_s, vote.lifetime_s),
        until_s=least(request.until_s, vote.until_s),
        once=request.once or vote.once,
    )
    if _is_carried(counted, vote.at_s):
        return _approved(counted, vote)
    return _moved(counted, vote, Event.VOTED)


def _narrow(request: Request, step: Narrowed) -> Request | Refusal:
    moved = _moved(request, step, Event.NARROWED)
    if isinstance(moved, Refusal):
        return moved
    granted = request.granted if step.granted is None else step.granted
    narrowed = replace(
        moved,
        granted=granted,
        until_s=least(request.until_s, step.until_s),
        narrowings=(*request.narrowings, step),
    )
    why = why_not_narrower(request, step, narrowed)
    return Refusal(why) if why else narrowed
