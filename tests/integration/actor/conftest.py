"""A stage for actors: a real zygote and warden, all layers on, and a small broker of the test's own.

The broker is a ROUTER with CURVE and ZAP in this process; it speaks `ipc.broker.messages` and decides nothing: what it
is asked it answers from a dictionary, and what the test wants delivered it delivers.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import msgpack
import pytest
import wasmtime
import zmq
import zmq.utils.z85

import ipc
from ipc import memory_file
from ipc.audit.event import AuditEvent
from ipc.broker.announcing import Connecting, Expected
from ipc.broker.messages import (
    Accepted,
    Answer,
    Callback,
    Cancel,
    CompareAndSet,
    Deliver,
    FromWorker,
    Get,
    Handled,
    Health,
    Hello,
    Ping,
    Refused,
    Request,
    Send,
    Set,
    ToWorker,
    Value,
    Welcome,
    pack,
    unpack_from_worker,
)
from ipc.channel import Channel
from ipc.hand_over import make_mark
from ipc.messages import (
    ActorJob,
    Attached,
    Compiled,
    Confined,
    ConfinementPlan,
    Detached,
    Ended,
    EndWorker,
    EngineSettings,
    Finished,
    Go,
    LayerReport,
    PreparePolicy,
    Sealed,
    Spawned,
    StartFailed,
    Stop,
    WardenSetup,
    WorkerJob,
    WorkerLimits,
    WorkerPlan,
)
from ipc.policy.capability import Grant
from ipc.policy.decision import PolicyDocument
from ipc.security_context import context_of
from ipc.struct import Struct
from supervisor.audit.log import AuditLog
from supervisor.audit.writer import AuditWriter
from supervisor.host.launch import Launched, launch, launch_compiler
from supervisor.host.processes import WardenProcess
from supervisor.host.verify import Expected as ExpectedOutside
from supervisor.host.verify import verify_and_bound
from supervisor.host.warden_client import WardenClient
from supervisor.host.zygote import Zygote

ORIGIN = os.path.dirname(os.path.dirname(os.path.abspath(str(ipc.__file__))))
ACTOR_WAT = Path(__file__).resolve().parents[2] / "guests/wat/actor.wat"
REQUIRED = ("rlimits", "no_new_privs", "landlock", "seccomp")
TIMEOUT_S = 30.0
NOBODY = 65534
WORKER_UID = 2_000_000_000
T = TypeVar("T")


class Broker:
    """One broker process's stand-in; `stop` ends it as a crash would, with everything unsaid."""

    def __init__(
        self, path: str, server_keys: tuple[bytes, bytes], client_key: bytes, epoch: int, stored: dict[str, bytes]
    ) -> None:
        """Listen at `path`; only the holder of `client_key` may connect."""
        self.epoch = epoch
        self.stored = stored
        self.heartbeat_ms = 0
        self.expects = True
        self.silent = False
        """Whether it answers nothing that it is asked."""
        self.users: set[str] = set()
        self.announced: list[str] = []
        self.heard: list[FromWorker] = []
        self._changed = threading.Condition()
        self._deliveries = 0
        self._correlations = 7_000
        self._route: bytes | None = None
        self._context = zmq.Context()
        self._zap = self._context.socket(zmq.REP)
        self._zap.bind("inproc://zeromq.zap.01")
        self._client_key = client_key
        self._router = self._context.socket(zmq.ROUTER)
        self._router.linger = 0
        self._router.curve_publickey, self._router.curve_secretkey = server_keys
        self._router.curve_server = True
        self._router.bind(f"ipc://{path}")
        os.chmod(path, 0o777)
        self._orders_in = self._context.socket(zmq.PAIR)
        self._orders_in.bind("inproc://orders")
        self._orders = self._context.socket(zmq.PAIR)
        self._orders.connect("inproc://orders")
        self.wardens_end, theirs = Channel.pair()
        self._warden = theirs
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._orders.send_multipart([b"stop", b""])
        self._thread.join(TIMEOUT_S)
        for one in (self._router, self._zap, self._orders, self._orders_in):
            one.close(0)
        self._context.term()
        self._warden.close()
        self.wardens_end.close()

    def _serve(self) -> None:
        poller = zmq.Poller()
        for one in (self._router, self._zap, self._orders_in):
            poller.register(one, zmq.POLLIN)
        poller.register(self._warden.fileno(), zmq.POLLIN)
        while True:
            ready = dict(poller.poll())
            if self._zap in ready:
                self._answer_zap()
            if self._router in ready:
                self._take(*self._router.recv_multipart(copy=False))
            if self._warden.fileno() in ready:
                with contextlib.suppress(EOFError):
                    message, _ = self._warden.receive((Connecting,))
                    assert isinstance(message, Connecting)
                    with self._changed:
                        self.announced.append(message.instance)
                        self._changed.notify_all()
                    self._warden.send(Expected(message.instance, self.expects))
            if self._orders_in in ready:
                kind, frame = self._orders_in.recv_multipart()
                if kind == b"stop":
                    return
                self._router.send_multipart([self._route or b"", frame])

    def _answer_zap(self) -> None:
        version, request, _, _, _, mechanism, *credentials = self._zap.recv_multipart()
        known = mechanism == b"CURVE" and zmq.utils.z85.encode(credentials[0]) == self._client_key
        code = (b"200", b"OK") if known else (b"400", b"unknown key")
        self._zap.send_multipart([version, request, *code, b"worker" if known else b"", b""])

    def _take(self, route: zmq.Frame, frame: zmq.Frame) -> None:
        self.users.add(str(frame.get("User-Id")))
        answers: list[ToWorker] = []
        for message in unpack_from_worker(frame.bytes):
            if isinstance(message, Hello):
                self._route = route.bytes
                answers.append(Welcome(self.epoch, 1_000_000, self.heartbeat_ms))
            elif not self.silent:
                answers += self._answers_to(message)
            with self._changed:
                self.heard.append(message)
                self._changed.notify_all()
        if answers:
            self._router.send_multipart([route.bytes, pack(answers)])

    def _answers_to(self, message: FromWorker) -> list[ToWorker]:
        match message:
            case Get(seq, key) if key.startswith("secret"):
                return [Refused(seq, "not-permitted", "A1201", "no grant covers it")]
            case Get(seq, key):
                return [Value(seq, self.stored.get(key))]
            case Set(seq, _, value) if value == b"much":
                return [Refused(seq, "over-quota", "A1501", "storage", 0, 90, 100)]
            case Set(seq, key, value):
                self.stored[key] = value
                return [Accepted(seq)]
            case Request(seq):
                self._correlations += 1
                return [Accepted(seq, 0, self._correlations)]
            case Send(seq) | Cancel(seq) | CompareAndSet(seq):
                return [Accepted(seq, 1)]
        return []

    def say(self, *messages: ToWorker) -> None:
        """Send to the worker that said Hello last."""
        self._orders.send_multipart([b"say", pack(messages)])

    def deliver(self, payload: bytes, wants_answer: bool = True, topic: str = "") -> int:
        """Deliver one message; returns its number."""
        self.wait(Hello)
        self._deliveries += 1
        self.say(Deliver(self._deliveries, "tester", payload, wants_answer, topic))
        return self._deliveries

    def wait(self, kind: type[T], matches: Callable[[T], bool] = lambda _: True, count: int = 1) -> list[T]:
        """Wait until so many such messages were heard, and return them."""

        def found() -> list[T]:
            return [m for m in self.heard if isinstance(m, kind) and matches(m)]

        with self._changed:
            assert self._changed.wait_for(lambda: len(found()) >= count, TIMEOUT_S), self.heard
        return found()

    def ask(self, payload: bytes) -> Answer:
        """Deliver a request and wait for its answer."""
        number = self.deliver(payload)
        return self.wait(Answer, lambda m: m.delivery == number)[0]

    def wait_announced(self, count: int) -> None:
        """Wait until so many connections were announced."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.announced) >= count, TIMEOUT_S)

    def hears(self, kind: type[T], actor: Instance) -> bool:
        """Wait until such a message was heard; False when the actor has ended, or is to be ended, before."""
        while True:
            with self._changed:
                if self._changed.wait_for(lambda: any(isinstance(m, kind) for m in self.heard), 0.05):
                    return True
            if actor.is_ending():
                return False

    def callback(self, correlation: int, payload: bytes | None, kind: str = "", reason: str = "") -> None:
        """End a request of the worker's."""
        self.say(Callback(correlation, payload, kind, reason))

    def ping(self) -> Health:
        """Ask how it is."""
        before = len(self.wait(Health, count=0))
        self.say(Ping())
        return self.wait(Health, count=before + 1)[-1]

    def wait_handled(self, number: int) -> Handled:
        """Wait until a delivery is done with."""
        return self.wait(Handled, lambda m: m.delivery == number)[0]


