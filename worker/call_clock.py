"""The time of an actor's calls, kept by one thread that sleeps while there are none.

When a call's time is over the engine's epoch advances, which ends the guest at its next branch. One that is blocked in
the host then (waiting for input, asleep) never comes to a branch: a little later it is given up. Between, a busy
guest's link is attended to.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from worker import engine_api as api

_NEVER_NS: Final = 1 << 62
_PERIOD_NS: Final = 500_000_000
"""How often a busy guest's link is attended to."""
_GRACE_NS: Final = 2_000_000_000
_MARGIN_NS: Final = 100_000_000


class CallClock:
    """Bounds each call from `begin` to `end`; both are for the guest's thread."""

    def __init__(
        self,
        interrupt: Callable[[], None],
        timeout_ns: int | None,
        attend: Callable[[], None],
        give_up: Callable[[], None],
    ) -> None:
        """`timeout_ns` is for each call, which `interrupt` ends at the guest's next branch.

        `attend` is done now and then while one runs; `give_up` must end the process. `context`, the store's, must be
        set before the first.
        """
        self.deadline_ns = _NEVER_NS
        """When the call that runs must be over."""
        self.context = 0
        self._interrupt = interrupt
        self._timeout_ns = timeout_ns
        self._attend = attend
        self._give_up = give_up
        # No call that begins while the thread sleeps is over before it wakes.
        self._period_ns = min(_PERIOD_NS, timeout_ns or _PERIOD_NS)
        self._margin_ns = min(_MARGIN_NS, (timeout_ns or 0) // 10)
        self._changed = threading.Condition(threading.Lock())
        self._calls = 0
        self._runs = False
        self._is_over = False
        self.is_parked = False
        """Whether its thread sleeps until there is a call."""
        self._thread = threading.Thread(target=self._keep, name="call-clock", daemon=True)

    def start(self) -> None:
        """Start the thread, before the first call."""
        self._thread.start()

    def begin(self) -> None:
        """A call begins."""
        now_ns = time.monotonic_ns()
        with self._changed:
            self._calls += 1
            self._runs = True
            self._is_over = False
            if self._timeout_ns is not None:
                self.deadline_ns = now_ns + self._timeout_ns
            # From the epoch that it is now: one that came too late for the call before doesn't count.
            assert self.context
            api.context_set_epoch_deadline(self.context, 1)
            if self.is_parked:
                self._changed.notify()

    def end(self) -> None:
        """The call has returned."""
        with self._changed:
            self._runs = False
            self.deadline_ns = _NEVER_NS

    def expire(self) -> None:
        """End the call that runs if its time is over: for the guest's thread, which has waited that long in the host.

        Without this it could be back, and its call have returned, before the clock's own thread comes to it.
        """
        with self._changed:
            self._end_overdue()

    @property
    def host_deadline_ns(self) -> int:
        """When a host function must have returned, for its guest to be told that it has waited in vain."""
        return self.deadline_ns - self._margin_ns

    def left_ns(self) -> int:
        """How long the call that runs may still take."""
        return max(0, self.deadline_ns - time.monotonic_ns())

    def _keep(self) -> None:
        while True:
            with self._changed:
                calls = self._calls
                left_ns = self.deadline_ns - time.monotonic_ns()
                self._changed.wait(max(0, min(self._period_ns, _PERIOD_NS if self._is_over else left_ns)) / 1e9)
                if not self._runs and calls == self._calls:
                    self.is_parked = True
                    self._changed.wait()
                    self.is_parked = False
                    continue
                self._end_overdue()
                runs = self._runs
            if runs:
                self._attend()

    def _end_overdue(self) -> None:
        if not self._runs:
            return
        late_ns = time.monotonic_ns() - self.deadline_ns
        if late_ns >= 0 and not self._is_over:
            self._is_over = True
            self._interrupt()
        elif late_ns >= _GRACE_NS:
            self._give_up()
