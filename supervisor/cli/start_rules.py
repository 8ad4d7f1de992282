"""What the host's settings say of a start before anything is granted: whether, which version, as whom, in dev mode."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from ipc.audit.event import AuditEvent
from ipc.errors import ConfigError
from ipc.struct import replace
from supervisor.config.dev_settings import INSTALLED, DevComponent, dev_entry
from supervisor.config.settings import ComponentSettings, Settings
from supervisor.grants.dev_mode import DevMode, DevRefusedError, decide_dev_mode
from supervisor.host.identity import Identity, actor, resolve_run_as
from supervisor.host.surroundings import own_service
from supervisor.packages.target import is_path
from supervisor.run.request import bare_name
from supervisor.terminal import visible

if TYPE_CHECKING:
    from supervisor.cli.targets import InstalledPackage
    from supervisor.host.host import Host
    from supervisor.manifest import Manifest


class StartRefusedError(ConfigError):
    """The host's settings don't let it start."""

    exit_code: ClassVar[int] = 77  # EX_NOPERM


def start_mode(
    args: argparse.Namespace, host: Host, settings: Settings, manifest: Manifest, installed: InstalledPackage | None
) -> DevMode | None:
    """Return the dev mode that a component starts in, if any.

    Raises StartRefusedError or DevRefusedError, on record, where it may not start at all.
    """
    name, version = manifest.component.name, manifest.component.version
    instance = "" if installed is None else installed.installed.instance
    try:
        require_startable(settings, settings.component(name, instance), version, host.options.run_as)
        directory = os.path.realpath(manifest.directory)
        entry = dev_entry(settings.dev, name, instance, directory, installed is not None)
        if entry is not None and entry.directory:
            require_own_place(entry, manifest, host.options.run_as)
        identity = f'"{name}@{instance}"' if instance else name
        place = f'"{INSTALLED}"' if installed is not None else f'"{visible(directory)}"'
        service = own_service() if args.dev and entry is None else ""
        mode = decide_dev_mode(
            args.dev, entry, service, installed=installed is not None, nameable=f"{identity} = {place}"
        )
    except (StartRefusedError, DevRefusedError) as error:
        _record(host, name, instance, error)
        raise
    if mode is not None and args.grant is not None:
        raise ConfigError(
            f"--grant: {name} is in dev mode by {mode.by}, which says what it may",
            hint="leave --grant out, or remove that line",
        )
    return mode


def require_own_place(entry: DevComponent, manifest: Manifest, run_as: Identity) -> None:
    """Raise DevRefusedError where others can have another component lie where one in dev mode does.

    Whom it would run as is nobody else: what dev mode allows is theirs already.
    """
    # Only here: hardly anything is in dev mode.
    from supervisor.trust.local import exposed_project

    files = (os.path.basename(manifest.file), os.path.normpath(manifest.component.wasm))
    exposed = exposed_project(entry.directory, files, run_as.uid)
    if exposed:
        raise DevRefusedError(
            visible(f"{entry.identity} is not for dev mode ({entry.origin}) where others can write: {exposed}"),
            hint=f"have it belong to root, to you or to {run_as.name}, and to nobody else; or remove that line",
        )


def bare_mode(args: argparse.Namespace, host: Host, settings: Settings) -> DevMode | None:
    """Return the dev mode of a bare program, as above; the settings speak of it by the name of its file."""
    name = bare_name(args.target)
    try:
        require_startable(settings, settings.component(name), "", host.options.run_as)
        return decide_dev_mode(args.dev, None, own_service() if args.dev else "")
    except (StartRefusedError, DevRefusedError) as error:
        _record(host, name, "", error)
        raise


def require_startable(settings: Settings, own: ComponentSettings, version: str, run_as: Identity) -> None:
    """Raise StartRefusedError for what is disabled, for another version than is written, and for another identity.

    `version` is "" where there is none; `run_as` is as whom it would run.
    """
    why, hint = why_not_started(settings, own, version)
    if why:
        raise StartRefusedError(why, hint=hint)
    if own.run_as is not None and resolve_run_as(own.run_as, os.getuid(), os.environ).uid != run_as.uid:
        raise StartRefusedError(
            f"{own.identity} is not to be run as {run_as.name}: {_written(settings, own, 'run_as', own.run_as)}",
            hint=f"leave --run-as out, or run it with --run-as {own.run_as}",
        )


def why_not_started(settings: Settings, own: ComponentSettings, version: str) -> tuple[str, str]:
    """Return why this version of a component may not start here by the settings, and what helps; "" where it may."""
    if not own.enabled:
        said = _written(settings, own, "enabled", False)
        return (
            f"{own.identity} is not to be started: {said}",
            "to let it start: write enabled = true there",
        )
    if own.version in (None, version):
        return "", ""
    called = f"{own.identity} {visible(version)}" if version else f"{own.identity}, which has no version,"
    why = f"{called} is not to be started: {_written(settings, own, 'version', own.version)}"
    if not version:
        return why, "remove that line, or give the program a Component.toml"
    instead = f"or, once airssys diff has shown what it changes, write there: version = {json.dumps(version)}"
    return why, f"start that version (airssys list, airssys rollback), {visible(instead)}"


def _written(settings: Settings, own: ComponentSettings, key: str, value: str | bool | None) -> str:
    origin = settings.origins.get(("components", own.identity, key), "airssys.toml")
    return visible(f'{key} = {json.dumps(value)} of [components."{own.identity}"] in {origin}')


def run_as_of(args: argparse.Namespace, settings: Settings, targets: Sequence[str]) -> str | None:
    """Return as whom targets run: `--run-as`, else what is written of them; None for the default.

    Raises StartRefusedError where several that one supervisor would start are to run as different users.
    """
    if not any(each.run_as is not None for each in settings.components):
        return None if args.run_as is None else str(args.run_as)
    written = {target: _settings_of(target, settings).run_as for target in targets}
    found = {
        target: resolve_run_as(own or args.run_as, os.getuid(), os.environ).name for target, own in written.items()
    }
    if len(set(found.values())) > 1:
        each = ", ".join(f"{visible(target)} as {name}" for target, name in found.items())
        raise StartRefusedError(
            f"one supervisor touches files as one user, and these are to run as several: {each}",
            hint="start those of each user apart, each with a --state-dir of its own",
        )
    return next((own for own in written.values() if own is not None and args.run_as is None), args.run_as)


def _record(host: Host, name: str, instance: str, error: ConfigError) -> None:
    refused = AuditEvent("run_refused", component=name, instance=instance, decision="denied")
    host.record(replace(refused, reason=error.message, actor=actor()))


def _settings_of(target: str, settings: Settings) -> ComponentSettings:
    """Return what is said of a target; whoever starts it looks once more (`require_startable`)."""
    if not is_path(target):
        from supervisor.packages.installed import parse_name

        called = parse_name(target)
        return settings.component(called.name, called.instance)
    if not os.path.isdir(target):
        return settings.component(bare_name(target))
    from supervisor.manifest import load_manifest

    return settings.component(load_manifest(target).component.name)
