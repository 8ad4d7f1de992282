"""`airssys run`: a component directory (asks once), or a bare program whose flags are the grant."""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
from collections.abc import Callable

from ipc.errors import ConfigError
from supervisor.config.units import UnitError, parse_duration_ns, parse_size_bytes
from supervisor.host.processes import Processes
from supervisor.packages.target import is_path
from supervisor.terminal import visible
from supervisor.usage_error import UsageError

_EPILOG = """examples:
  airssys run ./log-summary --set logs=/var/log/app       asks what it may, once, then runs
  airssys run log-summary                                 what is installed under that name (airssys install)
  airssys run ./log-summary --grant asked --json          no question; one JSON document on stdout
  airssys run prog.wasm --read in/ --write 'out/*.json' -- in/a.csv
  airssys run prog.wasm --dir data::/data --read data --memory 64MB --timeout 10s
  airssys run prog.wasm --secret API_TOKEN=./token --env TZ=UTC
  airssys run prog.wasm --ask --write-manifest Component.toml -- in/a.csv     asks, and keeps the answers

A directory after --read, --write or --list means all beneath it. Paths are the host's; the guest sees them under the
same names, and `.` is the working directory, which by itself grants nothing. Exit: the guest's own code; trap 134; over
a limit 75; refused 77; the outcome in --json tells them apart.
"""


def size(text: str) -> int:
    """Read an option that is a size."""
    return _quantity(parse_size_bytes, text)


def duration(text: str) -> int:
    """Read an option that is a time."""
    duration_ns = _quantity(parse_duration_ns, text)
    if not duration_ns:
        raise argparse.ArgumentTypeError(f"expected a time longer than nothing, got {text!r}")
    return duration_ns


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 20 and 0 < int(text) < 2**63):
        raise argparse.ArgumentTypeError(f"expected a positive whole number, got {text!r}")
    return int(text)


def _quantity(parse: Callable[[str], int], text: str) -> int:
    """Read a quantity; what can't be read is a usage error of that option."""
    try:
        return parse(text)
    except UnitError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `run` command."""
    parser = subparsers.add_parser(
        "run",
        help="run a component or a bare WebAssembly program, confined",
        epilog=_EPILOG,
        usage="airssys run TARGET [options] [-- ARGS...]",
    )
    parser.add_argument(
        "target", metavar="TARGET", help="an installed NAME, a directory with a Component.toml, or a .wasm file"
    )
    add_grant_options(parser)
    finding = parser.add_argument_group("finding out what it needs")
    finding.add_argument(
        "--ask", action="store_true", help="hold each call that no grant covers, and ask on the terminal"
    )
    add_dev_option(finding)
    finding.add_argument(
        "--write-manifest", metavar="FILE", help="write a Component.toml that asks for exactly what this run used"
    )
    add_component_options(parser)
    add_limit_options(parser).add_argument(
        "--timeout", type=duration, metavar="TIME", help="wall clock time, such as 30s (default: none)"
    )
    output = parser.add_argument_group("output")
    output.add_argument("--json", action="store_true", help="capture the streams; print one JSON document on stdout")
    output.add_argument("--report", metavar="FILE", help="write that document to FILE and leave the streams alone")
    output.add_argument("--raw-output", action="store_true", help="let terminal control sequences of the guest through")
    output.add_argument(
        "-q",
        "--quiet",
        action="store_true",
        help="say nothing on stderr, but what ended it where it didn't end by itself",
    )
    output.add_argument(
        "--fail-on-denied", action="store_true", help="exit with 77 in place of 0 if anything was denied"
    )
    add_host_options(parser)


def add_dev_option(parser: argparse._ActionsContainer) -> None:
    """Add the option that asks nobody."""
    parser.add_argument(
        "--dev",
        action="store_true",
        help="allow all beneath its own and the working directory, hidden names excepted; list what else it wants",
    )


def refuse_dev_and_grant(args: argparse.Namespace) -> None:
    """Raise UsageError where it is said twice what a component may."""
    if args.dev and args.grant is not None:
        raise UsageError("--dev and --grant exclude each other: each says what it may")


def add_grant_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that are a bare program's grant."""
    grants = parser.add_argument_group("what it may (bare program)")
    for verb, text in (("read", "read files"), ("write", "create, change and remove files"), ("list", "see names")):
        grants.add_argument(
            f"--{verb}", action="append", default=[], metavar="PATH", help=f"{text}: a path or a quoted pattern"
        )
    grants.add_argument(
        "--dir",
        action="append",
        default=[],
        metavar="HOST[::GUEST]",
        help="show a directory under a name; grants nothing",
    )
    grants.add_argument("--env", action="append", default=[], metavar="K[=V]", help="set a variable, or pass ours on")
    grants.add_argument(
        "--secret", action="append", default=[], metavar="K=FILE", help="set a variable from a file; shown nowhere"
    )


