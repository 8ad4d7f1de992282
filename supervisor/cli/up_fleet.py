"""`airssys up` behind its flags: grants, compiled code, the fleet, its control socket, and the turns until the end."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import stat
import sys
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from ipc.audit.event import AuditEvent
from ipc.broker.events import Bounds, SharedStorage
from ipc.broker.messages import MAX_PAYLOAD_BYTES
from ipc.errors import AuditError, ConfigError
from ipc.struct import replace
from supervisor import places
from supervisor.approvals.errors import AwaitingApprovalError, several
from supervisor.cli.run_component import GrantedComponent, granted_component, tell_not_granted
from supervisor.cli.run_setup import host_options, read_settings
from supervisor.cli.targets import Target, open_installed
from supervisor.cli.up_view import Lines, LiveTable, new_view
from supervisor.compilation import Artifact, CompileLimits
from supervisor.compiling import KEY as COMPILING_KEY
from supervisor.compiling import Compilations
from supervisor.component_directories import make_data_directory
from supervisor.control import SOCKET_NAME, Control, bind_control_socket
from supervisor.control_client import DIRECTORY
from supervisor.control_roles import Roles, read_roles
from supervisor.desk import FleetDesk
from supervisor.fleet import Fleet
from supervisor.fleet_broker import FleetBroker
from supervisor.fleet_providers import FleetProviders
from supervisor.host import Host, open_host
from supervisor.identity import actor
from supervisor.lifecycle import Phase
from supervisor.manifest import load_manifest, only_brokered
from supervisor.member import ACTOR, ActorPlan, Plan
from supervisor.output_log import make_log_directory
from supervisor.packages.target import is_path
from supervisor.processes import Processes
from supervisor.provider_check import provider_problems
from supervisor.provider_settings import ProviderSettings
from supervisor.report import paint
from supervisor.run_request import RunRequest, require_text
from supervisor.settings import Settings
from supervisor.state_lock import only_one
from supervisor.terminal import visible
from supervisor.units import UNLIMITED, format_size
from supervisor.usage_error import UsageError

if TYPE_CHECKING:
    from supervisor.approvals.desk import ApprovalDesk

_ACTOR_EXPORT: Final = "airssys:core/component-lifecycle@"
"""What makes a component an actor: it exports this interface, in whichever version."""
_APPROVALS_WAIT_S: Final = 0.2
"""How long the loop waits for somebody who has the approvals open."""
CALL_TIMEOUT_NS: Final = 30 * 10**9
"""How long one call of an actor may take whose manifest says nothing."""


def bring_up(args: argparse.Namespace, processes: Processes) -> int:
    """Bring the components up on processes that were started for it, and return the exit code when all is over."""
    settings = read_settings(args)
    installed_in = places.state_directory(args.state_dir, os.environ, settings)
    if args.state_dir is None and not os.environ.get("AIRSSYS_STATE") and ("host", "state") not in settings.origins:
        args.state_dir = _own_directory(os.getcwd())
    options = host_options(args, settings, args.targets)
    roles = read_roles(settings.control, os.getuid())
    with contextlib.ExitStack() as stack:
        stack.enter_context(only_one(options.state_directory))
        view = new_view(args)
        host = stack.enter_context(open_host(options, processes, view.trouble, ahead=None))
        found = [stack.enter_context(_found(target, installed_in)) for target in args.targets]
        granted = _grant(args, found, host, settings)
        if granted is None:
            return tell_not_granted(args)
        logs = make_log_directory(os.path.join(options.state_directory, "logs"))
        plans = [_plan(each) for each in granted]
        providers = _providers(settings, plans, view)
        fleet = Fleet(host, plans, logs, view)
        stack.callback(fleet.close)
        desk = FleetDesk(fleet, logs, lambda: _approvals(host, settings, roles, fleet, stack))
        listener = bind_control_socket(options.state_directory, roles)
        stack.callback(_unlink, os.path.join(options.state_directory, SOCKET_NAME))
        control = Control(listener, roles, desk, fleet.loop, time.monotonic_ns)
        stack.callback(control.close)
        names = [plan.name for plan in plans]
        host.record(AuditEvent("supervisor_started", actor=actor(), detail={"components": names}))
        control.start()
        if any(plan.request.reliance is not None for plan in plans):
            desk.open_approvals()
        try:
            compiled = _compile(args, host, fleet, view, granted, stack)
            if compiled:
                if providers:
                    fleet.providers = FleetProviders(host, fleet.loop, providers, logs, view.warn)
                    stack.callback(fleet.providers.close)
                _start_broker(host, fleet, desk, stack)
                _turns(args, fleet, view, desk)
        except BaseException:
            view.leave()
            with contextlib.suppress(AuditError):
                host.record(AuditEvent("supervisor_ended", actor=actor(), detail={"components": names}))
            raise
        desk.finish()
        # Those who wait for the end hear of it before their connections close.
        until_ns = time.monotonic_ns() + 200_000_000
        while control.has_unsent and time.monotonic_ns() < until_ns:
            fleet.loop.turn(until_ns)
        host.record(AuditEvent("supervisor_ended", actor=actor(), detail={"components": names}))
        view.finish(fleet)
        if not compiled and fleet.ended_by:
            return 128 + fleet.ended_by
        failed = any(member.phase is Phase.FAILED for member in fleet.members.values())
        return 1 if args.until_done and failed else 0


def _approvals(host: Host, settings: Settings, roles: Roles, fleet: Fleet, stack: contextlib.ExitStack) -> ApprovalDesk:
    """Return what answers for approvals, and looks after those who run by them; most supervisors have none."""
    from supervisor.approvals.desk import ApprovalDesk
    from supervisor.approvals.service import ApprovalService
    from supervisor.approvals.settling import RunsWatch
    from supervisor.approvals.store import ApprovalStore
    from supervisor.fleet_approvals import KEY, FleetApprovals

    options = host.options
    store = ApprovalStore(options.state_directory, options.audit_directory, host.record, wait_s=_APPROVALS_WAIT_S)
    runs = RunsWatch(store.directory, options.audit_directory, lambda: fleet.loop.touch(KEY))
    stack.callback(runs.close)
    watch = FleetApprovals(fleet, store, runs)
    fleet.loop.add(KEY, watch)
    return ApprovalDesk(ApprovalService(store, settings, roles, watch.look, tells=False), watch)


def _compile(
    args: argparse.Namespace,
    host: Host,
    fleet: Fleet,
    view: Lines | LiveTable,
    granted: Sequence[GrantedComponent],
    stack: contextlib.ExitStack,
) -> bool:
    """Compile what isn't yet, and make whole plans of it; False where that was ended before all were compiled."""
    limits = CompileLimits(timeout_s=args.compile_timeout / 1e9, memory_bytes=args.compile_memory)
    compilations = Compilations(host, tuple(fleet.members.values()), limits, fleet.happen, view.compiles_long)
    stack.callback(compilations.close)
    compilations.start()
    fleet.loop.add(COMPILING_KEY, compilations)
    while not compilations.is_over:
        fleet.turn(view.next_ns())
        view.turn(fleet)
        if fleet.stopping:
            compilations.cancel()
    fleet.loop.remove(COMPILING_KEY)
    if compilations.failure is not None:
        raise compilations.failure
    if fleet.stopping:
        return False
    for component in granted:
        member = fleet.members[component.request.component]
        # Its request may ask for less by now: its approval may have been narrowed meanwhile.
        current = replace(component, request=member.plan.request)
        member.plan = _plan(current, compilations.artifacts[member.name])
    return True


