"""The invariants of docs/ARCHITECTURE.md that show from outside: what may not run does not run."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Protocol

import pytest

from ipc.audit.event import SUPERVISOR, AuditEvent
from supervisor.audit.log import AuditLog

AIRSSYS = os.path.join(os.path.dirname(sys.executable), "airssys")
HELLO = Path(__file__).resolve().parents[1] / "guests" / "hello.wasm"
TOOL = Path(__file__).resolve().parents[1] / "guests" / "tool.wasm"
NOBODY = 65534
MANIFEST = """schema = 1
[component]
name = "writer"
version = "1.0.0"
wasm = "tool.wasm"
args = ["write", "/out/made.txt", "text"]
[parameters]
out = { type = "directory" }
[component.mounts]
"/out" = "${param.out}"
[capabilities.filesystem]
write = ["${param.out}/*.txt"]
"""


class Outcome(Protocol):
    """What a run of the command line left."""

    code: int
    stdout: str
    stderr: str


class CommandLine(Protocol):
    """The fixture `airssys`."""

    directory: Path
    state: Path

    def __call__(self, *arguments: str | Path) -> Outcome:
        """Run it."""


@pytest.fixture
def out(airssys: CommandLine) -> Path:
    """A directory that the guest may be granted, empty."""
    directory = airssys.directory / "out"
    directory.mkdir()
    if os.geteuid() == 0:
        os.chown(directory, NOBODY, NOBODY)
    return directory


def _write(airssys: CommandLine, out: Path, *flags: str) -> Outcome:
    return airssys("run", TOOL, *flags, "--write", out, "--", "write", str(out / "made.txt"), "text")


def test_without_an_audit_log_nothing_runs(airssys: CommandLine, out: Path) -> None:
    """Where the log can't be written the guest does nothing at all, and the same command works once it can."""
    airssys.state.mkdir()
    (airssys.state / "audit").write_text("in the way")
    refused = _write(airssys, out)
    assert refused.code in (65, 73)
    assert "audit" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert list(out.iterdir()) == []
    (airssys.state / "audit").unlink()
    assert _write(airssys, out).code == 0
    assert (out / "made.txt").read_text() == "text"


def test_a_full_log_is_named_as_what_is_wrong(airssys: CommandLine) -> None:
    """Without room for a record nothing runs, and the log is named with the command that helps; with room it runs."""
    log = AuditLog(str(airssys.state / "audit"))
    log.append([(AuditEvent("made", detail={"text": "x" * 5000}), SUPERVISOR)] * 40)
    log.close()
    size = sum(segment.stat().st_size for segment in (airssys.state / "audit").glob("*.jsonl"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        refused = airssys("run", HELLO)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (refused.code, refused.stdout) == (73, "")
    assert "can't be written" in refused.stderr
    assert f"df -h {airssys.state}/audit" in refused.stderr
    assert airssys("run", HELLO).stdout == "hello\n"


@pytest.mark.needs_root
def test_a_read_only_place_is_no_bug_of_ours(airssys: CommandLine) -> None:
    """Where the host's directories are on a read-only file system a run ends with 73 and says which."""
    mount = 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && exec "$2" run "$3" --state-dir "$1/state"'
    place = airssys.directory / "place"
    place.mkdir()
    airssys("run", HELLO, "--state-dir", place / "state")
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", mount, "-", place, AIRSSYS, HELLO], capture_output=True, text=True, check=False
    )
    assert done.returncode == 73, done.stderr
    assert "Read-only file system; nothing runs" in done.stderr


WITHOUT_UNSHARE = """
import errno, os, sys
from ipc.syscalls import machine
from worker import libc
from worker.filter_compiler import FilterData, Rule, compile_filter
rule = Rule("unshare", "errno", errno.EPERM, (), (machine(),), "no namespaces here")
libc.prctl(libc.PR_SET_NO_NEW_PRIVS, 1)
libc.set_filter(0, compile_filter(FilterData("missing", "allow", 0, (rule,)), machine()).instructions)
os.execv(sys.argv[1], sys.argv[1:])
"""


def test_a_missing_required_layer_means_no_start(airssys: CommandLine, out: Path) -> None:
    """With namespaces required and not to be had nothing runs; not required, the same command works."""
    command = [sys.executable, "-I", "-c", WITHOUT_UNSHARE, str(AIRSSYS), "run", str(TOOL), "--write", str(out)]
    guest = ["--", "write", str(out / "made.txt"), "text"]
    environment = airssys.environment | {"AIRSSYS_STATE": str(airssys.state)}
    for required, code, made in (("namespaces,landlock,seccomp", 69, []), ("landlock,seccomp", 0, ["made.txt"])):
        done = subprocess.run(
            [*command, "--require", required, *guest],
            cwd=airssys.directory,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == code, done.stderr
        assert [path.name for path in out.iterdir()] == made
        assert ("required layer namespaces can't be had" in done.stderr) == (code == 69)


def test_what_is_required_and_done_without_is_a_contradiction(airssys: CommandLine, out: Path) -> None:
    """Nobody blames the kernel for what the command line itself leaves out; one of the two alone works."""
    refused = _write(airssys, out, "--no-namespaces", "--require", "namespaces,landlock,seccomp")
    assert refused.code == 65
    assert refused.stderr.splitlines()[0] == "airssys: --no-namespaces: the layer namespaces is required"
    assert "kernel" not in refused.stderr
    assert list(out.iterdir()) == []
    assert _write(airssys, out, "--no-namespaces", "--require", "landlock,seccomp").code == 0


def test_a_component_is_not_granted_what_nobody_granted(airssys: CommandLine, out: Path) -> None:
    """A manifest is a request: without a grant, and nobody to ask, nothing runs; with one it does."""
    component = airssys.directory / "writer"
    component.mkdir()
    (component / "Component.toml").write_text(MANIFEST)
    (component / "tool.wasm").write_bytes(TOOL.read_bytes())
    refused = airssys("run", component, "--set", f"out={out}")
    assert refused.code == 77
    assert "--grant asked" in refused.stderr
    assert list(out.iterdir()) == []
    granted = airssys("run", component, "--set", f"out={out}", "--grant", "asked")
    assert granted.code == 0, granted.stderr
    assert (out / "made.txt").read_text() == "text"
