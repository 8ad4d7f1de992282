"""A message channel between two of our processes: AF_UNIX SOCK_SEQPACKET, one tagged msgpack map a packet.

Packets keep their boundaries (unix(7)), so no framing is parsed. Descriptors travel beside a packet as SCM_RIGHTS and
belong to the receiver.
"""

from __future__ import annotations

import array
import os
import select
import socket
import typing

from ipc.codec import MAX_PACKET_BYTES, pack_tagged, unpack_tagged
from ipc.errors import LocalProtocolError, PeerProtocolError

MAX_DESCRIPTORS = 8
_ANCILLARY_BYTES = socket.CMSG_LEN(MAX_DESCRIPTORS * array.array("i").itemsize)


class Channel:
    """One end of a SEQPACKET pair; owns its socket."""

    __slots__ = ("_socket",)

    def __init__(self, endpoint: socket.socket) -> None:
        """Take over a connected SEQPACKET socket."""
        self._socket = endpoint

    @classmethod
    def pair(cls) -> tuple[Channel, Channel]:
        """Make two connected ends; both are close-on-exec."""
        left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(left), cls(right)

    @classmethod
    def from_descriptor(cls, descriptor: int) -> Channel:
        """Take over an inherited descriptor."""
        return cls(socket.socket(fileno=descriptor))

    def fileno(self) -> int:
        """Return the descriptor, for poll(2)."""
        return self._socket.fileno()

    def send(self, message: object, descriptors: typing.Sequence[int] = ()) -> None:
        """Send one message; raises BrokenPipeError or ConnectionResetError when the peer is gone."""
        data = _packed(message)
        if descriptors:
            socket.send_fds(self._socket, [data], list(descriptors), socket.MSG_NOSIGNAL)
        else:
            self._socket.send(data, socket.MSG_NOSIGNAL)

    def receive(self, allowed: typing.Iterable[type], timeout_s: float | None = None) -> tuple[object, list[int]]:
        """Wait for one message of the `allowed` types, with the descriptors that came along.

        Raises EOFError when the peer closed, TimeoutError, or PeerProtocolError for anything else.
        """
        # Not settimeout: it sets O_NONBLOCK, which `send`, `read` and `write` would then meet too.
        if timeout_s is not None and not _readable(self._socket.fileno(), timeout_s):
            raise TimeoutError(f"no message within {timeout_s:g} s")
        data, ancillary, flags, _ = self._socket.recvmsg(
            MAX_PACKET_BYTES + 1, _ANCILLARY_BYTES, socket.MSG_CMSG_CLOEXEC
        )
        descriptors = _descriptors(ancillary)
        try:
            if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
                raise PeerProtocolError("packet: larger than a packet may be")
            if not data:
                raise EOFError("peer closed the channel")
            return unpack_tagged(allowed, data), descriptors
        except BaseException:
            for descriptor in descriptors:
                os.close(descriptor)
            raise

    def write(self, message: object) -> None:
        """Send by write(2): for a sealed worker, whose filter has no sendmsg(2)."""
        os.write(self._socket.fileno(), _packed(message))

    def read(self, allowed: typing.Iterable[type]) -> object:
        """Wait by read(2) for one message: for a sealed worker, whose filter has no recvmsg(2)."""
        data = os.read(self._socket.fileno(), MAX_PACKET_BYTES + 1)
        if not data:
            raise EOFError("peer closed the channel")
        return unpack_tagged(allowed, data)

    def detach(self) -> int:
        """Give the descriptor away."""
        return self._socket.detach()

    def close(self) -> None:
        """Close this end."""
        self._socket.close()


def _packed(message: object) -> bytes:
    data = pack_tagged(message)
    if len(data) > MAX_PACKET_BYTES:
        raise LocalProtocolError(f"{type(message).__name__} is {len(data)} bytes, a packet holds {MAX_PACKET_BYTES}")
    return data


def _readable(descriptor: int, timeout_s: float) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(timeout_s * 1000))


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    # Not socket.recv_fds: Python 3.11's ignores its flags, and the descriptors would be inherited by what we exec.
    numbers = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            numbers.frombytes(data[: len(data) - len(data) % numbers.itemsize])
    return numbers.tolist()
