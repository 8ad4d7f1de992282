"""Full, read-only and failing disks under the audit log: nothing is allowed meanwhile, nothing acknowledged is lost."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import pytest

from ipc.audit.event import exact, parse_line
from ipc.struct import Struct
from supervisor.audit.verify import verify_log

TOOL = Path(__file__).resolve().parents[1] / "guests" / "tool.wasm"
NOBODY = 65534
GUARD_S = 30.0


class _Deadline(Protocol):
    def until(self, condition: Callable[[], object], what: str) -> None: ...


class _CommandLine(Protocol):
    directory: Path
    state: Path
    environment: dict[str, str]


class Disk(Struct):
    """A small file system under the audit log, in a mount namespace of its own, and commands in there."""

    command_line: _CommandLine
    holder: int
    audit: Path
    work: Path

    @property
    def outside(self) -> Path:
        """The log's directory, as it is seen in there."""
        return Path(f"/proc/{self.holder}/root{self.audit}")

    def inside(self, *command: str, as_root: bool = False) -> list[str]:
        """Return a command that runs in there, as who we are or as who may mount there."""
        pid = self.holder
        if os.geteuid() == 0:
            return ["nsenter", f"--mount=/proc/{pid}/ns/mnt", *command]
        enter = ["nsenter", f"--target={pid}", "--user", "--mount", "--preserve-credentials"]
        me = [] if as_root else ["unshare", "--user", f"--map-user={os.geteuid()}", f"--map-group={os.getegid()}"]
        return [*enter, *me, *command]

    def start(self, *command: str | Path) -> subprocess.Popen[str]:
        """Start a command in there with three pipes."""
        return subprocess.Popen(
            self.inside(*map(str, command)),
            cwd=self.work,
            env=self.command_line.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        """Run a command in there to its end."""
        with self.start(*command) as process:
            try:
                output, errors = process.communicate(timeout=GUARD_S)
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)
                raise
        return subprocess.CompletedProcess([], process.returncode, output, errors)

    def mount(self, options: str) -> None:
        """Mount it again with other options."""
        command = self.inside("mount", "-o", f"remount,bind,{options}", str(self.audit), as_root=True)
        subprocess.run(command, check=True, timeout=GUARD_S)

    def fill(self) -> None:
        """Leave no room on it."""
        with (self.outside / "ballast").open("ab", buffering=0) as ballast, contextlib.suppress(OSError):
            while ballast.write(b"x" * 1024):
                pass

    def make_room(self) -> None:
        """Take away what fills it."""
        (self.outside / "ballast").unlink()

    def records(self, event: str) -> list[dict[str, object]]:
        """Return the records of one kind."""
        found: list[dict[str, object]] = []
        for path in sorted(self.outside.glob("*.jsonl")):
            lines = path.read_bytes().splitlines(keepends=True)
            found += [exact(parse_line(line)) for line in lines if line.endswith(b"\n")]
        return [record for record in found if record["event"] == event]

    def writes(self, count: int) -> tuple[list[str], list[str], list[Path]]:
        """Return flags that grant files one by one, each with a rule of its own; what writes them; the files."""
        files = [self.work / f"{number:02}" for number in range(count)]
        flags = [part for file in files for part in ("--write", str(file))]
        guest = [part for file in files for part in (",", "write", str(file), "x")]
        return flags, guest, files


@pytest.fixture
def disk(airssys: _CommandLine, small_disk: Callable[[Path, str], int]) -> Disk:
    """A file system of 600 KiB (tmpfs) where the log is kept."""
    audit, work = airssys.state / "audit", airssys.directory / "work"
    audit.mkdir(parents=True)
    work.mkdir()
    if os.geteuid() == 0:
        os.chown(work, NOBODY, NOBODY)
    return Disk(airssys, small_disk(audit, "size=600k,mode=700"), audit, work)


def airssys_path() -> Path:
    """Return the installed command."""
    return Path(sys.executable).with_name("airssys")


