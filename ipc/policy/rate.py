"""A rate with a burst: the generic cell rate algorithm (ITU-T I.371, annex A) on integers. Pure: time is passed in.

Every item costs the same span of time, and one timestamp says until when the spans of the accepted items reach. What
reaches further ahead of now than the burst allows is refused, and how much further is the time to wait. That is exactly
a bucket of tokens, without one to be filled: nothing happens while nobody asks, so how often is asked changes nothing.

Time is counted in parts of a nanosecond, `per_s` of them to each: an item is then exactly 10^9 parts long at any rate,
so that no rounding lets more through (or less) however long it goes on.
"""

from __future__ import annotations

from typing import Final

from ipc.struct import Struct

SECOND_NS: Final = 1_000_000_000
NEVER: Final = -1
"""Instead of a time to wait: waiting does not help."""


class RateState(Struct, frozen=True):
    """What outlives the process that counts: `ahead` in billionths of an item; what this and the last second asked."""

    ahead: int
    asked: int
    asked_before: int


class Rate:
    """So many items a second, after a pause as many at once as in one second. `per_s` 0 is nothing, None unlimited.

    Of any stretch of time in which `now_ns` moves on by t seconds at most `per_s * t + per_s` items are accepted, in
    whatever pattern they are asked for. When the clock steps back the bucket counts as used up, at worst: it can't
    accept more, and is itself again a second later.
    """

    __slots__ = ("_asked", "_asked_before", "_reach", "_second", "per_s")

    def __init__(self, per_s: int | None, now_ns: int = 0, state: RateState | None = None) -> None:
        """Start with nothing used, or where `state` was: the time between counts as none."""
        if per_s is not None and per_s < 0:
            raise ValueError("a rate is not negative")
        self.per_s = per_s
        self._reach = 0
        self._second = now_ns // SECOND_NS
        self._asked = 0
        self._asked_before = 0
        if state is not None:
            self._asked = state.asked
            self._asked_before = state.asked_before
            if per_s is not None:
                self._reach = now_ns * per_s + min(state.ahead, per_s * SECOND_NS)

    def take(self, now_ns: int, count: int = 1) -> int:
        """Take `count` items at once or none: 0 when they were taken, else the nanoseconds until they can be, or NEVER.

        One step: between the question and the taking there is nothing.
        """
        second = now_ns // SECOND_NS
        if second == self._second:
            self._asked += count
        else:
            self._turn(second, count)
        per_s = self.per_s
        if per_s is None:
            return 0
        now = now_ns * per_s
        reach = self._reach
        burst = per_s * SECOND_NS
        if reach < now:
            reach = now
        elif reach - now > burst:
            # No accepted item reaches so far: the clock went back. Written down, or it would stay ahead for as long.
            self._reach = reach = now + burst
        reach += count * SECOND_NS
        excess = reach - now - burst
        if excess > 0:
            return NEVER if count > per_s else -(-excess // per_s)
        self._reach = reach
        return 0

    def take_up_to(self, now_ns: int, count: int) -> int:
        """Take as many of `count` items as there are now, and return how many: for what can go on in pieces."""
        taken = min(count, self.available(now_ns))
        if taken:
            self.take(now_ns, taken)
        return taken

    def wait_ns(self, now_ns: int, count: int = 1) -> int:
        """How long until `count` items can be taken if nobody else takes any; 0 for now, NEVER where they can't be."""
        per_s = self.per_s
        if per_s is None:
            return 0
        if count > per_s:
            return NEVER
        excess = self._ahead(now_ns, per_s) + (count - per_s) * SECOND_NS
        return max(0, -(-excess // per_s)) if per_s else 0

    def available(self, now_ns: int) -> int:
        """How many items could be taken now; of an unlimited rate as many as anybody asks for (2^63 - 1)."""
        per_s = self.per_s
        return 2**63 - 1 if per_s is None else per_s - -(-self._ahead(now_ns, per_s) // SECOND_NS)

    def usage(self, now_ns: int) -> int:
        """How many items count now: those asked for within a second, or those that are not yet given back if more.

        Refused ones are among those asked for. So a component that keeps its rate is told how near it is, and one that
        floods how far beyond.
        """
        second, into_ns = divmod(now_ns, SECOND_NS)
        if second != self._second:
            self._turn(second, 0)
        # The last whole second weighs as much of itself as is less than a second ago.
        lately = self._asked + self._asked_before * (SECOND_NS - into_ns) // SECOND_NS
        return lately if self.per_s is None else max(lately, -(-self._ahead(now_ns, self.per_s) // SECOND_NS))

    def state(self, now_ns: int) -> RateState:
        """What a new `Rate` must know to go on as this one would."""
        if now_ns // SECOND_NS != self._second:
            self._turn(now_ns // SECOND_NS, 0)
        ahead = 0 if self.per_s is None else self._ahead(now_ns, self.per_s)
        return RateState(ahead, self._asked, self._asked_before)

    def _ahead(self, now_ns: int, per_s: int) -> int:
        return min(max(0, self._reach - now_ns * per_s), per_s * SECOND_NS)

    def _turn(self, second: int, count: int) -> None:
        self._asked_before = self._asked if second == self._second + 1 else 0
        self._second = second
        self._asked = count


class SpentRate(Rate):
    """A rate of what can only be counted after it was used, such as computing: what goes beyond the burst is owed.

    Who uses it is to be kept from it while something is owed. Then of any stretch of t seconds at most
    `per_s * t + per_s` is used, and what was used between two counts: that is owed, so it is the same over the next
    stretch. When the clock steps back, the time between counts as none.
    """

    __slots__ = ("_then_ns",)

    def __init__(self, per_s: int | None, now_ns: int = 0, state: RateState | None = None) -> None:
        """Start with nothing used, or where `state` was, with what was owed then: the time between counts as none."""
        super().__init__(per_s, now_ns, state)
        self._then_ns = now_ns
        if state is not None and per_s is not None:
            self._reach = now_ns * per_s + state.ahead

    def spend(self, now_ns: int, count: int) -> None:
        """Count what was used, whether there was room for it or not."""
        per_s = self.per_s
        if per_s is not None:
            if now_ns < self._then_ns:
                self._reach -= (self._then_ns - now_ns) * per_s
            self._reach = max(self._reach, now_ns * per_s) + count * SECOND_NS
        self._then_ns = now_ns
        second = now_ns // SECOND_NS
        if second == self._second:
            self._asked += count
        else:
            self._turn(second, count)

    def owed_ns(self, now_ns: int) -> int:
        """How long until nothing is owed if nothing is used meanwhile: 0 for now, NEVER where nothing is given back."""
        per_s = self.per_s
        if per_s is None:
            return 0
        excess = self._ahead(now_ns, per_s) - per_s * SECOND_NS
        if excess <= 0:
            return 0
        return -(-excess // per_s) if per_s else NEVER

    def available(self, now_ns: int) -> int:
        """How much may be used now; 0 while something is owed."""
        return max(0, super().available(now_ns))

    def _ahead(self, now_ns: int, per_s: int) -> int:
        return max(0, self._reach - now_ns * per_s)
