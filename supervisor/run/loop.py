"""The shell of one run: the only place of a run that reads its descriptors and kills.

What happens next is decided by `run_machine.advance`; how it ended by `verdict.decide_verdict`. This file turns what
the descriptors say into events and carries the commands out. What a message or a deadline means is `run_events`', and
what a run has of its worker, its warden and its streams is theirs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from ipc.audit.event import AuditEvent
from ipc.errors import AuditError
from ipc.messages import Ended, EndWorker, Question, WardenReady
from ipc.struct import Struct, field, replace
from supervisor.event_loop import READ, Interest
from supervisor.host.warden_client import AboutWorker, WardenClient
from supervisor.run import events as run_events
from supervisor.run.deadlines import DRAIN_DEADLINE_NS, Deadlines, is_due
from supervisor.run.events import Happened
from supervisor.run.machine import Command, Event, Phase, advance
from supervisor.run.quotas import RunQuotas
from supervisor.run.report import DecisionTally
from supervisor.run.streams import GuestStreams, OutputStream
from supervisor.run.verdict import Facts
from supervisor.run.warden import RunWarden
from supervisor.run.worker import RunWorker

if TYPE_CHECKING:
    from supervisor.approvals.reliance import Reliance
    from supervisor.run.questions import Questions, Reply

Record = Callable[[AuditEvent], None]

_THROUGH = (Event.WORKER_LOST, Event.FINISHED)
"""After these its process has only to end, or it is made to: nothing may run that nobody hears."""


class RunLoop(Struct):
    """One run, from the fork to the last byte of output. `record_durable` returns only when the event is on disk.

    It is stepped by an event loop, alone or beside others: `start`, then turns until `is_over`, then `conclude`.
    """

    worker: RunWorker
    warden: RunWarden
    quotas: RunQuotas
    streams: GuestStreams
    base_event: AuditEvent
    record_durable: Record
    audit_lost: Callable[[], bool]
    tally: DecisionTally
    on_fresh_denials: Callable[[DecisionTally], None]
    facts: Facts
    timeout_ns: int | None
    questions: Questions | None = None
    reliance: Reliance | None = None
    phase: Phase = Phase.LAUNCHING
    is_over: bool = False
    _deadlines: Deadlines = field(default_factory=Deadlines)
    _closed: bool = False
    _watched: bool = False
    _rests_at_ns: int = -1
    """What its process has computed where nothing is to be seen of it until that is more; of idle ones most."""
    _leaderless: bool = False
    _draining: bool = False
    _drain_until_ns: int = 0

    def start(self, now_ns: int) -> None:
        """Begin: the worker was asked for."""
        self._deadlines.start(now_ns)
        if self.warden.mail is not None:
            self.warden.mail.join(self.warden.worker_id, self)

    def conclude(self) -> Facts:
        """Return the facts of a run that is over; every descriptor of it is closed on return."""
        if self.warden.hand_over_broke_off:
            self.facts = run_events.hand_over_broke_off(self.facts)
        ended = self.facts.ended
        self.quotas.finish(time.monotonic_ns(), 0 if ended is None else ended.user_cpu_ns + ended.system_cpu_ns)
        self.close()
        return self.facts

    def close(self) -> None:
        """Let go of everything; a worker that still lives is killed by its keeper."""
        self.is_over = True
        if not self._closed:
            self._closed = True
            self.streams.finish()
            self.warden.close()
            self.worker.close()

    # -- as a source of the event loop ---------------------------------------------------------------------------------

    def interests(self) -> Iterator[Interest]:
        """Yield what to wait for now, with who takes it. The warden's channel is the host's: others may share it."""
        if self.is_over:
            return
        if self.phase is not Phase.ENDED:
            yield Interest(self.worker.launched.keeper.fileno(), READ, self._on_keeper)
        if not self.worker.lost and self.phase not in (Phase.LAUNCHING, Phase.ATTACHING):
            # A fast worker's word waits until its keeper has said which process it is, and the warden that it answers:
            # channels keep no order between them.
            yield Interest(self.worker.launched.worker.fileno(), READ, self._on_worker)
        if self.questions is not None and self.questions.open is not None:
            # Nothing of the guest's is read from or written to the terminal while a question is on it.
            yield Interest(self.questions.terminal, READ, self._on_answer)
        else:
            yield from self.streams.interests(self.phase is Phase.RUNNING, self._on_output)

    def next_ns(self) -> int:
        """Return when something is due."""
        if self.is_over:
            return 0
        if self.phase is Phase.ENDED:
            return min((ns for ns in (self._drain_until_ns, self.streams.paused_until_ns) if ns), default=0)
        return self._deadlines.next_ns(self.warden.due_ns, self.streams.paused_until_ns, self.quotas.next_ns)

    def tick(self, now_ns: int) -> None:
        """Do what is due, and after the worker's end see whether everything was delivered."""
        self.streams.go_on(now_ns)
        if is_due(self.warden.due_ns, now_ns) and self.phase is not Phase.ENDED:
            self._happen(self.warden.give_up(self.phase, self.facts))
        if is_due(self.quotas.next_ns, now_ns):
            self.watch(now_ns)
        if is_due(self._deadlines.step_ns, now_ns) and self.phase is not Phase.ENDED:
            self._deadline_passed(now_ns)
        if self.phase is Phase.ENDED and not self.is_over:
            self._drain(now_ns)

    # -- events --------------------------------------------------------------------------------------------------------

    def _happen(self, happened: Happened | None) -> None:
        if happened is not None:
            self.facts = happened.facts
            self._event(happened.event)

    def _event(self, event: Event) -> None:
        before = self.phase
        self.phase, command = advance(before, event)
        if before is Phase.RUNNING and self.phase is not before:
            self.quotas.let_go(time.monotonic_ns())
        match command:
            case Command.WAIT | Command.CONCLUDE:
                return
            case Command.ATTACH_AND_LOAD:
                attached = self.warden.attach(self.worker.pidfd)
                # Its first call, for the artifact, waits until the warden answers.
                self.worker.load()
                if not attached:
                    self._event(Event.ATTACHED)
            case Command.VERIFY_AND_GO:
                self._verify_and_go()
            case Command.KILL:
                self._kill()
            case Command.BREAK_OFF:
                if not self.facts.broken:
                    self.facts = replace(self.facts, broken=f"{event} came out of turn; the run was ended")
                self._kill()

    def _on_keeper(self) -> None:
        message = self.worker.receive_from_keeper()
        if isinstance(message, Ended):
            # What the worker still said before it ended: its last message may lie behind the keeper's.
            while not self.worker.lost:
                self._on_worker(timeout_s=0.0)
        self._happen(run_events.keeper_said(message, self.facts))

    def _on_worker(self, timeout_s: float | None = None) -> None:
        if self.worker.lost:
            return  # heard of in this very turn, by its keeper's word
        happened, listener = self.worker.hear(self.facts, timeout_s, wants_listener=self.warden.listener < 0)
        if listener >= 0:
            self.warden.listener = listener
        self._happen(happened)
        if happened.event in _THROUGH:
            self._deadlines.expect_end(time.monotonic_ns())

    def on_warden_said(self, message: AboutWorker) -> None:
        """Take what the warden says of this run's worker."""
        if isinstance(message, Question):
            self._ask(message)
        else:
            self._happen(self.warden.hear(message, self.phase, self.facts))

    def on_warden_ready(self, message: WardenReady) -> None:
        """Take the word of a warden that was started in the place of another one."""
        self._happen(self.warden.note(message, self.facts))

    def on_warden_lost(self, lost: WardenClient) -> None:
        """Go on with another warden, unless that can't be or nothing needs one."""
        worker = self.worker
        if self.warden.lost:
            return  # it goes on without any
        self._happen(self.warden.lose(lost, self.phase, self.facts, worker.plan, worker.pid, worker.pidfd))

    def interrupt(self, number: int, why: str = "") -> None:
        """End it for a signal, `why` where that is known; a run that has ended waits for no reader of its output."""
        if self.phase is Phase.ENDED:
            self.is_over = True
        else:
            self._happen(run_events.interrupted(self.facts, number, why))

    def end_for(self, code: str, reason: str) -> None:
        """End it for what its worker has done; the code says what that was."""
        if self.phase is not Phase.ENDED:
            self._happen(run_events.warden_said(EndWorker(self.warden.worker_id, code, reason, 0), self.facts))

    def ask_to_end(self) -> None:
        """Have an actor end in order; whoever asks keeps a deadline."""
        self.quotas.let_go(time.monotonic_ns())
        self._count_open_files()
        self.worker.stop()

    def on_audit_lost(self) -> None:
        """End it: the log can't be written any more."""
        if not self.facts.unrecorded and not self.is_over:
            self._happen(run_events.unrecorded(self.facts, "the audit log was lost; nothing may go on unrecorded"))

    def on_record(self, record: Mapping[str, object]) -> None:
        """Count a record of the log, if it is about this run."""
        self.tally.note(record)

    def show_fresh(self) -> None:
        """Tell of refusals that were not told of yet."""
        if self.tally.fresh and (self.questions is None or self.questions.open is None):
            self.on_fresh_denials(self.tally)

    def _on_output(self, stream: OutputStream) -> int:
        count = self.streams.read(stream)
        limit_bytes, seen_bytes = self.streams.limit_bytes, self.streams.seen_bytes
        if seen_bytes > limit_bytes and self.facts.limit_reached is None:
            self._happen(run_events.limit_reached(self.facts, "output", limit_bytes, seen_bytes, "bytes"))
        return count

    def _deadline_passed(self, now_ns: int) -> None:
        used_ns = now_ns - self._deadlines.started_ns
        killed = self.worker.kill_sent
        self._happen(run_events.deadline_passed(self.phase, self.facts, used_ns, self.timeout_ns, killed))

    def watch(self, now_ns: int) -> bool:
        """Look at what the worker uses, and at what it holds if that can have grown: held, or ended, for too much.

        True where something has followed from it.
        """
        if not self._watched or self.phase is Phase.ENDED:
            return False
        cpu_ns = self.worker.read_cpu_ns()
        if cpu_ns == self._rests_at_ns:
            return False
        due_ns, happened = self.quotas.next_ns, None
        if cpu_ns is not None:
            self.quotas.look(now_ns, cpu_ns)
        to_be_seen = self._leaderless or self.worker.is_to_be_seen(now_ns, cpu_ns)
        if to_be_seen and self.worker.is_bounded:
            happened = self._look_at_memory()
        if to_be_seen or not self.quotas.quotas.is_calm:
            self.quotas.tell_crossings(now_ns)
        self._happen(happened)
        rests = not (self.quotas.next_ns or self._leaderless) and self.quotas.quotas.is_calm
        self._rests_at_ns = cpu_ns if rests and cpu_ns is not None and self.worker.was_seen(cpu_ns) else -1
        return happened is not None or self.quotas.next_ns != due_ns

    def _look_at_memory(self) -> Happened | None:
        usage = self.worker.look()
        if usage is None:
            self._watched = False
            return None
        if not usage.has_leader:
            # Seen twice: so is one that was killed, while its threads are being reaped.
            before, self._leaderless = self._leaderless, True
            return run_events.seen_leaderless(self.facts) if before else None
        self.quotas.holds_memory(usage.memory_bytes)
        bound_bytes, limits = self.worker.memory_bound_bytes, self.worker.job.limits
        return run_events.seen_holding(self.facts, usage, bound_bytes, limits)

    # -- questions -----------------------------------------------------------------------------------------------------

    def _ask(self, question: Question) -> None:
        """Show a question; its time is not the program's."""
        if self.questions is None or self.phase is Phase.ENDED:
            return  # an ending worker's: it waits no longer than it lives
        self.streams.settle(self._on_output)
        reply = self.questions.ask(question)
        if reply is not None:
            self._reply(reply)
        elif self.phase is Phase.RUNNING:
            self._deadlines.hold(time.monotonic_ns())

    def _on_answer(self) -> None:
        assert self.questions is not None
        try:
            reply = self.questions.read()
        except AuditError as error:
            self._happen(run_events.unrecorded(self.facts, run_events.no_record(error)))
            return
        if reply is not None:
            self._reply(reply)

    def _reply(self, reply: Reply) -> None:
        self._deadlines.go_on(time.monotonic_ns())
        if reply.quit:
            self._happen(run_events.quit_at_question(self.facts))
        else:
            self.warden.reply(reply.policy, reply.last)

    # -- commands ------------------------------------------------------------------------------------------------------

    def _verify_and_go(self) -> None:
        problems = self.worker.verify()
        if problems:
            self._happen(run_events.not_as_confined(self.facts, problems))
            return
        detail: dict[str, object] = {
            "layers": [{"layer": r.layer, "status": r.status, "detail": r.detail} for r in self.worker.layers]
        }
        try:
            self.record_durable(replace(self.base_event, event="worker_confined", decision="info", detail=detail))
        except AuditError as error:
            self._happen(run_events.unrecorded(self.facts, run_events.no_record(error)))
            return
        now_ns = time.monotonic_ns()
        self._deadlines.go(now_ns, self.timeout_ns)
        self._watched = True
        self.quotas.go(now_ns)
        self.worker.go()

    def _kill(self) -> None:
        self._count_open_files()
        if self.worker.kill():
            self._deadlines.kill(time.monotonic_ns())

    def _count_open_files(self) -> None:
        """Note what it still has by its approval, which is ended with it: the last moment in which that can be seen."""
        if self.reliance is None or self.facts.open_files is not None or self.phase is Phase.ENDED:
            return
        # Only here: most runs don't run by an approval.
        from supervisor.run.open_files import count_open_files

        worker, by = self.worker, self.reliance
        names = [f"{grant.action}:{grant.pattern_text}" for grant in by.granted]
        found: dict[str, int] | None = {}
        if worker.pidfd >= 0:
            found = count_open_files(worker.pidfd, worker.job.limits.open_files, names, by.placed)
        self.facts = replace(self.facts, open_files=found)

    # -- the end -------------------------------------------------------------------------------------------------------

    def _drain(self, now_ns: int) -> None:
        """Deliver the rest of the output and hear the warden's last counts, until `is_over`.

        Counts have a deadline. Output of a guest that ended by itself has none: it waits for its reader as in any pipe
        (`| less`), until a signal comes. What was ended here doesn't hold us up for a reader that doesn't read.
        """
        if not self._draining:
            self._begin_drain(now_ns)
        undelivered = self.streams.undelivered
        late = now_ns >= self._drain_until_ns
        # No counts will come where nothing can be recorded any more.
        detached = self.warden.detached or self.warden.lost or self.audit_lost()
        patient = self.facts.ended is not None and not self.worker.kill_sent
        if undelivered and (patient or not late):
            self._drain_until_ns = 0 if late else self._drain_until_ns
        elif detached or late:
            self.is_over = True

    def _begin_drain(self, now_ns: int) -> None:
        self._draining = True
        self._drain_until_ns = now_ns + DRAIN_DEADLINE_NS
        if self.questions is not None:
            self.questions.abandon()
        self.streams.stdin.finish()
        mail = self.warden.mail
        if mail is not None and not self.warden.begin_detach():
            self.on_warden_lost(mail.warden)
            self.warden.detached = True
        # Nor from one that has counted nothing of it.
        self.warden.detached = self.warden.detached or mail is None or self.warden.recovery.under_way
        self.worker.lost = True
