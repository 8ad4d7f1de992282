"""From the arguments of `airssys run` to a request: settings, limits, and the flags of a bare program.

A component directory takes more (`supervisor.cli.run_component`), which a bare program needn't import.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ipc.errors import ConfigError
from ipc.messages import EngineSettings, WorkerLimits
from ipc.policy.capability import Grant
from ipc.policy.document import PolicyDocument
from ipc.policy.quotas import QuotaLimits
from ipc.policy.storage import largest_file_bytes
from ipc.security_context import context_of
from ipc.struct import replace
from supervisor.config import places, units
from supervisor.config.host_policy import host_paths
from supervisor.config.settings import LAYERS, ComponentSettings, Settings, settings_not_enforced
from supervisor.config.settings_files import load_settings
from supervisor.grants.broad import is_broad_allowed, is_too_broad_grant
from supervisor.grants.dev_grants import dev_grants, hidden_denials
from supervisor.host.host import Host, HostOptions
from supervisor.host.identity import resolve_run_as
from supervisor.host.mounts import read_mounts, under_all_names
from supervisor.host.surroundings import home_directories, program_directories
from supervisor.run.governor import LEAST_NS
from supervisor.run.request import (
    DEFAULT_OUTPUT_BYTES,
    FILE_SIZE_BYTES_MAX,
    RunRequest,
    bare_name,
    environment_pairs,
    flag_grants,
    flag_mount,
    merge_mounts,
    named_top_directories,
)
from supervisor.terminal import visible
from supervisor.usage_error import UsageError

if TYPE_CHECKING:
    from supervisor.grants.dev_mode import DevMode
    from supervisor.manifest import Manifest


_OF_NAMESPACES = ("namespaces", "pid_namespace")
"""The layers that `--no-namespaces` does without."""


def host_options(args: argparse.Namespace, settings: Settings, targets: Sequence[str] = ()) -> HostOptions:
    """Return where things are kept and how strictly to confine, from flags over settings over defaults.

    `targets` are what is to be started: the settings may say as whom.
    """
    run_as = args.run_as
    if settings.components:
        from supervisor.cli.start_rules import run_as_of

        run_as = run_as_of(args, settings, targets)
    own_uid = os.getuid()
    state = places.state_directory(args.state_dir, os.environ, settings)
    own_state = state != os.path.realpath(settings.directories.state)
    required = settings.required_layers
    if args.require is not None:
        required = tuple(layer for layer in args.require.split(",") if layer)
    for flag, layers in (("--require", required), ("--layer-off", args.layer_off)):
        unknown = [layer for layer in layers if layer not in LAYERS]
        if unknown:  # a layer that is mistyped would be required by nobody
            raise UsageError(f"{flag} {visible(unknown[0])}: no such layer", hint=f"layers are {', '.join(LAYERS)}")
    clash = [layer for layer in args.layer_off if layer in required]
    if clash:
        raise ConfigError(
            f"--layer-off {clash[0]}: that layer is required",
            hint=f"to test without it: --require {','.join(r for r in required if r not in args.layer_off)}",
        )
    needing = [layer for layer in _OF_NAMESPACES if layer in required]
    if args.no_namespaces and needing:
        raise ConfigError(
            f"--no-namespaces: the layer {needing[0]} is required",
            hint=f"leave out one of the two: --no-namespaces, or {needing[0]} in --require or [confinement] require",
        )
    return HostOptions(
        state_directory=state,
        # Root's is one for the whole machine: worker uids are handed out there, and the warden's uid must reach it.
        run_directory=os.path.join(state, "run") if own_state and own_uid != 0 else settings.directories.run,
        data_directory=places.data_directory(state, settings),
        audit_directory=places.audit_directory(state, settings),
        retention=settings.audit,
        audit_budget=settings.audit_budget,
        run_as=resolve_run_as(run_as, own_uid, os.environ),
        required_layers=required,
        layers_off=tuple(args.layer_off),
        namespaces=not args.no_namespaces,
    )


def read_settings(args: argparse.Namespace) -> Settings:
    """Load airssys.toml and refuse what it says that this version doesn't enforce."""
    settings = load_settings(args.config, os.environ, os.getuid())
    unsupported = settings_not_enforced(settings)
    if unsupported:
        raise ConfigError(f"airssys.toml: not enforced by this version: {', '.join(unsupported)}", hint="remove it")
    return settings


