"""From the arguments of `airssys run` to a request: settings, manifest, the question, the grant."""

from __future__ import annotations

import argparse
import os
import sys

from ipc.errors import ConfigError
from ipc.messages import EngineSettings, WorkerLimits
from ipc.policy.capability import Grant
from ipc.policy.document import PolicyDocument
from supervisor import units
from supervisor.analysis import describe_asks, is_broad_allowed, is_too_broad_grant
from supervisor.compilation import Program
from supervisor.grant_store import GrantStore, request_key
from supervisor.host import Host, HostOptions
from supervisor.host_policy import (
    component_parameters,
    data_directory,
    host_paths,
    policy_document,
    resolve_quota,
)
from supervisor.identity import resolve_run_as
from supervisor.manifest import (
    BoundManifest,
    Manifest,
    ParameterValue,
    Variables,
    bind,
    load_manifest,
    not_enforced,
)
from supervisor.manifest.parse import ManifestErrors
from supervisor.run_request import (
    DEFAULT_OUTPUT_BYTES,
    RunRequest,
    bare_name,
    environment_pairs,
    flag_grants,
    flag_mount,
    merge_mounts,
    read_secret,
    split_assignment,
)
from supervisor.settings import ComponentSettings, Settings, load_settings, settings_not_enforced
from supervisor.terminal import visible


def host_options(args: argparse.Namespace, settings: Settings) -> HostOptions:
    """Return where things are kept and how strictly to confine, from flags over settings over defaults."""
    own_uid = os.getuid()
    state = args.state_dir or os.environ.get("AIRSSYS_STATE") or settings.directories.state
    state = os.path.realpath(state)
    own_state = state != os.path.realpath(settings.directories.state)
    required = settings.required_layers
    if args.require is not None:
        required = tuple(layer for layer in args.require.split(",") if layer)
    clash = [layer for layer in args.layer_off if layer in required]
    if clash:
        raise ConfigError(
            f"--layer-off {clash[0]}: that layer is required",
            hint=f"to test without it: --require {','.join(r for r in required if r not in args.layer_off)}",
        )
    return HostOptions(
        state_directory=state,
        # Root's is one for the whole machine: worker uids are handed out there, and the warden's uid must reach it.
        run_directory=os.path.join(state, "run") if own_state and own_uid != 0 else settings.directories.run,
        data_directory=os.path.join(os.path.dirname(state), os.path.basename(state) + "-data")
        if own_state
        else settings.directories.data,
        audit_directory=os.path.join(state, "audit") if own_state else os.path.join(settings.directories.log, "audit"),
        run_as=resolve_run_as(args.run_as, own_uid, os.environ),
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


def _limits(args: argparse.Namespace, memory_bytes: int, manifest: Manifest | None) -> WorkerLimits:
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
    )


def _memory_bytes(args: argparse.Namespace, settings: Settings, decided: int | None) -> int:
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


def bare_request(args: argparse.Namespace, host: Host, settings: Settings) -> RunRequest:
    """Return the request of a bare program: the flags are the grant."""
    for flag in ("grant", "set"):
        if getattr(args, flag):
            raise ConfigError(f"--{flag} is for a component directory; for a bare program the flags are the grant")
    cwd = os.getcwd()
    name = bare_name(args.target)
    grants = flag_grants(args.read, args.write, args.list, cwd)
    own = settings.component(name)
    _refuse_broad(grants, own)
    document = PolicyDocument(
        component=name,
        instance="",
        grants=grants,
        acl=settings.acl,
        roles=settings.roles,
        assigned_roles=own.roles,
        host_paths=(*host_paths(settings), *host.own_paths()),
        guarded_lifted=own.lift_guarded,
        path_directories=_path_directories(),
        home_directories=_home_directories(host),
    )
    return RunRequest(
        component=name,
        version="",
        trust="unknown",
        wasm_path=args.target,
        arguments=(os.path.basename(args.target), *args.guest_arguments),
        environment=environment_pairs(args.env, args.secret, dict(os.environ)),
        mounts=merge_mounts(tuple(flag_mount(text, cwd) for text in args.dir), grants, cwd, os.listdir(cwd)),
        document=document,
        limits=_limits(args, _memory_bytes(args, settings, None), None),
        engine=EngineSettings(fuel=args.fuel is not None),
        approval="flags",
    )


