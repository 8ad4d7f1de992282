"""What a worker is given beside its grants: no environment, no descriptor, no import path of anybody's."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import psutil
import pytest

from ipc.syscalls import machine
from worker.filter_compiler import resolve

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from conftest import World

GUESTS = Path(__file__).resolve().parents[1] / "guests"
SECRET = "hush-0xC0FFEE"


class CommandLine(Protocol):
    """The fixture of tests/conftest.py."""

    directory: Path

    def start(self, *arguments: str | Path, cwd: Path | None = None, **environment: str) -> subprocess.Popen[bytes]:
        """Start it."""

    def __call__(self, *arguments: str | Path, cwd: Path | None = None, **environment: str) -> Ended:
        """Run it."""


class Ended(Protocol):
    """What a run of it left."""

    code: int
    stdout: str
    stderr: str


def test_the_guest_sees_only_the_environment_it_was_given(airssys: CommandLine) -> None:
    """Of a host environment with a secret in it nothing arrives but what `--env` and `--secret` name."""
    secret_file = airssys.directory / "token"
    secret_file.write_text(SECRET + "\n")
    flags = ["--env", "TZ=UTC", "--env", "PASSED", "--secret", f"TOKEN={secret_file}"]
    ran = airssys(
        "run", GUESTS / "tool.wasm", *flags, "--", "env", PASSED="yes", HIDDEN="no", AWS_SECRET_ACCESS_KEY="no"
    )
    assert sorted(ran.stdout.split()) == sorted(["TZ=UTC", "PASSED=yes", f"TOKEN={SECRET}"])
    assert SECRET not in ran.stderr
    assert airssys("run", GUESTS / "tool.wasm", "--", "env", HIDDEN="no").stdout == ""


def test_a_secret_is_nowhere_in_the_audit_log_or_report(airssys: CommandLine) -> None:
    """The value reaches the guest, and neither the log, nor the report, nor the command line of any process."""
    secret_file = airssys.directory / "token"
    secret_file.write_text(SECRET)
    arguments = ["run", GUESTS / "tool.wasm", "--report", airssys.directory / "r", "--secret", f"TOKEN={secret_file}"]
    ran = airssys(*arguments, "--", "env")
    assert SECRET in ran.stdout
    assert SECRET not in (airssys.directory / "r").read_text()
    kept = [path for path in (airssys.directory / "state").rglob("*") if path.is_file()]
    assert kept
    assert [path for path in kept if SECRET.encode() in path.read_bytes()] == []


@pytest.fixture
def waiting(airssys: CommandLine) -> Iterator[psutil.Process]:
    """A run whose guest waits for input, with a secret in the supervisor's environment."""
    process = airssys.start("run", GUESTS / "tool.wasm", "--", "print", "here\\n", ",", "wait-stdin", HIDDEN=SECRET)
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"here\n"
        yield psutil.Process(process.pid)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)


def test_no_process_behind_a_run_has_an_environment(waiting: psutil.Process) -> None:
    """/proc/PID/environ of zygote, keeper, worker and warden says the same of every run; ours holds it."""
    assert waiting.environ()["HIDDEN"] == SECRET
    below = waiting.children(recursive=True)
    assert len(below) == 4
    for process in below:
        try:
            environment = Path(f"/proc/{process.pid}/environ").read_bytes()
        except PermissionError:
            assert os.geteuid() != 0
            continue
        assert set(environment.split(b"\0")) <= {b"PATH=/usr/bin:/bin", b"LANG=C.UTF-8", b""}
        assert SECRET not in " ".join(process.cmdline())


def test_a_worker_holds_nothing_of_the_users(waiting: psutil.Process) -> None:
    """Pipes of ours, one channel and the engine's own descriptors: no file, no terminal, no other socket."""
    worker = max(waiting.children(recursive=True), key=lambda p: len(p.parents()))
    try:
        held = {name: os.readlink(f"/proc/{worker.pid}/fd/{name}") for name in os.listdir(f"/proc/{worker.pid}/fd")}
    except PermissionError:
        assert os.geteuid() != 0
        return
    kinds = {re.sub(r"\[?[0-9]+\]?", "", target) for number, target in held.items() if not target.startswith("/")}
    assert kinds <= {"pipe:", "socket:", "anon_inode:[eventpoll]", "anon_inode:[eventfd]"}
    assert sum(target.startswith("socket:") for target in held.values()) == 1
    # What is left are the mounts' roots, or stand-ins for those that no grant reaches.
    for number, target in held.items():
        if target.startswith("/"):
            assert os.stat(f"/proc/{worker.pid}/fd/{number}").st_nlink == 0, target


