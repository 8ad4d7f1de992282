"""When a worker's calls come so quickly that it and its lane belong on one processor. Pure: time is passed in.

`ipc.warden.one_cpu` does what is said here; docs/adr/0018 says why and what was measured.
"""

from __future__ import annotations

import enum
from typing import Final

CALLS: Final = 16
"""So many calls, each quick after the one before, are a burst; a start makes fewer."""
QUICK_NS: Final = 1_500_000
"""A call that comes sooner than this after the one before is quick."""
PAUSE_MS: Final = 5
"""So long without a call is a pause: a burst is over, and there is time to hand over records of allowed actions."""
RENEWAL_NS: Final = 20_000_000
"""So long a burst stays on one processor; then the scheduler chooses anew, should somebody else want that one."""
REST_NS: Final = 200_000_000
"""So long nothing is kept after somebody else has had much of that processor: where none is idle nothing is gained."""


class Step(enum.Enum):
    """What is to be done now."""

    NOTHING = "nothing"
    PIN = "pin"
    """Keep worker and lane on the processor on which the lane runs."""
    LET_GO = "let go"
    """Give both back what they had."""


class Burst:
    """The rhythm of one worker's calls. Integer nanoseconds of a monotonic clock."""

    __slots__ = ("_last_ns", "_quick", "_rests_until_ns", "_since_ns", "pinned")

    def __init__(self) -> None:
        """No call has come yet."""
        self._last_ns = -QUICK_NS - 1
        self._quick = 0
        self._since_ns = 0
        self._rests_until_ns = 0
        self.pinned = False
        """Whether both are on one processor, as far as the last step that was returned has been taken."""

    def note(self, now_ns: int) -> Step:
        """Note one call, and return what to do before it is answered."""
        gap_ns = now_ns - self._last_ns
        self._last_ns = now_ns
        if gap_ns > QUICK_NS:
            self._quick = 0
        elif self._quick < CALLS:
            self._quick += 1
        if self.pinned:
            if now_ns - self._since_ns < RENEWAL_NS:
                return Step.NOTHING
            return self.let_go()
        if self._quick < CALLS or now_ns < self._rests_until_ns:
            return Step.NOTHING
        self.pinned = True
        self._since_ns = now_ns
        return Step.PIN

    def let_go(self) -> Step:
        """No call has come for `PAUSE_MS`, or the worker is done: return what to do."""
        if not self.pinned:
            return Step.NOTHING
        self.pinned = False
        return Step.LET_GO

    def judge(self, now_ns: int, used_ns: int) -> None:
        """Take a rest if the two, let go by a call just now, had less than three quarters of their processor's time."""
        if used_ns * 4 < (now_ns - self._since_ns) * 3:
            self.rest(now_ns)

    def rest(self, now_ns: int) -> None:
        """Keep nothing for `REST_NS`: it would bring nothing, or it can't be done just now."""
        self.pinned = False
        self._rests_until_ns = now_ns + REST_NS
