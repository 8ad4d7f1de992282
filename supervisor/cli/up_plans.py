"""What `airssys up` keeps up: each target found, granted what it asks, and made into a plan; at the start, and anew.

At the start a person may be asked. Later, when a name means another version, nobody is: what nobody granted waits.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from ipc.broker.events import Bounds, SharedStorage
from ipc.broker.messages import MAX_PAYLOAD_BYTES
from ipc.errors import ConfigError
from ipc.struct import Struct, replace
from supervisor.approvals.errors import AwaitingApprovalError, NobodyGrantedError, several
from supervisor.cli.confirm import on_terminal
from supervisor.cli.run_component import GrantedComponent, granted_component
from supervisor.cli.start import Start
from supervisor.cli.targets import Target, open_installed, open_registry
from supervisor.code.compilation import Artifact, CompileLimits
from supervisor.config.settings import Settings
from supervisor.config.units import UNLIMITED, format_size
from supervisor.fleet.last_healthy import LastHealthy, LastHealthyFiles
from supervisor.fleet.member import ACTOR, ActorPlan, Plan
from supervisor.fleet.preparing import Prepared
from supervisor.host.component_directories import make_data_directory
from supervisor.host.host import Host
from supervisor.host.session_directories import remove
from supervisor.manifest import Manifest, load_manifest, only_brokered
from supervisor.packages.installed import Installed, parse_name
from supervisor.packages.target import is_path
from supervisor.report import paint
from supervisor.run.request import RunRequest, require_text
from supervisor.run.running import compile_request, open_program
from supervisor.terminal import visible
from supervisor.usage_error import UsageError

_ACTOR_EXPORT: Final = "airssys:core/component-lifecycle@"
"""What makes a component an actor: it exports this interface, in whichever version."""
CALL_TIMEOUT_NS: Final = 30 * 10**9
"""How long one call of an actor may take whose manifest says nothing."""


class Planned(Struct):
    """A component that is granted what it asks, and held: nobody removes its package meanwhile."""

    granted: GrantedComponent
    target: Target
    held: contextlib.ExitStack
    meant: Installed | None = None
    """What its name means, where that isn't started now: it has failed before, or awaits approval."""

    @property
    def name(self) -> str:
        """The component's name."""
        return self.granted.request.component