class Instance:
    """One running actor."""

    def __init__(self, stage: Stage, launched: Launched, streams: tuple[int, int], listener: int) -> None:
        """Take the ends over."""
        self.stage = stage
        self.launched = launched
        self.streams = streams
        self.pid = 0
        self.layers: tuple[LayerReport, ...] = ()
        self.problems: tuple[str, ...] = ()
        self.finished: Finished | None = None
        self._listener = listener

    def wait_finished(self) -> Finished:
        """Wait for its report."""
        message, _ = self.launched.worker.receive((Finished,), TIMEOUT_S)
        assert isinstance(message, Finished)
        self.finished = message
        return message

    def stop(self) -> Finished:
        """Order it to end."""
        self.launched.worker.send(Stop())
        return self.wait_finished()

    def is_ending(self) -> bool:
        """Whether it has ended, or the warden wants that; for ever after."""
        poll = select.poll()
        for channel in (self.stage.warden.channel, self.launched.keeper, self.launched.worker):
            poll.register(channel.fileno(), select.POLLIN)
        return bool(poll.poll(0))

    def stdout(self) -> str:
        """Return what it wrote, once it has ended."""
        return _read_all(self.streams[0])

    def stderr(self) -> str:
        """Return what it wrote there, once it has ended."""
        return _read_all(self.streams[1])

    def wait_ended(self) -> Ended:
        """Wait for the keeper's last word."""
        while True:
            message, _ = self.launched.keeper.receive((Spawned, Ended), TIMEOUT_S)
            if isinstance(message, Ended):
                return message

    def close(self) -> None:
        """End it, whatever it does."""
        self.launched.abandon()
        with contextlib.suppress(EOFError, OSError):
            self.wait_ended()
        self.launched.close()
        for descriptor in (*self.streams, self._listener):
            os.close(descriptor)


