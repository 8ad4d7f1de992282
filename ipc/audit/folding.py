"""Folding: a thousand alike events become two lines, and the counts stay exact. Pure: no clock, no thread, no socket.

The first event of a kind opens a window: it is recorded by itself, durably, before the action or the answer. What
repeats while the window is open is only counted. When the window ends (its time is over, too many kinds are open, or
the producer is done) a closing record says how often it repeated. So the counts of all records add up to what happened.
"""

from __future__ import annotations

from collections.abc import Hashable

from ipc.audit.event import AuditEvent
from ipc.struct import Struct, replace

WINDOW_NS = 10_000_000_000
MAX_OPEN_WINDOWS = 4096
REPEATED_SUFFIX = "_repeated"

Key = Hashable
"""Any value that tells one kind of event from another; `key_of` for a whole event."""


def key_of(event: AuditEvent) -> Key:
    """Return what tells kinds of events apart: who, what, on what, with which answer by which rule."""
    return (
        event.component,
        event.instance,
        event.actor,
        event.event,
        event.decision,
        event.action,
        event.resource,
        event.rule,
        event.code,
    )


class Window(Struct):
    """The open window of one kind of event. `closed` tells who counts into it directly to look for another one."""

    event: AuditEvent
    opened_ns: int
    last_ns: int
    repeats: int = 0
    closed: bool = False


class Folder:
    """Open windows by kind; the caller serialises the calls. `now_ns` is monotonic.

    The order for one happening: `repeat(key)`; if that answers False, record the event durably and then `begin` its
    window. An event whose record failed was not begun, so that the next one of its kind tries again.
    """

    __slots__ = ("_max_windows", "_window_ns", "_windows")

    def __init__(self, window_ns: int = WINDOW_NS, max_windows: int = MAX_OPEN_WINDOWS) -> None:
        """Fold within windows of `window_ns`, at most `max_windows` of them open at a time (bounded memory)."""
        if window_ns <= 0 or max_windows <= 0:
            raise ValueError("a window lasts at least 1 ns, and there is at least one")
        self._window_ns = window_ns
        self._max_windows = max_windows
        # In the order of opening, which is the order of ending: all windows are equally long.
        self._windows: dict[Key, Window] = {}

    def __len__(self) -> int:
        return len(self._windows)

    def repeat(self, key: Key, now_ns: int, count: int = 1) -> bool:
        """Count a happening into its open window; False when there is none: then it must be recorded by itself."""
        window = self._windows.get(key)
        if window is None or now_ns - window.opened_ns >= self._window_ns:
            return False
        window.repeats += count
        window.last_ns = now_ns
        return True

    def begin(self, key: Key, event: AuditEvent, now_ns: int) -> tuple[AuditEvent, ...]:
        """Open the window of an event that was recorded by itself; returns the closing records to be written now.

        Where another thread has opened it meanwhile nothing is counted twice: both events are in the log.
        """
        window = self._windows.get(key)
        if window is not None and now_ns - window.opened_ns < self._window_ns:
            return ()
        closed = list(self.due(now_ns))
        while len(self._windows) >= self._max_windows:
            closed += self._close(next(iter(self._windows)))
        self._windows[key] = Window(event, now_ns, now_ns)
        return tuple(closed)

    def window(self, key: Key) -> Window | None:
        """The open window of a kind, for a caller that counts too often to look it up each time."""
        return self._windows.get(key)

    def note(self, event: AuditEvent, now_ns: int) -> tuple[AuditEvent, ...]:
        """Take one happening; returns the records to be written: closing ones, then perhaps `event` itself."""
        key = key_of(event)
        if self.repeat(key, now_ns, event.count):
            return ()
        return (*self.begin(key, event, now_ns), event)

    def due(self, now_ns: int) -> tuple[AuditEvent, ...]:
        """Close the windows whose time is over; returns their closing records."""
        closed: list[AuditEvent] = []
        while self._windows:
            key, window = next(iter(self._windows.items()))
            if now_ns - window.opened_ns < self._window_ns:
                break
            closed += self._close(key)
        return tuple(closed)

    def flush(self) -> tuple[AuditEvent, ...]:
        """Close all windows; returns their closing records."""
        closed: list[AuditEvent] = []
        while self._windows:
            closed += self._close(next(iter(self._windows)))
        return tuple(closed)

    def flush_component(self, instance: str) -> tuple[AuditEvent, ...]:
        """Close the windows of one instance, which has ended; returns their closing records."""
        closed: list[AuditEvent] = []
        for key in [key for key, window in self._windows.items() if window.event.instance == instance]:
            closed += self._close(key)
        return tuple(closed)

    def next_due_ns(self) -> int | None:
        """Return when `due` will next have something to close; None when no window is open."""
        for window in self._windows.values():
            return window.opened_ns + self._window_ns
        return None

    def _close(self, key: Key) -> tuple[AuditEvent, ...]:
        window = self._windows.pop(key)
        window.closed = True
        if not window.repeats:
            return ()
        first = window.event
        detail = dict(first.detail or {})
        detail["repeated_over_ns"] = window.last_ns - window.opened_ns
        # The first is in the log with a count of its own; `total` is for people, `count` adds up.
        detail["total"] = window.repeats + first.count
        return (replace(first, event=first.event + REPEATED_SUFFIX, count=window.repeats, detail=detail),)
