"""The control socket: who asks is told by the kernel, what they may ask by a table, and nobody can hold it up.

Every answer goes into a bounded queue and is written when its reader reads; a reader that doesn't is dropped. Nothing
that a client sends is waited for.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Protocol

from ipc.channel import Channel
from ipc.errors import ConfigError, PeerProtocolError
from ipc.struct import Struct
from supervisor.control.messages import REQUESTS, Done, Ending, NotDone, Part, Request, Role, may_ask
from supervisor.control.roles import Peer, Roles
from supervisor.event_loop import READ, WRITE, EventLoop, Interest

Clock = Callable[[], int]

SOCKET_NAME: Final = "control.sock"
KEY: Final = "control"
CLIENTS_MAX: Final = 64
CLIENTS_PER_USER_MAX: Final = 24
FIRST_REQUEST_WITHIN_NS: Final = 5 * 10**9
"""Who connects and asks nothing makes room for others."""
QUEUED_MAX: Final = 8_192
"""Parts of answers that wait for one reader: more than there can be components."""
UNREAD_WITHIN_NS: Final = 10 * 10**9
"""Who has not read a waiting answer for so long is dropped."""
_SO_PEERGROUPS: Final = 59
_CREDENTIALS: Final = struct.Struct("iII")


class Desk(Protocol):
    """Who answers requests that may be asked; through the client, now or later."""

    def answer(self, request: Request, descriptors: Sequence[int], client: Client) -> None:
        """Answer; the descriptors are closed by the caller."""

    def forget(self, client: Client) -> None:
        """Nobody waits for what this client has asked any more."""

    def refused(self, what: str, peer: Peer) -> None:
        """Learn that somebody asked for what they may not."""


class _Queued(Struct):
    message: Part | Ending
    descriptors: tuple[int, ...]


class Client:
    """One connection, as a source of the event loop."""

    __slots__ = ("_channel", "_control", "_ending", "_queue", "_since_ns", "busy", "key", "peer", "role")

    def __init__(self, control: Control, key: str, channel: Channel, peer: Peer, role: Role, now_ns: int) -> None:
        """Take over a connection that was accepted; its socket doesn't block."""
        self._control = control
        self._channel = channel
        self._queue: deque[_Queued] = deque()
        self._ending = False
        self._since_ns = now_ns
        self.key = key
        self.peer = peer
        self.role = role
        self.busy = False

    @property
    def has_unsent(self) -> bool:
        """Whether something waits to be written."""
        return bool(self._queue)

    # -- answering -----------------------------------------------------------------------------------------------------

    def part(self, message: Part, descriptors: Sequence[int] = ()) -> None:
        """Send a part of the answer; takes the descriptors over."""
        self._put(message, descriptors)

    def done(self) -> None:
        """End the answer."""
        self.busy = False
        self._put(Done(), ())

    def not_done(self, kind: str, message: str, hint: str = "") -> None:
        """End the answer with the reason why there is none."""
        self.busy = False
        self._put(NotDone(kind, message, hint), ())

    def turn_away(self, kind: str, message: str, hint: str = "") -> None:
        """Say why nothing is taken from this client, and close."""
        self.not_done(kind, message, hint)
        self._ending = True

    def _put(self, message: Part | Ending, descriptors: Sequence[int]) -> None:
        if len(self._queue) >= QUEUED_MAX:
            for descriptor in descriptors:
                os.close(descriptor)
            self._control.drop(self)
            return
        if not self._queue:
            self._since_ns = self._control.now_ns()
        self._queue.append(_Queued(message, tuple(descriptors)))
        self._control.touch(self)

    # -- as a source ---------------------------------------------------------------------------------------------------

    def interests(self) -> Iterator[Interest]:
        """Yield what to wait for now."""
        if not self._ending:
            yield Interest(self._channel.fileno(), READ, self._read)
        if self._queue:
            yield Interest(self._channel.fileno(), WRITE, self._write)

    def next_ns(self) -> int:
        """Return when its patience with this client ends."""
        if self._queue:
            return self._since_ns + UNREAD_WITHIN_NS
        return 0 if self.busy or not self._since_ns else self._since_ns + FIRST_REQUEST_WITHIN_NS

    def tick(self, now_ns: int) -> None:
        """Drop it where it doesn't read, or asks nothing; close it where all was said."""
        due_ns = self.next_ns()
        if (self._ending and not self._queue) or 0 < due_ns <= now_ns:
            self._control.drop(self)

    def _read(self) -> None:
        try:
            request, descriptors = self._channel.receive(REQUESTS)
        except BlockingIOError:
            return
        except (EOFError, OSError, PeerProtocolError):
            self._control.drop(self)
            return
        try:
            if self.busy:
                # One after the other: a second one before the first was answered is nobody's who keeps to this.
                self._control.drop(self)
                return
            assert isinstance(request, Request)
            self._since_ns = 0
            self.busy = True
            self._control.ask(self, request, descriptors)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _write(self) -> None:
        while self._queue:
            queued = self._queue[0]
            try:
                self._channel.send(queued.message, queued.descriptors)
            except BlockingIOError:
                return
            except OSError:
                self._control.drop(self)
                return
            self._queue.popleft()
            for descriptor in queued.descriptors:
                os.close(descriptor)
        self._since_ns = 0

    def close(self) -> None:
        """Close the connection and whatever was to be sent."""
        self._channel.close()
        for queued in self._queue:
            for descriptor in queued.descriptors:
                os.close(descriptor)
        self._queue.clear()


