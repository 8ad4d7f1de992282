"""The way to the broker: one for all workers of a warden, and what each of them was given through it.

A worker never connects: the warden does, after it has announced the worker to the broker, so that its key may shake
hands once. A worker holds one connection at a time, and none but to the broker.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
import time
from typing import Final

from ipc.broker.announcing import Connecting, Expected
from ipc.channel import Channel
from ipc.errors import PeerProtocolError

_ANSWER_TIMEOUT_S: Final = 1.0
_INTERVAL_NS: Final = 5_000_000
"""A worker that comes back sooner waits: it can't keep the broker busy with connections that it drops."""


class _Broker:
    """One broker: where it listens, and the channel on which it is asked whether it expects a worker."""

    __slots__ = ("_channel", "_lock", "_path", "_unheard")

    def __init__(self, path: str, channel: Channel) -> None:
        self._path = path
        self._channel = channel
        self._lock = threading.Lock()
        self._unheard = 0
        """Answers that are still to come: one that came too late must not be taken for another worker's."""

    def connect(self, worker_id: str) -> socket.socket | None:
        if not self._is_expected(worker_id):
            return None
        endpoint = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        try:
            endpoint.connect(self._path)
        except OSError:  # it is gone, or more wait at its door than it lets in
            endpoint.close()
            return None
        return endpoint

    def _is_expected(self, worker_id: str) -> bool:
        with self._lock:
            try:
                self._channel.send(Connecting(worker_id))
                self._unheard += 1
                while True:
                    answer, _ = self._channel.receive((Expected,), _ANSWER_TIMEOUT_S)
                    self._unheard -= 1
                    if not self._unheard:
                        break
            except (OSError, EOFError, PeerProtocolError):  # a timeout is an OSError too
                return False
        assert isinstance(answer, Expected)
        return answer.allowed and answer.instance == worker_id

    def close(self) -> None:
        # Who waits for its answer is woken first.
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(self._channel.fileno())) as end:
            end.shutdown(socket.SHUT_RDWR)
        with self._lock:
            self._channel.close()


class BrokerDoor:
    """Where the broker is now; used by every lane."""

    __slots__ = ("_broker",)

    def __init__(self) -> None:
        """There is none yet."""
        self._broker: _Broker | None = None

    def lead_to(self, path: str, channel: Channel) -> None:
        """Lead to this one from here on; its channel belongs to the door."""
        before, self._broker = self._broker, _Broker(path, channel)
        if before is not None:
            before.close()

    def connect(self, worker_id: str) -> socket.socket | None:
        """Announce the worker and connect; None while the broker is away, or does not expect it."""
        broker = self._broker
        return None if broker is None else broker.connect(worker_id)


class Connection:
    """What one worker was given; used by one thread."""

    __slots__ = ("_connected", "_door", "_inode", "_next_ns", "_number", "_worker_id")

    def __init__(self, door: BrokerDoor, worker_id: str) -> None:
        """Nothing has been given yet."""
        self._door = door
        self._worker_id = worker_id
        self._number = -1
        self._inode = 0
        self._next_ns = 0
        self._connected = False

    def open(self) -> socket.socket:
        """Return a socket for the worker: connected, or a dead one, of which `accept` says that nobody listens."""
        time.sleep(max(0, self._next_ns - time.monotonic_ns()) / 1e9)
        endpoint = self._door.connect(self._worker_id)
        self._next_ns = time.monotonic_ns() + _INTERVAL_NS
        self._connected = endpoint is not None
        if endpoint is None:
            endpoint, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            other.close()
        endpoint.setblocking(False)
        self._number = -1
        self._inode = os.fstat(endpoint.fileno()).st_ino
        return endpoint

    def given(self, number: int) -> None:
        """The worker has got it, as this number of its own."""
        self._number = number

    def take_over(self, number: int, endpoint: int) -> None:
        """Know what a warden before this one has given; `endpoint` is a duplicate of the worker's `number`."""
        with socket.socket(fileno=os.dup(endpoint)) as found:
            if (found.family, found.type) != (socket.AF_UNIX, socket.SOCK_STREAM):
                return  # its channel: the one socket that it holds and that no warden gave
        self._number = number
        self._inode = os.fstat(endpoint).st_ino
        self._connected = self.is_at(endpoint)

    @property
    def number(self) -> int:
        """The worker's descriptor that it was given last; -1 when it got none."""
        return self._number

    def is_at(self, endpoint: int) -> bool:
        """Whether this duplicate of the worker's `number` is what it was given, and somebody is at the other end."""
        if os.fstat(endpoint).st_ino != self._inode:
            return False
        poll = select.poll()
        poll.register(endpoint, 0)  # POLLHUP is always told
        return not poll.poll(0)

    def take_connected(self) -> bool:
        """Whether the socket given last was connected; said once."""
        connected, self._connected = self._connected, False
        return connected
