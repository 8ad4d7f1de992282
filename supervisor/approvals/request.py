"""One request as a value, and the steps that change it (`supervisor.approvals.steps` takes them). Pure.

A request is nothing but what its steps made of it: what is kept are the steps, and reading them is taking them again.
Times are UTC in seconds, and never smaller than those of an earlier step (`supervisor.approvals.ledger` sees to it).
"""

from __future__ import annotations

from collections.abc import Sequence

from ipc.policy.capability import Grant
from ipc.struct import Struct, to_builtins
from supervisor.approvals.evidence import Evidence
from supervisor.approvals.machine import State
from supervisor.approvals.subject import Subject, grant_terms, hash_of


class Ask(Struct, frozen=True):
    """One thing that is asked for in words, as it was when it was asked."""

    danger: str
    action: str
    resource: str
    sentence: str
    required: bool
    rationale: str


class Facts(Struct, frozen=True):
    """What else a reviewer wants to know, as the supervisor found it when it was asked. Nothing is decided by it."""

    version: str
    directory: str
    manifest: str
    """The text of its Component.toml."""
    wasm_sha256: str
    parameters: tuple[tuple[str, str | int | bool], ...]
    asks: tuple[Ask, ...]
    rules: tuple[str, ...]
    trust: str = "unknown"
    evidence: Evidence | None = None
    """What was found out about the package; None where nobody looked."""


class Filed(Struct, frozen=True):
    """Somebody asked: the first step of each request."""

    at_s: int
    uid: int
    subject: Subject
    needs: int
    review_s: int
    expires_s: int
    facts: Facts


class Told(Struct, frozen=True):
    """The reviewers were told; `trouble` says why that failed, "" where it didn't or nobody is to be told."""

    at_s: int
    trouble: str = ""


class Signed(Struct, frozen=True):
    """A yes that was brought along, signed elsewhere (`supervisor.approvals.signed`).

    `key` is the key's fingerprint, `identity` whose key that is by this host's settings, `subject` what it was signed
    for (`Subject.key`), `id` what no other signed yes has. It counted for nothing from `import_before_s` on.
    """

    key: str
    identity: str
    subject: str
    id: str
    import_before_s: int
    brought_by: int


class Voted(Struct, frozen=True):
    """Somebody said yes to what they had seen (`seen`: how `Request.review` began, or the digest that was signed).

    `uid` is None for a signer who is nobody on this host. `granted` is the set that they approve, None for the one
    there is. `needs` are so many people by today's rules; `lifetime_s`, `until_s` and `once` limit the approval.
    """

    at_s: int
    uid: int | None
    seen: str
    needs: int
    granted: tuple[Grant, ...] | None = None
    lifetime_s: int | None = None
    once: bool = False
    reason: str = ""
    until_s: int | None = None
    signed: Signed | None = None
    rule: str = ""
    """Which rule has said it, where nobody did (`supervisor.approvals.automatic`)."""

    @property
    def who(self) -> str:
        """Return what records and reviewers call them."""
        if self.rule:
            return f"rule {self.rule}"
        return f"uid {self.uid}" if self.signed is None else f"key {self.signed.key} ({self.signed.identity})"

    def is_by_who_voted(self, other: Voted) -> bool:
        """Whether both are one person's: by user, by key, or by whose key it is."""
        if self.uid is not None and self.uid == other.uid:
            return True
        one, two = self.signed, other.signed
        return one is not None and two is not None and (one.key == two.key or one.identity == two.identity)


class Carried(Struct, frozen=True):
    """The review time is over, and enough people had said yes before."""

    at_s: int


class Rejected(Struct, frozen=True):
    """Somebody said no."""

    at_s: int
    uid: int
    reason: str = ""


class Lapsed(Struct, frozen=True):
    """Its time was over."""

    at_s: int


class Withdrawn(Struct, frozen=True):
    """Who asked has asked for something else: request `by`."""

    at_s: int
    uid: int
    by: int


