"""The walls around who reads archives and repositories: what code in there could do, had it been taken over.

Each probe is tried without the walls first, where it works.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from archives import package

from ipc import codec
from ipc.package_stream import RepositoryPlan, UnpackPlan
from supervisor.host.identity import resolve_run_as
from supervisor.host.namespaces import spawn
from supervisor.packages.reader_process import start_reader
from supervisor.packages.writing import PackageWriter

CODE = """
import errno, os, shutil, socket, subprocess, sys
from ipc import codec
from ipc.package_stream import RepositoryPlan, UnpackPlan
from worker.package_reader import confine_git, confine_unpacker
kind, plan, probe, output = sys.argv[1], bytes.fromhex(sys.argv[2]), sys.argv[3], int(sys.argv[4])
if kind == "unpacker":
    confine_unpacker(codec.unpack(UnpackPlan, plan))
elif kind == "git":
    confine_git(codec.unpack(RepositoryPlan, plan))
os.write(output, b"confined ")
try:
    exec(probe)
except OSError as error:
    os.write(output, errno.errorcode[error.errno].encode())
except MemoryError:
    os.write(output, b"ENOMEM")
else:
    os.write(output, b"done")
os._exit(0)
"""
FORKS = """
import os, sys, time
from ipc import codec
from ipc.package_stream import RepositoryPlan
from ipc.struct import replace
from worker.package_reader import confine_git
supervisor = os.getpid()
plan = replace(codec.unpack(RepositoryPlan, bytes.fromhex(sys.argv[1])), parent_pid=supervisor)
if not os.fork():
    os.setsid()  # what ends with it is its group: never that of whoever runs this test
    confine_git(plan)
    print(os.getpid(), flush=True)
time.sleep(60)
"""


class Place:
    """Files of a user's, a port, and the plans of both readers."""

    def __init__(self, path: Path, port: int) -> None:
        """Make them in a directory that others may pass through."""
        self.path = path
        self.port = port
        self.run_as = resolve_run_as(None, os.geteuid(), {})
        (path / "secret").write_text("secret")
        for name in ("scratch", "open", "readable"):
            (path / name).mkdir()
            (path / name).chmod(0o777)
        (path / "readable/file").write_text("x")

    def plan(self, kind: str, transport: str = "file") -> bytes:
        """Return the plan of a reader."""
        if kind == "unpacker":
            uid = self.run_as.uid if os.geteuid() == 0 else None
            return codec.pack(UnpackPlan(os.getpid(), uid, 1 << 30, 100, 64 << 20, 60))
        scratch, readable = str(self.path / "scratch"), (str(self.path / "readable"),)
        who = (self.run_as.uid, self.run_as.gid, self.run_as.groups)
        what = ("/usr/bin/git", transport, "file:///x", "", "", scratch, readable, {})
        return codec.pack(RepositoryPlan(os.getpid(), *who, *what, 10, 1 << 20, 1 << 20, 1 << 30, 60))

    def probe(self, kind: str, code: str, transport: str = "file") -> str:
        """Run code within the walls of a reader ("" for none); return what came of it."""
        code = code.replace("PLACE", repr(str(self.path))).replace("PORT", str(self.port))
        output, theirs = os.pipe2(os.O_CLOEXEC)
        plan = self.plan(kind, transport).hex() if kind else ""
        command = (sys.executable, "-I", "-c", CODE, kind, plan, code, str(theirs))
        spawned = spawn(command, (theirs,), "new" if kind == "unpacker" or (kind and transport == "file") else None)
        os.close(theirs)
        try:
            with os.fdopen(output, "rb") as stream:
                said = stream.read().decode()
            assert spawned.wait(30), "it hangs"
            assert said.startswith("confined "), spawned.last_words()
            status = spawned.wait_status or 0
            return (
                signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else said.removeprefix("confined ")
            )
        finally:
            spawned.close()


