"""Fixtures and rules for all tests: a hanging test fails, nothing may be left running, a skip may count as a failure.

`REQUIRE_KERNEL=1` (CI sets it) turns each skip into a failure: a kernel that lacks a feature would otherwise pass by
testing nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from ipc.struct import Struct

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "tests"))  # for what several directories share: `ending`
AIRSSYS = ROOT / ".venv" / "bin" / "airssys"
TEST_LIMIT_S = 120
SLOW_TEST_LIMIT_S = 600
LEFTOVER_GRACE_S = 10.0
READS_OF_AN_ENVIRONMENT = 20
TRIES = 5
"""How often a promise of time is tried on a machine that may be busy."""

_SESSION_MARK = "AIRSSYS_TEST_SESSION"
_SURROUNDINGS = ("NO_COLOR", "AIRSSYS_STATE", "AIRSSYS_SOCKET", "SUDO_UID", "SUDO_GID")
"""What changes the product's behaviour: a test that means one of these sets it."""


# ---- rules of the session


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker for tests that only root can try, and mark our environment, which children inherit."""
    config.addinivalue_line("markers", "needs_root: can only be tried as root; left out of the run as an ordinary user")
    config.addinivalue_line("markers", "needs_user: can only be tried as an ordinary user; left out of root's run")
    os.environ[_SESSION_MARK] = uuid.uuid4().hex
    for name in _SURROUNDINGS:
        os.environ.pop(name, None)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what needs to be who we aren't: not a skip, since no kernel feature is missing; CI runs as both."""
    other = "needs_user" if os.geteuid() == 0 else "needs_root"
    left_out = [item for item in items if item.get_closest_marker(other)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker(other)]


def _kernel_is_required() -> bool:
    return os.environ.get("REQUIRE_KERNEL") == "1"


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    return report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Turn a skip into a failure where the kernel is required."""
    report: pytest.TestReport = yield
    if report.skipped and not hasattr(report, "wasxfail") and _kernel_is_required():
        report.outcome = "failed"
        report.longrepr = f"skipped, but REQUIRE_KERNEL=1: {_reason(report)}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
    """Turn the skip of a whole module into a failure where the kernel is required."""
    report: pytest.CollectReport = yield
    if report.outcome == "skipped" and _kernel_is_required():
        report.outcome = "failed"
        report.longrepr = f"skipped, but REQUIRE_KERNEL=1: {_reason(report)}"
    return report


def _runs(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _environment(process: psutil.Process) -> dict[str, str]:
    """Return its environment; one that is empty is read again, as execve(2) takes away the old one a little earlier."""
    for _ in range(READS_OF_AN_ENVIRONMENT):
        if environment := process.environ():
            return environment
        time.sleep(0.005)
    return {}


def _is_ours(process: psutil.Process) -> bool:
    try:
        if process.create_time() < psutil.Process().create_time():
            return False
        return _environment(process).get(_SESSION_MARK) == os.environ[_SESSION_MARK] and _runs(process)
    except psutil.Error:
        return False


def leftover_processes() -> list[psutil.Process]:
    """Return the processes of this session that still run: descendants, and orphans found by their environment."""
    own = psutil.Process()
    descendants = {p for p in own.children(recursive=True) if _runs(p)}
    orphans = {p for p in psutil.process_iter() if p != own and _is_ours(p)}
    return sorted(descendants | orphans, key=lambda p: p.pid)


def _describe(process: psutil.Process) -> str:
    try:
        return f"{process.pid} {process.name()} {' '.join(process.cmdline())[:120]}"
    except psutil.Error:
        return f"{process.pid} (gone meanwhile)"


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fail the session when a process that it started is still there, and end that process."""
    until = time.monotonic() + LEFTOVER_GRACE_S
    while (left := leftover_processes()) and time.monotonic() < until:
        psutil.wait_procs(left, timeout=0.1)
    if not left:
        return
    lines = [_describe(process) for process in left]
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.kill()
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None:
        reporter.ensure_newline()
        reporter.section("processes left behind", red=True)
        for line in lines:
            reporter.line(line)
    session.exitstatus = pytest.ExitCode.TESTS_FAILED


# ---- time


class DeadlineExpired(Exception):  # noqa: N818 # it is raised in the middle of any test; "Error" would suggest a fault of the call
    """The test took longer than a test may."""


