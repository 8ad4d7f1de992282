"""A stage for the warden: the real process, its audit log, and actors whose every file call it answers."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgpack
import pytest

from ipc import codec, syscalls
from ipc.audit.event import AuditEvent, AuditRecord
from ipc.channel import Channel
from ipc.hand_over import make_mark
from ipc.messages import (
    Attach,
    Attached,
    Detach,
    Detached,
    EndWorker,
    Prepare,
    PreparePolicy,
    StorageBounds,
    WardenReady,
    WardenSetup,
)
from ipc.policy.capability import Grant
from ipc.policy.decision import PolicyDocument
from ipc.security_context import context_of
from ipc.struct import Struct, field
from supervisor.audit.log import AuditLog
from supervisor.audit.writer import AuditWriter
from supervisor.host.namespaces import Spawned, isolated_python, spawn

ACTOR = Path(__file__).with_name("actor.py")
NOBODY = 65534
WORKER_UID = 2_000_000_000
TIMEOUT_S = 20.0


def all_numbers() -> dict[str, int]:
    """Return the number of each system call that the warden answers, and of two that nobody may make."""
    numbers = {
        name: number for calls in syscalls.NOTIFIED[syscalls.machine()].values() for name, number in calls.items()
    }
    return (
        numbers | {"x86_64": {"ptrace": 101, "mount": 165}, "aarch64": {"ptrace": 117, "mount": 40}}[syscalls.machine()]
    )


class Actor(Struct):
    """One process whose file calls go to the warden."""

    worker_id: str
    process: Spawned
    channel: socket.socket
    stage: Stage
    ended: EndWorker | None = None

    def run(self, source: str, **values: object) -> object:
        """Run Python in the actor; returns what it left in `result`, or "E…" for the errno it failed with."""
        head = "".join(f"{name} = {value!r}\n" for name, value in values.items())
        self.channel.send((head + source).encode())
        answer = json.loads(self.channel.recv(1 << 20) or b'{"error": "ended"}')
        if "errno" in answer:
            return answer["name"]
        assert "error" not in answer, answer["error"]
        result = answer["result"]
        if isinstance(result, int) and not isinstance(result, bool) and -4096 < result < 0:
            return errno.errorcode[-result]
        return result

    def start(self, source: str) -> None:
        """Send Python to run, without waiting for its end."""
        self.channel.send(source.encode())

    def open(self, path: Path | str, flags: int = os.O_RDONLY, mode: int = 0o666) -> object:
        """Open an absolute path in the actor; a descriptor of the actor's, or an errno's name."""
        return self.run(
            "result = sys_call('openat', -100, path, flags, mode)", path=os.fsencode(path), flags=flags, mode=mode
        )

    def read(self, path: Path | str) -> object:
        """Read a whole file in the actor."""
        source = "fd = os.open(path, os.O_RDONLY)\nresult = os.read(fd, 65536).decode()\nos.close(fd)"
        return self.run(source, path=str(path))

    def write(self, path: Path | str, text: str, flags: int = os.O_WRONLY | os.O_CREAT) -> object:
        """Write a file in the actor."""
        source = "fd = os.open(path, flags, 0o666)\nresult = os.write(fd, text.encode())\nos.close(fd)"
        return self.run(source, path=str(path), text=text, flags=flags)

    def root(self, path: Path | str) -> int:
        """Open a mount's root as wasmtime does."""
        descriptor = self.open(path, os.O_RDONLY | os.O_DIRECTORY)
        assert isinstance(descriptor, int), descriptor
        return descriptor

    def close(self) -> None:
        """End the process."""
        self.channel.close()
        if self.process.pidfd >= 0:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(10)
            self.process.close()
            self.process.pidfd = -1


