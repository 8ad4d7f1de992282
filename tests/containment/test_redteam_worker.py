"""Attacks of a worker that was escaped from on its limits: uncounted memory, an end that never comes."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Protocol

import pytest

from ipc.codec import pack_tagged
from ipc.messages import Finished
from ipc.syscalls import machine
from worker.filter_compiler import resolve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import Steps, World, Worlds

MIB = 1 << 20
READ, READ_WRITE = 1, 3
PRIVATE = 0x22
POPULATE = 0x8000
FUTEX = resolve("futex", machine())
LOCKED, DROPPABLE = 0x2000, 0x28
WAITER = """
import ctypes
from ipc.messages import EngineSettings
from worker import empty_path, raw_calls
from worker.engine import Runner
word = empty_path.seal(Runner.new(EngineSettings()).engine) & ~3
print(word, flush=True)
raw_calls.raw_call({futex}, (word, 0, ctypes.c_uint32.from_address(word).value if word else 0))
"""
SECOND = "x:" + ((1).to_bytes(8, "little") + bytes(8)).hex()


class Deadline(Protocol):
    """The fixture of tests/conftest.py."""

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Wait for it."""


def hidden_pages(count: int, mib: int) -> Steps:
    """Return steps that fill memory and make it read-only, so that RLIMIT_DATA counts the next piece afresh."""
    steps: Steps = []
    for n in range(count):
        steps = [
            *steps,
            (f"map{n}", "mmap", 0, mib * MIB, READ_WRITE, PRIVATE | POPULATE, -1, 0),
            (f"hide{n}", "mprotect", f"r:map{n}", mib * MIB, READ),
        ]
    return steps


def test_memory_is_not_hidden_by_making_it_read_only(sealed: World, bare: World) -> None:
    """Pages that were filled can't be taken out of the count; without the layers they can."""
    steps = hidden_pages(8, 32)
    ran = sealed.probe(steps, "--memory", "32MiB")
    assert ran.results["map0"] > 0
    assert ran.results["hide0"] == -errno.ENOMEM
    assert ran.results["map7"] == -errno.ENOMEM
    assert ran.report.peak_memory_bytes < (32 + 64 + 64) * MIB
    control = bare.probe(steps, "--memory", "32MiB")
    assert control.results["hide0"] == 0
    assert control.report.peak_memory_bytes > 8 * 32 * MIB


def test_memory_that_no_rlimit_counts_is_seen_from_outside(worlds: Worlds) -> None:
    """Without the filters the same trick works until the supervisor looks; with a higher limit it goes on."""
    steps: Steps = [*hidden_pages(12, 32), ("sleep", "nanosleep", SECOND, 0), ("after", "getpid")]
    ran = worlds["without seccomp"].probe(steps, "--memory", "32MiB")
    assert ran.results["hide0"] == 0
    assert ran.ending == ("limit", "A2001")
    assert "after" not in ran.results
    control = worlds["without seccomp"].probe(steps, "--memory", "600MiB")
    assert control.results["after"] > 0


def test_an_end_that_is_announced_for_ever_comes(sealed: World) -> None:
    """A worker that says "finished" again and again, and goes on, is ended; one that says it once and ends is not."""
    said = pack_tagged(Finished("exited", 0))
    once: Steps = [("said", "write", 3, f"x:{said.hex()}", len(said))]
    steps: Steps = []
    for n in range(12):
        steps = [
            *steps,
            (f"said{n}", "write", 3, f"x:{said.hex()}", len(said)),
            (f"sleep{n}", "futex", "b:4", 128, 0, SECOND),
        ]
    started_s = time.monotonic()
    ran = sealed.probe(steps, "--timeout", "1s")
    assert time.monotonic() - started_s < 10
    assert "sleep11" not in ran.results
    assert ran.ending == ("host_error", "")
    assert sealed.probe([*once, ("end", "exit_group", 0)], "--timeout", "1s").ending == ("exited", "")


@pytest.mark.parametrize("outcome", ["exited", "trapped", "limit"])
def test_what_a_worker_says_of_its_memory_is_not_believed(sealed: World, outcome: str) -> None:
    """The peak that is reported is the kernel's word, not the worker's."""
    said = pack_tagged(Finished(outcome, 0, "", "memory", 0, 1 << 60))
    steps: Steps = [("said", "write", 3, f"x:{said.hex()}", len(said)), ("end", "exit_group", 0)]
    ran = sealed.probe(steps)
    assert ran.report.verdict.outcome == outcome
    assert 0 < ran.report.peak_memory_bytes < 1 << 30


