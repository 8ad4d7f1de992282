"""A whole broker, as `airssys up` has one, and programs that speak with it as a worker does."""

from __future__ import annotations

import contextlib
import os
import time

import zmq
from bench_areas._programs import Pair, Program

from ipc.broker.announcing import Connecting, Expected
from ipc.broker.events import Bounds
from ipc.broker.orders import Admit
from ipc.channel import Channel
from ipc.policy.capability import Grant
from ipc.policy.decision import PolicyDocument
from ipc.security_context import SecurityContext
from supervisor.audit.log import AuditLog
from supervisor.audit.writer import AuditWriter
from supervisor.fleet.broker_client import BrokerClient, BrokerOptions
from supervisor.host.identity import resolve_run_as

PAYLOAD_BYTES = 256

_HEAD = """
import sys, time, zmq
from collections import deque
from ipc.broker import messages as m
endpoint, server, public, secret = sys.argv[1], *(key.encode() for key in sys.argv[2:5])
count, size, batch = map(int, sys.argv[5:8])
dealer = zmq.Context().socket(zmq.DEALER)
dealer.curve_serverkey, dealer.curve_publickey, dealer.curve_secretkey = server, public, secret
dealer.sndhwm = dealer.rcvhwm = 0
dealer.connect(endpoint)
dealer.send(m.pack([m.Hello(m.PROTOCOL)]))
assert isinstance(m.unpack_to_worker(dealer.recv())[0], m.Welcome)
waiting = deque()
def receive():
    while not waiting:
        for message in m.unpack_to_worker(dealer.recv()):
            if isinstance(message, m.Ping):
                dealer.send(m.pack([m.Health("healthy")]))
            else:
                waiting.append(message)
    return waiting.popleft()
print("ready", flush=True)
"""
SINK = (
    _HEAD
    + """
for line in sys.stdin:
    if line == "answer\\n":
        for _ in range(count):
            dealer.send(m.pack([m.Answer(receive().delivery, b"x" * size)]))
        continue
    got = 0
    begun = None
    while got < count:
        handled = [m.Handled(receive().delivery)]
        while waiting:
            handled.append(m.Handled(waiting.popleft().delivery))
        dealer.send(m.pack(handled))
        begun = begun or time.perf_counter()
        got += len(handled)
    print((time.perf_counter() - begun) / (count - 1), flush=True)
"""
)
SOURCE = (
    _HEAD
    + """
payload = b"x" * size
seq = 0
for line in sys.stdin:
    if line == "ask\\n":
        times = []
        for _ in range(count):
            begun = time.perf_counter()
            seq += 1
            dealer.send(m.pack([m.Request(seq, "sink", payload, 10_000)]))
            while not isinstance(receive(), m.Callback):
                pass
            times.append(time.perf_counter() - begun)
        print(*times, flush=True)
        continue
    sent = answered = 0
    window = 800
    while answered < count:
        while sent < count and sent - answered < window:
            few = min(batch, count - sent)
            dealer.send(m.pack([m.Send(seq + n, "sink", payload) for n in range(few)]))
            seq += few
            sent += few
        message = receive()
        if isinstance(message, m.Refused):
            raise SystemExit(f"refused: {message}")
        answered += 1
        while waiting:
            assert isinstance(waiting.popleft(), m.Accepted)
            answered += 1
"""
)


