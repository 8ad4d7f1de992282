"""By when the next step of a run must have happened. Pure: who calls brings the time.

All times are the monotonic clock's; 0 stands for none.
"""

from __future__ import annotations

from ipc.struct import Struct

START_DEADLINE_NS = 20 * 10**9
"""From the fork to the seal; a worker that hangs before its guest runs is killed."""
OUTER_GRACE_NS = 250 * 10**6
"""How much later than the inner deadline (an epoch) the outer one kills: the inner one gives the better message."""
DRAIN_DEADLINE_NS = 5 * 10**9
"""How long output is still read, and the warden's last counts awaited, after the worker ended."""


class Deadlines(Struct):
    """One deadline at a time, each set by the step before it."""

    started_ns: int = 0
    step_ns: int = 0
    _left_ns: int = 0
    _end_expected: bool = False

    def start(self, now_ns: int) -> None:
        """The worker was asked for: it is to be sealed in time."""
        self.started_ns = now_ns
        self.step_ns = now_ns + START_DEADLINE_NS

    def go(self, now_ns: int, timeout_ns: int | None) -> None:
        """The guest starts: from now on the time is its own."""
        self.started_ns = now_ns
        self.step_ns = 0 if timeout_ns is None else now_ns + timeout_ns + OUTER_GRACE_NS

    def expect_end(self, now_ns: int) -> None:
        """It says or shows that it is through: its process is to end; once, or it could say so for ever."""
        if not self._end_expected:
            self._end_expected = True
            self.kill(now_ns)

    def kill(self, now_ns: int) -> None:
        """It was killed: its process is to be reaped in time."""
        self.step_ns = now_ns + DRAIN_DEADLINE_NS

    def hold(self, now_ns: int) -> None:
        """A person is asked: that time is not the guest's."""
        if self.step_ns:
            self._left_ns, self.step_ns = max(1, self.step_ns - now_ns), 0

    def go_on(self, now_ns: int) -> None:
        """The person has answered; without a question nothing changes."""
        if self._left_ns:
            self.step_ns, self._left_ns = now_ns + self._left_ns, 0

    def next_ns(self, *others_ns: int) -> int:
        """Return the earliest of these and of `others_ns`; 0 when there is none."""
        return min((due_ns for due_ns in (self.step_ns, *others_ns) if due_ns), default=0)


def is_due(due_ns: int, now_ns: int) -> bool:
    """Whether there is such a time, and it has come."""
    return 0 < due_ns <= now_ns
