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

from ipc.audit.errors import AuditLogError
from ipc.errors import ConfigError, LocalProtocolError
from ipc.policy.document import PolicyDocument

DIRECTORY_NAME = "policies"
MAX_POLICY_BYTES = 32 * 1024 * 1024
"""More than any document has that a run could start with: one frame to the warden is smaller."""
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
