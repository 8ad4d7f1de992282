"""The shell of one run: the only place of a run that reads a clock, waits on descriptors and kills.

What happens next is decided by `run_machine.advance`; how it ended by `verdict.decide_verdict`. This file turns what
the descriptors say into events and carries the commands out.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from ipc.audit.event import AuditEvent
from ipc.errors import AuditError, PeerProtocolError
from ipc.messages import (
    Attached,
    Confined,
    ConfinementPlan,
    Detached,
    Ended,
    EndWorker,
    Finished,
    Go,
    LayerReport,
    Question,
    Sealed,
    Spawned,
    StartFailed,
    StorageExceeded,
    WardenReady,
    WorkerJob,
)
from ipc.struct import Struct, field, replace
from supervisor import watch
from supervisor.launch import Launched
from supervisor.run_machine import Command, Event, Phase, advance
from supervisor.run_report import DecisionTally
from supervisor.streams import InputStream, OutputStream
from supervisor.verdict import LIMIT_CODES, Facts, LimitReached
from supervisor.verify import Expected, memory_bound_bytes, verify_and_bound
from supervisor.warden_client import WardenClient
from supervisor.warden_recovery import Recovery
from supervisor.warden_restart import NOT_READY, EndRun

START_DEADLINE_NS = 20 * 10**9
"""From the fork to the seal; a worker that hangs before its guest runs is killed."""
OUTER_GRACE_NS = 250 * 10**6
"""How much later than the inner deadline (an epoch) the outer one kills: the inner one gives the better message."""
_READS_BEFORE_QUESTION = 4
DRAIN_DEADLINE_NS = 5 * 10**9
"""How long output is still read, and the warden's last counts awaited, after the worker ended."""


if TYPE_CHECKING:
    from supervisor.questions import Questions, Reply

Record = Callable[[AuditEvent], None]


