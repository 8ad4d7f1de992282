"""What `airssys install` and `airssys upgrade` have in common: from a source to a package that a name means."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from ipc.audit.event import SUPERVISOR
from ipc.errors import ConfigError
from ipc.messages import EngineSettings
from ipc.struct import Struct, replace
from supervisor.audit.log import AuditLog
from supervisor.cli.confirm import confirm, on_terminal
from supervisor.cli.diff import Comparison, compare_versions, read_side
from supervisor.cli.problems import print_problems
from supervisor.cli.progress import CompileProgress
from supervisor.cli.run import duration, size
from supervisor.cli.start_rules import why_not_started
from supervisor.cli.taking_version import Outcome, add_running_options, take_version
from supervisor.cli.targets import Target
from supervisor.code.compilation import CompileLimits
from supervisor.code.inspect import WasmSummary, inspect_wasm
from supervisor.config import places
from supervisor.config.settings import Settings
from supervisor.config.settings_files import load_settings
from supervisor.host.identity import actor
from supervisor.manifest import Manifest, ManifestErrors, load_manifest
from supervisor.packages.installed import ComponentName, Installed, source_words
from supervisor.packages.installed_view import installed_json, installed_lines
from supervisor.packages.installing import (
    InstallRefusedError,
    Record,
    enter,
    find_refusal,
    installed_event,
    require_allowed,
)
from supervisor.packages.naming import InstallRefusal, Permitted
from supervisor.packages.registry import Registry
from supervisor.packages.store import PackageStore, StoreRefusedError
from supervisor.signing.keys import read_public_key
from supervisor.terminal import visible
from supervisor.trust.installed import judge_installed, recorded_exposures, revoked_keys
from supervisor.trust.sources import LocalSource

if TYPE_CHECKING:
    from supervisor.packages.provenance import Fetched
    from supervisor.trust.decide import TrustDecision


class Places(Struct, frozen=True):
    """Where things are kept, and the settings that say so."""

    settings: Settings
    state: str
    audit: str

    @property
    def packages(self) -> str:
        """Return where the packages are."""
        return places.packages_directory(self.state)


class NotGrantedError(ConfigError):
    """A person said no, or nobody could be asked."""

    exit_code: ClassVar[int] = 77  # EX_NOPERM


def add_place_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where things are kept, and how the answer reads."""
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--state-dir", metavar="DIR", help="where it is kept (or $AIRSSYS_STATE)")
    parser.add_argument("--config", metavar="FILE", help="the host's airssys.toml")


def add_install_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of an installation."""
    parser.add_argument("--yes", action="store_true", help="let a wider version take the place of what is installed")
    parser.add_argument(
        "--replace-source", action="store_true", help="let it have a name that is installed from another source"
    )
    parser.add_argument("--allow-downgrade", action="store_true", help="install an older version than the active one")
    parser.add_argument(
        "--compile-timeout", type=duration, metavar="TIME", default="600s", help="for compiling (default: %(default)s)"
    )
    parser.add_argument(
        "--compile-memory", type=size, metavar="SIZE", default="8GiB", help="for compiling (default: %(default)s)"
    )
    add_running_options(parser)
    add_place_options(parser)


def places_of(args: argparse.Namespace) -> Places:
    """Return where things are kept."""
    settings = load_settings(args.config, os.environ, os.geteuid())
    state = places.state_directory(args.state_dir, os.environ, settings)
    return Places(settings, state, places.audit_directory(state, settings))


@contextlib.contextmanager
def recording(where: Places) -> Iterator[Record]:
    """Yield what puts an event on record, durable when it returns; raises AuditError where that can't be."""
    log = AuditLog(where.audit, retention=where.settings.audit)
    with contextlib.closing(log):
        yield lambda event: log.append([(event.within_bounds(), SUPERVISOR)])


def install(
    args: argparse.Namespace, where: Places, source: str, called: ComponentName | None, upgrades: bool = False
) -> int:
    """Install a package and print what was done, or what is wrong with its manifest; return the exit code.

    `called` is the name that somebody chose; without one it is the manifest's, and no instance. `upgrades` says that
    they have named both what is installed and where its next version is.
    """
    try:
        done = _install(args, where, source, called, upgrades)
    except ManifestErrors as error:
        return print_problems(error, args.json)
    if not args.json:
        print("\n".join(done.lines))
    running = take_version(args, where.state, done.new.called) if done.replaced else None
    if running is None and not args.json:
        print("\n".join(done.start))
    return tell_running(args, done.document, running)