class Planner:
    """Plans the components of one `airssys up`, from its command line."""

    def __init__(self, args: argparse.Namespace, host: Host, settings: Settings, installed_in: str) -> None:
        """Find what is installed in the state directory `installed_in`."""
        self._args = args
        self._host = host
        self._settings = settings
        self._installed_in = installed_in
        self._numbers = itertools.count(1)
        self.last_healthy = LastHealthyFiles(host.options.state_directory)

    # -- at the start --------------------------------------------------------------------------------------------------

    def plan_all(self, holding: contextlib.ExitStack) -> list[Planned] | None:
        """Have each component granted what it asks; None where one wasn't: then nothing is started."""
        args = self._args
        found = [self._open_first(target, holding) for target in args.targets]
        manifests = [load_manifest(target.path) for target, _, _ in found]
        seen: dict[str, str] = {}
        for manifest, text in zip(manifests, args.targets, strict=True):
            name = manifest.component.name
            if name in seen:
                raise ConfigError(
                    f"{visible(seen[name])} and {visible(text)} are both called {name}: a name is an address",
                    hint="give one of them another name in its Component.toml",
                )
            seen[name] = text
        if args.grant not in (None, "asked") and len(manifests) > 1:
            raise UsageError("--grant FILE is for one component", hint="grant what each asks with --grant asked")
        own = _sorted_out("--set", args.set, [(m.component.name, _parameters(m)) for m in manifests])
        secrets = _sorted_out("--secret", args.secret, [(m.component.name, _secrets(m)) for m in manifests])
        planned: list[Planned] = []
        waiting: list[AwaitingApprovalError] = []
        for manifest, (target, held, meant) in zip(manifests, found, strict=True):
            name = manifest.component.name
            of_one = _run_arguments(args, target.path, own[name], secrets[name])
            meant_instead = meant
            standing = self.last_healthy.read(name).failed_packages
            try:
                one = self._plan(of_one, target, held, Start(supervised=True, standing=standing))
            except AwaitingApprovalError as error:  # the others are asked for, too
                instead = self._instead_of(of_one, name, target, holding)
                if instead is None:
                    waiting.append(error)
                    continue
                one, meant_instead = instead
            if one is None:
                instead = None if on_terminal() else self._instead_of(of_one, name, target, holding)
                one, meant_instead = (None, None) if instead is None else instead
            if one is None:
                return None
            one.meant = meant_instead
            if one.granted.request.context.trust == "dev":
                _tell_dev_mode(one.granted.request)
            planned.append(one)
        if waiting:
            raise several(waiting)
        return planned

    def _open_first(
        self, text: str, holding: contextlib.ExitStack
    ) -> tuple[Target, contextlib.ExitStack, Installed | None]:
        """Return a directory, or what is installed: where what a name means has failed before, what was healthy last.

        The third is what the name means in that case.
        """
        target, held = self._open(text, holding)
        if target.installed is None:
            return target, held, None
        meant = target.installed.installed
        known = self.last_healthy.read(meant.name)
        instead = "" if known.failure(meant.digest) is None else self._healthy_instead(known, meant)
        if not instead:
            return target, held, None
        held.close()
        return *self._open(text, holding, instead), meant

    def _healthy_instead(self, known: LastHealthy, meant: Installed) -> str:
        with open_registry(self._installed_in, meant.called) as registry:
            installed = [each.digest for each in registry.named(meant.name) if each.called == meant.called]
        return known.instead_of(meant.digest, installed)

    def _instead_of(
        self, of_one: argparse.Namespace, name: str, target: Target, holding: contextlib.ExitStack
    ) -> tuple[Planned | None, Installed] | None:
        """Return what was healthy last, where what the name means awaits approval; None where nothing was."""
        if target.installed is None:
            return None
        meant, known = target.installed.installed, self.last_healthy.read(name)
        instead = self._healthy_instead(known, meant)
        if not instead:
            return None
        target, held = self._open(name, holding, instead)
        of_one.target = target.path
        start = Start(supervised=True, standing=known.failed_packages)
        return self._plan(of_one, target, held, start), meant

    # -- anew ----------------------------------------------------------------------------------------------------------

    def meant(self, target: str, digest: str) -> tuple[str, str] | None:
        """Return which version and package a name means now, or `digest` is; None for a directory.

        Raises ConfigError where that isn't installed.
        """
        if is_path(target):
            return None
        called = parse_name(target)
        with open_registry(self._installed_in, called) as registry:
            installed = registry.active(called)
            if digest:
                named = registry.named(called.name)
                installed = next((each for each in named if each.called == called and each.digest == digest), None)
        if installed is None:
            raise ConfigError(f"{called.text} is not installed any more", hint="what is: airssys list")
        return installed.version, installed.digest

    def prepare(
        self,
        target: str,
        digest: str,
        grant_asked: bool,
        granted: Callable[[], None],
        interrupted: Callable[[], bool],
    ) -> Prepared:
        """Have what a target is now, or what is installed as `digest`, granted what it asks, and compile it.

        Nobody is asked on the terminal. `grant_asked`: somebody who may has granted it to these bytes. Raises
        AwaitingApprovalError, or ConfigError.
        """
        with contextlib.ExitStack() as own, _granting_is_named(target):
            planned = self._plan_anew(target, digest, grant_asked, own, interrupted)
            granted()
            request = planned.granted.request
            with contextlib.closing(open_program(request)) as program:
                limits = compile_limits(self._args)
                artifact = compile_request(self._host, request, program, limits, lambda _: None, interrupted)
            planned.held.callback(os.close, artifact.descriptor)
            plan = make_plan(planned.granted, artifact)
            own.pop_all()
        return Prepared(plan, planned.held.close)

    def _plan_anew(
        self, text: str, digest: str, grant_asked: bool, own: contextlib.ExitStack, interrupted: Callable[[], bool]
    ) -> Planned:
        target, held = self._open(text, own, digest)
        args, manifest = self._args, load_manifest(target.path)
        parameters = [each for each in args.set if each.partition("=")[0] in _parameters(manifest)]
        secrets = [each for each in args.secret if each.partition("=")[0] in _secrets(manifest)]
        of_one = _run_arguments(args, target.path, parameters, secrets)
        # What was said on the command line was said of what was there then.
        of_one.grant, of_one.quiet = "asked" if grant_asked else None, True
        standing = self.last_healthy.read(manifest.component.name).failed_packages
        start = Start(supervised=True, asks=False, standing=standing, interrupted=interrupted)
        planned = self._plan(of_one, target, held, start)
        if planned is None:
            raise NobodyGrantedError("nobody granted what it asks for")
        return planned

    def _plan(
        self, of_one: argparse.Namespace, target: Target, held: contextlib.ExitStack, start: Start
    ) -> Planned | None:
        host = self._host
        # Each plan's own: the version before it may still run.
        tmp = make_data_directory(os.path.join(host.tmp_directory, str(next(self._numbers))), host.options.run_as)
        held.callback(remove, tmp)
        granted = granted_component(of_one, host, self._settings, tmp, True, target.installed, start)
        if granted is None:
            return None
        require_text(granted.request)
        return Planned(granted, target, held)

    def _open(self, text: str, holding: contextlib.ExitStack, digest: str = "") -> tuple[Target, contextlib.ExitStack]:
        """Return a directory, or what is installed, with what holds it; that goes with `holding` at the latest."""
        held = holding.enter_context(contextlib.ExitStack())
        if is_path(text):
            return Target(text), held
        opened = open_installed(text, self._installed_in, unread_program=True, digest=digest)
        installed = held.enter_context(opened)
        if installed.installed.instance:
            raise ConfigError(
                f"{visible(text)}: instances are for `airssys run`; here a name is an address, and has one",
                hint=f"install it without: airssys install SOURCE, then airssys up {installed.installed.name}",
            )
        return Target(installed.package.directory, installed), held


@contextlib.contextmanager
def _granting_is_named(target: str) -> Iterator[None]:
    """Say how what nobody granted, and nobody is asked about, can be granted all the same."""
    try:
        yield
    except NobodyGrantedError as error:
        error.hint = f"grant it: airssys upgrade {visible(target)} --grant asked"
        raise


def compile_limits(args: argparse.Namespace) -> CompileLimits:
    """Return what compiling each may use."""
    return CompileLimits(timeout_s=args.compile_timeout / 1e9, memory_bytes=args.compile_memory)


def _parameters(manifest: Manifest) -> set[str]:
    return {parameter.name for parameter in manifest.parameters}


def _secrets(manifest: Manifest) -> set[str]:
    return {r.resource for c in (manifest.capabilities, manifest.optional) for r in c.secrets.env}


def _tell_dev_mode(request: RunRequest) -> None:
    from supervisor.grants.dev_mode import DevMode, banner

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


def make_plan(component: GrantedComponent, artifact: Artifact | None = None) -> Plan:
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
