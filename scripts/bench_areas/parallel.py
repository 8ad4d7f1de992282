"""Runs at the same time: whether twenty slow each other down beyond their share of the processors."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
AIRSSYS = ROOT / ".venv" / "bin" / "airssys"
HELLO = ROOT / "tests" / "guests" / "hello.wasm"
AT_ONCE = 20
ROUNDS = 5


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _runs(count: int, environment: dict[str, str]) -> tuple[float, float]:
    """Run so many at once; return (elapsed, CPU) in seconds."""
    null = subprocess.DEVNULL
    cpu_s, started_s = _cpu_s(), time.perf_counter()
    runs = [
        subprocess.Popen([AIRSSYS, "run", HELLO, "-q"], env=environment, stdin=null, stdout=null) for _ in range(count)
    ]
    for each in runs:
        if each.wait():
            raise RuntimeError(f"a run ended with {each.returncode}")
    return time.perf_counter() - started_s, _cpu_s() - cpu_s


def measure() -> Iterator[dict[str, object]]:
    """Yield how long twenty runs take at once, against the CPU time of as many in turn over the processors."""
    processors = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="airssys-bench-") as directory:
        environment = os.environ | {"AIRSSYS_STATE": f"{directory}/state"}
        _runs(1, environment)
        together: list[float] = []
        share: list[float] = []
        for _ in range(ROUNDS):
            together.append(_runs(AT_ONCE, environment)[0])
            share.append(_runs(1, environment)[1] * AT_ONCE / processors)
    p50, base = statistics.median(together) * 1000, statistics.median(share) * 1000
    yield {
        "name": f"parallel: {AT_ONCE} runs of hello.wasm at once, all of them",
        "p50": round(p50, 1),
        "p99": round(max(together) * 1000, 1),
        "unit": "ms",
        "n": ROUNDS,
        "baseline": "the CPU time of as many in turn, over the processors",
        "baseline_p50": round(base, 1),
        "ratio": round(p50 / base, 2),
    }