class Control:
    """The listening socket and its clients. `now_ns` is the monotonic clock."""

    def __init__(self, listener: socket.socket, roles: Roles, desk: Desk, loop: EventLoop, clock: Clock) -> None:
        """Listen on a bound socket, which it takes over; `start` begins."""
        self._listener = listener
        self._roles = roles
        self._desk = desk
        self._loop = loop
        self._clock = clock
        self._clients: dict[str, Client] = {}
        self._count = 0

    def start(self) -> None:
        """Take clients from now on."""
        self._listener.listen(CLIENTS_MAX)
        self._listener.setblocking(False)
        self._loop.add(KEY, self)

    def close(self) -> None:
        """Close every connection, and listen no longer."""
        for client in tuple(self._clients.values()):
            self.drop(client)
        self._loop.remove(KEY)
        self._listener.close()

    def interests(self) -> Iterator[Interest]:
        """Yield what to wait for now."""
        yield Interest(self._listener.fileno(), READ, self._accept)

    def next_ns(self) -> int:
        """Nothing of it has a time."""
        return 0

    def tick(self, now_ns: int) -> None:
        """Do nothing: what is due is due for a client."""

    @property
    def has_unsent(self) -> bool:
        """Whether something that was answered has not been written yet."""
        return any(client.has_unsent for client in self._clients.values())

    def now_ns(self) -> int:
        """Return the time."""
        return self._clock()

    def touch(self, client: Client) -> None:
        """Have the loop ask a client what it waits for."""
        self._loop.touch(client.key)

    def drop(self, client: Client) -> None:
        """Close a connection; what it waited for is forgotten."""
        if self._clients.pop(client.key, None) is None:
            return
        self._desk.forget(client)
        self._loop.remove(client.key)
        client.close()

    def ask(self, client: Client, request: Request, descriptors: Sequence[int]) -> None:
        """Have a request answered, if this client may ask it."""
        if not may_ask(client.role, type(request)):
            what = type(request).__name__
            self._desk.refused(what, client.peer)
            least = next(role for role in Role if may_ask(role, type(request)))
            client.not_done(
                "refused",
                f"uid {client.peer.uid} is {_article(client.role)} here, and this takes {_article(least)}",
                f"who is what: [control] {least.name.lower()}s in airssys.toml",
            )
            return
        self._desk.answer(request, descriptors, client)

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:  # it went away again; or there is no descriptor left, and the next one may find one
            return
        try:
            connection.setblocking(False)
            peer = peer_of(connection)
        except OSError:
            connection.close()
            return
        role = self._roles.role_of(peer)
        self._count += 1
        client = Client(self, f"{KEY}:{self._count}", Channel(connection), peer, role, self._clock())
        same = sum(1 for each in self._clients.values() if each.peer.uid == peer.uid)
        full = len(self._clients) >= CLIENTS_MAX or same >= CLIENTS_PER_USER_MAX
        if full and len(self._clients) >= 2 * CLIENTS_MAX:
            client.close()
            return
        self._clients[client.key] = client
        self._loop.add(client.key, client)
        if role is Role.NOBODY:
            self._desk.refused("connect", peer)
            client.turn_away(
                "refused",
                f"uid {peer.uid} may ask nothing of this supervisor",
                "its operator says who may, in [control] of airssys.toml",
            )
        elif full:
            client.turn_away("busy", "too many clients are connected", "try again, or end one: airssys logs -f is one")


def _article(role: Role) -> str:
    word = role.name.lower()
    return f"an {word}" if word[0] in "aeiou" else f"a {word}"


def peer_of(connection: socket.socket) -> Peer:
    """Return who has connected, as the kernel knows it (unix(7): SO_PEERCRED; SO_PEERGROUPS)."""
    data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, gid = _CREDENTIALS.unpack(data)
    try:
        # As many as Python asks for; of who is in more groups only the first counts, which can only take rights away.
        groups = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, 1024)
    except OSError:
        groups = b""
    return Peer(pid, uid, frozenset((gid, *(each for (each,) in struct.iter_unpack("I", groups)))))


def bind_control_socket(directory: str, roles: Roles) -> socket.socket:
    """Bind the socket in a directory of ours, in the place of one that nobody listens on any more.

    The caller holds the directory's lock. The kernel lets those connect who may write to the socket; who may what is
    decided by who they are. Where only we are named, or one group, it is for those alone.
    """
    held = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    try:
        # By way of the descriptor, a path may be longer than a socket's name (unix(7): 108 bytes).
        path = f"/proc/self/fd/{held}/{SOCKET_NAME}"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(SOCKET_NAME, dir_fd=held)
        listener.bind(path)
        # Until it listens nobody can connect.
        os.chmod(path, roles.socket_mode)
        if roles.socket_group is not None:
            os.chown(path, -1, roles.socket_group)
        if roles.others:
            os.chmod(directory, 0o711)  # noqa: S103 # passed through by those who are named; nobody but us lists it
        return listener
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"{directory}/{SOCKET_NAME}: {os.strerror(error.errno or 0)}",
            hint="name a directory on a local file system for the state: --state-dir DIR",
        ) from None
    finally:
        os.close(held)
