"""Where one component's change of versions is, what is known of the version that its name means, and how that reads."""

from __future__ import annotations

from typing import Protocol

from ipc.audit.event import AuditEvent
from ipc.struct import Struct
from supervisor.fleet.change_over import Phase
from supervisor.fleet.last_healthy import FailedVersion, failed_words
from supervisor.fleet.lifecycle import ENDS
from supervisor.fleet.member import Member
from supervisor.fleet.preparing import Failed, Prepared, Preparing, Refused, Waits


class Change(Struct):
    """One component's change of versions: where it is, and what is known of the version that its name means."""

    name: str
    phase: Phase = Phase.SETTLED
    version: str = ""
    package: str = ""
    reason: str = ""
    hint: str = ""
    approval: int = 0
    """The request that is waited for, 0 for none."""
    subject: str = ""
    """What that request is about: its newest counts."""
    grant_asked: bool = False
    again: bool = False
    """Also the version that runs, or one that has failed, is to be started anew."""
    look_afterwards: bool = False
    returns_to: str = ""
    """The package that was healthy last, where it is to be started in the place of one that fails from the start."""
    returned_from: FailedVersion | None = None
    """That one, once it has taken its place."""
    job: Preparing | None = None
    prepared: Prepared | None = None
    candidate: Member | None = None
    former: Member | None = None
    finish_by_ns: int = 0

    def note(self, why: Waits | Refused | Failed, approval: int = 0, subject: str = "") -> None:
        """Take down what is said of it, and which request that is about."""
        self.reason, self.hint, self.approval, self.subject = why.message, why.hint, approval, subject

    def begin_anew(self) -> None:
        """Forget what was said of another version, and what was wanted of this one: it is being done."""
        self.version = self.package = ""
        self.note(Failed("", ""))
        if not self.returns_to:
            self.returned_from = None
        self.returns_to = ""
        self.again = self.grant_asked = False

    def drop(self) -> Member | None:
        """Let go of what was begun; return who was being tried out, and is to be ended."""
        if self.job is not None:
            self.job.cancel()
        if self.prepared is not None:
            self.prepared.let_go()
        candidate = self.candidate
        self.job = self.prepared = self.candidate = None
        return candidate

    def record(self, name: str, decision: str) -> AuditEvent:
        """Return the event that tells what has become of the version that its name means."""
        return AuditEvent(
            name,
            component=self.name,
            resource=self.version,
            decision=decision,
            reason=self.reason,
            approval=f"approval {self.approval}" if self.approval else "",
            detail={"version": self.version, "package": self.package},
        )

    def words(self, member: Member) -> str:
        """Say what is going on, for `status`; "" where nothing is. `member` is what has the component's name."""
        runs = f"{member.plan.words} {member.phase}" if member.phase in ENDS else f"runs {member.plan.words}"
        match self.phase:
            case Phase.SETTLED:
                return ""
            case Phase.FAILED:
                return failed_words(self.name, runs, member.plan.version, self.version, self.reason)
            case Phase.AWAITING:
                return f"{runs}; {self.version} awaits approval: airssys approvals show {self.approval}"
            case Phase.REFUSED:
                return f"{runs}; {self.version} isn't approved: {self.reason}"
            case Phase.HANDING_OVER:
                return "the version before it finishes what it was given"
            case _:
                return f"{runs}; {self.version or 'another version'}: {self.phase}"


class Audience(Protocol):
    """Who looks on."""

    def changed(self, change: Change, runs: Member) -> None:
        """A change is in another phase; `runs` is what has the component's name."""


class Watcher(Audience, Protocol):
    """Who waits for a change: in one of `RESTS` nothing more comes by itself."""

    def given_up(self, why: str) -> None:
        """Nothing more comes at all."""
