"""From a component directory to a request: the manifest, its parameters, what is granted of it."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from ipc.audit.event import AuditEvent
from ipc.errors import ConfigError
from ipc.messages import EngineSettings
from ipc.policy.capability import Grant
from ipc.security_context import context_of
from ipc.struct import Struct, replace
from supervisor.cli.main import EX_NOPERM
from supervisor.cli.run_grants import GrantDecision, decide_grants
from supervisor.cli.run_setup import (
    dev_directories,
    memory_bytes,
    quota_limits,
    refuse_broad,
    storage_bytes,
    worker_limits,
)
from supervisor.cli.start import ALONE, Start
from supervisor.config.host_policy import (
    ResolvedQuota,
    component_parameters,
    data_directory,
    policy_document,
    resolve_quota,
)
from supervisor.config.settings import ComponentSettings, Settings
from supervisor.fleet.shared_storage import SharedStorageSettings, shared_with
from supervisor.grants.dev_grants import dev_grants, hidden_denials
from supervisor.host.component_directories import make_data_directory
from supervisor.host.host import Host
from supervisor.host.identity import actor
from supervisor.host.mounts import read_mounts, under_all_names
from supervisor.host.surroundings import home_directories, program_directories
from supervisor.manifest import BoundManifest, Manifest, Variables, bind, load_manifest, not_enforced
from supervisor.manifest.component_view import parse_assignments
from supervisor.manifest.parse import ManifestErrors
from supervisor.report import print_error
from supervisor.run.request import RunRequest, environment_pairs, merge_mounts, read_secret, split_assignment
from supervisor.terminal import visible

if TYPE_CHECKING:
    from supervisor.cli.targets import InstalledPackage
    from supervisor.trust.judge import JudgedDirectory


class GrantedComponent(Struct, frozen=True):
    """A component with what it was granted: the request to run it, and what the host made of its manifest."""

    request: RunRequest
    bound: BoundManifest
    quota: ResolvedQuota
    shared_storage: tuple[SharedStorageSettings, ...]
    """What the host shares with it."""


def component_request(
    args: argparse.Namespace,
    host: Host,
    settings: Settings,
    installed: InstalledPackage | None = None,
    called: bool = False,
) -> RunRequest | None:
    """Return the request of a component directory or of what is `installed`; None where nobody granted it.

    Of one that is `called` what a broker enforces is nothing to enforce: in a call there is no broker to ask.
    """
    granted = granted_component(args, host, settings, host.tmp_directory, called, installed)
    return None if granted is None else granted.request


def granted_component(
    args: argparse.Namespace,
    host: Host,
    settings: Settings,
    tmp: str,
    brokered: bool = False,
    installed: InstalledPackage | None = None,
    start: Start = ALONE,
) -> GrantedComponent | None:
    """Return a directory's component, or what is `installed`, with its grants; None as above; `tmp` is its `${tmp}`.

    `brokered`: there is a broker, which enforces more of what a manifest can say.
    """
    for flag in ("read", "write", "list", "dir"):
        if getattr(args, flag):
            raise ConfigError(
                f"--{flag} is for a bare program; a component directory says what it needs in Component.toml",
                hint="grant less with --grant FILE",
            )
    manifest = load_manifest(args.target if installed is None else installed.package.directory)
    instance, program_sha256 = "", ""
    if installed is not None:
        require_installed(manifest, installed)
        instance, program_sha256 = installed.installed.instance, installed.program_sha256
    else:
        _require_own_name(host, manifest)
    mode = None
    if settings.components or settings.dev or args.dev:
        from supervisor.cli.start_rules import start_mode

        mode = start_mode(args, host, settings, manifest, installed)
    unsupported = not_enforced(manifest, brokered)
    if unsupported:
        by_nobody = not_enforced(manifest, brokered=True)
        raise ConfigError(
            f"{manifest.file}: not enforced by this version: {', '.join(by_nobody)}"
            if by_nobody
            else f"{manifest.file}: only a broker enforces {', '.join(unsupported)}",
            hint="remove it" if by_nobody else f"for an actor: airssys up {visible(args.target)}",
        )
    name = manifest.component.name
    own = settings.component(name, instance)
    parameters = component_parameters(manifest, settings, parse_assignments(args.set), instance)
    data = make_data_directory(data_directory_of(host, settings, name, instance), host.options.run_as)
    variables = Variables(component=os.path.realpath(manifest.directory), data=data, tmp=tmp)
    bound = bind(manifest, parameters, variables, cwd=os.getcwd(), real_path=os.path.realpath)
    resolution = resolve_quota(manifest, settings, instance)
    if resolution.refusals:
        raise ManifestErrors(resolution.refusals)
    homes = home_directories()
    dev = dev_directories(mode, manifest.directory, tmp)
    # What dev mode allows, it allows whoever wrote the component; and then each record says so.
    judged = None if mode is not None else judge_component(args, manifest, settings, installed)
    if mode is not None:
        # Nobody is asked, so nothing that the manifest asks for elsewhere is granted either; it is listed as wanted.
        decision: GrantDecision | None = GrantDecision(dev_grants((*dev, data), homes), mode.by)
    else:
        decision = decide_grants(args, host, bound, parameters, settings, resolution.quota, judged, installed, start)
    if decision is None:
        reason = "nobody granted what it asks for"
        host.record(AuditEvent("run_refused", component=name, decision="denied", reason=reason, actor=actor()))
        return None
    granted, granted_sha256 = decision.granted, decision.program_sha256
    trust_rule, package_digest = "", "" if installed is None else installed.package.digest
    if judged is not None and judged.trusted:
        from supervisor.trust.judge import require_judged

        # Whoever said yes, the records will say that these bytes are trusted: so they are those that run.
        granted_sha256 = require_judged(judged, manifest)
        trust_rule = judged.decision.rule
        package_digest = judged.contents.digest if judged.contents is not None else ""
    refuse_broad(granted, own)
    document = policy_document(
        bound,
        settings,
        instance=instance,
        granted=granted,
        more_host_paths=host.own_paths(),
        path_directories=program_directories(settings, host.options.state_directory),
        home_directories=homes,
    )
    document = replace(document, acl=(*document.acl, *hidden_denials(name, dev)))
    document = under_all_names(document, read_mounts())
    limits = worker_limits(
        args,
        memory_bytes(args, settings, resolution.quota.memory_bytes),
        storage_bytes(args, settings, resolution.quota.storage_bytes),
        manifest,
    )
    arguments = args.guest_arguments or bound.args
    mounts = tuple((mount.guest, mount.host) for mount in bound.mounts)
    request = RunRequest(
        context=context_of(
            document,
            decision.approval,
            "dev" if mode is not None else "unknown" if judged is None else judged.decision.level,
            version=manifest.component.version,
            trust_rule=trust_rule,
            package_digest=package_digest,
            component_digest=program_sha256 or granted_sha256,
        ),
        wasm_path=manifest.wasm_path,
        arguments=(os.path.basename(manifest.component.wasm), *arguments),
        environment=(
            *bound.env,
            *environment_pairs(args.env, [], dict(os.environ)),
            *_secrets(args, bound, granted, own),
        ),
        mounts=merge_mounts(mounts, granted, None, _first_name_in(dict(mounts).get("."))),
        document=document,
        limits=limits,
        quota=quota_limits(resolution.quota.limits(), limits),
        engine=EngineSettings(fuel=limits.fuel is not None),
        ask=args.ask,
        learn=args.write_manifest is not None,
        own_directories=(data, tmp),
        reliance=decision.reliance,
    )
    shared = shared_with(bound.manifest.component.name, settings.shared_storage)
    return GrantedComponent(request, bound, resolution.quota, shared)


def _require_own_name(host: Host, manifest: Manifest) -> None:
    from supervisor.cli.targets import NameTakenError, require_own_name

    name = manifest.component.name
    try:
        require_own_name(name, manifest.directory, host.options.state_directory)
    except NameTakenError as error:
        refused = AuditEvent("run_refused", component=name, decision="denied", code=error.code, reason=error.message)
        host.record(replace(refused, actor=actor()))
        raise


def judge_component(
    args: argparse.Namespace, manifest: Manifest, settings: Settings, installed: InstalledPackage | None
) -> JudgedDirectory | None:
    """Return whether it is trusted, by which of the host's sources; None where the host has none.

    Of what is `installed` by where it came from, and who had signed it then; of a directory by where it lies.
    """
    if not settings.trust_sources:
        return None
    from supervisor.trust.breadth import breadth_warning
    from supervisor.trust.decide import describe_source
    from supervisor.trust.judge import JudgedDirectory, judge_directory

    if installed is None:
        judged = judge_directory(manifest.directory, settings.trust_sources)
    else:
        from supervisor.cli.targets import trust_of

        decision = trust_of(installed.installed, settings)
        judged = JudgedDirectory(decision, installed.installed.provenance, installed.package.contents)
    source = judged.decision.source
    warning = "" if source is None else breadth_warning(source)
    if source is not None and warning and not args.quiet:
        print(f"airssys: trusted by {visible(describe_source(source))}, which is {visible(warning)}", file=sys.stderr)
    return judged


def tell_not_granted(args: argparse.Namespace) -> int:
    """Say on standard output, where it is JSON, what was said in words already; return the exit code."""
    if args.json:
        hint = "grant what it asks with --grant asked, or less with --grant FILE"
        print_error(ConfigError("nobody granted what it asks for", hint=hint), "not_granted", EX_NOPERM, args)
    return EX_NOPERM


def _first_name_in(here: str | None) -> tuple[str, ...]:
    """Return the first segment of a directory's own path where the directory has an entry of that name too."""
    first = "" if here is None else here.split("/")[1]
    return (first,) if first and os.path.lexists(os.path.join(here or "/", first)) else ()


