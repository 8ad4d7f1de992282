"""The broker's ZeroMQ sockets: a ROUTER with CURVE that fails closed, who authenticates for it, and what it tells.

RFC 26 (CURVE), RFC 27 (ZAP), zmq_setsockopt(3), zmq_socket_monitor(3).
"""

from __future__ import annotations

import contextlib
import os
import struct
from typing import Final

import zmq
from zmq.utils import z85

from ipc.broker.inbox import Incoming
from ipc.broker.messages import MAX_FRAME_BYTES
from ipc.broker.peers import Peers

ZAP_DOMAIN: Final = b"airssys.broker"
_CURVE_OVERHEAD_BYTES: Final = 64
"""Encryption makes a frame longer by less than this; what is in it is measured exactly after decryption."""
_FRAMES_OUT: Final = 32
"""Frames that libzmq keeps for one peer: as many as there are messages that a receiver may be given at once."""
_FRAMES_IN: Final = 16
"""Frames that it reads ahead of one peer's, each of which may have the largest size."""
_HANDSHAKE_MS: Final = 3_000
"""A connection that hasn't shaken hands by then is closed."""
_BACKLOG: Final = 256
_NOW: Final = int(zmq.NOBLOCK)
_MORE: Final = int(zmq.NOBLOCK | zmq.SNDMORE)
"""As integers: pyzmq's enumerations cost microseconds for each `|` and `&`."""
_EVENTS: Final = int(zmq.EVENTS)
_READABLE: Final = int(zmq.POLLIN)
_USER_ID: Final = b"User-Id"
"""The property of a message that ZAP has given its connection (RFC 27)."""
_FAILED: Final = int(
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)
_EVENT: Final = struct.Struct("=Hi")
"""A number and a value: zmq_socket_monitor(3)."""


class Sockets:
    """The three sockets, bound to `path`, which must be in a private directory and not exist."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], path: str, secret_key: bytes) -> None:
        """Bind; OSError when that can't be."""
        self.zap = context.socket(zmq.REP)
        self.zap.linger = 0
        # First: libzmq looks for the handler when a handshake begins, and refuses all while there is none.
        self.zap.bind("inproc://zeromq.zap.01")
        router = self.router = context.socket(zmq.ROUTER)
        router.curve_server = True
        router.curve_secretkey = secret_key
        router.zap_domain = ZAP_DOMAIN
        # Without a handler a CURVE server takes any key; with this, it takes none.
        router.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
        # An error for a peer that is gone or reads nothing, instead of dropping what is for it.
        router.router_mandatory = True
        router.maxmsgsize = MAX_FRAME_BYTES + _CURVE_OVERHEAD_BYTES
        router.rcvhwm, router.sndhwm = _FRAMES_IN, _FRAMES_OUT
        router.handshake_ivl = _HANDSHAKE_MS
        router.backlog = _BACKLOG
        router.linger = 0
        self.monitor = router.get_monitor_socket(int(zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED) | _FAILED)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)  # of a broker that was killed: libzmq would do the same without a word
        # Nobody else can connect: the directory is private, and the umask takes the rights of others.
        router.bind(f"ipc://{path}")

    def receive(self) -> Incoming | None:
        """Return the next message; None when none waits. What has too many frames is read to its end and forgotten."""
        router = self.router
        try:
            route = router.recv(_NOW)
        except zmq.Again:
            return None
        # Only this one isn't copied: it tells whose it is. A routing id never comes alone (zmq_socket(3), ROUTER).
        body = last = router.recv(_NOW, copy=False)
        try:
            key = body.get(_USER_ID)
        except (zmq.ZMQError, KeyError):
            key = ""
        size_bytes = len(body)
        while last.more:
            last = router.recv(_NOW, copy=False)
            size_bytes += len(last)
        return Incoming(key, route, body, size_bytes, last is body)

    def waits(self) -> bool:
        """Whether a message waits: for less than a vain `receive` costs."""
        return bool(int(self.router.get(_EVENTS)) & _READABLE)

    def descriptor_of(self, incoming: Incoming) -> int:
        """Return over which connection a message came, by libzmq's number for it; -1 where that isn't known."""
        try:
            return int(incoming.body.get(zmq.SRCFD))
        except zmq.ZMQError:
            return -1

    def send(self, route: bytes, frame: bytes) -> bool:
        """Send without waiting; False when the peer has to read first, zmq.ZMQError (EHOSTUNREACH) if there is none."""
        send = self.router.send
        try:
            send(route, _MORE)
            send(frame, _NOW)
        except zmq.Again:
            return False
        return True

    def authenticate(self, peers: Peers) -> None:
        """Answer the handshakes that wait (RFC 27). The User-Id is the key itself, never mistaken for another's."""
        with contextlib.suppress(zmq.Again):
            while True:
                request = self.zap.recv_multipart(zmq.NOBLOCK)
                key = ""
                if len(request) == 7 and request[2] == ZAP_DOMAIN and request[5] == b"CURVE" and len(request[6]) == 32:
                    key = z85.encode(request[6]).decode()
                expected = bool(key) and peers.shake(key)
                verdict = [b"200", b"OK", key.encode()] if expected else [b"400", b"not expected", b""]
                self.zap.send_multipart([b"1.0", request[1] if len(request) > 1 else b"", *verdict, b""])

    def watch(self, peers: Peers) -> None:
        """Note which connections were made and closed, and how many were none, since the last time."""
        with contextlib.suppress(zmq.Again):
            while True:
                event, descriptor = _EVENT.unpack(self.monitor.recv_multipart(zmq.NOBLOCK)[0])
                if event == zmq.EVENT_ACCEPTED:
                    peers.accepted(descriptor)
                elif event & _FAILED:
                    peers.failed += 1
                else:
                    peers.closed(descriptor)

    def close(self) -> None:
        """Close all three."""
        self.router.disable_monitor()
        for socket in (self.monitor, self.router, self.zap):
            socket.close(linger=0)
