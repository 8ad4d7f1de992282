"""Many components in one supervisor: each has its run, and all of them share one event loop, one warden, one log.

What becomes of a component is decided by `lifecycle.advance`; this file carries out what it says, and keeps the times.
A run that ends, however it ends, concerns nobody but its own component.
"""

from __future__ import annotations

import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Protocol

from ipc.errors import AirssysError, AuditError
from supervisor.event_loop import EventLoop
from supervisor.fleet.broker import KEY as BROKER_KEY
from supervisor.fleet.broker import FleetBroker
from supervisor.fleet.lifecycle import ENDS, LIVING, Command, Event, Phase, advance
from supervisor.fleet.member import ACTOR, Member, Plan
from supervisor.fleet.output_log import OutputLog
from supervisor.fleet.providers import KEY as PROVIDERS_KEY
from supervisor.fleet.providers import FleetProviders
from supervisor.host.host import Host, new_worker_id
from supervisor.host.source import KEY as HOST_KEY
from supervisor.host.source import HostSource
from supervisor.run.loop import RunLoop
from supervisor.run.report import DecisionTally
from supervisor.run.running import RunStreams, begin_run
from supervisor.run.verdict import Verdict

STOP_WITHIN_NS: Final = 3 * 10**9
"""How long a component that was asked to end may take; then it is killed."""
ALL_STOP_WITHIN_NS: Final = 4_500_000_000
"""How long the end of all may take, the killing included; what hangs longer is left to its keeper, which kills it."""
STARTS_AT_ONCE: Final = 2 * (os.cpu_count() or 1)
"""So many are on their way at a time: a start has a deadline, and a hundred at once would miss it together."""


class Audience(Protocol):
    """Who is told what happens."""

    def moved(self, member: Member, said: str) -> None:
        """A component is in another phase; `said` is what there is to be said of that, or empty."""

    def denied(self, member: Member, tally: DecisionTally) -> None:
        """Something was refused to a component that it was not told of yet."""