def require_installed(manifest: Manifest, installed: InstalledPackage) -> None:
    """Raise StoreRefusedError unless this is the manifest that was installed and verified."""
    wanted = (installed.installed.name, installed.installed.program, installed.manifest_sha256)
    if (manifest.component.name, manifest.component.wasm, manifest.digest) != wanted:
        from supervisor.packages.store import changed_package

        raise changed_package(manifest.directory, "Component.toml holds something else")


def data_directory_of(host: Host, settings: Settings, name: str, instance: str = "") -> str:
    """Return `${data}` of a component on this host."""
    default = data_directory(settings, name, instance)
    return os.path.join(host.options.data_directory, os.path.basename(default))


def _secrets(
    args: argparse.Namespace, bound: BoundManifest, granted: tuple[Grant, ...], own: ComponentSettings
) -> tuple[tuple[str, str], ...]:
    """Return the values of the secrets that were asked for and granted; from --secret, else from airssys.toml."""
    files = dict(split_assignment(text, "--secret") for text in args.secret)
    sources = {source.name: source for source in own.secrets}
    asked = {secret.name for secret in bound.secrets}
    for name in files:
        if name not in asked:
            raise ConfigError(f"--secret {name}: Component.toml doesn't ask for it ([capabilities.secrets] env)")
    pairs: list[tuple[str, str]] = []
    allowed = {grant.pattern_text for grant in granted if grant.action == "secrets.env"}
    for secret in bound.secrets:
        if secret.name not in allowed:
            continue
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
