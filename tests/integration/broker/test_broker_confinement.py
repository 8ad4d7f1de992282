"""The broker's walls: what it is from outside, and what a process with exactly these layers can't do."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipc import codec
from ipc.broker.orders import BrokerSetup
from ipc.struct import Struct
from supervisor.host.identity import resolve_run_as
from supervisor.host.namespaces import spawn

from .conftest import GUARD_S, Stage, outer_namespace

LAYERS = ("namespaces", "landlock", "seccomp")
PROBE = """
import ctypes, errno, json, mmap, os, socket, subprocess, sys
from ipc import codec
from ipc.broker.orders import BrokerSetup
from worker.broker import confine
setup, off = codec.unpack(BrokerSetup, bytes.fromhex(sys.argv[1])), json.loads(sys.argv[2])
os.dup2(int(sys.argv[4]), 1)
os.close(int(sys.argv[4]))
confined = confine(setup, off)
os.write(1, b"confined ")
try:
    exec(sys.argv[3])
except OSError as error:
    os.write(1, errno.errorcode[error.errno].encode())
else:
    os.write(1, b"done")
os._exit(0)
"""

PROBES: dict[str, tuple[str, dict[str, str]]] = {
    "open a file of the host": (
        "os.close(os.open('/etc/passwd', os.O_RDONLY))",
        {"namespaces": "ENOENT", "landlock": "EACCES"},
    ),
    "open what lies beside its store": (
        "os.close(os.open(DIRECTORY + '/beside', os.O_RDONLY))",
        {"namespaces": "ENOENT", "landlock": "EACCES"},
    ),
    "list the directory of its socket": ("os.listdir(DIRECTORY + '/sockets')", {"landlock": "EACCES"}),
    "make a file beside its socket": (
        "os.close(os.open(DIRECTORY + '/sockets/x', os.O_CREAT | os.O_WRONLY))",
        {"landlock": "EACCES"},
    ),
    "read its own memory by name": (
        "os.close(os.open('/proc/self/maps', os.O_RDONLY))",
        {"namespaces": "ENOENT", "landlock": "EACCES"},
    ),
    "run a program": (
        "os.execv('/bin/echo', ['echo', '-n', 'done'])",
        {"namespaces": "ENOENT", "landlock": "EACCES", "seccomp": "SIGSYS"},
    ),
    "fork": ("os.fork() or os._exit(0)", {"seccomp": "SIGSYS"}),
    "connect to another unix socket": (
        "socket.socket(socket.AF_UNIX, socket.SOCK_STREAM).connect(DIRECTORY + '/other.sock')",
        {"namespaces": "ENOENT"},
    ),
    "connect to an abstract socket": (
        "socket.socket(socket.AF_UNIX, socket.SOCK_STREAM).connect(ABSTRACT)",
        {"namespaces": "ECONNREFUSED", "landlock": "EPERM"},
    ),
    "connect by TCP": (
        "socket.socket(socket.AF_INET, socket.SOCK_STREAM).connect(('127.0.0.1', PORT))",
        {"namespaces": "ENETUNREACH", "landlock": "EACCES", "seccomp": "SIGSYS"},
    ),
    "send a signal to who is there": ("os.kill(PID, 0)", {"landlock": "EPERM", "seccomp": "SIGSYS"}),
    "choose the processors of another process": (
        "os.sched_setaffinity(PID, os.sched_getaffinity(PID))",
        {"seccomp": "SIGSYS"},
    ),
    "choose its own, and those of libzmq's thread": (
        "for thread in (0, confined.io_thread):\n    os.sched_setaffinity(thread, os.sched_getaffinity(thread))",
        {},
    ),
    "make executable memory": (
        "mmap.mmap(-1, 4096, prot=mmap.PROT_EXEC, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()",
        {"seccomp": "SIGSYS"},
    ),
    "make shared memory that no limit counts": (
        "mmap.mmap(-1, 4096, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS).close()",
        {"seccomp": "SIGSYS"},
    ),
    "trace a process": (
        "ctypes.CDLL(None).ptrace(0, 0, 0, 0)",
        {"seccomp": "SIGSYS"},
    ),
    "use its store": ("os.close(os.open(DIRECTORY + '/store/x', os.O_CREAT | os.O_RDWR, 0o600))", {}),
}


class Place(Struct):
    """What a probe meets: a setup, and servers that it should not reach."""

    directory: Path
    setup: BrokerSetup
    port: int
    pid: int
    abstract: bytes
    namespace: int

    def probe(self, code: str, off: tuple[str, ...]) -> str:
        """Run code under the layers that aren't off; "done", the name of an errno, or of the signal that ended it."""
        names = {"DIRECTORY": str(self.directory), "PORT": self.port, "PID": self.pid, "ABSTRACT": self.abstract}
        head = "".join(f"{name} = {value!r}\n" for name, value in names.items())
        reader, writer = os.pipe()
        command = (sys.executable, "-I", "-c", PROBE, codec.pack(self.setup).hex(), json.dumps(off), head + code)
        process = spawn((*command, str(writer)), (writer,), self.namespace)
        os.close(writer)
        with open(reader) as answers:
            said = answers.read()
        assert process.wait(GUARD_S)
        assert said.startswith("confined "), process.last_words()
        status = os.waitstatus_to_exitcode(process.wait_status or 0)
        process.close()
        return signal.Signals(-status).name if status < 0 else said.removeprefix("confined ")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Directories as a broker has them, and three servers of this process."""
    directory = Path(tempfile.mkdtemp(prefix="at-", dir="/tmp"))
    directory.chmod(0o755)
    identity = resolve_run_as(None, os.getuid(), {})
    for name in ("sockets", "store"):
        (directory / name).mkdir(mode=0o700)
        os.chown(directory / name, identity.uid, identity.gid)
    (directory / "beside").write_text("x")
    (directory / "audit.sock").touch()
    setup = BrokerSetup(
        identity.uid, identity.gid, f"{directory}/sockets/b", b"", b"", f"{directory}/store", 1, 10, 256 << 20,
        f"ipc://{directory}/audit.sock", b"", b"", b"",
    )  # fmt: skip
    abstract = b"\0airssys-" + os.urandom(8)
    with socket.socket(socket.AF_UNIX) as other, socket.socket(socket.AF_UNIX) as hidden, socket.socket() as tcp:
        other.bind(f"{directory}/other.sock")
        os.chmod(f"{directory}/other.sock", 0o777)
        hidden.bind(abstract)
        tcp.bind(("127.0.0.1", 0))
        for each in (other, hidden, tcp):
            each.listen()
        with subprocess.Popen(["sleep", "600"], user=identity.uid) as fellow:
            with outer_namespace() as namespace:
                yield Place(directory, setup, tcp.getsockname()[1], fellow.pid, abstract, namespace)
            fellow.kill()
    shutil.rmtree(directory)


@pytest.mark.parametrize("what", PROBES)
def test_it_can_not(place: Place, what: str) -> None:
    """Without the layers it can; each layer that is meant to forbid it does so alone; with all of them it can't."""
    code, forbidding = PROBES[what]
    assert place.probe(code, LAYERS) == "done"
    for layer, answer in forbidding.items():
        assert place.probe(code, tuple(each for each in LAYERS if each != layer)) == answer, layer
    together = place.probe(code, ())
    assert (together == "done") is (not forbidding), together


