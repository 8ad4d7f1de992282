"""Pruning and exporting an audit log: what goes is on record, what stays verifies, what is exported can be checked."""

from __future__ import annotations

import csv
import json
import os
import socket
import stat
from pathlib import Path
from typing import Protocol

import pytest

from ipc.audit.event import SUPERVISOR, AuditEvent
from supervisor.audit.heads import Head, read_heads
from supervisor.audit.log import AuditLog
from supervisor.audit.query import Filter, last_records
from supervisor.audit.retention import AuditRetention
from supervisor.audit.segments import segment_names
from supervisor.audit.verify import verify_log

pytestmark = pytest.mark.any_user

DAY_NS = 86_400 * 10**9


class _Outcome(Protocol):
    code: int
    stdout: str
    stderr: str

    def json(self) -> dict[str, object]: ...


class _CommandLine(Protocol):
    directory: Path
    state: Path

    def __call__(self, *arguments: str | Path, **environment: str) -> _Outcome: ...


def filled(directory: Path, count: int = 60, **options: object) -> AuditLog:
    """Make a log of many small segments."""
    log = AuditLog(str(directory), segment_bytes=6_000, **options)
    for number in range(count):
        component = "even" if number % 2 == 0 else "odd"
        log.append([(AuditEvent("made", component=component, resource=f"/data/{number}"), SUPERVISOR)])
    return log


def pruned_events(directory: Path) -> list[dict[str, object]]:
    """Return the records of prunings."""
    return [found.record for found in last_records(str(directory), Filter(event="log_pruned"), None)]


def used_bytes(directory: Path) -> int:
    """Return how much the log holds."""
    return sum(path.stat().st_size for path in directory.glob("audit-*"))


def age(directory: Path, count: int) -> None:
    """Make the oldest segments old."""
    for name in segment_names(str(directory))[:count]:
        os.utime(directory / name, (0, 0))


def test_what_was_pruned_is_on_record_and_the_rest_verifies(tmp_path: Path) -> None:
    """The record names the first and the last record that went and the hash the rest hangs on; heads go with them."""
    directory = tmp_path / "a"
    log = filled(directory)
    names = segment_names(str(directory))
    last = json.loads((directory / names[3]).read_bytes().splitlines()[0])
    age(directory, 3)
    plan = log.prune(AuditRetention(DAY_NS, None), "older than 1d", "uid 7")
    log.close()
    assert segment_names(str(directory)) == names[3:]
    (record,) = pruned_events(directory)
    detail = record["detail"]
    assert isinstance(detail, dict)
    assert (record["actor"], record["reason"]) == ("uid 7", "older than 1d")
    assert (detail["first_seq"], detail["last_seq"], detail["last_hash"]) == (1, last["seq"] - 1, last["prev"])
    assert (detail["records"], detail["segments"]) == (last["seq"] - 1, 3)
    report = verify_log(str(directory))
    assert report.fault is None
    assert report.pruned is not None
    assert report.pruned.last == plan.last
    assert report.first_seq == last["seq"]
    heads = read_heads(str(directory))
    assert heads is not None
    assert heads.sealed[0] == plan.last


