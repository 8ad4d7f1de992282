"""Attacks of a worker that was escaped from on its limits: uncounted memory, an end that never comes."""

from __future__ import annotations

import errno
import time
from typing import TYPE_CHECKING

import pytest

from ipc.codec import pack_tagged
from ipc.messages import Finished

if TYPE_CHECKING:
    from conftest import Steps, World, Worlds

MIB = 1 << 20
READ, READ_WRITE = 1, 3
PRIVATE = 0x22
POPULATE = 0x8000
SECOND = "x:" + ((1).to_bytes(8, "little") + bytes(8)).hex()


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
            (f"sleep{n}", "futex", "b:4", 0, 0, SECOND),
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