class Stage(Struct):
    """A running warden."""

    directory: Path
    channel: Channel
    process: Spawned
    uid: int
    events_source: Callable[[], list[dict[str, object]]]
    namespace: int | None
    actors: list[Actor] = field(default_factory=list)
    ready: WardenReady | None = None

    def actor(
        self,
        *grants: tuple[str, str],
        mounts: tuple[str, ...] = ("/",),
        artifact: bytes = b"",
        extra_calls: tuple[str, ...] = (),
        host_paths: tuple[str, ...] = (),
        home_directories: tuple[str, ...] = (),
        notify: bool = True,
        ask: bool = False,
        storage: StorageBounds | None = None,
    ) -> Actor:
        """Start an actor with these grants, (verb, pattern) each; `notify` false leaves its calls to the kernel."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        process = spawn(
            (sys.executable, "-I", str(ACTOR), str(theirs.fileno())),
            pass_descriptors=(theirs.fileno(),),
            join=self.namespace,
        )
        theirs.close()
        numbers = all_numbers()
        notified = [
            n for name, n in numbers.items() if notify and (name not in ("ptrace", "mount") or name in extra_calls)
        ]
        uid = WORKER_UID + len(self.actors) if os.geteuid() == 0 else None
        ours.settimeout(TIMEOUT_S)
        ours.send(
            json.dumps(
                {"numbers": numbers, "notified": notified, "uid": uid, "dumpable": self.namespace is None}
            ).encode()
        )
        _, descriptors, _, _ = socket.recv_fds(ours, 64, 1)
        worker_id = f"w{len(self.actors)}"
        actor = Actor(worker_id, process, ours, self)
        self.actors.append(actor)
        document = PolicyDocument(
            component="probe",
            instance="",
            grants=tuple(Grant(f"filesystem.{verb}", pattern, "the test", True) for verb, pattern in grants),
            host_paths=host_paths,
            home_directories=home_directories,
        )
        policy = PreparePolicy(
            document=msgpack.packb(document.to_wire(), use_bin_type=True, unicode_errors="surrogateescape"),
            instance="",
            context=context_of(document, "the test", component_digest="d" * 64),
            mounts=tuple((m, m) for m in mounts),
            ask=ask,
            storage=storage,
        )
        listener = descriptors[0]
        pidfd, mark = os.pidfd_open(process.pid), make_mark()
        files = [_memory_file(codec.pack(policy)), _memory_file(artifact)]
        self.channel.send(Prepare(worker_id), files)
        self.channel.send(Attach(worker_id), (listener, pidfd, mark))
        for descriptor in (listener, pidfd, mark, *files):
            os.close(descriptor)
        message, _ = self.channel.receive((Attached, EndWorker), TIMEOUT_S)
        assert isinstance(message, Attached), message
        return actor

    def wait_end(self) -> EndWorker:
        """Wait until the warden asks for a worker's end."""
        message, _ = self.channel.receive((EndWorker,), TIMEOUT_S)
        assert isinstance(message, EndWorker)
        return message

    def detach(self, actor: Actor) -> Detached:
        """End an actor and wait until its counts are in the log."""
        actor.close()
        self.channel.send(Detach(actor.worker_id))
        message, _ = self.channel.receive((Detached,), TIMEOUT_S)
        assert isinstance(message, Detached)
        return message

    def events(self, **wanted: object) -> list[dict[str, object]]:
        """Return the audit records with these fields."""
        return [e for e in self.events_source() if all(e.get(key) == value for key, value in wanted.items())]

    def denied(self, path: Path | str) -> list[tuple[object, object]]:
        """Return (action, code) of each refusal of `path` on record."""
        return [(e["action"], e["code"]) for e in self.events(decision="denied", resource=str(path))]


def _memory_file(data: bytes) -> int:
    descriptor = os.memfd_create("t", os.MFD_CLOEXEC)
    os.write(descriptor, data)
    return descriptor


@pytest.fixture
def tree(short_dir: Path) -> Path:
    """A directory of the warden's identity: in/ out/ and secret/ with a few files."""
    root = short_dir / "t"
    for name in ("in/sub", "out", "secret"):
        (root / name).mkdir(parents=True)
    (root / "in/a.txt").write_text("alpha")
    (root / "in/b.csv").write_text("beta")
    (root / "in/sub/c.txt").write_text("gamma")
    (root / "out/old.txt").write_text("old")
    (root / "secret/key").write_text("the key")
    own(root)
    return root