class RunLoop(Struct):
    """One run, from the fork to the last byte of output. `record_durable` returns only when the event is on disk."""

    job: WorkerJob
    plan: ConfinementPlan
    launched: Launched
    warden: WardenClient | None
    prepared: bool
    artifact: int
    stdin: InputStream
    outputs: tuple[OutputStream, OutputStream]
    base_event: AuditEvent
    record_durable: Record
    records: deque[Mapping[str, object]]
    records_ready: int
    audit_lost: Callable[[], bool]
    tally: DecisionTally
    expected: Expected
    on_fresh_denials: Callable[[DecisionTally], None]
    signals: int
    facts: Facts
    timeout_ns: int | None
    questions: Questions | None = None
    recovery: Recovery | None = None
    phase: Phase = Phase.LAUNCHING
    layers: tuple[LayerReport, ...] = ()
    notes: tuple[str, ...] = ()
    peak_memory_bytes: int = 0
    storage_bytes: int | None = None
    _pid: int = 0
    _pidfd: int = -1
    _listener: int = -1
    _deadline_ns: int = 0
    _detached: bool = False
    _started_ns: int = 0
    _kill_sent: bool = False
    _end_expected: bool = False
    _said_go: bool = False
    _watch_due_ns: int = 0
    _memory_bound_bytes: int = 0
    _left_ns: int = 0
    _lost: set[Event] = field(default_factory=set)

    def run(self) -> Facts:
        """Drive the run to its end and return the facts; every descriptor of the run is closed on return."""
        self._started_ns = time.monotonic_ns()
        self._deadline_ns = self._started_ns + START_DEADLINE_NS
        try:
            while self.phase is not Phase.ENDED:
                self._turn()
            self._drain()
        finally:
            self._close()
        return self.facts

    # -- one turn of the loop ------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        wakes_ns = [due_ns for due_ns in (self._deadline_ns, self._watch_due_ns, self._warden_due_ns()) if due_ns]
        for name in self._wait(min(wakes_ns, default=0)):
            if self.phase is not Phase.ENDED:
                self._handlers()[name]()
        now_ns = time.monotonic_ns()
        if self._watch_due_ns and now_ns >= self._watch_due_ns and self.phase is not Phase.ENDED:
            self._watch(now_ns)
        if 0 < self._warden_due_ns() <= now_ns and self.phase is not Phase.ENDED:
            self._give_warden_up(NOT_READY)
        if self._deadline_ns and now_ns >= self._deadline_ns and self.phase is not Phase.ENDED:
            self._deadline_passed(now_ns)

    def _handlers(self) -> dict[str, Callable[[], object]]:
        return {
            "keeper": self._on_keeper,
            "worker": self._on_worker,
            "warden": self._on_warden,
            "signal": self._on_signal,
            "records": self._on_records,
            "stdin": self.stdin.read,
            "stdin>": self.stdin.flush,
            "stdout": lambda: self._on_output(self.outputs[0]),
            "stderr": lambda: self._on_output(self.outputs[1]),
            "stdout>": self.outputs[0].flush,
            "stderr>": self.outputs[1].flush,
            "terminal": self._on_answer,
        }

    def _interests(self) -> dict[str, tuple[int, int]]:
        """What to wait for now: name → (descriptor, events)."""
        interests: dict[str, tuple[int, int]] = {
            "signal": (self.signals, selectors.EVENT_READ),
            "records": (self.records_ready, selectors.EVENT_READ),
        }
        if self.phase is not Phase.ENDED:
            interests["keeper"] = (self.launched.keeper.fileno(), selectors.EVENT_READ)
        if Event.WORKER_LOST not in self._lost and self.phase is not Phase.LAUNCHING:
            # Until its keeper has said which process it is, a fast worker's first message waits.
            interests["worker"] = (self.launched.worker.fileno(), selectors.EVENT_READ)
        if self.warden is not None and Event.WARDEN_LOST not in self._lost:
            interests["warden"] = (self.warden.channel.fileno(), selectors.EVENT_READ)
        if self.questions is not None and self.questions.open is not None:
            # Nothing of the guest's is read from or written to the terminal while a question is on it.
            interests["terminal"] = (self.questions.terminal, selectors.EVENT_READ)
            return interests
        if self.phase is Phase.RUNNING and self.stdin.wants_read() and self.stdin.source is not None:
            interests["stdin"] = (self.stdin.source, selectors.EVENT_READ)
        if self.stdin.open and self.stdin.pending:
            interests["stdin>"] = (self.stdin.target, selectors.EVENT_WRITE)
        for name, stream in zip(("stdout", "stderr"), self.outputs, strict=True):
            if stream.wants_read():
                interests[name] = (stream.source, selectors.EVENT_READ)
            if stream.pending and stream.target is not None:
                interests[f"{name}>"] = (stream.target, selectors.EVENT_WRITE)
        return interests

    def _wait(self, deadline_ns: int) -> list[str]:
        """Wait for any interest or the deadline; return the names that are ready."""
        wanted: dict[int, list[tuple[str, int]]] = {}
        for name, (descriptor, events) in self._interests().items():
            wanted.setdefault(descriptor, []).append((name, events))
        with selectors.PollSelector() as selector:
            for descriptor, names in wanted.items():
                mask = 0
                for _, events in names:
                    mask |= events
                selector.register(descriptor, mask, names)
            timeout_s = max(0.0, (deadline_ns - time.monotonic_ns()) / 1e9) if deadline_ns else None
            ready = selector.select(timeout_s)
        return [name for key, mask in ready for name, events in key.data if mask & events]

    # -- events --------------------------------------------------------------------------------------------------------

    def _event(self, event: Event) -> None:
        self.phase, command = advance(self.phase, event)
        match command:
            case Command.WAIT | Command.CONCLUDE:
                return
            case Command.ATTACH_WARDEN:
                self._attach_warden()
            case Command.SEND_LOAD:
                self._load()
            case Command.VERIFY_AND_GO:
                self._verify_and_go()
            case Command.KILL:
                self._kill()
            case Command.BREAK_OFF:
                if not self.facts.broken:
                    self.facts = replace(self.facts, broken=f"{event} came out of turn; the run was ended")
                self._kill()

    def _on_keeper(self) -> None:
        try:
            message, descriptors = self.launched.keeper.receive((Spawned, Ended))
        except (EOFError, OSError):
            self._event(Event.KEEPER_LOST)
            return
        for descriptor in descriptors:
            os.close(descriptor)
        if isinstance(message, Spawned):
            self._pid = message.pid
            with contextlib.suppress(ProcessLookupError):  # it has ended and been reaped: its keeper's next word
                self._pidfd = os.pidfd_open(message.pid)
            self._event(Event.SPAWNED)
        else:
            assert isinstance(message, Ended)
            self._hear_worker_out()
            self.facts = replace(self.facts, ended=message)
            self._event(Event.ENDED)

    def _hear_worker_out(self) -> None:
        """Take what the worker still said before it ended: its last message may lie behind the keeper's."""
        while Event.WORKER_LOST not in self._lost:
            self._on_worker(timeout_s=0.0)

    def _on_worker(self, timeout_s: float | None = None) -> None:
        try:
            message, descriptors = self.launched.worker.receive((Confined, Sealed, Finished, StartFailed), timeout_s)
        except (EOFError, OSError):
            self._lost.add(Event.WORKER_LOST)
            self._event(Event.WORKER_LOST)
            # Its process ends with its channel, or it is made to: nothing may run that nobody hears.
            self._expect_end()
            return
        except PeerProtocolError as error:
            self._lost.add(Event.WORKER_LOST)
            self.facts = replace(self.facts, broken=f"its worker broke the protocol: {error}")
            self._event(Event.PROTOCOL_BROKEN)
            return
        if isinstance(message, Confined) and len(descriptors) == 1 and self._listener < 0:
            self._listener = descriptors.pop()
        for descriptor in descriptors:
            os.close(descriptor)
        match message:
            case Confined(layers):
                self.layers = layers
                self.expected = self.expected.after(layers)
                self._event(Event.CONFINED)
            case Sealed(layers):
                self.layers = layers
                self._event(Event.SEALED)
            case StartFailed() if self._said_go:
                # Only who speaks for a component that ran could have an interest in saying that it never did.
                self._lost.add(Event.WORKER_LOST)
                self.facts = replace(self.facts, broken="start_failed came after the start; the run was ended")
                self._event(Event.PROTOCOL_BROKEN)
            case StartFailed():
                self.facts = replace(self.facts, start_failed=message)
                self._event(Event.START_FAILED)
            case Finished():
                self.facts = replace(self.facts, finished=message)
                self.peak_memory_bytes = max(self.peak_memory_bytes, message.peak_memory_bytes)
                self._event(Event.FINISHED)
                # The guest is through; its process has only to end.
                self._expect_end()

    def _expect_end(self) -> None:
        """Set the deadline of a process that says or shows that it is through; once, or it could say so for ever."""
        if not self._end_expected:
            self._end_expected = True
            self._deadline_ns = time.monotonic_ns() + DRAIN_DEADLINE_NS

    def _on_warden(self) -> None:
        assert self.warden is not None
        try:
            message = self.warden.receive(None)
        except (EOFError, OSError):
            self._on_warden_lost()
            return
        if isinstance(message, WardenReady):
            self._note_recovery(message)
            return
        if message.worker_id != self.job.worker_id:
            return
        match message:
            case Question():
                self._ask(message)
            case Attached(_, warnings):
                self.notes += tuple(warning for warning in warnings if warning not in self.notes)
                again = self.phase is not Phase.ATTACHING and self.recovery is not None and self.recovery.under_way
                self._note_recovery(message)
                if not again:
                    self._event(Event.ATTACHED)
            case Detached():
                self._detached = True
                self.storage_bytes = message.storage_bytes
            case StorageExceeded(_, limit, usage):
                self._limit_reached("storage", limit, usage, "bytes")
            case EndWorker(_, "A3004", reason):
                self.facts = replace(self.facts, unrecorded=reason)
                self._event(Event.WARDEN_ORDERED_END)
            case EndWorker(_, code, reason):
                self.facts = replace(self.facts, refused_code=code, refused_reason=reason)
                self._event(Event.WARDEN_ORDERED_END)

    def _ask(self, question: Question) -> None:
        """Show a question; its time is not the program's."""
        if self.questions is None or self.phase is Phase.ENDED:
            return  # an ending worker's: it waits no longer than it lives
        for stream in self.outputs:
            # What the guest printed before it called is shown before the question; no more than a pipe holds.
            reads = _READS_BEFORE_QUESTION
            while reads and stream.open and self._on_output(stream):
                stream.settle()
                reads -= 1
            stream.settle()
        reply = self.questions.ask(question)
        if reply is not None:
            self._reply(reply)
        elif self.phase is Phase.RUNNING and self._deadline_ns:
            self._left_ns, self._deadline_ns = max(1, self._deadline_ns - time.monotonic_ns()), 0

    def _on_answer(self) -> None:
        assert self.questions is not None
        try:
            reply = self.questions.read()
        except AuditError as error:
            self._unrecorded(error)
            return
        if reply is not None:
            self._reply(reply)

    def _reply(self, reply: Reply) -> None:
        if self._left_ns:
            self._deadline_ns, self._left_ns = time.monotonic_ns() + self._left_ns, 0
        if reply.quit:
            self.facts = replace(self.facts, refused_code="A1212", refused_reason="ended by you, at a question")
            self._event(Event.LIMIT_REACHED)
        elif self.warden is not None:
            if self.recovery is not None:
                self.recovery.learn(reply.policy, reply.last)
            # One that is gone is met as the end of its channel; the call that it held ends the run.
            with contextlib.suppress(OSError):
                self.warden.reply(self.job.worker_id, reply.policy, reply.last)

    def _on_warden_lost(self) -> None:
        """Go on with another warden, unless that can't be or nothing needs one."""
        assert self.recovery is not None
        outcome = self.recovery.begin(self.phase, self.plan, self._listener, self._pid, self._pidfd)
        if isinstance(outcome, WardenClient):
            self.warden = outcome
            self.prepared = True
        elif isinstance(outcome, EndRun):
            self._give_warden_up(outcome.reason)
        else:
            self._lost.add(Event.WARDEN_LOST)
            # What the worker may still call while it ends is to fail, not to wait.
            if self._listener >= 0:
                os.close(self._listener)
                self._listener = -1

    def _note_recovery(self, message: WardenReady | Attached) -> None:
        assert self.warden is not None
        if self.recovery is not None:
            try:
                self.recovery.note(message, self.warden.layers)
            except AuditError as error:
                self._unrecorded(error)

    def _unrecorded(self, error: AuditError) -> None:
        """End the run, for something could not be put on record: no audit record, no action."""
        self.facts = replace(self.facts, unrecorded=f"no audit record, no action: {error}")
        self._event(Event.PROTOCOL_BROKEN)

    def _warden_due_ns(self) -> int:
        return 0 if self.recovery is None or Event.WARDEN_LOST in self._lost else self.recovery.due_ns

    def _give_warden_up(self, reason: str) -> None:
        self._lost.add(Event.WARDEN_LOST)
        if not self.facts.broken and self.phase is not Phase.ENDING:
            self.facts = replace(self.facts, broken=reason)
        self._event(Event.WARDEN_LOST)

    def _on_signal(self) -> None:
        number = os.read(self.signals, 1)[0]
        self.facts = replace(self.facts, interrupted_by=self.facts.interrupted_by or number)
        self._event(Event.INTERRUPTED)

    def _on_records(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self.records_ready, 4096)
        if self.audit_lost() and not self.facts.unrecorded:
            self.facts = replace(self.facts, unrecorded="the audit log was lost; nothing may go on unrecorded")
            self._event(Event.PROTOCOL_BROKEN)
        while self.records:
            self.tally.note(self.records.popleft())
        if self.tally.fresh and (self.questions is None or self.questions.open is None):
            self.on_fresh_denials(self.tally)

    def _on_output(self, stream: OutputStream) -> int:
        limit_bytes = self.job.limits.output_bytes
        seen_bytes = sum(s.seen_bytes for s in self.outputs)
        count = stream.read(max(0, limit_bytes - seen_bytes))
        usage = sum(s.seen_bytes for s in self.outputs)
        if usage > limit_bytes and self.facts.limit_reached is None:
            self._limit_reached("output", limit_bytes, usage, "bytes")
        return count

    def _deadline_passed(self, now_ns: int) -> None:
        if self.phase is Phase.RUNNING and self.timeout_ns is not None:
            timeout_ns = self.timeout_ns
            self._limit_reached("timeout", timeout_ns, now_ns - self._started_ns, "ns")
        elif self.phase is Phase.ENDING:
            if self._kill_sent:
                # A process in an uninterruptible wait can't be reaped: end without it instead of hanging with it.
                self._event(Event.KEEPER_LOST)
                return
            if not self.facts.broken:
                self.facts = replace(self.facts, broken="its process didn't end after its guest had, and was killed")
            self._kill()
        else:
            self.facts = replace(self.facts, broken=f"it hung while {self.phase}")
            self._event(Event.PROTOCOL_BROKEN)

    def _watch(self, now_ns: int) -> None:
        """Look at what the worker holds; end it when that is more than its limits explain."""
        self._watch_due_ns = now_ns + watch.INTERVAL_NS
        usage = watch.read_usage(self._pid, self._pidfd)
        if usage is None or self._kill_sent:
            self._watch_due_ns = 0
        elif usage.memory_bytes > self._memory_bound_bytes:
            self._limit_reached("memory", self.job.limits.memory_bytes, usage.memory_bytes, "bytes")
        elif usage.threads > watch.MAX_THREADS:
            self.facts = replace(self.facts, refused_code="A1706", refused_reason=f"it has {usage.threads} threads")
            self._event(Event.LIMIT_REACHED)

    def _limit_reached(self, name: str, limit: int, usage: int, unit: str) -> None:
        reached = LimitReached(name, LIMIT_CODES[name], limit, usage, unit)
        self.facts = replace(self.facts, limit_reached=reached)
        self._event(Event.LIMIT_REACHED)

    # -- commands ------------------------------------------------------------------------------------------------------

    def _send(self, message: object) -> None:
        try:
            self.launched.worker.send(message)
        except OSError:
            self._lost.add(Event.WORKER_LOST)

    def _load(self) -> None:
        try:
            self.launched.load(self.job, self.artifact if "seccomp" in self.plan.off else None)
        except OSError:
            self._lost.add(Event.WORKER_LOST)

    def _attach_warden(self) -> None:
        if self.warden is None or self._listener < 0:
            # Seccomp is off (a test of the other layers): nobody to attach.
            self._event(Event.ATTACHED)
            return
        # One that is gone is met as the end of its channel, and then the next one is told of the worker.
        with contextlib.suppress(OSError):
            self.warden.attach(self.job.worker_id, self._listener, self._pidfd)

    def _verify_and_go(self) -> None:
        outside, problems = verify_and_bound(self._pid, self.expected, self.job.limits)
        self.layers += outside
        if problems:
            self.facts = replace(self.facts, refused_code="A3002", refused_reason="; ".join(problems))
            self._event(Event.WARDEN_ORDERED_END)
            return
        detail: dict[str, object] = {
            "layers": [{"layer": r.layer, "status": r.status, "detail": r.detail} for r in self.layers]
        }
        try:
            self.record_durable(replace(self.base_event, event="worker_confined", decision="info", detail=detail))
        except AuditError as error:
            self._unrecorded(error)
            return
        self._started_ns = time.monotonic_ns()
        if "rlimits" not in self.plan.off:
            self._memory_bound_bytes = memory_bound_bytes(self._pid, self.job.limits)
            self._watch_due_ns = self._started_ns + watch.INTERVAL_NS
        timeout_ns = self.timeout_ns
        self._deadline_ns = 0 if timeout_ns is None else self._started_ns + timeout_ns + OUTER_GRACE_NS
        self._said_go = True
        self._send(Go())

    def _kill(self) -> None:
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        else:
            self.launched.abandon()
        if not self._kill_sent:
            self._kill_sent = True
            self._deadline_ns = time.monotonic_ns() + DRAIN_DEADLINE_NS

    # -- the end -------------------------------------------------------------------------------------------------------

    def _drain(self) -> None:
        """Deliver the rest of the output and hear the warden's last counts.

        Counts have a deadline. Output of a guest that ended by itself has none: it waits for its reader as in any pipe
        (`| less`), until a signal comes. What was ended here doesn't hold us up for a reader that doesn't read.
        """
        deadline_ns = time.monotonic_ns() + DRAIN_DEADLINE_NS
        patient = self.facts.ended is not None and not self._kill_sent
        if self.questions is not None:
            self.questions.abandon()
        self.stdin.finish()
        if self.prepared and self.warden is not None and Event.WARDEN_LOST not in self._lost:
            try:
                self.warden.detach(self.job.worker_id)
            except OSError:
                self._on_warden_lost()
                self._detached = True
        else:
            self._detached = True
        # No counts will come where nothing can be recorded any more.
        self._detached = self._detached or self.audit_lost()
        if self.recovery is not None and self.recovery.under_way:
            # It has counted nothing of this worker.
            self._detached = True
        self._lost.add(Event.WORKER_LOST)
        while True:
            undelivered = any(s.open or s.pending for s in self.outputs)
            if self._detached and not undelivered:
                break
            late = time.monotonic_ns() >= deadline_ns
            if late and not (patient and undelivered):
                break
            for name in self._wait(0 if late else deadline_ns):
                if name == "signal":
                    self._on_signal()
                    return
                self._handlers()[name]()
            if Event.WARDEN_LOST in self._lost:
                self._detached = True

    def _close(self) -> None:
        self.stdin.finish()
        for stream in self.outputs:
            stream.finish()
        for descriptor in (self._pidfd, self._listener):
            if descriptor >= 0:
                os.close(descriptor)
        self.launched.close()
