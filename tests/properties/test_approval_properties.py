"""The life of a request against an oracle that knows no table: it keeps what was said, and asks the rules in words."""

from __future__ import annotations

from collections.abc import Sequence

from approvals_to_test import START_S, filed, subject
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ipc.policy.capability import Grant
from supervisor.approvals.machine import FINAL, Refusal, State
from supervisor.approvals.request import (
    Narrowed,
    Rejected,
    Request,
    Revoked,
    Signed,
    Step,
    Superseded,
    Told,
    Used,
    Voted,
    Withdrawn,
)
from supervisor.approvals.steps import due_step, file_request, take

FILES = frozenset(range(4))
PEOPLE = (0, 1000, 1001, 1002, 1003)
ASKER = 1000
SIGNERS = {-1: ("SHA256:a", "a", None), -2: ("SHA256:b", "b", None), 1001: ("SHA256:c", "c", 1001)}
"""Whom the oracle calls so → the key, whose it is, and which user that is."""

people = st.sampled_from(PEOPLE)
subsets = st.none() | st.frozensets(st.sampled_from([*sorted(FILES), 4]))


def grants(files: Sequence[int] | frozenset[int]) -> tuple[Grant, ...]:
    """Return the grants that a set of numbers stands for."""
    return tuple(Grant("filesystem.read", f"/srv/{number}", "") for number in sorted(files))


class Said:
    """What was said of a request that was taken, and what follows from it by the rules in words."""

    def __init__(self, needs: int, review_s: int, expires_s: int) -> None:
        """Begin with nothing said."""
        self.needs, self.opens_s, self.waits_until_s = needs, START_S + review_s, START_S + expires_s
        self.yes: list[int] = []
        self.files = FILES
        self.lifetimes: list[int] = []
        self.until_s: list[int] = []
        self.once = False
        self.approved_s: int | None = None
        self.ended = ""
        self.may_run = False
        """Whether something that it has started may still run, though it is over."""

    @property
    def waits(self) -> bool:
        """Whether it waits for an answer."""
        return not self.ended and self.approved_s is None

    @property
    def holds(self) -> bool:
        """Whether it is approved now."""
        return not self.ended and self.approved_s is not None

    def is_over(self, now_s: int) -> bool:
        """Whether its time is over."""
        if any(now_s >= each for each in self.until_s):
            return True
        if self.approved_s is None:
            return now_s >= self.waits_until_s
        return bool(self.lifetimes) and now_s >= self.approved_s + min(self.lifetimes)

    @property
    def ends(self) -> list[int]:
        """When what is approved is over, each of which counts."""
        lifetimes = [] if self.approved_s is None else [self.approved_s + each for each in self.lifetimes]
        return [*self.until_s, *lifetimes]

    def has_enough(self, needs: int, voters: Sequence[int]) -> bool:
        """Whether enough different people have said yes, of those who count."""
        return len({each for each in voters if each != 0 and (needs < 2 or each != ASKER)}) >= needs

    def counts(self, uid: int, needs: int) -> bool:
        """Whether somebody's yes is taken."""
        return uid != 0 and uid not in self.yes and not (max(needs, self.needs) > 1 and uid == ASKER)


