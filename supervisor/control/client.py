"""Asking a running supervisor: which one, over its control socket, and what it answers."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Final

from ipc.channel import Channel
from ipc.errors import ConfigError, PeerProtocolError
from ipc.struct import Struct
from supervisor.config.settings_files import default_directories
from supervisor.control.messages import ANSWERS, Done, NotDone, Part, Request
from supervisor.terminal import visible

DIRECTORY: Final = ".airssys"
"""Where `airssys up` keeps its state, in the working directory, unless it is told otherwise."""
SOCKET_NAME: Final = "control.sock"
ANSWER_WITHIN_S: Final = 10.0
_CREDENTIALS: Final = struct.Struct("iII")


class NobodyAnswersError(ConfigError):
    """There is no supervisor to ask."""

    exit_code: ClassVar[int] = 69  # EX_UNAVAILABLE


class BusyThereError(NobodyAnswersError):
    """There is one, and it can't answer at the moment."""


class NotPermittedError(ConfigError):
    """There is one, and we may not ask it, or not this."""

    exit_code: ClassVar[int] = 77  # EX_NOPERM


class Address(Struct, frozen=True):
    """A control socket, and how it was found; `trusted`: it was named, so whoever listens there is meant."""

    path: str
    found_by: str
    trusted: bool


def find_socket(named: str | None, state: str | None, environment: Mapping[str, str], cwd: str) -> Address:
    """Return the socket to ask: the one that is named, else the nearest upwards, else the system's.

    `named` is `--socket`, `state` is `--state-dir`.
    """
    if named:
        return Address(os.path.abspath(named), "--socket", trusted=True)
    if environment.get("AIRSSYS_SOCKET"):
        return Address(os.path.abspath(environment["AIRSSYS_SOCKET"]), "$AIRSSYS_SOCKET", trusted=True)
    if state:
        return Address(os.path.join(os.path.abspath(state), SOCKET_NAME), "--state-dir", trusted=True)
    if environment.get("AIRSSYS_STATE"):
        path = os.path.join(os.path.abspath(environment["AIRSSYS_STATE"]), SOCKET_NAME)
        return Address(path, "$AIRSSYS_STATE", trusted=True)
    directory = cwd
    while True:
        state_directory = os.path.join(directory, DIRECTORY)
        if os.path.lexists(state_directory):
            # Also where nobody listens any more: the logs are still there.
            path = os.path.join(state_directory, SOCKET_NAME)
            return Address(path, f"the nearest {DIRECTORY} upwards", trusted=False)
        if directory == os.path.dirname(directory):
            break
        directory = os.path.dirname(directory)
    system = os.path.join(default_directories(environment, 0).state, SOCKET_NAME)
    return Address(system, "the system's", trusted=False)


class ControlClient:
    """A connection to one supervisor. Use as a context manager."""

    def __init__(self, address: Address) -> None:
        """Connect; raises NobodyAnswersError or NotPermittedError."""
        self.address = address
        self._channel = _connect(address)

    def __enter__(self) -> ControlClient:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()

    def fileno(self) -> int:
        """Return the descriptor: readable when something was said, or the supervisor has ended."""
        return self._channel.fileno()

    def ask(
        self, request: Request, descriptors: Sequence[int] = (), within_s: float | None = ANSWER_WITHIN_S
    ) -> Iterator[tuple[Part, list[int]]]:
        """Yield the parts of the answer; raises ConfigError where there is none. Descriptors are the caller's."""
        # Who turns us away says so before it is asked: then this fails, and the reason is read below.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._channel.send(request, descriptors)
        while True:
            try:
                message, received = self._channel.receive(ANSWERS, within_s)
            except TimeoutError:
                raise NobodyAnswersError(
                    f"the supervisor at {visible(self.address.path)} doesn't answer",
                    hint="it may be stopped, or its disk hangs: look at its terminal",
                ) from None
            except (EOFError, OSError, PeerProtocolError):
                raise NobodyAnswersError(
                    f"the supervisor at {visible(self.address.path)} has ended", hint="start it again: airssys up DIR"
                ) from None
            if isinstance(message, Done):
                return
            if isinstance(message, NotDone):
                raise not_done_error(message)
            assert isinstance(message, Part)
            yield message, received


def not_done_error(answer: NotDone) -> ConfigError:
    """Return the error that an answer stands for."""
    kinds: dict[str, type[ConfigError]] = {
        "refused": NotPermittedError,
        "unavailable": NobodyAnswersError,
        "busy": BusyThereError,
    }
    return kinds.get(answer.kind, ConfigError)(answer.message, hint=answer.hint or None)


def _connect(address: Address) -> Channel:
    directory, name = os.path.split(address.path)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    try:
        held = os.open(directory or "/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # By way of the descriptor, a path may be longer than a socket's name (unix(7): 108 bytes).
            connection.connect(f"/proc/self/fd/{held}/{name}")
        finally:
            os.close(held)
        uid = _CREDENTIALS.unpack(
            connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size),
        )[1]
    except OSError as error:
        connection.close()
        if isinstance(error, PermissionError):
            raise NotPermittedError(
                f"{visible(address.path)}: this user may not ask that supervisor",
                hint="its operator says who may, in [control] of airssys.toml; or name another one with --socket",
            ) from None
        if isinstance(error, (FileNotFoundError, NotADirectoryError, ConnectionRefusedError)):
            raise NobodyAnswersError(
                f"no supervisor runs at {visible(address.path)} ({address.found_by})",
                hint="start one: airssys up DIR (for approvals alone: airssys approvals serve), or name one: --socket",
            ) from None
        raise NobodyAnswersError(
            f"{visible(address.path)}: {os.strerror(error.errno or 0)}", hint="name another one with --socket"
        ) from None
    if not address.trusted and uid not in (0, os.getuid()):
        connection.close()
        # A directory that everybody may write to can hold anybody's: what is found is not yet what was meant.
        raise NotPermittedError(
            f"{visible(address.path)} belongs to uid {uid}, and was found, not named",
            hint=f"if that one is meant: --socket {visible(address.path)}",
        )
    return Channel(connection)
