"""`airssys run` behind its flags: from the started processes to the report and the exit code.

Apart from `supervisor.cli.run` because this file's imports are most of the command's: they are made while the zygote
and the warden make theirs.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ipc.audit.errors import AuditLogError
from ipc.audit.event import AuditEvent
from ipc.errors import ConfigError
from ipc.messages import FunctionCall
from ipc.struct import replace
from supervisor.cli.main import EX_CANTCREAT, EX_LIMIT, EX_NOPERM
from supervisor.cli.progress import CompileProgress
from supervisor.cli.run_setup import bare_request, host_options, read_settings
from supervisor.code.compilation import CompileError, CompileLimits
from supervisor.host.host import Host, open_host
from supervisor.host.identity import actor
from supervisor.host.processes import Processes
from supervisor.packages.target import is_path
from supervisor.report import DenialPrinter, ending_lines, paint, summary_line
from supervisor.run.report import RunReport
from supervisor.run.request import RunRequest, require_text
from supervisor.run.running import ProgramChangedError, RunStreams, run_request
from supervisor.terminal import OwnLines, TerminalLine, visible

if TYPE_CHECKING:
    from supervisor.cli.targets import InstalledPackage

MAX_ARGUMENTS_BYTES = 1 << 20
"""Of a call. Values take memory of the worker's beside the guest's: those of a result of this size as well."""


def run_target(args: argparse.Namespace, processes: Processes, call: FunctionCall | None = None) -> int:
    """Run what `airssys run` was given on processes that were started for it; they stay the caller's.

    With `call` one function is called in place of the command.
    """
    settings = read_settings(args)
    options = host_options(args, settings, (args.target,))
    directory = not is_path(args.target) or os.path.isdir(args.target)
    with contextlib.ExitStack() as stack:
        terminal = -1
        if args.ask:
            from supervisor.run.questions import own_terminal

            terminal = stack.enter_context(own_terminal())
        line = TerminalLine(2) if os.isatty(2) else None
        stderr = OwnLines(sys.stderr, line)
        tell = None if args.quiet else functools.partial(_tell_trouble, stderr)
        host = stack.enter_context(open_host(options, processes, tell, "run" if call is None else "call"))
        if directory:
            from supervisor.cli.run_component import component_request, tell_not_granted

            installed = None if is_path(args.target) else stack.enter_context(_installed(args.target, host))
            request = component_request(args, host, settings, installed, called=call is not None)
            if request is None:
                return tell_not_granted(args)
        else:
            request = bare_request(args, host, settings)
        if call is not None:
            limits = replace(request.limits, payload_bytes=MAX_ARGUMENTS_BYTES)
            request = replace(request, kind="call", call=call, limits=limits)
        require_text(request)
        if args.report:
            _check_report_place(args.report)
        if args.write_manifest:
            from supervisor.cli.run_manifest import check_manifest_place

            check_manifest_place(args.write_manifest, request.wasm_path)
        try:
            return _run(args, host, request, terminal, not directory, stderr, line)
        except BaseException:
            stderr.end_line()
            raise


@contextlib.contextmanager
def _installed(target: str, host: Host) -> Iterator[InstalledPackage]:
    """Yield what is installed; that it isn't what was installed is put on record."""
    from supervisor.cli.targets import open_installed
    from supervisor.packages.installed import parse_name
    from supervisor.packages.store import StoreRefusedError, changed_package

    try:
        with open_installed(target, host.options.state_directory, unread_program=True) as found:
            try:
                yield found
            except ProgramChangedError:
                how = f"{found.installed.program} holds something else"
                raise changed_package(found.package.directory, how) from None
    except StoreRefusedError as error:
        name = parse_name(target).name
        refused = AuditEvent("run_refused", component=name, decision="denied", code="A3101", actor=actor())
        host.record(replace(refused, reason=error.message, detail={"name": target}))
        raise


