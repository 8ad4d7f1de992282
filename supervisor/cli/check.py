"""`airssys check TARGET`: what a component asks for, in words, and what is wrong with it."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence

from ipc.policy.access import entry_of, permission_of
from supervisor.cli.problems import print_problems
from supervisor.cli.targets import open_target
from supervisor.config import places
from supervisor.config.host_policy import resolve_quota
from supervisor.config.settings import format_quota
from supervisor.config.toml_source import ConfigFileError
from supervisor.manifest import Parameter, not_enforced, only_brokered
from supervisor.manifest import asks as manifest_asks
from supervisor.manifest import findings as manifest_findings
from supervisor.manifest.asks import Ask, Danger
from supervisor.manifest.component_view import ComponentView, parse_assignments, view_component
from supervisor.manifest.findings import Finding
from supervisor.report import paint
from supervisor.terminal import visible

EX_DATAERR = 65
_COLOURS = {Danger.CRITICAL: "1;31", Danger.HIGH: "31", Danger.MEDIUM: "33", Danger.LOW: "0", Danger.OWN: "2"}
_SEVERITY_COLOURS = {"error": "1;31", "warning": "33", "note": "2"}
_EPILOG = """examples:
  airssys check ./log-summary                            what it asks for, the most dangerous first
  airssys check ./log-summary --set logs=/var/log/app    the same, with the real paths
  airssys check log-summary                              what is installed under that name
  airssys check ./log-summary --explain                  and the rules that its requests compile to
"""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `check` command."""
    parser = subparsers.add_parser(
        "check",
        help="say what a component asks for, and what is wrong with it",
        epilog=_EPILOG,
    )
    parser.add_argument("target", metavar="TARGET", help="a directory with a Component.toml, or an installed NAME")
    parser.add_argument(
        "--explain", action="store_true", help="print the access control entries and permissions it compiles to"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="bind a parameter")
    parser.add_argument("--config", metavar="FILE", help="the host's airssys.toml")


def run(args: argparse.Namespace) -> int:
    """Print what the manifest asks; 0, or 65 where the component can't run as it stands."""
    try:
        with open_target(args.target, None, args.config) as target:
            view = view_component(target.path, parse_assignments(args.set), args.config, target.instance)
            findings = find_all(view)
    except ConfigFileError as error:
        return print_problems(error, args.json)
    asks = manifest_asks.describe_asks(view.manifest, view.bound, view.unset)
    if args.json:
        print(json.dumps(to_json(view, asks, findings), indent=2))
    else:
        sys.stdout.write(
            "\n".join([*_head(view), *_body(view, asks, findings), *(_rules(view) if args.explain else [])]) + "\n"
        )
    return EX_DATAERR if any(finding.severity == "error" for finding in findings) else 0


def find_all(view: ComponentView) -> tuple[Finding, ...]:
    """Return every finding: of the patterns, the quota, the imports, and of paths that no real object can match."""
    findings = list(manifest_findings.find_problems(view.manifest, view.bound, view.host, view.forbidden(), view.unset))
    for problem in resolve_quota(view.manifest, view.settings, view.instance).refusals:
        message = f"{problem.key} is {problem.got}, and this host allows {problem.expected}"
        findings.append(Finding("error", "quota", message, problem.key, problem.line))
    findings += _import_findings(view)
    findings += manifest_findings.unserved_capabilities(view.manifest, view.settings.providers)
    findings += _symbolic_links(view)
    order = ("error", "warning", "note")
    return tuple(sorted(findings, key=lambda finding: (order.index(finding.severity), finding.line)))


def _import_findings(view: ComponentView) -> tuple[Finding, ...]:
    """What the wasm imports, as a confined process found it; this process never parses those bytes."""
    from supervisor.code.inspect import inspect_wasm

    summary = inspect_wasm(view.manifest.wasm_path, places.state_directory(None, os.environ, view.settings))
    if summary.error:
        return (Finding("error", "unreadable_wasm", summary.error, "component.wasm", 0),)
    return manifest_findings.uncovered_imports(summary.imports, view.manifest)


def _symbolic_links(view: ComponentView) -> list[Finding]:
    """Patterns are judged on real objects: one that leads through a symbolic link covers nothing."""
    findings = []
    for request, grant in zip(view.manifest.requests(), view.bound.grants, strict=True):
        if not request.action.startswith("filesystem."):
            continue
        prefix = manifest_asks.literal_prefix(grant.pattern_text)
        real = os.path.realpath(prefix)
        if real != prefix:
            message = f'{request.action} "{grant.pattern_text}" covers nothing: {prefix} is really {real}; write that'
            findings.append(Finding("warning", "symbolic_link", message, request.key, request.line))
    return findings


