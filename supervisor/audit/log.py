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

from ipc.audit.errors import AuditLogError
from ipc.audit.event import SUPERVISOR, AuditEvent, AuditRecord, Origin, format_time, parse_line, stamp
from supervisor.audit import segments as segments
from supervisor.audit.heads import Head, HeadsFile
from supervisor.audit.journal import journal_socket, tell_journal
from supervisor.audit.prune import PrunePlan, plan_prune, release_reserve, remove, set_reserve_aside, survey
from supervisor.audit.retention import KEEP_ALL, AuditRetention, decide_prune, segment_age_ns
from supervisor.audit.retention import segment_bytes as _segment_bytes
from supervisor.audit.tail import FULL_DISK, Tail, cut_torn, find_tail, first_time

__all__ = ["AuditLog", "Entry", "default_host"]

PREALLOCATED_BYTES = 1024 * 1024
SEAL_RESERVE_BYTES = 2048
LOCK_TIMEOUT_S = 10.0
_PROBE_BYTES = 4096

Entry = tuple[AuditEvent, Origin]
_AUTOMATICALLY = "more than is to be kept: [audit] in airssys.toml"


def default_host() -> str:
    """Return a stable name of this machine: 16 hex digits made of machine-id(5), which is not to be told itself."""
    for path in ("/etc/machine-id", "/var/lib/dbus/machine-id"):
        with contextlib.suppress(OSError), open(path, "rb") as file:
            identity = file.read(64).strip()
            if identity:
                return hashlib.sha256(b"airssys audit host\n" + identity).hexdigest()[:16]
    return os.uname().nodename


