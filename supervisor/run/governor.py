"""When a worker is held, and for how long, so that it computes no more than its `cpu_time` allows. Pure.

A closed loop: what counts is the CPU time that its process has used, read after it was used, and not how long it was
let run. A fixed share of running and stopping, asked for 30 %, gave 20 %. What a worker has used beyond its quota
between two looks is owed, and is given back before it goes on. `run_quotas` reads the clocks and stops the process.

Nobody is looked at more often than `watch` looks at everybody, but for who could use up what is left before that.
"""

from __future__ import annotations

from typing import Final

from ipc.policy.rate import NEVER, SECOND_NS, SpentRate
from supervisor.run.watch import INTERVAL_NS

LEAST_NS: Final = 10 * 10**6
"""A component needs so much CPU time a second to start, to answer its supervisor, and to be asked how it is."""
LEAST_LOOK_NS: Final = 5 * 10**6
"""Two looks at one worker are at least so far apart: what it can use beyond its quota before that is noticed."""
LEAST_TURN_NS: Final = 5 * 10**6
TURNS_PER_S: Final = 10
"""One that is held goes on when so much of a second's worth is there again, and no less than `LEAST_TURN_NS` of it."""
HELD_MAX_NS: Final = 4 * SECOND_NS
"""However much is owed: by then it may answer. Who leaves three of the broker's heartbeats unanswered, 15 s apart,
counts as stuck; where the broker's memory is high, who reads nothing for five seconds is to blame."""
ANSWER_NS: Final = 10 * 10**6
"""How long it may then run, before it is held again for what it still owes."""


class Governor:
    """One worker's; `next_ns` is when to look again at the latest, 0 where the look at everybody is soon enough."""

    __slots__ = ("_answers_until_ns", "_rate", "_seen_cpu_ns", "_seen_ns", "_since_ns", "_was_held_ns", "next_ns")

    def __init__(self, rate: SpentRate, now_ns: int, cpu_ns: int) -> None:
        """Begin with a worker whose process has used `cpu_ns` so far, which was not its component's doing."""
        self._rate = rate
        self._seen_ns = now_ns
        self._seen_cpu_ns = cpu_ns
        self._since_ns = 0
        self._answers_until_ns = 0
        self._was_held_ns = 0
        self.next_ns = 0

    @property
    def is_holding(self) -> bool:
        """Whether the worker is to stand still."""
        return self._since_ns > 0

    def held_ns(self, now_ns: int) -> int:
        """How long it was held in all."""
        return self._was_held_ns + (max(0, now_ns - self._since_ns) if self._since_ns else 0)

    def look(self, now_ns: int, cpu_ns: int) -> bool:
        """Take what its process has used in all; True where the worker is to stand still until `next_ns`."""
        used_ns, elapsed_ns = max(0, cpu_ns - self._seen_cpu_ns), now_ns - self._seen_ns
        self._seen_cpu_ns, self._seen_ns = max(cpu_ns, self._seen_cpu_ns), now_ns
        if not (used_ns or self._since_ns or self.next_ns):
            return False
        rate = self._rate
        rate.spend(now_ns, used_ns)
        if self._since_ns:
            if self._since_ns <= now_ns < self.next_ns:
                return True
            self.let_go(now_ns)
            used_ns = 1  # so that it is looked at again soon
            if rate.owed_ns(now_ns):
                self.next_ns = self._answers_until_ns = now_ns + ANSWER_NS
                return False
        elif rate.available(now_ns):
            self._answers_until_ns = 0
        elif self._answers_until_ns - ANSWER_NS <= now_ns < self._answers_until_ns:
            return False
        else:
            self._hold(now_ns)
            return True
        self.next_ns = self._next_look_ns(now_ns, used_ns, elapsed_ns)
        return False

    def let_go(self, now_ns: int) -> None:
        """Hold it no longer, for what reason ever."""
        self._was_held_ns = self.held_ns(now_ns)
        self._since_ns = self.next_ns = 0

    def finish(self, now_ns: int, cpu_ns: int) -> None:
        """Count what its process has used in all, now that it has ended (0: not known)."""
        self.let_go(now_ns)
        self._rate.spend(now_ns, max(0, cpu_ns - self._seen_cpu_ns))

    def _hold(self, now_ns: int) -> None:
        rate = self._rate
        per_s = rate.per_s or 0
        wait_ns = rate.wait_ns(now_ns, min(per_s, max(LEAST_TURN_NS, per_s // TURNS_PER_S)))
        self._since_ns = max(1, now_ns)
        self.next_ns = now_ns + (HELD_MAX_NS if wait_ns == NEVER else min(wait_ns, HELD_MAX_NS))

    def _next_look_ns(self, now_ns: int, used_ns: int, elapsed_ns: int) -> int:
        """When it can have used up what is left, if it goes on as fast as it was, or as one thread can."""
        per_s = self._rate.per_s
        if per_s is None or not used_ns:
            return 0
        speed = max(SECOND_NS, used_ns * SECOND_NS // max(1, elapsed_ns))
        if speed <= per_s:
            return 0
        left_ns = self._rate.available(now_ns) * SECOND_NS // (speed - per_s)
        return 0 if left_ns >= INTERVAL_NS else now_ns + max(LEAST_LOOK_NS, left_ns)
