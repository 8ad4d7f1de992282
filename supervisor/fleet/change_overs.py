"""Carries out what `change_over` decides: versions decided on and compiled in threads, tried out, and put in place."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from ipc.audit.event import AuditEvent
from ipc.errors import AuditError
from supervisor.approvals.machine import State
from supervisor.event_loop import READ, Interest
from supervisor.fleet.change_over import (
    FINISH_WITHIN_NS,
    UNDER_WAY,
    Command,
    Event,
    Phase,
    advance,
    judge_request,
)
from supervisor.fleet.component_change import Audience, Change, Watcher
from supervisor.fleet.fleet import Fleet
from supervisor.fleet.last_healthy import FailedVersion, LastHealthyFiles
from supervisor.fleet.lifecycle import ENDS
from supervisor.fleet.lifecycle import Phase as MemberPhase
from supervisor.fleet.member import ACTOR, Member, Plan
from supervisor.fleet.preparing import Failed, Granted, Meant, Prepared, Preparer, Preparing, Refused, Said, Same, Waits
from supervisor.fleet.trials import Trials

KEY: Final = "change_overs"
_NOT_AS_MEANT: Final = (MemberPhase.FAILED, MemberPhase.STOPPED)
"""What is to be the version that it was, and has ended so, is started anew."""
_NO_BROKER: Final = Failed(
    "it is an actor, and this supervisor has begun without one", "end it and start it anew: airssys down"
)
LOOK_NS: Final = 10 * 10**9
"""How often what waits for an answer is looked at: a review time or an expiry has nobody who says that it is over."""


class ChangeOvers:
    """The changes of versions of one fleet, as a source of its loop."""

    def __init__(
        self,
        fleet: Fleet,
        targets: Mapping[str, str],
        preparer: Preparer,
        last_healthy: LastHealthyFiles,
        state_of: Callable[[str], tuple[int, State] | None],
        audience: Audience,
        still_holds: Callable[[Plan], bool],
    ) -> None:
        """`targets` are those that are installed, by component; `state_of` says how the newest request for one is.

        `still_holds` says of a plan that was made a while ago whether it may be started so; from then on its approval
        is looked after.
        """
        self._fleet = fleet
        self._targets = targets
        self._preparer = preparer
        self._last_healthy = last_healthy
        self._state_of = state_of
        self._audience = audience
        self._still_holds = still_holds
        self._changes: dict[str, Change] = {}
        self._watchers: list[tuple[str, Watcher]] = []
        self._trials = Trials()
        self._ready = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._jobs: list[Preparing] = []
        self._look_ns = 0
        self._ending: set[str] = set()
        fleet.on_news = self._on_news

    def close(self) -> None:
        """End what is under way, and wait for that."""
        for job in self._jobs:
            job.cancel()
        for job in self._jobs:
            job.close()
        os.close(self._ready)

    # -- what people and other parts want ------------------------------------------------------------------------------

    def is_installed(self, name: str) -> bool:
        """Whether a component was taken from what is installed, and so can have versions."""
        return name in self._targets

    def change(self, name: str) -> Change:
        """Return how a component's change of versions is."""
        return self._changes.setdefault(name, Change(name))

    def begin(self, name: str, failed: FailedVersion | None, awaits: bool) -> None:
        """Watch a component that is being started, to learn whether it is healthy.

        It isn't what its name means where that has `failed` before, or `awaits` approval.
        """
        self._trials.begin(self._fleet.members[name], time.monotonic_ns())
        if failed is not None:
            self._returned(self.change(name), failed)
        elif awaits:
            self.want(name)

    def want(self, name: str, *, again: bool = False, grant_asked: bool = False, actor: str = "") -> None:
        """Let a component be what its name means now: where `again`, also if it is that already, or that has failed.

        Raises AuditError where that can't be put on record.
        """
        change = self.change(name)
        if actor:
            detail: dict[str, object] = {"grant": "asked"} if grant_asked else {}
            self._fleet.host.record(AuditEvent("version_wanted", component=name, actor=actor, detail=detail))
        change.again, change.grant_asked = again, grant_asked
        self.happen(change, Event.WANTED)

    def replan(self, name: str) -> None:
        """Start the version that runs, or has run, anew by the approval that it has now, in its own place.

        What was going on with another version is looked at afterwards.
        """
        change = self.change(name)
        if change.phase is Phase.FAILED:
            change.returned_from = FailedVersion(change.version, change.package, change.reason, time.time_ns())
        elif change.phase is not Phase.SETTLED:
            change.look_afterwards = True
        if name in self._targets:
            change.returns_to = self._fleet.members[name].plan.package
        self.want(name, again=True)

    def replan_when_ended(self, name: str) -> None:
        """Start it anew, as above, as soon as what runs of it has ended."""
        self._ending.add(name)

    def watch(self, name: str, watcher: Watcher) -> None:
        """Tell somebody of each step of a change, beginning with how it is."""
        self._watchers.append((name, watcher))
        watcher.changed(self.change(name), self._fleet.members[name])

    def forget(self, watcher: Watcher) -> None:
        """Nobody waits for it any more."""
        self._watchers = [each for each in self._watchers if each[1] is not watcher]

    def look_again(self) -> None:
        """Approvals have changed: see what that means for those who wait for one."""
        for change in tuple(self._changes.values()):
            if change.phase in (Phase.AWAITING, Phase.REFUSED) and change.subject:
                self._look(change)
        self._look_ns = time.monotonic_ns() + LOOK_NS

    def stop(self) -> None:
        """Nothing is to be changed any more."""
        for name, watcher in tuple(self._watchers):
            if self.change(name).phase in UNDER_WAY:
                self.forget(watcher)
                watcher.given_up("the supervisor is ending")
        for change in tuple(self._changes.values()):
            self.happen(change, Event.STOPPING)

    # -- as a source ---------------------------------------------------------------------------------------------------

    def interests(self) -> Iterator[Interest]:
        """Yield what to wait for: word of a thread."""
        yield Interest(self._ready, READ, self._read)

    def next_ns(self) -> int:
        """Return when something is due."""
        due_ns = [self._trials.next_ns()]
        due_ns += [change.finish_by_ns for change in self._changes.values() if change.finish_by_ns]
        if any(change.phase is Phase.AWAITING for change in self._changes.values()):
            due_ns.append(self._look_ns or 1)
        return min((ns for ns in due_ns if ns), default=0)

    def tick(self, now_ns: int) -> None:
        """Judge who has had its time, and look at what waits."""
        for member in self._trials:
            self._judge(member, now_ns)
        for change in tuple(self._changes.values()):
            if 0 < change.finish_by_ns <= now_ns and change.former is not None:
                change.finish_by_ns = 0
                self._fleet.give_up(change.former)
        if self._look_ns <= now_ns:
            self.look_again()

    def _read(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._ready)
        for job in tuple(self._jobs):
            for said in job.take():
                change = self.change(job.name)
                if change.job is job:
                    self._take(change, said)
                elif isinstance(said, Prepared):
                    said.let_go()
            if job.is_over:
                job.close()
                self._jobs.remove(job)

    def _take(self, change: Change, said: Said) -> None:
        """Take what a thread says of the change that it works for."""
        match said:
            case Meant(version, package):
                change.version, change.package = version, package
            case Same():
                self.happen(change, Event.SAME)
            case Granted():
                self.happen(change, Event.GRANTED)
            case Waits():
                change.note(said, said.number, said.subject)
                self.happen(change, Event.AWAITS)
            case Refused():
                change.note(said, 0, said.subject)
                self.happen(change, Event.REFUSED)
            case Failed():
                change.note(said)
                self.happen(change, Event.FAILED)
            case Prepared():
                change.prepared = said
                if said.plan.kind == ACTOR and self._fleet.broker is None:
                    change.note(_NO_BROKER)
                    self.happen(change, Event.FAILED)
                else:
                    self.happen(change, Event.COMPILED)

    # -- events and commands -------------------------------------------------------------------------------------------

    def happen(self, change: Change, event: Event) -> None:
        """Take an event of one change, and do what follows."""
        before, (after, command) = change.phase, advance(change.phase, event)
        change.phase = after
        match command:
            case Command.DECIDE:
                self._decide(change)
            case Command.TRY:
                self._try_out(change)
            case Command.PASS_NAME:
                self._pass_name(change)
            case Command.GIVE_UP:
                self._give_up(change)
            case Command.GIVE_UP_AND_DECIDE:
                self._give_up(change)
                self._decide(change)
            case Command.LOOK_AFTERWARDS:
                change.look_afterwards = True
            case Command.SETTLE | Command.TELL | Command.WAIT:
                pass
        if change.phase is not after:
            return  # it could not be carried out, and that is told
        if after is not before or command is not Command.WAIT:
            self._tell(change, event)
        if command is Command.PASS_NAME and change.former is not None and change.former.phase in ENDS:
            self._finished(change)
        elif command is Command.SETTLE and change.look_afterwards:
            change.look_afterwards = False
            self.happen(change, Event.WANTED)
        elif command is Command.SETTLE and change.returned_from is not None:
            self._returned(change, change.returned_from)

    def _decide(self, change: Change) -> None:
        runs = self._fleet.members[change.name]
        known = None if change.again or runs.phase in _NOT_AS_MEANT else runs.plan.package
        target = self._targets.get(change.name, runs.plan.directory)
        name, returns_to, grant_asked = change.name, change.returns_to, change.grant_asked
        change.begin_anew()
        change.job = Preparing(name, target, known, returns_to, grant_asked, self._preparer, self._wake)
        self._jobs.append(change.job)
        change.job.start()

    def _wake(self) -> None:
        os.eventfd_write(self._ready, 1)

    def _try_out(self, change: Change) -> None:
        assert change.prepared is not None, "what was compiled is here"
        if not self._still_holds(change.prepared.plan):
            self._decide_anew(change, change.prepared.plan)
            return
        prepared, change.prepared = change.prepared, None
        change.candidate = self._fleet.try_out(prepared.plan)
        change.candidate.let_go = prepared.let_go
        self._trials.begin(change.candidate, time.monotonic_ns())

    def _decide_anew(self, change: Change, plan: Plan) -> None:
        """Somebody took something of an approval back meanwhile: decide on that very version by what is left."""
        change.again, change.returns_to = True, plan.package
        self.happen(change, Event.WANTED)

    def _pass_name(self, change: Change) -> None:
        candidate = change.candidate
        assert candidate is not None, "who was tried out is here"
        former = self._fleet.members[change.name]
        detail: dict[str, object] = {
            "version": candidate.plan.version,
            "package": candidate.plan.package,
            "before": {"version": former.plan.version, "package": former.plan.package},
        }
        version = candidate.plan.version
        name, instance = "version_taken_over", candidate.instance
        event = AuditEvent(name, component=change.name, instance=instance, resource=version, detail=detail)
        try:
            self._last_healthy_is(candidate)
            self._fleet.host.record(event)
        except (AuditError, OSError) as error:
            change.reason = f"it can't be put on record: {error}"
            self.happen(change, Event.FAILED)
            return
        change.candidate = None
        # What was to be started anew once it had ended has got a successor, by an approval of its own.
        self._ending.discard(change.name)
        self._trials.end(former)
        self._fleet.pass_name(candidate)
        change.former, change.finish_by_ns = former, time.monotonic_ns() + FINISH_WITHIN_NS

    def _finished(self, change: Change) -> None:
        change.former, change.finish_by_ns = None, 0
        self.happen(change, Event.FINISHED)

    def _give_up(self, change: Change) -> None:
        candidate = change.drop()
        if candidate is not None:
            self._trials.end(candidate)
            self._fleet.give_up(candidate)

    def _tell(self, change: Change, event: Event) -> None:
        runs = self._fleet.members[change.name]
        if event is Event.RETURNED:
            self._record(change, "version_left_out", "info")
        elif change.phase is Phase.FAILED:
            self._note_failure(change)
        elif change.phase in (Phase.AWAITING, Phase.REFUSED):
            name = "version_awaiting_approval" if change.phase is Phase.AWAITING else "version_refused"
            self._record(change, name, "denied")
        self._audience.changed(change, runs)
        for name, watcher in tuple(self._watchers):
            if name == change.name:
                watcher.changed(change, runs)

    def _record(self, change: Change, name: str, decision: str) -> None:
        with contextlib.suppress(AuditError):
            self._fleet.host.writer.local(change.record(name, decision))

    def _note_failure(self, change: Change) -> None:
        self._record(change, "version_failed", "info")
        failed = FailedVersion(change.version, change.package, change.reason, time.time_ns())
        if change.package and self._fleet.members[change.name].plan.package != change.package:
            with contextlib.suppress(OSError):  # then it is tried once more, by the next supervisor
                self._last_healthy.note_failure(change.name, failed)

    # -- who is healthy ------------------------------------------------------------------------------------------------

    def _on_news(self, member: Member) -> None:
        if member in self._trials:
            self._judge(member, time.monotonic_ns())
        change = self._changes.get(member.name)
        if change is not None and change.former is member and member.phase in ENDS:
            self._finished(change)
        if member.phase in ENDS and member.name in self._ending and self._fleet.members.get(member.name) is member:
            self._ending.remove(member.name)
            if not self._fleet.stopping:
                self.replan(member.name)
        self._fleet.loop.touch(KEY)

    def _judge(self, member: Member, now_ns: int) -> None:
        found, reason = self._trials.judge(member, now_ns)
        if found is None:
            return
        self._trials.end(member)
        change = self.change(member.name)
        if found is Event.FAILED and member.why_stopped:
            # It hasn't failed: what it ran by was taken back. So the approval of the one before it doesn't stand.
            if change.candidate is member:
                self._decide_anew(change, member.plan)
        elif change.candidate is member:
            change.reason = reason if found is Event.FAILED else ""
            self.happen(change, found)
        elif found is Event.HEALTHY:
            with contextlib.suppress(OSError):  # then the next supervisor starts what the name means
                self._last_healthy_is(member)
        elif member is self._fleet.members[member.name]:
            self._return_from(change, member, reason)

    def _return_from(self, change: Change, member: Member, reason: str) -> None:
        """One has failed from the start: where another one was healthy last, that is to be in its place again."""
        known, plan = self._last_healthy.read(member.name), member.plan
        if member.name not in self._targets or known.package in ("", plan.package) or self._fleet.stopping:
            return
        failed = FailedVersion(plan.version, plan.package, reason, time.time_ns())
        change.version, change.package, change.reason = plan.version, plan.package, reason
        self._record(change, "version_failed", "info")
        with contextlib.suppress(OSError):  # then it is tried once more, by the next supervisor
            self._last_healthy.note_failure(member.name, failed)
        change.returns_to, change.returned_from = known.package, failed
        self.happen(change, Event.WANTED)

    def _returned(self, change: Change, failed: FailedVersion) -> None:
        """What was healthy last runs in the place of one that has failed."""
        change.version, change.package, change.reason = failed.version, failed.package, failed.reason
        change.hint, change.returned_from = "", None
        self.happen(change, Event.RETURNED)

    def _last_healthy_is(self, member: Member) -> None:
        if member.plan.package and member.name in self._targets:
            self._last_healthy.note_success(member.name, member.plan.version, member.plan.package)

    # -- approvals -----------------------------------------------------------------------------------------------------

    def _look(self, change: Change) -> None:
        found = self._state_of(change.subject)
        if found is None:
            return
        number, state = found
        event = judge_request(change.phase, change.approval, number, state)
        if event is Event.REFUSED:
            change.reason = f"request {number} is {state}"
        elif event is Event.AWAITS:
            change.approval = number
        if event is not None:
            self.happen(change, event)
