"""What is answered on the control socket, for those who may ask (`control_messages.MAY_ASK`)."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING

from ipc import memory_file
from ipc.audit.event import AuditEvent
from ipc.audit.folding import Folder
from ipc.broker.messages import MAX_PAYLOAD_BYTES
from ipc.broker.orders import ProviderUse, QuotaState
from ipc.errors import AuditError
from ipc.policy.quotas import MEMORY, QUOTAS, STORAGE
from supervisor.control.messages import (
    CallAnswer,
    CallComponent,
    ComponentStatus,
    DecideApproval,
    GetQuotas,
    GetStatus,
    LogFiles,
    OpenLogs,
    ProviderStatus,
    QuotaStatus,
    ReadApprovals,
    Request,
    ShutDown,
    SupervisorStatus,
    TakeVersion,
)
from supervisor.control.roles import Peer
from supervisor.control.serving import SOCKET_NAME, Client
from supervisor.control.version_desk import VersionDesk
from supervisor.fleet.fleet import Fleet
from supervisor.fleet.lifecycle import Phase
from supervisor.fleet.member import COMMAND, Member
from supervisor.fleet.output_log import open_log_files
from supervisor.fleet.output_view import check_log_name
from supervisor.fleet.provider_life import state_of
from supervisor.terminal import visible

if TYPE_CHECKING:
    from supervisor.approvals.desk import ApprovalDesk

REFUSED_CODE = "A3009"
_VALUES = "values"
_ORDER = tuple(kind.name for kind in QUOTAS)


class FleetDesk:
    """Answers from what a fleet knows; nothing here waits."""

    def __init__(
        self,
        fleet: Fleet,
        log_directory: str,
        versions: VersionDesk,
        open_approvals: Callable[[], ApprovalDesk] | None = None,
    ) -> None:
        """Answer for a fleet; `open_approvals` is called when somebody first asks for approvals."""
        self._fleet = fleet
        self._versions = versions
        self._changes = versions.changes
        self._log_directory = log_directory
        self._started_ns = time.time_ns()
        self._folder = Folder()
        self._open_approvals = open_approvals
        self._approvals: ApprovalDesk | None = None
        self._leaving: list[Client] = []
        self._calls: dict[int, Client] = {}
        self._reading_quotas: list[tuple[Client, tuple[str, ...]]] = []
        self._reading_providers: list[Client] = []

    # -- the desk of the control socket --------------------------------------------------------------------------------

    def answer(self, request: Request, descriptors: Sequence[int], client: Client) -> None:
        """Answer, now or when there is something to say."""
        match request:
            case GetStatus(name):
                self._status(name, client)
            case OpenLogs(name):
                self._logs(name, client)
            case GetQuotas(name):
                self._quotas(name, client)
            case CallComponent():
                self._call(request, descriptors, client)
            case ShutDown():
                self._shut_down(client)
            case TakeVersion():
                self._take_version(request, client)
            case ReadApprovals() | DecideApproval():
                self._approve(request, descriptors, client)

    def forget(self, client: Client) -> None:
        """Nobody waits for what this client has asked any more."""
        with contextlib.suppress(ValueError):
            self._leaving.remove(client)
        self._reading_quotas = [waiting for waiting in self._reading_quotas if waiting[0] is not client]
        with contextlib.suppress(ValueError):
            self._reading_providers.remove(client)
        self._versions.forget(client)
        if self._approvals is not None:
            self._approvals.forget(client)
        for call in [call for call, caller in self._calls.items() if caller is client]:
            del self._calls[call]
            if self._fleet.broker is not None:
                self._fleet.broker.forget_call(call)

    # -- what the broker answers ---------------------------------------------------------------------------------------

    def on_called(self, call: int, kind: str, reason: str, payload: bytes | None) -> None:
        """Tell who called how that has ended."""
        client = self._calls.pop(call, None)
        if client is None:
            return
        files = () if payload is None else (memory_file.from_bytes("answer", payload),)
        client.part(CallAnswer(kind, reason, payload is not None), files)
        client.done()

    def on_quotas(self, states: tuple[QuotaState, ...]) -> None:
        """Tell those who asked for the quotas."""
        waiting, self._reading_quotas = self._reading_quotas, []
        for client, names in waiting:
            self._tell_quotas(client, names, states)

    def on_provider_uses(self, uses: tuple[ProviderUse, ...]) -> None:
        """Tell those who asked for the status what it ends with."""
        waiting, self._reading_providers = self._reading_providers, []
        for client in waiting:
            self._tell_providers(client, uses)

    def on_nobody_answers(self) -> None:
        """Tell whoever waits for the broker that it has ended."""
        calls, self._calls = self._calls, {}
        for client in calls.values():
            client.part(CallAnswer("unavailable", "the broker ended before it had an answer"))
            client.done()
        self.on_quotas(())
        self.on_provider_uses(())

    def refused(self, what: str, peer: Peer) -> None:
        """Put on record that somebody asked for what they may not; what repeats is counted."""
        reason = f"not permitted to uid {peer.uid} by [control]"
        event = AuditEvent(
            "control_refused",
            action=f"control.{what}",
            decision="denied",
            code=REFUSED_CODE,
            reason=reason,
            actor=f"uid {peer.uid}",
        )
        self._record(*self._folder.note(event, time.monotonic_ns()))

    def turn(self) -> None:
        """Tell those who wait for the end of components; called in each turn of the loop."""
        if self._approvals is not None:
            self._approvals.turn()

    def finish(self) -> None:
        """Tell those who asked for the end that everything has ended, and close what was counted."""
        self.turn()
        for client in tuple(self._leaving):
            client.done()
        self._leaving.clear()
        if self._approvals is not None:
            self._approvals.finish()
        self._record(*self._folder.flush())

    def _record(self, *events: AuditEvent) -> None:
        # Nothing depends on it: what was refused stays refused.
        with contextlib.suppress(AuditError):
            for event in events:
                self._fleet.host.writer.local(event)

    def _used(self, what: str, client: Client, resource: str = "") -> bool:
        """Put on record, durably, what somebody is about to do; False when that can't be: then it isn't done."""
        event = AuditEvent(
            "control_used",
            component=resource,
            action=f"control.{what}",
            decision="allowed",
            actor=f"uid {client.peer.uid}",
            detail={"pid": client.peer.pid},
        )
        try:
            self._fleet.host.record(event)
        except AuditError as error:
            client.not_done("unavailable", f"no audit record, no action: {error}", "airssys audit verify")
            return False
        return True

    # -- requests ------------------------------------------------------------------------------------------------------

    def _named(self, name: str, client: Client) -> list[Member] | None:
        members = self._fleet.members
        if not name:
            return list(members.values())
        if name in members:
            return [members[name]]
        client.not_done("unknown", f"there is no component '{visible(name)}' here", f"there is: {', '.join(members)}")
        return None

    def _status(self, name: str, client: Client) -> None:
        members = self._named(name, client)
        if members is None:
            return
        host = self._fleet.host
        trouble = host.writer.trouble
        client.part(
            SupervisorStatus(
                pid=os.getpid(),
                version=version("airssys-wasm"),
                socket=os.path.join(host.options.state_directory, SOCKET_NAME),
                state_directory=host.options.state_directory,
                started_ns=self._started_ns,
                run_as=host.options.run_as.name,
                stopping=self._fleet.stopping,
                trouble="" if trouble is None else trouble.message,
            )
        )
        for member in members:
            client.part(component_status(member, self._changes.change(member.name).words(member)))
        broker = self._fleet.broker
        if name or self._fleet.providers is None:
            client.done()
        elif broker is not None and broker.read_providers():
            self._reading_providers.append(client)
            self._fleet.providers.wait_for_uses(lambda: self.on_provider_uses(()))
        else:
            self._tell_providers(client, ())

    def _tell_providers(self, client: Client, uses: Sequence[ProviderUse]) -> None:
        providers = self._fleet.providers
        of_each = {use.provider: use for use in uses}
        for provider in () if providers is None else providers.settings:
            assert providers is not None
            use = of_each.get(provider.name, ProviderUse(provider.name, -1, -1, -1, -1))
            client.part(
                ProviderStatus(
                    name=provider.name,
                    capabilities=provider.capabilities,
                    program=provider.program,
                    state=state_of(providers.lives(provider.name)),
                    pids=tuple(providers.pids(provider.name)),
                    calls=use.calls,
                    failed=use.failed,
                    busy=use.busy,
                    waiting=use.waiting,
                    reason=providers.reason(provider.name),
                )
            )
        client.done()

    def _logs(self, name: str, client: Client) -> None:
        # Of one that is not here any more there may still be files; a name that can't be one is never looked for.
        files = [] if check_log_name(name) is not None else open_log_files(self._log_directory, name)
        if not files and name not in self._fleet.members:
            self._named(name, client)
            return
        client.part(LogFiles(len(files)), files)
        client.done()

    def _quotas(self, name: str, client: Client) -> None:
        members = self._named(name, client)
        if members is None:
            return
        names = tuple(member.name for member in members)
        if self._fleet.broker is not None and self._fleet.broker.read_quotas():
            self._reading_quotas.append((client, names))
        else:
            self._tell_quotas(client, names, ())

    def _tell_quotas(self, client: Client, names: Sequence[str], states: Sequence[QuotaState]) -> None:
        for name in names:
            brokered = [state for state in states if state.component == name]
            told = {state.quota for state in brokered}
            own = own_quotas(self._fleet.members[name], time.monotonic_ns())
            found = [quota for quota in own if quota.part or quota.quota not in told]
            for state in brokered:
                part = _VALUES if state.quota == STORAGE.name else ""
                found.append(QuotaStatus(name, state.quota, state.usage, state.limit, state.unit, part))
            for quota in sorted(found, key=lambda quota: (_ORDER.index(quota.quota), quota.part != _VALUES)):
                client.part(quota)
        client.done()

    def _call(self, request: CallComponent, descriptors: Sequence[int], client: Client) -> None:
        if not request.name:  # where nothing is changed, that is all of them
            client.not_done("invalid", "no component is named")
            return
        members = self._named(request.name, client)
        if members is None:
            return
        (member,) = members
        broker = self._fleet.broker
        if member.plan.kind == COMMAND:
            client.not_done("invalid", f"{member.name} is a command, and takes no messages", "only actors take them")
            return
        if member.phase not in (Phase.RUNNING, Phase.RECONNECTING) or broker is None:
            why = f" ({member.ended})" if member.ended else ""
            coming = member.phase in (Phase.DOWN, Phase.COMPILING, Phase.QUEUED, Phase.STARTING)
            hint = f"wait until it runs: airssys status {member.name}" if coming else f"airssys logs {member.name}"
            client.not_done("unavailable", f"{member.name} is {member.phase}{why}", hint)
            return
        try:
            payload = _sealed_bytes(descriptors)
        except ValueError as error:
            client.not_done("invalid", str(error))
            return
        sender = f"uid {client.peer.uid}"
        call = broker.call(member.name, payload, request.timeout_ms, request.wants_answer, sender)
        if call:
            self._calls[call] = client
        else:
            client.not_done("unavailable", "the broker is away at the moment", "try again in a second")

    def open_approvals(self) -> None:
        """Look after approvals from now on; before that it is done when somebody first asks."""
        if self._approvals is None and self._open_approvals is not None:
            self._approvals = self._open_approvals()

    def _approve(self, request: ReadApprovals | DecideApproval, descriptors: Sequence[int], client: Client) -> None:
        self.open_approvals()
        if self._approvals is None:
            client.not_done("unavailable", "there are no approvals here")
        else:
            self._approvals.answer(request, descriptors, client)
            if isinstance(request, DecideApproval):
                self._changes.look_again()

    def _take_version(self, request: TakeVersion, client: Client) -> None:
        if not request.name:
            client.not_done("invalid", "no component is named")
        elif self._fleet.stopping:
            client.not_done("unavailable", "the supervisor is ending")
        elif self._named(request.name, client) is not None:
            self._versions.take(request, client)

    def _shut_down(self, client: Client) -> None:
        if self._used("shut_down", client):
            client.busy = True
            self._leaving.append(client)
            self._fleet.stop()


def _sealed_bytes(descriptors: Sequence[int]) -> bytes:
    """Read a payload; raises ValueError."""
    if len(descriptors) != 1:
        raise ValueError("a message comes with one payload")
    try:
        return memory_file.read_sealed(descriptors[0], MAX_PAYLOAD_BYTES)
    except ValueError as error:
        raise ValueError(f"the payload {error}") from None


def component_status(member: Member, change: str = "") -> ComponentStatus:
    """Return what is known of a component; `change` says what is going on with another version of it."""
    report, request = member.report, member.plan.request
    return ComponentStatus(
        name=member.name,
        version=request.context.version,
        kind=member.plan.kind,
        phase=member.phase,
        instance=member.instance,
        directory=member.plan.directory,
        health=member.health,
        pid=member.pid,
        since_ns=member.since_ns,
        memory_bytes=member.memory_bytes,
        memory_limit_bytes=request.limits.memory_bytes,
        allowed=member.tally.allowed,
        denied=member.tally.denied,
        outcome="" if report is None else report.verdict.outcome,
        exit_code=0 if report is None else report.verdict.exit_code,
        code="" if report is None else report.verdict.code,
        ended=member.ended,
        trust=request.context.trust,
        approval=request.context.approval,
        package=member.plan.package,
        change=change,
        roles=request.context.roles,
        approved_until_s=None if request.reliance is None else request.reliance.until_s,
    )


def own_quotas(member: Member, now_ns: int) -> list[QuotaStatus]:
    """Return the quotas of a component as the supervisor knows them; of an actor the broker knows some better."""
    found = []
    for level in member.quotas.states(now_ns):
        usage, part = level.usage, ""
        if level.name == STORAGE.name and member.stored_bytes is not None:
            usage, part = member.stored_bytes, "files"
        peak = level.peak if level.name == MEMORY.name else None
        found.append(QuotaStatus(member.name, level.name, usage, level.limit, level.unit, part, peak))
    return found