@pytest.fixture(autouse=True)
def _hang_guard(request: pytest.FixtureRequest) -> Iterator[None]:
    """End a test that hangs by an exception in the main thread (setitimer(2) isn't inherited by children)."""
    limit_s = SLOW_TEST_LIMIT_S if request.node.get_closest_marker("slow") else TEST_LIMIT_S

    def expire(_signal: int, _frame: object) -> None:
        raise DeadlineExpired(f"the test hangs: {limit_s} s are over")

    previous = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, limit_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


class Deadline(Struct):
    """A point in time; for waits which have an event to wait for, and for conditions which have none."""

    at_s: float

    def left_s(self) -> float:
        """Return the seconds that are left, at least 0: the timeout for a blocking call."""
        return max(0.0, self.at_s - time.monotonic())

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Return as soon as the condition holds; fails with `what` at the deadline. For things that notify nobody."""
        while not condition():
            if not self.left_s():
                pytest.fail(f"did not happen in time: {what}")
            time.sleep(0.002)


@pytest.fixture
def deadline() -> Deadline:
    """Thirty seconds from now: long on a busy machine, short against a hang."""
    return Deadline(time.monotonic() + 30)


@pytest.fixture
def promptly() -> Callable[[float, Callable[[], float]], float]:
    """Hold a promise of time: the quickest of a few tries counts, as a busy machine can only make one take longer."""

    def quickest(limit_s: float, attempt: Callable[[], float]) -> float:
        took_s: list[float] = []
        while len(took_s) < TRIES:
            took_s.append(attempt())
            if took_s[-1] < limit_s:
                return took_s[-1]
        pytest.fail(f"promised within {limit_s} s; no try was quicker than {min(took_s):.2f} s")

    return quickest


# ---- places


@pytest.fixture
def short_dir() -> Iterator[Path]:
    """A directory with a short path (a unix socket's has 107 bytes at most) that other users can pass through."""
    path = Path(tempfile.mkdtemp(prefix="at-", dir="/tmp"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        _make_removable(path)
        shutil.rmtree(path)


def _make_removable(path: Path) -> None:
    """Give back the rights which a test took from directories, as without them an ordinary user can't clean up."""
    for directory, names, _ in os.walk(path):
        os.chmod(directory, 0o755)
        for name in names:
            entry = os.path.join(directory, name)
            if not os.path.islink(entry):
                os.chmod(entry, 0o755)


# ---- the command line


class Outcome(Struct, frozen=True):
    """What one run of `airssys` left: its exit code (-n for signal n), and what it printed."""

    code: int
    stdout: str
    stderr: str

    def json(self) -> dict[str, object]:
        """Return the one document on stdout."""
        document = json.loads(self.stdout)
        assert isinstance(document, dict)
        return document


class Airssys(Struct, frozen=True):
    """The public command line in a process of its own, with a state directory and environment of the test's own."""

    directory: Path
    environment: dict[str, str]

    @property
    def state(self) -> Path:
        """The state directory: grants, cache, audit log."""
        return self.directory / "state"

    def start(self, *arguments: str | Path, cwd: Path | None = None, **environment: str) -> subprocess.Popen[bytes]:
        """Start it with three pipes and return the process; end it within a `with` block."""
        return subprocess.Popen(
            [AIRSSYS, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=cwd or self.directory,
            env=self.environment | environment,
            start_new_session=True,
        )

    def __call__(
        self,
        *arguments: str | Path,
        stdin: bytes = b"",
        cwd: Path | None = None,
        timeout_s: float = 60,
        **environment: str,
    ) -> Outcome:
        """Run it to its end; on a timeout, its whole session is killed and the test fails."""
        with self.start(*arguments, cwd=cwd, **environment) as process:
            try:
                stdout, stderr = process.communicate(stdin, timeout_s)
            except BaseException as error:
                os.killpg(process.pid, signal.SIGKILL)
                if isinstance(error, subprocess.TimeoutExpired):
                    pytest.fail(f"airssys {' '.join(map(str, arguments))} did not end within {timeout_s} s")
                raise
        return Outcome(process.returncode, stdout.decode("utf-8", "replace"), stderr.decode("utf-8", "replace"))


@pytest.fixture
def airssys(short_dir: Path) -> Airssys:
    """The command line, with everything that it keeps in `short_dir`."""
    environment = {
        "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
        "HOME": str(short_dir),
        "LC_ALL": "C.UTF-8",
        "AIRSSYS_STATE": str(short_dir / "state"),
        _SESSION_MARK: os.environ[_SESSION_MARK],
    }
    return Airssys(short_dir, environment)
