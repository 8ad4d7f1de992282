"""Requests that wait for their answer, by correlation id. Pure.

Each ends exactly once: whoever ends it takes it out of the table, and who comes later finds nothing. Nothing else knows
whether a request is still open.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Final

from ipc.broker.mailbox import NUMBERS
from ipc.broker.sessions import Session

SPARE_TIMERS: Final = 64
"""Timers of ended requests that may be left, beside as many as there are open ones, before they are cleared away."""


class Pending:
    """An open request: of a component's, or of an operator's, which is known by its `call`."""

    __slots__ = ("call", "correlation", "deadline_ns", "delivered", "requester", "target")

    def __init__(
        self, correlation: int, requester: Session | None, call: int | None, target: Session, deadline_ns: int
    ) -> None:
        """Begin undelivered."""
        self.correlation = correlation
        self.requester = requester
        self.call = call
        self.target = target
        self.deadline_ns = deadline_ns
        self.delivered = False


class Requests:
    """The table. `random` gives 53-bit numbers: a correlation id can't be guessed, though guessing gains nothing."""

    def __init__(self, random: Callable[[], int]) -> None:
        """Begin empty."""
        self._random = random
        self._open: dict[int, Pending] = {}
        self._calls: dict[int, int] = {}
        self._timers: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return len(self._open)

    def add(self, requester: Session | None, target: Session, deadline_ns: int, call: int | None = None) -> Pending:
        """Open a request."""
        correlation = self._random() % NUMBERS
        while not correlation or correlation in self._open:
            correlation = (correlation + 1) % NUMBERS
        pending = Pending(correlation, requester, call, target, deadline_ns)
        self._open[correlation] = pending
        if requester is not None:
            requester.pending.add(correlation)
        if call is not None:
            self._calls[call] = correlation
        if len(self._timers) > 2 * len(self._open) + SPARE_TIMERS:
            # Else who asks and cancels in turn, with long timeouts, fills our memory.
            self._timers = [(each.deadline_ns, each.correlation) for each in self._open.values()]
            heapq.heapify(self._timers)
        else:
            heapq.heappush(self._timers, (deadline_ns, correlation))
        return pending

    def is_open(self, correlation: int) -> bool:
        """Whether somebody waits for the answer."""
        return correlation in self._open

    def pass_on(self, correlation: int, target: Session) -> None:
        """Note that one that waits is to be answered by another instance."""
        self._open[correlation].target = target

    def delivered(self, correlation: int) -> bool:
        """Note that it is with its receiver now; whether somebody still waits for the answer."""
        pending = self._open.get(correlation)
        if pending is None:
            return False
        pending.delivered = True
        return True

    def end(self, correlation: int) -> Pending | None:
        """Take it out of the table: who gets it answers it. None where it has ended before."""
        pending = self._open.pop(correlation, None)
        if pending is None:
            return None
        if pending.requester is not None:
            pending.requester.pending.discard(correlation)
        if pending.call is not None:
            self._calls.pop(pending.call, None)
        if not pending.delivered:
            pending.target.mailbox.dead += 1
        return pending

    def never_put(self, pending: Pending) -> None:
        """End one that its receiver's mailbox had no room for."""
        pending.delivered = True
        self.end(pending.correlation)

    def end_call(self, call: int) -> Pending | None:
        """End that of an operator's call."""
        correlation = self._calls.get(call)
        return None if correlation is None else self.end(correlation)

    def has_call(self, call: int) -> bool:
        """Whether that operator waits."""
        return call in self._calls

    def calls(self) -> int:
        """How many operators wait."""
        return len(self._calls)

    def due(self, now_ns: int) -> list[Pending]:
        """End those whose time is over, and return them."""
        over: list[Pending] = []
        timers = self._timers
        while timers and timers[0][0] <= now_ns:
            correlation = heapq.heappop(timers)[1]
            pending = self._open.get(correlation)
            if pending is not None and pending.deadline_ns <= now_ns:
                self.end(correlation)
                over.append(pending)
        return over

    def next_due_ns(self) -> int | None:
        """When `due` will next have something to end."""
        timers = self._timers
        while timers and timers[0][1] not in self._open:
            heapq.heappop(timers)
        return timers[0][0] if timers else None
