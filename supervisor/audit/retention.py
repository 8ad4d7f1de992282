"""How much of the audit log is kept, and which segments go. Pure: sizes, times and the clock are passed in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ipc.struct import Struct

DEFAULT_MAX_SIZE_BYTES: Final = 5 * 10**9
MIN_MAX_SIZE_BYTES: Final = 10**6
MIN_KEEP_NS: Final = 60 * 10**9
SEGMENT_BYTES: Final = 64 * 1024 * 1024
_MIN_SEGMENT_BYTES: Final = 64 * 1024
_SEGMENTS: Final = 8
"""Only whole segments go, so what is kept is divided into this many at least."""


class AuditRetention(Struct, frozen=True):
    """How long and how much of the audit log is kept; None means no bound."""

    keep_ns: int | None = None
    max_size_bytes: int | None = DEFAULT_MAX_SIZE_BYTES


KEEP_ALL: Final = AuditRetention(None, None)


class SegmentFacts(Struct, frozen=True):
    """One sealed segment: its name, the number of its first record, its bytes, and when it was sealed."""

    name: str
    first_seq: int
    size_bytes: int
    sealed_ns: int


def segment_bytes(retention: AuditRetention) -> int:
    """Return how large a segment may grow, so that pruning whole ones leaves most of what is to be kept."""
    if retention.max_size_bytes is None:
        return SEGMENT_BYTES
    return min(SEGMENT_BYTES, max(_MIN_SEGMENT_BYTES, retention.max_size_bytes // _SEGMENTS))


def segment_age_ns(retention: AuditRetention) -> int | None:
    """Return how old the first record of a segment may get before the segment is sealed; None for any age."""
    return None if retention.keep_ns is None else max(1, retention.keep_ns // _SEGMENTS)


def decide_prune(sealed: Sequence[SegmentFacts], rest_bytes: int, retention: AuditRetention, now_ns: int) -> int:
    """Return how many of the oldest sealed segments are to go; `rest_bytes` is what else the log holds or will soon.

    A segment is as old as its last record.
    """
    gone = 0
    total_bytes = rest_bytes + sum(each.size_bytes for each in sealed)
    for each in sealed:
        too_large = retention.max_size_bytes is not None and total_bytes > retention.max_size_bytes
        too_old = retention.keep_ns is not None and each.sealed_ns < now_ns - retention.keep_ns
        if not (too_large or too_old):
            break
        total_bytes -= each.size_bytes
        gone += 1
    return gone
