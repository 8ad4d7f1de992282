"""A fleet's side of approvals: who of it runs by one that is over, was taken back, or gives less by now.

It is a source of the event loop. It looks when something was decided here, when a time is over, and when the approvals
were changed by another process, which the file beside them tells.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from ipc.audit.event import about
from ipc.errors import AuditError, ConfigError
from ipc.struct import Struct, replace
from supervisor.approvals.events import approval_of
from supervisor.approvals.ledger import Ledger
from supervisor.approvals.losing import EndedInstance, Loss, Outcome, loss_of, standing_of
from supervisor.approvals.reliance import LOOK_NS, Reliance, boot_ns, ends_at_boot_ns
from supervisor.approvals.settling import RunsSettling, RunsWatch
from supervisor.approvals.store import HEAD_FILE, ApprovalStore, BusyError
from supervisor.approvals.subject import placed
from supervisor.audit.policy_archive import keep_policy
from supervisor.event_loop import Interest
from supervisor.fleet.fleet import Fleet
from supervisor.fleet.lifecycle import ENDS, Event, Phase
from supervisor.fleet.member import Member
from supervisor.run.request import RunRequest

KEY: Final = "approvals"
_NOT_STARTED: Final = frozenset((Phase.DOWN, Phase.COMPILING, Phase.QUEUED))
_ENDING: Final = (Phase.STOPPING, Phase.KILLING)
_SECRET: Final = "secrets.env"  # noqa: S105 - the name of an action


class FleetSettling(Struct, frozen=True):
    """Members that are ended, or go on with less, and runs that are none of the fleet's."""

    fleet: Fleet
    ending: tuple[tuple[Member, Loss], ...]
    narrowed: tuple[tuple[Member, Loss], ...]
    runs: RunsSettling

    @property
    def is_over(self) -> bool:
        """Whether all of them have ended, and the broker decides by what the others have now."""
        broker = self.fleet.broker
        changing = broker is not None and any(broker.is_changing(each.instance) for each, _ in self.narrowed)
        return self.runs.is_over and not changing and all(member.phase in ENDS for member, _ in self.ending)

    def outcome(self) -> Outcome:
        """Return what has become of them."""
        own = Outcome(
            tuple(EndedInstance(loss.gone, member.open_files) for member, loss in self.ending),
            tuple(member.name for member, _ in self.ending),
            tuple(member.name for member, _ in self.narrowed),
            anew=tuple(member.name for member, loss in self.ending if loss.left),
        )
        return own.joined(self.runs.outcome())


