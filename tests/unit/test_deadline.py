"""The thread beside the guest: it interrupts when time is up, and lets go of the start's pages when that is over."""

from __future__ import annotations

import threading

import pytest

from worker import deadline, resident
from worker.deadline import Deadline


@pytest.mark.parametrize("started_s", [0.001, 60.0], ids=["a start that is over", "a start that isn't"])
def test_the_guest_is_interrupted(monkeypatch: pytest.MonkeyPatch, started_s: float) -> None:
    """A guest that runs for longer than its time is interrupted, before its start is over or after."""
    monkeypatch.setattr(deadline, "STARTED_S", started_s)
    interrupted = threading.Event()
    with Deadline(interrupted.set, 20_000_000):
        assert interrupted.wait(30)


@pytest.mark.parametrize("timeout_ns", [None, 10**12], ids=["without a deadline", "with one"])
def test_pages_are_let_go_of(monkeypatch: pytest.MonkeyPatch, timeout_ns: int | None) -> None:
    """A guest that still runs when its start is over holds no pages of that, whether or not its time is bounded."""
    monkeypatch.setattr(deadline, "STARTED_S", 0.001)
    let_go = threading.Event()
    monkeypatch.setattr(resident, "let_go", let_go.set)
    interrupted = threading.Event()
    with Deadline(interrupted.set, timeout_ns):
        assert let_go.wait(30)
    assert not interrupted.is_set()
