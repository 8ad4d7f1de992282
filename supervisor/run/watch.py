"""Looking at a running worker's memory and threads from outside, by /proc/PID/status (proc(5)).

The twin of RLIMIT_DATA for what that doesn't count: pages that were filled and then made read-only, stacks that grow
page by page, page tables. No WebAssembly program can make such memory, only native code that has escaped from it.
Threads are bounded by RLIMIT_NPROC where workers have uids of their own, and by this elsewhere.
"""

from __future__ import annotations

import select
import time
from collections.abc import Mapping

from ipc.struct import Struct

INTERVAL_NS = 100 * 10**6
"""How often; what a worker can take in between is the possible overshoot, some hundred megabytes."""
IDLE_CPU_NS = 2 * 10**6
"""Who has not computed for longer than this since the last look can't have taken more than a few megabytes."""
SELDOM_NS = 10**9
"""Who has computed, if less, is looked at after so long: the end of a leader thread costs next to nothing."""
UNCOUNTED_BYTES = 32 << 20
"""What a harmless worker has beside what RLIMIT_DATA counts: its main stack, written library data, page tables."""
MAX_THREADS = 192
"""Above what RLIMIT_NPROC allows a worker with a uid of its own."""
_CPUCLOCK_SCHED = 2
"""A process's clock by its number (include/linux/posix-timers.h)."""
_COUNTED = ("RssAnon", "VmSwap", "VmPTE")


class Usage(Struct, frozen=True):
    """What one process holds now."""

    memory_bytes: int
    threads: int
    has_leader: bool = True
    """Whether its leader thread lives: what the others hold without it isn't told, nor does the pidfd tell an end."""


def usage_of(status: Mapping[str, str]) -> Usage:
    """Add up the private memory that `/proc/PID/status` tells of: of a zombie, none."""
    memory_kib = sum(int(status[name].split()[0]) for name in _COUNTED if name in status)
    return Usage(memory_kib * 1024, int(status["Threads"]), not status["State"].lstrip().startswith("Z"))


def read_usage(pid: int, pidfd: int) -> Usage | None:
    """Look at a process that `pidfd` refers to; None when it has ended."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as lines:
            status = {name: value for name, _, value in (line.partition(":") for line in lines)}
    except OSError:
        return None
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    # Looked at after reading: only while it lives is the number its own.
    return None if poller.poll(0) else usage_of(status)


def read_cpu_ns(pid: int) -> int:
    """Return how long all threads of a process have computed (clock_getcpuclockid(3)); OSError when it has ended.

    Of two hundred idle workers this is a fiftieth of what reading `/proc` would cost.
    """
    return time.clock_gettime_ns((~pid << 3) | _CPUCLOCK_SCHED)
