"""What carries messages between two processes without asking who may: the broker's baselines.

Their clients are as plain as can be, and batch as the broker's do: raw sockets, so many messages a write.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Sequence

import zmq
from bench_areas._programs import Pair, Program

PAYLOAD_BYTES = 256
BATCH = 32
_SETTLE_S = 0.3
"""A router knows a peer only once that is connected, and none of these says so."""
_START_S = 10.0

_ROUTER = """
import sys, zmq
router = zmq.Context().socket(zmq.ROUTER)
router.sndhwm = router.rcvhwm = 0
if len(sys.argv) > 2:
    router.curve_server, router.curve_secretkey = True, sys.argv[2].encode()
router.bind(sys.argv[1])
print("ready", flush=True)
while True:
    frames = router.recv_multipart()
    router.send_multipart([frames[1], frames[0], frames[2]])
"""
_PROXY = """
import sys, zmq
context = zmq.Context()
taking, giving = context.socket(zmq.PULL), context.socket(zmq.PUSH)
taking.rcvhwm = giving.sndhwm = 0
taking.bind(sys.argv[1])
giving.bind(sys.argv[1] + ".out")
print("ready", flush=True)
zmq.proxy(taking, giving)
"""
_SINK = """
import sys, time, zmq
endpoint, count, routed = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "routed"
taking = zmq.Context().socket(zmq.DEALER if routed else zmq.PULL)
taking.rcvhwm = 0
if routed:
    taking.identity = b"sink"
if len(sys.argv) > 4:
    taking.curve_publickey, taking.curve_secretkey = zmq.curve_keypair()
    taking.curve_serverkey = sys.argv[4].encode()
taking.connect(endpoint if routed else endpoint + ".out")
print("ready", flush=True)
for line in sys.stdin:
    if line == "answer\\n":
        for _ in range(count):
            sender, payload = taking.recv_multipart()
            taking.send_multipart([sender, payload])
        continue
    taking.recv_multipart()
    begun = time.perf_counter()
    for _ in range(count - 1):
        taking.recv_multipart()
    print((time.perf_counter() - begun) / (count - 1), flush=True)
"""
_SOURCE = """
import sys, time, zmq
endpoint, count, routed, size = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "routed", int(sys.argv[4])
giving = zmq.Context().socket(zmq.DEALER if routed else zmq.PUSH)
giving.sndhwm = 0
if routed:
    giving.identity = b"source"
if len(sys.argv) > 5:
    giving.curve_publickey, giving.curve_secretkey = zmq.curve_keypair()
    giving.curve_serverkey = sys.argv[5].encode()
giving.connect(endpoint)
payload = b"x" * size
frames = [b"sink", payload] if routed else [payload]
print("ready", flush=True)
for line in sys.stdin:
    if line == "ask\\n":
        times = []
        for _ in range(count):
            begun = time.perf_counter()
            giving.send_multipart(frames)
            giving.recv_multipart()
            times.append(time.perf_counter() - begun)
        print(*times, flush=True)
        continue
    for _ in range(count):
        giving.send_multipart(frames)
"""
_STREAM_SINK = """
import socket, sys, time
port, count, kind = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
taking = socket.create_connection(("127.0.0.1", port))
if kind == "nats":
    taking.sendall(b'CONNECT {"verbose":false}\\r\\nSUB x 1\\r\\nPING\\r\\n')
    head, ready = b"MSG x 1 ", b"PONG\\r\\n"
else:
    taking.sendall(b"SUBSCRIBE x\\r\\n")
    head, ready = b"*3\\r\\n$7\\r\\nmessage\\r\\n$1\\r\\nx\\r\\n$", b":1\\r\\n"
data = b""
while ready not in data:
    data += taking.recv(1 << 16)
data = b""
print("ready", flush=True)
for line in sys.stdin:
    got, begun = 0, None
    while got < count:
        data += taking.recv(1 << 18)
        at = 0
        # Each message is taken apart, as any client has to: its size, and then so many bytes.
        while True:
            if data.startswith(b"PING\\r\\n", at):
                taking.sendall(b"PONG\\r\\n")
                at += 6
                continue
            end = data.find(b"\\r\\n", at + len(head))
            if end < 0:
                break
            size = int(data[at + len(head):end])
            if len(data) < end + size + 4:
                break
            payload = data[end + 2:end + 2 + size]
            at = end + size + 4
            got += 1
            begun = begun or time.perf_counter()
        data = data[at:]
    print((time.perf_counter() - begun) / (count - 1), flush=True)