class RequestMachine(RuleBasedStateMachine):
    """Steps of anybody, in any order, at any time."""

    request: Request

    @initialize(
        needs=st.integers(1, 3),
        review_s=st.sampled_from([0, 50]),
        expires_s=st.sampled_from([60, 500]),
    )
    def is_filed(self, needs: int, review_s: int, expires_s: int) -> None:
        """Somebody asks for four files."""
        about = subject(*grants(FILES))
        self.request = file_request(1, filed(about, uid=ASKER, needs=needs, review_s=review_s, expires_s=expires_s))
        self.said = Said(needs, review_s, expires_s)
        self.now_s = START_S

    def take(self, step: Step) -> bool:
        """Take a step; whether it was taken. One that isn't changes nothing."""
        after = take(self.request, step)
        if isinstance(after, Refusal):
            assert after.reason
            return False
        if self.request.state in FINAL:
            assert isinstance(step, Revoked), "something led out of a final state"
        self.request = after
        return True

    @rule(seconds=st.sampled_from([1, 10, 49, 50, 100, 1000]))
    def time_passes(self, seconds: int) -> None:
        """And somebody looks."""
        self.now_s += seconds
        said = self.said
        step = due_step(self.request, self.now_s)
        if not said.ended and said.is_over(self.now_s):
            said.ended = "expired"
        elif said.waits and said.yes and said.has_enough(said.needs, said.yes) and self.now_s >= said.opens_s:
            said.approved_s = self.now_s
        else:
            assert step is None
            return
        assert step is not None
        assert self.take(step)

    @rule(uid=st.sampled_from(PEOPLE[1:]), needs=st.integers(1, 2), lifetime_s=st.none() | st.sampled_from([5, 200]))
    def says_yes_to_what_is_there(self, uid: int, needs: int, lifetime_s: int | None) -> None:
        """Somebody approves as most people do: what they were shown, as it is."""
        self.says_yes(uid, None, True, needs, lifetime_s, False)

    @rule(
        uid=people,
        files=subsets,
        reviewed=st.sampled_from([True, True, True, False]),
        needs=st.integers(1, 3),
        lifetime_s=st.none() | st.sampled_from([5, 200]),
        once=st.booleans(),
    )
    def anybody_says_yes(
        self, uid: int, files: frozenset[int] | None, reviewed: bool, needs: int, lifetime_s: int | None, once: bool
    ) -> None:
        """Somebody approves what is there, or less, or more."""
        self.says_yes(uid, files, reviewed, needs, lifetime_s, once)

    def says_yes(
        self, uid: int, files: frozenset[int] | None, reviewed: bool, needs: int, lifetime_s: int | None, once: bool
    ) -> None:
        """Have somebody say yes; it is taken where the rules in words say so."""
        said = self.said
        wanted = said.files if files is None else files
        expected = (
            said.waits
            and not said.is_over(self.now_s)
            and reviewed
            and said.counts(uid, needs)
            and bool(wanted)
            and wanted <= said.files
        )
        seen = self.request.review if reviewed else "0" * 64
        narrowed = None if files is None else grants(files)
        assert self.take(Voted(self.now_s, uid, seen, needs, narrowed, lifetime_s, once)) is expected
        if expected:
            said.yes.append(uid)
            said.needs = max(said.needs, needs)
            said.files = wanted
            said.lifetimes += [] if lifetime_s is None else [lifetime_s]
            said.once |= once
            if said.has_enough(said.needs, said.yes) and self.now_s >= said.opens_s:
                said.approved_s = self.now_s

    @rule(
        signer=st.sampled_from(sorted(SIGNERS)),
        is_for_this=st.sampled_from([True, True, True, False]),
        needs=st.integers(1, 3),
        import_s=st.sampled_from([0, 1, 1000]),
        until_s=st.none() | st.sampled_from([0, 5, 200]),
    )
    def says_yes_by_a_key(self, signer: int, is_for_this: bool, needs: int, import_s: int, until_s: int | None) -> None:
        """Somebody approves what is there by a signature that is brought."""
        said, now_s = self.said, self.now_s
        key, identity, uid = SIGNERS[signer]
        about = self.request.subject.key if is_for_this else "0" * 64
        ends_s = None if until_s is None else now_s + until_s
        expected = (
            said.waits
            and not said.is_over(now_s)
            and is_for_this
            and said.counts(signer, needs)
            and import_s > 0
            and until_s != 0
        )
        signed = Signed(key, identity, about, "id", now_s + import_s, ASKER)
        assert self.take(Voted(now_s, uid, "", needs, until_s=ends_s, signed=signed)) is expected
        if expected:
            said.yes.append(signer)
            said.needs = max(said.needs, needs)
            said.until_s += [] if ends_s is None else [ends_s]
            if said.has_enough(said.needs, said.yes) and now_s >= said.opens_s:
                said.approved_s = now_s

    @rule(uid=people)
    def says_no(self, uid: int) -> None:
        """Somebody rejects it."""
        expected = self.said.waits
        assert self.take(Rejected(self.now_s, uid)) is expected
        self.said.ended = "rejected" if expected else self.said.ended

    @rule(uid=people)
    def takes_it_back(self, uid: int) -> None:
        """Somebody revokes it."""
        expected = self.said.holds or self.said.may_run
        assert self.take(Revoked(self.now_s, uid)) is expected
        self.said.may_run = False
        self.said.ended = "revoked" if expected else self.said.ended

    @rule(
        uid=people,
        files=subsets,
        reviewed=st.sampled_from([True, True, True, False]),
        until_s=st.none() | st.sampled_from([0, 5, 200]),
    )
    def takes_a_part_back(self, uid: int, files: frozenset[int] | None, reviewed: bool, until_s: int | None) -> None:
        """Somebody narrows it: never to more, nor to nothing, and only what they have seen."""
        said, now_s = self.said, self.now_s
        wanted = said.files if files is None else files
        ends_s = None if until_s is None else now_s + until_s
        is_sooner = ends_s is not None and all(ends_s < each for each in said.ends)
        expected = (
            said.holds
            and not said.is_over(now_s)
            and reviewed
            and bool(wanted)
            and wanted <= said.files
            and until_s != 0
            and (wanted != said.files or is_sooner)
        )
        seen = self.request.review if reviewed else "0" * 64
        narrowed = None if files is None else grants(files)
        before = self.request.review
        assert self.take(Narrowed(now_s, uid, seen, narrowed, ends_s)) is expected
        if expected:
            said.files = wanted
            said.until_s += [] if ends_s is None else [ends_s]
            assert self.request.review != before, "who has seen what it was hasn't seen what it is"

    @rule(uid=people)
    def asks_for_something_else(self, uid: int) -> None:
        """Somebody withdraws it."""
        expected = self.said.waits and uid == ASKER
        assert self.take(Withdrawn(self.now_s, uid, 2)) is expected
        self.said.ended = "withdrawn" if expected else self.said.ended

    @rule()
    def another_is_approved(self) -> None:
        """It is superseded."""
        expected = self.said.holds
        assert self.take(Superseded(self.now_s, 2)) is expected
        self.said.may_run |= expected
        self.said.ended = "superseded" if expected else self.said.ended

    @rule()
    def is_told(self) -> None:
        """The reviewers are told."""
        assert self.take(Told(self.now_s)) is self.said.waits

    @rule()
    def is_used(self) -> None:
        """A start relies on it."""
        said = self.said
        expected = said.holds and not said.is_over(self.now_s)
        assert self.take(Used(self.now_s, ASKER)) is expected
        if expected and said.once:
            said.ended, said.may_run = "expired", True

    @rule(back_s=st.integers(1, 10**6))
    def the_clock_is_set_back(self, back_s: int) -> None:
        """Nothing is taken then."""
        assert not self.take(Rejected(self.request.latest_s - back_s, ASKER))

    @invariant()
    def they_agree(self) -> None:
        """On the state, and on what is granted: never more than was asked, never by fewer than it takes."""
        said, request = self.said, self.request
        assert (request.state is State.APPROVED) is said.holds
        assert (request.state in FINAL) is bool(said.ended)
        if said.ended:
            assert request.state == said.ended
        assert request.granted == grants(said.files)
        if request.state is State.APPROVED:
            keys = {key: name for name, (key, _, _) in SIGNERS.items()}
            voters = {keys[vote.signed.key] if vote.signed else vote.uid or 0 for vote in request.votes}
            assert said.has_enough(request.needs, sorted(voters))
            assert 0 not in voters


TestRequest = RequestMachine.TestCase
TestRequest.settings = settings(max_examples=150, stateful_step_count=25, deadline=None)