class Revoked(Struct, frozen=True):
    """Somebody took it back."""

    at_s: int
    uid: int
    reason: str = ""


class Narrowed(Struct, frozen=True):
    """Somebody took a part of it back, having seen what it was (`seen`, as of Voted).

    `granted` is what is left, None for all of it; `until_s` when it is over now at the latest.
    """

    at_s: int
    uid: int
    seen: str
    granted: tuple[Grant, ...] | None = None
    until_s: int | None = None
    reason: str = ""


class Superseded(Struct, frozen=True):
    """Request `by` of the same component was approved."""

    at_s: int
    by: int


class Used(Struct, frozen=True):
    """A start relies on it."""

    at_s: int
    uid: int


Step = Told | Voted | Carried | Rejected | Lapsed | Withdrawn | Revoked | Narrowed | Superseded | Used


class Request(Struct, frozen=True):
    """Where it stands. `granted` is what a further yes would grant, or what is granted: never more than was asked."""

    number: int
    filed: Filed
    state: State
    granted: tuple[Grant, ...]
    needs: int
    latest_s: int
    votes: tuple[Voted, ...] = ()
    lifetime_s: int | None = None
    until_s: int | None = None
    """When it is over whenever it was approved; open requests, too."""
    once: bool = False
    approved_s: int | None = None
    narrowings: tuple[Narrowed, ...] = ()
    ending: Step | None = None
    """The step by which it got into a final state."""

    @property
    def subject(self) -> Subject:
        """Return what it is about."""
        return self.filed.subject

    @property
    def opens_s(self) -> int:
        """Return when it can be approved at the earliest."""
        return self.filed.at_s + self.filed.review_s

    @property
    def due_s(self) -> int | None:
        """Return when it lapses: unanswered, or approved for so long; None for never."""
        if self.state is not State.APPROVED:
            return least(self.filed.at_s + self.filed.expires_s, self.until_s)
        return self.ends_s

    @property
    def ends_s(self) -> int | None:
        """Return when what was started by it has to end, whatever has become of it since; None for never."""
        if self.lifetime_s is None or self.approved_s is None:
            return self.until_s
        return least(self.approved_s + self.lifetime_s, self.until_s)

    def is_over(self, at_s: int) -> bool:
        """Return whether it lapses by then."""
        return self.due_s is not None and at_s >= self.due_s

    @property
    def counting(self) -> int:
        """Return how many of the votes count."""
        return self.votes_for(self.needs)

    def votes_for(self, needs: int) -> int:
        """Return how many votes count where so many are needed: where others are, neither who asked nor a rule."""
        return sum(1 for vote in self.votes if needs == 1 or (vote.uid != self.filed.uid and not vote.rule))

    @property
    def narrowed(self) -> bool:
        """Whether less is granted than was asked."""
        return grant_terms(self.granted) != grant_terms(self.subject.asked)

    @property
    def review(self) -> str:
        """Return the digest of what a yes would be to now, in hexadecimal: another one where anything is different.

        It covers what a reviewer was told besides, too: nobody has approved what they were told otherwise.
        """
        terms = [self.number, self.subject.key, grant_terms(self.granted), self.needs]
        # What else they were told follows from the package's bytes, which the subject names.
        evidence = self.filed.facts.evidence
        told = [] if evidence is None else [self.filed.facts.trust, to_builtins(evidence)]
        return hash_of([*terms, self.lifetime_s, self.until_s, self.once, *told])


def latest_approved(requests: Sequence[Request]) -> Request | None:
    """Return which of several was approved last, None where none is approved: the one that counts."""
    approved = [each for each in requests if each.state is State.APPROVED]
    return max(approved, key=lambda each: (each.approved_s or 0, each.number), default=None)


def least(one: int | None, other: int | None) -> int | None:
    """Return the earlier of two times, of which each may be missing."""
    amounts = [each for each in (one, other) if each is not None]
    return min(amounts) if amounts else None
