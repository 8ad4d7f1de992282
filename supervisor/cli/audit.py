"""`airssys audit tail|query|verify`: what is in the audit log, and whether it is all there.

Exit codes: 0; 1 when `verify` finds the log not intact; 64 usage; 73 when the log can't be read.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterable

EX_NOT_INTACT = 1
EX_USAGE = 64
DEFAULT_TAIL = 20


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `audit` command with its own three."""
    parser = subparsers.add_parser(
        "audit",
        help="read and verify the audit log",
        epilog="example: airssys audit query --decision denied --since 1h",
    )
    commands = parser.add_subparsers(dest="audit_command", metavar="COMMAND", required=True)
    tail = commands.add_parser("tail", help="the last records", epilog="example: airssys audit tail -n 50 -f")
    tail.add_argument("-n", "--limit", type=_count, default=DEFAULT_TAIL, metavar="N", help="how many (20)")
    tail.add_argument("-f", "--follow", action="store_true", help="go on with what comes")
    query = commands.add_parser(
        "query", help="the records that fit", epilog="example: airssys audit query --code A1203"
    )
    query.add_argument("--limit", type=_count, default=None, metavar="N", help="the last N of them")
    for reading in (tail, query):
        for name in ("component", "event", "decision", "code", "action"):
            reading.add_argument(f"--{name}", metavar="PATTERN", help=f"{name}; may hold * and ?")
        reading.add_argument("--since", metavar="TIME", help="10m, 2h, 7d ago, or 2026-01-31T12:00:00Z")
        reading.add_argument("--until", metavar="TIME", help="as --since; records before it")
    verify = commands.add_parser(
        "verify", help="whether the log is what was written", epilog="exit code: 0 intact, 1 not intact"
    )
    verify.add_argument(
        "--head", metavar="SEQ:SHA256", help="a record's hash that was noted elsewhere, to be found again"
    )
    for command in (tail, query, verify):
        command.add_argument("--audit-log", metavar="DIR", help="where the log is")
        command.add_argument("--json", action="store_true", help="print JSON: one record a line")


def _count(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError("must not be negative")
    return number


def run(args: argparse.Namespace) -> int:
    """Carry out the command and return the exit code."""
    from ipc.audit.errors import AuditLogError
    from supervisor.audit_segments import default_audit_directory

    directory = args.audit_log or default_audit_directory(os.environ, os.getuid())
    try:
        return _verify(args, directory) if args.audit_command == "verify" else _read(args, directory)
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        hint = "name another with --audit-log DIR; a log begins with the first `airssys run`"
        raise AuditLogError(f"no audit log can be read in {directory}: {error.strerror}", hint=hint) from None


def _usage(message: str) -> int:
    print(f"airssys: {message}\nsee: airssys audit --help", file=sys.stderr)
    return EX_USAGE


def _read(args: argparse.Namespace, directory: str) -> int:
    from supervisor.audit_query import Filter, Found, follow, last_records, parse_moment

    now_ns = time.time_ns()
    try:
        since, until = (text and parse_moment(text, now_ns) for text in (args.since, args.until))
    except ValueError as error:
        return _usage(str(error))
    wanted = Filter(args.component, args.event, args.decision, args.code, args.action, since, until)
    found = last_records(directory, wanted, args.limit)
    if args.json:

        def show(some: Iterable[Found]) -> None:
            for one in some:
                sys.stdout.write(one.line.decode("ascii", "backslashreplace"))
                sys.stdout.flush()
    else:
        print(_row("EVENT", "TIME", "COMPONENT", "WHAT", "COUNT", "RESOURCE"))

        def show(some: Iterable[Found]) -> None:
            for one in some:
                print(_table_row(one.record), flush=True)

    show(found)
    if getattr(args, "follow", False):
        latest = last_records(directory, Filter(), 1)
        after = latest[0].record["seq"] if latest else 0
        # Between the two readings something may have come: what was shown last says where to go on.
        shown = found[-1].record["seq"] if found else after
        assert isinstance(after, int)
        assert isinstance(shown, int)
        show(follow(directory, wanted, shown if found else after))
    return 0


def _row(*cells: str) -> str:
    seq, when, component, what, count, rest = cells
    return f"{seq:>7}  {when:<23}  {component:<20}  {what:<34}  {count:>6}  {rest}".rstrip()


def _table_row(record: dict[str, object]) -> str:
    from ipc.audit.text import escape

    def text(name: str) -> str:
        value = record[name]
        return escape(value) if isinstance(value, str) else ""

    # The exact text is escaped once, here; a forged line is no more dangerous than an honest one.
    what = " ".join(part for part in (text("decision"), text("action"), text("code")) if part)
    if not record["action"]:
        what = text("event")
    rest = text("resource") or text("reason")
    if record["resource"] and record["decision"] == "denied" and record["reason"]:
        rest += f"  ({text('reason')})"
    count = str(record["count"]) if record["count"] != 1 else ""
    moment = text("time")[:23].replace("T", " ")
    return _row(str(record["seq"]), moment, text("component") or f"({text('producer')})", what, count, rest)


def _verify(args: argparse.Namespace, directory: str) -> int:
    from ipc.audit.text import escape
    from supervisor.audit_segments import Head
    from supervisor.audit_verify import verify_log

    try:
        anchor = Head.parse(args.head) if args.head else None
    except ValueError:
        return _usage(f"--head {args.head}: expected SEQ:SHA256, as `airssys audit verify` prints it")
    report = verify_log(directory, anchor)
    fault = report.fault
    if args.json:
        document: dict[str, object] = {
            "intact": fault is None,
            "directory": report.directory,
            "segments": report.segments,
            "records": report.records,
            "repairs": report.repairs,
            "head": str(report.head),
            "fault": None
            if fault is None
            else {"file": fault.file, "line": fault.line, "kind": fault.kind, "reason": fault.reason},
        }
        print(json.dumps(document))
    elif fault is None:
        repaired = f", repaired {report.repairs} times after a crash" if report.repairs else ""
        print(f"intact: {report.records} records in {report.segments} segments{repaired}\nhead: {report.head}")
    else:
        print(f"NOT INTACT: {escape(fault.file)}, line {fault.line}: {escape(fault.reason)} [{fault.kind}]")
        print(f"the {report.records} records before it are intact; the last of them: {report.head}")
    return 0 if fault is None else EX_NOT_INTACT
