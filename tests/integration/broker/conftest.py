"""A stage for the broker: the real process with all its layers, its audit log, and clients with CURVE keys."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq

from ipc.broker import messages as m
from ipc.broker.announcing import Connecting, Expected
from ipc.broker.events import Bounds
from ipc.broker.orders import Admit, EndPeerNow
from ipc.channel import Channel
from ipc.policy.capability import Grant
from ipc.policy.decision import PolicyDocument
from ipc.security_context import SecurityContext
from ipc.struct import Struct, field
from supervisor.audit.log import AuditLog
from supervisor.audit.writer import AuditWriter
from supervisor.fleet.broker_client import BrokerClient, BrokerOptions, Heard, Lost
from supervisor.host.identity import resolve_run_as
from supervisor.host.namespaces import isolated_python, spawn
from supervisor.host.processes import BrokerProcess

HERE = Path(__file__).resolve().parent
GUARD_S = 20.0
SMALL = f"""import sys
sys.path.insert(0, {str(HERE)!r})
from small_core import new_core
import worker.broker
def main(descriptor):
    worker.broker.main(descriptor, new_core)
"""


class Client:
    """A worker's end: a DEALER with a key of its own, in this process."""

    def __init__(self, stage: Stage, keys: tuple[bytes, bytes], server_key: bytes | None = None) -> None:
        """Connect to the stage's broker."""
        # A context, and with it an I/O thread, of its own: one client's trouble is not another's.
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        socket = self.socket = self.context.socket(zmq.DEALER)
        socket.linger = 0
        socket.curve_serverkey = server_key or stage.client.server_public_key
        socket.curve_publickey, socket.curve_secretkey = keys
        socket.reconnect_ivl = -1
        self.monitor = socket.get_monitor_socket(
            zmq.EVENT_HANDSHAKE_SUCCEEDED
            | zmq.EVENT_HANDSHAKE_FAILED_AUTH
            | zmq.EVENT_DISCONNECTED
            | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
            | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
        )
        socket.connect(stage.client.endpoint)
        self.waiting: list[m.ToWorker] = []

    def outcome(self, timeout_s: float = GUARD_S) -> int:
        """Return the next thing that befalls the connection, as a ZMQ_EVENT_* number; 0 when the time is over."""
        if not self.monitor.poll(timeout_s * 1000):
            return 0
        return int.from_bytes(self.monitor.recv_multipart()[0][:2], sys.byteorder)

    def send(self, *messages: m.FromWorker) -> None:
        """Send a batch."""
        self.socket.send(m.pack(messages))

    def receive(self, timeout_s: float = GUARD_S) -> m.ToWorker | None:
        """Return the next message; None when none comes in time."""
        while not self.waiting:
            if not self.socket.poll(timeout_s * 1000):
                return None
            self.waiting += m.unpack_to_worker(self.socket.recv())
        return self.waiting.pop(0)

    def ask(self, message: m.FromWorker) -> m.ToWorker | None:
        """Send one and return what comes next."""
        self.send(message)
        return self.receive()

    def close(self) -> None:
        """Disconnect."""
        if self.socket.closed:
            return
        self.socket.disable_monitor()
        self.monitor.close(0)
        self.socket.close(0)
        self.context.destroy(0)


