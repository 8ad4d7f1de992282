"""The time of an actor's calls: who is interrupted, when somebody is given up, and that nothing is done while idle."""

from __future__ import annotations

import threading
import time
from typing import cast

from ipc.messages import EngineSettings
from worker import engine_api as api
from worker.call_clock import CallClock
from worker.engine import Runner
from worker.host.services import Services
from worker.host.types import Asking

LONG_S = 20.0


class Seen:
    """What a clock has done."""

    def __init__(self) -> None:
        self.interrupted = threading.Event()
        self.attended = threading.Event()
        self.given_up = threading.Event()
        self.interrupts = 0

    def interrupt(self) -> None:
        """Count it."""
        self.interrupts += 1
        self.interrupted.set()

    def clock(self, timeout_ns: int | None, starts: bool = True) -> CallClock:
        """Return a clock on a store of its own; one that doesn't start has a thread that never gets to run."""
        clock = CallClock(self.interrupt, timeout_ns, self.attended.set, self.given_up.set)
        runner = Runner.new(EngineSettings())
        clock.context = api.store_context(api.store_new(runner.engine, None, None))
        if starts:
            clock.start()
        return clock


def test_a_call_that_takes_too_long_is_interrupted_once_and_then_given_up() -> None:
    """At its time, and, as it is still there when the grace is over, for good; meanwhile its link is attended to."""
    seen = Seen()
    clock = seen.clock(50_000_000)
    begun = time.monotonic()
    clock.begin()
    assert seen.interrupted.wait(LONG_S)
    assert time.monotonic() - begun >= 0.05
    assert seen.given_up.wait(LONG_S)
    assert time.monotonic() - begun >= 2.05
    assert (seen.interrupts, seen.attended.is_set()) == (1, True)
    clock.end()


def test_calls_that_end_in_time_are_left_alone() -> None:
    """Many short ones take longer together than one may; none is interrupted."""
    seen = Seen()
    clock = seen.clock(1_000_000_000)  # longer than a busy machine leaves one of them alone
    until = time.monotonic() + 1.2
    while time.monotonic() < until:
        clock.begin()
        assert 0 < clock.left_ns() <= 1_000_000_000
        assert clock.host_deadline_ns < clock.deadline_ns
        clock.end()
    assert seen.interrupts == 0
    assert clock.left_ns() > 10**18


def test_a_call_after_a_pause_has_its_own_time() -> None:
    """The thread has gone to sleep for good by then, and is woken."""
    seen = Seen()
    clock = seen.clock(50_000_000)
    clock.begin()
    clock.end()
    until = time.monotonic() + LONG_S
    while not clock.is_parked:
        assert time.monotonic() < until
        time.sleep(0.01)
    clock.begin()
    assert seen.interrupted.wait(LONG_S)
    clock.end()


def test_without_a_limit_only_the_link_is_attended_to() -> None:
    """A call may take for ever."""
    seen = Seen()
    clock = seen.clock(None)
    clock.begin()
    assert seen.attended.wait(LONG_S)
    assert not seen.interrupted.is_set()
    clock.end()


def test_who_has_slept_through_its_time_is_interrupted_before_it_is_back() -> None:
    """Also where the clock's own thread comes too late: the guest's thread does it, once; one that is in time isn't."""
    for timeout_ns, millis, interrupts in ((60_000_000_000, 1, 0), (20_000_000, 600_000, 1)):
        seen = Seen()
        clock = seen.clock(timeout_ns, starts=False)
        sleep = Services(cast("Asking", None), clock).functions()["sleep-millis"][1]
        clock.begin()
        sleep(millis)
        sleep(millis)
        clock.end()
        sleep(1)
        assert seen.interrupts == interrupts
