"""One process of a provider: what it is told first, its greeting, its log, its end. Only `wait` and `close` wait."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
from typing import Final

from ipc import codec
from ipc.errors import PeerProtocolError
from ipc.provider.launching import ProviderLaunch
from ipc.provider.protocol import AROUND_BYTES, PROTOCOL, FrameReader, Ready, Setup, pack_frame
from supervisor.fleet.provider_settings import ProviderSettings
from supervisor.host.identity import Identity
from supervisor.host.namespaces import ENVIRONMENT, isolated_python, spawn

_CODE: Final = "from ipc.provider.runner import main"
_READ_BYTES: Final = 64 * 1024


class ProviderProcess:
    """A process that was started; `channel` is our end of its socket until it is given away."""

    def __init__(self, provider: ProviderSettings, run_as: Identity) -> None:
        """Start it; raises ConfinementError or OSError."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        errors, their_errors = os.pipe2(os.O_CLOEXEC)
        self.channel: socket.socket | None = ours
        self.errors = errors
        try:
            ours.setblocking(False)
            os.set_blocking(errors, False)
            inherited = (theirs.fileno(), their_errors)
            self._spawned = spawn(isolated_python(f"{_CODE}\nmain({inherited[0]}, {inherited[1]})"), inherited)
        except BaseException:
            ours.close()
            os.close(errors)
            raise
        finally:
            theirs.close()
            os.close(their_errors)
        self._reader = FrameReader(AROUND_BYTES)
        self.out = memoryview(pack_frame(_launch_of(provider, run_as)) + pack_frame(_setup_of(provider)))
        self.write()

    @property
    def pid(self) -> int:
        """Its number."""
        return self._spawned.pid

    @property
    def pidfd(self) -> int:
        """Readable once it has ended."""
        return self._spawned.pidfd

    def write(self) -> None:
        """Send what of the setup is left."""
        try:
            while self.out and self.channel is not None:
                self.out = self.out[self.channel.send(self.out, socket.MSG_NOSIGNAL) :]
        except BlockingIOError:
            pass
        except OSError:
            self.out = memoryview(b"")  # reading tells that it is gone

    def read_greeting(self) -> Ready | None:
        """Return what it says of itself, None while that isn't whole; PeerProtocolError for anything else, or EOF."""
        assert self.channel is not None
        try:
            data = self.channel.recv(_READ_BYTES)
        except BlockingIOError:
            return None
        except OSError:
            data = b""
        if not data:
            raise PeerProtocolError("it closed its output before it was ready")
        frames = self._reader.feed(data)
        if not frames:
            return None
        if len(frames) > 1 or not self._reader.is_between_frames:
            raise PeerProtocolError("it said more than that it is ready")
        return codec.unpack(Ready, frames[0], AROUND_BYTES)

    def give_channel(self) -> socket.socket:
        """Return the channel, which is the caller's from now on."""
        channel, self.channel = self.channel, None
        assert channel is not None
        return channel

    def read_errors(self) -> bytes | None:
        """Return what it printed, b"" at the end of that, None while there is nothing."""
        try:
            return os.read(self.errors, _READ_BYTES)
        except BlockingIOError:
            return None

    def kill(self) -> None:
        """Kill it and what it started in its session."""
        self._spawned.send_signal(signal.SIGKILL)
        if self._spawned.wait_status is None:
            # It is not waited for yet, so the number is its own.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._spawned.pid, signal.SIGKILL)

    def wait(self, timeout_s: float) -> bool:
        """Wait until it has ended; False when the time was over first. It isn't reaped: its group keeps its number."""
        if self._spawned.wait_status is not None:
            return True
        poller = select.poll()
        poller.register(self.pidfd, select.POLLIN)
        return bool(poller.poll(timeout_s * 1000))

    def ended(self) -> str | None:
        """Return how it ended, in words; None while it lives. What it left behind is killed."""
        if not self.wait(0):
            return None
        self.kill()
        self._spawned.wait(0)
        code = os.waitstatus_to_exitcode(self._spawned.wait_status or 0)
        words = self._spawned.last_words().splitlines()
        how = f"it was ended by signal {-code}" if code < 0 else f"it ended with {code}"
        return f"{how}: {words[-1]}" if words else how

    def close(self) -> None:
        """Kill it where it lives, wait for that, and close everything."""
        self.kill()
        self._spawned.wait(2)
        if self.channel is not None:
            self.channel.close()
            self.channel = None
        os.close(self.errors)
        self._spawned.close()


def _launch_of(provider: ProviderSettings, run_as: Identity) -> ProviderLaunch:
    module, _, function = provider.python.partition(":")
    return ProviderLaunch(
        uid=run_as.uid,
        gid=run_as.gid,
        groups=run_as.groups,
        parent_pid=os.getpid(),
        memory_bytes=provider.memory_bytes,
        environment={**ENVIRONMENT, **dict(provider.environment)},
        command=provider.command,
        module=module,
        function=function,
        path=provider.path,
    )


def _setup_of(provider: ProviderSettings) -> Setup:
    return Setup(PROTOCOL, provider.name, dict(provider.settings), provider.max_payload_bytes)
