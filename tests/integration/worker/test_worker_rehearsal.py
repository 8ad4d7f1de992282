"""A worker that waits goes through a start once: it leaves nothing behind, and its guest can't tell."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ipc.messages import Compiled, EngineSettings, WorkerJob, WorkerLimits
from ipc.struct import replace
from supervisor.host.zygote import Zygote

if TYPE_CHECKING:
    from conftest import Outcome, Stage

TIMEOUT_S = 60.0
TOOL = Path(__file__).parent.parent.parent / "guests" / "tool.wasm"
_CODE = """
import os
from ipc.messages import EngineSettings
from worker.main import runner_for
from worker.rehearsal import Rehearsal

settings = EngineSettings()
runner = runner_for(settings)
rehearsal = Rehearsal(runner, settings)

def state():
    memories = runner.memories
    with open("/proc/self/maps") as maps:
        code = sum(" r-xp 00000000 00:00 0" in line for line in maps)
    threads, files = len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))
    return memories.used_bytes, memories.peak_bytes, memories.limit_bytes, memories.last_refused, code, threads, files

def in_child(do):
    reader, writer = os.pipe()
    if not os.fork():
        try:
            os.write(writer, repr(do()).encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.wait()
    with open(reader) as told:
        return told.read()

def rehearse():
    seen = [state()]
    for _ in range(3):
        rehearsal.perform()
        seen.append(state())
    return rehearsal.is_ready, len(set(seen)), seen

print(rehearsal.is_ready, in_child(lambda: rehearsal.is_ready), rehearsal.is_ready)
print(in_child(lambda: (in_child(lambda: None), rehearsal.is_ready)[1]))
print(in_child(rehearse))
"""


def test_it_is_compiled_behind_the_first_fork_and_leaves_nothing() -> None:
    """The first child doesn't wait for a compiler, the next have the program; no sum and no code stays behind."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", _CODE], capture_output=True, text=True, timeout=TIMEOUT_S, check=True
    )
    first, second, third = done.stdout.splitlines()
    assert (first, second) == ("False False True", "True"), done.stdout
    assert third.startswith("(True, 1, [(0, 0, 0, False, "), third
    assert done.stderr == ""


def _told(outcome: Outcome) -> tuple[object, ...]:
    assert outcome.start_failed is None, outcome.start_failed
    assert outcome.finished is not None
    assert outcome.ended is not None
    status = outcome.ended.wait_status
    return outcome.finished, outcome.stdout, outcome.stderr, outcome.named, outcome.forbidden, outcome.problems, status


@pytest.mark.parametrize("command", [("echo",), ("grow", "8"), ("grow", "8000"), ("args", "a")])
def test_a_guest_cannot_tell(stage: Stage, command: tuple[str, ...]) -> None:
    """Output, memory used and refused, names asked for and layers are those of a worker that didn't rehearse."""
    compiled, _, artifact = stage.compile(TOOL.read_bytes())
    assert isinstance(compiled, Compiled)
    limits = WorkerLimits(64 << 20, 1 << 20, timeout_ns=20 * 10**9)
    job = WorkerJob("w", compiled.wasm_kind, ("tool", *command), (), (), limits)
    zygote = Zygote(stage.namespaces)
    zygote.start()
    try:
        fresh = replace(stage, zygote=zygote)
        # The first that a zygote forks has nothing to rehearse with yet.
        first, second = (fresh.run_job(EngineSettings(), job, artifact, b"in") for _ in range(2))
    finally:
        zygote.close()
        os.close(artifact)
    assert _told(second) == _told(first)
    assert second.layers == first.layers


def test_other_settings_of_the_engine_are_not_rehearsed(stage: Stage) -> None:
    """A worker with another engine than the zygote's has no program to rehearse with, and runs its own."""
    outcome = stage.run(TOOL.read_bytes(), ("tool", "print", "x"), settings=EngineSettings(fuel=True))
    assert outcome.finished is not None
    assert (outcome.finished.exit_code, outcome.stdout) == (0, b"x")
