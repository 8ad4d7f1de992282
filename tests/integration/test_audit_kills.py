"""Producers and the writer of the audit log, killed at random: nothing acknowledged is lost, nothing is doubled."""

from __future__ import annotations

import os
import random
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq

from ipc.audit.event import exact, parse_line
from supervisor.audit.log import AuditLog
from supervisor.audit.segments import segment_names
from supervisor.audit.verify import verify_log

pytestmark = pytest.mark.any_user

KILLS = 300
PRODUCERS = 3
GUARD_S = 30.0
TOLD_BYTES = 9

NURSERY = """
# Forks what is asked for, so that a process is there in milliseconds: role and arguments in, its pid out.
import os, signal, sys
from ipc.audit.event import SUPERVISOR, AuditEvent
from ipc.audit.stream import AuditClient
from supervisor.audit.log import AuditLog
from supervisor.audit.retention import AuditRetention
from supervisor.audit.writer import AuditWriter
socket, directory, public, secret, keys_file = sys.argv[1:]

def writer(said):
    log = AuditLog(directory, segment_bytes=100_000)
    writer = AuditWriter(log, socket, server_keys=(public.encode(), secret.encode()))
    for number, line in enumerate(open(keys_file)):
        writer.register(line.split()[0].encode(), f"producer-{number}")
    writer.start()
    os.write(said, b"ready")
    signal.pause()

def producer(said, number):
    keys = open(keys_file).readlines()[int(number)].split()
    client = AuditClient(f"ipc://{socket}", public.encode(), *(key.encode() for key in keys))
    for place in range(0, 10_000_000, 2):
        client.record(AuditEvent("queued", correlation=f"{number}:{place}"))
        client.record_durable(AuditEvent("waited for", correlation=f"{number}:{place + 1}"), timeout_s=30)
        os.write(said, b"%08d\\n" % (place + 1))

def pruner(said, number):
    log = AuditLog(directory, segment_bytes=6_000, retention=AuditRetention(None, 130_000))
    for place in range(10_000_000):
        records = log.append([(AuditEvent("made", resource="x" * 200), SUPERVISOR)] * 4)
        os.write(said, b"%08d\\n" % records[-1].seq)

signal.signal(signal.SIGCHLD, signal.SIG_IGN)
print("ready", flush=True)
for line in sys.stdin:
    role, path, *arguments = line.split()
    pid = os.fork()
    if not pid:
        try:
            globals()[role](os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), *arguments)
        finally:
            os._exit(1)
    print(pid, flush=True)
"""


