"""`airssys logs NAME`: what a component printed, also after its end and its supervisor's."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import select
import sys
import time
from collections.abc import Iterator

from ipc.errors import ConfigError
from supervisor.cli.asking import add_socket_options, address_of
from supervisor.config.units import UnitError, parse_duration_ns
from supervisor.control.client import Address, ControlClient, NobodyAnswersError
from supervisor.control.messages import LogFiles, OpenLogs
from supervisor.fleet.output_log import SYSTEM, open_log_files
from supervisor.fleet.output_view import OutputLine, OutputReader, check_log_name, since_text
from supervisor.report import paint
from supervisor.terminal import visible
from supervisor.usage_error import UsageError

_EPILOG = """examples:
  airssys logs counter                        all that is kept of it, from its last runs too
  airssys logs counter -f                     and what comes, until Ctrl-C or the supervisor's end
  airssys logs counter --since 10min          or --since 2026-11-26T14:00:00Z
  airssys logs counter --plain > output.txt   only what it printed itself, without times

Control characters of what it printed are shown escaped. A supervisor that has ended leaves the log in its state
directory, where it is read from then.
"""
_POLL_S = 0.2
_TIME = re.compile(r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?)?Z?")


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `logs` command."""
    parser = subparsers.add_parser("logs", help="show what a component printed, also after its end", epilog=_EPILOG)
    parser.add_argument("name", metavar="NAME", help="the component, or provider.NAME")
    parser.add_argument("-f", "--follow", action="store_true", help="go on with what comes")
    parser.add_argument(
        "--since", metavar="TIME", help="how long ago, such as 10min, or a time in UTC, such as 2026-11-26T14:00Z"
    )
    parser.add_argument("--plain", action="store_true", help="only what the component printed, without times")
    parser.add_argument("--json", action="store_true", help="print one JSON document a line")
    add_socket_options(parser)


def run(args: argparse.Namespace) -> int:
    """Print what is there, and with --follow what comes."""
    if check_log_name(args.name) is not None:
        raise ConfigError(f"'{visible(args.name)}' can't be a component's name", hint="which there are: airssys status")
    since = _since(args.since)
    address = address_of(args)
    try:
        client = ControlClient(address)
    except NobodyAnswersError as error:
        return _from_files(args, address, since, error)
    with client:
        _follow(args, client, since) if args.follow else _print_all(args, _ask(args, client), since)
    return 0


def _since(text: str | None) -> str:
    """Return the time from which lines are shown, as lines have it; "" for all. Raises UsageError."""
    if text is None:
        return ""
    if _TIME.fullmatch(text):
        # A prefix of how lines have it sorts before all that begin with it.
        return text.replace(" ", "T").removesuffix("Z")
    try:
        return since_text(time.time_ns() - parse_duration_ns(text))
    except UnitError:
        raise UsageError(
            f"--since {visible(text)}: expected a duration or a time", hint="such as 10min, or 2026-11-26T14:00Z"
        ) from None


def _ask(args: argparse.Namespace, client: ControlClient) -> list[int]:
    opened: list[int] = []
    for part, descriptors in client.ask(OpenLogs(args.name)):
        assert isinstance(part, LogFiles)
        opened += descriptors
    return opened


def _from_files(args: argparse.Namespace, address: Address, since: str, error: NobodyAnswersError) -> int:
    """Read the files that a supervisor has left; where there are none, nobody answers."""
    directory = os.path.join(os.path.dirname(address.path), "logs")
    try:
        opened = open_log_files(directory, args.name)
    except OSError:
        opened = []
    if not opened:
        raise error
    _print_all(args, opened, since)
    return 0


def _print_all(args: argparse.Namespace, opened: list[int], since: str) -> None:
    with _closing(opened):
        for descriptor in opened:
            for line in OutputReader(descriptor).lines(since):
                _print(args, line)
    sys.stdout.flush()


@contextlib.contextmanager
def _closing(opened: list[int]) -> Iterator[None]:
    try:
        yield
    finally:
        for descriptor in opened:
            os.close(descriptor)


def _follow(args: argparse.Namespace, client: ControlClient, since: str) -> None:
    """Print what is there and what comes; a file that was put aside is read to its end, then the next one."""
    readers: dict[int, OutputReader] = {}
    opened, ended = _ask(args, client), False
    poller = select.poll()
    poller.register(client.fileno(), select.POLLIN)
    with contextlib.ExitStack() as stack:
        while True:
            for descriptor in opened:
                inode = os.fstat(descriptor).st_ino
                if inode in readers:
                    os.close(descriptor)
                else:
                    stack.callback(os.close, descriptor)
                    readers[inode] = OutputReader(descriptor)
            for reader in readers.values():
                for line in reader.lines(since):
                    _print(args, line)
            sys.stdout.flush()
            if ended:
                return
            # Nothing is said unasked: what is readable is the end of the connection.
            ended = bool(poller.poll(_POLL_S * 1000))
            try:
                opened = [] if ended else _ask(args, client)
            except NobodyAnswersError:
                ended, opened = True, []


def _print(args: argparse.Namespace, line: OutputLine) -> None:
    if args.json:
        print(json.dumps(line.to_json()))
    elif args.plain:
        if line.stream != SYSTEM:
            print(line.shown(), end="\n" if line.whole else "")
    else:
        marks = {"stdout": "out", "stderr": "err", "system": "-- "}
        mark, shown = line.logged() or (marks[line.stream], line.shown())
        text = f"{line.time[:23].replace('T', ' ')} {mark} {shown}{'' if line.whole else ' …'}"
        print(paint(text, "2", sys.stdout) if line.stream == SYSTEM else text)
