"""`airssys run` where something is missing that has no row of its own in docs/reference/degraded.md (test_places.py).

What is missing is simulated by a system call filter around the whole command, as a container's would be.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import pytest

from ipc.struct import Struct

GUESTS = Path(__file__).resolve().parents[1] / "guests"
AIRSSYS = Path(sys.executable).parent / "airssys"
NOBODY = 65534
WRAPPER = """
import json, os, sys
from ipc.syscalls import machine
from worker import libc
from worker.filter_compiler import Condition, FilterData, Rule, compile_filter
rules = tuple(
    Rule(call, "errno", number, tuple(Condition(*c) for c in conditions), (machine(),), "missing here")
    for call, number, conditions in json.loads(sys.argv[1])
)
libc.prctl(libc.PR_SET_NO_NEW_PRIVS, 1)
libc.set_filter(0, compile_filter(FilterData("missing", "allow", 0, rules), machine()).instructions)
os.execv(sys.argv[2], sys.argv[2:])
"""
EPERM, ENOSYS = 1, 38
Missing = Sequence[tuple[str, int, Sequence[tuple[object, ...]]]]

NO_CLOSE_RANGE: Missing = [("close_range", ENOSYS, [])]
NO_OPENAT2_ALLOWED: Missing = [("openat2", EPERM, [])]


class CommandLine(Protocol):
    """The fixture of tests/conftest.py."""

    directory: Path
    environment: dict[str, str]


class Run(Struct, frozen=True):
    """What one run left: exit code, the document of `--json`, stderr."""

    code: int
    document: dict[str, object]
    stderr: str

    @property
    def layers(self) -> dict[str, str]:
        """Layer → status."""
        confinement = self.document.get("confinement", [])
        assert isinstance(confinement, list)
        return {layer["layer"]: layer["status"] for layer in confinement}

    @property
    def text(self) -> str:
        """What the guest printed."""
        return str(self.document.get("stdout", ""))

    @property
    def told(self) -> str:
        """What a person or a program is told of a failure."""
        return json.dumps(self.document) + self.stderr


Runner = Callable[..., Run]


@pytest.fixture
def tree(short_dir: Path) -> Path:
    """A directory with a file that will be granted and one that will not, of the component's file identity."""
    root = short_dir / "t"
    (root / "in").mkdir(parents=True)
    (root / "in/a.txt").write_text("alpha")
    (root / "key").write_text("the key")
    if os.geteuid() == 0:
        for path in (root, *root.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
    return root


@pytest.fixture
def run(airssys: CommandLine, tree: Path) -> Runner:
    """Runs the tool where something is missing: reads the granted file, then tries the other one."""

    def start(missing: Missing, *options: str, uid: int | None = None) -> Run:
        guest = ("cat", "in/a.txt", ",", "cat", "key", ",", "cat", "/etc/passwd", ",", "write", "in/new", "x")
        command = [AIRSSYS, "run", GUESTS / "tool.wasm", "--json", "--read", "in", *options, "--", *guest]
        done = subprocess.run(
            [sys.executable, "-I", "-c", WRAPPER, json.dumps(missing), *command] if missing else command,
            cwd=tree,
            env=airssys.environment,
            capture_output=True,
            text=True,
            timeout=90,
            user=uid,
            group=uid,
            extra_groups=None if uid is None else [],
        )
        return Run(done.returncode, json.loads(done.stdout or "{}"), done.stderr)

    return start


def assert_confined(ran: Run) -> None:
    """The granted file was read, and nothing else was."""
    assert ran.document.get("outcome") == "exited", ran.told
    assert ran.text.startswith("alpha")
    assert "the key" not in ran.text
    assert "root:" not in ran.text
    assert ran.text.count("EACCES") == 3
    for layer in ("rlimits", "no_new_privs", "landlock", "seccomp", "sealed"):
        assert ran.layers[layer] in ("enforced", "partial", "off", "unavailable")
    assert ran.layers["seccomp"] in ("enforced", "partial")


def test_without_namespaces_by_choice(run: Runner) -> None:
    """`--no-namespaces` says what was asked for, and files are as closed."""
    ran = run([], "--no-namespaces")
    assert_confined(ran)
    assert ran.layers["namespaces"] != "enforced"


def test_without_close_range_descriptors_are_still_closed(run: Runner) -> None:
    """Before Linux 5.9 they are closed one by one; the outside check counts them."""
    ran = run(NO_CLOSE_RANGE)
    assert_confined(ran)
    assert ran.layers["outside_check"] in ("enforced", "partial")


def test_without_openat2_nothing_is_opened(run: Runner) -> None:
    """The warden decides beneath a root with openat2 alone: without it nothing is read, the granted file included."""
    ran = run(NO_OPENAT2_ALLOWED)
    assert ran.code == 69
    for content in ("alpha", "the key", "root:"):
        assert content not in ran.text


@pytest.mark.parametrize("layer", ["landlock", "seccomp", "rlimits"])
def test_a_required_layer_is_not_switched_off(run: Runner, layer: str) -> None:
    """`--layer-off` of a required layer is refused; without requiring it, it is off and said so."""
    refused = run([], "--layer-off", layer)
    assert refused.code == 65, refused.told
    assert layer in refused.told
    others = ",".join(one for one in ("rlimits", "no_new_privs", "landlock", "seccomp") if one != layer)
    ran = run([], "--layer-off", layer, "--require", others)
    assert ran.layers[layer] == "off"
    assert f"layer {layer} is off" in ran.stderr
    assert "the key" not in ran.text
