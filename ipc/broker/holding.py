"""What the core has recorded, and what waits for it: a refusal is sent once its record is durable, and nobody blocks.

Records that don't fit into the stream's queue wait here, in their order; while many do, nothing more is taken from the
workers. A record that isn't acknowledged in time has failed for who waits for it, though it may still come to be.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from typing import Final, NamedTuple

from ipc.audit.event import AuditEvent
from ipc.audit.stream import AuditClient
from ipc.broker.events import Recorded

WAITING_MAX: Final = 4_096
"""So many records that don't fit into the queue stop the reading of messages."""
DEADLINE_NS: Final = 5_000_000_000
TOO_LATE: Final = "the audit log did not acknowledge it in time"


class _Held(NamedTuple):
    position: int
    ticket: int
    deadline_ns: int


class Holding:
    """The broker's end of the audit stream."""

    def __init__(self, endpoint: str, server_key: bytes, public_key: bytes, secret_key: bytes) -> None:
        """Connect; `fileno` becomes readable when something was acknowledged."""
        self._progress_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.client = AuditClient(endpoint, server_key, public_key, secret_key, on_progress=self._tell)
        self._waiting: deque[tuple[AuditEvent, int, int]] = deque()
        self._held: deque[_Held] = deque()

    def fileno(self) -> int:
        """Return the eventfd(2), for poll(2)."""
        return self._progress_fd

    def record(self, event: AuditEvent, ticket: int, now_ns: int) -> None:
        """Put an event on record; `take_recorded` gives the ticket, if it isn't 0, once that is durable."""
        deadline_ns = now_ns + DEADLINE_NS
        if self._waiting or not self._recorded(event, ticket, deadline_ns):
            self._waiting.append((event, ticket, deadline_ns))

    def take_recorded(self, now_ns: int) -> list[Recorded]:
        """Return what became durable, or failed, since the last time; raises AuditError when the stream broke."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._progress_fd)
        acknowledged = self.client.acknowledged
        while self._waiting and self._recorded(*self._waiting[0]):
            self._waiting.popleft()
        recorded: list[Recorded] = []
        held = self._held
        while held and (held[0].position <= acknowledged or held[0].deadline_ns <= now_ns):
            position, ticket, _ = held.popleft()
            failed = (self.client.take_refusal(position) or "") if position <= acknowledged else TOO_LATE
            recorded.append(Recorded(ticket, failed))
        if not held:
            # Behind what is held, in time as in order.
            for number, (event, ticket, deadline_ns) in enumerate(self._waiting):
                if deadline_ns > now_ns:
                    break
                if ticket:
                    recorded.append(Recorded(ticket, TOO_LATE))
                    self._waiting[number] = (event, 0, deadline_ns)
        return recorded

    def next_due_ns(self) -> int | None:
        """Return when what is held will have failed."""
        if self._held:
            return self._held[0].deadline_ns
        if not self._waiting:
            return None  # as a rule, and in each turn
        return next((deadline_ns for _, ticket, deadline_ns in self._waiting if ticket), None)

    def is_full(self) -> bool:
        """Whether nothing more should be begun that may have to be recorded."""
        return len(self._waiting) >= WAITING_MAX

    def close(self) -> None:
        """Have everything made durable and disconnect; raises AuditError when something could not be."""
        for event, _, _ in self._waiting:
            self.client.record(event)
        self._waiting.clear()
        self.client.close()
        os.close(self._progress_fd)

    def _recorded(self, event: AuditEvent, ticket: int, deadline_ns: int) -> bool:
        position = self.client.try_record(event)
        if position is None:
            return False
        if ticket:
            self._held.append(_Held(position, ticket, deadline_ns))
        return True

    def _tell(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_write(self._progress_fd, 1)
