"""`airssys status [NAME]`: how the components of a running supervisor are."""

from __future__ import annotations

import argparse
import json
import sys
import time

from supervisor.cli.asking import add_socket_options, address_of
from supervisor.control.client import ControlClient
from supervisor.control.messages import ComponentStatus, GetStatus, ProviderStatus, SupervisorStatus
from supervisor.control.status_view import (
    COLOURS,
    component_details,
    component_json,
    provider_json,
    provider_line,
    status_row,
    supervisor_json,
    supervisor_lines,
    table_lines,
)
from supervisor.report import paint
from supervisor.terminal import columns_of

_EPILOG = """examples:
  airssys status                     all components of the supervisor of this directory, or of one above
  airssys status counter             one of them, in detail
  airssys status --json              stable keys, one document

Exit: 69 where no supervisor answers, 77 where this user may not ask, 65 for a name that isn't there.
"""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `status` command."""
    parser = subparsers.add_parser("status", help="say how the components of a supervisor are", epilog=_EPILOG)
    parser.add_argument("name", nargs="?", default="", metavar="NAME", help="one component")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    add_socket_options(parser)


def run(args: argparse.Namespace) -> int:
    """Ask, and print."""
    address = address_of(args)
    about: SupervisorStatus | None = None
    components: list[ComponentStatus] = []
    providers: list[ProviderStatus] = []
    with ControlClient(address) as client:
        for part, _ in client.ask(GetStatus(args.name)):
            if isinstance(part, SupervisorStatus):
                about = part
            elif isinstance(part, ComponentStatus):
                components.append(part)
            elif isinstance(part, ProviderStatus):
                providers.append(part)
    assert about is not None, "an answer begins with who answers"
    if args.json:
        document: dict[str, object] = {
            "supervisor": supervisor_json(about, address.found_by),
            "components": [component_json(each) for each in components],
            "providers": [provider_json(each) for each in providers],
        }
        print(json.dumps(document, indent=2))
        return 0
    for line in supervisor_lines(about, address.found_by):
        print(paint(line, "2", sys.stdout))
    now_ns = time.time_ns()
    heading, *rows = table_lines([status_row(each, now_ns) for each in components], columns=columns_of(sys.stdout))
    print(paint(heading, "2", sys.stdout))
    for each, row in zip(components, rows, strict=True):
        colour = "1;33" if each.trust == "dev" else COLOURS.get(each.phase)
        print(row if colour is None else paint(row, colour, sys.stdout))
        if args.name:
            print("\n".join(component_details(each)))
    for provider in providers:
        line = provider_line(provider)
        print(paint(line, "31", sys.stdout) if provider.state == "failing" else line)
    return 0
