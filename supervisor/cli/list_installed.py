"""`airssys list`: what is installed, in which versions, from where."""

from __future__ import annotations

import argparse
import json
import os
import sys

from supervisor.packages.installed import parse_name
from supervisor.packages.installed_view import HEADINGS, installed_json, installed_row

_EPILOG = """examples:
  airssys list                     what is installed, which version is active, and where it came from
  airssys list log-summary         every version of one, whatever its instance
  airssys list --json | jq -r '.installed[] | select(.active) | .name'
"""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `list` command."""
    parser = subparsers.add_parser("list", help="list what is installed", epilog=_EPILOG)
    parser.add_argument("name", metavar="NAME", nargs="?", help="only what is installed under this name")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--state-dir", metavar="DIR", help="where it is kept (or $AIRSSYS_STATE)")
    parser.add_argument("--config", metavar="FILE", help="the host's airssys.toml")


def run(args: argparse.Namespace) -> int:
    """Print it; 65 where nothing is installed under the name."""
    from supervisor.cli.targets import not_installed, trust_of
    from supervisor.config import places
    from supervisor.config.settings_files import load_settings
    from supervisor.control.client import find_socket
    from supervisor.control.status_view import table_lines
    from supervisor.fleet.last_healthy import LastHealthy, LastHealthyFiles, failed_words
    from supervisor.packages.installed import Installed
    from supervisor.packages.registry import FILE, Registry
    from supervisor.terminal import columns_of

    called = None if args.name is None else parse_name(args.name)
    settings = load_settings(args.config, os.environ, os.geteuid())
    state = places.state_directory(args.state_dir, os.environ, settings)
    found = []
    if os.path.lexists(os.path.join(state, FILE)):  # listing makes no file
        with Registry(state) as registry:
            every = registry.all()
            active = {each.called: registry.active(each.called) for each in every}
            found = [(each, active[each.called] == each) for each in every]
    if called is not None:
        found = [
            (each, is_active)
            for each, is_active in found
            if each.name == called.name and called.instance in ("", each.instance)
        ]
        if not found:
            raise not_installed(called, [])
    # A supervisor has its state in the working directory, unless it was told otherwise.
    socket = find_socket(None, args.state_dir, os.environ, os.getcwd()).path
    files = [LastHealthyFiles(each) for each in dict.fromkeys((os.path.dirname(socket), state))]

    def last_healthy(installed: Installed) -> LastHealthy:
        read = [each.read(installed.name) for each in files] if not installed.instance else []
        return next((each for each in read if each.package), LastHealthy())

    if args.json:
        document = [
            {
                **installed_json(each, trust_of(each, settings)),
                "active": is_active,
                "failed": failed.reason if (failed := last_healthy(each).failure(each.digest)) is not None else None,
            }
            for each, is_active in found
        ]
        print(json.dumps({"installed": document}, indent=2))
    elif not found:
        print("nothing is installed")
    else:
        rows = [installed_row(each, is_active, trust_of(each, settings)) for each, is_active in found]
        print("\n".join(table_lines(rows, HEADINGS, columns_of(sys.stdout))))
        for each, is_active in found:
            known = last_healthy(each)
            failed = known.failure(each.digest) if is_active else None
            if failed is not None and known.instead_of(each.digest, [other.digest for other, _ in found]):
                words = failed_words(each.name, f"runs {known.version}", known.version, each.version, failed.reason)
                print(f"{each.called.text}: {words}")
    return 0
