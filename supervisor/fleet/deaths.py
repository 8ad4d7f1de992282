"""How many deaths of a process that serves others are made good, the warden's and the broker's alike. Pure."""

from __future__ import annotations

from collections.abc import Sequence

DEATHS_MAX = 5
"""So many within `WITHIN_NS` are made good, by another process in its place; one more isn't."""
WITHIN_NS = 10 * 10**9


def recent_deaths(deaths_ns: Sequence[int], now_ns: int) -> tuple[int, ...]:
    """Return the monotonic times that still count; older ones may be forgotten."""
    return tuple(death_ns for death_ns in deaths_ns if now_ns - death_ns < WITHIN_NS)


def too_many_words(who: str, deaths_ns: Sequence[int], now_ns: int) -> str:
    """Say why there is no other one; "" where there may be one. The last death is among `deaths_ns`."""
    count = len(recent_deaths(deaths_ns, now_ns))
    if count <= DEATHS_MAX:
        return ""
    return f"the {who} ended {count} times within {WITHIN_NS // 10**9} s; it is not started once more"
