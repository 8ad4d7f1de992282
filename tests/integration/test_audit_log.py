"""The audit log on real files: durability, chain, rotation, repair, full disks, several writers, forgeries."""

import contextlib
import errno
import json
import os
import random
import resource
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from ipc.audit.errors import AuditLogError
from ipc.audit.event import SUPERVISOR, AuditEvent, Origin
from supervisor.audit.heads import Head, heads_path
from supervisor.audit.log import AuditLog
from supervisor.audit.query import Filter, last_records, parse_moment
from supervisor.audit.segments import segment_names
from supervisor.audit.verify import verify_log

GUESTS = Path(__file__).resolve().parents[1] / "guests"
APPENDER = """
import os, sys
from ipc.audit.event import AuditEvent, SUPERVISOR
from supervisor.audit.log import AuditLog
log = AuditLog(sys.argv[1], segment_bytes=int(sys.argv[3]))
for number in range(int(sys.argv[2])):
    event = AuditEvent("made", resource="x" * 300, correlation=f"{os.getpid()}:{number}")
    records = log.append([(event, SUPERVISOR)] * 3)
    os.write(1, b"%d\\n" % records[-1].seq)
"""


def entries(count: int, name: str = "made") -> list[tuple[AuditEvent, Origin]]:
    """Return `count` entries."""
    return [(AuditEvent(name, component="c", resource=f"/data/{n}"), SUPERVISOR) for n in range(count)]


def filled(directory: Path, batches: int = 8, segment_bytes: int = 6000) -> Path:
    """Make a log of several segments."""
    log = AuditLog(str(directory), segment_bytes=segment_bytes)
    for _ in range(batches):
        log.append(entries(3))
    log.close()
    return directory


def events(directory: Path) -> list[str]:
    """Return the names of all events in the log."""
    return [str(f.record["event"]) for f in last_records(str(directory), Filter(), None)]


@pytest.mark.any_user
def test_appended_records_are_chained_private_and_verified(tmp_path: Path) -> None:
    """Sequence numbers are continuous over reopening, files are their owner's only, the chain verifies."""
    directory = tmp_path / "audit"
    log = AuditLog(str(directory))
    assert [r.seq for r in log.append(entries(3))] == [1, 2, 3]
    log.close()
    log = AuditLog(str(directory))
    (record,) = log.append(entries(1))
    assert record.seq == 4
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert {stat.S_IMODE(p.stat().st_mode) for p in directory.iterdir()} == {0o600}
    report = verify_log(str(directory))
    assert report.fault is None
    assert report.head == Head(4, record.hash)


@pytest.mark.any_user
def test_rotation_seals_and_the_next_segment_chains(tmp_path: Path) -> None:
    """Each full segment ends with its seal, and gives back the space that was set aside."""
    directory = filled(tmp_path / "a")
    names = segment_names(str(directory))
    assert len(names) > 2
    for name in names[:-1]:
        last = json.loads((directory / name).read_bytes().splitlines()[-1])
        assert last["event"] == "segment_sealed"
        assert last["detail"]["records"] == len((directory / name).read_bytes().splitlines()) - 1
        status = (directory / name).stat()
        assert status.st_blocks * 512 < status.st_size + 16384
        assert status.st_size <= 6000
    assert verify_log(str(directory)).fault is None


@pytest.mark.any_user
@pytest.mark.parametrize("torn", [b"{", b'{"schema":1,"seq":', b"\0" * 5000, b"\n\n", b"x" * 400_000, b"junk\n{}\n"])
def test_a_torn_tail_is_cut_kept_and_recorded(tmp_path: Path, torn: bytes) -> None:
    """What a crash left behind the last good line is moved to a side file, and the next record says so."""
    directory = filled(tmp_path / "a", 1)
    path = directory / segment_names(str(directory))[-1]
    with path.open("ab") as file:
        file.write(torn)
    AuditLog(str(directory)).append(entries(1))
    assert events(directory) == ["made"] * 3 + ["log_repaired", "made"]
    (side,) = directory.glob("torn-*.bin")
    assert side.read_bytes() == torn
    report = verify_log(str(directory))
    assert (report.fault, report.repairs) == (None, 1)


@pytest.mark.any_user
def test_a_line_cut_anywhere_is_repaired_and_its_loss_is_not_hidden(tmp_path: Path) -> None:
    """Cutting into a durable record is repaired as a tear, but the head tells that a record is missing."""
    directory = filled(tmp_path / "a", 1)
    path = directory / segment_names(str(directory))[-1]
    os.truncate(path, path.stat().st_size - 20)
    AuditLog(str(directory)).append(entries(1))
    assert events(directory)[-3:] == ["log_repaired", "log_records_missing", "made"]
    fault = verify_log(str(directory)).fault
    assert fault is not None
    assert fault.line == 3


