"""`airssys doctor`: what this machine offers for confinement, what each missing thing costs, and how to mend it."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys

from supervisor.report import paint
from supervisor.terminal import visible

EX_UNAVAILABLE = 69

_COLOURS = {"found": "\x1b[32m", "partial": "\x1b[33m", "not": "\x1b[31m"}


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `doctor` command."""
    parser = subparsers.add_parser(
        "doctor",
        help="say what this machine offers for confinement, and how to mend what is missing",
        description="Probe every kernel feature that confinement uses, in child processes, and look for the programs "
        "of providers; nothing is changed.",
        epilog="example: airssys doctor --json\nexit code: 0 when every required layer can be had, else 69",
    )
    parser.add_argument("--config", metavar="FILE", help="another airssys.toml, whose providers are looked for")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(args: argparse.Namespace) -> int:
    """Probe, print the table, and return 0 when every required feature can be had, else 69 (EX_UNAVAILABLE)."""
    from supervisor.doctor.features import FEATURES, ready
    from supervisor.doctor.probes import describe_host, probe_all

    host = describe_host()
    findings = probe_all(host)
    usable = ready(findings)
    providers = find_providers(args.config)
    warnings = find_warnings(args.config)
    rows = [
        {
            "name": feature.name,
            "title": feature.title,
            "required": feature.required,
            "state": findings[feature.name].state,
            "detail": findings[feature.name].detail,
            "missing": list(findings[feature.name].missing),
            "cost": None if findings[feature.name].state == "found" else feature.cost,
            "mend": findings[feature.name].mend or None,
        }
        for feature in FEATURES
    ]
    if args.json:
        document = {
            "ready": usable,
            "kernel": host.release,
            "architecture": platform.machine(),
            "python": platform.python_version(),
            "uid": host.uid,
            "container": host.container or None,
            "features": rows,
            "providers": [
                {"name": name, "program": program, "problem": problem or None, "mend": hint or None}
                for name, program, problem, hint in providers
            ],
            "warnings": warnings,
        }
        print(json.dumps(document, indent=2))
        return 0 if usable else EX_UNAVAILABLE

    coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    print(f"Linux {host.release} {platform.machine()}, Python {platform.python_version()}, uid {host.uid}\n")
    width = max(len(feature.title) for feature in FEATURES)
    for feature in FEATURES:
        finding = findings[feature.name]
        state = f"{finding.state:7}"
        if coloured:
            state = f"{_COLOURS[finding.state]}{state}\x1b[0m"
        print(f"{state}  {feature.title:{width}}  {finding.detail}")
        if finding.state != "found":
            indent = " " * (width + 11)
            print(f"{indent}{'required' if feature.required else 'optional'}; without it: {feature.cost}")
            if finding.mend:
                print(f"{indent}to mend: {finding.mend}")
    if providers:
        print("\nproviders of custom capabilities, in airssys.toml:")
    for name, program, problem, hint in providers:
        print(visible(f"{'not' if problem else 'found':7}  {name}: {problem or program}"))
        if problem:
            print(visible(f"{'':9}to mend: {hint}"))
    for warning in warnings:
        print(f"\n{paint(visible(f'warning: {warning}'), '1;33', sys.stdout)}")
    print(
        f"\n{_conclusion(usable, [feature.title for feature in FEATURES if findings[feature.name].state != 'found'])}"
    )
    return 0 if usable else EX_UNAVAILABLE


def find_providers(config: str | None) -> list[tuple[str, str, str, str]]:
    """Return name, program, what is wrong with it and what mends that, of each provider that is configured."""
    from supervisor.config.settings_files import load_settings
    from supervisor.config.toml_source import ConfigFileError
    from supervisor.fleet.provider_check import provider_problems

    try:
        settings = load_settings(config, os.environ, os.geteuid())
    except ConfigFileError as error:
        return [("airssys.toml", "", str(error).splitlines()[0], "airssys config check")]
    first = {each.provider: each for each in reversed(provider_problems(settings.providers))}
    found = []
    for provider in settings.providers:
        problem = first.get(provider.name)
        wrong = ("", "") if problem is None else (problem.problem, problem.hint)
        found.append((provider.name, provider.program, *wrong))
    return found


def find_warnings(config: str | None) -> list[str]:
    """Return what is in force here that somebody should know of: dev mode."""
    from supervisor.config.dev_settings_view import dev_warnings
    from supervisor.config.settings_files import load_settings
    from supervisor.config.toml_source import ConfigFileError

    try:
        return dev_warnings(load_settings(config, os.environ, os.geteuid()))
    except ConfigFileError:  # which is told among the providers
        return []


def _conclusion(usable: bool, lacking: list[str]) -> str:
    if not usable:
        return "A required layer is missing: components are not started on this machine."
    if lacking:
        return f"Every required layer can be had. Not complete: {', '.join(lacking)}."
    return "Every layer can be had."
