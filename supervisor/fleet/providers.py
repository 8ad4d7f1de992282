"""A fleet's providers: started, greeted, handed to the broker, and started anew when they die. A source of the loop.

Which process has which call is the broker's to know; it says which is of no use any more. Each has a socket of its
own, whose other end the broker holds, so a process lives no longer than the broker that it serves.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count
from typing import Final

from ipc.audit.event import AuditEvent
from ipc.broker.orders import EndProvider, ProviderAway, ProviderEnded, ProviderTerms, SetProviders, UseProvider
from ipc.errors import AirssysError, AuditError, PeerProtocolError
from ipc.provider.protocol import REASON_MAX
from ipc.struct import replace
from supervisor.event_loop import READ, WRITE, EventLoop, Interest
from supervisor.fleet.broker_client import BrokerClient
from supervisor.fleet.output_log import PROVIDER_PREFIX, STDERR, OutputLog
from supervisor.fleet.provider_life import Event, Life, Phase, advance, is_away
from supervisor.fleet.provider_process import ProviderProcess
from supervisor.fleet.provider_settings import ProviderSettings
from supervisor.host.host import Host

KEY: Final = "providers"
AWAY: Final = "the provider can't be started"
"""What components are told. Why not is a text of the operator's program, about files and accounts that are not theirs
to know: it is in the record `provider_lost`, the provider's log and `airssys status`."""
_PAUSE_NS: Final = 100_000_000
_LAST_READS: Final = 2
"""What a pipe holds at most (pipe(7)), and not what others go on to write into it."""
_END_WITHIN_NS: Final = 1_000_000_000
_LEAVE_WITHIN_NS: Final = 500_000_000
_USES_WITHIN_NS: Final = 1_000_000_000


class _Slot:
    """One process of a provider, or the place of one."""

    __slots__ = ("handed", "life", "number", "paused_until_ns", "process", "provider")

    def __init__(self, provider: ProviderSettings) -> None:
        self.provider = provider
        self.life = Life(due_ns=1)
        self.process: ProviderProcess | None = None
        self.number = 0
        self.handed = False
        self.paused_until_ns = 0


