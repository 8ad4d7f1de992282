"""`airssys quota [COMPONENT]`: how full the quotas of running components are."""

from __future__ import annotations

import argparse
import json
import sys
import time

from supervisor.cli.asking import add_socket_options, address_of
from supervisor.control.client import ControlClient
from supervisor.control.messages import GetQuotas, QuotaStatus
from supervisor.control.status_view import QUOTA_HEADINGS, quota_level, quota_row, table_lines
from supervisor.report import paint

_EPILOG = """examples:
  airssys quota                      every quota of every component of the supervisor
  airssys quota counter --watch      one component's, again and again until Ctrl-C
  airssys quota --json               stable keys

ok below 80 %, warning from 80 %, critical from 95 %, exceeded above the limit.
"""
_INTERVAL_S = 1.0
_COLOURS = {"warning": "33", "critical": "31", "exceeded": "31"}


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `quota` command."""
    parser = subparsers.add_parser("quota", help="say how full the quotas of running components are", epilog=_EPILOG)
    parser.add_argument("name", nargs="?", default="", metavar="COMPONENT", help="one component")
    parser.add_argument("--json", action="store_true", help="print one JSON document, with --watch one a line")
    parser.add_argument("--watch", action="store_true", help="again each second, until Ctrl-C")
    add_socket_options(parser)


def run(args: argparse.Namespace) -> int:
    """Ask, and print."""
    with ControlClient(address_of(args)) as client:
        while True:
            found = [part for part, _ in client.ask(GetQuotas(args.name)) if isinstance(part, QuotaStatus)]
            _print(args, found)
            if not args.watch:
                return 0
            time.sleep(_INTERVAL_S)


def _print(args: argparse.Namespace, found: list[QuotaStatus]) -> None:
    if args.json:
        quotas = [
            {"component": each.component, **quota_level(each).to_json(), "part": each.part or None, "peak": each.peak}
            for each in found
        ]
        document: dict[str, object] = {"quotas": quotas}
        if args.watch:
            document["time"] = time.time()
        print(json.dumps(document, indent=None if args.watch else 2), flush=True)
        return
    if args.watch and sys.stdout.isatty():
        print("\x1b[H\x1b[2J", end="")
    headings, *lines = table_lines([quota_row(each) for each in found], QUOTA_HEADINGS)
    print(headings)
    for each, line in zip(found, lines, strict=True):
        colour = _COLOURS.get(quota_level(each).status)
        print(line if colour is None else paint(line, colour, sys.stdout))
    sys.stdout.flush()
