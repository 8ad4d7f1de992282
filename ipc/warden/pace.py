"""How fast one worker's calls are answered: a rate with a burst, as one timestamp (GCRA). Pure: time is passed in."""

from __future__ import annotations

from typing import Final

BURST_NS: Final = 1_000_000_000
"""Calls ahead of the rate by less than this are not slowed."""
TOLERATED_NS: Final = 5_000_000_000
"""A worker that stays paced for this long is ended."""


class Pace:
    """The pace of one worker. Integer nanoseconds of a monotonic clock."""

    __slots__ = ("_interval_ns", "_next_ns", "_paced_since_ns")

    def __init__(self, calls_per_second: int) -> None:
        """Allow this many calls a second."""
        self._interval_ns = 1_000_000_000 // max(calls_per_second, 1)
        self._next_ns = 0
        self._paced_since_ns = -1

    def note(self, now_ns: int) -> int:
        """Count one call and return how long to wait before answering it; -1 to end the worker."""
        self._next_ns = max(self._next_ns, now_ns) + self._interval_ns
        ahead_ns = self._next_ns - now_ns - BURST_NS
        if ahead_ns <= 0:
            self._paced_since_ns = -1
            return 0
        if self._paced_since_ns < 0:
            self._paced_since_ns = now_ns
        return -1 if now_ns - self._paced_since_ns > TOLERATED_NS else ahead_ns