def own(root: Path) -> None:
    """Give a tree to the warden's identity."""
    if os.geteuid() == 0:
        for path in (root, *root.rglob("*")):
            os.chown(path, NOBODY, NOBODY, follow_symlinks=False)


@contextlib.contextmanager
def user_namespace() -> Iterator[int]:
    """An outer user namespace as a supervisor makes it, held by a process that does nothing."""
    holder = spawn(("/bin/sleep", "600"), join="new")
    descriptor = os.open(f"/proc/{holder.pid}/ns/user", os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
        holder.send_signal(signal.SIGKILL)
        holder.wait(10)
        holder.close()


class Records:
    """What the log holds, as its subscribers hear of it: a moment after the event is durable."""

    def __init__(self, writer: AuditWriter) -> None:
        self._writer = writer
        self._records: list[dict[str, object]] = []
        self._changed = threading.Condition()
        self._marks = 0

    def take(self, record: AuditRecord) -> None:
        """Hear of one record, in the writer's thread."""
        with self._changed:
            self._records.append(record.to_map())
            self._changed.notify_all()

    def so_far(self) -> list[dict[str, object]]:
        """Return every record that was durable when this was called."""
        self._marks += 1
        mark = f"mark {self._marks}"
        self._writer.local_durable(AuditEvent("mark", resource=mark))
        with self._changed:
            heard = self._changed.wait_for(lambda: any(r["resource"] == mark for r in self._records), TIMEOUT_S)
            assert heard, "the audit writer does not publish"
            return list(self._records)


@contextlib.contextmanager
def running_stage(directory: Path, namespace: int | None, **settings: int) -> Iterator[Stage]:
    """A warden as `nobody` when we are root, else as us, with a real audit log behind it."""
    uid, gid = (NOBODY, NOBODY) if os.geteuid() == 0 else (os.getuid(), os.getgid())
    scratch = directory / "scratch"
    scratch.mkdir()
    os.chown(scratch, uid, gid)
    (directory / "run").mkdir(mode=0o700)
    log = AuditLog(str(directory / "audit"))
    writer = AuditWriter(log, str(directory / "run" / "a.sock"))
    records = Records(writer)
    writer.subscribe(records.take)
    writer.start()
    public_key, secret_key = writer.new_client_keys("warden")
    ours, theirs = Channel.pair()
    warden = spawn(
        isolated_python(f"from ipc.warden.shell import main; main({theirs.fileno()})"),
        pass_descriptors=(theirs.fileno(),),
        join=namespace,
    )
    theirs.close()
    keys = (writer.server_public_key, public_key, secret_key)
    ours.send(WardenSetup(uid, gid, (gid,), 0o022, writer.endpoint, *keys, str(scratch), **settings))
    try:
        ready, _ = ours.receive((WardenReady,), TIMEOUT_S)
    except EOFError:
        pytest.fail(f"the warden did not start: {warden.last_words()}")
    assert isinstance(ready, WardenReady)
    stage = Stage(directory, ours, warden, uid, records.so_far, namespace, ready=ready)
    try:
        yield stage
    finally:
        for actor in stage.actors:
            actor.close()
        ours.close()
        ended = warden.wait(10)
        warden.send_signal(signal.SIGKILL)
        warden.wait(10)
        words = warden.last_words()
        warden.close()
        writer.close()
        log.close()
    assert ended
    assert (warden.wait_status, words) == (0, "")


@pytest.fixture
def stage(short_dir: Path) -> Iterator[Stage]:
    """A warden and its actors in one user namespace: how everything runs where the kernel has them."""
    with user_namespace() as namespace, running_stage(short_dir, namespace) as running:
        yield running


@pytest.fixture
def plain_stage(short_dir: Path) -> Iterator[Stage]:
    """The same without any namespace: actors of an ordinary user stay dumpable."""
    with running_stage(short_dir, None) as running:
        yield running


@pytest.fixture
def slow_stage(short_dir: Path) -> Iterator[Stage]:
    """A warden that answers ten calls a second."""
    with user_namespace() as namespace, running_stage(short_dir, namespace, calls_per_second=10) as running:
        yield running