def component_request(args: argparse.Namespace, host: Host, settings: Settings) -> RunRequest | None:
    """Return the request of a component directory, or None when the person said no or nobody could be asked."""
    for flag in ("read", "write", "list", "dir"):
        if getattr(args, flag):
            raise ConfigError(
                f"--{flag} is for a bare program; a component directory says what it needs in Component.toml",
                hint="grant less with --grant FILE",
            )
    manifest = load_manifest(args.target)
    unsupported = not_enforced(manifest)
    if unsupported:
        raise ConfigError(f"{manifest.file}: not enforced by this version: {', '.join(unsupported)}", hint="remove it")
    name = manifest.component.name
    own = settings.component(name)
    parameters = component_parameters(manifest, settings, _given_parameters(args.set))
    data = _owned_directory(host, data_directory_of(host, settings, name))
    variables = Variables(component=os.path.realpath(manifest.directory), data=data, tmp=host.tmp_directory)
    bound = bind(manifest, parameters, variables, cwd=os.getcwd(), real_path=os.path.realpath)
    resolution = resolve_quota(manifest, settings)
    if resolution.refusals:
        raise ManifestErrors(resolution.refusals)
    decision = decide_grants(args, host, bound, parameters)
    if decision is None:
        return None
    granted, approval = decision
    _refuse_broad(granted, own)
    document = policy_document(
        bound,
        settings,
        granted=granted,
        more_host_paths=host.own_paths(),
        path_directories=_path_directories(),
        home_directories=_home_directories(host),
    )
    limits = _limits(args, _memory_bytes(args, settings, resolution.quota.memory_bytes), manifest)
    arguments = args.guest_arguments or bound.args
    mounts = tuple((mount.guest, mount.host) for mount in bound.mounts)
    return RunRequest(
        component=name,
        version=manifest.component.version,
        trust="unknown",
        wasm_path=manifest.wasm_path,
        arguments=(os.path.basename(manifest.component.wasm), *arguments),
        environment=(*bound.env, *environment_pairs(args.env, [], dict(os.environ)), *_secrets(args, bound, own)),
        mounts=merge_mounts(mounts, granted, None),
        document=document,
        limits=limits,
        engine=EngineSettings(fuel=limits.fuel is not None),
        approval=approval,
    )


def data_directory_of(host: Host, settings: Settings, name: str) -> str:
    """Return `${data}` of a component on this host."""
    default = data_directory(settings, name)
    return os.path.join(host.options.data_directory, os.path.basename(default))


def _owned_directory(host: Host, path: str) -> str:
    os.makedirs(path, mode=0o700, exist_ok=True)
    if os.getuid() == 0:
        os.chown(path, host.options.run_as.uid, host.options.run_as.gid)
    return os.path.realpath(path)


def _given_parameters(texts: list[str]) -> dict[str, ParameterValue]:
    """Return the values of `--set NAME=VALUE`."""
    given: dict[str, ParameterValue] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise ConfigError(f"--set {visible(text)!r}: expected NAME=VALUE")
        given[name] = value
    return given


def _refuse_broad(grants: tuple[Grant, ...], own: ComponentSettings) -> None:
    """Refuse a grant that names nothing in particular, unless the host allows it by name."""
    for grant in grants:
        if is_too_broad_grant(grant) and not is_broad_allowed(grant, own):
            raise ConfigError(
                f"{grant.action} {grant.pattern_text!r} ({grant.source}) is too broad: it names nothing in particular",
                hint=f'a host can allow it: [components."{own.name}"] allow_broad = '
                f'["{grant.action}:{grant.pattern_text}"] in airssys.toml',
            )


