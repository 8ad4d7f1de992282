"""The broker's two busy threads share a processor while messages come one at a time, and have what they had after."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipc.broker import messages as m
from ipc.broker.one_cpu import SINGLE_FRAMES, OneCpu, open_delays
from ipc.burst import CALLS, PAUSE_MS

from .conftest import GUARD_S, Stage

ALL = os.sched_getaffinity(0)
pytestmark = pytest.mark.skipif(len(ALL) < 2, reason="one processor is all there is")


def kept_threads(pid: int) -> set[int]:
    """Return the threads of a process that haven't got all processors."""
    return {int(task) for task in os.listdir(f"/proc/{pid}/task") if os.sched_getaffinity(int(task)) != ALL}


def test_a_conversation_is_kept_on_one_processor_and_what_follows_is_not(stage: Stage) -> None:
    """The first thread and the one through which messages come, no other; then neither, whatever comes, or nothing."""
    one = stage.actor("one")
    pid = stage.client.pid
    assert pid is not None
    tasks = Path(f"/proc/{pid}/task")
    two = {pid, next(int(task) for task in os.listdir(tasks) if "/IO/" in (tasks / task / "comm").read_text())}

    def converse_until_kept() -> None:
        until_s = time.monotonic() + GUARD_S
        while (kept := kept_threads(pid)) != two:
            assert kept <= two
            assert time.monotonic() < until_s, "a conversation is not kept on one processor"
            for _ in range(CALLS):
                assert isinstance(one.ask(m.Send(1, "one", b"")), m.Accepted)
                assert isinstance(one.receive(), m.Deliver)

    converse_until_kept()
    for _ in range(CALLS):
        one.send(*[m.Send(n, "one", b"") for n in range(100)])
    stage.wait_for(lambda: not kept_threads(pid), "it is given up for what follows")
    while one.receive(0.1) is not None:
        pass
    converse_until_kept()
    stage.wait_for(lambda: not kept_threads(pid), "it is given up in a pause")


@pytest.fixture
def other() -> Iterator[int]:
    """A second thread of this process."""
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    assert thread.native_id is not None
    yield thread.native_id
    end.set()
    thread.join()
    os.sched_setaffinity(0, ALL)


@pytest.fixture
def delays() -> Iterator[int]:
    """Where this kernel says how long the first thread waited."""
    descriptor = open_delays()
    if descriptor < 0:
        pytest.skip("this kernel doesn't count how long a thread waits for a processor")
    yield descriptor
    os.close(descriptor)


def in_conversation(one_cpu: OneCpu) -> int:
    """Note so many single messages that it is a conversation; returns the time of the last one."""
    begun_ns = time.monotonic_ns()
    for n in range(CALLS + 1):
        one_cpu.note_turn(begun_ns + n, 1)
    return begun_ns + CALLS


@pytest.mark.parametrize("frames", [0, SINGLE_FRAMES + 1])
def test_a_turn_of_many_messages_or_with_other_work_gives_both_back(other: int, delays: int, frames: int) -> None:
    """At once, and until there is a conversation again; before, a pause is waited for no longer than agreed."""
    one_cpu = OneCpu(other, delays)
    assert one_cpu.patience_ms(1_000) == 1_000
    last_ns = in_conversation(one_cpu)
    (cpu,) = os.sched_getaffinity(0)
    assert os.sched_getaffinity(other) == {cpu}
    assert [one_cpu.patience_ms(1_000), one_cpu.patience_ms(1)] == [PAUSE_MS, 1]
    one_cpu.note_turn(last_ns + 1, frames)
    assert os.sched_getaffinity(0) == os.sched_getaffinity(other) == ALL
    one_cpu.note_turn(last_ns + 2, 1)
    assert os.sched_getaffinity(0) == ALL


def test_processors_that_somebody_chose_meanwhile_stay(other: int, delays: int) -> None:
    """Who sets them from outside has the last word."""
    one_cpu = OneCpu(other, delays)
    last_ns = in_conversation(one_cpu)
    chosen = {min(ALL - os.sched_getaffinity(0))}
    os.sched_setaffinity(other, chosen)
    one_cpu.note_turn(last_ns + 1, 0)
    assert (os.sched_getaffinity(0), os.sched_getaffinity(other)) == (ALL, chosen)


def test_what_can_not_be_done_is_left(other: int, delays: int) -> None:
    """Where the thread is gone, isn't known, or nothing tells of delays, the calling one keeps what it has."""
    gone = threading.Thread(target=lambda: None)
    gone.start()
    gone.join()
    assert gone.native_id is not None
    for one_cpu in (OneCpu(gone.native_id, delays), OneCpu(0, delays), OneCpu(other, -1)):
        for _ in range(2):
            in_conversation(one_cpu)
            assert os.sched_getaffinity(0) == os.sched_getaffinity(other) == ALL
            assert one_cpu.patience_ms(1_000) == 1_000