def _read_all(descriptor: int) -> str:
    parts = []
    while part := os.read(descriptor, 65536):
        parts.append(part)
    return b"".join(parts).decode()


class Stage(Struct):
    """What actors are run on."""

    zygote: Zygote
    warden: WardenClient
    writer: AuditWriter
    records: list[Mapping[str, object]]
    directory: Path
    artifacts: dict[bytes, int]
    instances: list[Instance]
    brokers: list[Broker]
    server_keys: tuple[bytes, bytes]
    client_keys: tuple[bytes, bytes]
    stored: dict[str, bytes]

    def broker(self, epoch: int, **attributes: object) -> Broker:
        """Start a broker, and lead the warden to it."""
        path = str(self.directory / "b" / "s")
        Path(path).unlink(missing_ok=True)
        broker = Broker(path, self.server_keys, self.client_keys[0], epoch, self.stored)
        for name, value in attributes.items():
            setattr(broker, name, value)
        self.warden.use_broker(path, broker.wardens_end.fileno())
        self.brokers.append(broker)
        return broker

    def stop_broker(self) -> None:
        """End the one that runs."""
        self.brokers.pop().stop()

    @property
    def namespaces(self) -> bool:
        """Whether workers have them here."""
        return os.getuid() == 0 or self.zygote.user_namespace is not None

    def confinement(self) -> ConfinementPlan:
        """Return the plan that the product would make here."""
        own = WORKER_UID + len(self.instances) if os.getuid() == 0 else None
        return ConfinementPlan(REQUIRED, (), own, own, self.namespaces, self.warden.pid)

    def compile(self, wasm: bytes) -> int:
        """Compile in the real compiler, once."""
        if wasm in self.artifacts:
            return self.artifacts[wasm]
        limits = WorkerLimits(8 << 30, 0, cpu_s=100, file_size_bytes=1 << 30)
        plan = WorkerPlan("compile", EngineSettings(), self.confinement(), ORIGIN, limits)
        source, output = memory_file.from_bytes("wasm", wasm), os.memfd_create("output", os.MFD_CLOEXEC)
        launched = launch_compiler(self.zygote, plan, source, output)
        try:
            message, _ = launched.worker.receive((Compiled,), TIMEOUT_S)
            assert isinstance(message, Compiled)
            while not isinstance(launched.keeper.receive((Spawned, Ended), TIMEOUT_S)[0], Ended):
                pass
            self.artifacts[wasm] = memory_file.from_file("artifact", output, 1 << 30)
        finally:
            launched.close()
            os.close(source)
            os.close(output)
        return self.artifacts[wasm]

    def start(
        self,
        component: str | bytes | None = None,
        config: bytes = b"",
        call_timeout_ns: int = 10 * 10**9,
        broker: bool = True,
        grants: tuple[tuple[str, str], ...] = (("storage.read", "k"),),
        kind: str = "actor",
        wasm_kind: str = "component",
        arguments: tuple[str, ...] = ("actor",),
        payload_bytes: int = 1_000_000,
        mounts: tuple[tuple[str, str], ...] = (),
    ) -> Instance | StartFailed | None:
        """Run the actor up to its first instruction, as the supervisor does; None when it was ended on the way."""
        source = ACTOR_WAT.read_text(encoding="utf-8") if component is None else component
        artifact = self.compile(bytes(wasmtime.wat2wasm(source)) if isinstance(source, str) else source)
        worker_id = f"actor-{len(self.instances):08x}"
        document = PolicyDocument("actor", "", tuple(Grant(a, p, "the test") for a, p in grants))
        packed = msgpack.packb(document.to_wire(), use_bin_type=True)
        pipes = [os.pipe2(os.O_CLOEXEC) for _ in range(3)]
        plan = WorkerPlan(kind, EngineSettings(), self.confinement(), ORIGIN)
        launched = launch(self.zygote, plan, pipes[2][0], pipes[0][1], pipes[1][1])
        for descriptor in (*pipes[2], pipes[0][1], pipes[1][1]):
            os.close(descriptor)
        spawned, _ = launched.keeper.receive((Spawned,), TIMEOUT_S)
        assert isinstance(spawned, Spawned)
        confined, (listener,) = launched.worker.receive((Confined,), TIMEOUT_S)
        assert isinstance(confined, Confined)
        instance = Instance(self, launched, (pipes[0][0], pipes[1][0]), listener)
        instance.pid = spawned.pid
        self.instances.append(instance)
        policy = PreparePolicy(
            packed,
            "",
            context_of(document, "the test", component_digest="d" * 64),
            tuple((m, m) for _, m in mounts),
            broker=broker,
        )
        self.warden.prepare(worker_id, policy, artifact)
        pidfd, mark = os.pidfd_open(spawned.pid), make_mark()
        self.warden.attach(worker_id, listener, pidfd, mark)
        os.close(pidfd)
        os.close(mark)
        attached = self.warden.receive(TIMEOUT_S)
        assert isinstance(attached, Attached), attached
        job = WorkerJob(
            worker_id,
            wasm_kind,
            arguments,
            (),
            mounts,
            WorkerLimits(64 << 20, 1 << 20, payload_bytes=payload_bytes),
            ActorJob(
                "actor",
                worker_id,
                "ipc:///broker",
                self.server_keys[0],
                *self.client_keys,
                config,
                packed,
                call_timeout_ns,
            )
            if kind == "actor"
            else None,
        )
        launched.load(job)
        poll = select.poll()
        for channel in (self.warden.channel, launched.keeper, launched.worker):
            poll.register(channel.fileno(), select.POLLIN)
        if launched.worker.fileno() not in {descriptor for descriptor, _ in poll.poll(TIMEOUT_S * 1000)}:
            return None
        sealed, _ = launched.worker.receive((Sealed, StartFailed), TIMEOUT_S)
        if isinstance(sealed, StartFailed):
            return sealed
        assert isinstance(sealed, Sealed)
        instance.layers = sealed.layers
        look = verify_and_bound(spawned.pid, ExpectedOutside.of(plan.confinement, len(mounts)), job.limits)
        instance.problems = look.problems
        assert not instance.problems
        assert {report.status for report in look.reports} <= {"enforced", "partial"}
        launched.worker.send(Go())
        return instance

    def running(self, **arguments: object) -> Instance:
        """Start one that must start."""
        instance = self.start(**arguments)  # type: ignore[arg-type]
        assert isinstance(instance, Instance), instance
        return instance

    def recorded(self, **wanted: object) -> list[Mapping[str, object]]:
        """Return the audit records with these fields that are durable by now."""
        mark = f"mark {time.monotonic_ns()}"
        self.writer.local_durable(AuditEvent("mark", resource=mark))
        until = time.monotonic() + TIMEOUT_S
        while not any(record["resource"] == mark for record in self.records):
            assert time.monotonic() < until, "the audit writer does not publish"
            os.sched_yield()
        return [r for r in self.records if all(r.get(key) == value for key, value in wanted.items())]

    def wait_end_or_death(self, instance: Instance) -> EndWorker | None:
        """Wait until the warden asks for a worker's end, or its filter has killed it: None."""
        poll = select.poll()
        for channel in (self.warden.channel, instance.launched.keeper):
            poll.register(channel.fileno(), select.POLLIN)
        ready = {descriptor for descriptor, _ in poll.poll(TIMEOUT_S * 1000)}
        assert ready, "nobody ends it"
        if self.warden.channel.fileno() not in ready:
            return None
        message = self.warden.receive(TIMEOUT_S)
        assert isinstance(message, EndWorker), message
        return message

    def end_instances(self) -> None:
        """Leave nothing of a test."""
        for number, instance in enumerate(self.instances):
            instance.close()
            self.warden.detach(f"actor-{number:08x}")
            while not isinstance(self.warden.receive(TIMEOUT_S), Detached):
                pass
        self.instances.clear()
        while self.brokers:
            self.stop_broker()
        self.stored.clear()