STORER = (
    _HEAD
    + """
payload = b"x" * size
seq = 0
for line in sys.stdin:
    end = time.monotonic() + float(line)
    waits = done = 0
    while time.monotonic() < end or waits:
        while waits < batch and time.monotonic() < end:
            seq += 1
            dealer.send(m.pack([m.Set(seq, "k%d" % (seq % 50), payload)]))
            waits += 1
        assert isinstance(receive(), m.Accepted)
        waits -= 1
        done += 1
    print(done, flush=True)
"""
)
"""Keeps so many writes of small values under way for so many seconds."""
CROWD = """
import resource, sys, zmq
from ipc.broker import messages as m
endpoint, server = sys.argv[1], sys.argv[2].encode()
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
context = zmq.Context()
poller = zmq.Poller()
print("started", flush=True)
for line in sys.stdin:
    if line == "\\n":
        break
    dealer = context.socket(zmq.DEALER)
    dealer.curve_serverkey = server
    dealer.curve_publickey, dealer.curve_secretkey = (key.encode() for key in line.split())
    dealer.connect(endpoint)
    dealer.send(m.pack([m.Hello(m.PROTOCOL)]))
    assert isinstance(m.unpack_to_worker(dealer.recv())[0], m.Welcome)
    poller.register(dealer, zmq.POLLIN)
    print("connected", flush=True)
print("ready", flush=True)
while True:
    for dealer, _ in poller.poll():
        dealer.recv()
        dealer.send(m.pack([m.Health("healthy")]))
"""
"""Holds any number of connections, over which it only says that it lives."""


class Stage:
    """A broker with its audit log, who announces to it, and its clients."""

    def __init__(self, stack: contextlib.ExitStack, root: str) -> None:
        identity = resolve_run_as(None, os.getuid(), {})
        os.chmod(root, 0o711)
        for name in ("sockets", "store"):
            os.mkdir(os.path.join(root, name), 0o700)
            os.chown(os.path.join(root, name), identity.uid, identity.gid)
        owner = identity.uid if os.getuid() == 0 else None
        log = AuditLog(os.path.join(root, "audit"))
        writer = AuditWriter(log, os.path.join(root, "audit.sock"), socket_owner_uid=owner)
        stack.callback(writer.close)
        writer.start()
        options = BrokerOptions(identity, os.path.join(root, "sockets"), os.path.join(root, "store"), workers_max=600)
        self.warden, theirs = Channel.pair()
        self.client = stack.enter_context(BrokerClient(options, writer, None, lambda: [theirs.detach()]))
        self.client.start()
        self.client.wait_ready()

    def admit(self, name: str) -> list[str]:
        """Admit and announce a component; returns what its program needs to connect."""
        public, secret = zmq.curve_keypair()
        grants = tuple(Grant(f"messaging.{verb}", "*", "bench") for verb in ("send", "receive"))
        grants += tuple(Grant(f"storage.{verb}", "*", "bench") for verb in ("read", "write"))
        bounds = Bounds(None, None, 1_000_000, 100_000, 64_000_000, 1_000)
        order = Admit(f"{name}-1", public, bounds, SecurityContext(name, "p" * 64, component_digest="d" * 64))
        self.client.admit(order, PolicyDocument(name, f"{name}-1", grants))
        while True:
            self.warden.send(Connecting(f"{name}-1"))
            answer, _ = self.warden.receive((Expected,), 10)
            if isinstance(answer, Expected) and answer.allowed:
                return [self.client.endpoint, self.client.server_public_key.decode(), public.decode(), secret.decode()]
            time.sleep(0.001)

    def pair(self, stack: contextlib.ExitStack, count: int, batch: int) -> Pair:
        """Return a source, a sink, and the process that is between them."""
        sink = Program(SINK, *self.admit("sink"), count, PAYLOAD_BYTES, batch)
        stack.callback(sink.close)
        source = Program(SOURCE, *self.admit("source"), count, PAYLOAD_BYTES, batch)
        stack.callback(source.close)
        assert self.client.pid is not None
        return Pair(source, sink, self.client.pid)

    def storer(self, stack: contextlib.ExitStack, under_way: int) -> Program:
        """Return a component that stores."""
        program = Program(STORER, *self.admit("storer"), 0, PAYLOAD_BYTES, under_way)
        stack.callback(program.close)
        return program

    def crowd(self, stack: contextlib.ExitStack, count: int) -> None:
        """Connect so many others, who are idle."""
        program: Program | None = None
        for number in range(count):
            endpoint, server, *keys = self.admit(f"idle{number}")
            if program is None:
                program = Program(CROWD, endpoint, server)
                stack.callback(program.close)
            program.tell(" ".join(keys))
            program.read()
        if program is not None:
            program.tell("")
            program.read()
