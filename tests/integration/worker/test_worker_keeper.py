"""Life and death around a worker: keeper, zygote, supervisor; each killed in turn."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ipc.messages import Confined, EngineSettings, Spawned, StartFailed, WorkerPlan
from supervisor.host.launch import Launched, launch
from worker.keeper import LIFELINE_CUT

if TYPE_CHECKING:
    from conftest import Stage

LIMIT_S = 0.25
HANG_S = 20.0

Promptly = Callable[[float, Callable[[], float]], float]


def wait_gone(pidfd: int, timeout_s: float) -> bool:
    """Return whether the process behind a pidfd ended in time."""
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    return bool(poller.poll(timeout_s * 1000))


def start(stage: Stage) -> tuple[Launched, int, int]:
    """Start a worker that waits for its Load, as long as it is left alone; returns its ends, its pid and its pidfd."""
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    plan = WorkerPlan("run", EngineSettings(), stage.plan(), str(Path(__file__).parents[3]))
    launched = launch(stage.zygote, plan, null, null, null)
    os.close(null)
    spawned, _ = launched.keeper.receive((Spawned,), 20.0)
    assert isinstance(spawned, Spawned)
    return launched, spawned.pid, os.pidfd_open(spawned.pid)


def test_the_supervisors_end_is_the_workers_end(stage: Stage, promptly: Promptly) -> None:
    """When the supervisor's end of the lifeline closes, keeper and worker are gone within 250 ms."""

    def cut() -> float:
        launched, _, worker = start(stage)
        keeper = os.pidfd_open(launched.process.pid)
        assert not wait_gone(worker, 0.0)
        cut_s = time.monotonic()
        launched.close()
        assert wait_gone(worker, HANG_S)
        assert wait_gone(keeper, HANG_S)
        took_s = time.monotonic() - cut_s
        os.close(worker)
        os.close(keeper)
        return took_s

    promptly(LIMIT_S, cut)


def test_abandoning_is_told(stage: Stage) -> None:
    """A worker that is abandoned is killed, and the keeper says so in its last word."""
    launched, _, worker = start(stage)
    launched.abandon()
    ended = stage.wait_ended(launched)
    assert (os.WTERMSIG(ended.wait_status), ended.killed_for) == (signal.SIGKILL, LIFELINE_CUT)
    launched.close()
    os.close(worker)


def test_a_killed_worker_is_reported(stage: Stage) -> None:
    """The signal that ended a worker is in the keeper's last word."""
    launched, _, worker = start(stage)
    signal.pidfd_send_signal(worker, signal.SIGKILL)
    ended = stage.wait_ended(launched)
    assert (os.WTERMSIG(ended.wait_status), ended.killed_for) == (signal.SIGKILL, "")
    launched.close()
    os.close(worker)


def test_the_keepers_death_is_the_workers(stage: Stage) -> None:
    """PR_SET_PDEATHSIG, set after the change of identity, takes the worker along."""
    launched, _, worker = start(stage)
    message, descriptors = launched.worker.receive((Confined, StartFailed), 20.0)
    assert isinstance(message, Confined)
    os.kill(launched.process.pid, signal.SIGKILL)
    assert wait_gone(worker, HANG_S)
    for descriptor in (*descriptors, worker):
        os.close(descriptor)
    launched.close()


def test_the_zygotes_death_takes_nobody_along(stage: Stage) -> None:
    """A worker outlives its zygote, and the next launch gets a new one."""
    launched, _, worker = start(stage)
    before = stage.zygote.pid
    assert before is not None
    os.kill(before, signal.SIGKILL)
    again, _, other = start(stage)
    assert stage.zygote.pid != before
    assert not wait_gone(worker, 0.0)
    for ends, pidfd in ((launched, worker), (again, other)):
        ends.close()
        assert wait_gone(pidfd, HANG_S)
        os.close(pidfd)


SUPERVISOR = """
import os, sys, time
sys.path.insert(0, {root!r})
from supervisor.host.zygote import Zygote
from ipc.launch import ByName
zygote = Zygote(namespaces={namespaces})
zygote.start()
r, w = os.pipe()
keeper = zygote.fork(ByName("time", "sleep"), b"", ())
print(zygote.pid, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("namespaces", [True, False])
def test_a_dead_supervisor_leaves_no_zygote_and_no_socket(namespaces: bool, short_dir: Path) -> None:
    """When the supervisor is killed, the zygote ends by itself, and its socket has no name to leave behind."""
    code = SUPERVISOR.format(root=str(Path(__file__).parents[3]), namespaces=namespaces)
    process = subprocess.Popen(
        [sys.executable, "-I", "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(short_dir)},  # nobody else's names are in it
    )
    assert process.stdout is not None
    assert process.stdin is not None
    zygote = os.pidfd_open(int(process.stdout.readline()))
    assert [name for name in os.listdir(short_dir) if name.startswith("airssys-")] == []
    process.kill()
    process.wait()
    assert wait_gone(zygote, HANG_S)
    os.close(zygote)
    process.stdin.close()
    process.stdout.close()


def test_a_zygote_that_can_not_start_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """What went wrong in the zygote is in the error of the launch."""
    import supervisor.host.zygote
    from ipc.errors import ConfinementError
    from ipc.launch import ByName

    monkeypatch.setattr(supervisor.host.zygote, "PRELOAD", ("no_such_module",))
    zygote = supervisor.host.zygote.Zygote(namespaces=False)
    zygote.start()
    started = time.monotonic()
    with pytest.raises(ConfinementError, match="no_such_module"):
        zygote.fork(ByName("worker.keeper", "keep"), b"", ())
    assert time.monotonic() - started < 10
    zygote.close()