@pytest.fixture(scope="module")
def whole_stage() -> Iterator[Stage]:
    """Yield a stage with everything but a broker."""
    with short_directory() as directory:
        (directory / "b").mkdir(mode=0o711)
        (directory / "run").mkdir(mode=0o700)
        scratch = directory / "scratch"
        scratch.mkdir()
        uid, gid = (NOBODY, NOBODY) if os.geteuid() == 0 else (os.getuid(), os.getgid())
        os.chown(scratch, uid, gid)
        log = AuditLog(str(directory / "audit"))
        writer = AuditWriter(log, str(directory / "run" / "a.sock"))
        records: list[Mapping[str, object]] = []
        writer.subscribe(lambda record: records.append(record.to_map()))
        writer.start()
        zygote = Zygote(actors=True)
        zygote.start()
        process = WardenProcess.start_warden(zygote.user_namespace)
        warden = WardenClient(process)
        keys = (writer.server_public_key, *writer.new_client_keys("warden"))
        warden.set_up(WardenSetup(uid, gid, (gid,), 0o022, writer.endpoint, *keys, str(scratch)))
        warden.wait_ready()
        stage = Stage(
            zygote, warden, writer, records, directory, {}, [], [], zmq.curve_keypair(), zmq.curve_keypair(), {}
        )
        try:
            yield stage
        finally:
            stage.end_instances()
            for artifact in stage.artifacts.values():
                os.close(artifact)
            process.close()
            zygote.close()
            writer.close()
            log.close()


@contextlib.contextmanager
def short_directory() -> Iterator[Path]:
    """A directory whose name leaves room for a socket's, which anybody may pass through."""
    directory = Path(tempfile.mkdtemp(prefix="aa-", dir="/tmp"))
    directory.chmod(0o711)
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


@pytest.fixture
def stage(whole_stage: Stage) -> Iterator[Stage]:
    """Yield it, and end what the test has left."""
    try:
        yield whole_stage
    finally:
        whole_stage.end_instances()
