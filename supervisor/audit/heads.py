"""The recorded heads of an audit log, kept apart from it: by them `verify` finds that a log was shortened or replaced.

`DIR.heads` (0600) stands beside the log's directory DIR. Its first line is the last durable record, written over in
place behind each write; a line follows for each sealed segment that is still there, and for the last one that was
pruned. All lines have one length, so each is either an old one or a new one, for a reader too.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat

from ipc.audit.errors import AuditLogError
from ipc.struct import Struct

_FLAGS = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class Head(Struct, frozen=True):
    """A durable record: its number and the SHA-256 of its line (hex)."""

    seq: int
    hash: str

    def __str__(self) -> str:
        return f"{self.seq}:{self.hash}"

    @staticmethod
    def parse(text: str) -> Head:
        """Read `SEQ:HASH`; ValueError for anything else."""
        match = re.fullmatch(r"([0-9]{1,16}):([0-9a-f]{64})", text.strip())
        if match is None:
            raise ValueError("expected SEQ:SHA256")
        return Head(int(match[1]), match[2])


class RecordedHeads(Struct, frozen=True):
    """What the heads file says; `damaged_line` is the first line that is none, 0 for a good file or for no file."""

    last: Head | None = None
    sealed: tuple[Head, ...] = ()
    damaged_line: int = 0


LINE_BYTES = 16 + 1 + 64 + 1
_MAX_BYTES = 100_000 * LINE_BYTES
_LINE = re.compile(rb"([0-9]{16}):([0-9a-f]{64})\n")


def heads_path(directory: str) -> str:
    """Return where the heads of the log in `directory` are."""
    return os.path.abspath(directory) + ".heads"


def parse_heads(data: bytes) -> RecordedHeads:
    """Read the bytes of a heads file; a last line that a crash cut short is no damage."""
    heads: list[Head] = []
    whole_bytes = len(data) - len(data) % LINE_BYTES
    for number, start in enumerate(range(0, whole_bytes, LINE_BYTES), 1):
        match = _LINE.fullmatch(data[start : start + LINE_BYTES])
        head = Head(int(match[1]), match[2].decode("ascii")) if match else None
        if head is None or head.seq < 1 or (number > 2 and head.seq <= heads[-1].seq):
            return RecordedHeads(heads[0] if heads else None, tuple(heads[1:]), number)
        heads.append(head)
    return RecordedHeads(heads[0] if heads else None, tuple(heads[1:]))


def read_heads(directory: str) -> RecordedHeads | None:
    """Return what is recorded of the log in `directory`, None without a heads file; OSError as open(2)."""
    try:
        descriptor = os.open(heads_path(directory), os.O_RDONLY | _FLAGS)
    except FileNotFoundError:
        return None
    try:
        return parse_heads(_contents(descriptor))
    finally:
        os.close(descriptor)


def _contents(descriptor: int) -> bytes:
    data, offset = b"", 0
    while offset < _MAX_BYTES and (chunk := os.pread(descriptor, 65536, offset)):
        data += chunk
        offset += len(chunk)
    return data


def _line(head: Head) -> bytes:
    return f"{head.seq:016}:{head.hash}\n".encode("ascii")


class HeadsFile:
    """The heads of one log, open for writing; used under the log's lock. Only a check on what is durable already:

    a head that can't be written is no error, and one that lags behind isn't either.
    """

    def __init__(self, directory: str) -> None:
        """Open or make the file beside `directory`; OSError as open(2), AuditLogError when it isn't ours alone."""
        path = heads_path(directory)
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | _FLAGS, 0o600)
        status = os.fstat(self._descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            os.close(self._descriptor)
            raise AuditLogError(f"{path} is not a file of uid {os.geteuid()}", hint=f"look at it: ls -la {path}")
        if stat.S_IMODE(status.st_mode) & 0o077:
            os.fchmod(self._descriptor, 0o600)

    def read(self) -> RecordedHeads:
        """Return what the file says."""
        return parse_heads(_contents(self._descriptor))

    def write_last(self, head: Head) -> None:
        """Write the last durable record over the one before it."""
        try:  # noqa: SIM105 # half the time of suppress(), of which who waits for a record has all
            os.pwrite(self._descriptor, _line(head), 0)
        except OSError:
            pass

    def add_sealed(self, head: Head) -> None:
        """Add the head of a sealed segment, durably."""
        with contextlib.suppress(OSError):
            size_bytes = os.fstat(self._descriptor).st_size
            # Over a line that a crash cut short, if there is one.
            os.pwrite(self._descriptor, _line(head), max(LINE_BYTES, size_bytes - size_bytes % LINE_BYTES))
            os.fdatasync(self._descriptor)

    def forget_before(self, seq: int) -> None:
        """Drop the heads of segments that were pruned, but for record `seq`, the last of them."""
        with contextlib.suppress(OSError):
            kept = [head for head in self.read().sealed if head.seq >= seq]
            os.pwrite(self._descriptor, b"".join(map(_line, kept)), LINE_BYTES)
            os.ftruncate(self._descriptor, LINE_BYTES * (1 + len(kept)))
            os.fdatasync(self._descriptor)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)