class Stage(Struct):
    """A running broker, who supervises it, and a warden that announces."""

    directory: Path
    writer: AuditWriter
    client: BrokerClient
    context: zmq.Context[zmq.Socket[bytes]]
    wardens: list[Channel]
    heard: list[object] = field(default_factory=list)
    records: list[dict[str, object]] = field(default_factory=list)
    clients: list[Client] = field(default_factory=list)

    def admit(
        self,
        name: str,
        *grants: tuple[str, str],
        storage_bytes: int | None = 100_000,
        document: PolicyDocument | None = None,
        generation: int = 1,
    ) -> tuple[bytes, bytes]:
        """Admit an instance of a component of this name; returns its keys."""
        instance = f"{name}-{generation}"
        keys = zmq.curve_keypair()
        bounds = Bounds(storage_bytes, 1_000_000, 1_000_000, 1_000, 8_000_000, 1_000)
        document = document or PolicyDocument(
            name, instance, tuple(Grant(*grant, "Component.toml") for grant in grants)
        )
        order = Admit(instance, keys[0], bounds, SecurityContext(name, "p" * 64, component_digest="d" * 64))
        self.client.admit(order, document)
        return keys

    def announce(self, name: str, generation: int = 1) -> bool:
        """Be the warden: announce a connection of this component."""
        warden = self.wardens[-1]
        warden.send(Connecting(f"{name}-{generation}"))
        message, _ = warden.receive((Expected,), GUARD_S)
        assert isinstance(message, Expected)
        return message.allowed

    def connect(self, keys: tuple[bytes, bytes], server_key: bytes | None = None) -> Client:
        """Connect with these keys, announced or not."""
        client = Client(self, keys, server_key)
        self.clients.append(client)
        return client

    def actor(self, name: str, *grants: tuple[str, str], storage_bytes: int | None = 100_000) -> Client:
        """Admit, announce, connect and say hello."""
        keys = self.admit(name, *grants, storage_bytes=storage_bytes)
        return self.hello(name, keys)

    def hello(self, name: str, keys: tuple[bytes, bytes], generation: int = 1) -> Client:
        """Announce, connect and say hello."""
        assert self.announce(name, generation)
        client = self.connect(keys)
        client.send(m.Hello(m.PROTOCOL))
        assert isinstance(client.receive(), m.Welcome)
        return client

    def listen(self, timeout_s: float = GUARD_S) -> Heard | Lost | None:
        """Return the next thing that the broker says to the supervisor."""
        heard = self.client.receive(timeout_s)
        if heard is not None:
            self.heard.append(heard)
        return heard

    def wait_for(self, condition: Callable[[], object], what: str, timeout_s: float = GUARD_S) -> None:
        """Listen until a condition holds."""
        until_s = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < until_s, what
            self.listen(0.02)

    def wait_ended(self, name: str) -> EndPeerNow:
        """Listen until the broker wants an instance ended; returns its words."""

        def found() -> EndPeerNow | None:
            said = (heard.message for heard in self.heard if isinstance(heard, Heard))
            mine = (each for each in said if isinstance(each, EndPeerNow) and each.instance == f"{name}-1")
            return next(mine, None)

        self.wait_for(found, f"{name} is to be ended")
        ended = found()
        assert ended is not None
        return ended

    def wait_restarted(self) -> float:
        """Listen until the broker was lost and another one is ready; returns how long that took, in seconds."""
        begun_s = time.monotonic()
        before = self.client.restarts
        self.wait_for(lambda: self.client.restarts > before and self.client.is_ready, "the broker is back")
        return time.monotonic() - begun_s

    def events(self, event: str) -> list[dict[str, object]]:
        """Return the audit records of a kind."""
        return [record for record in list(self.records) if record["event"] == event]


@contextlib.contextmanager
def outer_namespace() -> Iterator[int]:
    """A user namespace around the broker as a supervisor makes it, held by a process that does nothing."""
    holder = spawn(isolated_python("import signal; signal.pause()"), join="new")
    descriptor = os.open(f"/proc/{holder.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
        holder.send_signal(signal.SIGKILL)
        holder.wait(None)
        holder.close()


@pytest.fixture
def new_stage() -> Iterator[Callable[..., Stage]]:
    """Start a broker with the small core, or with the real one."""
    with contextlib.ExitStack() as stack:

        def start(
            code: str | None = SMALL,
            memory_bytes: int = 512 << 20,
            workers_max: int = 200,
        ) -> Stage:
            directory = Path(tempfile.mkdtemp(prefix="at-", dir="/tmp"))
            stack.callback(shutil.rmtree, directory, ignore_errors=True)
            directory.chmod(0o711)
            identity = resolve_run_as(None, os.getuid(), {})
            for name in ("sockets", "store"):
                (directory / name).mkdir(mode=0o700)
                os.chown(directory / name, identity.uid, identity.gid)
            owner = identity.uid if os.getuid() == 0 else None
            writer = AuditWriter(
                AuditLog(str(directory / "audit")), str(directory / "audit.sock"), socket_owner_uid=owner
            )
            writer.start()
            stack.callback(writer.close)
            records: list[dict[str, object]] = []
            writer.subscribe(lambda record: records.append(record.to_map()))
            options = BrokerOptions(
                identity, str(directory / "sockets"), str(directory / "store"), workers_max, memory_bytes
            )
            wardens: list[Channel] = []

            def warden_channels() -> list[int]:
                ours, theirs = Channel.pair()
                wardens.append(ours)
                stack.callback(ours.close)
                return [theirs.detach()]

            namespace = stack.enter_context(outer_namespace())
            client = stack.enter_context(BrokerClient(options, writer, namespace, warden_channels))
            if code is not None:
                start_code = code
                previous = BrokerProcess.start_broker
                BrokerProcess.start_broker = classmethod(lambda cls, namespace: cls.start(start_code, namespace))  # type: ignore[method-assign,assignment]
                stack.callback(setattr, BrokerProcess, "start_broker", previous)
            client.start()
            client.wait_ready()
            context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
            stack.callback(context.destroy, 0)
            stage = Stage(directory, writer, client, context, wardens, records=records)
            stack.callback(lambda: [each.close() for each in stage.clients])
            return stage

        yield start


@pytest.fixture
def stage(new_stage: Callable[..., Stage]) -> Stage:
    """A broker with the small core."""
    return new_stage()


def readable(*sources: object) -> bool:
    """Whether something can be read now."""
    return bool(select.select(sources, [], [], 0)[0])
