"""A byte that a warden and the supervisor share for one worker: a descriptor is being handed over at this moment.

Handed over in one step (SECCOMP_ADDFD_FLAG_SEND) the call counts as answered before its thread has taken the
descriptor. A warden that is killed in between has given it a wrong number, and the kernel keeps no trace of that: then
the byte is set (docs/adr/0013).
"""

from __future__ import annotations

import fcntl
import mmap
import os


def make_mark() -> int:
    """Return a descriptor of a new mark, not set. Its size is sealed: who holds it can't take it from the others."""
    descriptor = os.memfd_create("hand-over", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, 1)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return descriptor


def is_marked(descriptor: int) -> bool:
    """Whether the mark is set; one that can't be read counts as set."""
    try:
        return os.pread(descriptor, 1, 0) != b"\0"
    except OSError:
        return True


def share_mark(descriptor: int) -> mmap.mmap:
    """Return the mark as memory: item 0 is what `is_marked` sees, also after this process was killed."""
    return mmap.mmap(descriptor, 1)
