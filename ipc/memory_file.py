"""Sealed memory files: bytes that nobody, not even their maker, can change any more (memfd_create(2), F_ADD_SEALS).

What is checked is what is used: an artifact is copied, sealed, and only then hashed; the worker maps that very file.
"""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os

from ipc.errors import LocalProtocolError

_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_FIXED = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_CHUNK_BYTES = 1 << 24


def from_bytes(name: str, data: bytes, sealed: bool = True) -> int:
    """Return a close-on-exec descriptor of a sealed file with `data` in it.

    Not `sealed` it is for who may make no seals (the broker's filter), and is read by who `take`s it at once.
    """
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC | (os.MFD_ALLOW_SEALING if sealed else 0))
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        if sealed:
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def from_file(name: str, source: int, max_bytes: int) -> int:
    """Copy an open file into a sealed one; raises ValueError when it holds more than `max_bytes`."""
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        total = 0
        while True:
            sent = os.sendfile(descriptor, source, total, _CHUNK_BYTES)
            if sent == 0:
                break
            total += sent
            if total > max_bytes:
                raise ValueError(f"larger than {max_bytes} bytes")
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def sha256(descriptor: int) -> str:
    """Return the hex SHA-256 of a sealed file."""
    size_bytes = os.fstat(descriptor).st_size
    if size_bytes == 0:
        return hashlib.sha256().hexdigest()
    with mmap.mmap(descriptor, size_bytes, prot=mmap.PROT_READ) as view:
        return hashlib.sha256(view).hexdigest()


def read_all(descriptor: int) -> bytes:
    """Return what a sealed file holds."""
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0)


def read_sealed(descriptor: int, max_bytes: int) -> bytes:
    """Return what somebody's sealed file holds, which nobody can make wait or change; raises ValueError otherwise."""
    try:
        seals = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
    except OSError:  # a pipe, a file of some file system, a device: whatever it is, reading it could take for ever
        raise ValueError("is not a sealed memory file") from None
    if seals & _FIXED != _FIXED:
        raise ValueError("is not sealed")
    if os.fstat(descriptor).st_size > max_bytes:
        raise ValueError(f"has more than {max_bytes} bytes")
    return read_all(descriptor)


def take(descriptor: int, max_bytes: int) -> bytes:
    """Return what a file that came along with a message holds, and close it; LocalProtocolError above `max_bytes`."""
    with open(descriptor, "rb") as source:
        # From the start: the sender may have written through this very open file description.
        source.seek(0)
        data = source.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise LocalProtocolError(f"a file of more than {max_bytes} bytes came along")
    return data
