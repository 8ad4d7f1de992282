"""Verification of an audit log: the whole chain is computed again, and the first bad line is named."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os

from ipc.audit.event import GENESIS_HASH, parse_line
from ipc.struct import Struct
from supervisor.audit_log import SEALED
from supervisor.audit_segments import (
    LOCK_NAME,
    SEGMENT_NAME,
    Head,
    lines_forward,
    open_segment,
    read_head,
    segment_names,
)


class Fault(Struct, frozen=True):
    """The first place where the log is not what was written. `kind`: parse, hash, seq, torn, missing, head or seal."""

    file: str
    line: int
    kind: str
    reason: str


class VerifyReport(Struct, frozen=True):
    """What verification found; intact when `fault` is None."""

    directory: str
    segments: int
    records: int
    repairs: int
    head: Head | None
    fault: Fault | None


class _FaultError(Exception):
    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.reason)
        self.fault = fault


class _Chain(Struct):
    """How far the chain has been followed."""

    seq: int = 0
    hash: str = GENESIS_HASH
    records: int = 0
    repairs: int = 0
    sealed: bool = False
    segment_records: int = 0

    def follow(self, name: str, number: int, line: bytes) -> None:
        """Check one line against what came before it, and step on it."""
        if not line.endswith(b"\n"):
            raise _FaultError(Fault(name, number, "torn", "the line has no end: a write was cut short here"))
        try:
            values = parse_line(line)
        except ValueError as error:
            raise _FaultError(Fault(name, number, "parse", str(error))) from None
        seq, prev = values["seq"], values["prev"]
        if self.sealed:
            raise _FaultError(Fault(name, number, "seal", f"record {seq} stands behind the seal of its segment"))
        if seq != self.seq + 1:
            reason = f"expected record {self.seq + 1}, found {seq}: records are missing or out of order"
            raise _FaultError(Fault(name, number, "seq", reason))
        if prev != self.hash:
            reason = f"record {seq} does not follow from what stands before it: that was changed, or this record was"
            raise _FaultError(Fault(name, number, "hash", reason))
        self.seq += 1
        self.hash = hashlib.sha256(line).hexdigest()
        self.records += 1
        self.segment_records += 1
        if values["event"] == SEALED and values["producer"] == "supervisor":
            detail = values["detail"]
            if not isinstance(detail, dict) or detail.get("records") != self.segment_records - 1:
                raise _FaultError(Fault(name, number, "seal", "the seal counts other records than the segment has"))
            self.sealed = True
        elif values["event"] == "log_repaired":
            self.repairs += 1


def verify_log(directory: str, anchor: Head | None = None) -> VerifyReport:
    """Recompute the chain of the log in `directory`; with `anchor`, that record must have had that hash.

    OSError when the files can't be read. A log that is being written to is verified up to where it was when begun.
    """
    head, names, size_bytes = _snapshot(directory)
    chain = _Chain()
    expected = [h for h in (head, anchor) if h is not None and h.seq > 0]
    fault: Fault | None = None
    try:
        for place, name in enumerate(names):
            last = place == len(names) - 1
            _verify_segment(directory, name, chain, expected, size_bytes if last else None)
        for missing in expected:
            if missing.seq > chain.seq:
                where = names[-1] if names else "head"
                reason = (
                    f"the log ends with record {chain.seq}, but record {missing.seq} was written: the end is missing"
                )
                raise _FaultError(Fault(where, chain.segment_records + 1, "missing", reason))
    except _FaultError as error:
        fault = error.fault
    return VerifyReport(directory, len(names), chain.records, chain.repairs, Head(chain.seq, chain.hash), fault)


def _snapshot(directory: str) -> tuple[Head | None, list[str], int]:
    """Return the head, the segments and the last one's length at a moment when nobody writes, if that can be had."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            descriptor = open_segment(directory, LOCK_NAME)
            stack.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        names = segment_names(directory)
        size_bytes = os.stat(os.path.join(directory, names[-1])).st_size if names else 0
        return read_head(directory), names, size_bytes


def _verify_segment(directory: str, name: str, chain: _Chain, expected: list[Head], until_bytes: int | None) -> None:
    match = SEGMENT_NAME.fullmatch(name)
    assert match is not None
    if chain.records and not chain.sealed:
        raise _FaultError(Fault(name, 1, "seal", "the segment before this one was never sealed"))
    if int(match[1]) != chain.seq + 1:
        reason = f"expected a segment that begins with record {chain.seq + 1}: a segment is missing or was renamed"
        raise _FaultError(Fault(name, 1, "missing", reason))
    chain.sealed = False
    chain.segment_records = 0
    descriptor = open_segment(directory, name)
    try:
        for number, (offset, line) in enumerate(lines_forward(descriptor), 1):
            if until_bytes is not None and offset >= until_bytes:
                break
            chain.follow(name, number, line)
            for head in expected:
                if head.seq == chain.seq and head.hash != chain.hash:
                    reason = f"record {head.seq} is not the one that was written: its hash was {head.hash}"
                    raise _FaultError(Fault(name, number, "head", reason))
    finally:
        os.close(descriptor)
    if until_bytes is not None:
        return
    if not chain.sealed:
        raise _FaultError(Fault(name, chain.segment_records + 1, "seal", "the segment ends without its seal"))
