"""The five quotas of a component: what is measured, how much of it by default, and what is said when it is full. Pure.

Two kinds. A *level* is what a component holds; it falls when something is released. A *rate* is what it does in a
second; it falls by itself. Both are checked and consumed in one step: two steps would race. A limit of zero allows
nothing; None is unlimited, which only a host may grant.
"""

from __future__ import annotations

from typing import Final

from ipc.policy.pacing import Pace, pace
from ipc.policy.quota import OK, QuotaLevel
from ipc.policy.rate import NEVER, Rate, RateState, SpentRate
from ipc.struct import Struct

LEVEL: Final = "level"
RATE: Final = "rate"
NEVER_MS: Final = 2**64 - 1
"""`retry_after_ms` where waiting does not help."""


class QuotaKind(Struct, frozen=True):
    """One of the five: its name as it is written in `[quota]`, and what a component has that says nothing."""

    name: str
    kind: str
    unit: str
    default: int


STORAGE: Final = QuotaKind("storage", LEVEL, "bytes", 100_000_000)
MESSAGE_RATE: Final = QuotaKind("message_rate", RATE, "messages/s", 1_000)
NETWORK_BANDWIDTH: Final = QuotaKind("network_bandwidth", RATE, "bytes/s", 10_000_000)
CPU_TIME: Final = QuotaKind("cpu_time", RATE, "ns/s", 1_000_000_000)
MEMORY: Final = QuotaKind("memory", LEVEL, "bytes", 256_000_000)
QUOTAS: Final = (STORAGE, MESSAGE_RATE, NETWORK_BANDWIDTH, CPU_TIME, MEMORY)


class QuotaLimits(Struct, frozen=True):
    """What one component may use of each; None is unlimited."""

    storage: int | None = STORAGE.default
    message_rate: int | None = MESSAGE_RATE.default
    network_bandwidth: int | None = NETWORK_BANDWIDTH.default
    cpu_time: int | None = CPU_TIME.default
    memory: int | None = MEMORY.default


DEFAULT_LIMITS: Final = QuotaLimits()


