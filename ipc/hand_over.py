"""What a warden tells the supervisor, and the warden after it, about one worker, should it be killed: shared memory.

A byte: a descriptor is being handed over at this moment. In one step (SECCOMP_ADDFD_FLAG_SEND) the call counts as
answered before its thread has taken the descriptor. A warden that is killed in between has given it a wrong number, and
the kernel keeps no trace of that: then the byte is set (docs/adr/0013).

Processors: that the worker is kept on one for a burst of calls, and which ones it had before (docs/adr/0018).
"""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Set
from typing import Final

_CPU_AT: Final = 1
_CPU_BYTES: Final = 2
_BEFORE_AT: Final = _CPU_AT + _CPU_BYTES
_BEFORE_BYTES: Final = 1024
"""A bit for each processor; Linux has 8,192 at most."""
MARK_BYTES: Final = _BEFORE_AT + _BEFORE_BYTES


def make_mark() -> int:
    """Return a descriptor of a new mark, not set. Its size is sealed: who holds it can't take it from the others."""
    descriptor = os.memfd_create("hand-over", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, MARK_BYTES)
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
    return mmap.mmap(descriptor, MARK_BYTES)


def note_cpus(mark: mmap.mmap | bytearray, cpu: int, before: Set[int]) -> None:
    """Note for whoever comes after us that the worker is on one processor, and which ones it had before."""
    bits = sum(1 << each for each in before)
    mark[_CPU_AT:MARK_BYTES] = (cpu + 1).to_bytes(_CPU_BYTES, "little") + bits.to_bytes(_BEFORE_BYTES, "little")


def clear_cpus(mark: mmap.mmap | bytearray) -> None:
    """Note that the worker has what it had."""
    mark[_CPU_AT:_BEFORE_AT] = bytes(_CPU_BYTES)


def noted_cpus(mark: mmap.mmap | bytearray) -> tuple[int, set[int]] | None:
    """Return on which processor the worker was left, and which ones it had before; None: it has those."""
    cpu = int.from_bytes(mark[_CPU_AT:_BEFORE_AT], "little") - 1
    if cpu < 0:
        return None
    bits = int.from_bytes(mark[_BEFORE_AT:MARK_BYTES], "little")
    return cpu, {each for each in range(bits.bit_length()) if bits >> each & 1}