@pytest.mark.parametrize("how", ["cwd", "PYTHONPATH", "PYTHONSTARTUP", "PYTHONHOME", "user site"])
def test_a_hijacked_import_path_changes_nothing(airssys: CommandLine, how: str) -> None:
    """Modules named like ours, beside the user or named by the environment, are never imported by any process."""
    place = airssys.directory / "hostile"
    marks = airssys.directory / "marks"
    marks.mkdir()
    marks.chmod(0o777)
    code = f"import os; open({str(marks)!r} + '/' + str(os.getpid()), 'w').close()\n"
    site = f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    for name in ("ipc.py", "msgpack.py", "zmq.py", "wasmtime.py", "sitecustomize.py", "usercustomize.py", "os.py"):
        for target in (place / name, airssys.directory / ".local" / site / name):
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(code)
    for package in ("worker", "supervisor", "multiprocess"):
        (place / package).mkdir()
        (place / package / "__init__.py").write_text(code)
    environment = {
        "cwd": {},
        "PYTHONPATH": {"PYTHONPATH": f".:{place}"},
        "PYTHONSTARTUP": {"PYTHONSTARTUP": str(place / "ipc.py"), "PYTHONINSPECT": "1"},
        "PYTHONHOME": {"PYTHONHOME": str(place)},
        "user site": {"PYTHONUSERBASE": str(airssys.directory / ".local")},
    }[how]
    ran = airssys("run", GUESTS / "hello.wasm", cwd=place, **environment)
    assert ran.code == 0, ran.stderr
    assert list(marks.iterdir()) == []
    if how == "PYTHONPATH":
        import subprocess

        subprocess.run([sys.executable, "-c", "import ipc"], cwd=place, env={"PYTHONPATH": "."}, check=False)
        assert list(marks.iterdir()), "the control imported nothing hostile"


def test_the_guests_arguments_are_not_ours(sealed: World) -> None:
    """Arguments that look like options of ours, or hold control characters, arrive as they are and do nothing."""
    arguments = ["args", "--read", "/", "--help", "\x1b[2J", "a b", ""]
    ran = sealed.run(*arguments)
    assert ran.report.verdict.exit_code == 0
    assert "--read" in ran.text
    assert ran.report.tally.allowed == 0


def both_rights(process: psutil.Process) -> list[str]:
    """Return the mappings of a process that are writable and executable."""
    with open(f"/proc/{process.pid}/maps", encoding="utf-8", errors="replace") as maps:
        return [line for line in maps if {"w", "x"} <= set(line.split()[1])]


def holders(needle: bytes) -> set[int]:
    """Return which processes below this one have these bytes somewhere in their memory."""
    found = set()
    for process in psutil.Process().children(recursive=True):
        with (
            open(f"/proc/{process.pid}/maps", encoding="utf-8") as maps,
            open(f"/proc/{process.pid}/mem", "rb") as memory,
        ):
            for line in maps:
                span, rights, *_ = line.split()
                start, end = (int(number, 16) for number in span.split("-"))
                # What can't be read is the kernel's own, what is larger a reservation.
                if rights.startswith("rw") and end - start < 1 << 30:
                    memory.seek(start)
                    if needle in memory.read(end - start):
                        found.add(process.pid)
    return found


@contextlib.contextmanager
def probing(world: World, *flags: str) -> Iterator[psutil.Process]:
    """Yield a worker that waits for its input."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    options = {"flags": flags, "wasm": "hello.wasm", "steps": (("wait", "read", 0, "b:8", 8),), "stdin": reader}
    run = threading.Thread(target=world.run, kwargs=options)
    run.start()
    try:
        until_s = time.monotonic() + 20
        while (worker := _reading_input()) is None:
            assert time.monotonic() < until_s
        yield worker
    finally:
        os.close(writer)
        run.join()
        os.close(reader)


@pytest.mark.needs_root
def test_what_one_component_was_told_is_in_no_later_process(sealed: World) -> None:
    """A value that one component got is in none of the processes behind the next one, made ahead or not."""
    with probing(sealed, "--env", f"TOKEN={SECRET}") as worker:
        held_by = holders(SECRET.encode())
        assert worker.pid in held_by
        assert not {process.pid for process in worker.parents()} & held_by, "zygote and keeper"
    with probing(sealed):
        assert not holders(SECRET.encode())


@pytest.mark.needs_root
def test_no_page_is_writable_and_executable(sealed: World, bare: World) -> None:
    """All mappings of a sealed worker, seen from outside, are one or the other; without layers ctypes' page is both."""
    with probing(bare) as worker:
        if not both_rights(worker):
            pytest.skip("this libffi has no such page")
    with probing(sealed) as worker:
        assert not both_rights(worker)


def _reading_input() -> psutil.Process | None:
    reads = f"{resolve('read', machine())} 0x0 "
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(OSError), open(f"/proc/{process.pid}/syscall", encoding="ascii") as call:
            if call.read().startswith(reads):
                return process
    return None
