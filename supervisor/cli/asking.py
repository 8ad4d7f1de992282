"""What the commands have in common that ask a running supervisor."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence

from supervisor.control.client import ANSWER_WITHIN_S, Address, ControlClient, find_socket
from supervisor.control.messages import Part, Request


def add_socket_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which supervisor is asked."""
    where = parser.add_argument_group(
        "which supervisor",
        "--socket, else $AIRSSYS_SOCKET, else of --state-dir or $AIRSSYS_STATE,\n"
        "  else of the nearest .airssys/ upwards, else the system's",
    )
    where.add_argument("--socket", metavar="PATH", help="its control socket")
    where.add_argument("--state-dir", metavar="DIR", help="its state directory (or $AIRSSYS_STATE)")


def address_of(args: argparse.Namespace) -> Address:
    """Return which supervisor the arguments and the surroundings mean."""
    return find_socket(args.socket, args.state_dir, os.environ, os.getcwd())


def ask_once(
    args: argparse.Namespace,
    request: Request,
    descriptors: Sequence[int] = (),
    within_s: float | None = ANSWER_WITHIN_S,
) -> Iterator[tuple[Part, list[int]]]:
    """Connect, ask, and yield the parts of the answer."""
    with ControlClient(address_of(args)) as client:
        yield from client.ask(request, descriptors, within_s)
