"""What other people take back over a control socket is taken from a fleet, and from all else that runs by it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from as_another import as_another_user
from ending import end
from hearing import until_said

from ipc.audit.event import SUPERVISOR, AuditEvent
from supervisor.approvals.request import Request, Revoked
from supervisor.approvals.store import ApprovalStore
from supervisor.audit.log import AuditLog
from supervisor.cli import approvals as _approvals  # noqa: F401 # loaded before a fork that can't read it any more

pytestmark = pytest.mark.needs_root

SETTINGS = """schema = 1
[control]
approvers = ["daemon"]
[[approvals.rules]]
when = ["filesystem.*", "storage.*"]
"""
DAEMON, NOBODY = 1, 65534
MAY = """[capabilities.storage]
read = ["k"]
write = ["k"]
"""


class Approver:
    """Somebody else, who approves by the control socket of the supervisor."""

    def __init__(self, airssys) -> None:
        """Name them in the settings."""
        self.airssys = airssys
        self.config = airssys.directory / "airssys.toml"
        self.config.write_text(SETTINGS)
        os.chmod(airssys.directory, 0o755)
        self.out = airssys.directory / "out"
        self.out.mkdir()
        (self.out / "file").write_text("text")
        for each in (self.out, self.out / "file"):
            os.chown(each, NOBODY, NOBODY)

    def says(self, *arguments: str) -> str:
        """Have them do something, which works; what it says."""
        code, said = as_another_user(DAEMON, self.airssys.state / "control.sock", ("approvals", *arguments))
        assert code == 0, said
        return said

    def review(self, number: int) -> str:
        """Return the digest of a request as it is now."""
        return str(self.airssys("approvals", "show", str(number), "--json").json()["review"])

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        """Have approvals answered for where nothing is up."""
        process = self.airssys.start("approvals", "serve", "--config", self.config)
        try:
            assert b"answering for approvals" in process.stderr.readline()
            yield
        finally:
            end(process)

    def approve(self, *numbers: int) -> None:
        """Have them approve."""
        with self.serving():
            for number in numbers:
                self.says("approve", str(number), "--yes", self.review(number))

    def start(self, holder: Path) -> subprocess.Popen[bytes]:
        """Start a run of the owner's, which holds its files when this returns."""
        process = self.airssys.start("run", holder, "-q", "--config", self.config)
        until_said(process)
        return process

    def status(self, name: str) -> dict[str, object]:
        """Return how a component is."""
        (found,) = self.airssys("status", name, "--json").json()["components"]
        return found


@pytest.fixture
def approver(airssys) -> Approver:
    """Somebody else who approves."""
    return Approver(airssys)


def _holder(component: Callable[..., Path], out: Path, name: str) -> Path:
    keeps = f'"opens", "{out}/file", "2", ",", "print", "ready", ",", "wait-stdin"'
    return component(name, "tool.wasm", f'args = [{keeps}]\n[capabilities.filesystem]\nread = ["{out}/**"]\n')


def test_narrowing_a_fleet(airssys, up, component, actor, approver: Approver, deadline) -> None:
    """Who had the file has ended, the owner's own run, too; who only wrote to the store goes on, and writes no more."""
    asks = f'[capabilities.filesystem]\nread = ["{approver.out}/**"]\nlist = ["/srv/nothing"]\n'
    waiting, one = component("waiting", "block-poll.wat", asks), actor("one", MAY)
    holder = _holder(component, approver.out, "holder")
    for each in (waiting, one):
        assert airssys("up", each, "--config", approver.config).code == 77
    assert airssys("run", holder, "--config", approver.config).code == 77
    approver.approve(1, 2, 3)
    with up(waiting, one, "--config", approver.config) as fleet, approver.start(holder) as run:
        try:
            fleet.until("waiting: running")
            fleet.until("one: running")
            assert airssys("call", "one", "-", stdin=b"pfirst").code == 0
            pid = approver.status("one")["pid"]
            said = approver.says("narrow", "2", "--without", "storage.write:k", "--yes", approver.review(2))
            assert "revoked storage.write k; refused from the next use on" in said
            assert "goes on with less: one" in said
            refused = airssys("call", "one", "-", stdin=b"psecond")
            assert (refused.code, "not-permitted" in refused.stderr) == (1, True), refused.stderr
            assert airssys("call", "one", "-", stdin=b"gk").stdout == "first", "what it may still do, it does"
            assert approver.status("one")["pid"] == pid

            instance = approver.status("waiting")["instance"]
            said = approver.says(
                *("narrow", "1", "--without", f"filesystem.read:{approver.out}/**", "--yes", approver.review(1))
            )
            assert f"revoked filesystem.read {approver.out}/**; ended 1 instance (0 open files); none" in said
            assert "ended: waiting" in said
            assert "starts anew with what is left: waiting" in said
            fleet.until("waiting: stopped (was ended: approval 1 was narrowed)")
            deadline.until(lambda: approver.status("waiting")["phase"] == "running", "it starts anew with what is left")
            assert approver.status("waiting")["instance"] != instance

            said = approver.says("revoke", "3")
            assert "ended 1 instance (2 open files); none holds it now" in said
            assert f"ended: a run (process {run.pid})" in said
            assert run.wait(0.1) == 143
            assert approver.status("one")["phase"] == "running"
            nothing = ("narrow", "2", "--without", "storage.read:k", "--yes", approver.review(2))
            assert "nothing would be left of it" in airssys("approvals", *nothing).stderr
            told = airssys("approvals", "revoke", "2", "--json").json()
            assert told["ended_components"] == ["one"], "root's own command, by whom the fleet is"
            assert "anew" not in told
        finally:
            run.kill()
        assert airssys("down").code == 0
        assert fleet.end() == 0
    records = [json.loads(line) for line in airssys("audit", "query", "--json").stdout.splitlines()]
    (denied,) = (each for each in records if each["event"] == "denied")
    (narrowed,) = (each for each in records if each["event"] == "policy_narrowed")
    assert denied["policy"] == narrowed["policy"]
    assert denied["approval"] == "approval 2"
    starts = [each for each in records if each["event"] == "worker_starting" and each["component"] == "waiting"]
    assert [each["approval"] for each in starts] == ["approval 1"] * 2
    assert starts[0]["policy"] != starts[1]["policy"], "with less"


