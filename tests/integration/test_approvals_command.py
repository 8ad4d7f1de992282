"""`airssys approvals` by the one whose state it is, on a terminal; and what a killed process leaves of a step."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from approvals_to_test import ALICE, BOB, START_S, filed, vote
from on_terminal import run_on_terminal
from signed import ed25519_signer, sshsig

from ipc.audit.event import SUPERVISOR, AuditEvent
from supervisor.approvals.ledger import Ledger
from supervisor.approvals.machine import State
from supervisor.approvals.request import Request, Revoked, Step
from supervisor.approvals.store import ApprovalStore
from supervisor.audit.log import AuditLog
from supervisor.packages.directory import read_directory

ALICES = ed25519_signer()
GUESTS = Path(__file__).resolve().parents[1] / "guests"
MANIFEST = """schema = 1
[component]
name = "writer"
version = "1.0.0"
wasm = "tool.wasm"
args = ["write", "${tmp}/x", "text"]
[capabilities.filesystem]
write = ["${tmp}/**", "${data}/**"]
"""
RULES = 'schema = 1\n[[approvals.rules]]\nwhen = ["filesystem.write"]\n'


def _on_a_terminal(run, answer: str, deadline, *arguments: str | Path) -> tuple[int, str]:
    """Run a command on a terminal and answer its question; its exit code, and what it says."""
    command = [run.command_line_path, *arguments]
    return run_on_terminal(command, answer, deadline.left_s, cwd=run.directory, env=run.environment)


@pytest.mark.needs_user
@pytest.mark.parametrize("rules", [RULES, ""])
def test_a_person_approves_what_they_are_shown(run, deadline, rules: str) -> None:
    """By a rule, or since nobody could be asked when it started: shown, asked, approved without one thing, started."""
    component = run.folder("component")
    shutil.copy(GUESTS / "tool.wasm", component / "tool.wasm")
    (component / "Component.toml").write_text(MANIFEST)
    config = run.file("airssys.toml", rules or "schema = 1\n")
    config.chmod(0o600)
    state = ("--config", config, "--state-dir", run.directory / "state")
    refused = run(component, *state)
    assert refused.code == 77
    assert "awaiting approval: request 1 (needs 1 approver)" in refused.stderr
    number = ("approvals", "approve", "1", *state, "--without", "filesystem.write:${data}/**")
    assert _on_a_terminal(run, "n", deadline, *number)[0] == 77
    assert run(component, *state).code == 77
    code, said = _on_a_terminal(run, "y", deadline, *number)
    assert code == 0, said
    assert "filesystem.write:${tmp}/**" in said
    assert "[left out]" in said
    done = run(component, *state)
    assert done.code == 0, done.stderr
    assert run.other_command("approvals", "revoke", "1", *state).code == 0
    assert run(component, *state).code == 77


@pytest.mark.needs_user
def test_the_whole_way_of_what_is_installed_and_runs(run) -> None:
    """Signed, installed, refused, reviewed, approved with less, at work, revoked: it has ended; refused again."""
    component = run.folder("component")
    shutil.copy(GUESTS / "tool.wasm", component / "tool.wasm")
    acts = '"write", "${tmp}/x", "text", ",", "write", "${data}/x", "text", ",", "wait-stdin"'
    (component / "Component.toml").write_text(MANIFEST.replace('"write", "${tmp}/x", "text"', acts))
    (component / "Component.sig").write_bytes(sshsig(ALICES, read_directory(str(component)).statement))
    trusted = f'[[trust.sources]]\nsigning_key = "{ALICES.line}"\nidentity = "alice@example.com"\n'
    config = run.file("airssys.toml", RULES + trusted)
    config.chmod(0o600)
    state = ("--config", config, "--state-dir", run.directory / "state")
    assert run.other_command("install", component, *state).code == 0
    shutil.rmtree(component)
    assert run("writer", *state).code == 77
    shown = run.other_command("approvals", "show", "1", *state).stdout.decode()
    assert f"from      directory {component}" in shown
    assert "installed 2" in shown
    assert "alice@example.com, by trust.sources[0]" in " ".join(line.strip() for line in shown.splitlines())
    assert "imports   wasi_snapshot_preview1 (" in shown
    review = run.other_command("approvals", "show", "1", "--json", *state).document()["review"]
    manifest = run.other_command("approvals", "show", "1", "--manifest", *state).stdout.decode()
    approve = ("approvals", "approve", "1", "--yes", str(review), *state)
    wrong = run.other_command(*approve, "--without", "filesystem.write:${data}/*")
    assert (wrong.code, "--without 'filesystem.write:${data}/**'" in wrong.stderr) == (77, True)
    wider = run.file("wider.toml", manifest.replace("${data}/**", "/srv/**"))
    assert "only less can be approved" in run.other_command(*approve, "--narrow", wider).stderr
    narrower = run.file("narrower.toml", manifest.replace(', "${data}/**"', ""))
    assert run.other_command(*approve, "--narrow", narrower).code == 0
    with run.start("writer", "-q", *state) as process:
        done = process.stdout.readline() + process.stdout.readline()
        assert b"/x: ok\nwrite " in done
        assert b"/x: EACCES" in done
        revoked = run.other_command("approvals", "revoke", "1", "--reason", "a hole", *state)
        assert revoked.code == 0, revoked.stderr
        assert f"ended: a run (process {process.pid})".encode() in revoked.stdout
        assert process.wait(0.1) == 128 + signal.SIGTERM  # it has ended already: only its status is taken
    refused = run("writer", *state)
    assert refused.code == 77
    assert "a hole" in refused.stderr


@pytest.mark.needs_user
def test_what_is_installed_is_approved_by_name_and_instance(run) -> None:
    """The same bytes under another name wait for their own answer; its own directory is what it gets."""
    component = run.folder("component")
    shutil.copy(GUESTS / "tool.wasm", component / "tool.wasm")
    (component / "words.txt").write_text("its own")
    reads = MANIFEST.replace('["write", "${tmp}/x", "text"]', '["cat", "${component}/words.txt"]')
    (component / "Component.toml").write_text(f'{reads}read = ["${{component}}/*.txt"]\n')
    config = run.file("airssys.toml", RULES)
    config.chmod(0o600)
    state = ("--config", config, "--state-dir", run.directory / "state")
    for named in (("--as", "writer@acme"), ()):
        assert run.other_command("install", component, *named, *state).code == 0
    for number, name in ((1, "writer@acme"), (2, "writer")):
        refused = run(name, *state)
        assert refused.code == 77
        assert f"airssys: {name}: awaiting approval: request {number} " in refused.stderr
    unseen = run.other_command("approvals", "approve", "1", *state)
    assert unseen.code == 77
    assert "nothing is approved unseen" in unseen.stderr
    shown = run.other_command("approvals", "show", "1", "--json", *state).document()
    assert "read ${component}/*.txt (its own program directory)" in [each["sentence"] for each in shown["asks"]]
    assert run.other_command("approvals", "approve", "1", "--yes", str(shown["review"]), *state).code == 0
    started = run("writer@acme", *state)
    assert (started.code, started.stdout) == (0, b"its own"), started.stderr
    assert run("writer", *state).code == 77


@pytest.mark.any_user
@pytest.mark.parametrize(
    "arguments", [("show", "1"), ("approve", "1"), ("approve", "1", "--yes", "12345678"), ("revoke", "1")]
)
def test_what_was_never_asked_is_told(run, arguments: tuple[str, ...]) -> None:
    """In two lines, and nothing is made for it; a list of nothing is one."""
    place = run.directory / "nowhere"
    told = run.other_command("approvals", *arguments, "--state-dir", place)
    assert told.code == 65
    assert len(told.stderr.splitlines()) == 2
    assert run.other_command("approvals", "list", "--state-dir", place).code == 0
    assert not place.exists()


def _kill(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _store(place: Path, before: Callable[[], object], after: Callable[[], object]) -> ApprovalStore:
    def record(event: AuditEvent) -> None:
        before()
        log = AuditLog(str(place / "audit"))
        log.append([(event.within_bounds(), SUPERVISOR)])
        log.close()
        after()

    return ApprovalStore(str(place), str(place / "audit"), record, clock_s=lambda: START_S)


@pytest.mark.any_user
@pytest.mark.parametrize("where", ["intent", "record", "commit", "head"])
@pytest.mark.parametrize("what", ["approve", "revoke"])
def test_kill_9_at_each_step_leaves_both_or_neither(tmp_path: Path, what: str, where: str) -> None:
    """A step and its record: both, none, or what the next one who looks finishes; what takes away always happens."""

    def nothing() -> None:
        pass

    def step(request: Request) -> Step:
        return vote(request, BOB, START_S) if what == "approve" else Revoked(START_S, BOB)

    with _store(tmp_path, nothing, nothing).open() as ledger:
        request = ledger.file(filed())
        for uid in (ALICE,) if what == "approve" else (ALICE, BOB):
            taken = ledger.take(request, vote(request, uid, START_S))
            assert isinstance(taken, Request)
            request = taken
    pid = os.fork()
    if pid == 0:
        try:
            if where in ("intent", "head"):
                setattr(Ledger, "_put" if where == "intent" else "_write_head", _kill)
            before = _kill if where == "record" else nothing
            with _store(tmp_path, before, _kill if where == "commit" else nothing).open() as ledger:
                ledger.take(request, step(request))
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    with _store(tmp_path, nothing, nothing).open() as ledger:
        (left,) = ledger.requests()
        (again,) = ledger.requests()
    happened = where in ("commit", "head") or (what == "revoke" and where == "record")
    wanted = {"approve": State.APPROVED, "revoke": State.REVOKED}[what]
    assert (left.state is wanted) is happened
    assert left == again
    name = {"approve": "approval_granted", "revoke": "approval_revoked"}[what]
    recorded = sum(path.read_text().count(f'"{name}"') for path in (tmp_path / "audit").glob("*.jsonl"))
    assert recorded == happened
