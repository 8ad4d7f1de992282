"""What an idle, sealed worker holds: its proportional set size (proc(5)), alone and beside others.

Pages that several processes share are counted by their share; what a worker has for itself is told beside it, and what
all processes of its run hold together (supervisor, zygote, warden, keeper, worker): what is only moved from one to
another shows there. Each run has a zygote of its own, so the runs share only what is read from files.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
AIRSSYS = ROOT / ".venv" / "bin" / "airssys"
GUEST = ROOT / "tests" / "guests" / "tool.wasm"
COUNTS = (1, 4, 20)
BUDGET_MIB = 6e6 / 2**20
TIMEOUT_S = 30.0
_INTERVAL_S = 0.02
_IDLE_S = 2.0
"""Idle is a worker whose start is over (`worker.deadline.STARTED_S`)."""


def _text(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as source:
        return source.read()


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in _text(f"/proc/{pid}/task/{pid}/children").split()]
    except FileNotFoundError:
        return []


def _sealed(pid: int) -> bool:
    """Whether this is a worker behind both filters that waits for something."""
    try:
        status = dict(line.partition(":\t")[::2] for line in _text(f"/proc/{pid}/status").splitlines())
    except FileNotFoundError:
        return False
    return status.get("Seccomp_filters") == "2" and status["State"].startswith("S")


class Run(NamedTuple):
    """The processes of one `airssys run`: it started the zygote, which forked the keeper, and the warden."""

    command: int
    zygote: int
    keeper: int
    worker: int
    others: tuple[int, ...]


def _run_of(command: int) -> Run | None:
    """Return the processes beneath a command, once its worker is sealed."""
    started = _children(command)
    for zygote in started:
        for keeper in _children(zygote):
            for worker in _children(keeper):
                if _sealed(worker):
                    return Run(command, zygote, keeper, worker, tuple(set(started) - {zygote}))
    return None


@contextlib.contextmanager
def _idle(count: int, directory: str) -> Iterator[list[Run]]:
    """Have `count` guests wait for their input, for long enough."""
    environment = os.environ | {"AIRSSYS_STATE": f"{directory}/state"}
    null = subprocess.DEVNULL
    commands = [
        subprocess.Popen(
            [str(AIRSSYS), "run", str(GUEST), "-q", "--timeout", "60s", "--", "wait-stdin"],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=null,
            stderr=null,
        )
        for _ in range(count)
    ]
    try:
        deadline = time.monotonic() + TIMEOUT_S
        while len(found := [run for command in commands if (run := _run_of(command.pid))]) < count:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{len(found)} of {count} workers came so far")
            time.sleep(_INTERVAL_S)
        time.sleep(_IDLE_S)
        yield found
    finally:
        for command in commands:
            command.communicate()


def _kib(pid: int, *names: str) -> int:
    """Return the sum of these fields of smaps_rollup."""
    lines = _text(f"/proc/{pid}/smaps_rollup").splitlines()[1:]
    fields = {name: int(value.split()[0]) for name, _, value in (line.partition(":") for line in lines)}
    return sum(fields[name] for name in names)


def _row(name: str, kib: list[int]) -> dict[str, object]:
    p50 = statistics.median(kib) / 1024
    return {
        "name": f"memory: {name}",
        "p50": round(p50, 2),
        "p99": round(max(kib) / 1024, 2),
        "unit": "MiB",
        "n": len(kib),
        "baseline": "the budget",
        "baseline_p50": round(BUDGET_MIB, 2),
        "ratio": round(p50 / BUDGET_MIB, 3),
    }


def _rows(runs: list[Run]) -> Iterator[dict[str, object]]:
    of = f"each of {len(runs)}" if len(runs) > 1 else "one alone"
    yield _row(f"PSS of an idle sealed worker, {of}", [_kib(run.worker, "Pss") for run in runs])
    own = [_kib(run.worker, "Private_Dirty", "Private_Clean") for run in runs]
    yield _row(f"pages of its own of an idle sealed worker, {of}", own)
    yield _row(f"PSS of its keeper, {of}", [_kib(run.keeper, "Pss") for run in runs])
    yield _row(f"PSS of its zygote, {of}", [_kib(run.zygote, "Pss") for run in runs])
    together = [
        sum(_kib(pid, "Pss") for pid in (run.command, run.zygote, run.keeper, run.worker, *run.others)) for run in runs
    ]
    yield _row(f"PSS of all processes of its run, {of}", together)


def measure() -> Iterator[dict[str, object]]:
    """Yield the figures of one worker and of several; nothing for an ordinary user, who may not look into them."""
    if os.geteuid() != 0:
        return
    with tempfile.TemporaryDirectory(prefix="airssys-bench-") as directory:
        with _idle(1, directory):
            pass  # compiles
        for count in COUNTS:
            with _idle(count, directory) as runs:
                yield from _rows(runs)
