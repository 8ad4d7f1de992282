"""`airssys show TARGET`: what a component is, asks for, imports and exports, and whether it was granted before."""

from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Sequence

from ipc.errors import ConfigError
from ipc.struct import Struct
from supervisor.cli.check import ask_lines
from supervisor.cli.grants import open_store
from supervisor.cli.targets import Target, open_target, trust_of
from supervisor.code.inspect import LIFECYCLE, WasmSummary, inspect_wasm
from supervisor.config import places
from supervisor.config.settings import format_quota
from supervisor.config.settings_files import load_settings
from supervisor.grants.store import RememberedGrant, lasting_grants, read_package, request_key
from supervisor.manifest import asks as manifest_asks
from supervisor.manifest import findings as manifest_findings
from supervisor.manifest import load_manifest
from supervisor.manifest.asks import Ask
from supervisor.manifest.component_view import ComponentView, parse_assignments, view_manifest
from supervisor.packages.installed_view import installed_json, installed_lines
from supervisor.terminal import visible

EX_DATAERR = 65
_KINDS = {"module": "a core module (WASI preview 1)", "component": "a component (WASI preview 2)"}
_EPILOG = """examples:
  airssys show ./log-summary                          what it asks, its imports, its hashes, whether it was granted
  airssys show ./log-summary --set logs=/var/log/app  with the real paths
  airssys show log-summary                            what is installed under that name, and where it came from
  airssys show prog.wasm                              a bare program: what it imports and exports

A confined process reads the program; what it says of it is kept with the compiled code. Exit: 65 where the program
can't be read.
"""


class _Answer(Struct, frozen=True):
    """Whether this very request was granted before; `known` is False while parameters have no value."""

    known: bool
    remembered: RememberedGrant | None


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `show` command."""
    parser = subparsers.add_parser("show", help="say what a component is, asks for and imports", epilog=_EPILOG)
    parser.add_argument(
        "target", metavar="TARGET", help="an installed NAME, a directory with a Component.toml, or a .wasm file"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="bind a parameter")
    parser.add_argument("--config", metavar="FILE", help="the host's airssys.toml")
    parser.add_argument("--state-dir", metavar="DIR", help="where grants are remembered (or $AIRSSYS_STATE)")


def run(args: argparse.Namespace) -> int:
    """Print it; 65 where the program can't be read."""
    with open_target(args.target, args.state_dir, args.config) as target:
        return _show(args, target)


def _show(args: argparse.Namespace, target: Target) -> int:
    if not os.path.exists(target.path):
        raise ConfigError(f"{visible(args.target)}: no such file or directory")
    view, answer = None, _Answer(True, None)
    settings = load_settings(args.config, os.environ, os.geteuid())
    state = places.state_directory(args.state_dir, os.environ, settings)
    if os.path.isdir(target.path):
        assignments = parse_assignments(args.set)
        manifest = load_manifest(target.path)
        view = view_manifest(manifest, assignments, places.with_data(settings, state), target.instance)
    elif args.set:
        raise ConfigError("--set is for a component directory; a bare program has no parameters")
    summary = inspect_wasm(target.path if view is None else view.manifest.wasm_path, state)
    if view is not None:
        answer = _answer(view, summary, args, target.installed is not None)
    installed = None if target.installed is None else target.installed.installed
    if args.json:
        document = to_json(args.target, view, summary, answer)
        document["installed"] = None if installed is None else installed_json(installed, trust_of(installed, settings))
        print(json.dumps(document, indent=2))
    else:
        more = [] if installed is None else ["", *installed_lines(installed, trust_of(installed, settings))]
        print("\n".join([*_lines(args.target, view, summary, answer), *more]))
    return EX_DATAERR if summary.error else 0


def _answer(view: ComponentView, summary: WasmSummary, args: argparse.Namespace, installed: bool) -> _Answer:
    if view.unset or not summary.sha256:
        return _Answer(False, None)
    store = open_store(args.state_dir, args.config)
    if store is None:
        return _Answer(True, None)
    grants = lasting_grants(view.bound.grants, view.bound.variables.tmp)
    package = "" if installed else read_package(view.bound.variables.component, view.bound.grants)
    key = request_key(view.manifest.digest, summary.sha256, grants, package)
    return _Answer(True, next((each for each in store.remembered_grants() if each.key == key), None))


def _asks(view: ComponentView) -> tuple[Ask, ...]:
    return manifest_asks.describe_asks(view.manifest, view.bound, view.unset)


