"""Getting another version started than people said yes to: each attack with its honest twin."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from approvals_to_test import ALICE, ASKER, BOB, CAROL, CONNECT, READ, START_S, facts, hold, subject

from ipc.audit.event import AuditEvent
from supervisor.approvals.asking import Approved, Question, decide_by_approval
from supervisor.approvals.errors import AwaitingApprovalError
from supervisor.approvals.machine import State
from supervisor.approvals.request import Request, Voted
from supervisor.approvals.rules import Needed
from supervisor.approvals.store import ApprovalStore
from supervisor.config.settings import Settings
from supervisor.config.settings_files import default_directories
from supervisor.control.messages import Role, TakeVersion, may_ask
from supervisor.fleet.last_healthy import FailedVersion, LastHealthy, LastHealthyFiles
from supervisor.manifest import Variables

OWN = Variables("/c", "/d", "/t")
OLD, NEW, NEWER = "0a" * 32, "0b" * 32, "0c" * 32


class Versions:
    """The approvals of one component's versions, and a clock that is set."""

    def __init__(self, directory: Path) -> None:
        """Begin with nothing."""
        self.now_s = START_S
        self.asks = (READ,)
        self.settings = Settings(default_directories({}, 1000))
        self.records: list[AuditEvent] = []
        (directory / "audit").mkdir()
        self.store = ApprovalStore(
            str(directory), str(directory / "audit"), self.records.append, clock_s=lambda: self.now_s
        )

    def start(self, package: str, *standing: str) -> Approved:
        """Start a version, as far as approvals go; `standing` are those that failed in its place."""
        question = Question(subject(*self.asks, package=package), Needed(2), facts())
        return decide_by_approval(
            self.store, question, self.settings, "", ASKER, OWN, hold, standing=frozenset(standing)
        )

    def approve(self, package: str, lifetime_s: int | None = None, once: bool = False) -> Request:
        """Have two people approve a version."""
        with pytest.raises(AwaitingApprovalError) as waits:
            self.start(package)
        self.now_s += 1
        with self.store.open() as ledger:
            request = ledger.request(waits.value.request.number)
            for uid in (ALICE, BOB):
                assert request is not None
                voted = ledger.take(request, Voted(self.now_s, uid, request.review, 2, None, lifetime_s, once=once))
                assert isinstance(voted, Request)
                request = voted
            assert request is not None
            request = ledger.settled(request)
        assert request.state is State.APPROVED
        return request


@pytest.fixture
def versions(tmp_path: Path) -> Versions:
    """A component with two versions: the old one approved, then the new one in its place."""
    found = Versions(tmp_path)
    found.approve(OLD)
    assert found.start(OLD).approval == "approval 1"
    found.approve(NEW)
    return found


def test_a_downgrade_is_not_what_failed_in_its_place(versions: Versions) -> None:
    """A superseded approval starts nothing, unless what superseded it is what failed."""
    assert versions.start(OLD, NEW).approval == "approval 1"
    for standing in ((), (NEWER,), (OLD,)):
        with pytest.raises(AwaitingApprovalError, match="request 3"):
            versions.start(OLD, *standing)
    with versions.store.open() as ledger:
        assert ledger.request(1).state is State.SUPERSEDED
    with pytest.raises(AwaitingApprovalError, match="request 3"):  # it was asked anew: that is what counts
        versions.start(OLD, NEW)


def test_the_approval_of_what_was_healthy_stands_when_its_successor_fails(versions: Versions) -> None:
    """It is the same approval, with what it granted, and nobody is asked again."""
    approved = versions.start(OLD, NEW)
    assert (approved.approval, [grant.action for grant in approved.grants]) == ("approval 1", ["filesystem.read"])
    assert versions.start(NEW).approval == "approval 2", "what is approved starts"
    versions.approve(NEWER)
    assert versions.start(NEW, NEWER).approval == "approval 2"


