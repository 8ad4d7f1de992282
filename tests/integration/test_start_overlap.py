"""A worker that is told its job before the warden answers: its first call waits, whatever becomes of the warden."""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest

from supervisor.cli import run as run_command
from supervisor.cli.run_setup import bare_request, read_settings
from supervisor.code.compilation import CompileLimits
from supervisor.host.host import Host, HostOptions, open_host
from supervisor.host.identity import resolve_run_as
from supervisor.host.warden_recovery import has_unanswered_call
from supervisor.run.report import RunReport
from supervisor.run.request import RunRequest
from supervisor.run.running import RunStreams, run_request

HELLO = Path(__file__).parent.parent / "guests" / "hello.wasm"
TIMEOUT_S = 60.0


class Until(Protocol):
    """The fixture `deadline` of tests/conftest.py."""

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Return as soon as the condition holds."""


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory through which other uids may pass, with short names (unix(7))."""
    place = Path(tempfile.mkdtemp(prefix="as-", dir="/tmp"))
    place.chmod(0o755)
    (place / "airssys.toml").write_text("schema = 1\n")
    yield place
    shutil.rmtree(place)


@pytest.fixture
def host(place: Path) -> Iterator[Host]:
    """A host that has run a program before."""
    options = HostOptions(
        state_directory=str(place / "state"),
        run_directory=str(place / "run"),
        audit_directory=str(place / "state/audit"),
        data_directory=str(place / "data"),
        run_as=resolve_run_as(None, os.getuid(), {}),
    )
    with open_host(options) as host:
        assert _run(host, _request(host, place)).verdict.exit_code == 0
        yield host


def _request(host: Host, place: Path) -> RunRequest:
    parser = argparse.ArgumentParser()
    run_command.register(parser.add_subparsers())
    args = parser.parse_args(["run", str(HELLO), "--config", str(place / "airssys.toml")])
    args.guest_arguments = ()
    with contextlib.chdir(place):
        return bare_request(args, host, read_settings(args))


def _run(host: Host, request: RunRequest) -> RunReport:
    return run_request(host, request, RunStreams(None, None, None), CompileLimits(), lambda _: None, lambda _: None)


def _first_call_waits() -> bool:
    """Whether a listener of this process has a call that nobody has received."""
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{number}") == "anon_inode:seccomp notify":
                poller = select.poll()
                poller.register(int(number), select.POLLIN)
                return bool(poller.poll(0)) and not has_unanswered_call(int(number))
    return False


def _run_with_stopped_warden(host: Host, place: Path, deadline: Until, then: Callable[[int], None]) -> RunReport:
    """Run a program while the warden is stopped, until the worker has made its first call; then do `then` to it."""
    assert host.warden is not None
    warden = host.warden.pid
    host.workers.start_ahead()
    assert host.workers.wait_ahead(TIMEOUT_S)
    request = _request(host, place)
    reports: list[RunReport] = []
    running = threading.Thread(target=lambda: reports.append(_run(host, request)))
    os.kill(warden, signal.SIGSTOP)
    try:
        running.start()
        deadline.until(_first_call_waits, "the worker did not call before the warden answered")
        assert running.is_alive()
        then(warden)
        running.join(TIMEOUT_S)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(warden, signal.SIGCONT)
    return reports[0]


def test_the_first_call_waits_for_the_warden(host: Host, place: Path, deadline: Until) -> None:
    """A worker loads as far as it can by itself; its call for the artifact is answered once the warden is ready."""
    report = _run_with_stopped_warden(host, place, deadline, lambda warden: os.kill(warden, signal.SIGCONT))
    assert (report.verdict.outcome, report.verdict.exit_code, report.stdout) == ("exited", 0, b"hello\n")
    assert report.warden_restarts == 0


def test_a_warden_that_dies_before_it_answers_is_replaced(host: Host, place: Path, deadline: Until) -> None:
    """The call that lies in the kernel goes to the next warden, and the run to its end."""
    report = _run_with_stopped_warden(host, place, deadline, lambda warden: os.kill(warden, signal.SIGKILL))
    assert (report.verdict.outcome, report.verdict.exit_code, report.stdout) == ("exited", 0, b"hello\n")
    assert report.warden_restarts == 1
