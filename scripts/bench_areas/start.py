"""What a person waits for: `airssys run hello.wasm` as a whole process, against starting Python and nothing else."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
AIRSSYS = ROOT / ".venv" / "bin" / "airssys"
HELLO = ROOT / "tests" / "guests" / "hello.wasm"
WARM_RUNS = 25
COLD_RUNS = 5

_BASELINE = "python -I -c pass"


def _seconds(command: list[str], environment: dict[str, str]) -> float:
    started = time.perf_counter()
    null = subprocess.DEVNULL
    done = subprocess.run(command, env=environment, stdin=null, stdout=null, stderr=subprocess.PIPE, check=False)
    elapsed = time.perf_counter() - started
    if done.returncode:
        words = done.stderr.decode("utf-8", "replace")[-300:]
        raise RuntimeError(f"{command[0]} ended with {done.returncode}: {words}")
    return elapsed


def _row(name: str, seconds: list[float], baseline: list[float]) -> dict[str, object]:
    p50, base = statistics.median(seconds) * 1000, statistics.median(baseline) * 1000
    p99 = sorted(seconds)[min(len(seconds) - 1, round(0.99 * (len(seconds) - 1)))] * 1000
    return {
        "name": name,
        "p50": round(p50, 1),
        "p99": round(p99, 1),
        "unit": "ms",
        "n": len(seconds),
        "baseline": _BASELINE,
        "baseline_p50": round(base, 1),
        "ratio": round(p50 / base, 2),
    }


def measure() -> Iterator[dict[str, object]]:
    """Time whole runs without a supervisor running: with the compiled code cached, and with nothing cached at all."""
    if not HELLO.exists():
        raise FileNotFoundError(f"{HELLO}: build the guests first (scripts/build-guests)")
    plain = [sys.executable, "-I", "-c", "pass"]
    run = [str(AIRSSYS), "run", str(HELLO)]
    with tempfile.TemporaryDirectory(prefix="airssys-bench-") as directory:
        warm = os.environ | {"AIRSSYS_STATE": f"{directory}/warm"}
        _seconds(run, warm)
        times: list[float] = []
        baseline: list[float] = []
        for _ in range(WARM_RUNS):
            times.append(_seconds(run, warm))
            baseline.append(_seconds(plain, warm))
        yield _row("start: airssys run hello.wasm, compiled before, no supervisor running", times, baseline)
        times, baseline = [], []
        for number in range(COLD_RUNS):
            cold = os.environ | {"AIRSSYS_STATE": f"{directory}/cold-{number}"}
            times.append(_seconds(run, cold))
            baseline.append(_seconds(plain, cold))
        yield _row("start: airssys run hello.wasm, nothing cached, no supervisor running", times, baseline)
