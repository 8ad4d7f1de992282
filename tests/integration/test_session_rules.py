"""The rules of tests/conftest.py, tried on small sessions: a rule that doesn't bite would hide everything."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.any_user

CONFTEST = Path(__file__).resolve().parents[1] / "conftest.py"

Session = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def session(tmp_path: Path) -> Session:
    """Run pytest on a test module with our conftest.py."""

    def run(source: str, **environment: str) -> subprocess.CompletedProcess[str]:
        shutil.copy(CONFTEST, tmp_path)
        (tmp_path / "test_inner.py").write_text(source, encoding="utf-8")
        return subprocess.run(
            [
                sys.executable,
                "-m",
                "pytest",
                "-q",
                "-rs",
                "-p",
                "no:cacheprovider",
                "-p",
                "no:hypothesispytest",
                tmp_path,
            ],
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"]} | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


SKIPS = """
import pytest
def test_one():
    pytest.skip("no such kernel feature")
@pytest.mark.skipif(True, reason="no such architecture")
def test_two():
    pass
"""


def test_a_skip_is_a_failure_where_the_kernel_is_required(session: Session) -> None:
    """Each way to skip a test fails with REQUIRE_KERNEL=1 and keeps its reason; without, it is a skip."""
    assert session(SKIPS).returncode == 0
    strict = session(SKIPS, REQUIRE_KERNEL="1")
    assert strict.returncode == 1
    assert "1 failed, 1 error" in strict.stdout  # a marker skips in the set-up
    assert "no such kernel feature" in strict.stdout


def test_a_skipped_module_is_a_failure_where_the_kernel_is_required(session: Session) -> None:
    """A module that skips itself is found too."""
    source = "import pytest\npytest.skip('not here', allow_module_level=True)\n"
    assert "1 skipped" in session(source).stdout
    strict = session(source, REQUIRE_KERNEL="1")
    assert strict.returncode != 0
    assert "not here" in strict.stdout


def test_an_expected_failure_is_no_skip(session: Session) -> None:
    """A test that is marked to fail, and does, passes also where the kernel is required."""
    source = "import pytest\n@pytest.mark.xfail\ndef test_one():\n    assert False\n"
    assert session(source, REQUIRE_KERNEL="1").returncode == 0


SLEEP = f"1234.{os.getpid()}"
"""Another session of tests may run beside this one."""
ORPHAN = f"""
import subprocess, conftest
conftest.LEFTOVER_GRACE_S = 0.2
def test_one():
    subprocess.run(["/bin/sh", "-c", "setsid sleep {SLEEP} >/dev/null 2>&1 </dev/null &"], check=True)
"""


def test_a_process_left_behind_fails_the_session(session: Session, tmp_path: Path) -> None:
    """An orphan in a session of its own is found, named and ended, although every test passed."""
    done = session(ORPHAN, PYTHONPATH=str(tmp_path))
    assert "1 passed" in done.stdout
    assert "processes left behind" in done.stdout
    assert f"sleep {SLEEP}" in done.stdout
    assert done.returncode == 1
    running = [p for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"] == ["sleep", SLEEP]]
    assert [p for p in running if p.status() != psutil.STATUS_ZOMBIE] == []


def test_a_clean_session_passes(session: Session) -> None:
    """The positive control: a child that ended isn't counted."""
    source = "import subprocess\ndef test_one():\n    subprocess.run(['/bin/true'], check=True)\n"
    done = session(source)
    assert done.returncode == 0, done.stdout


def test_a_hanging_test_fails(session: Session, tmp_path: Path) -> None:
    """A test that waits for ever ends by the guard, and the next one runs."""
    source = """
import signal, conftest
conftest.TEST_LIMIT_S = 0.1
def test_one():
    signal.pause()
def test_two():
    pass
"""
    done = session(source, PYTHONPATH=str(tmp_path))
    assert "1 failed, 1 passed" in done.stdout, done.stdout
    assert "the test hangs" in done.stdout