class AuditLog:
    """One log, open for appending. Thread-safe. Errors are AuditLogError; a `fatal` one stays."""

    def __init__(
        self,
        directory: str,
        *,
        retention: AuditRetention = KEEP_ALL,
        journal: str | None = None,
        host: str | None = None,
        segment_bytes: int | None = None,
        sync: Callable[[int], None] = os.fdatasync,
        clock_ns: Callable[[], int] = time.time_ns,
        lock_timeout_s: float = LOCK_TIMEOUT_S,
    ) -> None:
        """Open the log in `directory`, making it if need be, and repair its tail; a full disk is no error yet.

        What is beyond `retention` is pruned now and whenever a segment was sealed. `journal`: syslog(3)'s socket.
        """
        self.directory = directory
        self._retention = retention
        self._journal = journal_socket(os.environ) if journal is None else journal
        self._host = default_host() if host is None else host
        self._segment_bytes = _segment_bytes(retention) if segment_bytes is None else segment_bytes
        self._ahead_bytes = min(PREALLOCATED_BYTES, self._segment_bytes)
        self._segment_age_ns = segment_age_ns(retention)
        self._sync = sync
        self._clock_ns = clock_ns
        self._lock_timeout_s = lock_timeout_s
        self._mutex = threading.Lock()
        self._dead: AuditLogError | None = None
        self._tail = Tail()
        self._own: list[AuditEvent] = []
        self._untold: list[AuditRecord] = []  # durable, and not returned by `append` yet
        self._prune_due = retention != KEEP_ALL
        self._directory_fd = segments.prepare_directory(directory)
        try:
            self._lock_fd = segments.open_segment(directory, segments.LOCK_NAME, os.O_RDWR | os.O_CREAT)
            self._heads = HeadsFile(directory)
            set_reserve_aside(directory)
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
        return self._tail.head

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
                self._heads.close()
                for descriptor in (self._lock_fd, self._directory_fd):
                    os.close(descriptor)

    def append(self, entries: Sequence[Entry]) -> tuple[AuditRecord, ...]:
        """Make a batch durable, all of it or nothing, and return its records, those of the log's own events in front.

        Events must be within bounds. AuditLogError: nothing of the batch is in the log; try again unless it is fatal.
        """
        with self._writing():
            return self._write_and_prune(entries, self._plan_due(), _AUTOMATICALLY, "")

    def prune(self, retention: AuditRetention, why: str, actor: str, *, dry_run: bool = False) -> PrunePlan:
        """Remove the oldest sealed segments beyond `retention`, behind a durable record of it; returns what went.

        `dry_run` only says what would go. AuditLogError: nothing was removed.
        """
        with self._writing():
            found, rest_bytes = survey(self.directory, self._tail.name)
            count = decide_prune(found, rest_bytes, retention, self._clock_ns())
            plan = plan_prune(self.directory, found, count, self._heads.read())
            if plan.gone and not dry_run:
                self._write_and_prune((), plan, why, actor)
            return plan

    def probe(self) -> None:
        """Find out whether a record could be written now; AuditLogError."""
        with self._writing():
            if self._tail.descriptor >= 0:
                self._tail.preallocate(_PROBE_BYTES, self._ahead_bytes)

    def last_position(self, stream: str) -> int:
        """Return the highest position of a producer's stream in the log, 0 for none; reads backwards from the end."""
        wanted = f'"stream":"{stream}","stream_seq":'.encode("ascii")
        for name in reversed(segments.segment_names(self.directory)):
            # One that is gone meanwhile was pruned.
            with contextlib.suppress(FileNotFoundError), self._reading(name) as (descriptor, size_bytes):
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
    def _writing(self) -> Iterator[None]:
        """Hold the log, its tail known; OSError within becomes what a person is told."""
        with self._mutex:
            if self._dead is not None:
                raise self._dead
            self._lock()
            try:
                self._follow()
                yield
            except OSError as error:
                raise self._unwritable(error) from None
            finally:
                fcntl.flock(self._lock_fd, fcntl.LOCK_UN)

    def _lock(self) -> None:
        deadline_s = time.monotonic() + self._lock_timeout_s
        while True:
            try:
                fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > deadline_s:
                    raise AuditLogError(
                        f"another process has held the audit log {self.directory} for {self._lock_timeout_s:g} s",
                        hint=f"see who: fuser -v {os.path.join(self.directory, segments.LOCK_NAME)}",
                    ) from None
                time.sleep(0.001)

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
        self._tail, torn_bytes = find_tail(self.directory)
        if torn_bytes:
            self._own.append(cut_torn(self.directory, self._directory_fd, self._tail, torn_bytes, self._synced))
        self._check_head(known)

    def _check_head(self, known: Head) -> None:
        """Compare the tail with the head written last; durable records that are gone leave a gap that stays visible."""
        tail = self._tail
        head = max(known, self._heads.read().last or known, key=lambda each: each.seq)
        if head.seq < tail.seq or (head.seq == tail.seq and head.hash == tail.prev):
            return
        detail: dict[str, object] = {"found": str(Head(tail.seq, tail.prev)), "expected": str(head)}
        reason = "records that were durable are missing or were changed"
        # The number of a lost record is never given to another, so the chain shows the gap for ever.
        tail.seq, tail.prev = head.seq, head.hash
        self._own.append(AuditEvent("log_records_missing", decision="info", reason=reason, detail=detail))

    def _write_and_prune(
        self, entries: Sequence[Entry], plan: PrunePlan, why: str, actor: str
    ) -> tuple[AuditRecord, ...]:
        own = list(self._own)
        if not (own or entries or plan.gone):
            return ()
        if plan.gone:
            own.append(plan.event(why, actor))
            self._prune_due = False
            # On a full disk, too: what stands for the segments is written before they go.
            release_reserve(self.directory)
        try:
            self._write([(event, SUPERVISOR) for event in own] + list(entries))
        except BaseException:
            self._prune_due = self._prune_due or bool(plan.gone)
            raise
        self._own.clear()
        if plan.gone:
            with contextlib.suppress(OSError):
                remove(self.directory, self._directory_fd, plan)
            self._heads.forget_before(plan.last.seq)
            set_reserve_aside(self.directory)
        records = tuple(self._untold)
        self._untold.clear()
        if entries and self._prune_due:
            # Behind a seal at once, so that the log is never larger than it may be. The batch is durable whatever
            # becomes of this: what fails is tried again with the next one.
            with contextlib.suppress(OSError):
                self._untold += self._write_and_prune((), self._plan_due(), _AUTOMATICALLY, "")
        return records

    def _write(self, batch: Sequence[Entry]) -> None:
        tail = self._tail
        stamped = self._stamped(batch)
        if tail.descriptor >= 0 and not tail.sealed and tail.length_bytes:
            end_bytes = tail.length_bytes + sum(len(record.line) for record in stamped)
            if end_bytes + SEAL_RESERVE_BYTES > self._segment_bytes or self._is_old():
                self._seal()
                stamped = self._stamped(batch)  # they come behind the seal now
        if tail.descriptor < 0 or tail.sealed:
            self._start_segment()
        self._commit(stamped)

    def _is_old(self) -> bool:
        """Whether the segment's first record is so old that pruning by age would wait for the rest of it."""
        if self._segment_age_ns is None:
            return False
        tail = self._tail
        tail.begun = tail.begun or first_time(tail.descriptor)
        return "" < tail.begun < format_time(max(0, self._clock_ns() - self._segment_age_ns))

    def _stamped(self, batch: Sequence[Entry]) -> list[AuditRecord]:
        seq, prev = self._tail.seq, self._tail.prev
        records: list[AuditRecord] = []
        for event, origin in batch:
            seq += 1
            record = stamp(event, origin, seq=seq, time_ns=self._clock_ns(), host=self._host, prev=prev)
            prev = record.hash
            records.append(record)
        return records

    def _seal(self) -> None:
        tail = self._tail
        detail: dict[str, object] = {
            "segment": tail.name,
            "records": tail.seq - tail.first_seq + 1,
            "head": str(tail.head),
        }
        self._commit(self._stamped([(AuditEvent(segments.SEALED, decision="info", detail=detail), SUPERVISOR)]))
        tail.sealed = True
        # Gives back the space that was set aside: ftruncate(2) to the same size frees what lies behind it.
        os.ftruncate(tail.descriptor, tail.length_bytes)
        self._heads.add_sealed(tail.head)
        tell_journal(f"audit segment sealed in {self.directory}, head {tail.head}", self._journal)
        self._prune_due = self._retention != KEEP_ALL

    def _start_segment(self) -> None:
        tail = self._tail
        name = segments.segment_name(tail.seq + 1)
        descriptor = segments.open_segment(self.directory, name, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL)
        os.fchmod(descriptor, 0o600)
        tail.close()
        self._tail = Tail(descriptor, name, first_seq=tail.seq + 1, seq=tail.seq, prev=tail.prev)
        self._synced(self._directory_fd, os.fsync)

    def _commit(self, records: Sequence[AuditRecord]) -> None:
        """Write and sync; on any failure the file is as long as it was."""
        tail = self._tail
        data = b"".join(record.line for record in records)
        tail.write(data, self._ahead_bytes)
        self._synced(tail.descriptor)
        tail.length_bytes += len(data)
        tail.seq, tail.prev = records[-1].seq, records[-1].hash
        self._untold += records
        self._heads.write_last(tail.head)

    def _plan_due(self) -> PrunePlan:
        """Return what is to be pruned by itself; looked for when the log was opened or a segment was sealed."""
        if not self._prune_due:
            return PrunePlan()
        found, rest_bytes = survey(self.directory, self._tail.name)
        # As much as the segment that is written to may still grow.
        room_bytes = max(0, self._segment_bytes - self._tail.length_bytes)
        count = decide_prune(found, rest_bytes + room_bytes, self._retention, self._clock_ns())
        with contextlib.suppress(AuditLogError):
            # A log that is not intact is written to, and kept whole.
            plan = plan_prune(self.directory, found, count, self._heads.read())
            self._prune_due = bool(plan.gone)
            return plan
        self._prune_due = False
        return PrunePlan()

    def _synced(self, descriptor: int, sync: Callable[[int], None] | None = None) -> None:
        try:
            (sync or self._sync)(descriptor)
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
        directory, number = self.directory, error.errno or errno.EIO
        if number in FULL_DISK:
            hint = f"make room: df -h {directory}; airssys audit prune --keep SIZE"
        elif number == errno.EROFS:
            hint = f"make it writable: mount -o remount,rw $(findmnt -n -o TARGET -T {directory})"
        else:
            hint = f"look at it: ls -la {directory}; dmesg --level=err | tail"
        return AuditLogError(f"the audit log {directory} can't be written: {os.strerror(number)}", hint=hint)
