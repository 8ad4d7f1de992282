"""`airssys config check|show`: what is wrong with airssys.toml, and what is in force, with where it came from."""

from __future__ import annotations

import argparse
import json
import os
import sys

from ipc.struct import asdict
from supervisor.cli.main import EX_DATAERR
from supervisor.cli.problems import print_problems
from supervisor.config.dev_settings_view import dev_warnings
from supervisor.config.settings import Settings, settings_not_enforced
from supervisor.config.settings_files import default_config_path, load_settings
from supervisor.config.toml_source import ConfigFileError
from supervisor.terminal import visible

_EPILOG = """examples:
  airssys config check                        every problem of airssys.toml and airssys.d, with file and line
  airssys config check --config new.toml      of another file, before it is put in place
  airssys config show --origin                what is in force, and which file, variable or flag says so
"""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `config` command with its own two."""
    parser = subparsers.add_parser("config", help="check and show the host's settings", epilog=_EPILOG)
    commands = parser.add_subparsers(dest="config_command", metavar="COMMAND", required=True)
    check = commands.add_parser(
        "check",
        help="what is wrong with airssys.toml",
        epilog="example: airssys config check --config new.toml\nexit code: 0 right, 65 not",
    )
    show = commands.add_parser("show", help="what is in force", epilog="example: airssys config show --origin")
    show.add_argument("--origin", action="store_true", help="say where each setting came from")
    show.add_argument("--state-dir", metavar="DIR", help="as for `airssys run` (or $AIRSSYS_STATE)")
    for command in (check, show):
        command.add_argument("--json", action="store_true", help="print one JSON document")
        command.add_argument("--config", metavar="FILE", help="another airssys.toml")


def run(args: argparse.Namespace) -> int:
    """Check, or show; 65 where the files can't be used."""
    try:
        settings = load_settings(args.config, os.environ, os.geteuid())
    except ConfigFileError as error:
        return print_problems(error, args.json)
    return _check(settings, args) if args.config_command == "check" else _show(settings, args)


def _check(settings: Settings, args: argparse.Namespace) -> int:
    from supervisor.fleet.provider_check import provider_problems

    unsupported = settings_not_enforced(settings)
    warnings = [*dev_warnings(settings), *_trust_warnings(settings), *_control_warnings(settings)]
    problems = provider_problems(settings.providers)
    if args.json:
        document = {
            "files": list(settings.files),
            "not_enforced": list(unsupported),
            "providers": [asdict(problem) for problem in problems],
            "warnings": warnings,
        }
        print(json.dumps(document, indent=2))
        return EX_DATAERR if problems else 0
    for problem in problems:
        origin = settings.origins.get(("providers", problem.provider, problem.key), "airssys.toml")
        print(visible(f"{origin}: providers.{problem.provider}.{problem.key}: {problem.problem}"), file=sys.stderr)
        print(visible(f"    {problem.hint}"), file=sys.stderr)
    if problems:
        return EX_DATAERR
    if settings.files:
        print("\n".join(visible(f"{file}: right") for file in settings.files))
    else:
        path = default_config_path(os.environ, os.geteuid())
        print(visible(f"no file: the defaults are in force; settings would be read from {path}"))
        print("  another file: --config FILE, or $AIRSSYS_CONFIG")
    for warning in warnings:
        print(visible(f"warning: {warning}"))
    if unsupported:
        print("not enforced by this version, so `airssys run` refuses it:")
        print("\n".join(visible(f"  {key}") for key in unsupported))
    return 0


def _control_warnings(settings: Settings) -> list[str]:
    """Say who is named that isn't there: no fault of a file for another machine, and here nobody is answered."""
    from ipc.errors import ConfigError
    from supervisor.control.roles import own_roles

    try:
        own_roles(settings.control)
    except ConfigError as error:
        return [error.message]
    return []


def _trust_warnings(settings: Settings) -> list[str]:
    if not settings.trust_sources:
        return []
    import time

    from supervisor.trust.decide import describe_source
    from supervisor.trust.warnings import source_warnings

    now_s = int(time.time())
    return [
        f"{describe_source(source)}: {warning}"
        for source in settings.trust_sources
        for warning in source_warnings(source, settings, now_s)
    ]


def _show(settings: Settings, args: argparse.Namespace) -> int:
    from supervisor.config.settings_view import effective_settings

    effective = effective_settings(settings, os.environ, os.geteuid(), args.state_dir)
    if args.json:
        found = {
            each.key: {
                "value": each.value,
                "origin": {"kind": each.kind, "place": each.place or None, "line": each.line or None},
            }
            for each in effective
        }
        print(json.dumps({"files": list(settings.files), "settings": found}, indent=2))
        return 0
    for warning in dev_warnings(settings):
        print(visible(f"airssys: warning: {warning}"), file=sys.stderr)
    for each in effective:
        # What isn't set has no form in TOML; of all else JSON's is TOML's too.
        written = json.dumps(each.value, ensure_ascii=False)
        line = f"# {each.key} is not set" if each.value is None else f"{each.key} = {written}"
        print(visible(f"{line}  # {each.origin}" if args.origin else line))
    return 0
