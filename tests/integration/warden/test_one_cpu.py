"""A worker and its lane share a processor while calls come quickly, and have what they had soon after."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest

from ipc.burst import CALLS
from ipc.hand_over import MARK_BYTES, noted_cpus
from ipc.warden.notify import Call, CallGone, Listener
from ipc.warden.one_cpu import THREADS_MAX, OneCpu

if TYPE_CHECKING:
    from conftest import Actor, Stage

ALL = os.sched_getaffinity(0)
pytestmark = pytest.mark.skipif(len(ALL) < 2, reason="one processor is all there is")

BURST = """
import select
stop = threading.Event()
def opens():
    while not stop.is_set():
        os.close(os.open(path, os.O_RDONLY))
caller = threading.Thread(target=opens)
caller.start()
result = os.getpid()
"""
COMPUTES = """
stop.set()
caller.join()
def computes():
    while True:
        pass
threading.Thread(target=computes, daemon=True).start()
"""


class Deadline(Protocol):
    """The fixture of tests/conftest.py."""

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Wait for it."""


def processors(pid: int) -> dict[int, set[int]]:
    """Return thread → its processors, of one process."""
    found = {}
    for task in os.listdir(f"/proc/{pid}/task"):
        try:
            found[int(task)] = os.sched_getaffinity(int(task))
        except ProcessLookupError:
            continue
    return found


def is_kept(actor: Actor) -> bool:
    """Whether all of its threads are on one processor, and one thread of the warden is too, on the same one."""
    theirs = list(processors(actor.process.pid).values())
    ours = [cpus for cpus in processors(actor.stage.process.pid).values() if cpus != ALL]
    return len(theirs[0]) == 1 and all(cpus == theirs[0] for cpus in theirs) and ours == theirs[:1]


def is_free(actor: Actor) -> bool:
    """Whether every thread of it and of the warden has all processors."""
    both = (processors(actor.process.pid), processors(actor.stage.process.pid))
    return all(cpus == ALL for each in both for cpus in each.values())


def test_calls_in_quick_succession_are_kept_on_one_processor_and_what_follows_is_not(
    stage: Stage, tree: Path, deadline: Deadline
) -> None:
    """All threads of the worker and one of the warden; when it computes instead, they have all of them again."""
    actor = stage.actor(("read", f"{tree}/**"))
    assert is_free(actor)
    actor.run(BURST, path=str(tree / "in/a.txt"))
    deadline.until(lambda: is_kept(actor), "a burst is not kept on one processor")
    actor.run(COMPUTES)
    deadline.until(lambda: is_free(actor), "what was kept on one processor is not given back")
    assert len(processors(actor.process.pid)) == 2


@pytest.mark.needs_root
def test_without_the_capability_nothing_is_kept_and_all_is_answered(plain_stage: Stage, tree: Path) -> None:
    """Root's warden has none over the whole machine: a worker of another uid stays as it is, and is served."""
    actor = plain_stage.actor(("read", f"{tree}/**"))
    calls = "for _ in range(200):\n    os.close(os.open(path, os.O_RDONLY))\nresult = len(os.sched_getaffinity(0))"
    assert actor.run(calls, path=str(tree / "in/a.txt")) == len(ALL)
    assert is_free(actor)