def _run(
    args: argparse.Namespace,
    host: Host,
    request: RunRequest,
    terminal: int,
    bare: bool,
    stderr: OwnLines,
    line: TerminalLine | None,
) -> int:
    printer = DenialPrinter(stderr, bare, args.quiet or args.json, wanted=request.context.trust == "dev", asks=args.ask)
    # A function is no command: what comes from our standard input is not meant for it.
    stdin = 0 if request.call is None else None
    streams = RunStreams(stdin, None, None) if args.json else RunStreams(stdin, 1, 2, args.raw_output, line=line)
    compile_limits = CompileLimits(timeout_s=args.compile_timeout / 1e9, memory_bytes=args.compile_memory)
    progress = CompileProgress(request.component, args.quiet or args.json)
    for layer in host.options.layers_off:
        print(paint(f"airssys: layer {layer} is off: this is a test, not protection", "33", stderr), file=stderr)
    if request.context.trust == "dev":
        from supervisor.grants.dev_mode import DevMode, banner

        # With --quiet too, as above: nobody is to take this for a run that somebody has allowed.
        print(
            paint(f"airssys: {visible(banner(DevMode(request.context.approval)))}", "1;33", stderr),
            file=stderr,
            flush=True,
        )
    try:
        report = run_request(host, request, streams, compile_limits, progress, printer, terminal)
    except CompileError as error:
        progress.finish()
        if not error.limit:
            raise
        hint = f"to allow more: --compile-{error.limit}" if error.limit in ("timeout", "memory") else None
        raise _CompileLimitError(str(error), hint=hint) from None
    progress.finish()
    printer.finish()
    if request.reliance is not None and report.verdict.code == "A3010":
        from supervisor.cli.run_approval import note_over

        note_over(host, request.reliance)
    exit_code = _deliver(args, report, request.component, stderr)
    if args.write_manifest and (report.verdict.outcome == "host_error" or report.verdict.code == "A3005"):
        print("airssys: no manifest was written: the program didn't run as it should have", file=stderr)
    elif args.write_manifest:
        from supervisor.cli.run_manifest import write_manifest

        passed_on = tuple(text for text in args.env if "=" not in text)
        secrets = tuple(text.partition("=")[0] for text in args.secret)
        data = os.path.realpath(os.path.join(host.options.data_directory, request.document.identity))
        own = (("${data}", data), ("${tmp}", host.tmp_directory))
        said = write_manifest(args.write_manifest, request, report.tally, passed_on, secrets, os.getcwd(), own)
        if not (args.quiet or args.json):
            print(f"airssys: {said}", file=stderr)
    return exit_code


def _check_report_place(path: str) -> None:
    """Raise ConfigError, before anything runs, where the report could not be written."""
    directory = os.path.dirname(path) or "."
    if os.path.isdir(path):
        what, hint = "is a directory", "name a file in it"
    elif not os.path.isdir(directory):
        what, hint = f"{directory} is no directory", "make it first"
    elif not os.access(path if os.path.exists(path) else directory, os.W_OK):
        what, hint = "this user may not write it", "name another file"
    else:
        return
    raise ConfigError(f"--report {visible(path)}: {visible(what)}", hint=hint)


class _ReportError(ConfigError):
    """The report could not be written after all: what was run has run."""

    exit_code = EX_CANTCREAT


def _tell_trouble(stderr: OwnLines, trouble: AuditLogError | None) -> None:
    """Say on stderr that a running component is being held up, by what, and what helps; and that it goes on."""
    if trouble is None:
        print("airssys: the audit log can be written again; it goes on", file=stderr, flush=True)
    else:
        text = f"airssys: {visible(trouble.message)}; nothing is allowed meanwhile\n  {visible(trouble.hint)}"
        print(text, file=stderr, flush=True)


class _CompileLimitError(ConfigError):
    """Compiling went over a limit: a limit's exit code, not that of bad input."""

    exit_code = EX_LIMIT


def _deliver(args: argparse.Namespace, report: RunReport, name: str, stderr: OwnLines) -> int:
    exit_code = report.verdict.exit_code
    if args.fail_on_denied and report.tally.denied and exit_code == 0:
        exit_code = EX_NOPERM
    if report.output_lost and exit_code == 0:
        exit_code = EX_CANTCREAT
    if args.json:
        print(_document(report, exit_code))
        return exit_code
    if not args.quiet:
        for note in report.notes:
            print(f"airssys: {visible(note)}", file=stderr)
    if report.output_lost:
        print(paint(f"airssys: {name}: {report.output_lost}", "31", stderr), file=stderr)
    ending = ending_lines(report.verdict, name, args.quiet)
    if ending:
        ending[0] = paint(ending[0], "31", stderr)
        print("\n".join(ending), file=stderr)
    if not args.quiet:
        print(paint(summary_line(report, name), "2", stderr), file=stderr)
    if args.report:
        try:
            with open(args.report, "w", encoding="utf-8") as stream:
                stream.write(_document(report, exit_code) + "\n")
        except OSError as error:
            raise _ReportError(
                f"--report {visible(args.report)}: {os.strerror(error.errno or 0)}",
                hint=f"the program has run, and ended with {exit_code}",
            ) from None
    return exit_code


def _document(report: RunReport, exit_code: int) -> str:
    import json

    return json.dumps({**report.to_json(), "exit_code": exit_code}, indent=2)
