"""What two hundred idle actors cost: the processor time of all processes of `airssys up`, as a share of the machine.

Idle is: started, connected, healthy, and nobody says anything. Read from the scheduler's own clock of each thread.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import wasmtime
from bench_areas._fleet import GUESTS, up

ACTORS = 200
BUDGET_PERCENT = 2.0
WINDOWS, WINDOW_S = 3, 15.0
"""Each as long as a heartbeat: in a shorter one there are all of them, or none."""
SETTLE_S = 5.0
KINDS = ("supervisor", "broker", "warden", "zygote", "keepers", "workers")


def _kinds(supervisor: int) -> dict[int, str]:
    """Return what each process is: the supervisor started zygote, warden and broker, the zygote forked the keepers."""
    kinds = {supervisor: "supervisor"}
    for child in psutil.Process(supervisor).children():
        words = " ".join(child.cmdline())
        kinds[child.pid] = next((kind for kind in ("broker", "warden") if kind in words), "zygote")
        for keeper in child.children():
            kinds[keeper.pid] = "keepers"
            kinds |= dict.fromkeys((worker.pid for worker in keeper.children()), "workers")
    return kinds


def _used_ns(pid: int) -> int:
    """Return how long the threads of a process have run (Documentation/scheduler/sched-stats.rst)."""
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/schedstat", encoding="ascii") as source:
            total += int(source.read().split()[0])
    return total


def _windows(supervisor: int) -> Iterator[Counter[str]]:
    """Give what was used in each window by each kind, in parts of a hundred of the machine."""
    time.sleep(SETTLE_S)
    kinds = _kinds(supervisor)
    for _ in range(WINDOWS):
        began_ns, before = time.monotonic_ns(), {pid: _used_ns(pid) for pid in kinds}
        time.sleep(WINDOW_S)
        used: Counter[str] = Counter()
        for pid, kind in kinds.items():
            used[kind] += _used_ns(pid) - before[pid]
        whole_ns = (time.monotonic_ns() - began_ns) * (os.cpu_count() or 1)
        yield Counter({kind: 100 * ns / whole_ns for kind, ns in used.items()})


def measure() -> Iterator[dict[str, object]]:
    """Yield one row for all together, and one for each kind of process."""
    wasm = wasmtime.wat2wasm((GUESTS / "wat" / "actor.wat").read_text(encoding="utf-8"))
    names = [f"idle{number}" for number in range(ACTORS)]
    with (
        tempfile.TemporaryDirectory(prefix="airssys-bench-", ignore_cleanup_errors=True) as directory,
        up(Path(directory), dict.fromkeys(names, ""), wasm) as supervisor,
    ):
        windows = list(_windows(supervisor))
    together = [sum(window.values()) for window in windows]
    yield _row(f"{ACTORS} actors, all processes together", together)
    for kind in KINDS:
        yield _row(f"{ACTORS} actors, {kind}", [window[kind] for window in windows])


def _row(name: str, percent: list[float]) -> dict[str, object]:
    p50 = statistics.median(percent)
    return {
        "name": f"idle: {name}",
        "p50": round(p50, 3),
        "p99": round(max(percent), 3),
        "unit": f"% of {os.cpu_count()} cores",
        "n": len(percent),
        "baseline": "the budget",
        "baseline_p50": BUDGET_PERCENT,
        "ratio": round(p50 / BUDGET_PERCENT, 3),
    }
