"""`airssys doctor`: what this machine offers for confinement, what each missing thing costs, and how to mend it."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys

EX_UNAVAILABLE = 69

_COLOURS = {"found": "\x1b[32m", "partial": "\x1b[33m", "not": "\x1b[31m"}


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `doctor` command."""
    parser = subparsers.add_parser(
        "doctor",
        help="say what this machine offers for confinement, and how to mend what is missing",
        description="Probe every kernel feature that confinement uses, in child processes; nothing is changed.",
        epilog="example: airssys doctor --json\nexit code: 0 when every required layer can be had, else 69",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(args: argparse.Namespace) -> int:
    """Probe, print the table, and return 0 when every required feature can be had, else 69 (EX_UNAVAILABLE)."""
    from supervisor.features import FEATURES, ready
    from supervisor.probes import describe_host, probe_all

    host = describe_host()
    findings = probe_all(host)
    usable = ready(findings)
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
    print(
        f"\n{_conclusion(usable, [feature.title for feature in FEATURES if findings[feature.name].state != 'found'])}"
    )
    return 0 if usable else EX_UNAVAILABLE


def _conclusion(usable: bool, lacking: list[str]) -> str:
    if not usable:
        return "A required layer is missing: components are not started on this machine."
    if lacking:
        return f"Every required layer can be had. Not complete: {', '.join(lacking)}."
    return "Every layer can be had."