@pytest.mark.any_user
def test_an_anchor_noted_elsewhere_must_be_found_again(tmp_path: Path) -> None:
    """A log rewritten as a whole, recorded heads included, is intact in itself; the anchor tells."""
    directory = filled(tmp_path / "a", 2)
    report = verify_log(str(directory))
    assert report.head is not None
    assert verify_log(str(directory), report.head).fault is None
    shutil.rmtree(directory)
    os.unlink(heads_path(str(directory)))
    filled(directory, 2)
    assert verify_log(str(directory)).fault is None
    fault = verify_log(str(directory), report.head).fault
    assert fault is not None
    assert fault.kind == "head"


def test_several_processes_share_one_log(tmp_path: Path) -> None:
    """Four writers at once, with rotation: one chain, nothing lost, nothing twice."""
    command = [sys.executable, "-I", "-c", APPENDER, str(tmp_path / "a"), "15", "20000"]
    writers = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(4)]
    assert [w.wait(60) for w in writers] == [0] * 4
    report = verify_log(str(tmp_path / "a"))
    assert report.fault is None
    assert events(tmp_path / "a").count("made") == 4 * 15 * 3


@pytest.mark.any_user
def test_a_writer_killed_at_any_moment_loses_nothing_that_it_acknowledged(tmp_path: Path) -> None:
    """SIGKILL after a random number of acknowledgements, twelve times: all of them are there, the log is whole."""
    chooser = random.Random(3)
    directory = str(tmp_path / "a")
    for _ in range(12):
        command = [sys.executable, "-I", "-c", APPENDER, directory, "100000", "30000"]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            for _ in range(chooser.randrange(1, 12)):
                acknowledged = int(writer.stdout.readline())
            for _ in range(chooser.randrange(0, 20_000)):
                pass  # a moment that differs each time
            writer.send_signal(signal.SIGKILL)
            acknowledged = max(
                [acknowledged, *(int(x) for x in writer.stdout.read().splitlines(keepends=True) if x[-1:] == b"\n")]
            )
        log = AuditLog(directory, segment_bytes=30000)
        assert log.head.seq >= acknowledged
        log.close()
        assert verify_log(directory).fault is None


@contextlib.contextmanager
def file_size_limit(limit_bytes: int):
    """Let no file of this process grow beyond `limit_bytes` (EFBIG): a full disk at a chosen byte."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("room_bytes", [0, 1, 300, 1000])
def test_no_room_rolls_the_batch_back_and_space_resumes_it(tmp_path: Path, room_bytes: int) -> None:
    """All or nothing: the file is as long as before, the error says what helps, and the next append works."""
    log = AuditLog(str(tmp_path / "a"))
    log.append(entries(200))
    size_bytes = os.stat(log.segment).st_size
    with file_size_limit(size_bytes + room_bytes), pytest.raises(AuditLogError, match="can't be written") as caught:
        log.append(entries(5))
    assert not caught.value.fatal
    assert "df -h" in caught.value.hint
    assert os.stat(log.segment).st_size == size_bytes
    assert log.append(entries(1))[0].seq == 201
    assert verify_log(str(tmp_path / "a")).fault is None


FULL_DISK = """
import os, sys
from ipc.audit.errors import AuditLogError
from ipc.audit.event import AuditEvent, SUPERVISOR
from supervisor.audit.log import AuditLog
from supervisor.audit.verify import verify_log
room = sys.argv[1] + "/ballast"
open(room, "wb").write(b"x" * 100_000)
log = AuditLog(sys.argv[1] + "/audit")
written = 0
try:
    while True:
        written = log.append([(AuditEvent("made", resource="x" * 700), SUPERVISOR)] * 3)[-1].seq
except AuditLogError as error:
    assert not error.fatal and "No space left" in str(error), error
assert verify_log(log.directory).fault is None
os.unlink(room)
assert log.append([(AuditEvent("made"), SUPERVISOR)])[-1].seq == written + 1
assert verify_log(log.directory).fault is None and written > 20
print("held")
"""


def test_a_full_disk_stops_the_log_and_room_resumes_it(tmp_path: Path) -> None:
    """On a real small file system (tmpfs of 512 KiB): ENOSPC, nothing torn, and it goes on by itself."""
    mount = 'mount -t tmpfs -o size=512k tmpfs "$1" && exec "$2" -I -c "$3" "$1"'
    shell = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, "sh"]
    if subprocess.run([*shell[:4], "true"], capture_output=True, check=False).returncode:
        pytest.skip("no user and mount namespaces here")
    done = subprocess.run(
        [*shell, str(tmp_path), sys.executable, FULL_DISK], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.stderr) == ("held\n", "")


def test_a_failed_sync_is_fatal_and_never_tried_again(tmp_path: Path) -> None:
    """After fdatasync failed nothing more is written by this process; what it had not acknowledged is gone."""
    calls: list[int] = []

    def failing(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) > 1:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    log = AuditLog(str(tmp_path / "a"), sync=failing)
    log.append(entries(2))
    for _ in range(2):
        with pytest.raises(AuditLogError) as caught:
            log.append(entries(1))
        assert caught.value.fatal
    assert len(calls) == 2
    assert AuditLog(str(tmp_path / "a")).append(entries(1))[0].seq == 3
    assert verify_log(str(tmp_path / "a")).fault is None


def test_another_users_directory_and_a_symlink_are_refused(tmp_path: Path) -> None:
    """The log is kept only where nobody else can reach it."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(AuditLogError):
        AuditLog(str(tmp_path / "link"))
    if os.getuid() == 0:
        os.chown(tmp_path / "real", 65534, 65534)
        with pytest.raises(AuditLogError, match="belongs to uid 65534"):
            AuditLog(str(tmp_path / "real"))


