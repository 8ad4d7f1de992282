"""One poll(2) for everything that a supervisor waits for: the runs of its components, and what stands around them.

What a source waits for is asked again only after something has happened to it, so that a turn costs what happened in
it and not what there is. What is ready is the word of poll(2): to epoll(7) a descriptor that was closed, and whose
number was given out again, would be lost.
"""

from __future__ import annotations

import contextlib
import select
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Final, Protocol

from ipc.struct import Struct

READ: Final = select.POLLIN
WRITE: Final = select.POLLOUT
_BLIND_MS: Final = 1_000
"""How long a word of epoll(7)'s alone is waited for, before poll(2) is asked all the same."""


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


class _Alarm:
    """Waits until poll(2) has something to say, by epoll(7): a wait of poll's own costs for each descriptor there is.

    It may be wrong: that is found by asking poll, which costs little where it needn't wait.
    """

    __slots__ = ("_epoll", "_poll", "_refused")

    def __init__(self) -> None:
        self._poll = select.poll()
        self._epoll = select.epoll()
        self._refused: set[int] = set()
        """What epoll doesn't take: files of a disk, which are always ready, and what isn't open."""

    def set(self, descriptor: int, mask: int) -> None:
        """Wait for this; say so again whenever the number may stand for another descriptor."""
        self._poll.register(descriptor, mask)
        self._refused.discard(descriptor)
        try:
            try:
                self._epoll.modify(descriptor, mask)
            except FileNotFoundError:
                self._epoll.register(descriptor, mask)
        except OSError:
            self._refused.add(descriptor)

    def unset(self, descriptor: int) -> None:
        """Wait for it no more; it may be closed already."""
        self._poll.unregister(descriptor)
        self._refused.discard(descriptor)
        with contextlib.suppress(OSError):
            self._epoll.unregister(descriptor)

    def wait(self, timeout_ms: int | None, masks: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
        """Return what is ready, at the latest when the time is over or a while has passed; `masks` is all there is."""
        if self._refused:
            return self._poll.poll(timeout_ms)
        patience_ms = _BLIND_MS if timeout_ms is None else min(timeout_ms, _BLIND_MS)
        told = self._epoll.poll(patience_ms / 1e3)
        ready = self._poll.poll(0)
        if told and not ready:
            # Of a descriptor that is closed here and open elsewhere; only another epoll gets rid of it.
            self._epoll.close()
            self._epoll = select.epoll()
            for descriptor, mask in masks:
                self.set(descriptor, mask)
        return ready


class EventLoop:
    """The sources by their keys. All of it happens in one thread, and nothing that a source does may block."""

    __slots__ = ("_alarm", "_due_ns", "_interests", "_masks", "_sources", "_touched")

    def __init__(self) -> None:
        """Wait for nothing yet."""
        self._alarm = _Alarm()
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
        for descriptor, mask in self._alarm.wait(timeout_ms, self._total_masks()):
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
        if mask:
            wanted[key] = mask
        else:
            wanted.pop(key, None)
        if wanted:
            # Also where nothing has changed: the number may stand for another descriptor by now.
            self._alarm.set(descriptor, _total(wanted))
        else:
            del self._masks[descriptor]
            self._alarm.unset(descriptor)

    def _total_masks(self) -> Iterator[tuple[int, int]]:
        return ((descriptor, _total(wanted)) for descriptor, wanted in self._masks.items())


def _total(wanted: dict[str, int]) -> int:
    total = 0
    for mask in wanted.values():
        total |= mask
    return total
