"""What stands around the runs of a host, as one source of their loop: signals, records, the warden, a look at each.

All are looked at together, so that the process wakes up as often for two hundred of them as for one.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping

from supervisor.event_loop import READ, EventLoop, Interest
from supervisor.host.host import Host
from supervisor.run import watch
from supervisor.run.loop import RunLoop

KEY = "host"


class HostSource:
    """Hands each run what is its own; `on_signal` is given the number of each signal that comes."""

    __slots__ = ("_audit_lost", "_host", "_look_ns", "_loop", "_on_signal", "_runs")

    def __init__(
        self, host: Host, runs: Mapping[str, RunLoop], loop: EventLoop, on_signal: Callable[[int], None]
    ) -> None:
        """`runs` are those that are under way, by their workers' ids, which are their keys in `loop` too."""
        self._host = host
        self._runs = runs
        self._loop = loop
        self._on_signal = on_signal
        self._audit_lost = False
        self._look_ns = 0

    def interests(self) -> Iterator[Interest]:
        """Yield what to wait for now."""
        yield Interest(self._host.signals.fileno(), READ, self._read_signal)
        yield Interest(self._host.records_ready[0], READ, self._read_records)
        mail = self._host.mail
        if mail is not None and any(not (run.is_over or run.warden.lost) for run in self._runs.values()):
            yield Interest(mail.fileno(), READ, self._read_mail)

    def next_ns(self) -> int:
        """Return when the workers are looked at again; 0 while there are none."""
        return self._look_ns if self._runs else 0

    def tick(self, now_ns: int) -> None:
        """Look at what each worker uses and holds, when it is time."""
        if now_ns < self._look_ns:
            return
        self._look_ns = now_ns + watch.INTERVAL_NS
        for worker_id, run in tuple(self._runs.items()):
            if run.watch(now_ns):
                self._loop.touch(worker_id)

    def _read_signal(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._on_signal(self._host.signals.recv(1)[0])

    def _read_records(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._host.records_ready[0], 4096)
        if self._host.audit_lost() and not self._audit_lost:
            self._audit_lost = True
            for run in self._runs.values():
                run.on_audit_lost()
            self._loop.touch_all()
        concerned: dict[str, RunLoop] = {}
        records = self._host.records
        while records:
            record = records.popleft()
            instance = record.event.instance
            if instance in self._runs:
                concerned[instance] = self._runs[instance]
                concerned[instance].on_record(record.to_map())
        for run in concerned.values():
            run.show_fresh()

    def _read_mail(self) -> None:
        assert self._host.mail is not None
        self._loop.touch(*self._host.mail.read())