def add_component_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what a component directory is granted."""
    component = parser.add_argument_group("what it may (component directory)")
    component.add_argument(
        "--grant", metavar="asked|FILE", help="grant what is asked, or what FILE says, without a question"
    )
    component.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="bind a parameter")


def add_limit_options(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Add the options that bound it, but for the timeout; return their group."""
    limits = parser.add_argument_group("limits")
    limits.add_argument("--memory", type=size, metavar="SIZE", help="memory, such as 256MB (the default)")
    limits.add_argument(
        "--storage", type=size, metavar="SIZE", help="what it may store in files, such as 100MB (the default)"
    )
    limits.add_argument(
        "--cpu-time",
        type=duration,
        metavar="TIME",
        help="CPU time in whole seconds, such as 10s (default: none)",
    )
    limits.add_argument(
        "--fuel", type=_positive, metavar="N", help="WebAssembly instructions, roughly; for deterministic ends"
    )
    limits.add_argument("--output", type=size, metavar="SIZE", help="stdout and stderr together (default: 64MiB)")
    limits.add_argument(
        "--compile-timeout",
        type=duration,
        metavar="TIME",
        default="600s",
        help="for compiling it (default: %(default)s)",
    )
    limits.add_argument(
        "--compile-memory",
        type=size,
        metavar="SIZE",
        default="8GiB",
        help="for compiling it (default: %(default)s)",
    )
    return limits


def add_host_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where the host keeps its things."""
    host = parser.add_argument_group("host")
    host.add_argument(
        "--run-as", metavar="USER", help="whose files it touches (root only; default: the caller, nobody for root)"
    )
    host.add_argument("--config", metavar="FILE", help="the host's airssys.toml")
    host.add_argument("--state-dir", metavar="DIR", help="grants, compiled code and audit log (or $AIRSSYS_STATE)")
    host.add_argument(
        "--no-namespaces", action="store_true", help="do without namespaces, as where the kernel refuses them"
    )
    host.add_argument(
        "--layer-off",
        action="append",
        default=[],
        metavar="LAYER",
        help="leave one layer off, to test the others; refused while it is required",
    )
    host.add_argument("--require", metavar="LAYERS", help="comma-separated layers without which nothing starts")


def require_target(target: str) -> None:
    """Raise ConfigError where there is nothing of this name."""
    try:
        os.stat(target)
    except OSError as error:
        raise ConfigError(
            f"{visible(target) or repr(target)}: {os.strerror(error.errno or 0).lower()}",
            hint="name a directory with a Component.toml, or a .wasm file"
            if isinstance(error, FileNotFoundError)
            else f"what there is on the way: namei -l {visible(target)}",
        ) from None


def run(args: argparse.Namespace) -> int:
    """Run the target and return its exit code."""
    if args.json and args.report:
        raise UsageError("--json and --report exclude each other: both are the same document")
    if args.ask and args.dev:
        raise UsageError("--ask and --dev exclude each other: one asks, the other doesn't")
    if args.ask and args.raw_output:
        raise UsageError("--ask and --raw-output exclude each other: what it draws could pass for a question")
    if is_path(args.target):
        require_target(args.target)
    refuse_dev_and_grant(args)
    # The processes first, where they weren't started ahead: they import while this one imports the rest.
    with contextlib.ExitStack() as stack:
        processes = args.processes or stack.enter_context(Processes(not args.no_namespaces, args.layer_off))
        from supervisor.cli.run_target import run_target

        gc.freeze()
        gc.enable()
        return run_target(args, processes)