def tell_running(args: argparse.Namespace, document: dict[str, object], running: Outcome | None) -> int:
    """Print what a running supervisor has made of it, or all of it as JSON; return the exit code."""
    if args.json:
        print(json.dumps({**document, "running": None if running is None else running.to_json()}, indent=2))
    elif running is not None:
        print("\n".join(running.lines()))
    return 0 if running is None else running.exit_code


class _Done(Struct, frozen=True):
    """What was installed, how that reads, and whether its name meant something before."""

    new: Installed
    document: dict[str, object]
    lines: list[str]
    start: list[str]
    """How it is started, for where nothing runs it."""
    replaced: bool


def _install(
    args: argparse.Namespace, where: Places, source: str, called: ComponentName | None, upgrades: bool
) -> _Done:
    """Fetch a package, look at it, compile it and let its name mean it."""
    store = PackageStore(where.packages)
    with store.incoming() as incoming, Registry(where.state) as registry, recording(where) as record:
        fetched, again = _fetch(source, incoming, args.json)
        manifest = _manifest(incoming, source)
        new = _installed(fetched, manifest, again, called)
        revoked = revoked_keys(where.settings.trust_sources)
        local = tuple(each for each in where.settings.trust_sources if isinstance(each, LocalSource))
        permitted = Permitted(args.replace_source, args.allow_downgrade, revoked, local if upgrades else None)
        if upgrades and _agrees_to_source(args, registry, new, permitted):
            permitted = replace(permitted, replace_source=True)
        active = require_allowed(registry, new, permitted, record)
        summary = _compile(args, manifest, where.state)
        compared = _compare(args, store, active, new, incoming, where)
        if compared is not None and compared.found.wider:
            _require_wanted(args, compared, new, active, record)
        new = replace(new, installed_ns=time.time_ns())
        enter(store, registry, incoming, fetched, new, permitted, active, record)
    trust = judge_installed(new, where.settings.trust_sources, int(time.time()))
    document, lines, start = _told(new, active, compared, trust, summary.is_actor, where.settings)
    return _Done(new, document, lines, start, active is not None)


def _fetch(text: str, incoming: str, quiet: bool) -> tuple[Fetched, str]:
    """Fetch a package into an empty directory; return it, and the source as it is fetched again."""
    from supervisor.packages.fetch import fetch
    from supervisor.packages.source import ArchiveSource, DirectorySource, parse_source, show_source

    source = parse_source(text)
    if isinstance(source, DirectorySource | ArchiveSource):
        fetched = fetch(source, incoming)
        return fetched, fetched.provenance.url
    if not quiet and sys.stderr.isatty():
        print(f"airssys: fetching {visible(show_source(source))}", file=sys.stderr)
    return fetch(source, incoming), show_source(source)


def _manifest(incoming: str, source: str) -> Manifest:
    """Read the manifest of what was fetched; what is wrong with it is told of the source, which a person knows."""
    try:
        return load_manifest(incoming)
    except ManifestErrors as error:
        problems = [replace(each, file=each.file.replace(incoming, source, 1)) for each in error.problems]
        raise ManifestErrors(tuple(problems)) from None


def _installed(fetched: Fetched, manifest: Manifest, source: str, called: ComponentName | None) -> Installed:
    from supervisor.signing.package_signatures import verified_signers
    from supervisor.trust.local import exposures_of

    files = [each.path for each in fetched.contents.files]
    component = manifest.component
    if called is not None and called.name != component.name:
        raise ConfigError(
            f"its manifest says that it is called {component.name}, not {called.name}",
            hint=f"the host's rules go by the name; an instance may have any: --as {component.name}@{called.name}",
        )
    return Installed(
        name=component.name,
        instance="" if called is None else called.instance,
        version=component.version,
        digest=fetched.contents.digest,
        program=component.wasm,
        provenance=fetched.provenance,
        source=source,
        signers=tuple(key.text for key in verified_signers(fetched.contents, fetched.signatures)),
        exposed=recorded_exposures(fetched.provenance, exposures_of(fetched.provenance, files)),
        installed_by=actor(),
    )


