"""Exporting records: the lines themselves, or a table for a spreadsheet; and verifying exported lines.

A line carries its number and the hash of the line before it, so that where exported lines are neighbours nothing
between them can have been changed or left out; a gap shows in the numbers.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Final, Protocol

from ipc.audit.event import RECORD_KEYS, exact, parse_line
from ipc.struct import Struct
from supervisor.audit.chain import Fault
from supervisor.audit.query import Filter
from supervisor.audit.segments import lines_forward, open_segment, segment_names

COLUMNS: Final = (*RECORD_KEYS, "hash")
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
"""What makes a spreadsheet compute a cell instead of showing it."""


class ExportReport(Struct):
    """How many records were exported in how many unbroken runs, the first and the last, and lines that are none."""

    records: int = 0
    runs: int = 0
    first_seq: int = 0
    last_seq: int = 0
    last_hash: str = ""
    unreadable: int = 0
    broken: str = ""


class _Sink(Protocol):
    def write(self, data: bytes, /) -> object: ...


def export(directory: str, wanted: Filter, form: str, sink: _Sink) -> ExportReport:
    """Write the wanted records, oldest first, as `jsonl` or `csv`; OSError as read(2) and write(2).

    The chain is followed meanwhile: `broken` names the first record that does not follow from the one before it.
    """
    report = ExportReport()
    write = _csv_writer(sink) if form == "csv" else lambda line, _: sink.write(line)
    seq_before, hash_before = 0, ""
    for name, line in _lines(directory):
        try:
            values = parse_line(line)
        except ValueError:
            report.unreadable += 1
            report.broken = report.broken or f"{name} holds a line that is no record"
            continue
        seq = int(str(values["seq"]))
        if hash_before and (seq != seq_before + 1 or values["prev"] != hash_before):
            report.broken = report.broken or f"record {seq} in {name} does not follow from the one before it"
        seq_before, hash_before = seq, hashlib.sha256(line).hexdigest()
        if wanted.admits(exact(values)):
            write(line, values)
            report.runs += seq != report.last_seq + 1 or not report.records
            report.first_seq = report.first_seq or seq
            report.last_seq, report.last_hash = seq, hash_before
            report.records += 1
    return report


def _lines(directory: str) -> Iterator[tuple[str, bytes]]:
    for name in segment_names(directory):
        try:
            descriptor = open_segment(directory, name)
        except FileNotFoundError:
            continue  # pruned meanwhile; the chain's record says so
        try:
            until_bytes = os.fstat(descriptor).st_size
            for offset, line in lines_forward(descriptor):
                # What is being written right now has no end yet.
                if offset >= until_bytes or not line.endswith(b"\n"):
                    break
                yield name, line
        finally:
            os.close(descriptor)


def _csv_writer(sink: _Sink) -> Callable[[bytes, dict[str, object]], object]:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")

    def flush() -> object:
        data = text.getvalue().encode("ascii")
        text.seek(0)
        text.truncate()
        return sink.write(data)

    writer.writerow(COLUMNS)
    flush()

    def write(line: bytes, values: dict[str, object]) -> object:
        writer.writerow([*(_cell(values[key]) for key in RECORD_KEYS), hashlib.sha256(line).hexdigest()])
        return flush()

    return write


def _cell(value: object) -> str:
    """One value as a cell: escaped as in the log, other than ASCII too, and never a formula."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
    text = text.encode("ascii", "backslashreplace").decode("ascii")
    return "'" + text if text.startswith(_FORMULA) and isinstance(value, str) else text


class ExportCheck(Struct, frozen=True):
    """What verification of exported lines found."""

    records: int
    runs: int
    fault: Fault | None


def verify_export(lines: Iterable[bytes], name: str) -> ExportCheck:
    """Check exported lines: numbers only grow, and where they are neighbours each hangs on the one before it."""
    records = runs = seq_before = 0
    hash_before = ""
    for number, line in enumerate(lines, 1):
        try:
            values = parse_line(line)
        except ValueError as error:
            return ExportCheck(records, runs, Fault(name, number, "parse", str(error)))
        if not line.endswith(b"\n"):
            return ExportCheck(records, runs, Fault(name, number, "torn", "the line has no end"))
        seq = int(str(values["seq"]))
        if seq <= seq_before:
            reason = f"record {seq} stands behind record {seq_before}"
            return ExportCheck(records, runs, Fault(name, number, "seq", reason))
        if seq != seq_before + 1 or not records:
            runs += 1
        elif values["prev"] != hash_before:
            reason = f"record {seq} does not follow from the one before it: that was changed, or this record was"
            return ExportCheck(records, runs, Fault(name, number, "hash", reason))
        records += 1
        seq_before, hash_before = seq, hashlib.sha256(line).hexdigest()
    return ExportCheck(records, runs, None)