"""
_STREAM_SOURCE = """
import socket, sys
port, count, kind, size, batch = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
giving = socket.create_connection(("127.0.0.1", port))
payload = b"x" * size
if kind == "nats":
    giving.sendall(b'CONNECT {"verbose":false}\\r\\nPING\\r\\n')
    data = b""
    while b"PONG\\r\\n" not in data:
        data += giving.recv(1 << 16)
    one = b"PUB x %d\\r\\n%s\\r\\n" % (size, payload)
else:
    one = b"*3\\r\\n$7\\r\\nPUBLISH\\r\\n$1\\r\\nx\\r\\n$%d\\r\\n%s\\r\\n" % (size, payload)
print("ready", flush=True)
for line in sys.stdin:
    answered = 0
    for sent in range(0, count, batch):
        few = min(batch, count - sent)
        giving.sendall(b"".join([one for _ in range(few)]))
        if kind == "redis" and sent + few - answered >= 800:
            answered += giving.recv(1 << 16).count(b"\\r\\n")
    while kind == "redis" and answered < count:
        answered += giving.recv(1 << 16).count(b"\\r\\n")
"""


def router(stack: contextlib.ExitStack, root: str, messages: int, *, curve: bool = False) -> Pair:
    """Start a bare Python loop over a ROUTER that only swaps addresses."""
    public, secret = zmq.curve_keypair() if curve else (b"", b"")
    endpoint = f"ipc://{root}/router{messages}{'c' if curve else ''}"
    server_keys, client_keys = ([secret.decode()], [public.decode()]) if curve else ([], [])
    between = _started(stack, _ROUTER, endpoint, *server_keys)
    sink = _started(stack, _SINK, endpoint, messages, "routed", *client_keys)
    source = _started(stack, _SOURCE, endpoint, messages, "routed", PAYLOAD_BYTES, *client_keys)
    time.sleep(_SETTLE_S)
    return Pair(source, sink, between.pid)


def proxy(stack: contextlib.ExitStack, root: str, messages: int) -> Pair:
    """Start libzmq's own proxy, which knows one sender and one receiver."""
    endpoint = f"ipc://{root}/proxy"
    between = _started(stack, _PROXY, endpoint)
    sink = _started(stack, _SINK, endpoint, messages, "plain")
    source = _started(stack, _SOURCE, endpoint, messages, "plain", PAYLOAD_BYTES)
    time.sleep(_SETTLE_S)
    return Pair(source, sink, between.pid)


def nats(stack: contextlib.ExitStack, _root: str, messages: int) -> Pair | None:
    """Start nats-server (Debian: nats-server); None where it isn't installed."""
    return _server(stack, "nats", messages, lambda port: ["nats-server", "-a", "127.0.0.1", "-p", str(port)])


def redis(stack: contextlib.ExitStack, root: str, messages: int) -> Pair | None:
    """Start redis as publisher and subscriber know it (Debian: redis-server); None where it isn't installed."""

    def command(port: int) -> list[str]:
        unbounded = ["--client-output-buffer-limit", "pubsub 0 0 0"]
        kept = ["--save", "", "--appendonly", "no", "--dir", root]
        return ["redis-server", "--port", str(port), "--bind", "127.0.0.1", *kept, *unbounded]

    return _server(stack, "redis", messages, command)


def _server(
    stack: contextlib.ExitStack, kind: str, messages: int, command: Callable[[int], Sequence[str]]
) -> Pair | None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = command(port)
    program = shutil.which(words[0], path="/usr/local/bin:/usr/bin:/usr/local/sbin:/usr/sbin")
    if program is None:
        return None
    null = subprocess.DEVNULL
    server = subprocess.Popen([program, *words[1:]], stdin=null, stdout=null, stderr=null)
    stack.callback(server.communicate)
    stack.callback(server.kill)
    deadline_s = time.monotonic() + _START_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            break
        except ConnectionRefusedError:
            if time.monotonic() > deadline_s or server.poll() is not None:
                raise RuntimeError(f"{words[0]} does not start") from None
            time.sleep(0.01)
    sink = _started(stack, _STREAM_SINK, port, messages, kind)
    source = _started(stack, _STREAM_SOURCE, port, messages, kind, PAYLOAD_BYTES, BATCH)
    return Pair(source, sink, server.pid)


def _started(stack: contextlib.ExitStack, code: str, *arguments: object) -> Program:
    program = Program(code, *arguments)
    stack.callback(program.close)
    return program
