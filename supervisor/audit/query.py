"""Reading the audit log: filters, and the records of a log from either end or as they come."""

from __future__ import annotations

import contextlib
import fnmatch
import os
import re
import time
from collections import deque
from collections.abc import Iterator

from ipc.audit.event import exact, format_time, parse_line
from ipc.struct import Struct
from supervisor.audit.segments import SEGMENT_NAME, lines_backward, lines_forward, open_segment, segment_names

FOLLOW_INTERVAL_S = 0.2
_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


class Filter(Struct, frozen=True):
    """Which records are wanted; None lets everything through, text may hold `*`, `?`, `[…]`, times are RFC 3339."""

    component: str | None = None
    event: str | None = None
    decision: str | None = None
    code: str | None = None
    action: str | None = None
    since: str | None = None
    until: str | None = None

    def admits(self, record: dict[str, object]) -> bool:
        """Whether a record (unescaped) is wanted. Times of one form compare as text."""
        moment = str(record["time"])
        if (self.since is not None and moment < self.since) or (self.until is not None and moment >= self.until):
            return False
        for name in ("component", "event", "decision", "code", "action"):
            wanted: str | None = getattr(self, name)
            if wanted is not None and not fnmatch.fnmatchcase(str(record[name]), wanted):
                return False
        return True


def parse_moment(text: str, now_ns: int) -> str:
    """Read `30s`, `10m`, `2h`, `7d`, `2w` (ago), a date, or RFC 3339 in UTC; ValueError says what is accepted."""
    if match := re.fullmatch(r"([0-9]{1,9})([smhdw])", text):
        return format_time(max(0, now_ns - int(match[1]) * _UNIT_S[match[2]] * 1_000_000_000))
    if match := re.fullmatch(r"(\d{4}-\d\d-\d\d)(?:[Tt ](\d\d:\d\d)(:\d\d)?(\.\d{1,9})?Z?)?", text, re.ASCII):
        fraction = (match[4] or ".").ljust(10, "0")
        from datetime import datetime

        second = f"{match[1]}T{match[2] or '00:00'}{match[3] or ':00'}"
        with contextlib.suppress(ValueError):  # there is no 31st of April
            datetime.fromisoformat(second)
            return f"{second}{fraction}Z"
    raise ValueError(f"{text!r} is no time: write 10m, 2h, 7d (ago), 2026-01-31, or 2026-01-31T12:00:00Z")


class Found(Struct, frozen=True):
    """One record as it is read: the line, and its values with exact text."""

    line: bytes
    record: dict[str, object]


def _read(line: bytes) -> Found | None:
    try:
        return Found(line, exact(parse_line(line)))
    except ValueError:
        # Torn or forged: `verify` is what names it.
        return None


@contextlib.contextmanager
def _reading(directory: str, name: str) -> Iterator[int | None]:
    """Open a segment; None where it was pruned since it was listed."""
    try:
        descriptor = open_segment(directory, name)
    except FileNotFoundError:
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def newest_first(directory: str, wanted: Filter) -> Iterator[Found]:
    """Yield the wanted records from the end of the log backwards."""
    for name in reversed(segment_names(directory)):
        with _reading(directory, name) as descriptor:
            if descriptor is None:
                return
            for _, line in lines_backward(descriptor, os.fstat(descriptor).st_size):
                found = _read(line)
                if found is not None and wanted.admits(found.record):
                    yield found


def last_records(directory: str, wanted: Filter, limit: int | None) -> list[Found]:
    """Return the last `limit` wanted records (all without a limit), oldest first."""
    result: deque[Found] = deque()
    for found in newest_first(directory, wanted):
        if limit is not None and len(result) >= limit:
            break
        result.appendleft(found)
    return list(result)


def record_at(directory: str, seq: int) -> Found | None:
    """Return the record with this number, None where the log has none; OSError when the log can't be read."""
    wanted = f'{{"schema":1,"seq":{seq},'.encode("ascii")
    firsts = [(int(match[1]), name) for name in segment_names(directory) if (match := SEGMENT_NAME.fullmatch(name))]
    # The last that can hold it; after a gap the number may be in none.
    name = next((name for first, name in reversed(firsts) if first <= seq), None)
    if name is None:
        return None
    descriptor = open_segment(directory, name)
    try:
        return next((_read(line) for _, line in lines_forward(descriptor) if line.startswith(wanted)), None)
    finally:
        os.close(descriptor)


def follow(directory: str, wanted: Filter, after_seq: int) -> Iterator[Found]:
    """Yield wanted records behind `after_seq` as they come, for ever; a log may be read that others write."""
    while True:
        fresh: list[Found] = []
        for name in reversed(segment_names(directory)):
            reached = True
            with _reading(directory, name) as descriptor:
                if descriptor is not None:
                    reached = _gather(descriptor, after_seq, fresh)
            if reached:
                break
        for found in reversed(fresh):
            seq = found.record["seq"]
            assert isinstance(seq, int)
            after_seq = seq
            if wanted.admits(found.record):
                yield found
        time.sleep(FOLLOW_INTERVAL_S)


def _gather(descriptor: int, after_seq: int, fresh: list[Found]) -> bool:
    """Add the records of a segment behind `after_seq`, newest first; whether that one was reached."""
    for _, line in lines_backward(descriptor, os.fstat(descriptor).st_size):
        found = _read(line) if line.endswith(b"\n") else None
        if found is not None:
            seq = found.record["seq"]
            if isinstance(seq, int) and seq <= after_seq:
                return True
            fresh.append(found)
    return False
