"""The loop that all share: who is ready, who is due, what is asked again, and numbers that are given out twice."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipc.struct import Struct, field
from supervisor.event_loop import READ, WRITE, EventLoop, Interest


class Probe(Struct, eq=False):
    """A source that waits for what it is told to, and keeps what happened."""

    wanted: list[tuple[int, int]] = field(default_factory=list)
    due_ns: int = 0
    handled: list[int] = field(default_factory=list)
    ticks: int = 0
    asked: int = 0

    def interests(self) -> Iterator[Interest]:
        """Yield what is wanted now."""
        self.asked += 1
        for descriptor, events in self.wanted:
            yield Interest(descriptor, events, lambda events=events: self.handled.append(events))

    def next_ns(self) -> int:
        """Return when it is due."""
        return self.due_ns

    def tick(self, now_ns: int) -> None:
        """Count."""
        self.ticks += 1
        if 0 < self.due_ns <= now_ns:
            self.due_ns = 0


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Both ends of a pipe."""
    reader, writer = os.pipe()
    yield reader, writer
    for descriptor in (reader, writer):
        if os.path.lexists(f"/proc/self/fd/{descriptor}"):
            os.close(descriptor)


def _now() -> int:
    return time.monotonic_ns()


def test_only_what_is_ready_is_handled(pipe: tuple[int, int]) -> None:
    """An empty pipe can be written and not read; when something is in it, it can be read."""
    loop, probe = EventLoop(), Probe([(pipe[0], READ)])
    loop.add("probe", probe)
    loop.turn(_now())
    assert probe.handled == []
    os.write(pipe[1], b"x")
    loop.turn(_now())
    assert probe.handled == [READ]


def test_one_descriptor_may_be_waited_for_twice() -> None:
    """Two interests in one descriptor are told apart by what they wait for."""
    ours, theirs = os.openpty()
    try:
        loop, probe = EventLoop(), Probe([(ours, READ), (ours, WRITE)])
        loop.add("probe", probe)
        loop.turn(_now())
        assert probe.handled == [WRITE]
        os.write(theirs, b"x\n")
        loop.turn(_now())
        assert probe.handled == [WRITE, READ, WRITE]
    finally:
        os.close(ours)
        os.close(theirs)


def test_who_is_not_concerned_is_not_asked_again(pipe: tuple[int, int]) -> None:
    """A turn costs what happened in it: a source to which nothing happened is neither called nor asked."""
    loop, idle, busy = EventLoop(), Probe(), Probe([(pipe[0], READ)])
    loop.add("idle", idle)
    loop.add("busy", busy)
    os.write(pipe[1], b"x")
    loop.turn(_now())
    before = (idle.ticks, idle.asked)
    for _ in range(5):
        loop.turn(_now())
    assert (idle.ticks, idle.asked) == before
    assert len(busy.handled) == 6
    loop.touch("idle")
    loop.turn(_now())
    assert idle.ticks == before[0]
    assert idle.asked == before[1] + 1


def test_a_time_that_has_come_ends_the_wait() -> None:
    """A source that is due is called, at once when its time is over already, and once."""
    loop, probe = EventLoop(), Probe(due_ns=1)
    loop.add("probe", probe)
    loop.turn()
    assert probe.ticks == 1
    loop.turn(_now())
    assert probe.ticks == 1
    started_ns = _now()
    probe.due_ns = started_ns + 5_000_000
    loop.touch("probe")
    loop.turn()
    assert probe.ticks == 2
    assert 4_000_000 < _now() - started_ns < 1_000_000_000


@pytest.mark.parametrize("wait_ns", [0, 20 * 10**9])
def test_a_number_that_was_given_out_again_is_waited_for(pipe: tuple[int, int], wait_ns: int) -> None:
    """A closed descriptor whose number stands for another one by the next turn is not lost, in a long wait neither."""
    loop, probe = EventLoop(), Probe([(pipe[0], READ)])
    loop.add("probe", probe)
    loop.turn(_now())
    os.close(pipe[0])
    again, writer = os.pipe()
    try:
        assert again == pipe[0], "open(2) gives the lowest free number"
        os.write(writer, b"x")
        until_ns = _now() + wait_ns
        loop.turn(until_ns)
        while not probe.handled and _now() < until_ns:
            loop.turn(until_ns)
        assert probe.handled == [READ]
    finally:
        os.close(writer)


def test_a_file_is_ready_at_once(tmp_path: Path) -> None:
    """A file of a disk is always ready, and what is beside it is heard nevertheless."""
    with (tmp_path / "file").open("wb+") as file:
        loop, probe = EventLoop(), Probe([(file.fileno(), READ)])
        loop.add("probe", probe)
        loop.turn()
        assert probe.handled == [READ]
        reader, writer = os.pipe()
        beside = Probe([(reader, READ)])
        loop.add("beside", beside)
        os.write(writer, b"x")
        loop.turn()
        assert beside.handled == [READ]
        os.close(reader)
        os.close(writer)


def test_what_is_closed_here_and_open_elsewhere_keeps_nobody_awake(pipe: tuple[int, int]) -> None:
    """A descriptor of which there is a duplicate is forgotten when it is closed, and others are waited for."""
    loop, probe = EventLoop(), Probe([(pipe[0], READ)])
    loop.add("probe", probe)
    loop.turn(_now())
    duplicate = os.dup(pipe[0])
    try:
        os.close(pipe[0])
        probe.wanted = [(pipe[1], READ)]
        os.write(pipe[1], b"x")
        loop.touch("probe")
        turns, until_ns = 0, _now() + 100_000_000
        while _now() < until_ns:
            loop.turn(until_ns)
            turns += 1
        assert turns < 10
        assert probe.handled == []
    finally:
        os.close(duplicate)


def test_who_has_left_is_not_called(pipe: tuple[int, int]) -> None:
    """A source that is removed in the midst of a turn hears nothing of the rest of it."""
    loop = EventLoop()
    later = Probe([(pipe[0], READ)])

    class First(Probe):
        def interests(self) -> Iterator[Interest]:
            yield Interest(pipe[1], WRITE, lambda: loop.remove("later"))

    loop.add("first", First())
    loop.add("later", later)
    os.write(pipe[1], b"x")
    loop.turn(_now())
    loop.turn(_now())
    assert len(later.handled) <= 1
    loop.add("later", Probe())
    loop.turn(_now())


class Touching(Probe, eq=False):
    """A source whose tick concerns another one."""

    loop: EventLoop | None = None
    concerns: str = ""

    def tick(self, now_ns: int) -> None:
        """Touch the other, once."""
        super().tick(now_ns)
        if self.loop is not None and self.ticks == 1:
            self.loop.touch(self.concerns)


@pytest.mark.parametrize("names", [("other", "due"), ("due", "other")])
def test_what_a_tick_touches_is_called_in_the_same_turn(names: tuple[str, str]) -> None:
    """Whichever comes first, and though it was called before: nothing else would call it again."""
    loop = EventLoop()
    sources = {"other": Probe(), "due": Touching(due_ns=1, loop=loop, concerns="other")}
    for name in names:
        loop.add(name, sources[name])
    loop.turn(_now())
    assert sources["due"].ticks == 1
    assert sources["other"].ticks == 1
    loop.touch("other")
    sources["due"].ticks = 0
    loop.touch("due")
    loop.turn(_now())
    assert sources["other"].ticks >= 1