@pytest.mark.any_user
def test_positions_of_a_stream_are_found_in_older_segments(tmp_path: Path) -> None:
    """A writer that takes over knows how far a producer had come."""
    log = AuditLog(str(tmp_path / "a"), segment_bytes=6000)
    log.append([(AuditEvent("e"), Origin("warden", "ab" * 8, 41))])
    for _ in range(8):
        log.append(entries(3))
    assert log.last_position("ab" * 8) == 41
    assert log.last_position("cd" * 8) == 0


def airssys(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line."""
    code = "import sys; from supervisor.cli.main import main; sys.exit(main(sys.argv[1:]))"
    return subprocess.run(
        [sys.executable, "-I", "-c", code, *arguments], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.any_user
def test_the_command_line_reads_filters_and_verifies(tmp_path: Path) -> None:
    """Query filters, tail limits, verify tells; a hostile name can't act on the terminal; a bad log ends with 1."""
    directory = tmp_path / "a"
    log = AuditLog(str(directory))
    log.append(entries(3))
    bad = AuditEvent(
        "file_opened",
        component="evil",
        action="filesystem.read",
        resource="/x\x1b[31m\n",
        decision="denied",
        code="A1203",
    )
    log.append([(bad, SUPERVISOR)])
    at = ("--audit-log", str(directory))
    table = airssys("audit", "query", "--decision", "denied", *at)
    assert table.returncode == 0
    assert len(table.stdout.splitlines()) == 2
    assert "\x1b" not in table.stdout
    assert "/x\\u{1b}[31m\\u{a}" in table.stdout
    lines = airssys("audit", "tail", "-n", "2", "--json", *at).stdout.splitlines()
    assert [json.loads(line)["seq"] for line in lines] == [3, 4]
    whole = airssys("audit", "verify", "--json", *at)
    assert (whole.returncode, json.loads(whole.stdout)["intact"]) == (0, True)
    path = Path(log.segment)
    path.write_bytes(path.read_bytes().replace(b"/data/1", b"/data/9"))
    broken = airssys("audit", "verify", *at)
    assert broken.returncode == 1
    assert "line 3" in broken.stdout
    assert airssys("audit", "query", "--since", "yesterday", *at).returncode == 64
    assert airssys("audit", "verify", "--audit-log", str(tmp_path / "none")).returncode == 73


@pytest.mark.any_user
def test_moments() -> None:
    """Relative and absolute times."""
    assert parse_moment("10m", 600_000_000_000) == "1970-01-01T00:00:00.000000000Z"
    for none in ("2026-13-01", "2026-04-31", "2026-01-31T25:00"):
        with pytest.raises(ValueError, match="is no time"):
            parse_moment(none, 0)
    assert parse_moment("2026-01-31", 0) == "2026-01-31T00:00:00.000000000Z"
    assert parse_moment("2026-01-31T12:00:00.5Z", 0) == "2026-01-31T12:00:00.500000000Z"
    with pytest.raises(ValueError, match="is no time"):
        parse_moment("soon", 0)


def test_the_log_is_read_where_a_run_wrote_it(airssys) -> None:
    """Without a state directory of one's own, `run` and `audit` mean the same log: the host's, wherever it is."""
    names = ("state", "data", "run", "log")
    config = airssys.directory / "airssys.toml"
    config.write_text("schema = 1\n[host]\n" + "".join(f'{name} = "{airssys.directory}/{name}"\n' for name in names))
    config.chmod(0o600)
    surroundings = {"AIRSSYS_STATE": "", "AIRSSYS_CONFIG": str(config)}
    ran = airssys("run", GUESTS / "hello.wasm", **surroundings)
    assert ran.code == 0, ran.stderr
    told = airssys("audit", "query", "--event", "worker_ended", "--json", **surroundings)
    assert (told.code, told.stdout.count('"component":"hello"')) == (0, 1), told.stderr
    assert f"{airssys.directory}/log/audit" in ran.stderr