def _head(view: ComponentView) -> list[str]:
    component = view.manifest.component
    lines = [f"{component.name} {component.version}" + (f": {component.description}" if component.description else "")]
    started = " ".join(["program", component.wasm, *(f"{argument!r}" for argument in component.args)])
    lines.append(visible(f"  {started}"))
    if component.env:
        lines.append(visible("  environment " + " ".join(f"{name}={value}" for name, value in component.env)))
    for mount in component.mounts:
        lines.append(visible(f"  {mount.host} is seen as {mount.guest}"))
    limits = manifest_asks.describe_limits(view.manifest)
    if limits:
        lines.append("  limits " + ", ".join(limits))
    return lines


def _body(view: ComponentView, asks: Sequence[Ask], findings: Sequence[Finding]) -> list[str]:
    lines = [""]
    required, optional = [ask for ask in asks if ask.required], [ask for ask in asks if not ask.required]
    lines += (
        ["it asks to:", *ask_lines(required)] if required else ["it asks for nothing: no file, no network, no peer"]
    )
    if optional:
        lines += ["", "it would also like to, and starts without:", *ask_lines(optional)]
    if view.manifest.parameters:
        lines += ["", "parameters:", *(_parameter(view, each) for each in view.manifest.parameters)]
    if findings:
        lines += ["", "findings:", *(_finding(finding) for finding in findings)]
    missing = not_enforced(view.manifest, brokered=True)
    if missing:
        lines += ["", "not enforced by this version, so it is refused:", *(f"  {key}" for key in missing)]
    brokered = only_brokered(view.manifest)
    if brokered:
        lines += ["", "enforced by a broker, so for `airssys up` alone:", *(f"  {key}" for key in brokered)]
    return lines


def ask_lines(asks: Sequence[Ask]) -> list[str]:
    """Return what is asked for in words, a line or two each."""
    lines = []
    for ask in asks:
        word = paint(f"{ask.danger.word:<8}", _COLOURS[ask.danger], sys.stdout)
        lines.append(f"  {word}  {visible(ask.sentence)}")
        if ask.rationale:
            lines.append(f"            because: {visible(ask.rationale)}")
    return lines


def _parameter(view: ComponentView, parameter: Parameter) -> str:
    values = dict(view.bound.parameters)
    if parameter.name in view.unset:
        state = f"needed: --set {parameter.name}=VALUE"
    elif (
        isinstance(parameter.default, str) and values.get(parameter.name) is not None and "${tmp}" in parameter.default
    ):
        state = f"= {parameter.default}"
    else:
        state = f"= {values.get(parameter.name)}"
    words = f"  ({parameter.description})" if parameter.description else ""
    return visible(f"  {parameter.name}  {parameter.type}  {state}{words}")


def _finding(finding: Finding) -> str:
    place = f"Component.toml:{finding.line}: " if finding.line else ""
    severity = paint(f"{finding.severity:<8}", _SEVERITY_COLOURS[finding.severity], sys.stdout)
    return f"  {severity}  {place}{visible(finding.message)}"


def _rules(view: ComponentView) -> list[str]:
    identity = view.document().identity
    lines = ["", "access control entries (if all of it is granted):"]
    entries = [entry_of(grant, identity) for grant in view.bound.grants]
    lines += [
        visible(f'  {entry.effect} {entry.identity} {entry.action} "{entry.resource}"  {entry.source}')
        for entry in entries
    ]
    lines += ["", "permissions:"]
    lines += [visible(f"  {permission_of(grant)}") for grant in view.bound.grants]
    return lines


def to_json(view: ComponentView, asks: Sequence[Ask], findings: Sequence[Finding]) -> dict[str, object]:
    """Return everything under stable keys."""
    component, identity = view.manifest.component, view.document().identity
    values = dict(view.bound.parameters)
    return {
        "name": component.name,
        "version": component.version,
        "description": component.description,
        "wasm": component.wasm,
        "manifest_sha256": view.manifest.digest,
        "args": list(component.args),
        "env": dict(component.env),
        "mounts": {mount.guest: mount.host for mount in component.mounts},
        "asks": [ask.to_json() for ask in asks],
        "parameters": [
            {
                "name": each.name,
                "type": each.type,
                "description": each.description,
                "default": each.default,
                "value": None if each.name in view.unset else values.get(each.name),
            }
            for each in view.manifest.parameters
        ],
        "quota": format_quota(view.manifest.quota),
        "limits": {
            "timeout_ns": view.manifest.limits.timeout_ns,
            "fuel": view.manifest.limits.fuel,
            "output_bytes": view.manifest.limits.output_bytes,
            "max_payload_bytes": view.manifest.limits.max_payload_bytes,
        },
        "findings": [
            {
                "severity": finding.severity,
                "kind": finding.kind,
                "message": finding.message,
                "key": finding.key,
                "line": finding.line,
            }
            for finding in findings
        ],
        "not_enforced": list(not_enforced(view.manifest, brokered=True)),
        "only_under_up": list(only_brokered(view.manifest)),
        "acl": [
            {"identity": entry.identity, "action": entry.action, "resource": entry.resource, "effect": entry.effect}
            for entry in (entry_of(grant, identity) for grant in view.bound.grants)
        ],
        "permissions": [permission_of(grant) for grant in view.bound.grants],
    }