class OverQuota(Struct, frozen=True):
    """A refusal: what is used, what is allowed, and when trying again can succeed (NEVER: not by waiting)."""

    quota: str
    usage: int
    limit: int
    retry_after_ns: int = NEVER

    @property
    def retry_after_ms(self) -> int:
        """Whole milliseconds, rounded up, so that the time is over when they are; NEVER_MS where waiting is in vain."""
        return NEVER_MS if self.retry_after_ns == NEVER else -(-self.retry_after_ns // 1_000_000)


class Level:
    """What a component holds of something, and the most that it held at once."""

    __slots__ = ("limit", "peak", "usage")

    def __init__(self, limit: int | None, usage: int = 0) -> None:
        """Start with what is there, counted by whoever keeps it: a level is never taken from where it was saved."""
        if usage < 0 or (limit is not None and limit < 0):
            raise ValueError("a level and its limit are not negative")
        self.limit = limit
        self.usage = self.peak = usage

    def take(self, amount: int) -> bool:
        """Take it whole or not at all."""
        usage = self.usage + amount
        if self.limit is not None and usage > self.limit:
            return False
        self.usage = usage
        if usage > self.peak:
            self.peak = usage
        return True

    def release(self, amount: int) -> None:
        """Give back; more than there is gives back what there is."""
        self.usage = max(0, self.usage - amount)

    def measured(self, usage: int) -> None:
        """Take the word of who measures what is really held; it may be above the limit."""
        self.usage = max(0, usage)
        self.peak = max(self.peak, self.usage)


class QuotasState(Struct, frozen=True):
    """What outlives the process that counts. Levels are not in it: they are measured again from what is held."""

    message_rate: RateState | None = None
    network_bandwidth: RateState | None = None
    cpu_time: RateState | None = None


NOTHING_BEFORE: Final = QuotasState()


class Quotas:
    """The five quotas of one component. Nothing in it knows of any other component."""

    __slots__ = ("_statuses", "cpu_time", "memory", "message_rate", "network_bandwidth", "storage")

    def __init__(self, limits: QuotaLimits = DEFAULT_LIMITS, now_ns: int = 0, state: QuotasState | None = None) -> None:
        """Start with nothing used, or go on from `state`."""
        self.storage = Level(limits.storage)
        self.memory = Level(limits.memory)
        before = NOTHING_BEFORE if state is None else state
        self.message_rate = Rate(limits.message_rate, now_ns, before.message_rate)
        self.network_bandwidth = Rate(limits.network_bandwidth, now_ns, before.network_bandwidth)
        self.cpu_time = SpentRate(limits.cpu_time, now_ns, before.cpu_time)
        self._statuses = _ALL_OK

    def take_messages(self, now_ns: int, count: int = 1) -> OverQuota | None:
        """Count messages that are about to be sent, all or none; the refusal, or None."""
        return take(self.message_rate, MESSAGE_RATE, now_ns, count)

    def take_storage(self, amount_bytes: int) -> OverQuota | None:
        """Count what is about to be kept; the refusal, or None."""
        if self.storage.take(amount_bytes):
            return None
        assert self.storage.limit is not None
        return OverQuota(STORAGE.name, self.storage.usage, self.storage.limit)

    def measure_memory(self, usage_bytes: int) -> OverQuota | None:
        """Note what is really held; what it is more than allowed, or None."""
        memory = self.memory
        memory.measured(usage_bytes)
        if memory.limit is None or memory.usage <= memory.limit:
            return None
        return OverQuota(MEMORY.name, memory.usage, memory.limit)

    def spend_cpu_time(self, now_ns: int, used_ns: int) -> OverQuota | None:
        """Count what was computed; where something is owed, how long it is to be kept from computing, or None."""
        rate = self.cpu_time
        rate.spend(now_ns, used_ns)
        owed_ns = rate.owed_ns(now_ns)
        if not owed_ns:
            return None
        assert rate.per_s is not None
        return OverQuota(CPU_TIME.name, rate.usage(now_ns), rate.per_s, owed_ns)

    def take_bandwidth(self, now_ns: int, amount_bytes: int) -> OverQuota | None:
        """Count bytes that go in either direction, all or none; the refusal, or None."""
        return take(self.network_bandwidth, NETWORK_BANDWIDTH, now_ns, amount_bytes)

    def pace_bandwidth(self, now_ns: int, wanted_bytes: int) -> Pace:
        """Count as many bytes of a stream as may go now, in either direction; else say how long to wait."""
        return pace(self.network_bandwidth, now_ns, wanted_bytes)

    def states(self, now_ns: int) -> tuple[QuotaLevel, ...]:
        """How full each is, in the order of `QUOTAS`."""
        return tuple(
            QuotaLevel(kind.name, used.usage, used.limit, kind.unit, used.peak)
            if isinstance(used, Level)
            else rate_level(used, kind, now_ns)
            for kind, used in zip(QUOTAS, self._all(), strict=True)
        )

    @property
    def is_calm(self) -> bool:
        """Whether each was ok when `crossings` was last asked."""
        return self._statuses is _ALL_OK

    def crossings(self, now_ns: int) -> tuple[QuotaLevel, ...]:
        """Those whose status is another one than when this was last asked: each crossing once."""
        levels = self.states(now_ns)
        statuses = tuple(level.status for level in levels)
        if statuses == self._statuses:
            return ()
        crossed = tuple(level for level, before in zip(levels, self._statuses, strict=True) if level.status != before)
        self._statuses = _shared.setdefault(statuses, statuses)
        return crossed

    def state(self, now_ns: int) -> QuotasState:
        """What a new `Quotas` must know to go on as this one would."""
        return QuotasState(
            self.message_rate.state(now_ns), self.network_bandwidth.state(now_ns), self.cpu_time.state(now_ns)
        )

    def _all(self) -> tuple[Level | Rate, ...]:
        return (self.storage, self.message_rate, self.network_bandwidth, self.cpu_time, self.memory)


def take(rate: Rate, kind: QuotaKind, now_ns: int, count: int = 1) -> OverQuota | None:
    """Take from a rate; the refusal, or None."""
    wait_ns = rate.take(now_ns, count)
    if not wait_ns:
        return None
    assert rate.per_s is not None
    return OverQuota(kind.name, rate.usage(now_ns), rate.per_s, wait_ns)


def rate_level(rate: Rate, kind: QuotaKind, now_ns: int) -> QuotaLevel:
    """How full a rate is."""
    return QuotaLevel(kind.name, rate.usage(now_ns), rate.per_s, kind.unit)


_ALL_OK: Final = (OK,) * len(QUOTAS)
_shared: Final = {_ALL_OK: _ALL_OK}
"""One tuple for each of the 4^5 combinations, so that each of ten thousand components holds a reference."""