class FleetProviders:
    """All of one fleet. `tell` gets a line for whoever watches when one dies."""

    def __init__(
        self,
        host: Host,
        loop: EventLoop,
        providers: Sequence[ProviderSettings],
        log_directory: str,
        tell: Callable[[str], None],
    ) -> None:
        """Take them in; nothing is started before the loop turns."""
        self._host = host
        self._loop = loop
        self.settings = tuple(providers)
        self._tell = tell
        self._slots = [_Slot(provider) for provider in providers for _ in range(provider.parallel)]
        self._logs = {each.name: OutputLog(log_directory, f"{PROVIDER_PREFIX}{each.name}") for each in providers}
        self._away: set[str] = set()
        self._numbers = count(1)
        self._client: BrokerClient | None = None
        self._overdue: Callable[[], None] | None = None
        self._overdue_ns = 0

    def wait_for_uses(self, overdue: Callable[[], None]) -> None:
        """Have `overdue` called soon: a broker that is stuck answers nothing, and who asked is to be answered."""
        self._overdue, self._overdue_ns = overdue, time.monotonic_ns() + _USES_WITHIN_NS
        self._loop.touch(KEY)

    def terms(self) -> SetProviders:
        """Return what each broker is told of them first."""
        return SetProviders(
            tuple(
                ProviderTerms(each.name, each.capabilities, each.timeout_ns, each.max_payload_bytes)
                for each in self.settings
            )
        )

    def lives(self, name: str) -> list[Life]:
        """How the processes of one are."""
        return [slot.life for slot in self._slots if slot.provider.name == name]

    def pids(self, name: str) -> list[int]:
        """The processes of one that there are."""
        return [slot.process.pid for slot in self._slots if slot.process is not None and slot.provider.name == name]

    # -- what the broker says ------------------------------------------------------------------------------------------

    def broker_ready(self, client: BrokerClient) -> None:
        """There is a broker: those that are ready are handed to it."""
        self._client = client
        self._loop.touch(KEY)
        for slot in self._slots:
            self._hand_over(slot)
        for name in self._away:
            client.tell_of_provider(ProviderAway(name, AWAY))

    def broker_lost(self) -> None:
        """Whom it knew can be asked by nobody any more."""
        self._client = None
        self._loop.touch(KEY)
        now_ns = time.monotonic_ns()
        for slot in self._slots:
            if slot.handed:
                self._let_go(slot)
                slot.life = advance(slot.life, Event.WITHDRAWN, now_ns)

    def end(self, order: EndProvider) -> None:
        """End a process that is of no use any more, and name it; another one follows."""
        self._loop.touch(KEY)
        for slot in self._slots:
            if slot.number != order.process or slot.process is None:
                continue
            if order.code:
                self._lose(slot, order.reason, order.code)
            else:
                # It is about to end, most likely; how it ended then says more than that it closed its output.
                slot.life = replace(slot.life, due_ns=time.monotonic_ns() + _END_WITHIN_NS)

    # -- as a source ---------------------------------------------------------------------------------------------------

    def interests(self) -> Iterable[Interest]:
        """Yield what to wait for now."""
        for slot in self._slots:
            yield from self._interests(slot)

    def _interests(self, slot: _Slot) -> Iterator[Interest]:
        process = slot.process
        if process is None:
            return
        yield Interest(process.pidfd, READ, lambda: self._ended(slot))
        if not slot.paused_until_ns:
            yield Interest(process.errors, READ, lambda: self._read_errors(slot))
        if slot.life.phase is Phase.STARTING and process.channel is not None:
            events = READ | WRITE if process.out else READ
            yield Interest(process.channel.fileno(), events, lambda: self._greet(slot))

    def next_ns(self) -> int:
        """Return when a start, or the end of one, is due."""
        times = [ns for slot in self._slots for ns in (slot.life.due_ns, slot.paused_until_ns)]
        return min((ns for ns in (*times, self._overdue_ns) if ns), default=0)

    def tick(self, now_ns: int) -> None:
        """Start who is due, and end who should have become ready."""
        if self._overdue is not None and self._overdue_ns <= now_ns:
            overdue, self._overdue, self._overdue_ns = self._overdue, None, 0
            overdue()
        for slot in self._slots:
            if 0 < slot.paused_until_ns <= now_ns:
                slot.paused_until_ns = 0
            if not 0 < slot.life.due_ns <= now_ns:
                continue
            if slot.life.phase is Phase.WAITING:
                self._start(slot, now_ns)
            elif slot.life.phase is Phase.STARTING:
                self._lose(slot, "it did not become ready in time")
            elif slot.life.phase is Phase.READY:
                self._lose(slot, "it closed its output")

    # -- their lives ---------------------------------------------------------------------------------------------------

    def _start(self, slot: _Slot, now_ns: int) -> None:
        slot.life = advance(slot.life, Event.STARTED, now_ns)
        slot.number = next(self._numbers)
        try:
            slot.process = ProviderProcess(slot.provider, self._host.options.run_as)
        except (AirssysError, OSError) as error:
            self._lose(slot, f"it could not be started: {error}")

    def _greet(self, slot: _Slot) -> None:
        process = slot.process
        if process is None or slot.life.phase is not Phase.STARTING:
            return
        process.write()
        try:
            ready = process.read_greeting()
        except PeerProtocolError as error:
            # One that has ended says more by how it ended.
            self._lose(slot, process.ended() or str(error))
            return
        if ready is None:
            return
        if ready.error:
            self._lose(slot, ready.error)
            return
        slot.life = advance(slot.life, Event.GREETED, time.monotonic_ns())
        name = slot.provider.name
        self._away.discard(name)
        self._logs[name].note(f"ready, pid {process.pid}")
        self._record(AuditEvent("provider_ready", resource=name, detail={"pid": process.pid}))
        self._hand_over(slot)

    def _hand_over(self, slot: _Slot) -> None:
        if self._client is None or slot.life.phase is not Phase.READY or slot.handed or slot.process is None:
            return
        with contextlib.closing(slot.process.give_channel()) as channel:
            self._client.use_provider(UseProvider(slot.provider.name, slot.number), channel.fileno())
        slot.handed = True

    def _ended(self, slot: _Slot) -> None:
        process = slot.process
        if process is None:
            return
        if slot.life.phase is Phase.STARTING:
            self._greet(slot)  # it may have said why
        if slot.process is process:
            self._lose(slot, process.ended() or "it ended")

    def _lose(self, slot: _Slot, reason: str, code: str = "") -> None:
        """One has ended, or is to end: it is named, and its place is free for another one, at once or later."""
        name, pid = slot.provider.name, 0 if slot.process is None else slot.process.pid
        if slot.handed and self._client is not None:
            self._client.tell_of_provider(ProviderEnded(slot.number))
        self._let_go(slot)
        slot.life = advance(slot.life, Event.ENDED, time.monotonic_ns(), reason[:REASON_MAX])
        event = AuditEvent("provider_lost", resource=name, code=code, reason=reason, detail={"pid": pid})
        self._record(event)
        self._logs[name].note(f"ended, pid {pid}: {reason}")
        told = f"provider {name}: {reason}" + (f" [{code}]" if code else "")
        self._tell(told)
        if is_away(self.lives(name)):
            self._away.add(name)
            if self._client is not None:
                self._client.tell_of_provider(ProviderAway(name, AWAY))

    def _let_go(self, slot: _Slot) -> None:
        process, slot.process = slot.process, None
        slot.handed = False
        slot.paused_until_ns = 0
        if process is not None:
            process.kill()
            for _ in range(_LAST_READS):
                self._logs[slot.provider.name].feed(STDERR, process.read_errors() or b"")
            process.close()

    def _read_errors(self, slot: _Slot) -> None:
        process = slot.process
        if process is None:
            return
        now_ns = time.monotonic_ns()
        log = self._logs[slot.provider.name]
        if not log.pace.available(now_ns):
            slot.paused_until_ns = now_ns + _PAUSE_NS
            return
        data = process.read_errors()
        if data:
            log.pace.take(now_ns, min(len(data), log.pace.available(now_ns)))
            log.feed(STDERR, data)
        elif data == b"":
            # It closed it: there is nothing to wait for, and waiting would spin. Its own end is met by its pidfd.
            slot.paused_until_ns = now_ns + 10**9

    def reason(self, name: str) -> str:
        """Why the last of its processes died, "" for none."""
        return next((life.reason for life in self.lives(name) if life.reason), "")

    def _record(self, event: AuditEvent) -> None:
        # Nothing that a component asks depends on it: that is on record by itself.
        with contextlib.suppress(AuditError):
            self._host.writer.local(event)

    def close(self) -> None:
        """End all of them; the broker is gone, so their input has ended, and they have a moment."""
        until_ns = time.monotonic_ns() + _LEAVE_WITHIN_NS
        for slot in self._slots:
            if slot.process is not None and slot.handed:
                slot.process.wait(max(0.0, (until_ns - time.monotonic_ns()) / 1e9))
            self._let_go(slot)
            slot.life = advance(slot.life, Event.STOPPED, time.monotonic_ns())
        for log in self._logs.values():
            log.close()