def _start_broker(host: Host, fleet: Fleet, desk: FleetDesk, stack: contextlib.ExitStack) -> None:
    """Start a broker where there are actors."""
    actors = sum(1 for member in fleet.members.values() if member.plan.actor is not None)
    if actors:
        broker = FleetBroker(host, actors, fleet, desk, fleet.providers)
        stack.callback(broker.close)
        broker.start()
        broker.wait_ready()
        fleet.broker = broker


def _providers(settings: Settings, plans: Sequence[Plan], view: Lines | LiveTable) -> list[ProviderSettings]:
    """Return those that somebody here is granted; raises ConfigError for one whose program isn't as it must be."""
    granted = {
        grant.action.split(".")[1]
        for plan in plans
        for grant in plan.request.document.grants
        if grant.action.startswith("custom.")
    }
    asked = [each for each in settings.providers if granted.intersection(each.capabilities)]
    for problem in provider_problems(asked):
        raise ConfigError(
            f"providers.{problem.provider}.{problem.key}: {visible(problem.problem)}", hint=visible(problem.hint)
        )
    for capability in sorted(granted.difference(*(each.capabilities for each in asked))):
        view.warn(f"no provider serves the custom capability {capability}: it is unavailable to who asks for it")
    return asked


def _turns(args: argparse.Namespace, fleet: Fleet, view: Lines | LiveTable, desk: FleetDesk) -> None:
    view.begin(fleet)
    fleet.start()
    rested = False
    while not (fleet.at_rest and (fleet.stopping or args.until_done)):
        fleet.turn(view.next_ns())
        view.turn(fleet)
        desk.turn()
        if fleet.at_rest and not (rested or fleet.stopping or args.until_done):
            view.rests()
        rested = fleet.at_rest