def test_memory_is_bounded(place: Place) -> None:
    """Beyond RLIMIT_DATA there is no memory; without the layer there is."""
    code = "try:\n    x = bytearray(400 << 20)\nexcept MemoryError:\n    raise OSError(12, '')"
    assert place.probe(code, ("rlimits",)) == "done"
    assert place.probe(code, ()) == "ENOMEM"


def test_from_outside_it_is_what_it_says(stage: Stage) -> None:
    """/proc shows no root, no capability, no new privileges, a filter, the limits, namespaces of its own."""
    pid = stage.client.pid
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    identity = resolve_run_as(None, os.getuid(), {})
    assert set(status["Uid"].split()) == {str(identity.uid)}
    assert {status[name].strip() for name in ("CapPrm", "CapEff", "CapInh", "CapAmb")} == {"0" * 16}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    limits = Path(f"/proc/{pid}/limits").read_text()
    assert f"Max data size             {512 << 20}" in limits
    assert "Max core file size        0" in limits
    assert "Max open files            4896" in limits
    layers = {layer.layer: layer.status for layer in stage.client.layers}
    for name in ("no_new_privs", "identity", "capabilities", "rlimits", "seccomp"):
        assert layers[name] == "enforced"
    assert layers["landlock"] in ("enforced", "partial")
    if layers["namespaces"] == "enforced":
        for name in ("net", "mnt", "ipc", "uts"):
            assert os.readlink(f"/proc/{pid}/ns/{name}") != os.readlink(f"/proc/self/ns/{name}")
    assert (stage.directory / "sockets" / "broker.sock").stat().st_mode & 0o077 == 0
    for path in (stage.directory / "store").iterdir():
        assert path.stat().st_mode & 0o777 == 0o600