class FleetApprovals:
    """Knows by which approvals the members of a fleet run; `store` waits for nobody."""

    def __init__(self, fleet: Fleet, store: ApprovalStore, runs: RunsWatch, start_anew: Callable[[str], None]) -> None:
        """Look from now on; `runs` are those that need no supervisor.

        `start_anew` has a component that is about to end started with what is approved of it by then.
        """
        self._fleet = fleet
        self._store = store
        self._runs = runs
        self._start_anew = start_anew
        self._head = os.path.join(store.directory, HEAD_FILE)
        self._seen: tuple[int, int] | None = None
        self._look_ns = 1
        self._found: list[tuple[Member, Loss]] = []

    # -- looking -------------------------------------------------------------------------------------------------------

    def look(self, ledger: Ledger) -> None:
        """Find who has more than is approved now."""
        self._seen = _stamp(self._head)
        self._found = []
        for member in self._fleet.everyone():
            reliance = member.plan.request.reliance
            if reliance is None:
                continue
            standing = standing_of(ledger.request(reliance.number), ledger.request, ledger.now_s)
            loss = loss_of(reliance.number, reliance.granted, standing)
            if loss is not None:
                self._found.append((member, loss))
            elif reliance.until_s != standing.ends_s:
                until = replace(
                    reliance,
                    until_s=standing.ends_s,
                    until_boot_ns=ends_at_boot_ns(standing.ends_s, ledger.now_s),
                )
                _put(member, replace(member.plan.request, reliance=until))
        self._runs.look(ledger)

    def begin(self) -> FleetSettling:
        """End them, or have them go on with less."""
        found, self._found = self._found, []
        ending, narrowed = [], []
        for member, loss in found:
            if member.phase in ENDS or member.phase in _NOT_STARTED:
                self._bar(member, loss)
            elif not loss.ends and self._go_on(member, loss):
                narrowed.append((member, loss))
            else:
                if loss.left and self._is_named(member):
                    self._start_anew(member.name)
                else:
                    self._bar_name(member)
                self._end(member, loss)
                ending.append((member, loss))
        return FleetSettling(self._fleet, tuple(ending), tuple(narrowed), self._runs.begin())

    def _bar(self, member: Member, loss: Loss) -> None:
        """Have what isn't running start with what is left only, or not at all."""
        if not loss.left or any(grant.action == _SECRET for grant in loss.gone):
            self._bar_name(member)
            self._end(member, loss)
        else:
            _put(member, _narrowed(member.plan.request, loss))

    def _is_named(self, member: Member) -> bool:
        """Whether one is the component of its name, and doesn't stand by for that, or has passed it on."""
        return self._fleet.members.get(member.name) is member

    def _bar_name(self, member: Member) -> None:
        if self._is_named(member):
            self._fleet.barred.add(member.name)

    def _end(self, member: Member, loss: Loss) -> None:
        if member.phase in (*ENDS, *_ENDING):
            return  # asked a second time it would be killed
        member.why_stopped = loss.why
        self._fleet.happen(member, Event.STOP_ASKED)

    def _go_on(self, member: Member, loss: Loss) -> bool:
        """Have the broker decide by what is left; False where that can't be put on record, or it has none."""
        broker, host = self._fleet.broker, self._fleet.host
        if broker is None or member.plan.actor is None or member.plan.artifact is None:
            return False
        request = _narrowed(member.plan.request, loss)
        context = request.context.of_program(member.plan.artifact.record.wasm_sha256)
        try:
            keep_policy(host.options.audit_directory, request.document, context.policy_digest)
            host.record(replace(about(context, "policy_narrowed", member.instance), reason=loss.why))
        except (AuditError, ConfigError, OSError):
            return False
        _put(member, request)
        broker.change_policy(member.instance, context, request.document)
        return True

    # -- as a source ---------------------------------------------------------------------------------------------------

    def interests(self) -> Iterator[Interest]:
        """Yield the runs that are to end."""
        return self._runs.interests()

    def next_ns(self) -> int:
        """Return when to look at the times, and whether somebody else has changed something."""
        return min((ns for ns in (self._look_ns, self._runs.next_ns()) if ns), default=0)

    def tick(self, now_ns: int) -> None:
        """Do what is due."""
        self._runs.tick(now_ns)
        if now_ns < self._look_ns:
            return
        relying = [(each, by) for each in self._fleet.everyone() if (by := each.plan.request.reliance) is not None]
        wall_s, since_boot_ns = time.time(), boot_ns()
        left_ns = [by.left_ns(wall_s, since_boot_ns) for _, by in relying]
        over = [each for each, ns in zip(relying, left_ns, strict=True) if ns <= 0 and not self._is_barred(each[0])]
        if over:
            self._see_over(over)
        elif relying and self._seen != _stamp(self._head):
            self._see_changed()
        soonest_ns = min((ns for ns in left_ns if ns > 0), default=LOOK_NS)
        self._look_ns = now_ns + min(LOOK_NS, soonest_ns) if relying else 0

    def _is_barred(self, member: Member) -> bool:
        return member.name in self._fleet.barred and (member.phase in ENDS or bool(member.why_stopped))

    def _see_over(self, over: Sequence[tuple[Member, Reliance]]) -> None:
        """End what runs by an approval that is over; that it is, is on record then, if that can be."""
        # What can't be written to keeps nobody running.
        with contextlib.suppress(ConfigError, AuditError), self._store.open() as ledger:
            for _, reliance in over:
                ledger.note_time(reliance.until_s or 0)
                request = ledger.request(reliance.number)
                if request is not None:
                    ledger.settled(request)
            self.look(ledger)
        self.begin()
        for member, reliance in over:
            if not self._is_barred(member):
                self._bar_name(member)
                self._end(member, Loss(reliance.number, (), (), True, f"{approval_of(reliance.number)} is over"))

    def _see_changed(self) -> None:
        stamp = _stamp(self._head)
        try:
            with self._store.open() as ledger:
                self.look(ledger)
        except (BusyError, AuditError):
            return  # at the next look
        except ConfigError:
            self._seen = stamp  # they are damaged: whoever mends them changes that, too
            return
        self.begin()


def _put(member: Member, request: RunRequest) -> None:
    member.plan = replace(member.plan, request=request)


def _narrowed(request: RunRequest, loss: Loss) -> RunRequest:
    """Return the same to run with what is left: what the host itself says of it stays."""
    by = request.reliance
    assert by is not None, "who loses something runs by an approval"
    grants = tuple(
        replace(grant, source=f"{approval_of(by.number)} ({grant.source})") for grant in placed(loss.left, by.own)
    )
    document = replace(request.document, grants=grants)
    return replace(
        request,
        document=document,
        context=replace(request.context, policy_digest=document.digest()),
        reliance=replace(by, granted=loss.left),
    )


def _stamp(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns
