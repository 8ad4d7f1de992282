"""The scripts, in a small checkout of their own with a recorded stand-in for Python: nothing is installed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ipc.struct import Struct

pytestmark = pytest.mark.any_user

ROOT = Path(__file__).resolve().parents[2]
LOCK = ROOT / "requirements.lock"

# Writes each call into calls.txt; makes a "virtual environment" that holds itself; fails where it is told to.
FAKE_PYTHON = """#!/bin/sh
echo "$*" >>"{checkout}/calls.txt"
case "$*" in
*sys.executable*) echo "$0" ;;
*"-m venv"*) mkdir -p "{checkout}/.venv/bin" && cp "$0" "{checkout}/.venv/bin/python" ;;
*--require-hashes*) [ ! -e "{checkout}/offline" ] ;;
*"-m pytest"*) cat "{checkout}/pytest.txt"; [ ! -e "{checkout}/red" ] ;;
esac
"""
FAKE_AIRSSYS = """#!/bin/sh
for argument in "$@"; do echo "<$argument>"; done
exit 7
"""


class Checkout(Struct, frozen=True):
    """A directory with the scripts and the stand-in."""

    path: Path

    def run(self, script: str, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run one of the scripts to its end."""
        environment = {"PATH": os.environ["PATH"], "PYTHON": str(self.path / "python"), "HOME": str(self.path)}
        return subprocess.run(
            [self.path / "scripts" / script, *arguments],
            cwd=cwd or self.path,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def calls(self, part: str) -> list[str]:
        """Return the recorded calls of Python that contain `part`, and forget all."""
        record = self.path / "calls.txt"
        lines = record.read_text(encoding="utf-8").splitlines() if record.exists() else []
        record.unlink(missing_ok=True)
        return [line for line in lines if part in line]


@pytest.fixture
def checkout(short_dir: Path) -> Checkout:
    """A checkout that isn't set up yet."""
    path = short_dir / "a checkout"
    path.mkdir()
    shutil.copytree(ROOT / "scripts", path / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, path)
    python = path / "python"
    python.write_text(FAKE_PYTHON.replace("{checkout}", str(path)), encoding="utf-8")
    python.chmod(0o755)
    return Checkout(path)


@pytest.fixture
def ready_checkout(checkout: Checkout) -> Checkout:
    """A checkout that is set up, with a stand-in for the command line."""
    done = checkout.run("run", "--setup")
    assert done.returncode == 0, done.stderr
    airssys = checkout.path / ".venv" / "bin" / "airssys"
    airssys.write_text(FAKE_AIRSSYS, encoding="utf-8")
    airssys.chmod(0o755)
    checkout.calls("")
    return checkout


@pytest.mark.parametrize("script", ["run", "test", "check"])
def test_help_needs_no_set_up(checkout: Checkout, script: str) -> None:
    """`--help` answers on a fresh machine, and installs nothing."""
    done = checkout.run(script, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith(f"usage: scripts/{script}")
    assert not (checkout.path / ".venv").exists()


def test_set_up_installs_the_lock_with_hashes_and_then_the_project(checkout: Checkout) -> None:
    """The order is the environment, the lock, the project; nothing but the lock brings in a dependency."""
    done = checkout.run("run", "--setup", cwd=Path("/"))
    assert done.returncode == 0, done.stderr
    installs = checkout.calls("-m pip install")
    assert len(installs) == 2
    assert "--require-hashes" in installs[0]
    assert installs[0].endswith("requirements.lock")
    assert "--no-deps --no-build-isolation -e" in installs[1]


def test_the_second_run_does_nothing(ready_checkout: Checkout) -> None:
    """Once set up, no Python is even started for finding that out, and the launcher costs little."""
    before = os.times()
    done = ready_checkout.run("run", "--setup")
    after = os.times()
    computed_s = after.children_user + after.children_system - before.children_user - before.children_system
    assert computed_s < 1
    assert (done.returncode, done.stderr, ready_checkout.calls("")) == (0, "", [])


@pytest.mark.parametrize("changed", ["requirements.lock", "pyproject.toml", "scripts/airssys"])
def test_a_change_of_what_is_installed_installs_again(ready_checkout: Checkout, changed: str) -> None:
    """The stamp covers everything that the installation came from; the environment itself is kept."""
    with (ready_checkout.path / changed).open("a", encoding="utf-8") as file:
        file.write("# changed\n")
    assert ready_checkout.run("run", "--setup").returncode == 0
    calls = ready_checkout.calls("-m ")
    assert sum("-m pip install" in call for call in calls) == 2
    assert not any("-m venv" in call for call in calls)


def test_a_moved_checkout_gets_a_new_environment(ready_checkout: Checkout) -> None:
    """The scripts in a virtual environment hold its path, so a moved one is made anew."""
    made_for = ready_checkout.path / ".venv" / ".made-for"
    made_for.write_text("/somewhere/else\n", encoding="utf-8")
    (ready_checkout.path / ".venv" / ".installed").unlink()
    assert ready_checkout.run("run", "--setup").returncode == 0
    assert len(ready_checkout.calls("-m venv")) == 1
    assert made_for.read_text(encoding="utf-8") == f"{ready_checkout.path}\n"


def test_a_failed_installation_is_said_and_tried_again(checkout: Checkout) -> None:
    """Without a package index it ends with 69 and a sentence, and the next run doesn't believe that all is there."""
    (checkout.path / "offline").touch()
    done = checkout.run("run", "--setup")
    assert done.returncode == 69
    assert "could not be installed" in done.stderr
    (checkout.path / "offline").unlink()
    checkout.calls("")
    assert checkout.run("run", "--setup").returncode == 0
    assert len(checkout.calls("--require-hashes")) == 1


def test_the_launcher_passes_everything_on(ready_checkout: Checkout, short_dir: Path) -> None:
    """Arguments, blanks and the exit code go through, and relative paths mean the caller's directory."""
    done = ready_checkout.run("run", "some dir", "--grant", "asked", "--", "-x", "a  b", cwd=short_dir)
    assert done.stdout.splitlines() == ["<run>", "<some dir>", "<--grant>", "<asked>", "<-->", "<-x>", "<a  b>"]
    assert done.returncode == 7


@pytest.mark.parametrize(
    ("closing", "red", "last_line", "code"),
    [
        ("===== 12 passed in 1.50s =====", False, "12 passed, 0 failed", 0),
        ("== 2 failed, 10 passed, 1 error in 61.02s (0:01:01) ==", True, "10 passed, 3 failed", 1),
        ("12 passed in 1.50s", True, "12 passed, 0 failed", 1),
        ("Segmentation fault", True, "0 passed, 0 failed", 1),
    ],
)
def test_the_last_line_of_scripts_test(
    ready_checkout: Checkout, closing: str, red: bool, last_line: str, code: int
) -> None:
    """The counts come from pytest's closing line, which stays in sight, and a failure of any kind is the exit code."""
    (ready_checkout.path / "pytest.txt").write_text(f"3 passed somewhere\n{closing}\n", encoding="utf-8")
    if red:
        (ready_checkout.path / "red").touch()
    done = ready_checkout.run("test", "tests/unit")
    lines = done.stdout.splitlines()
    assert lines[-1] == last_line
    assert closing in lines
    assert done.returncode == code


@pytest.mark.parametrize(("red", "named"), [("nothing", []), ("tests/unit", ["tests without processes"])])
def test_what_runs_beside_the_rest_is_told_and_counts(ready_checkout: Checkout, red: str, named: list[str]) -> None:
    """Without arguments everything runs, what is in the background too: its output, its counts, and its failures."""
    for name in ("check", "build-guests"):
        (ready_checkout.path / "scripts" / name).write_text(f"#!/bin/sh\necho {name} was here\n", encoding="utf-8")
    python = ready_checkout.path / ".venv" / "bin" / "python"
    tests = f'case "$*" in *"-m pytest"*) echo "== 4 passed in 1.50s =="; case "$*" in *{red}*) exit 1 ;; esac; esac\n'
    python.write_text(f"#!/bin/sh\n{tests}", encoding="utf-8")
    done = ready_checkout.run("test")
    lines = done.stdout.splitlines()
    assert {"check was here", "build-guests was here"} <= set(lines)
    assert lines[-1] == "16 passed, 0 failed"
    failed = [part for line in lines if line.startswith("failed: ") for part in line[len("failed: ") :].split("; ")]
    assert [name for name in failed if "ordinary user" not in name] == named  # who is no Python's user here
    assert (done.returncode != 0) == bool(failed)


def test_bench_refuses_an_unknown_area() -> None:
    """A misspelt area is a usage error that names the areas, before anything is measured."""
    program = ROOT / "scripts" / "bench_areas" / "__main__.py"
    done = subprocess.run(
        [sys.executable, "-I", program, "no-such-area"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 64
    assert "start" in done.stderr
    assert done.stdout == ""


def test_the_lock_has_hashes_and_no_address() -> None:
    """Every locked package has a version and at least one sha256, and no index of any machine is named."""
    text = LOCK.read_text(encoding="utf-8")
    entries = re.findall(r"^([a-z0-9.-]+)==\S+ \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", text, re.MULTILINE)
    names = re.findall(r"^([A-Za-z0-9._-]+)==", text, re.MULTILINE)
    assert [name for name, _ in entries] == names
    assert not re.search(r"https?://|file:|--index-url|--extra-index-url|--find-links|--trusted-host", text)


def test_the_lock_holds_what_the_project_requires() -> None:
    """Run, development and build requirements are all locked, hatchling included, since no build isolation is used."""
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = [
        *project["project"]["dependencies"],
        *project["project"]["optional-dependencies"]["dev"],
        *project["build-system"]["requires"],
    ]
    names = {re.split(r"[<>=!~ ;\[]", requirement)[0].lower() for requirement in wanted}
    locked = set(re.findall(r"^([a-z0-9.-]+)==", LOCK.read_text(encoding="utf-8"), re.MULTILINE))
    assert names <= locked
