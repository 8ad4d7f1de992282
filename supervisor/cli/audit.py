"""`airssys audit tail|query|verify|export|prune`: what is in the audit log, whether it is all there, how much is kept.

Exit codes: 0; 1 when `verify` or `export` finds the log not intact; 64 usage; 73 when the log can't be read or written.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Callable, Iterable

from supervisor.cli.audit_arguments import wanted_records

DEFAULT_TAIL = 20
_VERIFY_EPILOG = """example: airssys audit verify --head $(cat noted-elsewhere)
exit code: 0 intact, 1 not intact"""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `audit` command with its own."""
    parser = subparsers.add_parser(
        "audit",
        help="read, verify, export and prune the audit log",
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
    verify = commands.add_parser(
        "verify",
        help="whether the log is what was written",
        epilog=_VERIFY_EPILOG,
    )
    verify.add_argument(
        "--head", metavar="SEQ:SHA256", help="a record's hash that was noted elsewhere, to be found again"
    )
    verify.add_argument("--export", metavar="FILE", help="verify what `audit export` wrote as jsonl instead of the log")
    export = commands.add_parser(
        "export",
        help="write records to a file, with what chains them",
        epilog="example: airssys audit export --since 7d --format csv -o week.csv",
    )
    export.add_argument("--format", choices=("jsonl", "csv"), default="jsonl", help="jsonl: the lines as they are")
    export.add_argument("-o", "--output", required=True, metavar="FILE", help="a new file (0600), or - for stdout")
    prune = commands.add_parser(
        "prune",
        help="remove the oldest sealed segments, leaving a record of it",
        epilog="example: airssys audit prune --older-than 90d --dry-run",
    )
    prune.add_argument("--keep", type=_size, metavar="SIZE", help="keep at most this much, such as 1GB")
    prune.add_argument("--older-than", type=_duration, metavar="AGE", help="remove what is older, such as 90d")
    prune.add_argument("--dry-run", action="store_true", help="only say what would go")
    for reading in (tail, query, export):
        for name in ("component", "event", "decision", "code", "action"):
            reading.add_argument(f"--{name}", metavar="PATTERN", help=f"{name}; may hold * and ?")
        reading.add_argument("--since", metavar="TIME", help="10m, 2h, 7d ago, or 2026-01-31T12:00:00Z")
        reading.add_argument("--until", metavar="TIME", help="as --since; records before it")
    for command in (tail, query, verify, export, prune):
        command.add_argument("--audit-log", metavar="DIR", help="where the log is")
        command.add_argument("--state-dir", metavar="DIR", help="the state directory that it is in (or $AIRSSYS_STATE)")
        command.add_argument("--config", metavar="FILE", help="the host's airssys.toml")
        lines = command in (tail, query)
        shape = "print JSON: one record a line" if lines else "print one JSON document"
        command.add_argument("--json", action="store_true", help=shape)


def _quantity(parse: Callable[[str], int], text: str) -> int:
    try:
        return parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _size(text: str) -> int:
    from supervisor.config.units import parse_size_bytes

    return _quantity(parse_size_bytes, text)


def _duration(text: str) -> int:
    from supervisor.config.units import parse_duration_ns

    return _quantity(parse_duration_ns, text)


def _count(text: str) -> int:
    if not text.isascii() or not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a number of records, got {text!r}")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Carry out the command and return the exit code."""
    from ipc.audit.errors import AuditLogError

    directory = _directory(args)
    try:
        if args.audit_command in ("tail", "query"):
            return _read(args, directory)
        from supervisor.cli import audit_keep

        return {"verify": audit_keep.verify, "export": audit_keep.export, "prune": audit_keep.prune}[
            args.audit_command
        ](args, directory)
    except OSError as error:
        if isinstance(error, BrokenPipeError) or error.errno == errno.ENOSPC:
            raise  # about standard output: reading takes no room
        hint = "name another with --audit-log DIR; a log begins with the first `airssys run`"
        if isinstance(error, PermissionError):
            hint = f"whose it is: ls -lad {directory}; another is named with --audit-log DIR"
        raise AuditLogError(f"no audit log can be read in {directory}: {error.strerror}", hint=hint) from None


def _directory(args: argparse.Namespace) -> str:
    """Return where the log is: by the same rule as a run finds it."""
    if args.audit_log:
        return str(args.audit_log)
    from supervisor.config.places import audit_directory, state_directory
    from supervisor.config.settings_files import load_settings

    settings = load_settings(args.config, os.environ, os.getuid())
    return audit_directory(state_directory(args.state_dir, os.environ, settings), settings)


def _read(args: argparse.Namespace, directory: str) -> int:
    from supervisor.audit.query import Filter, Found, follow, last_records

    wanted = wanted_records(args)
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
    if not found and not getattr(args, "follow", False):
        print("airssys: no record fits", file=sys.stderr)
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
    if text("event").startswith("approval_"):  # which one, by whom, and then why
        whose = " by ".join(part for part in (text("approval"), text("actor")) if part)
        rest = ": ".join(part for part in (whose, rest) if part)
    if record["resource"] and record["decision"] == "denied" and record["reason"]:
        rest += f"  ({text('reason')})"
    count = str(record["count"]) if record["count"] != 1 else ""
    moment = text("time")[:23].replace("T", " ")
    return _row(str(record["seq"]), moment, text("component") or f"({text('producer')})", what, count, rest)
