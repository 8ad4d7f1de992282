"""`airssys run`: a component directory (asks once), or a bare program whose flags are the grant."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable

from ipc.errors import ConfigError
from supervisor.cli.main import EX_NOPERM, EX_USAGE
from supervisor.compilation import CompileError, CompileLimits
from supervisor.host import Host, HostOptions, open_host
from supervisor.report import DenialPrinter, paint, summary_line
from supervisor.run_report import RunReport
from supervisor.run_request import RunRequest
from supervisor.running import RunStreams, run_request
from supervisor.terminal import visible
from supervisor.units import UnitError, parse_duration_ns, parse_size_bytes

EX_LIMIT = 75

_EPILOG = """examples:
  airssys run ./log-summary --set logs=/var/log/app       asks what it may, once, then runs
  airssys run ./log-summary --grant asked --json          no question; one JSON document on stdout
  airssys run prog.wasm --read in/ --write 'out/*.json' -- in/a.csv
  airssys run prog.wasm --dir data::/data --read data --memory 64MB --timeout 10s
  airssys run prog.wasm --secret API_TOKEN=./token --env TZ=UTC

A directory after --read, --write or --list means all beneath it. Paths are the host's; the guest sees them under the
same names, and `.` is the working directory, which by itself grants nothing. Exit: the guest's own code; trap 134; over
a limit 75; refused 77; the outcome in --json tells them apart.
"""


def _size(text: str) -> int:
    return _quantity(parse_size_bytes, text)


def _duration(text: str) -> int:
    return _quantity(parse_duration_ns, text)


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
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="airssys run TARGET [options] [-- ARGS...]",
    )
    parser.add_argument("target", metavar="TARGET", help="a directory with a Component.toml, or a .wasm file")
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
    component = parser.add_argument_group("what it may (component directory)")
    component.add_argument(
        "--grant", metavar="asked|FILE", help="grant what is asked, or what FILE says, without a question"
    )
    component.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="bind a parameter")
    limits = parser.add_argument_group("limits")
    limits.add_argument("--memory", type=_size, metavar="SIZE", help="memory, such as 256MB (the default)")
    limits.add_argument(
        "--timeout", type=_duration, metavar="TIME", help="wall clock time, such as 30s (default: none)"
    )
    limits.add_argument(
        "--cpu-time", type=_duration, metavar="TIME", help="CPU time in whole seconds, such as 10s (default: none)"
    )
    limits.add_argument(
        "--fuel", type=_positive, metavar="N", help="WebAssembly instructions, roughly; for deterministic ends"
    )
    limits.add_argument("--output", type=_size, metavar="SIZE", help="stdout and stderr together (default: 64MiB)")
    limits.add_argument(
        "--compile-timeout",
        type=_duration,
        metavar="TIME",
        default="600s",
        help="for compiling it (default: %(default)s)",
    )
    limits.add_argument(
        "--compile-memory", type=_size, metavar="SIZE", default="8GiB", help="for compiling it (default: %(default)s)"
    )
    output = parser.add_argument_group("output")
    output.add_argument("--json", action="store_true", help="capture the streams; print one JSON document on stdout")
    output.add_argument("--report", metavar="FILE", help="write that document to FILE and leave the streams alone")
    output.add_argument("--raw-output", action="store_true", help="let terminal control sequences of the guest through")
    output.add_argument("-q", "--quiet", action="store_true", help="no denials and no summary on stderr")
    output.add_argument("--fail-on-denied", action="store_true", help="exit with 77 if anything was denied")
    add_host_options(parser)


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


def run(args: argparse.Namespace) -> int:
    """Run the target and return its exit code."""
    if args.json and args.report:
        print("airssys: --json and --report exclude each other: both are the same document", file=sys.stderr)
        return EX_USAGE
    from supervisor.cli.run_setup import bare_request, component_request, host_options, read_settings

    directory = os.path.isdir(args.target)
    if not directory and not os.path.exists(args.target):
        raise ConfigError(f"{visible(args.target)}: no such file or directory")
    settings = read_settings(args)
    options = host_options(args, settings)
    with open_host(options) as host:
        if directory:
            request = component_request(args, host, settings)
            if request is None:
                return EX_NOPERM
        else:
            request = bare_request(args, host, settings)
        return _run(args, host, options, request, bare=not directory)


def _run(args: argparse.Namespace, host: Host, options: HostOptions, request: RunRequest, bare: bool) -> int:
    printer = DenialPrinter(sys.stderr, bare, args.quiet or args.json)
    streams = RunStreams(stdin=0, stdout=None, stderr=None) if args.json else RunStreams(0, 1, 2, args.raw_output)
    compile_limits = CompileLimits(timeout_s=args.compile_timeout / 1e9, memory_bytes=args.compile_memory)
    progress = _Progress(request.component, args.quiet or args.json)
    for layer in options.layers_off:
        print(
            paint(f"airssys: layer {layer} is off: this is a test, not protection", "33", sys.stderr), file=sys.stderr
        )
    try:
        report = run_request(host, request, streams, compile_limits, progress, printer)
    except CompileError as error:
        progress.finish()
        if not error.limit:
            raise
        raise _CompileLimitError(str(error)) from None
    progress.finish()
    printer.finish()
    return _deliver(args, report, request.component)


class _CompileLimitError(ConfigError):
    """Compiling went over a limit: a limit's exit code, not that of bad input."""

    exit_code = EX_LIMIT


class _Progress:
    """Shows on a terminal that compiling goes on, and says once elsewhere that it has begun."""

    def __init__(self, name: str, quiet: bool) -> None:
        self._name = name
        self._quiet = quiet
        self._shown = False

    def __call__(self, elapsed_s: float) -> None:
        if self._quiet:
            return
        if sys.stderr.isatty():
            print(f"\rairssys: compiling {self._name} (once) … {elapsed_s:.0f} s ", end="", file=sys.stderr, flush=True)
        elif not self._shown:
            print(f"airssys: compiling {self._name}; the result is kept", file=sys.stderr, flush=True)
        self._shown = True

    def finish(self) -> None:
        """End the progress line."""
        if self._shown and sys.stderr.isatty():
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
        self._shown = False


def _deliver(args: argparse.Namespace, report: RunReport, name: str) -> int:
    exit_code = report.verdict.exit_code
    if args.fail_on_denied and report.tally.denied and exit_code == 0:
        exit_code = EX_NOPERM
    document = report.to_json()
    document["exit_code"] = exit_code
    if args.json:
        print(json.dumps(document, indent=2))
        return exit_code
    if args.report:
        try:
            with open(args.report, "w", encoding="utf-8") as stream:
                json.dump(document, stream, indent=2)
                stream.write("\n")
        except OSError as error:
            raise ConfigError(f"--report {visible(args.report)}: {os.strerror(error.errno or 0)}") from None
    if not args.quiet:
        for note in report.notes:
            print(f"airssys: {visible(note)}", file=sys.stderr)
        if report.verdict.message and report.verdict.outcome != "exited":
            code = f" [{report.verdict.code}]" if report.verdict.code else ""
            head, *rest = report.verdict.message.splitlines()
            print(paint(f"airssys: {name}: {visible(head)}{code}", "31", sys.stderr), file=sys.stderr)
            for line in rest:
                print(f"  {visible(line)}", file=sys.stderr)
        print(paint(summary_line(report, name), "2", sys.stderr), file=sys.stderr)
    return exit_code
