"""What a worker holds, read from `/proc/PID/status`: private memory of every kind, and threads."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

from supervisor.watch import IDLE_CPU_NS, Usage, read_cpu_ns, read_usage, usage_of


def test_every_kind_of_private_memory_counts() -> None:
    """Resident, swapped and page table memory are added up, in bytes; what is shared isn't."""
    status = {"RssAnon": "100 kB", "VmSwap": "20 kB", "VmPTE": "3 kB", "RssFile": "5000 kB", "Threads": "7"}
    assert usage_of(status) == Usage(123 * 1024, 7)


def test_a_kernel_that_shows_no_swap_is_understood() -> None:
    """Fields that this kernel doesn't have count as nothing."""
    assert usage_of({"RssAnon": "4 kB", "Threads": "1"}) == Usage(4096, 1)


def test_a_zombie_has_no_usage() -> None:
    """A process without memory of its own has ended."""
    assert usage_of({"Threads": "1", "State": "Z (zombie)"}) is None


def test_computing_shows_in_the_clock_of_a_process() -> None:
    """A process that waits stands still by its clock, one that computes doesn't; one that has ended has none."""
    with subprocess.Popen(
        [sys.executable, "-I", "-c", "input(); x = sum(range(10**6)); print(x, flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"\n")
        before_ns = read_cpu_ns(process.pid)
        process.stdin.flush()
        process.stdout.readline()
        computed_ns = read_cpu_ns(process.pid)
        assert computed_ns - before_ns > IDLE_CPU_NS
        process.stdin.write(b"\n")
        process.stdin.flush()
        process.wait()
    with pytest.raises(OSError, match="Invalid"):
        read_cpu_ns(process.pid)


def test_threads_of_a_real_process_are_counted() -> None:
    """One more thread is one more in what is read of this very process."""
    pidfd = os.pidfd_open(os.getpid())
    release = threading.Event()
    thread = threading.Thread(target=release.wait)
    try:
        before = read_usage(os.getpid(), pidfd)
        thread.start()
        during = read_usage(os.getpid(), pidfd)
    finally:
        release.set()
        if thread.ident is not None:
            thread.join()
        os.close(pidfd)
    assert before is not None
    assert during is not None
    assert during.threads == before.threads + 1
    assert during.memory_bytes > 1 << 20