def test_what_another_version_has_replaced_since_does_not_stand(versions: Versions) -> None:
    """One failed in its place once, another one took it for good, and then the first fails again: that one stands."""
    versions.approve(NEWER)
    versions.approve(NEW)
    with pytest.raises(AwaitingApprovalError, match="request 5"):
        versions.start(OLD, NEW)
    assert versions.start(NEWER, NEW).approval == "approval 3"


def test_what_less_of_the_same_version_has_replaced_does_not_stand(versions: Versions) -> None:
    """The other version failed, and then people said yes to less of this one."""
    versions.asks = (READ, CONNECT)
    with pytest.raises(AwaitingApprovalError):
        versions.start(OLD, NEW)
    versions.approve(OLD)
    versions.approve(NEW)
    assert versions.start(OLD, NEW).approval == "approval 3", "while all of it is what counts"
    versions.asks = (READ,)
    versions.approve(OLD)
    assert versions.start(OLD, NEW).approval == "approval 5"
    versions.asks = (READ, CONNECT)
    for standing in ((NEW,), (NEW, OLD)):  # also where this one has failed itself, in a third one's place
        with pytest.raises(AwaitingApprovalError, match="request 6"):
            versions.start(OLD, *standing)


def test_a_version_that_failed_has_not_failed_in_its_own_place(versions: Versions) -> None:
    """People said yes to less of it: that it failed brings no more of it back, as a failure of another one would."""
    versions.asks = (READ, CONNECT)
    versions.approve(NEW)
    versions.asks = (READ,)
    assert versions.approve(OLD).number == 4
    versions.asks = (READ, CONNECT)
    assert versions.start(NEW, OLD).approval == "approval 3", "another one has failed"
    versions.asks = (READ,)
    with pytest.raises(AwaitingApprovalError):
        versions.start(NEW)
    versions.approve(NEW)
    versions.asks = (READ, CONNECT)
    with pytest.raises(AwaitingApprovalError):
        versions.start(NEW, OLD, NEW)


@pytest.mark.parametrize("how", ["expired", "once", "stricter"])
def test_what_would_not_count_any_more_does_not_stand(tmp_path: Path, how: str) -> None:
    """Its time is over, it was for one start, or today's rules take more people."""
    versions = Versions(tmp_path)
    versions.approve(OLD, lifetime_s=60, once=how == "once")
    versions.approve(NEW)
    if how == "expired":
        assert versions.start(OLD, NEW).approval == "approval 1"
        versions.now_s += 100
    needed = Needed(3 if how == "stricter" else 2)
    question = Question(subject(READ, package=OLD), needed, facts())
    with pytest.raises(AwaitingApprovalError):
        decide_by_approval(versions.store, question, versions.settings, "", CAROL, OWN, hold, standing=frozenset({NEW}))


def test_what_was_healthy_is_nobodys_to_write_down(tmp_path: Path) -> None:
    """Edited, or another component's, it chooses no version; as it was written it does."""
    files = LastHealthyFiles(str(tmp_path))
    files.note_success("one", "1.0.0", OLD)
    files.note_failure("one", FailedVersion("1.1.0", NEW, "it trapped", 7))
    path = tmp_path / "versions" / "one.json"
    document = json.loads(path.read_text())
    for key, value in (("package", NEWER), ("failed", [])):
        path.write_text(json.dumps({**document, "last_healthy": {**document["last_healthy"], key: value}}))
        assert files.read("one") == LastHealthy()
    path.write_text(json.dumps(document))
    assert files.read("one").instead_of(NEW, (OLD, NEW)) == OLD


def test_who_only_looks_or_calls_changes_no_version() -> None:
    """On the control socket that takes an admin."""
    assert not any(may_ask(role, TakeVersion) for role in (Role.NOBODY, Role.VIEWER, Role.OPERATOR))
    assert may_ask(Role.ADMIN, TakeVersion)