class Nursery:
    """Makes writers and producers that can be killed by their pid."""

    def __init__(self, root: Path, keys: int) -> None:
        self.sockets = tempfile.mkdtemp(prefix="audit-")  # tmp_path may be too long for a unix socket
        self.directory = str(root / "audit")
        self.root = root
        self.alive: dict[str, int] = {}
        pairs = [zmq.curve_keypair() for _ in range(keys)]
        (root / "keys").write_text("".join(f"{public.decode()} {secret.decode()}\n" for public, secret in pairs))
        server = [key.decode() for key in zmq.curve_keypair()]
        arguments = [f"{self.sockets}/s", self.directory, *server, str(root / "keys")]
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-c", NURSERY, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def start(self, role: str, number: int) -> str:
        """Start a process and return its name, by which it is killed and heard."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        name = f"{role}-{number}"
        self.process.stdin.write(f"{role} {self.root / name} {'' if role == 'writer' else number}\n")
        self.process.stdin.flush()
        self.alive[name] = int(self.process.stdout.readline())
        return name

    def kill(self, name: str) -> None:
        """SIGKILL, and wait until nothing of it is left."""
        pidfd = os.pidfd_open(self.alive.pop(name))
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        # Readable when it has ended (pidfd_open(2)), whoever reaps it.
        assert select.select([pidfd], [], [], GUARD_S)[0]
        os.close(pidfd)

    def told(self, name: str) -> int:
        """How many acknowledgements it has passed on."""
        try:
            return os.stat(self.root / name).st_size // TOLD_BYTES
        except FileNotFoundError:
            return 0

    def last_told(self, name: str) -> int:
        """The number in the last of them, -1 for none."""
        count = self.told(name)
        return int((self.root / name).read_bytes()[(count - 1) * TOLD_BYTES :][: TOLD_BYTES - 1]) if count else -1

    def close(self) -> None:
        """End everything."""
        for name in list(self.alive):
            self.kill(name)
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(GUARD_S)
        assert self.process.stdout is not None
        self.process.stdout.close()


def wait_until(condition: Callable[[], object]) -> None:
    """Return when `condition` holds; a guard against hanging, not a synchronisation."""
    deadline_s = time.monotonic() + GUARD_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.001)


@pytest.fixture
def nursery(tmp_path: Path) -> Iterator[Nursery]:
    """A place where processes are made and killed."""
    nursery = Nursery(tmp_path, KILLS + PRODUCERS)
    yield nursery
    nursery.close()


def _records(directory: str) -> list[dict[str, object]]:
    return [
        exact(parse_line(line))
        for name in segment_names(directory)
        for line in Path(directory, name).read_bytes().splitlines(keepends=True)
    ]


@pytest.mark.slow
def test_three_hundred_kills_lose_and_double_nothing_acknowledged(nursery: Nursery) -> None:
    """Whichever dies and whenever: producers send again what wasn't acknowledged; each record stands once, in order."""
    chooser = random.Random(300)
    writers = producers = 0
    writer = nursery.start("writer", 0)
    wait_until((nursery.root / writer).exists)
    lively = [nursery.start("producer", number) for number in range(PRODUCERS)]
    for _ in range(KILLS):
        # Some kills come after a few acknowledgements, some as soon as the last one was replaced.
        names = [f"producer-{number}" for number in range(PRODUCERS + producers)]
        goal = sum(map(nursery.told, names[-PRODUCERS:])) + chooser.choice((0, 0, 1, chooser.randrange(2, 12)))
        wait_until(lambda goal=goal, names=names: sum(map(nursery.told, names[-PRODUCERS:])) >= goal)
        for _ in range(chooser.randrange(0, 20_000)):
            pass  # a moment that differs each time
        if chooser.random() < 0.4:
            nursery.kill(writer)
            writers += 1
            writer = nursery.start("writer", writers)
        else:
            place = chooser.randrange(PRODUCERS)
            nursery.kill(lively[place])
            lively[place] = nursery.start("producer", PRODUCERS + producers)
            producers += 1
    begun = [nursery.told(name) for name in lively]
    wait_until(lambda: all(nursery.told(name) > before for name, before in zip(lively, begun, strict=True)))
    for name in [*lively, writer]:
        nursery.kill(name)
    AuditLog(nursery.directory).close()  # repairs what was cut short in the middle of a line
    report = verify_log(nursery.directory)
    assert report.fault is None
    records = [record for record in _records(nursery.directory) if record["stream"]]
    assert not [key for key, count in Counter(record["correlation"] for record in records).items() if count > 1]
    acknowledged = 0
    for number in range(PRODUCERS + producers):
        ours = [record for record in records if record["producer"] == f"producer-{number}"]
        assert [record["stream_seq"] for record in ours] == list(range(1, len(ours) + 1))
        assert [record["correlation"] for record in ours] == [f"{number}:{place}" for place in range(len(ours))]
        assert len(ours) > nursery.last_told(f"producer-{number}")
        acknowledged += nursery.last_told(f"producer-{number}") + 1
    assert writers + producers == KILLS
    assert min(writers, producers) > KILLS // 5
    assert acknowledged > KILLS


def test_a_kill_while_segments_are_pruned_leaves_an_intact_log(nursery: Nursery) -> None:
    """Killed thirty times while it writes, seals and prunes: always intact, and what was acknowledged last is there."""
    chooser = random.Random(30)
    for number in range(30):
        name = nursery.start("pruner", number)
        goal = chooser.randrange(1, 25)
        wait_until(lambda goal=goal, name=name: nursery.told(name) >= goal)
        nursery.kill(name)
        AuditLog(nursery.directory).close()  # repairs what was cut short in the middle of a line
        report = verify_log(nursery.directory)
        assert report.fault is None
        assert report.head is not None
        assert report.head.seq >= nursery.last_told(name)
    assert report.pruned is not None
    assert report.first_seq > 100