@contextlib.contextmanager
def sleeping(threads: int) -> Iterator[subprocess.Popen[bytes]]:
    """A process with so many threads besides its first."""
    code = f"""
import threading, time
threading.stack_size(1 << 16)
for _ in range({threads}):
    threading.Thread(target=time.sleep, args=(600,)).start()
print(flush=True)
"""
    with subprocess.Popen([sys.executable, "-I", "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process with a second thread."""
    with sleeping(1) as process:
        yield process


class Waiting(Listener):
    """A listener's one question, with an answer of ours."""

    __slots__ = ("gone",)

    def __init__(self, gone: bool) -> None:
        self.gone = gone

    def check(self, call: Call) -> None:
        """Answer it."""
        if self.gone:
            raise CallGone


def kept(process: subprocess.Popen[bytes], mark: bytearray, gone: bool = False) -> OneCpu:
    """Return what serves this process, after a burst of calls."""
    pidfd = os.pidfd_open(process.pid)
    try:
        one_cpu = OneCpu(pidfd, Waiting(gone), mark)
    finally:
        os.close(pidfd)
    call = Call(1, process.pid, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    for now_ns in range(CALLS + 1):
        one_cpu.note(call, now_ns)
    return one_cpu


def in_a_thread(work: Callable[[], object]) -> None:
    """Do it in a thread of its own: it is its own processors that change too."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as failure:  # noqa: BLE001,RUF100 # told in the test's own thread
            failures.append(failure)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


def test_the_next_warden_gives_back_what_a_killed_one_took(sleeper: subprocess.Popen[bytes]) -> None:
    """A worker doesn't stay on one processor because its warden died in a burst."""
    mark = bytearray(MARK_BYTES)

    def work() -> None:
        dead = kept(sleeper, mark)
        assert dead.held
        assert set(map(len, processors(sleeper.pid).values())) == {1}
        assert noted_cpus(mark) is not None

    in_a_thread(work)
    in_a_thread(lambda: OneCpu(os.pidfd_open(sleeper.pid), Waiting(False), mark).close())
    assert list(processors(sleeper.pid).values()) == [ALL] * 2
    assert noted_cpus(mark) is None


def test_processors_that_somebody_else_chose_meanwhile_stay(sleeper: subprocess.Popen[bytes]) -> None:
    """Who sets them from outside during a burst has the last word."""

    def work() -> None:
        one_cpu = kept(sleeper, bytearray(MARK_BYTES))
        (cpu,) = os.sched_getaffinity(0)
        other = min(ALL - {cpu})
        os.sched_setaffinity(sleeper.pid, {other})
        one_cpu.let_go()
        assert sorted(processors(sleeper.pid).values(), key=len) == [{other}, ALL]
        assert os.sched_getaffinity(0) == ALL

    in_a_thread(work)


def test_a_call_that_is_gone_pins_nobody(sleeper: subprocess.Popen[bytes]) -> None:
    """Where nobody waits any more, its number may be somebody else's: whose processors were read is not known."""

    def work() -> None:
        assert not kept(sleeper, bytearray(MARK_BYTES), gone=True).held
        assert list(processors(sleeper.pid).values()) == [ALL] * 2
        assert os.sched_getaffinity(0) == ALL

    in_a_thread(work)


def test_a_process_that_has_ended_is_left_alone(sleeper: subprocess.Popen[bytes]) -> None:
    """Giving back finds no thread, whoever has its number by then."""

    def work() -> None:
        one_cpu = kept(sleeper, bytearray(MARK_BYTES))
        sleeper.kill()
        sleeper.wait()
        one_cpu.close()
        assert os.sched_getaffinity(0) == ALL

    in_a_thread(work)


def test_a_process_that_had_ended_is_not_looked_into(sleeper: subprocess.Popen[bytes]) -> None:
    """By then its number could have been another's: nothing that was found by it is kept."""
    pidfd = os.pidfd_open(sleeper.pid)
    try:
        sleeper.kill()
        assert os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOWAIT) is not None
        assert os.listdir(f"/proc/{sleeper.pid}/task")  # it isn't waited for, so there is something to be found
        held = os.listdir("/proc/self/fd")
        OneCpu(pidfd, Waiting(False), bytearray(MARK_BYTES))
        assert os.listdir("/proc/self/fd") == held
    finally:
        os.close(pidfd)


def test_a_worker_with_very_many_threads_is_left_alone() -> None:
    """Each would cost the warden a few calls, again and again."""

    def work(process: subprocess.Popen[bytes], most: int) -> None:
        one_cpu = kept(process, bytearray(MARK_BYTES))
        assert one_cpu.held == (most == 1)
        assert {len(cpus) for cpus in processors(process.pid).values()} == {most}
        one_cpu.close()

    for threads, most in ((THREADS_MAX - 1, 1), (THREADS_MAX, len(ALL))):
        with sleeping(threads) as process:
            in_a_thread(lambda process=process, most=most: work(process, most))
