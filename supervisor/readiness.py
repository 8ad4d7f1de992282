"""What to wait for, and what to do when it is there: a table of descriptors with their handlers, and one poll(2)."""

from __future__ import annotations

import selectors
import time
from collections.abc import Callable, Iterable

from ipc.struct import Struct

READ = selectors.EVENT_READ
WRITE = selectors.EVENT_WRITE


class Interest(Struct, frozen=True):
    """A descriptor that is waited for, to be read or to be written, and who takes it from there."""

    descriptor: int
    events: int
    handle: Callable[[], object]


def wait(interests: Iterable[Interest], until_ns: int) -> list[Interest]:
    """Wait for any interest, at most until a time of the monotonic clock (0: for ever); return those that are ready."""
    wanted: dict[int, list[Interest]] = {}
    for interest in interests:
        wanted.setdefault(interest.descriptor, []).append(interest)
    with selectors.PollSelector() as selector:
        for descriptor, of_this in wanted.items():
            mask = 0
            for interest in of_this:
                mask |= interest.events
            selector.register(descriptor, mask, of_this)
        timeout_s = max(0.0, (until_ns - time.monotonic_ns()) / 1e9) if until_ns else None
        ready = selector.select(timeout_s)
    return [interest for key, mask in ready for interest in key.data if mask & interest.events]