def _own_directory(cwd: str) -> str:
    """Return where the state of a supervisor in this directory is; ConfigError where others could exchange it."""
    path = os.path.join(cwd, DIRECTORY)
    try:
        parent = os.stat(cwd)
        found = os.lstat(path) if os.path.lexists(path) else None
    except OSError as error:
        raise ConfigError(
            f"{visible(cwd)}: {os.strerror(error.errno or 0)}", hint="go to a directory of yours"
        ) from None
    own = os.getuid()
    theirs = parent.st_uid not in (own, 0)
    shared = bool(parent.st_mode & stat.S_IWOTH) and not parent.st_mode & stat.S_ISVTX
    if theirs or shared or (found is not None and (found.st_uid != own or not stat.S_ISDIR(found.st_mode))):
        raise ConfigError(
            f"{visible(path)}: others could put their own state in its place",
            hint="name a place for the state that is yours alone: --state-dir DIR",
        )
    return path


def _unlink(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


@contextlib.contextmanager
def _found(target: str, state: str) -> Iterator[Target]:
    """Yield a directory, or what is installed in a state directory, held for as long as it may run."""
    if is_path(target):
        yield Target(target)
        return
    with open_installed(target, state, unread_program=True) as installed:
        if installed.installed.instance:
            raise ConfigError(
                f"{visible(target)}: instances are for `airssys run`; here a name is an address, and has one",
                hint=f"install it without: airssys install SOURCE, then airssys up {installed.installed.name}",
            )
        yield Target(installed.package.directory, installed)


def _grant(
    args: argparse.Namespace, targets: Sequence[Target], host: Host, settings: Settings
) -> list[GrantedComponent] | None:
    """Have each component granted what it asks; None where one wasn't: then nothing is started."""
    manifests = [load_manifest(target.path) for target in targets]
    seen: dict[str, str] = {}
    for manifest, target in zip(manifests, args.targets, strict=True):
        name = manifest.component.name
        if name in seen:
            raise ConfigError(
                f"{visible(seen[name])} and {visible(target)} are both called {name}: a name is an address",
                hint="give one of them another name in its Component.toml",
            )
        seen[name] = target
    if args.grant not in (None, "asked") and len(manifests) > 1:
        raise UsageError("--grant FILE is for one component", hint="grant what each asks with --grant asked")
    own = _sorted_out(
        "--set", args.set, [(m.component.name, {parameter.name for parameter in m.parameters}) for m in manifests]
    )
    secrets = _sorted_out(
        "--secret",
        args.secret,
        [
            (m.component.name, {r.resource for c in (m.capabilities, m.optional) for r in c.secrets.env})
            for m in manifests
        ],
    )
    granted_to_all: list[GrantedComponent] = []
    waiting: list[AwaitingApprovalError] = []
    for manifest, target in zip(manifests, targets, strict=True):
        name = manifest.component.name
        tmp = make_data_directory(os.path.join(host.tmp_directory, name), host.options.run_as)
        of_one = _run_arguments(args, target.path, own[name], secrets[name])
        try:
            granted = granted_component(of_one, host, settings, tmp, brokered=True, installed=target.installed)
        except AwaitingApprovalError as error:  # the others are asked for, too
            waiting.append(error)
            continue
        if granted is None:
            return None
        require_text(granted.request)
        if granted.request.context.trust == "dev":
            _tell_dev_mode(granted.request)
        granted_to_all.append(granted)
    if waiting:
        raise several(waiting)
    return granted_to_all


def _tell_dev_mode(request: RunRequest) -> None:
    from supervisor.dev_mode import DevMode, banner

    # On stderr, and with --quiet too: nobody is to take this for what somebody has allowed.
    said = visible(f"airssys: {request.component}: {banner(DevMode(request.context.approval))}")
    print(paint(said, "1;33", sys.stderr), file=sys.stderr, flush=True)


def _sorted_out(flag: str, given: Sequence[str], declared: Sequence[tuple[str, set[str]]]) -> dict[str, list[str]]:
    """Return for each component the `NAME=VALUE` whose names it declares; raises UsageError for one that none has."""
    for text in given:
        name, equals, _ = text.partition("=")
        if not equals or not name:
            raise UsageError(f"{flag} {visible(text)}: expected {'NAME=FILE' if flag == '--secret' else 'NAME=VALUE'}")
        if not any(name in names for _, names in declared):
            raise UsageError(f"{flag} {visible(name)}: none of these components asks for it")
    return {component: [text for text in given if text.partition("=")[0] in names] for component, names in declared}


def _run_arguments(
    args: argparse.Namespace, directory: str, parameters: list[str], secrets: list[str]
) -> argparse.Namespace:
    """Return what `airssys run DIRECTORY` would have been given."""
    return argparse.Namespace(
        command=args.command,
        target=directory,
        grant=args.grant,
        set=parameters,
        secret=secrets,
        env=[],
        read=[],
        write=[],
        list=[],
        dir=[],
        dev=args.dev,
        ask=False,
        write_manifest=None,
        guest_arguments=(),
        quiet=args.quiet,
        memory=None,
        storage=None,
        timeout=None,
        output=None,
        fuel=None,
        cpu_time=None,
    )


def _plan(component: GrantedComponent, artifact: Artifact | None = None) -> Plan:
    """Return what is to be kept up, as far as that is known without its code; raises ConfigError for what can't be."""
    request, manifest = component.request, component.bound.manifest
    actor = None
    if artifact is not None:
        if any(name.startswith(_ACTOR_EXPORT) for name in artifact.record.exports):
            actor = _actor_plan(component)
            request = _actor_request(request, component, actor.bounds.max_payload_bytes)
        elif wanted := only_brokered(manifest):
            raise ConfigError(
                f"{manifest.file}: {', '.join(wanted)}: it is a command, and only an actor speaks to the broker",
                hint="remove it, or build the component for the world airssys:core/actor",
            )
    return Plan(request, artifact, manifest.directory, manifest.component.description, actor)


def _actor_request(request: RunRequest, component: GrantedComponent, payload_bytes: int) -> RunRequest:
    """Return the request of an actor: its timeout is that of one call, and its output is paced, not summed up."""
    stated = component.bound.manifest.limits.output_bytes
    limits = replace(
        request.limits,
        timeout_ns=None,
        output_bytes=UNLIMITED if stated is None else stated,
        payload_bytes=payload_bytes,
    )
    return replace(request, kind=ACTOR, limits=limits)


def _actor_plan(component: GrantedComponent) -> ActorPlan:
    """Return what an actor is given besides; raises ConfigError for a payload that nothing carries."""
    manifest, quota = component.bound.manifest, component.quota.limits()
    payload_bytes = manifest.limits.max_payload_bytes
    if payload_bytes is not None and payload_bytes > MAX_PAYLOAD_BYTES:
        raise ConfigError(
            f"{manifest.file}: limits.max_payload: expected at most {format_size(MAX_PAYLOAD_BYTES)}, "
            f"found {format_size(payload_bytes)}"
        )
    shared = tuple(SharedStorage(each.name, each.limit_bytes) for each in component.shared_storage)
    bounds = Bounds(storage_bytes=quota.storage, messages_per_s=quota.message_rate, shared_storage=shared)
    if payload_bytes is not None:
        bounds = replace(bounds, max_payload_bytes=payload_bytes)
    timeout_ns = manifest.limits.timeout_ns
    # What only the host knows, by name: the actor reads it as JSON.
    config = json.dumps(dict(component.bound.parameters), ensure_ascii=False, sort_keys=True).encode()
    return ActorPlan(bounds, config, CALL_TIMEOUT_NS if timeout_ns is None else timeout_ns)
