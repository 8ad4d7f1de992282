"""Workers that are made ahead of their job: taken, replaced, and never left behind."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ipc.messages import Confined, ConfinementPlan, EngineSettings, Spawned, StartFailed
from supervisor.host.workers import Worker, Workers

if TYPE_CHECKING:
    from conftest import Stage

TIMEOUT_S = 20.0
USUAL = EngineSettings()
ORIGIN = str(Path(__file__).parents[3])


class Leases:
    """Counts how many workers hold something, as a uid of their own is held."""

    def __init__(self, stage: Stage) -> None:
        """Give the plans of this stage."""
        self._stage = stage
        self.held = 0

    @contextlib.contextmanager
    def take(self) -> Iterator[ConfinementPlan]:
        """Hold one for as long as the context is open."""
        self.held += 1
        try:
            yield self._stage.plan()
        finally:
            self.held -= 1


@pytest.fixture
def leases(stage: Stage) -> Leases:
    """What is held."""
    return Leases(stage)


@pytest.fixture
def workers(stage: Stage, leases: Leases) -> Iterator[Workers]:
    """Workers of the stage's zygote; whatever still waits is ended."""
    workers = Workers(stage.zygote, ORIGIN, leases.take)
    yield workers
    workers.close()


def spawned(worker: Worker) -> int:
    """Return the worker's pid once its keeper has said it."""
    message, _ = worker.launched.keeper.receive((Spawned,), TIMEOUT_S)
    assert isinstance(message, Spawned)
    return message.pid


def assert_waits_for_its_job(worker: Worker) -> None:
    """The worker has confined itself and handed over its listener."""
    message, listeners = worker.launched.worker.receive((Confined, StartFailed), TIMEOUT_S)
    assert isinstance(message, Confined), message
    assert len(listeners) == 1
    os.close(listeners[0])


def assert_is_of_use(worker: Worker) -> None:
    """It lives, it is confined, and it can be ended."""
    pidfd = os.pidfd_open(spawned(worker))
    assert_waits_for_its_job(worker)
    worker.discard()
    assert gone(pidfd)


def gone(pidfd: int) -> bool:
    """Wait until the process has ended."""
    import select

    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    ended = bool(poller.poll(TIMEOUT_S * 1000))
    os.close(pidfd)
    return ended


def test_the_one_ahead_is_taken(workers: Workers, leases: Leases) -> None:
    """A run of the usual engine gets the worker that waits, which is confined already; what it holds stays held."""
    workers.start_ahead()
    workers.start_ahead()
    assert leases.held == 1
    worker = workers.take("run", USUAL)
    assert leases.held == 1
    assert_is_of_use(worker)
    assert leases.held == 0


def test_another_engine_gets_a_worker_of_its_own(workers: Workers, leases: Leases) -> None:
    """The one that waits is no use with other engine settings: it is ended, and one that fits is made."""
    workers.start_ahead()
    waiting = workers._ahead
    assert waiting is not None
    pidfd = os.pidfd_open(waiting.launched.process.pid)
    worker = workers.take("run", EngineSettings(fuel=True))
    assert worker.plan.engine.fuel
    assert gone(pidfd)
    assert leases.held == 1
    assert_is_of_use(worker)


def test_one_that_died_while_it_waited_is_replaced(workers: Workers, leases: Leases) -> None:
    """Nobody is given a dead worker: its keeper's end is seen, and another one is made."""
    workers.start_ahead()
    waiting = workers._ahead
    assert waiting is not None
    keeper = waiting.launched.process
    os.kill(keeper.pid, signal.SIGKILL)
    assert keeper.wait_gone(TIMEOUT_S)
    worker = workers.take("run", USUAL)
    assert worker is not waiting
    assert_is_of_use(worker)
    assert leases.held == 0


def test_a_zygote_that_died_is_no_matter(workers: Workers, stage: Stage) -> None:
    """Asked for ahead or on demand: a zygote that was killed meanwhile is replaced."""
    before = stage.zygote.pid
    assert before is not None
    os.kill(before, signal.SIGKILL)
    workers.start_ahead()
    worker = workers.take("run", USUAL)
    assert_is_of_use(worker)


def test_closing_leaves_nothing(workers: Workers, leases: Leases) -> None:
    """The worker that nobody needed is gone, and so are its keeper and what was held for it."""
    workers.start_ahead()
    waiting = workers._ahead
    assert waiting is not None
    keeper = os.pidfd_open(waiting.launched.process.pid)
    worker = os.pidfd_open(spawned(waiting))
    before = set(os.listdir("/proc/self/fd"))
    workers.close()
    assert gone(worker)
    assert gone(keeper)
    assert leases.held == 0
    assert len(os.listdir("/proc/self/fd")) < len(before)
