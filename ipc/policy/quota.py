"""How full a quota is, in numbers and in one word, and when that word changes. Pure."""

from __future__ import annotations

from typing import Final

from ipc.struct import Struct

OK: Final = "ok"
WARNING: Final = "warning"
CRITICAL: Final = "critical"
EXCEEDED: Final = "exceeded"
STATUSES: Final = (OK, WARNING, CRITICAL, EXCEEDED)
WARNING_PERCENT: Final = 80
CRITICAL_PERCENT: Final = 95


class QuotaLevel(Struct, frozen=True):
    """What is used of a quota, in `unit`s. A limit of zero allows nothing, None is unlimited.

    `peak` is the most that was held at once, where somebody watches that.
    """

    name: str
    usage: int
    limit: int | None
    unit: str = "bytes"
    peak: int | None = None

    @property
    def percent(self) -> int:
        """Usage in percent of the limit, rounded down; 0 of what is unlimited.

        Of a limit of zero it is 0 when nothing is used, else 100.
        """
        if self.limit is None:
            return 0
        if self.limit <= 0:
            return 100 if self.usage > 0 else 0
        return self.usage * 100 // self.limit

    @property
    def status(self) -> str:
        """One of ok, warning (from 80 %), critical (from 95 %) and exceeded (above the limit)."""
        if self.limit is not None and self.usage > self.limit:
            return EXCEEDED
        percent = self.percent
        return CRITICAL if percent >= CRITICAL_PERCENT else WARNING if percent >= WARNING_PERCENT else OK

    @property
    def words(self) -> str:
        """Say it for a person: `99.8 MB of 100 MB`."""
        limit = "unlimited" if self.limit is None else amount_words(self.limit, self.unit)
        return f"{amount_words(self.usage, self.unit)} of {limit}"

    def to_json(self) -> dict[str, object]:
        """Return the stable keys of `quota` in an audit event; `peak` where it is watched."""
        found: dict[str, object] = {
            "name": self.name,
            "limit": self.limit,
            "usage": self.usage,
            "unit": self.unit,
            "percent": self.percent,
            "status": self.status,
        }
        return found if self.peak is None else {**found, "peak": self.peak}


def amount_words(amount: int, unit: str = "bytes") -> str:
    """Say an amount of a quota for a person: `99.8 MB`, `5 MB/s`, `12 messages/s`, `250 ms/s`."""
    base, _, per = unit.partition("/")
    for least, size, shown in _SCALES.get(base, ()):
        if amount >= least:
            return f"{amount / size:.4g} {shown}{per and '/' + per}"
    return f"{amount} {_SMALLEST.get(base, base)}{per and '/' + per}"


_SCALES: Final = {
    "bytes": ((10**9, 10**9, "GB"), (10**6, 10**6, "MB"), (10**3, 10**3, "kB")),
    "ns": ((0, 10**6, "ms"),),
}
"""Base unit → from which amount on, how many of it are one, and how that is called; the largest first."""
_SMALLEST: Final = {"bytes": "B"}


class Crossings:
    """Tells of a level that moves when it gets from one status into another: once for each crossing."""

    __slots__ = ("status",)

    def __init__(self) -> None:
        """Start where nothing is used."""
        self.status = OK

    def note(self, level: QuotaLevel) -> bool:
        """Take the level as it is now; True when its status is another one than before."""
        before, self.status = self.status, level.status
        return before != self.status