def test_with_a_full_disk_nothing_starts_until_there_is_room(disk: Disk) -> None:
    """73, the reason and the command that helps; nothing was done. With room again the same command works."""
    flags, guest, files = disk.writes(1)
    command = (airssys_path(), "run", TOOL, *flags, "--", *guest[1:])
    disk.fill()
    refused = disk.run(*command)
    assert refused.returncode == 73
    # What can't be kept is said: the first that can't is the policy, then a record.
    assert "No space left on device" in refused.stderr
    assert "make room" in refused.stderr
    assert f"df -h {disk.audit}" in refused.stderr
    assert not files[0].exists()
    disk.make_room()
    assert disk.run(*command).returncode == 0
    assert files[0].read_text() == "x"
    assert verify_log(str(disk.outside)).fault is None


def test_a_disk_that_gets_full_holds_the_component_until_there_is_room(disk: Disk, deadline: _Deadline) -> None:
    """No file is written without its record on disk; the reason is told; it goes on by itself, each record once."""
    flags, guest, files = disk.writes(40)
    with disk.start(airssys_path(), "run", TOOL, *flags, "--", "wait-stdin", *guest) as run:
        assert run.stdin is not None
        assert run.stderr is not None
        deadline.until(lambda: disk.records("worker_confined"), "the component runs")
        disk.fill()
        run.stdin.write("x")
        run.stdin.close()
        lines = [run.stderr.readline() for _ in range(2)]
        assert "can't be written: No space left on device; nothing is allowed meanwhile" in lines[0]
        assert "df -h" in lines[1]
        written = {str(file) for file in files if file.exists()}
        assert len(written) < len(files)
        assert written <= {record["resource"] for record in disk.records("file_access")}
        disk.make_room()
        assert run.wait(GUARD_S) == 0
        assert "it goes on" in run.stderr.read()
    assert all(file.read_text() == "x" for file in files)
    assert [record["resource"] for record in disk.records("file_access")] == [str(file) for file in files]
    assert verify_log(str(disk.outside)).fault is None


def test_a_read_only_disk_can_be_read_and_nothing_starts(disk: Disk) -> None:
    """The log is verified and read as ever; a run ends with 73 and the command that helps; writable again, it works."""
    flags, guest, files = disk.writes(1)
    command = (airssys_path(), "run", TOOL, *flags, "--", *guest[1:])
    assert disk.run(*command).returncode == 0
    files[0].unlink()
    disk.mount("ro")
    refused = disk.run(*command)
    assert refused.returncode == 73
    assert "can't be written: Read-only file system\n  make it writable: mount -o remount,rw" in refused.stderr
    assert not files[0].exists()
    assert disk.run(airssys_path(), "audit", "verify").returncode == 0
    assert "worker_confined" in disk.run(airssys_path(), "audit", "tail").stdout
    disk.mount("rw")
    assert disk.run(*command).returncode == 0
    assert verify_log(str(disk.outside)).fault is None


FILL_LOG = """
import sys
from ipc.audit.errors import AuditLogError
from ipc.audit.event import AuditEvent, SUPERVISOR
from supervisor.audit.log import AuditLog
log = AuditLog(sys.argv[1], segment_bytes=20_000)
try:
    while True:
        log.append([(AuditEvent("made"), SUPERVISOR)])
except AuditLogError as error:
    print(error)
"""


def test_a_log_that_filled_its_own_disk_can_still_be_pruned(disk: Disk) -> None:
    """The record that stands for what goes is written into room that was held for it; then there is room for more."""
    filled = disk.run(sys.executable, "-I", "-c", FILL_LOG, str(disk.audit))
    assert filled.stdout == f"the audit log {disk.audit} can't be written: No space left on device\n"
    disk.fill()
    refused = disk.run(airssys_path(), "run", TOOL, "--", "exit", "0")
    assert refused.returncode == 73
    pruned = disk.run(airssys_path(), "audit", "prune", "--keep", "100kB")
    assert (pruned.returncode, pruned.stderr) == (0, "")
    assert len(disk.records("log_pruned")) == 1
    checked = disk.run(airssys_path(), "audit", "verify")
    assert checked.returncode == 0
    assert "pruned: records 1 to " in checked.stdout
    assert disk.run(airssys_path(), "run", TOOL, "--", "exit", "0").returncode == 0


