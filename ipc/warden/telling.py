"""When the supervisor is told how much a component stores in files: as it changes, and once a second at most. Pure."""

from __future__ import annotations

from typing import Final

INTERVAL_NS: Final = 1_000_000_000


class Telling:
    """What was told last, and when."""

    __slots__ = ("_told_bytes", "_told_ns")

    def __init__(self) -> None:
        """Begin with nothing told, which is as if nothing were stored."""
        self._told_bytes = 0
        self._told_ns = 0

    def is_due(self, usage_bytes: int, now_ns: int) -> bool:
        """Whether to tell this level now; then it counts as told."""
        if self.left_ns(usage_bytes, now_ns) != 0:
            return False
        self._told_bytes, self._told_ns = usage_bytes, now_ns
        return True

    def left_ns(self, usage_bytes: int, now_ns: int) -> int | None:
        """How long a level that isn't told yet has to wait; None where it is told."""
        if usage_bytes == self._told_bytes:
            return None
        return max(0, self._told_ns + INTERVAL_NS - now_ns) if self._told_ns else 0
