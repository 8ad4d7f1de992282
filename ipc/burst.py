"""When calls come so quickly that those who answer them belong on one processor. Pure: time is passed in.

For a worker and its lane `ipc.warden.one_cpu` does what is said here (docs/adr/0018), with a call for each of its file
calls; for the threads of the broker `ipc.broker.one_cpu` (docs/adr/0022), with one for each turn of a single message.
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
DELAYED_NS: Final = 500_000
"""Who was ready to run for longer than this between two calls, and had to wait, shares the processor with somebody."""


class Step(enum.Enum):
    """What is to be done now."""

    NOTHING = "nothing"
    PIN = "pin"
    """Keep all on the processor on which the caller runs."""
    LET_GO = "let go"
    """Give them back what they had."""


class Burst:
    """The rhythm of calls. Integer nanoseconds of a monotonic clock."""

    __slots__ = ("_last_ns", "_quick", "_rests_until_ns", "_since_ns", "pinned")

    def __init__(self) -> None:
        """No call has come yet."""
        self._last_ns = -QUICK_NS - 1
        self._quick = 0
        self._since_ns = 0
        self._rests_until_ns = 0
        self.pinned = False
        """Whether all are on one processor, as far as the last step that was returned has been taken."""

    def note(self, now_ns: int, delayed_ns: int = 0) -> Step:
        """Note one call, and return what to do before it is answered.

        `delayed_ns` is how long the caller waited for its processor since the call before, where that is known.
        """
        gap_ns = now_ns - self._last_ns
        self._last_ns = now_ns
        if gap_ns > QUICK_NS:
            self._quick = 0
        elif self._quick < CALLS:
            self._quick += 1
        if self.pinned:
            if delayed_ns > DELAYED_NS:
                self.rest(now_ns)
                return Step.LET_GO
            if now_ns - self._since_ns < RENEWAL_NS:
                return Step.NOTHING
            return self.let_go()
        if self._quick < CALLS or now_ns < self._rests_until_ns:
            return Step.NOTHING
        self.pinned = True
        self._since_ns = now_ns
        return Step.PIN

    def interrupt(self) -> Step:
        """Something else than one call has come, which two processors do sooner: return what to do."""
        self._quick = 0
        return self.let_go()

    def let_go(self) -> Step:
        """No call has come for `PAUSE_MS`, or there will be none: return what to do."""
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
