"""The files of an audit log: which segments there are, and how to read lines from either end.

A log is a directory (0700) of segments `audit-<first seq, 16 digits>.jsonl` (0600), of which the last is written to.
`torn-*.bin` is what was cut off by a repair, `lock` is locked by whoever writes; the heads are kept apart
(`supervisor.audit.heads`).
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator

from ipc.audit.errors import AuditLogError

SEGMENT_NAME = re.compile(r"audit-([0-9]{16})\.jsonl")
LOCK_NAME = "lock"
SEALED = "segment_sealed"
PRUNED = "log_pruned"
MAX_LINE_BYTES = 160 * 1024
"""No line is longer: 16 KiB of text, each byte at most seven characters once escaped, and the keys."""
_CHUNK_BYTES = 256 * 1024
_FIRST_CHUNK_BYTES = 16 * 1024
"""Who reads backwards mostly wants the last line."""


def segment_name(first_seq: int) -> str:
    """Return the name of the segment that begins with record `first_seq`."""
    return f"audit-{first_seq:016}.jsonl"


def first_seq_of(name: str) -> int:
    """Return the number of the first record of a segment."""
    return int(name[len("audit-") : -len(".jsonl")])


def segment_names(directory: str) -> list[str]:
    """Return the names of a log's segments, oldest first."""
    return sorted(name for name in os.listdir(directory) if SEGMENT_NAME.fullmatch(name))


def open_segment(directory: str, name: str, flags: int = os.O_RDONLY) -> int:
    """Open a segment, never through a symlink; OSError as open(2)."""
    return os.open(os.path.join(directory, name), flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)


def prepare_directory(path: str) -> int:
    """Make the log's directory (0700) if need be and return a descriptor of it; it must be ours and nobody else's."""
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise AuditLogError(
            f"the audit log directory {path} can't be used: {error.strerror}",
            hint=f"make it yours: install -d -m 700 {path}",
        ) from None
    status = os.fstat(descriptor)
    if status.st_uid != os.geteuid():
        os.close(descriptor)
        raise AuditLogError(
            f"the audit log directory {path} belongs to uid {status.st_uid}, not to uid {os.geteuid()}",
            hint="give it to this user, or keep another with --state-dir DIR",
        )
    if stat.S_IMODE(status.st_mode) & 0o077:
        os.fchmod(descriptor, 0o700)
    return descriptor


def lines_forward(descriptor: int) -> Iterator[tuple[int, bytes]]:
    """Yield (offset, line) from the beginning, each with its newline; what has none at the end comes as it is.

    A line longer than MAX_LINE_BYTES is yielded in pieces of at least that size, which no reader takes for a record.
    """
    offset, start, held = 0, 0, b""
    while chunk := os.pread(descriptor, _CHUNK_BYTES, offset):
        offset += len(chunk)
        lines = (held + chunk).split(b"\n")
        held = lines.pop()
        for line in lines:
            yield start, line + b"\n"
            start += len(line) + 1
        if len(held) > MAX_LINE_BYTES:
            yield start, held
            start += len(held)
            held = b""
    if held:
        yield start, held


def lines_backward(descriptor: int, size_bytes: int) -> Iterator[tuple[int, bytes]]:
    """Yield (offset, line) from the end of the first `size_bytes`; the first may lack its newline."""
    position, held, chunk_bytes = size_bytes, b"", _FIRST_CHUNK_BYTES
    while position > 0:
        start = max(0, position - chunk_bytes)
        chunk_bytes = _CHUNK_BYTES
        chunk = os.pread(descriptor, position - start, start)
        held = chunk + held
        position = start
        if len(held) > MAX_LINE_BYTES + _CHUNK_BYTES and b"\n" not in held[:-1]:
            yield position, held
            held = b""
            continue
        while True:
            cut = held.rfind(b"\n", 0, len(held) - 1)
            if cut < 0:
                break
            yield position + cut + 1, held[cut + 1 :]
            held = held[: cut + 1]
    if held:
        yield 0, held