def _lines(target: str, view: ComponentView | None, summary: WasmSummary, answer: _Answer) -> list[str]:
    if view is None:
        return [visible(os.path.basename(target)), *_program(summary), "", "a bare program: the flags are the grant"]
    component = view.manifest.component
    description = f": {component.description}" if component.description else ""
    lines = [visible(f"{component.name} {component.version}{description}")]
    lines += [*_program(summary, component.wasm), visible(f"  manifest sha256 {view.manifest.digest}")]
    if component.env:
        lines.append(visible("  environment " + " ".join(f"{name}={value}" for name, value in component.env)))
    lines += [visible(f"  {mount.host} is seen as {mount.guest}") for mount in component.mounts]
    limits = manifest_asks.describe_limits(view.manifest)
    if limits:
        lines.append(f"  limits {', '.join(limits)}")
    asks = _asks(view)
    optional = [ask for ask in asks if not ask.required]
    required = [ask for ask in asks if ask.required]
    lines += ["", "it asks to:", *ask_lines(required)] if required else ["", "it asks for nothing that it needs"]
    if optional:
        lines += ["", "it would also like to, and starts without:", *ask_lines(optional)]
    for finding in manifest_findings.uncovered_imports(summary.imports, view.manifest, habits=True):
        lines.append(visible(f"  {finding.severity}: {finding.message}"))
    return [*lines, "", _granted(view, answer)]


def _granted(view: ComponentView, answer: _Answer) -> str:
    if not view.bound.grants:
        return "nothing has to be granted"
    if view.unset:
        return f"whether it was granted depends on parameters: --set {view.unset[0]}=VALUE"
    if not answer.known:
        return "whether it was granted can't be said: its program can't be read"
    if _takes_approval(view):
        return "people have to say yes before it starts, by [[approvals.rules]]: airssys approvals list --all"
    if answer.remembered is None:
        return "not granted yet: `airssys run` asks"
    when = answer.remembered.granted_at.replace("T", " ").replace("Z", " UTC")
    return visible(f"granted {when}, and remembered (airssys grants forget {answer.remembered.key[:12]})")


def _takes_approval(view: ComponentView) -> bool:
    """Whether a rule of the host's wants people to say yes first."""
    if not view.settings.approval_rules:
        return False
    from supervisor.approvals.rules import needed
    from supervisor.approvals.subject import named
    from supervisor.config.host_policy import resolve_quota

    quota = resolve_quota(view.manifest, view.settings, view.instance).quota
    return needed(view.settings.approval_rules, named(view.bound.grants, view.bound.variables), quota) is not None


def _program(summary: WasmSummary, name: str = "") -> list[str]:
    if summary.error:
        return [visible(f"  program {name} can't be read: {summary.error}")]
    kind = _KINDS.get(summary.kind, summary.kind)
    size = f"{summary.size_bytes:,} bytes"
    lines = [visible(f"  program {name}, {kind}, {size}" if name else f"  {kind}, {size}")]
    lines.append(f"  program sha256 {summary.sha256}")
    for title, names in (("imports", summary.imports), ("exports", summary.exports)):
        lines.append(f"  {title} {'nothing' if not names else ''}".rstrip())
        lines += [visible(f"    {line}") for line in grouped(names)]
    functions = [(name, signature) for name, signature in summary.functions if not name.startswith(LIFECYCLE)]
    if len(functions) < len(summary.functions):
        lines.append("  an actor: airssys up DIR starts it, airssys call NAME sends it a message")
    if functions:
        lines.append("  functions, for airssys call")
        lines += [visible(f"    {name}: {signature}") for name, signature in functions]
    return lines


def grouped(names: Sequence[str]) -> list[str]:
    """Return the names with those of one module or package on one line: `wasi:io@0.2.0: error, poll`.

    Each once: a program made with Go imports some functions several times.
    """
    groups: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        interface = re.fullmatch(r"([^/]+)/([^@]+)(@.+)?", name)
        if interface:
            group, member = f"{interface[1]}{interface[3] or ''}", interface[2]
        else:
            # Core imports are `module.name`; an export has a name alone.
            module, dot, function = name.partition(".")
            group, member = (module, function) if dot else (name, "")
        groups.setdefault(group, []).append(member)
    return [f"{group}: {', '.join(members)}" if any(members) else group for group, members in groups.items()]


def to_json(target: str, view: ComponentView | None, summary: WasmSummary, answer: _Answer) -> dict[str, object]:
    """Return everything under stable keys; null is what isn't there, or isn't known."""
    component = None if view is None else view.manifest.component
    remembered = answer.remembered
    return {
        "target": target,
        "name": None if component is None else component.name,
        "version": None if component is None else component.version,
        "description": None if component is None else component.description,
        "program": {
            "path": target if view is None else view.manifest.wasm_path,
            "kind": summary.kind or None,
            "sha256": summary.sha256 or None,
            "size_bytes": summary.size_bytes if summary.sha256 else None,
            "imports": list(summary.imports),
            "exports": list(summary.exports),
            "functions": dict(summary.functions),
            "error": summary.error or None,
        },
        "manifest": None if view is None else {"path": view.manifest.file, "sha256": view.manifest.digest},
        "asks": None if view is None else [ask.to_json() for ask in _asks(view)],
        "env": None if component is None else dict(component.env),
        "mounts": None if component is None else {mount.guest: mount.host for mount in component.mounts},
        "quota": None if view is None else format_quota(view.manifest.quota),
        "limits": None if view is None else list(manifest_asks.describe_limits(view.manifest)),
        "unset_parameters": [] if view is None else list(view.unset),
        "granted": None if view is None or not answer.known else remembered is not None,
        "granted_at": None if remembered is None else remembered.granted_at,
        "grant_key": None if remembered is None else remembered.key,
    }
