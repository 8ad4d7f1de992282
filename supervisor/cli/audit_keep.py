"""`airssys audit verify|export|prune`: whether the log is all there, records for somebody else, how much is kept.

Exit codes: 0; 1 when the log is not intact; 64 usage; 73 when something can't be read or written.
"""

from __future__ import annotations

import argparse
import json
import os
import sys

from ipc.audit.errors import AuditLogError
from ipc.audit.text import escape
from supervisor.audit.chain import Fault
from supervisor.audit.heads import Head
from supervisor.audit.verify import VerifyReport, verify_log
from supervisor.cli.audit_arguments import usage, wanted_records
from supervisor.config import units
from supervisor.host.identity import actor

EX_NOT_INTACT = 1


def verify(args: argparse.Namespace, directory: str) -> int:
    """Verify the log, or an export of it."""
    if args.export:
        return _verify_export(args)
    try:
        anchor = Head.parse(args.head) if args.head else None
    except ValueError:
        raise usage(args, f"--head {args.head}: expected SEQ:SHA256, as `airssys audit verify` prints it") from None
    report = verify_log(directory, anchor)
    fault, pruned = report.fault, report.pruned
    if args.json:
        document: dict[str, object] = {
            "intact": fault is None,
            "directory": report.directory,
            "segments": report.segments,
            "records": report.records,
            "repairs": report.repairs,
            "first_seq": report.first_seq,
            "pruned": None if pruned is None else {"last_seq": pruned.last.seq, "by_record": pruned.seq},
            "heads_recorded": report.heads,
            "head": str(report.head),
            "fault": _fault_document(fault),
        }
        print(json.dumps(document))
    else:
        _print_report(report)
    return 0 if fault is None else EX_NOT_INTACT


def _fault_document(fault: Fault | None) -> dict[str, object] | None:
    if fault is None:
        return None
    return {"file": fault.file, "line": fault.line, "kind": fault.kind, "reason": fault.reason}


def _print_report(report: VerifyReport) -> None:
    fault, pruned = report.fault, report.pruned
    if fault is not None:
        print(f"NOT INTACT: {escape(fault.file)}, line {fault.line}: {escape(fault.reason)} [{fault.kind}]")
        if report.records:
            before = "the record before it is" if report.records == 1 else f"the {report.records} records before it are"
            print(f"{before} intact; the last of them: {report.head}")
        return
    repaired = f", repaired {units.counted(report.repairs, 'time')} after a crash" if report.repairs else ""
    records, segments = units.counted(report.records, "record"), units.counted(report.segments, "segment")
    print(f"intact: {records} in {segments}{repaired}")
    if pruned is not None:
        print(f"pruned: records 1 to {pruned.last.seq}, as record {pruned.seq} says")
    if not report.heads:
        print("no heads are recorded beside it: whether its end is missing can't be told")
    print(f"head: {report.head}")


def _verify_export(args: argparse.Namespace) -> int:
    from supervisor.audit.export import verify_export

    try:
        with open(args.export, "rb") as lines:
            check = verify_export(lines, args.export)
    except OSError as error:
        raise AuditLogError(f"{args.export} can't be read: {error.strerror}") from None
    fault = check.fault
    if args.json:
        document = {"intact": fault is None, "records": check.records, "runs": check.runs}
        print(json.dumps({**document, "fault": _fault_document(fault)}))
    elif fault is None:
        records, runs = units.counted(check.records, "record"), units.counted(check.runs, "unbroken run")
        print(f"intact: {records} in {runs}")
    else:
        print(f"NOT INTACT: {escape(fault.file)}, line {fault.line}: {escape(fault.reason)} [{fault.kind}]")
    return 0 if fault is None else EX_NOT_INTACT


def export(args: argparse.Namespace, directory: str) -> int:
    """Write the wanted records to a new file, which is complete or isn't there."""
    from supervisor.audit.export import export as export_records

    wanted = wanted_records(args)
    if args.output == "-":
        report = export_records(directory, wanted, args.format, sys.stdout.buffer)
        sys.stdout.buffer.flush()
    else:
        unfinished = f"{args.output}.unfinished-{os.getpid()}"
        if os.path.lexists(args.output):
            raise AuditLogError(f"{args.output} exists already", hint="name a new file, or remove that one")
        os.stat(directory)  # what is missing is the log, not the file
        try:
            descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                with open(descriptor, "wb") as file:
                    report = export_records(directory, wanted, args.format, file)
                    file.flush()
                    os.fsync(descriptor)
                os.link(unfinished, args.output)  # unlike rename(2) it replaces nothing
            finally:
                os.unlink(unfinished)
        except OSError as error:
            what = f"{args.output} can't be written: {error.strerror}"
            raise AuditLogError(what, hint="name a file that this user can make, where there is room: df -h") from None
    if args.json and args.output != "-":
        keys = ("records", "runs", "first_seq", "last_seq", "last_hash", "unreadable")
        document: dict[str, object] = {key: getattr(report, key) for key in keys}
        print(json.dumps({**document, "intact": not report.broken}))
    else:
        runs = units.counted(report.runs, "unbroken run")
        span = f", {report.first_seq} to {report.last_seq}, in {runs}" if report.records else ""
        print(f"airssys: exported {units.counted(report.records, 'record')}{span}", file=sys.stderr)
    if report.broken:
        print(f"airssys: the log is not intact: {escape(report.broken)}\n  airssys audit verify", file=sys.stderr)
    return EX_NOT_INTACT if report.broken else 0


def prune(args: argparse.Namespace, directory: str) -> int:
    """Remove the oldest sealed segments beyond what is to be kept: the arguments', else the settings'."""
    from supervisor.audit.log import AuditLog
    from supervisor.audit.retention import AuditRetention
    from supervisor.config.settings_files import load_settings

    if args.keep is None and args.older_than is None:
        retention = load_settings(args.config, os.environ, os.getuid()).audit
        why = "by hand: more than is to be kept by [audit] in airssys.toml"
    else:
        retention = AuditRetention(args.older_than, args.keep)
        asked = [] if args.keep is None else [f"at most {units.format_size(args.keep)} kept"]
        asked += [] if args.older_than is None else [f"older than {units.format_duration(args.older_than)}"]
        why = f"by hand: {', '.join(asked)}"
    os.stat(directory)  # pruning makes no log where there is none
    log = AuditLog(directory)
    try:
        plan = log.prune(retention, why, actor(), dry_run=args.dry_run)
    finally:
        log.close()
    count, last = len(plan.gone), plan.last
    if args.json:
        document = {
            "dry_run": args.dry_run,
            "segments": count,
            "bytes": plan.size_bytes,
            "first_seq": plan.gone[0].first_seq if count else None,
            "last_seq": last.seq if count else None,
            "last_hash": last.hash if count else None,
            "sealed_segments_left": plan.kept_segments,
        }
        print(json.dumps(document))
    elif not count:
        kept = units.counted(plan.kept_segments, "sealed segment is", "sealed segments are")
        print(f"nothing to prune: {kept} within what is kept, the open one stays")
    else:
        verb = "would be pruned" if args.dry_run else "pruned"
        print(
            f"{verb}: records {plan.gone[0].first_seq} to {last.seq} in {units.counted(count, 'segment')}, "
            f"{plan.size_bytes / 1e6:.1f} MB; {units.counted(plan.kept_segments, 'sealed segment')} left"
        )
    return 0
