"""Where the next line of an audit log goes: the end of its last segment, found again and repaired after a crash."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Callable
from typing import Final

from ipc import libc
from ipc.audit.event import GENESIS_HASH, AuditEvent, parse_line
from ipc.struct import Struct
from supervisor.audit import segments as segments
from supervisor.audit.heads import Head

FULL_DISK: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class Tail(Struct):
    """The open segment (or none yet), its good length, and what the chain hangs on; `begun` is its first record's."""

    descriptor: int = -1
    name: str = ""
    length_bytes: int = 0
    allocated_bytes: int = 0
    first_seq: int = 0
    seq: int = 0
    prev: str = GENESIS_HASH
    sealed: bool = False
    begun: str = ""

    @property
    def head(self) -> Head:
        """The last record of the log; number 0 for an empty one."""
        return Head(self.seq, self.prev)

    def close(self) -> None:
        """Close the segment."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
        self.descriptor = -1

    def write(self, data: bytes, ahead_bytes: int) -> None:
        """Write behind the good length, which stays as it is; on OSError the file is as long as it was."""
        try:
            self.preallocate(len(data), ahead_bytes)
            written = os.write(self.descriptor, data)
            while written < len(data):
                # A short write is how a full disk begins; writing on tells its errno, or finishes.
                written += os.write(self.descriptor, data[written:])
        except OSError:
            self.allocated_bytes = 0
            try:
                os.ftruncate(self.descriptor, self.length_bytes)
            except OSError:
                # Who writes next reads the tail again and repairs it.
                self.close()
            raise

    def preallocate(self, size_bytes: int, ahead_bytes: int) -> None:
        """Set space aside ahead of need: a full disk shows before the write, and a sync has no blocks to allocate."""
        if self.length_bytes + size_bytes <= self.allocated_bytes:
            return
        for length_bytes in (max(ahead_bytes, size_bytes), size_bytes):
            try:
                libc.fallocate(self.descriptor, libc.FALLOC_FL_KEEP_SIZE, self.length_bytes, length_bytes)
            except OSError as error:
                if error.errno in (errno.EOPNOTSUPP, errno.ENOSYS):
                    return
                if length_bytes == size_bytes or error.errno not in FULL_DISK:
                    raise
                continue
            self.allocated_bytes = self.length_bytes + length_bytes
            return


def find_tail(directory: str) -> tuple[Tail, int]:
    """Return the tail, and how many bytes stand behind its last good line; OSError as open(2).

    A segment without any record, which a crash leaves between making it and writing to it, continues the one before.
    """
    newest, torn_bytes = Tail(), 0
    for place, name in enumerate(reversed(segments.segment_names(directory))):
        descriptor = segments.open_segment(directory, name, os.O_RDWR | os.O_APPEND)
        tail = Tail(descriptor, name, first_seq=segments.first_seq_of(name))
        size_bytes = os.fstat(descriptor).st_size
        _read_end(tail, size_bytes)
        if place == 0:
            newest, torn_bytes = tail, size_bytes - tail.length_bytes
        elif tail.seq:
            newest.seq, newest.prev = tail.seq, tail.prev
        if place:
            tail.close()
        if tail.seq:
            break
    return newest, torn_bytes


def _read_end(tail: Tail, size_bytes: int) -> None:
    for offset, line in segments.lines_backward(tail.descriptor, size_bytes):
        if not line.endswith(b"\n"):
            continue
        try:
            values = parse_line(line)
        except ValueError:
            continue
        tail.length_bytes = offset + len(line)
        tail.seq = int(str(values["seq"]))
        tail.prev = hashlib.sha256(line).hexdigest()
        tail.sealed = values["event"] == segments.SEALED
        return


def first_time(descriptor: int) -> str:
    """Return the time of a segment's first record, "" when it can't be read."""
    for _, line in segments.lines_forward(descriptor):
        with contextlib.suppress(ValueError):
            return str(parse_line(line)["time"])
        break
    return ""


def cut_torn(directory: str, directory_fd: int, tail: Tail, torn_bytes: int, sync: Callable[[int], None]) -> AuditEvent:
    """Move what stands behind the last good line to a side file, and return the event that says so; OSError."""
    torn = b""
    while len(torn) < torn_bytes:
        chunk = os.pread(tail.descriptor, torn_bytes - len(torn), tail.length_bytes + len(torn))
        if not chunk:
            break
        torn += chunk
    digest = hashlib.sha256(torn).hexdigest()
    side_name = f"torn-{tail.first_seq:016}-{tail.length_bytes}-{digest[:12]}.bin"
    # First the copy, durable, then the cut: a crash in between finds the same bytes and makes the same copy.
    descriptor = segments.open_segment(directory, side_name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        written = 0
        while written < len(torn):
            written += os.write(descriptor, torn[written:])
        sync(descriptor)
    finally:
        os.close(descriptor)
    os.fsync(directory_fd)
    os.ftruncate(tail.descriptor, tail.length_bytes)
    detail: dict[str, object] = {
        "segment": tail.name,
        "offset": tail.length_bytes,
        "bytes": len(torn),
        "sha256": digest,
        "kept_in": side_name,
    }
    reason = "the last write to the log was cut short; what was torn was never acknowledged"
    return AuditEvent("log_repaired", decision="info", reason=reason, detail=detail)
