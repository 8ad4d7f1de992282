"""What a worker holds, read from `/proc/PID/status`: private memory of every kind, and threads."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import threading
import time

import pytest

from supervisor.run.watch import IDLE_CPU_NS, Usage, read_cpu_ns, read_usage, usage_of


def test_every_kind_of_private_memory_counts() -> None:
    """Resident, swapped and page table memory are added up, in bytes; what is shared isn't."""
    status = {
        "State": "S (sleeping)",
        "RssAnon": "100 kB",
        "VmSwap": "20 kB",
        "VmPTE": "3 kB",
        "RssFile": "5000 kB",
        "Threads": "7",
    }
    assert usage_of(status) == Usage(123 * 1024, 7)


def test_a_kernel_that_shows_no_swap_is_understood() -> None:
    """Fields that this kernel doesn't have count as nothing."""
    assert usage_of({"State": "R (running)", "RssAnon": "4 kB", "Threads": "1"}) == Usage(4096, 1)


def test_a_zombie_has_no_leader() -> None:
    """What a process without a leader thread holds isn't told, but that it is one."""
    assert usage_of({"Threads": "3", "State": "\tZ (zombie)"}) == Usage(0, 3, has_leader=False)


ZOMBIE_LEADER = """
import ctypes, os, sys, threading
threading.Thread(target=sys.stdin.read).start()
print("up", flush=True)
call = ctypes.CDLL(None).syscall
call.argtypes = (ctypes.c_long, ctypes.c_long)
call({"x86_64": 60, "aarch64": 93}[os.uname().machine], 0)
"""


def test_a_leader_that_left_its_threads_behind_is_seen() -> None:
    """exit(2) of the main thread makes a zombie whose pidfd isn't readable; with its last thread it has ended."""
    with subprocess.Popen(
        [sys.executable, "-I", "-c", ZOMBIE_LEADER], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        pidfd = os.pidfd_open(process.pid)
        process.stdout.readline()
        deadline_s = time.monotonic() + 10
        while (usage := read_usage(process.pid, pidfd)) is not None and usage.has_leader:
            assert time.monotonic() < deadline_s
            os.sched_yield()
        assert usage is not None
        process.kill()
        assert select.select([pidfd], [], [], 10)[0]
        assert read_usage(process.pid, pidfd) is None
        os.close(pidfd)


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