def test_nothing_goes_before_the_record_of_it_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the moment when the first file is removed, the record that stands for it is in the log."""
    directory = tmp_path / "a"
    log = filled(directory)
    age(directory, 2)
    seen: list[int] = []

    def unlink(path: str) -> None:
        seen.append(len(pruned_events(directory)))
        real(path)

    real = os.unlink
    monkeypatch.setattr(os, "unlink", unlink)
    log.prune(AuditRetention(DAY_NS, None), "", "")
    log.close()
    assert seen == [1, 1]


def test_policies_go_with_the_records_that_named_them(tmp_path: Path) -> None:
    """What was last used long before the oldest record that is kept is removed; what may be named by one stays."""
    directory = tmp_path / "a"
    log = filled(directory)
    policies = directory / "policies"
    policies.mkdir(mode=0o700)
    for name in ("a" * 64, "b" * 64):
        (policies / name).write_text("{}")
    os.utime(policies / ("a" * 64), (0, 0))
    age(directory, 2)
    log.prune(AuditRetention(DAY_NS, None), "", "")
    log.close()
    assert os.listdir(policies) == ["b" * 64]


def test_segments_that_are_gone_without_a_record_are_missed(tmp_path: Path) -> None:
    """The control: the same files removed by hand, before or after an honest pruning, and verification fails."""
    directory = tmp_path / "a"
    log = filled(directory)
    names = segment_names(str(directory))
    (directory / names[0]).rename(tmp_path / "kept")
    fault = verify_log(str(directory)).fault
    assert fault is not None
    assert (fault.file, fault.kind) == (names[1], "missing")
    (tmp_path / "kept").rename(directory / names[0])
    age(directory, 2)
    log.prune(AuditRetention(DAY_NS, None), "", "")
    assert verify_log(str(directory)).fault is None
    (directory / names[2]).unlink()
    fault = verify_log(str(directory)).fault
    assert fault is not None
    assert (fault.file, fault.kind) == (names[3], "missing")
    log.close()


def test_a_pruning_that_was_cut_short_is_intact_and_is_finished_by_the_next(tmp_path: Path) -> None:
    """The record is there and only some of the files are gone: no fault; a removed end of what is left is one."""
    directory = tmp_path / "a"
    log = filled(directory)
    names = segment_names(str(directory))
    copies = {name: (directory / name).read_bytes() for name in names[1:3]}
    age(directory, 3)
    log.prune(AuditRetention(DAY_NS, None), "", "")
    for name, data in copies.items():
        (directory / name).write_bytes(data)
    assert verify_log(str(directory)).fault is None
    (directory / names[2]).unlink()
    assert verify_log(str(directory)).fault is not None
    (directory / names[2]).write_bytes(copies[names[2]])
    age(directory, 2)
    log.prune(AuditRetention(DAY_NS, None), "", "")
    log.close()
    assert segment_names(str(directory))[0] == names[3]
    assert verify_log(str(directory)).fault is None


def test_pruning_does_not_hide_that_a_log_is_not_intact(tmp_path: Path) -> None:
    """Where the next segment doesn't hang on the end of what would go, nothing goes, by hand or by itself."""
    by_age = AuditRetention(DAY_NS, None)
    directory = tmp_path / "a"
    filled(directory).close()
    name = segment_names(str(directory))[0]
    (directory / name).write_bytes((directory / name).read_bytes().replace(b'"records":', b'"recordz":'))
    before = segment_names(str(directory))
    age(directory, 1)
    log = AuditLog(str(directory), retention=by_age)
    with pytest.raises(Exception, match="can't be pruned"):
        log.prune(by_age, "", "")
    log.append([(AuditEvent("made"), SUPERVISOR)])
    log.close()
    assert segment_names(str(directory)) == before


def test_the_writer_prunes_by_size_by_itself(tmp_path: Path) -> None:
    """However much is written, the log stays below its bound, verifies all the time, and keeps most of the bound."""
    directory = tmp_path / "a"
    retention = AuditRetention(None, 1_000_000)
    log = AuditLog(str(directory), retention=retention)
    event = AuditEvent("made", resource="x" * 4000)
    for _ in range(60):
        log.append([(event, SUPERVISOR)] * 20)
        assert used_bytes(directory) <= 1_000_000
    log.close()
    assert used_bytes(directory) > 500_000
    report = verify_log(str(directory))
    assert report.fault is None
    assert report.first_seq > 500
    assert len(pruned_events(directory)) > 1


def test_the_writer_prunes_by_age_by_itself(tmp_path: Path) -> None:
    """A segment is sealed by age long before its records must go; what is older than is kept goes at the next start."""
    directory = tmp_path / "a"
    now = [10**18]
    log = AuditLog(str(directory), retention=AuditRetention(8 * DAY_NS, None), clock_ns=lambda: now[0])
    for _ in range(12):
        log.append([(AuditEvent("made"), SUPERVISOR)])
        os.utime(log.segment, ns=(now[0], now[0]))
        now[0] += DAY_NS + 1
    names = segment_names(str(directory))
    log.close()
    assert len(names) > 5
    log = AuditLog(str(directory), retention=AuditRetention(8 * DAY_NS, None), clock_ns=lambda: 2 * 10**18)
    assert len(segment_names(str(directory))) == 2  # one that was sealed just now, and the one behind it
    log.close()
    assert verify_log(str(directory)).fault is None


