"""One poll(2) for everything that a supervisor waits for: the runs of its components, and what stands around them.

What a source waits for is asked again only after something has happened to it, so that a turn costs what happened in
it and not what there is. Not epoll(7): a descriptor that was closed and whose number was given out again would be lost.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from ipc.struct import Struct

READ: Final = select.POLLIN
WRITE: Final = select.POLLOUT


class Interest(Struct, frozen=True):
    """A descriptor that is waited for, to be read or to be written, and who takes it from there."""

    descriptor: int
    events: int
    handle: Callable[[], object]


class Source(Protocol):
    """Something that waits for descriptors and for times."""

    def interests(self) -> Iterable[Interest]:
        """Return what it waits for now."""

    def next_ns(self) -> int:
        """Return when it has to be called at the latest, on the monotonic clock; 0: not before something happens."""

    def tick(self, now_ns: int) -> None:
        """Do what is due; called in each turn in which something has happened to it, or its time has come."""


class EventLoop:
    """The sources by their keys. All of it happens in one thread, and nothing that a source does may block."""

    __slots__ = ("_due_ns", "_interests", "_masks", "_poll", "_sources", "_touched")

    def __init__(self) -> None:
        """Wait for nothing yet."""
        self._poll = select.poll()
        self._sources: dict[str, Source] = {}
        self._interests: dict[str, tuple[Interest, ...]] = {}
        self._masks: dict[int, dict[str, int]] = {}
        self._due_ns: dict[str, int] = {}
        self._touched: set[str] = set()

    def add(self, key: str, source: Source) -> None:
        """Take a source in; it is asked what it waits for before the next wait."""
        self._sources[key] = source
        self._touched.add(key)

    def remove(self, key: str) -> None:
        """Forget a source; it may close its descriptors before or after."""
        if self._sources.pop(key, None) is not None:
            self._await(key, ())
            del self._interests[key]
            self._due_ns.pop(key, None)
            self._touched.discard(key)

    def touch(self, *keys: str) -> None:
        """Something has happened to these: they are called in this turn, and asked again."""
        self._touched.update(key for key in keys if key in self._sources)

    def touch_all(self) -> None:
        """Something has happened that concerns all."""
        self._touched.update(self._sources)

    def turn(self, until_ns: int = 0) -> None:
        """Wait for anything, at most until `until_ns` (0: for ever), and have it handled."""
        self._refresh()
        due_ns = min((ns for ns in (until_ns, *self._due_ns.values()) if ns), default=0)
        timeout_ms = None if not due_ns else max(0, -(-(due_ns - time.monotonic_ns()) // 10**6))
        for descriptor, mask in self._poll.poll(timeout_ms):
            for key in tuple(self._masks.get(descriptor, ())):
                self._handle(key, descriptor, mask)
        now_ns = time.monotonic_ns()
        self._touched.update(key for key, ns in self._due_ns.items() if 0 < ns <= now_ns)
        called: set[str] = set()
        # What one of them does when it is called can concern another, which was called already or wasn't to be.
        while self._touched:
            touched, self._touched = self._touched, set()
            called |= touched
            for key in touched:
                source = self._sources.get(key)
                if source is not None:
                    source.tick(now_ns)
        self._touched = called

    def _handle(self, key: str, descriptor: int, mask: int) -> None:
        self._touched.add(key)
        for interest in self._interests.get(key, ()):
            # An end or an error is handled by whoever waits: reading or writing then tells what it is.
            if interest.descriptor == descriptor and mask & (interest.events | ~(READ | WRITE)):
                interest.handle()

    def _refresh(self) -> None:
        while self._touched:
            key = self._touched.pop()
            source = self._sources.get(key)
            if source is not None:
                self._await(key, tuple(source.interests()))
                self._due_ns[key] = source.next_ns()

    def _await(self, key: str, interests: tuple[Interest, ...]) -> None:
        before = {interest.descriptor for interest in self._interests.get(key, ())}
        self._interests[key] = interests
        after: dict[int, int] = {}
        for interest in interests:
            after[interest.descriptor] = after.get(interest.descriptor, 0) | interest.events
        for descriptor in before - after.keys():
            self._set_mask(descriptor, key, 0)
        for descriptor, mask in after.items():
            self._set_mask(descriptor, key, mask)

    def _set_mask(self, descriptor: int, key: str, mask: int) -> None:
        wanted = self._masks.setdefault(descriptor, {})
        if wanted.get(key, 0) == mask:
            return
        if mask:
            wanted[key] = mask
        else:
            wanted.pop(key, None)
        total = 0
        for each in wanted.values():
            total |= each
        if total:
            self._poll.register(descriptor, total)
        else:
            del self._masks[descriptor]
            self._poll.unregister(descriptor)
