"""Which segments go: by size, by age, oldest first, whole ones only."""

import pytest

from supervisor.audit.heads import LINE_BYTES, Head, RecordedHeads, parse_heads
from supervisor.audit.retention import (
    KEEP_ALL,
    SEGMENT_BYTES,
    AuditRetention,
    SegmentFacts,
    decide_prune,
    segment_age_ns,
    segment_bytes,
)

DAY_NS = 86_400 * 10**9
NOW_NS = 1_000 * DAY_NS


def sealed(*ages_days: int, size_bytes: int = 100) -> list[SegmentFacts]:
    """Return segments that were sealed so many days ago."""
    return [
        SegmentFacts(f"audit-{number:016}.jsonl", number * 10 + 1, size_bytes, NOW_NS - days * DAY_NS)
        for number, days in enumerate(ages_days)
    ]


@pytest.mark.parametrize(
    ("retention", "rest_bytes", "gone"),
    [
        (KEEP_ALL, 10**12, 0),
        (AuditRetention(None, 1_000), 0, 0),
        (AuditRetention(None, 400), 0, 0),
        (AuditRetention(None, 399), 0, 1),
        (AuditRetention(None, 400), 1, 1),
        (AuditRetention(None, 150), 50, 3),
        (AuditRetention(None, 10), 50, 4),
        (AuditRetention(30 * DAY_NS, None), 0, 2),
        (AuditRetention(40 * DAY_NS, None), 0, 1),
        (AuditRetention(9 * DAY_NS, None), 0, 4),
        (AuditRetention(30 * DAY_NS, 299), 0, 2),
        (AuditRetention(30 * DAY_NS, 199), 0, 3),
    ],
)
def test_the_oldest_go_until_size_and_age_are_kept(retention: AuditRetention, rest_bytes: int, gone: int) -> None:
    """Both bounds hold for what is left; a segment at the bound stays."""
    assert decide_prune(sealed(50, 40, 20, 10), rest_bytes, retention, NOW_NS) == gone


def test_a_young_segment_keeps_older_ones_behind_it_no_longer() -> None:
    """Only a prefix can go: what hangs on an older segment that stays, stays."""
    assert decide_prune(sealed(5, 400), 0, AuditRetention(30 * DAY_NS, None), NOW_NS) == 0


def test_segments_are_small_against_what_is_kept() -> None:
    """An eighth of it at most, so that pruning a whole one leaves most."""
    assert segment_bytes(KEEP_ALL) == SEGMENT_BYTES
    assert segment_bytes(AuditRetention(None, 5 * 10**9)) == SEGMENT_BYTES
    assert segment_bytes(AuditRetention(None, 8_000_000)) == 1_000_000
    assert segment_age_ns(AuditRetention(80 * DAY_NS, None)) == 10 * DAY_NS
    assert segment_age_ns(KEEP_ALL) is None


def line(seq: int, digit: str = "a") -> bytes:
    """Return one line of a heads file."""
    return f"{seq:016}:{digit * 64}\n".encode()


def test_heads_are_read_and_damage_is_named() -> None:
    """The first line is the last record, the others ascend; a cut last line is ignored, any other flaw has its line."""
    assert parse_heads(b"") == RecordedHeads()
    whole = line(9) + line(3, "b") + line(6, "c")
    assert len(line(9)) == LINE_BYTES
    assert parse_heads(whole) == RecordedHeads(Head(9, "a" * 64), (Head(3, "b" * 64), Head(6, "c" * 64)))
    assert parse_heads(whole + line(8)[:-5]) == parse_heads(whole)
    assert parse_heads(line(9) + line(6) + line(3)).damaged_line == 3
    assert parse_heads(line(9) + line(0)).damaged_line == 2
    assert parse_heads(b"x" * LINE_BYTES).damaged_line == 1
