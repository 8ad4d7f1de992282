"""One run's side of the quotas that the supervisor sees to: CPU time, by holding the worker, and memory, by looking.

How long a worker is held is `governor`'s. Who must end is held no longer: it has its own deadlines.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from ipc.audit.event import AuditEvent
from ipc.errors import AuditError
from ipc.policy.quotas import Quotas
from ipc.struct import Struct, replace
from supervisor.run.governor import Governor
from supervisor.run.worker import RunWorker

if TYPE_CHECKING:
    from ipc.audit.folding import Folder


class RunQuotas(Struct):
    """`quotas` are the component's and outlive the run; `note` puts an event on record and waits for nothing."""

    quotas: Quotas
    worker: RunWorker
    base_event: AuditEvent
    note: Callable[[AuditEvent], None]
    _governor: Governor | None = None
    _own_memory_bytes: int = 0
    _folder: Folder | None = None
    _ends: bool = False

    @property
    def next_ns(self) -> int:
        """When to look at the latest; 0 where the look at everybody is soon enough."""
        return 0 if self._governor is None or self._ends else self._governor.next_ns

    def held_ns(self, now_ns: int) -> int:
        """How long the worker was held."""
        return 0 if self._governor is None else self._governor.held_ns(now_ns)

    def go(self, now_ns: int) -> None:
        """The component runs from now on: what its worker has used and holds up to here is not its doing."""
        cpu_ns = self.worker.read_cpu_ns()
        if cpu_ns is not None:
            self._governor = Governor(self.quotas.cpu_time, now_ns, cpu_ns)
        self._own_memory_bytes = self.worker.own_memory_bytes

    def look(self, now_ns: int, cpu_ns: int) -> None:
        """Take what its process has computed in all; hold it, or let it go on."""
        governor = self._governor
        if governor is None or self._ends:
            return
        was_holding = governor.is_holding
        holds = governor.look(now_ns, cpu_ns)
        if holds and not was_holding:
            self.worker.hold()
        elif was_holding and not holds:
            self.worker.go_on()

    def holds_memory(self, held_bytes: int) -> None:
        """Take what its process holds; what it held without its component is not counted."""
        # A worker lets go of what only its start needed: then all that is left is less than before.
        self._own_memory_bytes = min(self._own_memory_bytes, held_bytes)
        self.quotas.measure_memory(held_bytes - self._own_memory_bytes)

    def tell_crossings(self, now_ns: int) -> None:
        """Put on record which quota is in another status now; one that goes to and fro is counted."""
        for level in self.quotas.crossings(now_ns):
            if self._folder is None:
                from ipc.audit.folding import Folder

                self._folder = Folder()
            key = (level.name, level.status)
            if not self._folder.repeat(key, now_ns):
                reason = f"{level.name} is {level.status}: {level.words}"
                event = replace(
                    self.base_event, event="quota_crossed", decision="info", reason=reason, quota=level.to_json()
                )
                self._record(event, *self._folder.begin(key, event, now_ns))

    def let_go(self, now_ns: int) -> None:
        """Its worker is about to end, or to be made to: it is held no longer, and not again."""
        governor = self._governor
        if governor is not None and governor.is_holding:
            self.worker.go_on()
            governor.let_go(now_ns)
        self._ends = True

    def finish(self, now_ns: int, cpu_ns: int) -> None:
        """Its process has ended and used so much in all (0: not known)."""
        governor = self._governor
        if governor is not None:
            governor.finish(now_ns, cpu_ns)
        self.tell_crossings(now_ns)
        if self._folder is not None:
            self._record(*self._folder.flush())

    def _record(self, *events: AuditEvent) -> None:
        # Nothing depends on it: where the log can't be written, the run is ended for that.
        with contextlib.suppress(AuditError):
            for event in events:
                self.note(event)