def worker_limits(
    args: argparse.Namespace, memory_bytes: int, storage_bytes: int, manifest: Manifest | None
) -> WorkerLimits:
    """Return the limits from flags over the manifest over defaults."""
    own = manifest.limits if manifest is not None else None
    timeout_ns = args.timeout if args.timeout is not None else own.timeout_ns if own else None
    output_bytes = args.output if args.output is not None else own.output_bytes if own else None
    fuel = args.fuel if args.fuel is not None else own.fuel if own else None
    cpu_s = None
    if args.cpu_time is not None:
        # RLIMIT_CPU counts whole seconds (setrlimit(2)).
        cpu_s = max(1, -(-args.cpu_time // 10**9))
    return WorkerLimits(
        memory_bytes=memory_bytes,
        output_bytes=DEFAULT_OUTPUT_BYTES if output_bytes is None else output_bytes,
        timeout_ns=timeout_ns,
        fuel=fuel,
        cpu_s=cpu_s,
        file_size_bytes=min(FILE_SIZE_BYTES_MAX, largest_file_bytes(storage_bytes)),
        storage_bytes=None if storage_bytes == units.UNLIMITED else storage_bytes,
    )


def memory_bytes(args: argparse.Namespace, settings: Settings, decided: int | None) -> int:
    """Return the memory limit, checked against what the host allows; `decided` is the manifest's, as granted."""
    asked = args.memory if args.memory is not None else decided
    maximum = settings.quota_maxima.memory_bytes
    if asked is None:
        asked = settings.quota_defaults.memory_bytes or 256 * 10**6
    if maximum is not None and asked > maximum:
        raise ConfigError(
            f"memory {units.format_size(asked)}: the host allows at most {units.format_size(maximum)}",
            hint="[quota.maxima] memory in airssys.toml",
        )
    if asked < 1 << 20:
        raise ConfigError(f"memory {units.format_size(asked)}: a WebAssembly runtime needs at least 1MiB")
    return asked


def cpu_time_ns_per_s(settings: Settings, decided: int | None) -> int:
    """Return the CPU time a second of a bare program; `decided` is what the host says of it.

    Raises ConfigError for so little that it couldn't even start.
    """
    asked = settings.quota_defaults.cpu_time_ns_per_s or 0 if decided is None else decided
    maximum = settings.quota_maxima.cpu_time_ns_per_s
    if maximum is not None and asked > maximum:
        raise ConfigError(
            f"cpu_time {units.format_cpu(asked)}: the host allows at most {units.format_cpu(maximum)}",
            hint="[quota.maxima] cpu_time in airssys.toml",
        )
    if asked < LEAST_NS:
        raise ConfigError(
            f"cpu_time {units.format_cpu(asked)}: a component needs at least {units.format_cpu(LEAST_NS)} to answer",
            hint="raise cpu_time in airssys.toml",
        )
    return asked


def quota_limits(quota: QuotaLimits, limits: WorkerLimits) -> QuotaLimits:
    """Return a component's quotas with what flags have decided in `limits`."""
    return replace(quota, memory=limits.memory_bytes, storage=limits.storage_bytes)


def storage_bytes(args: argparse.Namespace, settings: Settings, decided: int | None) -> int:
    """Return the storage quota, `units.UNLIMITED` only where the host allows it; `decided` is the manifest's."""
    choices = (args.storage, decided, settings.quota_defaults.storage_bytes, 0)
    asked: int = next(amount for amount in choices if amount is not None)
    maximum = settings.quota_maxima.storage_bytes
    if maximum is not None and asked > maximum:
        raise ConfigError(
            f"storage {units.format_size(asked)}: the host allows at most {units.format_size(maximum)}",
            hint="[quota.maxima] storage in airssys.toml",
        )
    return asked


def _names_in(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError as error:
        raise ConfigError(
            f"the working directory {visible(directory)} can't be read: {os.strerror(error.errno or 0)}",
            hint="go to one that can: cd DIR",
        ) from None


def bare_request(args: argparse.Namespace, host: Host, settings: Settings) -> RunRequest:
    """Return the request of a bare program: the flags are the grant."""
    for flag in ("grant", "set"):
        if getattr(args, flag):
            raise ConfigError(f"--{flag} is for a component directory; for a bare program the flags are the grant")
    cwd = os.getcwd()
    name = bare_name(args.target)
    grants = flag_grants(args.read, args.write, args.list, cwd)
    own = settings.component(name)
    refuse_broad(grants, own)
    homes = home_directories()
    mode = None
    if settings.components or args.dev:
        from supervisor.cli.start_rules import bare_mode

        mode = bare_mode(args, host, settings)
    dev = dev_directories(mode, os.path.dirname(args.target) or ".", host.tmp_directory)
    grants += dev_grants(dev, homes)
    document = PolicyDocument(
        component=name,
        instance="",
        grants=grants,
        acl=(*settings.acl_in_force, *hidden_denials(name, dev)),
        roles=settings.roles,
        assigned_roles=own.roles,
        host_paths=(*host_paths(settings), *host.own_paths()),
        guarded_lifted=own.lift_guarded,
        path_directories=program_directories(settings, host.options.state_directory),
        home_directories=homes,
    )
    document = under_all_names(document, read_mounts())
    if args.ask or args.dev or args.write_manifest:
        by_name = _top_directories()
    else:
        by_name = named_top_directories((*args.guest_arguments, *args.env))
    storage = storage_bytes(args, settings, own.quota.storage_bytes)
    limits = worker_limits(args, memory_bytes(args, settings, None), storage, None)
    cpu_time = cpu_time_ns_per_s(settings, own.quota.cpu_time_ns_per_s)
    return RunRequest(
        context=context_of(document, "flags" if mode is None else mode.by, "unknown" if mode is None else "dev"),
        wasm_path=args.target,
        arguments=(visible(os.path.basename(args.target)), *args.guest_arguments),
        environment=environment_pairs(args.env, args.secret, dict(os.environ)),
        mounts=merge_mounts(tuple(flag_mount(text, cwd) for text in args.dir), grants, cwd, _names_in(cwd), by_name),
        document=document,
        limits=limits,
        quota=quota_limits(QuotaLimits(cpu_time=None if cpu_time == units.UNLIMITED else cpu_time), limits),
        engine=EngineSettings(fuel=args.fuel is not None),
        ask=args.ask,
        learn=args.write_manifest is not None,
    )


def _top_directories() -> tuple[str, ...]:
    return tuple(f"/{entry.name}" for entry in sorted(os.scandir("/"), key=lambda entry: entry.name) if entry.is_dir())


def dev_directories(mode: DevMode | None, component: str, tmp: str) -> tuple[str, ...]:
    """Return where dev mode allows everything: the component's own directory, `${tmp}`, and maybe where one stands."""
    if mode is None:
        return ()
    return tuple(os.path.realpath(path) for path in (component, *([os.getcwd()] if mode.here else []), tmp))


def refuse_broad(grants: tuple[Grant, ...], own: ComponentSettings) -> None:
    """Refuse a grant that names nothing in particular, unless the host allows it by name."""
    for grant in grants:
        if is_too_broad_grant(grant) and not is_broad_allowed(grant, own):
            raise ConfigError(
                f"{grant.action} {grant.pattern_text!r} ({grant.source}) is too broad: it names nothing in particular",
                hint=f'a host can allow it: [components."{own.name}"] allow_broad = '
                f'["{grant.action}:{grant.pattern_text}"] in airssys.toml',
            )
