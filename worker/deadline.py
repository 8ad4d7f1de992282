"""Beside the guest: a thread that lets go of what only its start needed, and ends it when its time is up."""

from __future__ import annotations

import _thread
import types
from collections.abc import Callable

from worker import resident

STARTED_S = 1.0
"""How long a guest has run when its start is over: one that has ended by then pays nothing."""


class Deadline:
    """A context in which the guest may run for `timeout_ns` nanoseconds (None: for ever) until `interrupt` is called.

    A bare thread and a lock: `threading` would make a dozen objects of both, each a page that is no longer shared.
    """

    def __init__(self, interrupt: Callable[[], object], timeout_ns: int | None) -> None:
        self._interrupt = interrupt
        self._timeout_s = None if timeout_ns is None else timeout_ns / 1e9
        self._running = _thread.allocate_lock()

    def __enter__(self) -> Deadline:
        self._running.acquire()
        # Like a daemon: a guest blocked in the host must not keep the process from ending.
        _thread.start_new_thread(self._watch, ())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        self._running.release()

    def _watch(self) -> None:
        left_s = self._timeout_s
        if left_s is None or left_s > STARTED_S:
            if self._ended_within(STARTED_S):
                return
            resident.let_go()
            if left_s is None:
                return
            left_s -= STARTED_S
        if not self._ended_within(left_s):
            self._interrupt()

    def _ended_within(self, seconds: float) -> bool:
        return self._running.acquire(timeout=seconds)