def test_the_command_prunes_says_what_and_can_only_say_it(airssys: _CommandLine) -> None:
    """--dry-run changes nothing; --keep and --older-than do; verify tells what was pruned; usage errors are 64."""
    directory = airssys.state / "audit"
    filled(directory).close()
    files = sorted(os.listdir(directory))
    dry = airssys("audit", "prune", "--keep", "20kB", "--dry-run")
    assert dry.code == 0
    assert dry.stdout.startswith("would be pruned: records 1 to ")
    assert sorted(os.listdir(directory)) == files
    done = airssys("audit", "prune", "--keep", "20kB", "--json").json()
    assert dry.stdout.startswith(f"would be pruned: records 1 to {done['last_seq']} in {done['segments']} segments")
    assert len(segment_names(str(directory))) == len([f for f in files if f.startswith("audit-")]) - int(
        str(done["segments"])
    )
    again = airssys("audit", "prune", "--keep", "20kB")
    assert again.stdout.startswith("nothing to prune")
    verified = airssys("audit", "verify")
    assert verified.code == 0
    assert f"pruned: records 1 to {done['last_seq']}, as record " in verified.stdout
    head = Head(int(str(done["last_seq"])), str(done["last_hash"]))
    assert airssys("audit", "verify", "--head", str(head)).code == 0
    assert airssys("audit", "verify", "--head", f"{head.seq}:{'0' * 64}").code == 1
    assert airssys("audit", "verify", "--head", f"1:{'0' * 64}").stdout.startswith("NOT INTACT")
    age(directory, 2)
    assert airssys("audit", "prune", "--older-than", "90d").stdout.startswith("pruned: ")
    assert airssys("audit", "prune", "--keep", "much").code == 64
    assert airssys("audit", "prune", "--keep", "1GB", "--audit-log", airssys.directory / "none").code == 73


def test_the_settings_say_how_much_is_kept(airssys: _CommandLine) -> None:
    """A run prunes by [audit] max_size of airssys.toml, and the command without flags does, too."""
    directory = airssys.state / "audit"
    log = AuditLog(str(directory), segment_bytes=300_000)
    for _ in range(30):
        log.append([(AuditEvent("made", resource="x" * 4000), SUPERVISOR)] * 10)
    log.close()
    config = airssys.directory / "airssys.toml"
    config.write_text('schema = 1\n[audit]\nmax_size = "1MB"\nkeep = "90d"\n')
    config.chmod(0o600)
    tool = Path(__file__).resolve().parents[1] / "guests" / "tool.wasm"
    assert airssys("run", tool, "--config", config, "-q", "--", "exit", "0").code == 0
    assert pruned_events(directory)
    assert used_bytes(directory) <= 1_000_000
    assert airssys("audit", "prune", "--config", config).stdout.startswith("nothing to prune")
    assert airssys("audit", "verify").code == 0
    config.write_text('schema = 1\n[audit]\nmax_size = "1kB"\n')
    assert airssys("audit", "prune", "--config", config).code == 65


def test_an_export_is_the_lines_themselves_and_can_be_checked(airssys: _CommandLine) -> None:
    """jsonl: what fits, byte for byte, in a new private file; each change of it between neighbours is found."""
    directory = airssys.state / "audit"
    filled(directory).close()
    lines = b"".join((directory / name).read_bytes() for name in segment_names(str(directory))).splitlines(True)
    whole, part = airssys.directory / "whole.jsonl", airssys.directory / "part.jsonl"
    done = airssys("audit", "export", "-o", whole)
    assert (done.code, done.stdout) == (0, "")
    assert f"exported {len(lines)} records, 1 to {len(lines)}, in 1 unbroken run" in done.stderr
    assert whole.read_bytes().splitlines(True) == lines
    assert stat.S_IMODE(whole.stat().st_mode) == 0o600
    assert airssys("audit", "verify", "--export", whole).stdout == f"intact: {len(lines)} records in 1 unbroken run\n"
    forged = [line.replace(b'"/data/5"', b'"/data/x"') for line in lines]
    for changed in (forged, lines[:3] + lines[:2], [*lines[:2], b"x"]):
        part.write_bytes(b"".join(changed))
        assert airssys("audit", "verify", "--export", part).code == 1
    part.unlink()
    assert airssys("audit", "export", "--component", "odd", "--json", "-o", part).json()["records"] == 30
    assert all(json.loads(line)["component"] == "odd" for line in part.read_bytes().splitlines())
    assert airssys("audit", "verify", "--export", part).code == 0
    assert airssys("audit", "export", "-o", part).code == 73
    assert airssys("audit", "export", "-o", airssys.directory / "none/x").code == 73
    assert airssys("audit", "export", "--since", "soon", "-o", "-").code == 64
    assert airssys("audit", "export", "--event", "made", "-o", "-").stdout.encode().splitlines(True) == [
        line for line in lines if b'"event":"made"' in line
    ]
    assert sorted(path.name for path in airssys.directory.iterdir()) == ["part.jsonl", "state", "whole.jsonl"]


