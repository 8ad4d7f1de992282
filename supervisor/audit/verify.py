"""Verification of an audit log: the whole chain is computed again, and the first bad line is named."""

from __future__ import annotations

import contextlib
import fcntl
import os

from ipc.audit.event import GENESIS_HASH
from ipc.struct import Struct
from supervisor.audit.chain import Chain, Fault, FaultError, Pruned
from supervisor.audit.heads import Head, RecordedHeads, heads_path, read_heads
from supervisor.audit.segments import LOCK_NAME, lines_forward, open_segment, segment_names

_ATTEMPTS = 5


class VerifyReport(Struct, frozen=True):
    """What verification found; intact when `fault` is None. `heads` is whether heads were recorded apart."""

    directory: str
    segments: int
    records: int
    repairs: int
    head: Head | None
    fault: Fault | None
    first_seq: int = 1
    pruned: Pruned | None = None
    heads: bool = True


def verify_log(directory: str, anchor: Head | None = None) -> VerifyReport:
    """Recompute the chain of the log in `directory`; with `anchor`, that record must have had that hash.

    OSError when the files can't be read. A log that is being written to is verified up to where it was when begun.
    """
    for attempt in range(_ATTEMPTS):
        try:
            return _verify(directory, anchor)
        except FileNotFoundError:
            # Pruned while it was read: what is left is verified from its new beginning.
            if attempt == _ATTEMPTS - 1 or not os.path.isdir(directory):
                raise
    raise AssertionError


def _verify(directory: str, anchor: Head | None) -> VerifyReport:
    recorded, names, size_bytes = _snapshot(directory)
    chain = Chain(_expected(recorded, anchor))
    fault: Fault | None = None
    try:
        if recorded is not None and recorded.damaged_line:
            reason = "not a head: SEQ:SHA256 of a fixed length"
            raise FaultError(Fault(heads_path(directory), recorded.damaged_line, "heads", reason))
        for place, name in enumerate(names):
            last = place == len(names) - 1
            chain.begin(name)
            _follow_segment(directory, name, chain, size_bytes if last else None)
            chain.end(last)
        chain.finish()
        if anchor is not None and 0 < anchor.seq < chain.first_seq - 1:
            reason = f"record {anchor.seq} was pruned, so its hash can't be compared"
            raise FaultError(Fault(names[0], 1, "pruned", reason))
    except FaultError as error:
        fault = error.fault
    head = Head(chain.seq, chain.hash or GENESIS_HASH)
    return VerifyReport(
        directory=directory,
        segments=len(names),
        records=chain.records,
        repairs=chain.repairs,
        head=head,
        fault=fault,
        first_seq=chain.first_seq,
        pruned=chain.pruned,
        heads=recorded is not None,
    )


def _expected(recorded: RecordedHeads | None, anchor: Head | None) -> dict[int, set[str]]:
    heads = [] if recorded is None else [*recorded.sealed]
    heads += [head for head in (recorded.last if recorded else None, anchor) if head is not None]
    expected: dict[int, set[str]] = {}
    for head in heads:
        if head.seq:
            expected.setdefault(head.seq, set()).add(head.hash)
    return expected


def _snapshot(directory: str) -> tuple[RecordedHeads | None, list[str], int]:
    """Return the heads, the segments and the last one's length at a moment when nobody writes, if that can be had."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            descriptor = open_segment(directory, LOCK_NAME)
            stack.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        names = segment_names(directory)
        size_bytes = os.stat(os.path.join(directory, names[-1])).st_size if names else 0
        return read_heads(directory), names, size_bytes


def _follow_segment(directory: str, name: str, chain: Chain, until_bytes: int | None) -> None:
    descriptor = open_segment(directory, name)
    try:
        for offset, line in lines_forward(descriptor):
            if until_bytes is not None and offset >= until_bytes:
                break
            chain.follow(line)
    finally:
        os.close(descriptor)
