"""The descriptor layer: what a worker holds is a list; everything else is closed before anything else happens."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

from worker import libc

MAX_DESCRIPTOR = (1 << 32) - 1


def arrange(descriptors: Sequence[int]) -> None:
    """Make the given descriptors 0, 1, 2, … in that order and close all others; the order may permute them."""
    # Duplicates above both ranges first: a later dup2(2) must not overwrite one that is still needed.
    floor = max(len(descriptors), *descriptors) + 1
    high = [_duplicate_above(descriptor, floor) for descriptor in descriptors]
    for number, descriptor in enumerate(high):
        os.dup2(descriptor, number, inheritable=True)
    close_from(len(descriptors))


def close_from(first: int) -> None:
    """Close every descriptor from `first` on."""
    try:
        libc.close_range(first, MAX_DESCRIPTOR)
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
        os.closerange(first, os.sysconf("SC_OPEN_MAX"))


def _duplicate_above(descriptor: int, floor: int) -> int:
    import fcntl

    return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, floor)
