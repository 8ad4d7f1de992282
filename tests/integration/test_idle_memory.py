"""What an idle worker holds: the budget, by its proportional set size (proc(5), smaps_rollup)."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

GUESTS = Path(__file__).resolve().parents[1] / "guests"
BUDGET_KIB = 7 * 1024


def _pss_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def _sealed(pid: int) -> bool:
    try:
        return "\nSeccomp_filters:\t2\n" in Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return False


@pytest.mark.needs_root
def test_an_idle_worker_keeps_to_its_budget(run, deadline) -> None:
    """A sealed worker whose guest waits for input holds at most 7 MiB once its start is over, as its keeper does."""
    with run.start(GUESTS / "tool.wasm", "-q", guest=("print", "ready", ",", "wait-stdin")) as process:
        assert process.stdout is not None
        assert process.stdout.read(5) == b"ready"
        (worker,) = (one for one in psutil.Process(process.pid).children(recursive=True) if _sealed(one.pid))
        deadline.until(lambda: _pss_kib(worker.pid) <= BUDGET_KIB, "the worker keeps to its budget")
        assert _pss_kib(worker.ppid()) <= BUDGET_KIB
        process.communicate(b"", 60)
    assert process.returncode == 0