def decide_grants(
    args: argparse.Namespace,
    host: Host,
    bound: BoundManifest,
    parameters: dict[str, ParameterValue],
) -> tuple[tuple[Grant, ...], str] | None:
    """Return what is granted and who said so; None means refused."""
    manifest = bound.manifest
    if not bound.grants:
        return (), "nothing asked"
    if args.grant == "asked":
        return bound.grants, "--grant asked"
    if args.grant is not None:
        from supervisor.grant_file import read_grant_file

        granted = read_grant_file(args.grant, manifest, parameters, bound.variables, os.getcwd(), os.path.realpath)
        return granted, f"--grant {os.path.basename(args.grant)}"
    program = Program.open(manifest.wasm_path)
    program.close()
    key = request_key(manifest.digest, program.sha256, bound.grants)
    store = GrantStore(os.path.join(host.options.state_directory, "grants"))
    if store.remembered(key):
        return bound.grants, "remembered"
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        print(f"airssys: {manifest.component.name} asks for:", file=sys.stderr)
        _print_words(bound)
        print(
            "airssys: not granted, and there is no terminal to ask on\n"
            "  grant what it asks with --grant asked, or less with --grant FILE",
            file=sys.stderr,
        )
        return None
    print(f"{manifest.component.name} {manifest.component.version} asks for:", file=sys.stderr)
    _print_words(bound)
    if not _confirm("Grant this? [y/N] "):
        print("airssys: not granted; nothing was run", file=sys.stderr)
        return None
    store.remember(key, manifest.component.name, bound.grants)
    return bound.grants, "asked"


def _print_words(bound: BoundManifest) -> None:
    for ask in describe_asks(bound.manifest, bound):
        why = f" - {ask.rationale}" if ask.rationale else ""
        print(f"  [{ask.danger.word}] {visible(ask.sentence + why)}", file=sys.stderr)


def _confirm(question: str) -> bool:
    """Ask on the terminal; what was typed before the question was shown is thrown away."""
    import termios

    termios.tcflush(sys.stdin.fileno(), termios.TCIFLUSH)
    print(question, end="", file=sys.stderr, flush=True)
    try:
        return sys.stdin.readline().strip().lower() in ("y", "yes")
    except (KeyboardInterrupt, EOFError):
        return False


def _secrets(args: argparse.Namespace, bound: BoundManifest, own: ComponentSettings) -> tuple[tuple[str, str], ...]:
    """Return the values of the secrets that the component asked for; from --secret, else from airssys.toml."""
    files = dict(split_assignment(text, "--secret") for text in args.secret)
    sources = {source.name: source for source in own.secrets}
    asked = {secret.name for secret in bound.secrets}
    for name in files:
        if name not in asked:
            raise ConfigError(f"--secret {name}: Component.toml doesn't ask for it ([capabilities.secrets] env)")
    pairs: list[tuple[str, str]] = []
    for secret in bound.secrets:
        path = files.get(secret.name)
        source = sources.get(secret.name)
        if path is None and source is not None:
            credentials = os.environ.get("CREDENTIALS_DIRECTORY", "")
            path = source.file or (os.path.join(credentials, source.credential or "") if credentials else None)
        if path is not None:
            pairs.append((secret.name, read_secret(secret.name, path)))
        elif secret.required:
            raise ConfigError(f"secret {secret.name}: no value", hint=f"--secret {secret.name}=FILE, or airssys.toml")
    return tuple(pairs)


def _path_directories() -> tuple[str, ...]:
    return tuple(dict.fromkeys(os.path.realpath(d) for d in os.environ.get("PATH", "").split(":") if d.startswith("/")))


def _home_directories(host: Host) -> tuple[str, ...]:
    import pwd

    homes = [os.path.expanduser("~")]
    try:
        homes.append(pwd.getpwuid(host.options.run_as.uid).pw_dir)
    except KeyError:
        return tuple(h for h in homes if h.startswith("/"))
    return tuple(dict.fromkeys(os.path.realpath(h) for h in homes if h.startswith("/") and h != "/"))