def _revoke_behind_its_back(airssys, number: int) -> None:
    """Take a step as a process does that is killed before it has told anybody."""

    def record(event: AuditEvent) -> None:
        log = AuditLog(str(airssys.state / "audit"))
        log.append([(event.within_bounds(), SUPERVISOR)])
        log.close()

    with ApprovalStore(str(airssys.state), str(airssys.state / "audit"), record).open() as ledger:
        request = ledger.request(number)
        assert request is not None
        assert isinstance(ledger.take(request, Revoked(ledger.now_s, 0)), Request)


def test_what_is_over_ends_by_itself(airssys, up, component, approver: Approver) -> None:
    """At the time that its approval ends, as it is by now; and what was taken back by who told nobody of it."""
    asks = f'[capabilities.filesystem]\nread = ["{approver.out}/**"]\n'
    names = ("first", "second", "third")
    places = [component(name, "block-poll.wat", asks) for name in names]
    for place in places:
        assert airssys("up", place, "--config", approver.config).code == 77
    approver.approve(1, 2, 3)
    with up(*places, "--config", approver.config) as fleet:
        for name in names:
            fleet.until(f"{name}: running")
        said = approver.says("narrow", "1", "--expires", "1s", "--yes", approver.review(1))
        assert "request 1 of first is approved, until" in said.replace(" (", ", ")
        fleet.until("first: stopped")
        assert "approval 1 is over" in str(approver.status("first")["ended"])
        _revoke_behind_its_back(airssys, 2)
        fleet.until("second: stopped")
        assert "approval 2 was revoked" in str(approver.status("second")["ended"])
        assert approver.status("third")["phase"] == "running"
        assert airssys("down").code == 0
        assert fleet.end() == 0
    records = [json.loads(line) for line in airssys("audit", "query", "--json").stdout.splitlines()]
    assert [each["approval"] for each in records if each["event"] == "approval_expired"] == ["approval 1"]
    assert "request 4" in airssys("up", places[0], "--config", approver.config).stderr


def test_a_supervisor_that_does_not_answer_is_not_taken_for_none(airssys, up, component, approver: Approver) -> None:
    """What it may still hold isn't said to be gone; once it goes on it ends by itself."""
    place = component("first", "block-poll.wat", f'[capabilities.filesystem]\nread = ["{approver.out}/**"]\n')
    assert airssys("up", place, "--config", approver.config).code == 77
    approver.approve(1)
    with up(place, "--config", approver.config) as fleet:
        fleet.until("first: running")
        fleet.process.send_signal(signal.SIGSTOP)
        try:
            said = airssys("approvals", "revoke", "1", "--config", approver.config)
        finally:
            fleet.process.send_signal(signal.SIGCONT)
        assert (said.code, "none holds it now" in said.stdout) == (75, False)
        assert "request 1 is revoked" in said.stderr
        assert "doesn't answer" in said.stderr
        fleet.until("first: stopped")
        assert "approval 1 was revoked" in str(approver.status("first")["ended"])
    again = airssys("approvals", "show", "1", "--config", approver.config)
    assert (again.code, "revoked" in again.stdout) == (0, True)


def test_without_a_fleet(airssys, component, approver: Approver) -> None:
    """Who answers for approvals alone ends the owner's runs, too; root's own word needs nobody who answers."""
    holder = _holder(component, approver.out, "holder")
    assert airssys("run", holder, "--config", approver.config).code == 77
    approver.approve(1)
    with approver.start(holder) as run, approver.serving():
        try:
            said = approver.says("revoke", "1")
            assert "ended 1 instance (2 open files); none holds it now" in said
            assert run.wait(0.1) == 143
        finally:
            run.kill()
