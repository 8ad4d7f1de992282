"""What an idle, sealed worker holds: its proportional set size (proc(5)), alone and beside others.

Pages that several processes share are counted by their share; what a worker has for itself is told beside it. Each run
here has a zygote of its own, so the others share only what is read from files.
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

ROOT = Path(__file__).resolve().parents[2]
AIRSSYS = ROOT / ".venv" / "bin" / "airssys"
GUEST = ROOT / "tests" / "guests" / "tool.wasm"
COUNTS = (1, 4)
BUDGET_MIB = 8.0
TIMEOUT_S = 30.0
_INTERVAL_S = 0.02


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


def _workers(command: int) -> list[tuple[int, int]]:
    """Return (keeper, worker) beneath one `airssys run`: it started the zygote, which forked the keeper."""
    keepers = [keeper for child in _children(command) for keeper in _children(child)]
    return [(keeper, worker) for keeper in keepers for worker in _children(keeper) if _sealed(worker)]


@contextlib.contextmanager
def _idle(count: int, directory: str) -> Iterator[list[tuple[int, int]]]:
    """Have `count` guests wait for their input; yields (keeper, worker) of each."""
    environment = os.environ | {"AIRSSYS_STATE": f"{directory}/state"}
    null = subprocess.DEVNULL
    runs = [
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
        while len(pairs := [pair for run in runs for pair in _workers(run.pid)]) < count:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{len(pairs)} of {count} workers came so far")
            time.sleep(_INTERVAL_S)
        yield pairs
    finally:
        for run in runs:
            run.communicate()


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
        "baseline_p50": BUDGET_MIB,
        "ratio": round(p50 / BUDGET_MIB, 3),
    }


def measure() -> Iterator[dict[str, object]]:
    """Yield the figures of one worker and of four; nothing for an ordinary user, who may not look into them."""
    if os.geteuid() != 0:
        return
    with tempfile.TemporaryDirectory(prefix="airssys-bench-") as directory:
        with _idle(1, directory):
            pass  # compiles
        for count in COUNTS:
            of = f"each of {count}" if count > 1 else "one alone"
            with _idle(count, directory) as pairs:
                yield _row(f"PSS of an idle sealed worker, {of}", [_kib(worker, "Pss") for _, worker in pairs])
                own = [_kib(worker, "Private_Dirty", "Private_Clean") for _, worker in pairs]
                yield _row(f"pages of its own of an idle sealed worker, {of}", own)
                yield _row(f"PSS of its keeper, {of}", [_kib(keeper, "Pss") for keeper, _ in pairs])