def test_an_export_for_a_spreadsheet_holds_the_chain_and_no_formula(airssys: _CommandLine) -> None:
    """csv: a column a key and the record's own hash; what a component chose isn't computed by whoever opens it."""
    log = AuditLog(str(airssys.state / "audit"))
    first, second = log.append(
        [
            (AuditEvent("made", resource='=cmd|"calc"!A0', detail={"n": 1}), SUPERVISOR),
            (AuditEvent("made", resource="+1\n"), SUPERVISOR),
        ]
    )
    log.close()
    target = airssys.directory / "x.csv"
    assert airssys("audit", "export", "--format", "csv", "-o", target).code == 0
    rows = list(csv.DictReader(target.read_text().splitlines()))
    assert [row["hash"] for row in rows] == [first.hash, second.hash]
    assert rows[1]["prev"] == rows[0]["hash"]
    assert [row["resource"] for row in rows] == ['\'=cmd|"calc"!A0', "'+1\\u{a}"]
    assert rows[0]["detail"] == '{"n":1}'


def test_an_export_of_a_changed_log_says_so(airssys: _CommandLine) -> None:
    """What is exported is followed along the chain: 1, and where it breaks."""
    log = filled(airssys.state / "audit", 9)
    path = Path(log.segment)
    log.close()
    path.write_bytes(path.read_bytes().replace(b"/data/8", b"/data/7"))
    first = airssys("audit", "export", "-o", airssys.directory / "a.jsonl")
    assert first.code == 0  # the last record hangs on what is before it; its own hash is `verify`'s matter
    path.write_bytes(path.read_bytes().replace(b"/data/7", b"/data/9"))
    second = airssys("audit", "export", "-o", airssys.directory / "b.jsonl")
    assert second.code == 1
    assert "does not follow from the one before it" in second.stderr


def test_a_sealed_head_reaches_the_journal_from_a_run(airssys: _CommandLine) -> None:
    """The public command tells the socket that $AIRSSYS_JOURNAL names; its word is a head that verification accepts."""
    directory = airssys.state / "audit"
    log = AuditLog(str(directory))
    log.append([(AuditEvent("made", resource="x" * 4000), SUPERVISOR)] * 40)
    log.close()
    config = airssys.directory / "airssys.toml"
    config.write_text('schema = 1\n[audit]\nmax_size = "1MB"\n')
    config.chmod(0o600)
    tool = Path(__file__).resolve().parents[1] / "guests" / "tool.wasm"
    address = str(airssys.directory / "log")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(address)
        journal.settimeout(20)
        # A segment holds an eighth of what is kept: this run finds it full, and seals it.
        command = ("run", tool, "--config", config, "-q", "--", "exit", "0")
        assert airssys(*command, AIRSSYS_JOURNAL=address).code == 0
        told = journal.recv(4096).decode()
    assert told.startswith("<85>airssys[")
    head = told.rpartition("head ")[2]
    assert airssys("audit", "verify", "--head", head).code == 0
    assert airssys("audit", "verify", "--head", f"{Head.parse(head).seq}:{'0' * 64}").code == 1
    # Nobody there to be told: that holds nothing up.
    assert airssys(*command, AIRSSYS_JOURNAL=str(airssys.directory / "nobody")).code == 0
