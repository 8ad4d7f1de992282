"""The socket of a producer's audit stream: ZeroMQ's DEALER with CURVE (RFC 26), whoever uses it at the moment.

A socket of ZeroMQ's may go from one thread to another where a lock is between the two (zmq_socket(3), "Thread safety"):
`ipc.audit.stream` keeps to that. `wake` alone may be called by anybody.
"""

from __future__ import annotations

import contextlib
import os

import zmq

from ipc.audit.protocol import MAX_FRAME_BYTES


class Dealer:
    """A connection that makes itself anew; only what was sent over the one before is lost."""

    def __init__(self, endpoint: str, server_key: bytes, public_key: bytes, secret_key: bytes) -> None:
        """Begin to connect to `endpoint` (ipc://…) with Z85 CURVE keys (RFC 32)."""
        self._endpoint = endpoint
        self._keys = (server_key, public_key, secret_key)
        self._wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._context = zmq.Context()
        # The context's threads start with its first socket: made here, so that a sandbox may be closed behind us.
        self._connect()

    def _connect(self) -> None:
        dealer: zmq.Socket[bytes] = self._context.socket(zmq.DEALER)
        dealer.curve_serverkey, dealer.curve_publickey, dealer.curve_secretkey = self._keys
        dealer.zap_domain = b"airssys.audit.client"
        dealer.linger = 0
        dealer.immediate = True  # queue to a live connection only: what waits, waits with us
        dealer.sndhwm = 64
        dealer.rcvhwm = 256
        dealer.maxmsgsize = MAX_FRAME_BYTES
        dealer.reconnect_ivl = 10
        dealer.reconnect_ivl_max = 500
        # Read by who leads. Until somebody does it keeps one event a connection, and has room for a thousand.
        monitor: zmq.Socket[bytes] = dealer.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
        dealer.connect(self._endpoint)
        self._socket, self._monitor = dealer, monitor
        self._poller = zmq.Poller()
        self._poller.register(self._wake_fd, zmq.POLLIN)
        self._poller.register(monitor, zmq.POLLIN)
        self._poller.register(dealer, zmq.POLLIN)
        self._blocked = False

    def connect_anew(self) -> None:
        """Give the connection up for another: libzmq does so for good when its key is refused."""
        self._disconnect()
        self._connect()

    def _disconnect(self) -> None:
        self._socket.disable_monitor()
        self._monitor.close(linger=0)
        self._socket.close(linger=0)

    def close(self) -> None:
        """Disconnect."""
        self._disconnect()
        self._context.destroy(linger=0)
        os.close(self._wake_fd)

    def wake(self) -> None:
        """Let `wait` return, in whichever thread it is, or the next time."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_write(self._wake_fd, 1)

    def wait(self, timeout_ms: int, blocked: bool) -> tuple[bool, bool]:
        """Wait for answers, for a connection, and if `blocked` until something can be sent; 0 returns at once.

        Returns whether there are answers, and whether the connection is a new one.
        """
        if blocked is not self._blocked:
            self._poller.modify(self._socket, zmq.POLLIN | zmq.POLLOUT if blocked else zmq.POLLIN)
            self._blocked = blocked
        ready = dict(self._poller.poll(timeout_ms))
        if self._wake_fd in ready:
            os.eventfd_read(self._wake_fd)
        new = self._monitor in ready
        if new:
            while self._monitor.poll(0):
                self._monitor.recv_multipart(zmq.NOBLOCK)
        return self._socket in ready, new

    def send(self, frame: bytes) -> bool:
        """Send a frame; False when there is no connection, or it takes no more for now."""
        try:
            self._socket.send(frame, zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def receive(self) -> bytes | None:
        """Return the next answer, None when there is none."""
        try:
            return self._socket.recv(zmq.NOBLOCK)
        except zmq.Again:
            return None