SECCOMP = """
import ctypes, os, struct, sys, threading
libc = ctypes.CDLL(None, use_errno=True)
NUMBERS = {"x86_64": (74, 75, 1, 317), "aarch64": (82, 83, 64, 277)}[os.uname().machine]
def load(instructions):
    "Load a filter into every thread: seccomp(2), SECCOMP_FILTER_FLAG_TSYNC."
    code = b"".join(struct.pack("HBBI", *each) for each in instructions)
    buffer = ctypes.create_string_buffer(code)
    program = struct.pack("HxxxxxxP", len(instructions), ctypes.addressof(buffer))
    assert libc.prctl(38, 1, 0, 0, 0) == 0
    assert libc.syscall(ctypes.c_long(NUMBERS[3]), ctypes.c_long(1), ctypes.c_long(1), program) == 0
def fail(errno):
    return (6, 0, 0, 0x00050000 | errno)
ALLOW, NUMBER, FIRST_ARGUMENT = (6, 0, 0, 0x7FFF0000), (32, 0, 0, 0), (32, 0, 0, 16)
"""
FAILING_SYNC = (
    SECCOMP
    + """
def fail_syncs(descriptor):
    os.read(descriptor, 1)
    load([NUMBER, (21, 1, 0, NUMBERS[0]), (21, 0, 1, NUMBERS[1]), fail(5), ALLOW])
    os.write(2, b"syncs fail from now on\\n")
threading.Thread(target=fail_syncs, args=(int(sys.argv[1]),), daemon=True).start()
from supervisor.cli.main import main
sys.exit(main(sys.argv[2:]))
"""
)


def test_a_failed_sync_ends_the_supervisor(airssys: _CommandLine, deadline: _Deadline) -> None:
    """fsync answers EIO from a moment on: what was acknowledged is there, nothing more is done, it ends with 73."""
    work = airssys.directory / "work"
    work.mkdir()
    if os.geteuid() == 0:
        os.chown(work, NOBODY, NOBODY)
    reader, writer = os.pipe()
    flags = [part for name in ("before", "after") for part in ("--write", str(work / name))]
    guest = ["write", str(work / "before"), "x", ",", "wait-stdin", ",", "write", str(work / "after"), "x"]
    command = [sys.executable, "-I", "-c", FAILING_SYNC, str(reader), "run", str(TOOL), *flags, "--", *guest]
    pipe = subprocess.PIPE
    environment = airssys.environment
    with subprocess.Popen(
        command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, pass_fds=(reader,), env=environment, cwd=work
    ) as run:
        assert run.stdin is not None
        assert run.stderr is not None
        try:
            deadline.until((work / "before").exists, "the first file is written")
            os.write(writer, b"x")
            assert "syncs fail" in run.stderr.readline()
            run.stdin.write("x")
            run.stdin.close()
            assert run.wait(GUARD_S) == 73
        finally:
            run.kill()
        errors = run.stderr.read()
    for descriptor in (reader, writer):
        os.close(descriptor)
    assert "could not be made durable: Input/output error; this process can't go on" in errors
    assert "dmesg" in errors
    assert not (work / "after").exists()
    audit = airssys.state / "audit"
    text = b"".join(path.read_bytes() for path in audit.glob("*.jsonl")).decode()
    assert f'"{work}/before"' in text
    assert f'"{work}/after"' not in text
    assert verify_log(str(audit)).fault is None


FAILING_WRITE = (
    SECCOMP
    + """
from ipc.audit.errors import AuditLogError
from ipc.audit.event import AuditEvent, SUPERVISOR
from supervisor.audit.log import AuditLog
log = AuditLog(sys.argv[1])
log.append([(AuditEvent("before"), SUPERVISOR)])
segment = log._tail.descriptor
load([NUMBER, (21, 0, 3, NUMBERS[2]), FIRST_ARGUMENT, (21, 0, 1, segment), fail(30), ALLOW])
for _ in range(2):
    try:
        log.append([(AuditEvent("refused"), SUPERVISOR)])
    except AuditLogError as error:
        print(error.fatal, error)
"""
)


def test_a_disk_that_turns_read_only_is_no_end(tmp_path: Path) -> None:
    """write(2) answers EROFS for the open segment: the batch is taken back, and may be tried again."""
    audit = tmp_path / "audit"
    command = [sys.executable, "-I", "-c", FAILING_WRITE, str(audit)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=GUARD_S, check=False)
    line = f"False the audit log {audit} can't be written: Read-only file system\n"
    assert (done.stdout, done.stderr) == (line * 2, "")
    report = verify_log(str(audit))
    assert (report.fault, report.records) == (None, 1)