class Fleet:
    """The components of one supervisor by their names."""

    def __init__(self, host: Host, plans: Sequence[Plan], log_directory: str, audience: Audience) -> None:
        """Take them in; nothing is started before `start`: then they are compiled, and `broker` is set for actors."""
        self.host = host
        self.loop = EventLoop()
        self._log_directory = log_directory
        self.members = {plan.name: self._member(plan) for plan in plans}
        self.others: list[Member] = []
        """Who stands by for a component's name, and who had it and has not ended."""
        self.on_news: Callable[[Member], None] = _nobody
        """Told whenever somebody is in another phase, or says something about its health."""
        self.stopping = False
        self.ended_by = 0
        """The signal that came first, where one did."""
        self.broker: FleetBroker | None = None
        self.providers: FleetProviders | None = None
        self._audience = audience
        self._runs: dict[str, RunLoop] = {}
        self._queue: deque[Member] = deque()
        self._stop_by_ns = 0
        self.barred: set[str] = set()
        """What is not to be started any more: the approval of these was taken back."""
        self.loop.add(HOST_KEY, HostSource(host, self._runs, self.loop, self.on_signal))

    def _member(self, plan: Plan) -> Member:
        return Member(plan, OutputLog(self._log_directory, plan.name), self.happen)

    def start(self) -> None:
        """Want all of them."""
        if self.broker is not None:
            self.loop.add(BROKER_KEY, self.broker)
        if self.providers is not None:
            self.loop.add(PROVIDERS_KEY, self.providers)
        for member in self.members.values():
            if member.name not in self.barred:
                self.happen(member, Event.WANTED)

    def turn(self, until_ns: int = 0) -> None:
        """Let one turn of the loop happen, at the latest at `until_ns` (0: whenever), and start who may start."""
        self._launch_queued()
        self.loop.turn(min((ns for ns in (until_ns, self._stop_by_ns) if ns), default=0))
        if self.host.audit_lost() and not self.stopping:
            self.stop()
        if 0 < self._stop_by_ns <= time.monotonic_ns():
            self._leave_to_keepers()

    @property
    def at_rest(self) -> bool:
        """Whether nothing of any component runs, or is about to."""
        return all(member.phase in ENDS for member in self.everyone())

    def everyone(self) -> Iterator[Member]:
        """Yield the components, and who stands by for them or is on the way out."""
        yield from self.members.values()
        yield from self.others

    def by_instance(self, instance: str) -> Member | None:
        """Return whose run this is."""
        return next((member for member in self.everyone() if member.instance == instance), None)

    # -- another in the place of one -----------------------------------------------------------------------------------

    def try_out(self, plan: Plan) -> Member:
        """Start what may take the place of a component; until then nobody can send to it."""
        member = self._member(plan)
        member.stands_by = True
        self.others.append(member)
        self.happen(member, Event.WANTED)
        return member

    def give_up(self, member: Member) -> None:
        """Ask one to end that isn't to have the name, or has it no more; a second time nothing happens."""
        if member.phase not in (Phase.STOPPING, Phase.KILLING):
            self.happen(member, Event.STOP_ASKED)

    def pass_name(self, member: Member) -> Member:
        """Let who stood by be the component from now on; return who was, which finishes what it was given and ends."""
        former = self.members[member.name]
        self.others.remove(member)
        self.members[member.name] = member
        self.others.append(former)
        member.stands_by = False
        if self.broker is not None and member.plan.kind == ACTOR and member.begun is not None:
            self.broker.pass_name(member.instance)
        waits = former.phase is Phase.RUNNING and former.plan.kind == ACTOR and member.plan.kind == ACTOR
        if not waits or self.broker is None or not self.broker.is_ready:
            self.give_up(former)
        self._clear()
        return former

    def on_peer_finished(self, instance: str) -> None:
        """Ask one to end that has passed its name on, and has nothing to do any more."""
        member = self.by_instance(instance)
        if member is not None and member in self.others:
            self.give_up(member)

    def _clear(self) -> None:
        """Forget who has ended, and is nobody any more."""
        for member in [each for each in self.others if each.phase in ENDS]:
            self.others.remove(member)
            member.let_go()

    # -- what comes from outside ---------------------------------------------------------------------------------------

    def on_signal(self, number: int) -> None:
        """End in order; at the second one at once."""
        self.ended_by = self.ended_by or number
        self.stop()

    def stop(self) -> None:
        """Have all of them end in order; asked a second time, at once."""
        self.stopping = True
        self._stop_by_ns = self._stop_by_ns or time.monotonic_ns() + ALL_STOP_WITHIN_NS
        for member in tuple(self.everyone()):
            self.happen(member, Event.STOP_ASKED)

    # -- what the broker says ------------------------------------------------------------------------------------------

    def on_peer(self, instance: str, ready: bool, health: str) -> None:
        """Note that an actor's session has begun, or was lost, and how the actor says that it is."""
        member = self.by_instance(instance)
        if member is None or member.begun is None:
            return
        member.health = health
        member.connected = ready
        if not ready or member.phase is Phase.RECONNECTING:
            self.happen(member, Event.READY if ready else Event.CONNECTION_LOST)
        self.loop.touch(instance)
        self.on_news(member)

    def on_end_peer(self, instance: str, code: str, reason: str) -> None:
        """End the run of an actor that has done what no working component does."""
        member = self.by_instance(instance)
        if member is not None and member.begun is not None:
            member.begun.loop.end_for(code, reason)
            self.loop.touch(instance)

    def on_broker_lost(self, reason: str) -> None:
        """Nobody is connected for now; where no other broker follows, those who need one can't go on."""
        for member in tuple(self.everyone()):
            if member.plan.kind == ACTOR and member.begun is not None:
                member.connected = False
                self.happen(member, Event.CONNECTION_LOST)
                if member in self.others and not member.stands_by:
                    # To the next broker it is nobody; what it was given has ended with the last one.
                    self.give_up(member)
                if reason:
                    self.on_end_peer(member.instance, "A1807", reason)

    # -- events and commands -------------------------------------------------------------------------------------------

    def happen(self, member: Member, event: Event) -> None:
        """Take an event of one component, and do what follows."""
        phase, command = advance(member.phase, event)
        moved = phase is not member.phase
        member.moved(phase)
        said = ""
        match command:
            case Command.WAIT:
                pass
            case Command.QUEUE:
                self._queue.append(member)
            case Command.LAUNCH:
                self._launch(member)
                return
            case Command.TELL_READY:
                said = f"as {member.instance}"
                member.log.note(f"runs {said}")
            case Command.ASK_TO_END:
                self._ask_to_end(member)
            case Command.KILL:
                self._kill(member)
            case Command.TELL_ENDED | Command.TELL_FAILED:
                said = self._conclude(member)
        if moved:
            self._tell(member, said)

    def _tell(self, member: Member, said: str) -> None:
        if self.members.get(member.name) is member:
            self._audience.moved(member, said)
        self.on_news(member)
        if member.phase in ENDS:
            self._clear()

    def _launch_queued(self) -> None:
        under_way = sum(1 for member in self.everyone() if member.phase is Phase.STARTING)
        while self._queue and under_way < STARTS_AT_ONCE:
            member = self._queue.popleft()
            if member.phase is Phase.QUEUED:
                self.happen(member, Event.TURN_CAME)
                under_way += 1

    def _launch(self, member: Member) -> None:
        instance = new_worker_id(member.name)
        streams = RunStreams(None, None, None, log=member.log)

        def on_denials(tally: DecisionTally) -> None:
            self._audience.denied(member, tally)

        self._tell(member, "")
        plan, actor = member.plan, None
        assert plan.artifact is not None, "what is not compiled is not wanted"
        try:
            if plan.actor is not None:
                assert self.broker is not None, "whoever has actors has a broker"
                actor = self.broker.admit(plan, instance, member.stands_by)
            begun = begin_run(
                self.host,
                plan.request,
                plan.artifact,
                instance,
                streams,
                on_denials,
                actor=actor,
                quotas=member.quotas,
            )
        except (AirssysError, OSError) as error:
            if actor is not None and self.broker is not None:
                self.broker.dismiss(instance)
            member.ended = f"could not be started: {error}"
            self.happen(member, Event.NOT_LAUNCHED)
            return
        member.begin(instance, begun)
        self._runs[instance] = begun.loop
        begun.loop.start(time.monotonic_ns())
        self.loop.add(instance, member)
        self.loop.touch(HOST_KEY)

    def _ask_to_end(self, member: Member) -> None:
        begun = member.begun
        assert begun is not None, "what runs has a run"
        if member.plan.kind == ACTOR:
            begun.loop.ask_to_end()
            member.stop_due_ns = time.monotonic_ns() + STOP_WITHIN_NS
        else:
            # A command knows of no way to be asked.
            begun.loop.interrupt(signal.SIGTERM)
        self.loop.touch(member.instance)

    def _kill(self, member: Member) -> None:
        if member.begun is not None:
            member.begun.loop.interrupt(signal.SIGTERM)
            self.loop.touch(member.instance)

    def _conclude(self, member: Member) -> str:
        begun, member.begun = member.begun, None
        member.stop_due_ns = 0
        if begun is not None:
            self.loop.remove(member.instance)
            del self._runs[member.instance]
            if self.broker is not None and member.plan.kind == ACTOR:
                self.broker.dismiss(member.instance)
            member.quotas.measure_memory(0)
            report, event = begun.conclude(self.host.options.audit_directory)
            member.report = report
            stopped = member.phase is Phase.STOPPED
            member.ended = "was ended" if stopped and report.verdict.outcome != "exited" else ending(report.verdict)
            member.ended += f": {member.why_stopped}" if member.why_stopped else ""
            member.open_files = begun.loop.facts.open_files
            try:
                self.host.writer.local(event)
            except AuditError as error:
                member.ended += f"; its end could not be recorded: {error}"
        member.log.note(f"{member.instance or member.name} {member.ended}")
        member.log.close()
        return f"({member.ended})"

    def _leave_to_keepers(self) -> None:
        """Let go of what didn't end in time: its keeper kills it when our end of its lifeline closes."""
        for member in tuple(self.everyone()):
            if member.phase in LIVING and member.begun is not None:
                member.begun.break_off()
                self.happen(member, Event.ENDED_BADLY)

    def close(self) -> None:
        """Let go of everything, wherever it is."""
        for member in self.everyone():
            if member.begun is not None:
                self.loop.remove(member.instance)
                member.begun.break_off()
                member.begun = None
            member.log.close()
            member.let_go()


def _nobody(_member: Member) -> None:
    """Nobody is told."""


def ending(verdict: Verdict) -> str:
    """Say how a run ended, in a few words for a line of its own."""
    if verdict.outcome == "exited":
        return f"exited {verdict.exit_code}"
    words = {"trapped": "trapped", "limit": "stopped at a limit", "refused": "was refused", "crashed": "crashed"}
    word = words.get(verdict.outcome, "failed")
    code = f" [{verdict.code}]" if verdict.code else ""
    head = verdict.message.split("\n", 1)[0]
    return f"{word}: {head}{code}" if head else f"{word}{code}"