def _agrees_to_source(args: argparse.Namespace, registry: Registry, new: Installed, permitted: Permitted) -> bool:
    """Ask a person whether what they upgrade is to come from elsewhere; False where that isn't so, or nobody says yes.

    Theirs is the name and theirs the source: what is asked is whether they have seen that these are two.
    """
    refusal, active = find_refusal(registry, new, permitted), registry.active(new.called)
    if refusal is None or refusal.code != "A3102" or active is None or args.json or not on_terminal():
        return False
    lines = (
        f"{active.called.text} {active.version} came from {source_words(active.provenance)}, {_signed_by(active)}",
        f"this is {new.version} from {source_words(new.provenance)}, {_signed_by(new)}",
        f"nothing vouches that it is the same component; what airssys.toml says of {new.name} will hold for it",
    )
    print("\n".join(map(visible, lines)), file=sys.stderr)
    return confirm(f"Let {new.called.text} come from there from now on? [y/N] ")


def _signed_by(installed: Installed) -> str:
    keys = [read_public_key(each).fingerprint for each in installed.signers]
    return f"signed by {', '.join(keys)}" if keys else "signed by nobody"


def _compile(args: argparse.Namespace, manifest: Manifest, state: str) -> WasmSummary:
    """Have the program compiled as a run will want it, and return what it is; raises ConfigError where it can't be."""
    progress = CompileProgress(manifest.component.name, args.json)
    engine = EngineSettings(fuel=manifest.limits.fuel is not None)
    limits = CompileLimits(timeout_s=args.compile_timeout / 1e9, memory_bytes=args.compile_memory)
    try:
        summary = inspect_wasm(manifest.wasm_path, state, engine, limits, progress)
    finally:
        progress.finish()
    if summary.error:
        raise ConfigError(summary.error, hint="nothing was installed")
    return summary


def _compare(
    args: argparse.Namespace,
    store: PackageStore,
    active: Installed | None,
    new: Installed,
    incoming: str,
    where: Places,
) -> Comparison | None:
    """Compare what a name means with what it is to mean; None where it means nothing yet, or the same.

    None with --yes also where what it means was changed in the store, and so can't be compared.
    """
    if active is None or active.digest == new.digest:
        return None
    try:
        package = store.open(active.digest)
    except StoreRefusedError as error:
        if args.yes:
            return None
        raise StoreRefusedError(
            error.message, hint="so it can't be compared; to replace it all the same: --yes"
        ) from None
    with contextlib.closing(package):
        old = read_side(Target(package.directory), where.settings)
        return compare_versions(old, read_side(Target(incoming), where.settings), where.settings, where.state)


def _require_wanted(
    args: argparse.Namespace, compared: Comparison, new: Installed, active: Installed | None, record: Record
) -> None:
    """Show a difference and have a person say yes to it; raises NotGrantedError, put on record, where none did."""
    if not args.json:
        print("\n".join(compared.lines()), file=sys.stderr)
    if args.yes:
        return
    asked = not args.json and on_terminal()
    if asked and confirm(f"Let {new.called.text} mean {new.version} from now on? [y/N] "):
        return
    reason = f"{new.called.text} {new.version} could do more than what is active"
    event = installed_event("component_install_refused", new, active)
    record(replace(event, decision="denied", code="A3104", reason=reason))
    if asked:
        raise NotGrantedError("not installed; what was active still is")
    raise InstallRefusedError(InstallRefusal("A3104", reason, "look at the difference; to install it: --yes"))


def _told(
    new: Installed,
    active: Installed | None,
    compared: Comparison | None,
    trust: TrustDecision,
    is_actor: bool,
    settings: Settings,
) -> tuple[dict[str, object], list[str], list[str]]:
    """Return what was done under stable keys, in words, and how it is started."""
    document: dict[str, object] = {
        "installed": installed_json(new, trust),
        "before": None if active is None else {"version": active.version, "package": active.digest},
        "comparison": None if compared is None else compared.to_json(),
    }
    lines = installed_lines(new, trust)
    lines[0] = visible(f"installed {new.called.text} {new.version}")
    if compared is not None and active is not None:
        lines[0] += visible(f", in the place of {active.version}: {compared.found.verdict}")
    elif active is not None and active.digest == new.digest:
        lines[0] = visible(f"{new.called.text} {new.version} was installed already")
    own = settings.component(new.name, new.instance)
    why, hint = why_not_started(settings, own, new.version)
    start = (
        [f"  {why}", f"  {hint}"] if why else [f"  to run it: airssys {'up' if is_actor else 'run'} {new.called.text}"]
    )
    return document, lines, start
