"""Cost of the broker: one-way and request/response through the whole of it, against a bare Python ROUTER loop.

Both run between the same two other processes with the same sizes: the loop only swaps addresses, without CURVE,
identity, grants, quotas, records or mailboxes. Rates are shown as time a message, so that less is better; and as
processor time of the process in the middle, which a busy machine changes less.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

import zmq

from ipc.broker.announcing import Connecting, Expected
from ipc.broker.events import Bounds
from ipc.broker.orders import Admit
from ipc.channel import Channel
from ipc.policy.capability import Grant
from ipc.policy.decision import PolicyDocument
from supervisor.audit_log import AuditLog
from supervisor.audit_writer import AuditWriter
from supervisor.broker_client import BrokerClient, BrokerOptions
from supervisor.identity import resolve_run_as

ROUNDS = 5
MESSAGES = 40_000
REQUESTS = 1_000
PAYLOAD_BYTES = 256
BATCHES = (1, 32)

_ROUTER = """
import sys, zmq
router = zmq.Context().socket(zmq.ROUTER)
router.sndhwm = router.rcvhwm = 0
router.bind(sys.argv[1])
print("ready", flush=True)
while True:
    frames = router.recv_multipart()
    router.send_multipart([frames[1], frames[0], frames[2]])
"""
_BARE_SINK = """
import sys, time, zmq
endpoint, count = sys.argv[1], int(sys.argv[2])
dealer = zmq.Context().socket(zmq.DEALER)
dealer.rcvhwm, dealer.identity = 0, b"sink"
dealer.connect(endpoint)
print("ready", flush=True)
for line in sys.stdin:
    if line == "answer\\n":
        for _ in range(count):
            sender, payload = dealer.recv_multipart()
            dealer.send_multipart([sender, payload])
        continue
    dealer.recv_multipart()
    begun = time.perf_counter()
    for _ in range(count - 1):
        dealer.recv_multipart()
    print((time.perf_counter() - begun) / (count - 1), flush=True)
"""
_BARE_SOURCE = """
import sys, time, zmq
endpoint, count, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
dealer = zmq.Context().socket(zmq.DEALER)
dealer.sndhwm, dealer.identity = 0, b"source"
dealer.connect(endpoint)
payload = b"x" * size
print("ready", flush=True)
for line in sys.stdin:
    if line == "ask\\n":
        times = []
        for _ in range(count):
            begun = time.perf_counter()
            dealer.send_multipart([b"sink", payload])
            dealer.recv_multipart()
            times.append(time.perf_counter() - begun)
        print(*times, flush=True)
        continue
    for _ in range(count):
        dealer.send_multipart([b"sink", payload])
"""
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
_SINK = (
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
_SOURCE = (
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


class _Program:
    """A process that is told what to do, a line at a time."""

    def __init__(self, code: str, *arguments: object) -> None:
        command = [sys.executable, "-I", "-c", code, *map(str, arguments)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.read()

    def read(self) -> str:
        """Return what it says next."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("a process of the measurement ended")
        return line

    def tell(self, what: str) -> None:
        """Say what to do."""
        assert self.process.stdin is not None
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.communicate()


class _Stage:
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
        bounds = Bounds(None, None, 1_000_000, 2 * MESSAGES, 64_000_000, 1_000)
        order = Admit(f"{name}-1", name, public, bounds, "d" * 64, "unknown", "p" * 64)
        self.client.admit(order, PolicyDocument(name, f"{name}-1", grants))
        while True:
            self.warden.send(Connecting(f"{name}-1"))
            answer, _ = self.warden.receive((Expected,), 10)
            if isinstance(answer, Expected) and answer.allowed:
                return [self.client.endpoint, self.client.server_public_key.decode(), public.decode(), secret.decode()]
            time.sleep(0.001)

    def pair(self, stack: contextlib.ExitStack, count: int, batch: int) -> tuple[_Program, _Program, int]:
        """Return a source, a sink, and the process that is between them."""
        sink = _Program(_SINK, *self.admit("sink"), count, PAYLOAD_BYTES, batch)
        stack.callback(sink.close)
        source = _Program(_SOURCE, *self.admit("source"), count, PAYLOAD_BYTES, batch)
        stack.callback(source.close)
        assert self.client.pid is not None
        return source, sink, self.client.pid


