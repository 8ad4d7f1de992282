"""`airssys down`: end a running supervisor and its components, in order."""

from __future__ import annotations

import argparse
import json

from supervisor.cli.asking import add_socket_options, address_of
from supervisor.control.client import ControlClient
from supervisor.control.messages import ShutDown

_EPILOG = """examples:
  airssys down                                  the supervisor of this directory, or of one above
  airssys down --socket /srv/a/.airssys/control.sock

It returns when every component has ended; who doesn't within three seconds is killed.
Exit: 69 where no supervisor answers, 77 where this user may not end it.
"""
_WITHIN_S = 15.0


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `down` command."""
    parser = subparsers.add_parser("down", help="end a supervisor and its components, in order", epilog=_EPILOG)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    add_socket_options(parser)


def run(args: argparse.Namespace) -> int:
    """Ask for the end, and wait for it."""
    address = address_of(args)
    with ControlClient(address) as client:
        for _ in client.ask(ShutDown(), within_s=_WITHIN_S):
            pass
    if args.json:
        print(json.dumps({"ended": address.path, "found_by": address.found_by}))
    else:
        print(f"ended: the supervisor at {address.path}")
    return 0
