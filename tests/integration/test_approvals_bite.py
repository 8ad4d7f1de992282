"""What is taken back of an approval is taken from who runs by it, before the command returns."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hearing import until_said
from on_terminal import run_on_terminal

pytestmark = pytest.mark.needs_user

GUESTS = Path(__file__).resolve().parents[1] / "guests"
MANIFEST = """schema = 1
[component]
name = "holder"
version = "1.0.0"
wasm = "tool.wasm"
args = ["opens", "{file}", "3", ",", "print", "ready", ",", "wait-stdin"]
[capabilities.filesystem]
read = ["{place}/**"]
write = ["${{tmp}}/**"]
"""
RULES = 'schema = 1\n[[approvals.rules]]\nwhen = ["filesystem.*"]\n'


class Holder:
    """A component that opens a file three times and waits, and its approvals."""

    def __init__(self, run) -> None:
        """Make it, and ask for its approval."""
        self.run = run
        self.component = run.folder("component")
        self.file = run.file("in/file", "text")
        self.place = self.file.parent
        shutil.copy(GUESTS / "tool.wasm", self.component / "tool.wasm")
        (self.component / "Component.toml").write_text(MANIFEST.format(file=self.file, place=self.place))
        config = run.file("airssys.toml", RULES)
        config.chmod(0o600)
        self.state = ("--config", config, "--state-dir", run.directory / "state")
        self.asked()

    def asked(self) -> None:
        """Have it asked for."""
        assert self.run(self.component, *self.state).code == 77

    def approvals(self, what: str, *arguments: str):
        """Do something with approvals."""
        return self.run.other_command("approvals", what, *arguments, *self.state)

    def review(self, number: int = 1) -> str:
        """Return the digest of what it is now."""
        return str(self.approvals("show", str(number), "--json").document()["review"])

    @contextlib.contextmanager
    def start(self) -> Iterator[subprocess.Popen[bytes]]:
        """Start it; it holds its files then."""
        with self.run.start(self.component, "-q", *self.state) as process:
            try:
                until_said(process)
                yield process
            finally:
                process.kill()

    def events(self, name: str) -> list[dict[str, object]]:
        """Return records of its log."""
        lines = self.run.other_command("audit", "query", "--json", *self.state[2:]).stdout.splitlines()
        return [record for record in map(json.loads, lines) if record["event"] == name]


@pytest.fixture
def holder(run) -> Holder:
    """One that is approved."""
    found = Holder(run)
    assert found.approvals("approve", "1", "--yes", found.review()).code == 0
    return found


def test_narrowing_ends_who_holds_it(holder: Holder, deadline) -> None:
    """Shown, asked, taken away: who has it open ends, and starts without it; what nobody loses ends nobody."""
    away = ("--without", f"filesystem.read:{holder.place}/**")
    with holder.start() as process:
        assert holder.approvals("narrow", "1", *away).code == 77, "nothing is done unseen"
        assert holder.approvals("narrow", "1", "--without", "network.connect:*", "--yes", holder.review()).code == 77
        assert holder.approvals("narrow", "1").code == 64
        wider = holder.run.file(
            "wider.toml", (holder.component / "Component.toml").read_text().replace("/**", "/../**")
        )
        assert holder.approvals("narrow", "1", "--narrow", str(wider), "--yes", holder.review()).code in (65, 77)
        assert holder.approvals("narrow", "1", "--expires", "1h", "--yes", holder.review()).code == 0
        assert process.poll() is None, "it lost nothing but time"
        command = [holder.run.command_line_path, "approvals", "narrow", "1", *away, *holder.state]
        env = holder.run.environment
        code, said = run_on_terminal(command, "n", deadline.left_s, cwd=holder.run.directory, env=env)
        assert (code, "nothing was taken away" in said) == (77, True), said
        assert process.poll() is None
        code, said = run_on_terminal(command, "y", deadline.left_s, cwd=holder.run.directory, env=env)
        assert code == 0, said
        fate = "ended 1 instance (3 open files); none holds it now"
        assert f"revoked filesystem.read {holder.place}/**; {fate}" in said.replace("\r\n", "")
        assert process.wait(0.1) == 128 + signal.SIGTERM
        assert process.stderr is not None
        why = "it was ended, as approval 1 was narrowed (airssys approvals show 1)"
        assert why in process.stderr.read().decode(), "who runs it is told by whom, and where to look"
    refused = holder.run(holder.component, "-q", *holder.state)
    assert refused.code not in (0, 77), "it starts, and opens nothing"
    (narrowed,) = (each for each in holder.events("approval_narrowed") if "filesystem.read" not in str(each["detail"]))
    assert narrowed["decision"] == "denied"
    shown = holder.approvals("show", "1").stdout.decode()
    assert re.search(r"narrowed +by (\w+ \()?uid ", shown)
    assert "to take it back: airssys approvals revoke 1" in shown


def test_revoking_says_what_has_become_of_it(holder: Holder) -> None:
    """By grant, for two runs at once; and in JSON."""
    with holder.start() as one, holder.start() as other:
        told = holder.approvals("revoke", "1", "--json").document()
        assert [process.wait(0.1) for process in (one, other)] == [143, 143]
    assert told["ended_runs"] == sorted((one.pid, other.pid))
    tail = holder.run.other_command("audit", "tail", "--event", "approval_revoked", *holder.state).stdout.decode()
    assert f"approval 1 by uid {os.getuid()}" in tail
    read = {"action": "filesystem.read", "resource": f"{holder.place}/**", "ended": 2, "open_files": 6, "left": 0}
    assert read in told["revoked"]


def test_what_runs_ends_when_its_approval_is_over(holder: Holder) -> None:
    """Also when that was made sooner while it ran; then it is on record, and asked for anew."""
    with holder.start() as process:
        assert holder.approvals("narrow", "1", "--expires", "1s", "--yes", holder.review()).code == 0
        assert process.wait(30) == 77
        errors = process.stderr.read()
    assert b"the approval that it ran by is over (approval 1)" in errors
    assert [each["approval"] for each in holder.events("approval_expired")] == ["approval 1"]
    holder.asked()
    assert holder.approvals("show", "2", "--json").document()["state"] == "pending"


def test_another_set_of_the_same_package_takes_what_it_lacks(holder: Holder) -> None:
    """Approved in its place with less, it ends who has more; a new version ends nobody, nor does the same set."""
    grant = holder.run.file("less.toml", (holder.component / "Component.toml").read_text().replace('read = ["', '#"'))
    with holder.start() as process:
        (holder.component / "words.txt").write_text("another version")
        holder.asked()
        assert holder.approvals("approve", "2", "--yes", holder.review(2)).code == 0
        assert process.poll() is None, "a new version ends nobody"
        narrowed = holder.approvals("narrow", "1", "--expires", "1h", "--yes", holder.review(1))
        assert narrowed.code == 77
        assert "what still runs by it is ended with: airssys approvals revoke 1 " in narrowed.stderr
        (holder.component / "words.txt").unlink()
        holder.asked()
        assert holder.approvals("approve", "3", "--yes", holder.review(3)).code == 0
        with holder.start() as same:
            assert holder.run(holder.component, "--grant", grant, *holder.state).code == 77
            told = holder.approvals("approve", "4", "--yes", holder.review(4))
            assert told.code == 0, told.stderr
            assert all(f"a run (process {each.pid})".encode() in told.stdout for each in (process, same))
            assert same.wait(0.1) == 143
        assert process.wait(0.1) == 143, "the same bytes, started before that other version"


def test_a_start_in_the_very_moment(holder: Holder) -> None:
    """A run that starts while its approval is taken back ends, or doesn't start: never does it go on."""
    with holder.run.start(holder.component, "-q", *holder.state) as process:
        assert holder.approvals("revoke", "1").code == 0
        said, _ = process.communicate(b"", 30)
    assert process.returncode in (77, 128 + signal.SIGTERM)
    assert b"wait-stdin" not in said
    assert holder.run(holder.component, *holder.state).code == 77


def test_what_was_for_one_start_can_be_taken_back(holder: Holder) -> None:
    """While that start runs it is no approval any more, and ends what runs all the same."""
    assert holder.approvals("revoke", "1").code == 0
    assert holder.approvals("request", "1").code == 0
    assert holder.approvals("approve", "2", "--once", "--yes", holder.review(2)).code == 0
    with holder.start() as process:
        assert holder.approvals("show", "2", "--json").document()["state"] == "expired"
        revoked = holder.approvals("revoke", "2")
        assert "(3 open files); none holds it now" in revoked.stdout.decode(), revoked.stderr
        assert process.wait(0.1) == 143
    assert holder.approvals("revoke", "2").code == 77
