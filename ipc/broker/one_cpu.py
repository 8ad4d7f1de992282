"""Keeping the broker's two busy threads on one processor while messages come one at a time; docs/adr/0022.

One is the thread that turns, the other libzmq's, through which every message comes and goes. Each wakes the other, the
kernel takes an idle processor for that, and on a virtual machine that one is halted: to make it run takes longer than
the message. sched_setaffinity(2).
"""

from __future__ import annotations

import contextlib
import os
from typing import Final

from ipc.burst import PAUSE_MS, Burst, Step
from ipc.libc import current_cpu

SINGLE_FRAMES: Final = 2
"""A turn that takes more frames than these is one of many messages at once: two processors do that sooner."""


def open_delays() -> int:
    """Open where the kernel says how long this process's first thread has waited for a processor; -1 if it doesn't.

    Once /proc is out of reach the descriptor is what is left of it. Documentation/scheduler/sched-stats.rst.
    """
    with contextlib.suppress(OSError):
        descriptor = os.open("/proc/self/schedstat", os.O_RDONLY | os.O_CLOEXEC)
        if int(os.pread(descriptor, 64, 0).split()[0]):
            return descriptor
        os.close(descriptor)  # it counts nothing: built without
    return -1


class OneCpu:
    """The processors of the thread that uses this and of libzmq's; whatever it can't do, it leaves."""

    __slots__ = ("_before", "_burst", "_cpu", "_delayed_ns", "_delays", "_may", "_threads")

    def __init__(self, io_thread: int, delays: int) -> None:
        """Where the thread isn't known (0), or there are no `delays` (-1), nothing is ever kept."""
        self._threads = (0, io_thread)
        self._delays = delays
        self._burst = Burst()
        self._before: set[int] = set()
        self._cpu: set[int] = set()
        self._delayed_ns = 0
        self._may = delays >= 0 < io_thread

    def patience_ms(self, timeout_ms: int) -> int:
        """Return how long to wait for what comes next: nobody is kept in a pause."""
        return min(timeout_ms, PAUSE_MS) if self._burst.pinned else timeout_ms

    def note_turn(self, now_ns: int, frames: int) -> None:
        """Note how many frames a turn that began then has taken; 0 where it had something else to do."""
        if not self._may:
            return
        burst = self._burst
        step = burst.note(now_ns, self._newly_delayed_ns()) if 0 < frames <= SINGLE_FRAMES else burst.interrupt()
        if step is Step.PIN:
            self._pin(now_ns)
        elif step is Step.LET_GO:
            self._let_go()

    def _pin(self, now_ns: int) -> None:
        try:
            before, cpu = os.sched_getaffinity(0), current_cpu()
            if len(before) < 2 or cpu not in before:
                self._burst.rest(now_ns)
                return
            self._before, self._cpu = before, {cpu}
            self._delayed_ns = self._read_delayed_ns()
            self._move(before, self._cpu)
        except OSError:
            self._may = False
            self._let_go()
            self._burst.let_go()

    def _let_go(self) -> None:
        with contextlib.suppress(OSError):
            self._move(self._cpu, self._before)

    def _move(self, old: set[int], new: set[int]) -> None:
        """Give both `new` processors; who has others than `old` has them from outside, and keeps them."""
        for thread in self._threads:
            if os.sched_getaffinity(thread) == old:
                os.sched_setaffinity(thread, new)

    def _newly_delayed_ns(self) -> int:
        """Return how long the thread that turns has waited for its processor since the last time, while it is kept."""
        if not self._burst.pinned:
            return 0
        before_ns, self._delayed_ns = self._delayed_ns, self._read_delayed_ns()
        return self._delayed_ns - before_ns

    def _read_delayed_ns(self) -> int:
        """Return how long it, the first one, has waited for a processor in all its time."""
        return int(os.pread(self._delays, 64, 0).split()[1])
