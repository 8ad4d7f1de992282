"""Cost of a worker: from the request to a process behind every layer up to filter 1; its end; its memory."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

import ipc
from ipc.messages import (
    Confined,
    ConfinementPlan,
    Ended,
    EngineSettings,
    Spawned,
    WorkerPlan,
)
from supervisor.host.launch import launch
from supervisor.host.zygote import Zygote

ROUNDS = 40
TIMEOUT_S = 30.0
_UID = 2_000_000_000


def _plan(namespaces: bool) -> WorkerPlan:
    own = _UID if os.getuid() == 0 else None
    origin = os.path.dirname(os.path.dirname(os.path.abspath(str(ipc.__file__))))
    return WorkerPlan("run", EngineSettings(), ConfinementPlan((), (), own, own, namespaces, os.getpid()), origin)


def _pss_bytes(pid: int) -> int:
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def _once(zygote: Zygote, namespaces: bool) -> tuple[int, int, int]:
    """Return nanoseconds from request to Confined, and from there to its end, and its PSS (0: not visible)."""
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    begun = time.perf_counter_ns()
    launched = launch(zygote, _plan(namespaces), null, null, null)
    os.close(null)
    spawned, _ = launched.keeper.receive((Spawned,), TIMEOUT_S)
    assert isinstance(spawned, Spawned)
    _, descriptors = launched.worker.receive((Confined,), TIMEOUT_S)
    confined = time.perf_counter_ns()
    try:
        pss_bytes = _pss_bytes(spawned.pid)
    except PermissionError:
        pss_bytes = 0
    ending = time.perf_counter_ns()
    launched.abandon()
    launched.keeper.receive((Ended,), TIMEOUT_S)
    ended = time.perf_counter_ns()
    launched.close()
    for descriptor in descriptors:
        os.close(descriptor)
    return confined - begun, ended - ending, pss_bytes


def _interpreter() -> int:
    begun = time.perf_counter_ns()
    subprocess.run([sys.executable, "-I", "-c", "import wasmtime, wasmtime.component"], check=True)
    return time.perf_counter_ns() - begun


def _row(name: str, unit: str, ours: list[float], baseline: str, theirs: list[float]) -> dict[str, object]:
    p50, base = statistics.median(ours), statistics.median(theirs)
    return {
        "name": name,
        "p50": round(p50, 3),
        "p99": round(sorted(ours)[min(len(ours) - 1, int(len(ours) * 0.99))], 3),
        "unit": unit,
        "n": len(ours),
        "baseline": baseline,
        "baseline_p50": round(base, 3),
        "ratio": round(p50 / base, 3) if base else None,
    }


def measure() -> Iterator[dict[str, object]]:
    """Yield one row a figure; the baseline is measured in between, in the same run."""
    zygote = Zygote()
    zygote.start()
    namespaces = os.getuid() == 0 or zygote.user_namespace is not None
    try:
        _once(zygote, namespaces)
        starts, ends, sizes, bare = [], [], [], []
        for _ in range(ROUNDS):
            start_ns, end_ns, pss_bytes = _once(zygote, namespaces)
            starts.append(start_ns / 1e6)
            ends.append(end_ns / 1e6)
            sizes.append(pss_bytes / 2**20)
            bare.append(_interpreter() / 1e6)
    finally:
        zygote.close()
    baseline = "a new interpreter with the engine imported"
    yield _row("worker request to confined", "ms", starts, baseline, bare)
    yield _row("worker abandoned to reaped", "ms", ends, baseline, bare)
    if any(sizes):
        yield _row("worker PSS, one alone", "MiB", sizes, "the budget", [8.0])
