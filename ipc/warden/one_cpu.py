"""Keeping a worker and its lane on one processor while the worker makes calls in quick succession; docs/adr/0018.

The kernel wakes a worker that gets a descriptor (SECCOMP_IOCTL_NOTIF_ADDFD) on an idle processor where there is one,
and to wake a halted processor costs more than to decide the call. sched_setaffinity(2), capabilities(7).
"""

from __future__ import annotations

import contextlib
import mmap
import os
import time
from typing import Final

from ipc.burst import Burst, Step
from ipc.hand_over import clear_cpus, note_cpus, noted_cpus
from ipc.libc import current_cpu
from ipc.warden.notify import Call, CallGone, Listener
from ipc.warden.reach import has_ended, pid_of

_CPU_CLOCK: Final = 2
"""Of a process's three clocks, in the low bits beside its number: CPUCLOCK_SCHED, include/linux/posix-timers.h."""
THREADS_MAX: Final = 32
"""A worker with more threads than these is left alone: it would cost its lane time, and others theirs."""


class OneCpu:
    """The processors of one worker's threads and of the thread that uses this; whatever it can't do, it leaves.

    All threads of the worker, for the engine runs the guest in one and its file calls in others, waking each in turn.
    They are those in a directory of /proc that is held open: of this very process, also should its number get another.
    """

    __slots__ = (
        "_before",
        "_burst",
        "_clock",
        "_cpu",
        "_listener",
        "_mark",
        "_may",
        "_own",
        "_tasks",
        "_used_before_ns",
    )

    def __init__(self, pidfd: int, listener: Listener, mark: mmap.mmap | bytearray) -> None:
        """Give back first what a warden before this one, which was killed in a burst, has taken."""
        self._listener = listener
        self._mark = mark
        self._burst = Burst()
        self._own = os.sched_getaffinity(0)
        self._cpu: set[int] = set()
        self._before: set[int] = set()
        self._used_before_ns = 0
        self._tasks = -1
        pid = pid_of(pidfd)
        self._clock = ~pid << 3 | _CPU_CLOCK
        with contextlib.suppress(OSError):  # it has ended, or /proc doesn't show it: nothing is done then
            self._tasks = os.open(f"/proc/{pid}/task", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        if self._tasks >= 0 and has_ended(pidfd):
            os.close(self._tasks)  # looked at after it was opened: only while it lives is the number its own
            self._tasks = -1
        self._may = len(self._own) > 1 and self._tasks >= 0
        left = noted_cpus(mark)
        if left is not None:
            self._cpu, self._before = {left[0]}, left[1]
            self._give_back()

    @property
    def held(self) -> bool:
        """Whether both are on one processor."""
        return self._burst.pinned

    def note(self, call: Call, now_ns: int) -> None:
        """Note a call that waits for its answer: keep the worker where this thread is, or let it go."""
        if self._may:
            step = self._burst.note(now_ns)
            if step is Step.PIN:
                self._pin(call, now_ns)
            elif step is Step.LET_GO:
                self._let_go()
                self._burst.judge(now_ns, self._used_ns() - self._used_before_ns)

    def let_go(self) -> None:
        """Give the worker and this thread back what they had: no call comes for the moment."""
        if self._burst.let_go() is Step.LET_GO:
            self._let_go()

    def close(self) -> None:
        """Let go, for good."""
        self.let_go()
        self._may = False
        if self._tasks >= 0:
            os.close(self._tasks)
            self._tasks = -1

    def _pin(self, call: Call, now_ns: int) -> None:
        try:
            before, cpu = os.sched_getaffinity(call.tid), current_cpu()
            threads = self._threads()
            if len(before) < 2 or cpu not in before or len(threads) > THREADS_MAX:
                self._burst.rest(now_ns)
                return
            self._listener.check(call)  # so these were its processors
            self._cpu, self._before = {cpu}, before
            note_cpus(self._mark, cpu, before)
            self._own = os.sched_getaffinity(0)
            os.sched_setaffinity(0, self._cpu)
            for thread in threads:
                self._move(thread, before, self._cpu)
            self._used_before_ns = self._used_ns()
        except CallGone:
            self._burst.let_go()
        except OSError:
            self._may = False  # EPERM, most likely: a worker of another uid, and no capability for it
            self.let_go()

    def _let_go(self) -> None:
        with contextlib.suppress(OSError):
            if os.sched_getaffinity(0) == self._cpu:
                os.sched_setaffinity(0, self._own)
        self._give_back()

    def _give_back(self) -> None:
        """Give what was taken to all threads that haven't got it: those that were made since never had it."""
        with contextlib.suppress(OSError):
            for thread in self._threads():
                self._move(thread, self._cpu, self._before)
        clear_cpus(self._mark)

    def _used_ns(self) -> int:
        """Return the processor time that the worker and this thread have had; a process that has ended has none."""
        with contextlib.suppress(OSError):
            return time.thread_time_ns() + time.clock_gettime_ns(self._clock)
        return 0

    def _threads(self) -> list[int]:
        """Return the worker's threads, none once it has ended."""
        return [int(name) for name in os.listdir(self._tasks)]

    def _move(self, thread: int, old: set[int], new: set[int]) -> None:
        """Give one thread `new` processors, unless somebody else has chosen others than `old` for it."""
        with contextlib.suppress(ProcessLookupError):
            if os.sched_getaffinity(thread) == old:
                os.sched_setaffinity(thread, new)
                if not self._is_there(thread):
                    os.sched_setaffinity(thread, old)  # it ended just now: should its number be somebody else's already

    def _is_there(self, thread: int) -> bool:
        try:
            os.stat(str(thread), dir_fd=self._tasks)
        except OSError:
            return False
        return True
