"""Pruning an audit log: which whole sealed segments go, what the chained record says of them, and their removal.

The record is durable before the first file goes, oldest first. A crash in between leaves segments that the record has
counted out already; they are intact, `verify` takes them for what they are, and the next pruning removes them.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Sequence

from ipc.audit.errors import AuditLogError
from ipc.audit.event import AuditEvent, parse_line
from ipc.struct import Struct
from supervisor.audit import segments as segments
from supervisor.audit.heads import Head, RecordedHeads
from supervisor.audit.retention import SegmentFacts
from supervisor.audit.tail import first_time

RESERVE_NAME = "reserve"
RESERVE_BYTES = 64 * 1024
_LONGEST_RUN_NS = 90 * 86_400 * 10**9
"""A policy's use is noted when a run starts, and its records may come for so long."""


class PrunePlan(Struct, frozen=True):
    """What is to go: segments, oldest first, and the last record in them; nothing when there are no segments."""

    gone: tuple[SegmentFacts, ...] = ()
    last: Head = Head(0, "")
    kept_segments: int = 0
    missing_before: int = 0

    @property
    def size_bytes(self) -> int:
        """How much room they take."""
        return sum(each.size_bytes for each in self.gone)

    def event(self, why: str, actor: str) -> AuditEvent:
        """Return the event whose record stands for them in the chain."""
        detail: dict[str, object] = {
            "segments": len(self.gone),
            "records": self.last.seq - self.gone[0].first_seq + 1,
            "bytes": self.size_bytes,
            "first_seq": self.gone[0].first_seq,
            "last_seq": self.last.seq,
            "last_hash": self.last.hash,
        }
        if self.missing_before:
            detail["missing_before"] = self.missing_before
        return AuditEvent(segments.PRUNED, decision="info", reason=why, actor=actor, detail=detail)


def survey(directory: str, current: str) -> tuple[list[SegmentFacts], int]:
    """Return the sealed segments, oldest first, and the bytes of the one that is written to, `current`.

    What a repair kept aside of a segment counts as that segment's; room that is only held counts nowhere.
    """
    sizes: dict[str, tuple[int, int]] = {}
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.name.startswith(("audit-", "torn-")):
                status = entry.stat(follow_symlinks=False)
                sizes[entry.name] = (status.st_size, status.st_mtime_ns)
    found: list[SegmentFacts] = []
    for name in sorted(sizes):
        if segments.SEGMENT_NAME.fullmatch(name) and name != current:
            aside = sum(size for other, (size, _) in sizes.items() if other.startswith(_torn_prefix(name)))
            size_bytes, changed_ns = sizes[name]
            found.append(SegmentFacts(name, segments.first_seq_of(name), size_bytes + aside, changed_ns))
    rest_bytes = sum(size for size, _ in sizes.values()) - sum(each.size_bytes for each in found)
    return found, rest_bytes


def plan_prune(directory: str, found: Sequence[SegmentFacts], count: int, recorded: RecordedHeads) -> PrunePlan:
    """Return the plan to remove the `count` oldest of the sealed segments `found`.

    AuditLogError when what follows them does not hang on their end: pruning must not hide that.
    """
    if not count:
        return PrunePlan(kept_segments=len(found))
    gone = tuple(found[:count])
    last = _last_record(directory, gone[-1].name)
    following = [name for name in segments.segment_names(directory) if name > gone[-1].name]
    expected = _first_prev(directory, following[0]) if following else ""
    if last is None or (expected and expected != last.hash):
        raise AuditLogError(
            f"the audit log {directory} can't be pruned: {gone[-1].name} doesn't end where the next segment begins",
            hint=f"see what is wrong with it: airssys audit verify --audit-log {directory}",
        )
    before = gone[0].first_seq - 1
    accounted = not before or any(head.seq == before for head in recorded.sealed)
    return PrunePlan(gone, last, len(found) - count, 0 if accounted else before)


def remove(directory: str, directory_fd: int, plan: PrunePlan) -> None:
    """Remove the segments of a plan whose record is durable, oldest first, with what repairs kept aside of them."""
    for each in plan.gone:
        prefix = _torn_prefix(each.name)
        for name in (*[name for name in os.listdir(directory) if name.startswith(prefix)], each.name):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(directory, name))
    os.fsync(directory_fd)
    _forget_policies(directory)


def _forget_policies(directory: str) -> None:
    """Remove the policies that only pruned records named, as far as can be told from when they were last used."""
    # Only here, where something was pruned: a run that prunes nothing doesn't pay for it.
    import datetime

    from supervisor.audit.policy_archive import forget_policies

    names = segments.segment_names(directory)
    if not names:
        return
    descriptor = segments.open_segment(directory, names[0])
    try:
        oldest = first_time(descriptor)
    finally:
        os.close(descriptor)
    with contextlib.suppress(ValueError, AuditLogError):
        moment = datetime.datetime.fromisoformat(oldest[:19] + "+00:00")
        forget_policies(directory, int(moment.timestamp()) * 10**9 - _LONGEST_RUN_NS)


def set_reserve_aside(directory: str) -> None:
    """Hold room for the record of a pruning, as far as there is room."""
    with contextlib.suppress(OSError):
        descriptor = segments.open_segment(directory, RESERVE_NAME, os.O_RDWR | os.O_CREAT)
        try:
            if os.fstat(descriptor).st_size < RESERVE_BYTES:
                os.posix_fallocate(descriptor, 0, RESERVE_BYTES)
        finally:
            os.close(descriptor)


def release_reserve(directory: str) -> None:
    """Give that room back, to be used at once."""
    with contextlib.suppress(OSError):
        os.truncate(os.path.join(directory, RESERVE_NAME), 0)


def _torn_prefix(name: str) -> str:
    return f"torn-{segments.first_seq_of(name):016}-"


def _last_record(directory: str, name: str) -> Head | None:
    descriptor = segments.open_segment(directory, name)
    try:
        for _, line in segments.lines_backward(descriptor, os.fstat(descriptor).st_size):
            with contextlib.suppress(ValueError):
                return Head(int(str(parse_line(line)["seq"])), hashlib.sha256(line).hexdigest())
            break
    finally:
        os.close(descriptor)
    return None


def _first_prev(directory: str, name: str) -> str:
    """Return what a segment's first record hangs on; "" for a segment without records."""
    descriptor = segments.open_segment(directory, name)
    try:
        for _, line in segments.lines_forward(descriptor):
            with contextlib.suppress(ValueError):
                return str(parse_line(line)["prev"])
            return "unreadable"
    finally:
        os.close(descriptor)
    return ""
