"""`airssys up TARGET...`: several components in one supervisor, until Ctrl-C or `airssys down`."""

from __future__ import annotations

import argparse
import contextlib
import os

from ipc.errors import ConfigError
from supervisor.cli.run import add_dev_option, add_host_options, duration, refuse_dev_and_grant, size
from supervisor.host.processes import Processes
from supervisor.packages.target import is_path
from supervisor.terminal import visible

_EPILOG = """examples:
  airssys up ./counter ./reporter                asks for each what it may, once; shows what happens
  airssys up counter reporter                    what is installed under these names
  airssys up ./counter --grant asked             without a question, as in a script
  airssys up ./counter --dev                     what you write: asks nobody, allows its own and the working directory
  airssys up ./job-a ./job-b --until-done        ends when they have; 1 if one failed
  airssys status                                 from another terminal: how they are
  airssys logs counter -f                        what one of them prints
  airssys down                                   ends it, in order

State is kept in .airssys of the working directory, unless --state-dir, $AIRSSYS_STATE or airssys.toml says otherwise.
Ctrl-C ends everything in order within five seconds; a second one at once.
"""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `up` command."""
    parser = subparsers.add_parser(
        "up",
        help="keep several components up, which may send each other messages",
        epilog=_EPILOG,
        usage="airssys up TARGET... [options]",
    )
    parser.add_argument(
        "targets", nargs="+", metavar="TARGET", help="an installed NAME, or a directory with a Component.toml"
    )
    parser.add_argument(
        "--grant", metavar="asked|FILE", help="grant what is asked, or (for one) what FILE says, without a question"
    )
    add_dev_option(parser)
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="bind a parameter, in each that has it"
    )
    parser.add_argument(
        "--secret",
        action="append",
        default=[],
        metavar="K=FILE",
        help="a variable's value from a file, for each that asks for it",
    )
    parser.add_argument(
        "--until-done", action="store_true", help="end when nothing runs any more; with 1 if a component failed"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document a line for what happens")
    parser.add_argument("-q", "--quiet", action="store_true", help="print nothing but errors")
    limits = parser.add_argument_group("limits")
    limits.add_argument(
        "--compile-timeout",
        type=duration,
        metavar="TIME",
        default="600s",
        help="for each (default: %(default)s)",
    )
    limits.add_argument(
        "--compile-memory", type=size, metavar="SIZE", default="8GiB", help="for each (default: %(default)s)"
    )
    add_host_options(parser)


def run(args: argparse.Namespace) -> int:
    """Bring them up, and stay until the end."""
    refuse_dev_and_grant(args)
    for target in args.targets:
        if is_path(target) and not os.path.isdir(target):
            raise ConfigError(
                f"{visible(target)}: not a directory",
                hint="name directories that hold a Component.toml, or what is installed",
            )
    with contextlib.ExitStack() as stack:
        processes = stack.enter_context(Processes(not args.no_namespaces, args.layer_off, actors=True))
        from supervisor.cli.up_fleet import bring_up

        return bring_up(args, processes)
