"""`airssys trust list|check`: which sources are trusted here, and whether something would be, by which of them."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from typing import TYPE_CHECKING

from ipc.struct import replace
from supervisor.cli.main import EX_NOPERM
from supervisor.config import places
from supervisor.config.settings_files import load_settings
from supervisor.terminal import visible

if TYPE_CHECKING:
    from supervisor.config.settings import Settings
    from supervisor.packages.installed import Installed
    from supervisor.trust.sources import TrustSource
    from supervisor.trust.target import TrustAnswer

_EPILOG = """examples:
  airssys trust list                               what is trusted here, where that is written, and what is too broad
  airssys trust check ./log-summary                a directory: its real path, and who has signed it
  airssys trust check log-summary                  what is installed: where it came from, and who had signed it
  airssys trust check https://git.example.com/plugins/csv.git --branch main
  airssys trust check oci://registry.example.com/plugins/csv:1.0

A component from a trusted source is granted what it asks for without a question. Sources are written in airssys.toml,
[[trust.sources]]; nothing that a component says of itself counts.
"""

_NOTHING = """nothing is trusted: there is no [[trust.sources]] in airssys.toml
  what an entry for something would be: airssys trust check TARGET"""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `trust` command with its own two."""
    parser = subparsers.add_parser("trust", help="say which sources are trusted, and whether one is", epilog=_EPILOG)
    commands = parser.add_subparsers(dest="trust_command", metavar="COMMAND", required=True)
    listing = commands.add_parser("list", help="what is trusted here", epilog="example: airssys trust list --json")
    check = commands.add_parser(
        "check",
        help="whether something would be trusted, by which entry, and what came nearest if not",
        epilog="example: airssys trust check git@git.example.com:plugins/csv.git --branch main\n"
        "exit code: 0 trusted, 77 not",
    )
    check.add_argument(
        "target",
        metavar="TARGET|URL",
        help="an installed NAME, a directory, an archive, a git repository's URL, or oci://HOST/NAME",
    )
    check.add_argument("--state-dir", metavar="DIR", help="where it is installed (or $AIRSSYS_STATE)")
    check.add_argument("--branch", metavar="B", help="as if this branch of a git repository had been fetched")
    for command in (listing, check):
        command.add_argument("--json", action="store_true", help="print one JSON document")
        command.add_argument("--config", metavar="FILE", help="another airssys.toml")


def run(args: argparse.Namespace) -> int:
    """List, or check; 77 for what isn't trusted."""
    settings = load_settings(args.config, os.environ, os.geteuid())
    return _list(settings, args.json) if args.trust_command == "list" else _check(settings, args)


def _list(settings: Settings, as_json: bool) -> int:
    from supervisor.trust.warnings import source_warnings

    now_s = int(time.time())
    found = [(source, source_warnings(source, settings, now_s)) for source in settings.trust_sources]
    if as_json:
        entries = [{**to_json(source), "warnings": list(warnings)} for source, warnings in found]
        print(json.dumps({"sources": entries}, indent=2))
        return 0
    if not found:
        print(_NOTHING)
        return 0
    for source, warnings in found:
        print(visible(f"{source.index}  {source.name}{_validity(source)}  {source.origin}"))
        for warning in warnings:
            print(visible(f"   warning: {warning}"))
    return 0


def _check(settings: Settings, args: argparse.Namespace) -> int:
    from supervisor.trust.breadth import breadth_warning
    from supervisor.trust.decide import describe_source

    answer = _answer(settings, args)
    decision = answer.decision
    trusted = decision.level == "trusted"
    warnings = [*filter(None, [breadth_warning(decision.source) if decision.source is not None else ""])]
    warnings += _dev_warnings(settings, args.target, answer)
    if args.json:
        print(json.dumps(_answer_json(args.target, answer, warnings), indent=2))
        return 0 if trusted else EX_NOPERM
    if decision.source is not None:
        print(visible(f"trusted: {args.target}"))
        print(visible(f"  by {describe_source(decision.source)}"))
    else:
        print(visible(f"not trusted: {args.target}"))
        print(visible(f"  {decision.reason}"))
    for line in answer.facts:
        print(visible(f"  {line}"))
    if answer.to_trust:
        keys = answer.to_trust.replace("\n", " and ")
        print(visible(f"  to trust it: {keys}   in an entry of [[trust.sources]] in airssys.toml"))
    for warning in warnings:
        print(visible(f"  warning: {warning}"), file=sys.stderr)
    return 0 if trusted else EX_NOPERM


def _answer(settings: Settings, args: argparse.Namespace) -> TrustAnswer:
    """Return the answer about what is installed under a name, else about a path or a URL."""
    from supervisor.trust.target import check_installed, check_target

    installed = None if args.branch is not None else _installed(settings, args)
    if installed is not None:
        return check_installed(installed, settings.trust_sources)
    return check_target(args.target, args.branch, settings.trust_sources)


def _dev_warnings(settings: Settings, target: str, answer: TrustAnswer) -> list[str]:
    """Return that it starts in dev mode, whatever is trusted, where the settings say so."""
    if not settings.dev:
        return []
    from supervisor.config.dev_settings_view import dev_warnings

    named = [
        each
        for each in settings.dev
        if (each.directory == answer.provenance.url if each.directory else each.identity == target)
    ]
    return dev_warnings(replace(settings, dev=tuple(named)))


def _installed(settings: Settings, args: argparse.Namespace) -> Installed | None:
    """Return what is installed under the name that is asked about; None for a path, a URL, and what is only a file."""
    from supervisor.cli.targets import NotInstalledError, find_installed
    from supervisor.packages.installed import NotANameError
    from supervisor.packages.target import is_path

    if is_path(args.target) or ":" in args.target:
        return None
    exists = os.path.lexists(args.target)
    try:
        return find_installed(args.target, places.state_directory(args.state_dir, os.environ, settings))
    except (NotANameError, NotInstalledError):
        if not exists:
            raise
    return None


def _answer_json(target: str, answer: TrustAnswer, warnings: list[str]) -> dict[str, object]:
    decision = answer.decision
    return {
        "target": target,
        "kind": answer.provenance.kind,
        "url": answer.provenance.url,
        "branch": answer.provenance.branch or None,
        "trusted": decision.level == "trusted",
        "level": decision.level,
        "rule": None if decision.source is None else to_json(decision.source),
        "reason": decision.reason,
        "nearest": None if decision.nearest is None else to_json(decision.nearest),
        "to_trust": answer.to_trust or None,
        "digest": answer.digest or None,
        "signers": [key.fingerprint for key in answer.signers],
        "warnings": warnings,
    }


def to_json(source: TrustSource) -> dict[str, object]:
    """Return one entry under stable keys."""
    from supervisor.trust.sources import written_keys

    return {
        "index": source.index,
        "form": source.form,
        "pattern": source.pattern,
        "origin": source.origin,
        **{key: value for key, value in written_keys(source).items() if key != source.form and value is not None},
    }


def _validity(source: TrustSource) -> str:
    from supervisor.trust.sources import KeySource, format_time

    if not isinstance(source, KeySource):
        return ""
    words = [source.key.kind]
    if source.revoked:
        words.append("revoked")
    if source.valid_after_s is not None:
        words.append(f"from {format_time(source.valid_after_s)}")
    if source.valid_before_s is not None:
        words.append(f"until {format_time(source.valid_before_s)}")
    return f"  {', '.join(words)}"
