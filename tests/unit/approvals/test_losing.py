"""Who runs by an approval, and what they lose: by what it is now, whoever has changed it."""

from __future__ import annotations

import pytest
from approvals_to_test import ALICE, BOB, CONNECT, READ, approved, filed, subject, taken, vote

from ipc.policy.capability import Grant
from supervisor.approvals.losing import EndedInstance, Outcome, loss_of, standing_of, told_of
from supervisor.approvals.reliance import FOREVER_NS, Reliance
from supervisor.approvals.request import Lapsed, Narrowed, Request, Revoked, Superseded, Used
from supervisor.approvals.steps import file_request
from supervisor.approvals.subject import STAND_INS

SEND = Grant("messaging.send", "peer", "Component.toml")
LESS = Grant("filesystem.read", "/srv/logs/app/**", "Component.toml")


def _narrowed(of: Request, *granted: Grant, until_s: int | None = None) -> Request:
    return taken(of, Narrowed(of.latest_s + 1, BOB, of.review, granted or None, until_s))


def _other(number: int, *grants: Grant, package: str = "ab" * 32) -> Request:
    one = file_request(number, filed(subject(*grants, package=package)))
    after = taken(one, vote(one, ALICE))
    return taken(after, vote(after, BOB))


def _superseded(of: Request, by: int) -> Request:
    return taken(of, Superseded(of.latest_s + 1, by))


def _loss(request: Request, *others: Request, held: tuple[Grant, ...] = (READ, CONNECT), now_s: int | None = None):
    known = {each.number: each for each in (request, *others)}
    latest_s = max(each.latest_s for each in known.values())
    standing = standing_of(request, known.get, latest_s if now_s is None else now_s)
    return loss_of(request.number, held, standing)


def test_what_holds_takes_nothing() -> None:
    """Nor does what was used up by its one start, nor what another version has superseded."""
    one = approved()
    assert _loss(one) is None
    once = approved(once=True)
    assert _loss(taken(once, Used(once.latest_s, ALICE))) is None
    assert _loss(_superseded(one, 2), _other(2, READ, package="cd" * 32)) is None


def test_what_was_taken_back_ends_all() -> None:
    """Revoked, lapsed, or over by the time that is seen; or not there at all."""
    one = approved(lifetime_s=100)
    for loss in (
        _loss(taken(one, Revoked(one.latest_s, BOB))),
        _loss(taken(one, Lapsed(one.latest_s + 100))),
        _loss(one, now_s=one.latest_s + 100),
        loss_of(1, (READ,), standing_of(None, {}.get, 0)),
    ):
        assert loss is not None
        assert (loss.ends, loss.left) == (True, ())
    assert _loss(one, now_s=one.latest_s + 99) is None
    once = approved(lifetime_s=100, once=True)
    spent = taken(once, Used(once.latest_s, ALICE))
    assert _loss(spent, now_s=once.latest_s + 100) is not None, "for one start, and for so long"
    replaced = _superseded(approved(lifetime_s=100), 2)
    assert _loss(replaced, _other(2, READ, package="cd" * 32), now_s=replaced.latest_s + 100) is not None


@pytest.mark.parametrize(("gone", "ends"), [(CONNECT, True), (READ, True), (SEND, False)])
def test_what_was_narrowed_ends_who_held_what_can_not_be_taken_back(gone: Grant, ends: bool) -> None:
    """A file or the network; a message is refused at the next check. Who never had it loses nothing."""
    everything = (READ, CONNECT, SEND)
    one = _other(1, *everything)
    rest = tuple(grant for grant in everything if grant != gone)
    narrowed = _narrowed(one, *rest)
    loss = _loss(narrowed, held=everything)
    assert loss is not None
    assert (loss.gone, loss.left, loss.ends) == ((gone,), rest, ends)
    assert "approval 1 was narrowed" in loss.why
    assert _loss(narrowed, held=rest) is None


def test_a_pattern_that_was_tightened_is_lost() -> None:
    """What is left is the tighter one."""
    loss = _loss(_narrowed(approved(), LESS, CONNECT))
    assert loss is not None
    assert (loss.gone, set(loss.left), loss.ends) == ((READ,), {LESS, CONNECT}, True)


def test_time_that_was_taken_away_is_known() -> None:
    """It takes no grant before it comes."""
    one = approved()
    narrowed = _narrowed(one, until_s=one.latest_s + 50)
    assert standing_of(narrowed, {}.get, narrowed.latest_s).ends_s == one.latest_s + 50
    assert _loss(narrowed) is None
    assert _loss(narrowed, now_s=one.latest_s + 50) is not None


def test_another_set_of_the_same_package_counts_in_its_place() -> None:
    """Also behind another version; what is in both goes on, and what becomes of that one counts."""
    same, less = _other(2, READ, CONNECT, SEND), _other(3, CONNECT)
    assert _loss(_superseded(approved(), 2), same) is None
    loss = _loss(_superseded(approved(), 3), less)
    assert loss is not None
    assert loss.gone == (READ,)
    other = _superseded(_other(2, READ, package="cd" * 32), 3)
    loss = _loss(_superseded(approved(), 2), other, less)
    assert loss is not None
    assert "approval 3, in the place of approval 1, gives less" in loss.why
    assert _loss(_superseded(approved(), 3), taken(less, Revoked(less.latest_s, BOB))) is not None


def test_a_circle_of_requests_has_an_end() -> None:
    """Nothing makes one; who reads them doesn't wait for ever all the same."""
    assert _loss(_superseded(approved(), 2), _superseded(_other(2, READ, CONNECT), 1)) is None


def test_what_is_told_adds_up() -> None:
    """By grant: how many have ended for it, with how many files, or that this isn't known, or who is left."""
    name = f"{READ.action}:{READ.pattern_text}"
    some = [EndedInstance((READ,), {name: 2}), EndedInstance((READ, SEND), {})]
    (read, connect) = told_of((READ, CONNECT, SEND), some)
    assert (read["action"], read["ended"], read["open_files"], read["left"]) == ("filesystem.read", 2, 2, 0)
    assert (connect["action"], connect["ended"], connect["open_files"]) == ("network.connect", 0, 0)
    (unknown,) = told_of((), [*some, EndedInstance((READ,), None), EndedInstance((READ,), None, has_ended=False)])
    assert (unknown["ended"], unknown["open_files"], unknown["left"]) == (3, None, 1)
    assert Outcome().to_json() == {}
    both = Outcome(tuple(some), ("a",), runs=(7,)).joined(Outcome(narrowed=("b",), left=(0,)))
    assert {**both.to_json(), "revoked": []} == {
        "revoked": [],
        "ended_components": ["a"],
        "narrowed_components": ["b"],
        "ended_runs": [7],
        "left_runs": [0],
    }


def test_a_clock_that_is_set_back_gives_no_time() -> None:
    """Whichever clock is further counts; without an end there is none."""
    by = Reliance(1, (), STAND_INS, until_s=1000, until_boot_ns=50 * 10**9)
    assert by.left_ns(900, 0) == 50 * 10**9
    assert by.left_ns(990, 0) == 10 * 10**9, "set forward"
    assert by.left_ns(1, 50 * 10**9) == 0, "set back"
    assert by.left_ns(1000, 0) == 0
    assert Reliance(1, (), STAND_INS).left_ns(1e12, 10**18) == FOREVER_NS
