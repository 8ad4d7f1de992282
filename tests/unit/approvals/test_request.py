"""Who approves what, for how long, and what else a step of somebody's comes to: values in, values out."""

from __future__ import annotations

import pytest
from approvals_to_test import (
    ALICE,
    ASKER,
    BOB,
    CAROL,
    CONNECT,
    READ,
    START_S,
    approved,
    refusal,
    request,
    taken,
    vote,
)

from ipc.policy.capability import Grant
from ipc.struct import replace
from supervisor.approvals.machine import Refusal, State
from supervisor.approvals.request import (
    Carried,
    Lapsed,
    Rejected,
    Revoked,
    Superseded,
    Told,
    Used,
    Withdrawn,
    latest_approved,
)
from supervisor.approvals.steps import due_step, take


def test_two_people_approve_what_takes_two() -> None:
    """One is not enough; the second carries it, and what was asked is granted."""
    one = request()
    half = taken(one, Told(START_S), vote(one, ALICE))
    assert (half.state, half.counting) == (State.PENDING, 1)
    whole = taken(half, vote(half, BOB))
    assert (whole.state, whole.granted, whole.narrowed) == (State.APPROVED, one.subject.asked, False)


def test_who_asked_may_approve_what_takes_one() -> None:
    """Where nobody else is needed there is nobody else to ask."""
    one = request(needs=1)
    assert taken(one, vote(one, ASKER)).state is State.APPROVED


def test_a_rule_that_became_stricter_counts() -> None:
    """As many are needed as by the rules of the day; who asked drops out once others are needed."""
    one = request(needs=1, review_s=3600)
    half = taken(one, vote(one, ASKER))
    assert half.counting == 1
    stricter = taken(half, vote(half, ALICE, needs=2))
    assert (stricter.state, stricter.needs, stricter.counting) == (State.PENDING, 2, 1)
    assert due_step(stricter, stricter.opens_s) is None


def test_nobody_approves_before_the_review_time_is_over() -> None:
    """Votes are taken, and carry it when the time has passed; not a second earlier."""
    one = request(review_s=3600)
    half = taken(one, vote(one, ALICE))
    both = taken(half, vote(half, BOB))
    assert both.state is State.PENDING
    assert "review time" in refusal(both, Carried(both.opens_s - 1))
    assert due_step(both, both.opens_s - 1) is None
    assert due_step(both, both.opens_s) == Carried(both.opens_s)
    assert taken(both, Carried(both.opens_s)).state is State.APPROVED


def test_narrowing_only_ever_takes_away() -> None:
    """A later yes may narrow further, and never widens again; who has seen the wider set doesn't approve the other."""
    one = request()
    half = taken(one, vote(one, ALICE, granted=(READ,)))
    assert half.granted == (READ,)
    assert "isn't what was reviewed" in refusal(half, vote(half, BOB, seen=one.review))
    assert "not included" in refusal(half, vote(half, BOB, granted=(READ, CONNECT)))
    tighter = Grant("filesystem.read", "/srv/logs/app/*.log", "reviewed.toml")
    whole = taken(half, vote(half, BOB, granted=(tighter,)))
    assert (whole.state, whole.granted, whole.narrowed) == (State.APPROVED, (tighter,), True)
    assert "reject" in refusal(one, vote(one, ALICE, granted=()))


def test_the_shortest_time_and_the_fewest_starts_count() -> None:
    """Of what the approvers say, the least: neither can undo what the other has said."""
    one = request()
    half = taken(one, vote(one, ALICE, lifetime_s=3600, once=True))
    whole = taken(half, vote(half, BOB, lifetime_s=7200))
    assert (whole.lifetime_s, whole.once) == (3600, True)


@pytest.mark.parametrize("digits", [0, 7])
def test_what_was_reviewed_has_to_be_named(digits: int) -> None:
    """Eight digits of its digest at least; the whole digest and eight digits both do."""
    one = request(needs=1)
    assert "isn't what was reviewed" in refusal(one, vote(one, ALICE, seen=one.review[:digits]))
    for enough in (8, 64):
        assert taken(one, vote(one, ALICE, seen=one.review[:enough])).state is State.APPROVED


def test_an_approval_that_is_over_is_over() -> None:
    """At its last second it is used, from then on it isn't, and time makes it final."""
    one = approved(lifetime_s=3600)
    assert one.due_s is not None
    assert taken(one, Used(one.due_s - 1, ASKER)).state is State.APPROVED
    assert "over" in refusal(one, Used(one.due_s, ASKER))
    assert due_step(one, one.due_s) == Lapsed(one.due_s)
    assert taken(one, Lapsed(one.due_s)).state is State.EXPIRED
    assert "isn't over" in refusal(one, Lapsed(one.due_s - 1))


def test_a_request_that_nobody_answers_lapses() -> None:
    """And is answered no more, although nobody looked at it meanwhile."""
    one = request()
    assert one.due_s is not None
    assert "over" in refusal(one, vote(one, ALICE, at_s=one.due_s))
    assert taken(one, Lapsed(one.due_s)).state is State.EXPIRED


def test_an_approval_without_end_has_none() -> None:
    """Time alone changes nothing of it."""
    one = approved()
    assert one.due_s is None
    assert due_step(one, START_S * 2) is None
    assert "isn't over" in refusal(one, Lapsed(START_S * 2))


def test_only_who_asked_withdraws() -> None:
    """Nobody else's new request closes it."""
    one = request()
    assert "only who asked" in refusal(one, Withdrawn(START_S, ALICE, 2))
    assert taken(one, Withdrawn(START_S, ASKER, 2)).state is State.WITHDRAWN


def test_endings_are_kept() -> None:
    """Who ended it, and why, stays with it."""
    one = request()
    no = Rejected(START_S, CAROL, "too broad")
    assert taken(one, no).ending == no
    back = Revoked(START_S + 9, CAROL, "not needed any more")
    assert taken(approved(), back).ending == back
    assert taken(approved(), Superseded(START_S + 9, 2)).state is State.SUPERSEDED


def test_a_step_is_never_earlier_than_the_one_before() -> None:
    """Whatever the clock says."""
    one = taken(request(), Told(START_S + 100))
    assert "set back" in refusal(one, Rejected(START_S + 99, CAROL))
    assert not isinstance(take(one, Rejected(START_S + 100, CAROL)), Refusal)


def test_of_several_approvals_the_last_one_counts() -> None:
    """By when they were approved, not by when they were asked."""
    first, second = approved(1), approved(2)
    later = replace(first, approved_s=(second.approved_s or 0) + 1)
    assert latest_approved([later, second]) is later
    assert latest_approved([first, second]) is second
    assert latest_approved([request()]) is None


def test_the_review_digest_follows_everything_that_a_yes_is_to() -> None:
    """Another number, package, set of capabilities, or term: another digest."""
    one = request()
    filed = one.filed
    others = [
        request(number=2),
        replace(one, filed=replace(filed, subject=replace(filed.subject, package="00" * 32))),
        replace(one, granted=(READ,)),
        replace(one, needs=3),
        replace(one, lifetime_s=60),
        replace(one, once=True),
    ]
    assert len({each.review for each in (one, *others)}) == len(others) + 1
