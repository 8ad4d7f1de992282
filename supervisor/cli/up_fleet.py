"""`airssys up` behind its flags: grants, compiled code, the fleet, its control socket, and the turns until the end."""

from __future__ import annotations

import argparse
import contextlib
import os
import stat
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from ipc.audit.event import AuditEvent
from ipc.errors import AuditError, ConfigError
from ipc.struct import replace
from supervisor.approvals.machine import State
from supervisor.approvals.store import ApprovalStore
from supervisor.cli.run_component import tell_not_granted
from supervisor.cli.run_setup import host_options, read_settings
from supervisor.cli.up_plans import Planned, Planner, compile_limits, make_plan
from supervisor.cli.up_view import Lines, LiveTable, new_view
from supervisor.config import places
from supervisor.config.settings import Settings
from supervisor.control.client import DIRECTORY
from supervisor.control.desk import FleetDesk
from supervisor.control.roles import Roles, read_roles
from supervisor.control.serving import SOCKET_NAME, Control, bind_control_socket
from supervisor.control.version_desk import VersionDesk
from supervisor.fleet.broker import FleetBroker
from supervisor.fleet.change_overs import KEY as CHANGES_KEY
from supervisor.fleet.change_overs import ChangeOvers
from supervisor.fleet.compiling import KEY as COMPILING_KEY
from supervisor.fleet.compiling import Compilations
from supervisor.fleet.fleet import Fleet
from supervisor.fleet.lifecycle import Phase
from supervisor.fleet.member import Plan
from supervisor.fleet.output_log import make_log_directory
from supervisor.fleet.provider_check import provider_problems
from supervisor.fleet.provider_settings import ProviderSettings
from supervisor.fleet.providers import FleetProviders
from supervisor.fleet.state_lock import only_one
from supervisor.host.host import Host, open_host
from supervisor.host.identity import actor
from supervisor.host.processes import Processes
from supervisor.terminal import visible

if TYPE_CHECKING:
    from supervisor.approvals.desk import ApprovalDesk

_APPROVALS_WAIT_S: Final = 0.2
"""How long the loop waits for somebody who has the approvals open."""


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
        planner = Planner(args, host, settings, installed_in)
        planned = planner.plan_all(stack)
        if planned is None:
            return tell_not_granted(args)
        logs = make_log_directory(os.path.join(options.state_directory, "logs"))
        plans = [make_plan(each.granted) for each in planned]
        providers = _providers(settings, plans, view)
        fleet = Fleet(host, plans, logs, view)
        stack.callback(fleet.close)
        changes = _change_overs(fleet, planned, planner, host, view, lambda: desk.open_approvals())  # noqa: PLW0108 # there is none yet
        stack.callback(changes.close)
        versions = VersionDesk(changes, installed_in)
        desk = FleetDesk(fleet, logs, versions, lambda: _approvals(host, settings, roles, fleet, changes, stack))
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
            compiled = _compile(args, host, fleet, view, planned, stack)
            if compiled:
                if providers:
                    fleet.providers = FleetProviders(host, fleet.loop, providers, logs, view.warn)
                    stack.callback(fleet.providers.close)
                _start_broker(host, fleet, desk, stack)
                _watch_versions(fleet, changes, planned, planner)
                _turns(args, fleet, view, desk, changes)
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


def _approvals(
    host: Host, settings: Settings, roles: Roles, fleet: Fleet, changes: ChangeOvers, stack: contextlib.ExitStack
) -> ApprovalDesk:
    """Return what answers for approvals, and looks after those who run by them; most supervisors have none."""
    from supervisor.approvals.desk import ApprovalDesk
    from supervisor.approvals.service import ApprovalService
    from supervisor.approvals.settling import RunsWatch
    from supervisor.fleet.approvals import KEY, FleetApprovals

    options = host.options
    store = ApprovalStore(options.state_directory, options.audit_directory, host.record, wait_s=_APPROVALS_WAIT_S)
    runs = RunsWatch(store.directory, options.audit_directory, lambda: fleet.loop.touch(KEY))
    stack.callback(runs.close)
    watch = FleetApprovals(fleet, store, runs, changes.replan_when_ended)
    fleet.loop.add(KEY, watch)
    return ApprovalDesk(ApprovalService(store, settings, roles, watch.look, tells=False), watch)


def _compile(
    args: argparse.Namespace,
    host: Host,
    fleet: Fleet,
    view: Lines | LiveTable,
    planned: Sequence[Planned],
    stack: contextlib.ExitStack,
) -> bool:
    """Compile what isn't yet, and make whole plans of it; False where that was ended before all were compiled."""
    members = tuple(fleet.members.values())
    compilations = Compilations(host, members, compile_limits(args), fleet.happen, view.compiles_long)
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
    for each in planned:
        member = fleet.members[each.name]
        # Its request may ask for less by now: its approval may have been narrowed meanwhile.
        current = replace(each.granted, request=member.plan.request)
        member.plan = make_plan(current, compilations.artifacts[member.name])
        member.let_go = each.held.close
    return True


def _change_overs(
    fleet: Fleet,
    planned: Sequence[Planned],
    planner: Planner,
    host: Host,
    view: Lines | LiveTable,
    open_approvals: Callable[[], None],
) -> ChangeOvers:
    options = host.options
    store = ApprovalStore(options.state_directory, options.audit_directory, host.record, wait_s=_APPROVALS_WAIT_S)

    def state_of(subject: str) -> tuple[int, State] | None:
        try:
            with store.open() as ledger:
                found = ledger.of_subject(subject)
                return None if found is None else (found.number, ledger.settled(found).state)
        except (ConfigError, AuditError):  # somebody else has them open, say: it is looked at again
            return None

    def still_holds(plan: Plan) -> bool:
        reliance = plan.request.reliance
        if reliance is None:
            return True
        from supervisor.approvals.losing import loss_of, standing_of
        from supervisor.fleet.approvals import KEY

        open_approvals()
        # There was perhaps nobody whose time it had to know.
        fleet.loop.touch(KEY)
        try:
            with store.open() as ledger:
                standing = standing_of(ledger.request(reliance.number), ledger.request, ledger.now_s)
                return loss_of(reliance.number, reliance.granted, standing) is None
        except (ConfigError, AuditError):  # what isn't known now is found out where there is time for it
            return False

    targets = {each.name: each.name for each in planned if each.target.installed is not None}
    return ChangeOvers(fleet, targets, planner, planner.last_healthy, state_of, view, still_holds)


def _watch_versions(fleet: Fleet, changes: ChangeOvers, planned: Sequence[Planned], planner: Planner) -> None:
    fleet.loop.add(CHANGES_KEY, changes)
    for each in planned:
        failed, meant = None, each.meant
        if meant is not None:
            failed = planner.last_healthy.read(each.name).failure(meant.digest)
        changes.begin(each.name, failed, awaits=meant is not None)


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


def _turns(
    args: argparse.Namespace, fleet: Fleet, view: Lines | LiveTable, desk: FleetDesk, changes: ChangeOvers
) -> None:
    view.begin(fleet)
    fleet.start()
    rested = False
    while not (fleet.at_rest and (fleet.stopping or args.until_done)):
        fleet.turn(view.next_ns())
        view.turn(fleet)
        desk.turn()
        if fleet.stopping:
            changes.stop()
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
