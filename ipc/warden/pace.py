"""How fast one worker's calls are answered: a rate with a burst, as one timestamp (GCRA). Pure: time is passed in."""

from __future__ import annotations

from typing import Final

BURST_NS: Final = 1_000_000_000
"""Calls ahead of the rate by less than this are not slowed."""
TOLERATED_NS: Final = 5_000_000_000
"""A worker that stays paced for this long is ended."""


class Pace:
    """The pace of one worker. Integer nanoseconds of a monotonic clock."""

    __slots__ = ("_burst_ns", "_interval_ns", "_next_ns", "_paced_since_ns", "_tolerated_ns")

    def __init__(
        self, calls_per_second: int, burst_ns: int = BURST_NS, tolerated_ns: int | None = TOLERATED_NS
    ) -> None:
        """Allow this many calls a second, ahead of that by `burst_ns`; paced for `tolerated_ns`, for ever if None."""
        self._burst_ns = burst_ns
        self._tolerated_ns = tolerated_ns
        self._interval_ns = 1_000_000_000 // max(calls_per_second, 1)
        self._next_ns = 0
        self._paced_since_ns = -1

    def note(self, now_ns: int, count: int = 1) -> int:
        """Count one call, or one that is as dear as `count`, and return how long to wait before answering it.

        -1 to end the worker.
        """
        self._next_ns = max(self._next_ns, now_ns) + self._interval_ns * count
        ahead_ns = self._next_ns - now_ns - self._burst_ns
        if ahead_ns <= 0:
            self._paced_since_ns = -1
            return 0
        if self._paced_since_ns < 0:
            self._paced_since_ns = now_ns
        spent = self._tolerated_ns is not None and now_ns - self._paced_since_ns > self._tolerated_ns
        return -1 if spent else ahead_ns
