"""Whether a broker is there: when it has to be ready, when it is asked, and when it has been silent for too long. Pure.

Times are CLOCK_MONOTONIC, in nanoseconds.
"""

from __future__ import annotations

from supervisor.fleet.broker_restart import READY_WITHIN_NS

ASK_NS = 2 * 10**9
"""How often a broker is asked whether it is there."""
ANSWER_WITHIN_NS = 10 * 10**9
"""One that doesn't answer for so long is ended, and another one started: it hangs, or was stopped."""


class BrokerPulse:
    """Of one broker after the other, each from its start on."""

    def __init__(self) -> None:
        """There is none yet."""
        self.is_ready = False
        self._ready_by_ns = 0
        self._ask_at_ns = 0
        self._asked_ns = 0

    @property
    def due_ns(self) -> int:
        """When to look though nothing was said: to ask, or to see that it is lost."""
        return self._ask_at_ns if self.is_ready else self._ready_by_ns

    def starts(self, now_ns: int) -> None:
        """A broker was started."""
        self.is_ready = False
        self._ready_by_ns = now_ns + READY_WITHIN_NS

    def is_now_ready(self, now_ns: int) -> None:
        """It has said that it listens."""
        self.is_ready = True
        self._ask_at_ns, self._asked_ns = now_ns + ASK_NS, 0

    def answered(self) -> None:
        """It has said that it is there."""
        self._asked_ns = 0

    def ended(self) -> bool:
        """It is gone; return whether it had become ready."""
        was_ready, self.is_ready = self.is_ready, False
        return was_ready

    def why_lost(self, now_ns: int) -> str:
        """Return why it is given up, "" where it isn't."""
        if not self.is_ready:
            return "it did not become ready in time" if now_ns >= self._ready_by_ns else ""
        return "it did not answer" if self._asked_ns and now_ns - self._asked_ns >= ANSWER_WITHIN_NS else ""

    def is_to_be_asked(self, now_ns: int) -> bool:
        """Return whether it is to be asked now; it counts as asked then. One that owes an answer isn't asked again."""
        if not self.is_ready or now_ns < self._ask_at_ns:
            return False
        self._ask_at_ns = now_ns + ASK_NS
        if self._asked_ns:
            return False
        self._asked_ns = now_ns
        return True