def test_no_code_can_be_written_to(sealed: World, bare: World) -> None:
    """The page of ctypes' callbacks, writable and executable as it is made, is not writable any more in a worker."""
    steps: Steps = (("write", "getrandom", "e:callbacks", 8, 0),)
    control = bare.probe(steps)
    if control.results["write"] == -errno.EFAULT:
        pytest.skip("this libffi has no such page")
    assert control.results["write"] == 8
    assert sealed.probe(steps).results["write"] == -errno.EFAULT


def test_signals_are_not_queued(worlds: Worlds, sealed: World) -> None:
    """A worker keeps no signal waiting: how many may wait is counted by uid, and the uid may be its user's."""
    numbers = range(8)
    steps: Steps = (
        ("pid", "getpid"),
        ("block", "rt_sigprocmask", 0, "x:" + "ff" * 8, 0, 8),
        *((f"queue{n}", "tgkill", "r:pid", "r:pid", 40) for n in numbers),
        ("plain", "tgkill", "r:pid", "r:pid", 10),
    )
    ran = sealed.probe(steps)
    assert {ran.results[f"queue{n}"] for n in numbers} == {-errno.EAGAIN}
    assert ran.results["plain"] == 0
    control = worlds["without rlimits"].probe(steps)
    assert {control.results[f"queue{n}"] for n in numbers} == {0}


def test_memory_is_not_locked(sealed: World, bare: World) -> None:
    """No page is kept from being swapped out, whatever becomes of the rest of the machine."""
    steps: Steps = (("locked", "mmap", 0, MIB, READ_WRITE, PRIVATE | LOCKED, -1, 0),)
    assert sealed.probe(steps).results["locked"] == -errno.EPERM
    assert bare.probe(steps).results["locked"] > 0


@pytest.mark.needs_root
def test_memory_that_the_kernel_may_drop_counts_too(sealed: World, bare: World) -> None:
    """`MAP_DROPPABLE` (Linux 6.11) is none of the flags that the filter names: it is counted as any other memory."""
    steps: Steps = [(f"m{n}", "mmap", 0, 64 * MIB, READ_WRITE, DROPPABLE | POPULATE, -1, 0) for n in range(8)]
    control = bare.probe(steps, "--memory", "64MiB")
    if control.results["m0"] == -errno.EINVAL:
        pytest.skip("this kernel has no such memory")
    assert control.results["m7"] > 0
    assert sealed.probe(steps, "--memory", "64MiB").results["m7"] == -errno.ENOMEM


def test_a_closed_channel_is_an_end(sealed: World) -> None:
    """A worker that leaves its channel is nobody's to hear from: it is ended; one that keeps it reads its input on."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    try:
        wait: Steps = (("wait", "read", 0, "b:8", 8),)
        started_s = time.monotonic()
        steps: Steps = (("close", "close", 3), *wait)
        ran = sealed.run(flags=("--timeout", "60s"), wasm="hello.wasm", steps=steps, stdin=reader)
        assert time.monotonic() - started_s < 20
        assert ran.results == {"close": 0}
        assert ran.ending == ("host_error", "")
        os.write(writer, b"go on")
        control = sealed.run(flags=("--timeout", "60s"), wasm="hello.wasm", steps=wait, stdin=reader)
        assert control.results == {"wait": 5}
        assert control.ending == ("exited", "")
    finally:
        os.close(reader)
        os.close(writer)


@pytest.fixture
def waiter() -> Iterator[subprocess.Popen[str]]:
    """A process of the host that waits on a word of the engine's library, which every worker maps too."""
    code = WAITER.format(futex=FUTEX)
    process = subprocess.Popen([sys.executable, "-I", "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        with process.stdout as told:
            if told.readline() == "0\n":
                pytest.skip("the engine's empty path can't be found here")
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(10)


def test_nobody_is_woken_through_a_library(
    sealed: World, worlds: Worlds, waiter: subprocess.Popen[str], deadline: Deadline
) -> None:
    """Two that map the same file could call each other by a futex in it: no worker makes one that isn't private."""
    with open(f"/proc/{waiter.pid}/syscall", encoding="ascii") as call:
        deadline.until(lambda: not call.seek(0) and call.read().startswith(f"{FUTEX} "), "it waits")
    wake = ("wake", "futex", "e:word", 1, 9, 0, 0, 0)
    sealed.assert_ends([wake])
    assert waiter.poll() is None
    assert sealed.probe([("wake", "futex", "e:word", 129, 9, 0, 0, 0)]).results["wake"] == 0
    assert waiter.poll() is None
    assert worlds["without seccomp"].probe([wake]).results["wake"] == 1
    assert waiter.wait(10) == 0
