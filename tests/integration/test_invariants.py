"""The invariants of docs/ARCHITECTURE.md that show from outside: what may not run does not run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

import pytest

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


def test_a_missing_required_layer_means_no_start(airssys: CommandLine, out: Path) -> None:
    """With namespaces required and not to be had nothing runs; not required, the same command works."""
    refused = _write(airssys, out, "--no-namespaces", "--require", "namespaces,landlock,seccomp")
    assert refused.code == 69
    assert "namespaces" in refused.stderr
    assert list(out.iterdir()) == []
    assert _write(airssys, out, "--no-namespaces", "--require", "landlock,seccomp").code == 0
    assert (out / "made.txt").exists()


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
