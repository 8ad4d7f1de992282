"""The audit log: an append-only chain of JSON lines in segments, durable before anybody is told so.

`append` writes a batch with one write(2) and one fdatasync(2); nothing is acknowledged before both succeeded. Several
processes of one user may append to one log: a batch is written under flock(2), and who finds that the file has grown
since reads its tail again. The chain and its files are described in docs/reference/audit.md.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from ipc import libc
from ipc.audit.errors import AuditLogError
from ipc.audit.event import GENESIS_HASH, SUPERVISOR, AuditEvent, AuditRecord, Origin, parse_line, stamp
from ipc.struct import Struct
from supervisor import audit_segments as segments
from supervisor.audit_segments import Head, default_audit_directory

__all__ = ["AuditLog", "Entry", "default_audit_directory", "default_host"]

SEGMENT_BYTES = 64 * 1024 * 1024
PREALLOCATED_BYTES = 1024 * 1024
SEAL_RESERVE_BYTES = 2048
LOCK_TIMEOUT_S = 10.0
SEALED = "segment_sealed"

Entry = tuple[AuditEvent, Origin]

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def default_host() -> str:
    """Return a stable name of this machine: 16 hex digits made of machine-id(5), which is not to be told itself."""
    for path in ("/etc/machine-id", "/var/lib/dbus/machine-id"):
        with contextlib.suppress(OSError), open(path, "rb") as file:
            identity = file.read(64).strip()
            if identity:
                return hashlib.sha256(b"airssys audit host\n" + identity).hexdigest()[:16]
    return os.uname().nodename


class _Tail(Struct):
    """Where the next line goes: the open segment (or none yet), its good length, and what the chain hangs on."""

    descriptor: int = -1
    name: str = ""
    length_bytes: int = 0
    allocated_bytes: int = 0
    first_seq: int = 0
    seq: int = 0
    prev: str = GENESIS_HASH
    sealed: bool = False

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
        self.descriptor = -1


class AuditLog:
    """One log, open for appending. Thread-safe. Errors are AuditLogError; a `fatal` one stays."""

    def __init__(
        self,
        directory: str,
        *,
        host: str | None = None,
        segment_bytes: int = SEGMENT_BYTES,
        sync: Callable[[int], None] = os.fdatasync,
        clock_ns: Callable[[], int] = time.time_ns,
        lock_timeout_s: float = LOCK_TIMEOUT_S,
    ) -> None:
        """Open the log in `directory`, making it if need be, and repair its tail; a full disk is no error yet."""
        self.directory = directory
        self._host = default_host() if host is None else host
        self._segment_bytes = segment_bytes
        self._sync = sync
        self._clock_ns = clock_ns
        self._lock_timeout_s = lock_timeout_s
        self._mutex = threading.Lock()
        self._dead: AuditLogError | None = None
        self._tail = _Tail()
        self._own: list[AuditEvent] = []
        self._directory_fd = segments.prepare_directory(directory)
        flags = os.O_RDWR | os.O_CREAT
        try:
            self._lock_fd = segments.open_segment(directory, segments.LOCK_NAME, flags)
            self._head_fd = segments.open_segment(directory, segments.HEAD_NAME, flags)
        except OSError as error:
            os.close(self._directory_fd)
            raise self._unwritable(error) from None
        try:
            self.append(())
        except AuditLogError as error:
            if error.fatal:
                raise

    @property
    def head(self) -> Head:
        """The last durable record that this object has seen; number 0 for an empty log."""
        return Head(self._tail.seq, self._tail.prev)

    @property
    def segment(self) -> str:
        """The path of the segment that is written to, "" before the first record."""
        return os.path.join(self.directory, self._tail.name) if self._tail.name else ""

    def close(self) -> None:
        """Close the files; nothing is pending, for `append` leaves nothing behind."""
        with self._mutex:
            if self._dead is None:
                self._dead = AuditLogError("the audit log was closed", fatal=True)
                self._tail.close()
                for descriptor in (self._lock_fd, self._head_fd, self._directory_fd):
                    os.close(descriptor)

    def append(self, entries: Sequence[Entry]) -> tuple[AuditRecord, ...]:
        """Make a batch durable, all of it or nothing, and return its records, those of the log's own events in front.

        Events must be within bounds. AuditLogError: nothing of the batch is in the log; try again unless it is fatal.
        """
        with self._mutex:
            if self._dead is not None:
                raise self._dead
            with self._locked():
                try:
                    self._follow()
                    batch = [(event, SUPERVISOR) for event in self._own] + list(entries)
                    if not batch:
                        return ()
                    records = self._write(batch)
                except OSError as error:
                    raise self._unwritable(error) from None
                self._own.clear()
                return records

    def last_position(self, stream: str) -> int:
        """Return the highest position of a producer's stream in the log, 0 for none; reads backwards from the end."""
        wanted = f'"stream":"{stream}","stream_seq":'.encode("ascii")
        for name in reversed(segments.segment_names(self.directory)):
            with self._reading(name) as (descriptor, size_bytes):
                for _, line in segments.lines_backward(descriptor, size_bytes):
                    if wanted not in line:
                        continue
                    with contextlib.suppress(ValueError):
                        position = parse_line(line)["stream_seq"]
                        if type(position) is int:
                            return position
        return 0

    # -- under the lock ------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        deadline_s = time.monotonic() + self._lock_timeout_s
        while True:
            try:
                fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline_s:
                    raise AuditLogError(
                        f"another process has held the audit log {self.directory} for {self._lock_timeout_s:g} s",
                        hint=f"see who: fuser -v {os.path.join(self.directory, segments.LOCK_NAME)}",
                    ) from None
                time.sleep(0.001)
        try:
            yield
        finally:
            fcntl.flock(self._lock_fd, fcntl.LOCK_UN)

    @contextlib.contextmanager
    def _reading(self, name: str) -> Iterator[tuple[int, int]]:
        descriptor = segments.open_segment(self.directory, name)
        try:
            yield descriptor, os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)

    def _follow(self) -> None:
        """Make sure that the tail is the log's: another process may have appended, rotated, or died while writing."""
        tail = self._tail
        if tail.descriptor >= 0:
            status = os.fstat(tail.descriptor)
            if status.st_size == tail.length_bytes and status.st_nlink == 1:
                return
        known = self.head
        tail.close()
        self._tail = self._find_tail()
        self._check_head(known)

    def _find_tail(self) -> _Tail:
        names = segments.segment_names(self.directory)
        newest = _Tail()
        for place, name in enumerate(reversed(names)):
            descriptor = segments.open_segment(self.directory, name, os.O_RDWR | os.O_APPEND)
            size_bytes = os.fstat(descriptor).st_size
            first_seq = int(name[len("audit-") : -len(".jsonl")])
            tail = _Tail(descriptor, name, 0, 0, first_seq)
            for offset, line in segments.lines_backward(descriptor, size_bytes):
                if not line.endswith(b"\n"):
                    continue
                try:
                    values = parse_line(line)
                except ValueError:
                    continue
                tail.length_bytes = offset + len(line)
                tail.seq = int(str(values["seq"]))
                tail.prev = hashlib.sha256(line).hexdigest()
                tail.sealed = values["event"] == SEALED
                break
            if place == 0:
                newest = tail
                if size_bytes > tail.length_bytes:
                    self._cut(tail, size_bytes)
            if tail.seq:
                if place:
                    # The newest segment has no record yet: a crash came between making it and writing to it.
                    newest.seq, newest.prev = tail.seq, tail.prev
                    tail.close()
                return newest
            if place:
                tail.close()
        return newest

    def _cut(self, tail: _Tail, size_bytes: int) -> None:
        """Cut a torn tail off the newest segment; the bytes are kept, and the next record says so."""
        torn = b""
        while len(torn) < size_bytes - tail.length_bytes:
            torn += os.pread(tail.descriptor, size_bytes - tail.length_bytes - len(torn), tail.length_bytes + len(torn))
        digest = hashlib.sha256(torn).hexdigest()
        side_name = f"torn-{tail.name[len('audit-') : -len('.jsonl')]}-{tail.length_bytes}-{digest[:12]}.bin"
        # First the copy, durable, then the cut: a crash in between finds the same bytes and makes the same copy.
        descriptor = segments.open_segment(self.directory, side_name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            written = 0
            while written < len(torn):
                written += os.write(descriptor, torn[written:])
            self._synced(descriptor)
        finally:
            os.close(descriptor)
        os.fsync(self._directory_fd)
        os.ftruncate(tail.descriptor, tail.length_bytes)
        detail: dict[str, object] = {
            "segment": tail.name,
            "offset": tail.length_bytes,
            "bytes": len(torn),
            "sha256": digest,
            "kept_in": side_name,
        }
        reason = "the last write to the log was cut short; what was torn was never acknowledged"
        self._own.append(AuditEvent("log_repaired", decision="info", reason=reason, detail=detail))

    def _check_head(self, known: Head) -> None:
        """Compare the tail with the head written last; durable records that are gone leave a gap that stays visible."""
        tail = self._tail
        written = segments.read_head(self.directory)
        head = max(known, written or known, key=lambda h: h.seq)
        if head.seq < tail.seq or (head.seq == tail.seq and head.hash == tail.prev):
            return
        detail: dict[str, object] = {"found": str(Head(tail.seq, tail.prev)), "expected": str(head)}
        reason = "records that were durable are missing or were changed"
        # The number of a lost record is never given to another, so the chain shows the gap for ever.
        tail.seq, tail.prev = head.seq, head.hash
        self._own.append(AuditEvent("log_records_missing", decision="info", reason=reason, detail=detail))

    def _write(self, batch: Sequence[Entry]) -> tuple[AuditRecord, ...]:
        tail = self._tail
        stamped = self._stamped(batch)
        sealed: list[AuditRecord] = []
        if tail.descriptor >= 0 and not tail.sealed and tail.length_bytes:
            end_bytes = tail.length_bytes + sum(len(record.line) for record in stamped)
            if end_bytes + SEAL_RESERVE_BYTES > self._segment_bytes:
                sealed = self._seal()
                stamped = self._stamped(batch)  # they come behind the seal now
        if tail.descriptor < 0 or tail.sealed:
            self._start_segment()
        self._commit(stamped)
        return (*sealed, *stamped)

    def _stamped(self, batch: Sequence[Entry]) -> list[AuditRecord]:
        seq, prev = self._tail.seq, self._tail.prev
        records: list[AuditRecord] = []
        for event, origin in batch:
            seq += 1
            record = stamp(event, origin, seq=seq, time_ns=self._clock_ns(), host=self._host, prev=prev)
            prev = record.hash
            records.append(record)
        return records

    def _seal(self) -> list[AuditRecord]:
        tail = self._tail
        detail: dict[str, object] = {
            "segment": tail.name,
            "records": tail.seq - tail.first_seq + 1,
            "head": str(Head(tail.seq, tail.prev)),
        }
        sealed = self._stamped([(AuditEvent(SEALED, decision="info", detail=detail), SUPERVISOR)])
        self._commit(sealed)
        tail.sealed = True
        # Gives back the space that was set aside: ftruncate(2) to the same size frees what lies behind it.
        os.ftruncate(tail.descriptor, tail.length_bytes)
        return sealed

    def _start_segment(self) -> None:
        tail = self._tail
        name = segments.segment_name(tail.seq + 1)
        descriptor = segments.open_segment(self.directory, name, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL)
        try:
            os.fchmod(descriptor, 0o600)
            os.fsync(self._directory_fd)
        except OSError:
            os.close(descriptor)
            raise
        tail.close()
        self._tail = _Tail(descriptor, name, 0, 0, tail.seq + 1, tail.seq, tail.prev)

    def _commit(self, records: Sequence[AuditRecord]) -> None:
        """Write and sync; on any failure the file is as long as it was."""
        tail = self._tail
        data = b"".join(record.line for record in records)
        try:
            self._preallocate(len(data))
            written = os.write(tail.descriptor, data)
            while written < len(data):
                # A short write is how a full disk begins; writing on tells its errno, or finishes.
                written += os.write(tail.descriptor, data[written:])
        except OSError:
            self._roll_back()
            raise
        self._synced(tail.descriptor)
        tail.length_bytes += len(data)
        tail.seq, tail.prev = records[-1].seq, records[-1].hash
        with contextlib.suppress(OSError):
            # Only a check on what is durable already; a head that lags behind is no error.
            segments.write_head(self._head_fd, self.head)

    def _preallocate(self, size_bytes: int) -> None:
        """Set space aside ahead of need: a full disk shows before the write, and a sync has no blocks to allocate."""
        tail = self._tail
        end_bytes = tail.length_bytes + size_bytes
        if end_bytes <= tail.allocated_bytes:
            return
        for length_bytes in (max(PREALLOCATED_BYTES, size_bytes), size_bytes):
            try:
                libc.fallocate(tail.descriptor, libc.FALLOC_FL_KEEP_SIZE, tail.length_bytes, length_bytes)
            except OSError as error:
                if error.errno in (errno.EOPNOTSUPP, errno.ENOSYS):
                    return
                if length_bytes == size_bytes or error.errno not in _FULL:
                    raise
                continue
            tail.allocated_bytes = tail.length_bytes + length_bytes
            return

    def _roll_back(self) -> None:
        tail = self._tail
        tail.allocated_bytes = 0
        try:
            os.ftruncate(tail.descriptor, tail.length_bytes)
        except OSError:
            # The next append reads the tail again and repairs it.
            tail.close()

    def _synced(self, descriptor: int) -> None:
        try:
            self._sync(descriptor)
        except OSError as error:
            # The kernel may have dropped the pages and marked them clean (fsync(2), EIO): a second fsync would lie.
            self._dead = AuditLogError(
                f"the audit log {self.directory} could not be made durable: {error.strerror}; this process can't go on",
                hint="check the disk: dmesg --level=err | tail; then start again, and run: airssys audit verify",
                fatal=True,
            )
            with contextlib.suppress(OSError):
                os.ftruncate(self._tail.descriptor, self._tail.length_bytes)
            raise self._dead from None

    def _unwritable(self, error: OSError) -> AuditLogError:
        hint = f"make room: df -h {self.directory}" if error.errno in _FULL else f"look at it: ls -la {self.directory}"
        return AuditLogError(f"the audit log {self.directory} can't be written: {error.strerror}", hint=hint)