@pytest.fixture
def place(short_dir: Path) -> Iterator[Place]:
    """A place with a port that somebody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield Place(short_dir, server.getsockname()[1])


UNPACKER = {
    "open a file": "os.close(os.open(PLACE + '/secret', os.O_RDONLY))",
    "make a file": "os.close(os.open(PLACE + '/open/x', os.O_CREAT | os.O_WRONLY))",
    "list a directory": "os.listdir('/')",
    "fork": "os.fork() or os._exit(0)",
    "run a program": "os.execv('/bin/true', ['true'])",
    "make a socket": "socket.socket(socket.AF_INET)",
    "make a unix socket": "socket.socket(socket.AF_UNIX)",
    "signal another process": "os.kill(os.getppid(), 0)",
    "make memory executable": "import mmap; mmap.mmap(-1, 4096, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC)",
    "share memory": "import mmap; mmap.mmap(-1, 4096)",
}


@pytest.mark.parametrize("name", UNPACKER)
def test_who_reads_an_archive_can_ask_the_kernel_for_nothing(name: str, place: Place) -> None:
    """Two pipes and memory are all that it has: whatever else it asks for kills it."""
    assert place.probe("", UNPACKER[name]) in ("done", "")  # a program's end says nothing
    assert place.probe("unpacker", UNPACKER[name]) == "SIGSYS"


def test_who_reads_an_archive_has_bounded_memory(place: Place) -> None:
    """Beyond what it needs there is none."""
    code = "x = bytearray(200 << 20)"
    assert place.probe("", code) == "done"
    assert place.probe("unpacker", code) == "ENOMEM"
    assert place.probe("unpacker", "x = bytearray(20 << 20)") == "done"


GIT = {
    "read a user's file": ("os.close(os.open(PLACE + '/secret', os.O_RDONLY))", "EACCES"),
    "list a user's directory": ("os.listdir(PLACE)", "EACCES"),
    "write outside": ("os.close(os.open(PLACE + '/open/x', os.O_CREAT | os.O_WRONLY))", "EACCES"),
    "write to what it may read": ("os.close(os.open(PLACE + '/readable/x', os.O_CREAT | os.O_WRONLY))", "EACCES"),
    "look at processes": ("os.listdir('/proc')", "EACCES"),
    "run what it has written": (
        "shutil.copy('/bin/true', PLACE + '/scratch'); subprocess.run([PLACE + '/scratch/true'], check=True)",
        "EACCES",
    ),
    "connect by TCP": ("socket.socket().connect(('127.0.0.1', PORT))", "ENETUNREACH"),
}


@pytest.mark.parametrize("name", GIT)
def test_git_reads_the_systems_files_and_writes_its_scratch_directory(name: str, place: Place) -> None:
    """Nothing of a user's, nobody's process; for a repository of this machine no network either."""
    code, answer = GIT[name]
    assert place.probe("", code) == "done"
    for each in (place.path / "scratch").iterdir():
        each.unlink()
    assert place.probe("git", code) == answer


def test_what_git_needs_is_there(place: Place) -> None:
    """The control of these walls: programs of the system, its own directory, what it was given; a network for https."""
    code = (
        "subprocess.run(['/usr/bin/git', 'init', '-q', PLACE + '/scratch/r'], check=True, env={});"
        " open(PLACE + '/readable/file').close(); os.close(os.open('/etc/passwd', os.O_RDONLY))"
    )
    assert place.probe("git", code) == "done"
    assert place.probe("git", GIT["connect by TCP"][0], transport="https") == "done"


def test_git_writes_no_more_than_it_may(place: Place) -> None:
    """A file that grows beyond the bound ends who writes it."""
    code = "f = os.open(PLACE + '/scratch/x', os.O_CREAT | os.O_WRONLY); os.write(f, bytes(1 << 20)); os.write(f, b'x')"
    assert place.probe("", code) == "done"
    (place.path / "scratch/x").unlink()
    assert place.probe("git", code) == "SIGXFSZ"


def test_a_reader_ends_with_the_supervisor(place: Place) -> None:
    """Whoever waits for a reader may be killed: the reader goes with it."""
    plan = place.plan("git", "https").hex()
    with subprocess.Popen([sys.executable, "-I", "-c", FORKS, plan], stdout=subprocess.PIPE) as supervisor:
        assert supervisor.stdout is not None
        reader = os.pidfd_open(int(supervisor.stdout.readline()))
        supervisor.kill()
        assert supervisor.stdout.read() == b""  # at its end, which the reader held open too
    os.close(reader)
    assert supervisor.returncode == -signal.SIGKILL


def test_nothing_that_was_left_open_comes_along(place: Place) -> None:
    """A shell's open file is not the reader's, who may read whatever it holds; the archive's pipe is."""
    left_open, theirs = os.pipe()
    os.set_inheritable(theirs, True)
    archive, ours = os.pipe2(os.O_CLOEXEC)
    plan = codec.unpack(UnpackPlan, place.plan("unpacker"))
    poller = select.poll()
    poller.register(left_open, select.POLLIN)
    try:
        with start_reader("unpack", plan, (archive,), 30, own_namespace=True) as reader:
            os.close(theirs)
            assert poller.poll(30_000) == [(left_open, select.POLLHUP)]
            os.write(ours, package())
            os.close(archive)
            os.close(ours)
            destination = place.path / "destination"
            destination.mkdir()
            reader.write_package(PackageWriter(str(destination)))  # it lived, and read its archive
    finally:
        os.close(left_open)
