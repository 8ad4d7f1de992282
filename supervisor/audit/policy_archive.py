"""The policies that audit events name by their hash, kept beside the log: what was in force then can be asked later.

`policies/SHA256` in the log's directory holds one policy document as JSON, owner-only (0600 in 0700). It is durable
before the first record that names it, never changed, and stays as long as the log. Its name is the hash of what it
says, so a reader finds out whether it was changed.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
import time

from ipc.audit.errors import AuditLogError
from ipc.errors import ConfigError, LocalProtocolError
from ipc.policy.document import PolicyDocument

DIRECTORY_NAME = "policies"
MAX_POLICY_BYTES = 32 * 1024 * 1024
"""More than any document has that a run could start with: one frame to the warden is smaller."""
_USE_NOTED_EVERY_NS = 86_400 * 10**9
_DIGEST = re.compile(r"[0-9a-f]{64}")


class PolicyNotKeptError(ConfigError):
    """The policy of an event isn't there to be asked."""


def keep_policy(audit_directory: str, document: PolicyDocument, digest: str) -> None:
    """Make the document durable under its hash, where it isn't yet; raises AuditLogError when that is impossible.

    `digest` is `document.digest()`, which whoever stamps the events has at hand.
    """
    path = os.path.join(audit_directory, DIRECTORY_NAME)
    data = _to_bytes(document)
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)
        directory = _open_directory(path)
        try:
            if _read(directory, digest, len(data) + 1) != data:
                _write(directory, digest, data)
            else:
                _note_use(directory, digest)
        finally:
            os.close(directory)
    except OSError as error:
        raise AuditLogError(
            f"the policy of this run can't be kept in {path}: {os.strerror(error.errno or 0)}; nothing runs without",
            hint=f"make room or make it yours: df -h {path}; ls -lad {path}",
        ) from None


def read_policy(audit_directory: str, digest: str) -> PolicyDocument:
    """Return the kept document; raises PolicyNotKeptError where there is none, AuditLogError where it was changed."""
    path = os.path.join(audit_directory, DIRECTORY_NAME, digest)
    data = None
    if _DIGEST.fullmatch(digest) is not None:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            directory = _open_directory(os.path.dirname(path))
            try:
                data = _read(directory, digest, MAX_POLICY_BYTES + 1)
            finally:
                os.close(directory)
    if data is None:
        raise PolicyNotKeptError(
            f"the policy {digest} isn't kept in {os.path.dirname(path)}",
            hint="a log that was copied needs its directory `policies` too; earlier versions kept none",
        )
    document = _from_bytes(data)
    if document is None or document.digest() != digest:
        raise AuditLogError(
            f"{path} isn't the policy that was recorded: its hash is another",
            hint="look at the log: airssys audit verify",
        )
    return document


def forget_policies(audit_directory: str, unused_since_ns: int) -> int:
    """Remove the documents that no record after this moment (UTC, ns) names, for who prunes the log; return how many.

    `unused_since_ns` is the time of the oldest record that is kept. What was used in the two days before stays, too:
    the day of the last use is noted, not its second.
    """
    path = os.path.join(audit_directory, DIRECTORY_NAME)
    try:
        directory = _open_directory(path)
    except (FileNotFoundError, NotADirectoryError):
        return 0
    removed = 0
    try:
        for name in os.listdir(directory):
            # What a crash left half written begins with a dot, and goes like the others.
            if _DIGEST.fullmatch(name) is None and not name.startswith("."):
                continue
            with contextlib.suppress(FileNotFoundError):
                status = os.stat(name, dir_fd=directory, follow_symlinks=False)
                if status.st_mtime_ns < unused_since_ns - 2 * _USE_NOTED_EVERY_NS:
                    os.unlink(name, dir_fd=directory)
                    removed += 1
    finally:
        os.close(directory)
    return removed


def _note_use(directory: int, name: str) -> None:
    """Note, once a day and durable, that records still name it: `forget_policies` goes by that."""
    now_ns = time.time_ns()
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        if abs(now_ns - os.fstat(descriptor).st_mtime_ns) > _USE_NOTED_EVERY_NS:
            os.utime(descriptor, ns=(now_ns, now_ns))
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _to_bytes(document: PolicyDocument) -> bytes:
    def as_text(value: object) -> str:
        # Undecodable names travel as bytes; JSON has the surrogate escapes themselves (PEP 383), escaped once more.
        assert isinstance(value, bytes)
        return value.decode("utf-8", "surrogateescape")

    return json.dumps(document.to_wire(), ensure_ascii=True, separators=(",", ":"), default=as_text).encode("ascii")


def _from_bytes(data: bytes) -> PolicyDocument | None:
    try:
        return PolicyDocument.from_wire(json.loads(data)) if len(data) <= MAX_POLICY_BYTES else None
    except (ValueError, RecursionError, LocalProtocolError):
        return None


def _open_directory(path: str) -> int:
    """Open the directory, which must be ours and nobody else's to write; OSError as open(2)."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    status = os.fstat(descriptor)
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        os.close(descriptor)
        raise AuditLogError(
            f"{path} must belong to you and be writable by nobody else", hint=f"look at it: ls -lad {path}"
        )
    return descriptor


def _read(directory: int, name: str, limit_bytes: int) -> bytes | None:
    """Return at most so many bytes of a regular file; None where there is none."""
    try:
        # O_NONBLOCK: a FIFO in place of the file must not hold us.
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=directory)
    except FileNotFoundError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return b""
        chunks: list[bytes] = []
        while limit_bytes > 0 and (chunk := os.read(descriptor, limit_bytes)):
            chunks.append(chunk)
            limit_bytes -= len(chunk)
        return b"".join(chunks)
    finally:
        os.close(descriptor)


def _write(directory: int, name: str, data: bytes) -> None:
    """Put the file there in one step, durable: a crash leaves all of it or none, and a full disk leaves nothing."""
    fresh = f".{name}-{os.urandom(8).hex()}"
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=directory)
    try:
        try:
            written = 0
            while written < len(data):
                written += os.write(descriptor, data[written:])
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.rename(fresh, name, src_dir_fd=directory, dst_dir_fd=directory)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(fresh, dir_fd=directory)
        raise
    os.fsync(directory)