def _bare_pair(stack: contextlib.ExitStack, root: str, count: int) -> tuple[_Program, _Program, int]:
    endpoint = f"ipc://{root}/bare{count}"
    router = _Program(_ROUTER, endpoint)
    stack.callback(router.close)
    sink = _Program(_BARE_SINK, endpoint, count)
    stack.callback(sink.close)
    source = _Program(_BARE_SOURCE, endpoint, count, PAYLOAD_BYTES)
    stack.callback(source.close)
    time.sleep(0.3)  # the router knows neither until they are connected
    return source, sink, router.process.pid


def _cpu_us(pid: int) -> float:
    """Return the processor time of a process, all its threads (proc(5), stat)."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as source:
        fields = source.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1e6 / os.sysconf("SC_CLK_TCK")


def _one_way_us(pair: tuple[_Program, _Program, int]) -> tuple[float, float]:
    """Return time and processor time a message."""
    source, sink, pid = pair
    before_us = _cpu_us(pid)
    sink.tell("take")
    source.tell("send")
    took_us = float(sink.read()) * 1e6
    return took_us, (_cpu_us(pid) - before_us) / MESSAGES


def _ask_us(pair: tuple[_Program, _Program, int]) -> list[float]:
    source, sink, _ = pair
    sink.tell("answer")
    source.tell("ask")
    return [float(text) * 1e6 for text in source.read().split()]


def _row(name: str, ours: list[float], theirs: list[float]) -> dict[str, object]:
    def percentile(values: list[float], share: float) -> float:
        return sorted(values)[min(len(values) - 1, int(len(values) * share))]

    p50, base = statistics.median(ours), statistics.median(theirs)
    return {
        "name": name,
        "p50": round(p50, 2),
        "p99": round(percentile(ours, 0.99), 2),
        "unit": "us",
        "n": len(ours),
        "baseline": "bare Python ROUTER loop, no CURVE",
        "baseline_p50": round(base, 2),
        "ratio": round(p50 / base, 3),
    }


def measure() -> Iterator[dict[str, object]]:
    """Yield one row a measurement: one-way in batches of one and of 32, request and response one at a time."""
    for batch in BATCHES:
        with contextlib.ExitStack() as stack:
            root = tempfile.mkdtemp(prefix="bb-", dir="/tmp")
            stack.callback(shutil.rmtree, root, ignore_errors=True)
            ours = _Stage(stack, root).pair(stack, MESSAGES, batch)
            theirs = _bare_pair(stack, root, MESSAGES)
            results: list[tuple[float, float]] = []
            bare: list[tuple[float, float]] = []
            for _ in range(ROUNDS):
                bare.append(_one_way_us(theirs))
                results.append(_one_way_us(ours))
            name = f"broker.one way, {PAYLOAD_BYTES} B, {batch} a frame, a message"
            yield _row(name, [time_us for time_us, _ in results], [time_us for time_us, _ in bare])
            yield _row(f"{name}, processor", [cpu_us for _, cpu_us in results], [cpu_us for _, cpu_us in bare])
    with contextlib.ExitStack() as stack:
        root = tempfile.mkdtemp(prefix="bb-", dir="/tmp")
        stack.callback(shutil.rmtree, root, ignore_errors=True)
        ours = _Stage(stack, root).pair(stack, REQUESTS, 1)
        theirs = _bare_pair(stack, root, REQUESTS)
        times: list[float] = []
        baseline: list[float] = []
        for _ in range(3):
            baseline += _ask_us(theirs)
            times += _ask_us(ours)
        yield _row(f"broker.request and response, {PAYLOAD_BYTES} B, one at a time", times, baseline)
