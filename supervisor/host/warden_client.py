"""The supervisor's end of one warden: tells it who it is, hands it listeners, hears its orders.

A duplicate of every listener stays here while its worker lives: if the last holder of a listener died, each file call
of the worker would answer ENOSYS instead of waiting (seccomp_unotify(2)).
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Sequence
from typing import get_args

from ipc import codec, memory_file
from ipc.channel import Channel
from ipc.errors import ConfinementError
from ipc.messages import (
    Attach,
    Attached,
    Detach,
    Detached,
    EndWorker,
    LayerReport,
    NewPolicy,
    Prepare,
    PreparePolicy,
    Question,
    Reply,
    StorageExceeded,
    StorageMeasured,
    UseBroker,
    WardenReady,
    WardenSetup,
)
from supervisor.host.processes import WardenProcess

START_TIMEOUT_S = 15.0
_SEND_WITHIN = struct.pack("ll", 1, 0)
"""A struct timeval (socket(7)): a warden that takes nothing for a second is ended, and met as one that has died."""

AboutWorker = Attached | Detached | EndWorker | Question | StorageExceeded | StorageMeasured
WardenMessage = AboutWorker | WardenReady


class WardenStartError(ConfinementError):
    """The warden was not there when a component was to start, so nothing was run."""

    hint = (
        "nothing was run; start it again. If it happens again: `dmesg` names what the kernel killed for want of "
        "memory, `airssys doctor` what is missing here"
    )

    def __init__(self, how: str) -> None:
        """Say how it failed, as what follows its name."""
        super().__init__("warden", "start", 0, how, words=f"the warden, the process that decides file calls, {how}")


class WardenClient:
    """One running warden; who started its process also ends it."""

    __slots__ = ("_process", "_ready", "channel", "layers", "pid")

    def __init__(self, started: WardenProcess) -> None:
        """Speak with a warden that was started."""
        started.endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _SEND_WITHIN)
        self._process = started
        self.channel = Channel(started.endpoint)
        self.pid = started.process.pid
        self.layers: tuple[LayerReport, ...] = ()
        self._ready = False

    def set_up(self, setup: WardenSetup) -> None:
        """Tell it whose files it touches; `wait_ready` must follow."""
        # One that is gone already is met as the end of its channel.
        with contextlib.suppress(OSError):
            self._send(setup)

    @property
    def is_ready(self) -> bool:
        """Whether it has said so: it will not say it again."""
        return self._ready

    def wait_ready(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Wait until it has dropped to its identity and its audit stream has been acknowledged; once is enough.

        Raises WardenStartError.
        """
        if self._ready:
            return
        try:
            message, _ = self.channel.receive((WardenReady,), timeout_s)
        except TimeoutError:
            raise WardenStartError(f"did not get ready within {START_TIMEOUT_S:g} s") from None
        except (OSError, EOFError):
            raise WardenStartError("ended before it was ready") from None
        assert isinstance(message, WardenReady)
        self._take(message)

    def prepare(self, worker_id: str, policy: PreparePolicy, artifact: int | None) -> None:
        """Have it read a policy and hold its roots while the worker is being started; nothing is answered.

        `artifact` is None for a worker that has loaded its code.
        """
        policy_file = memory_file.from_bytes("policy", codec.pack(policy))
        try:
            files = (policy_file,) if artifact is None else (policy_file, artifact)
            self._send(Prepare(worker_id), files)
        finally:
            os.close(policy_file)

    def use_broker(self, socket_path: str, channel: int) -> None:
        """Tell it of a broker that listens, and the channel on which it announces connections there."""
        self._send(UseBroker(socket_path), (channel,))

    def attach(self, worker_id: str, listener: int, pidfd: int, mark: int) -> None:
        """Hand a prepared worker over, and its `ipc.hand_over` mark; the answer is an `Attached` on the channel."""
        self._send(Attach(worker_id), (listener, pidfd, mark))

    def reply(self, worker_id: str, policy: NewPolicy | None, last: bool) -> None:
        """Answer a Question: decide again by `policy`, or refuse; after the `last` reply nothing more is asked."""
        if policy is None:
            self._send(Reply(worker_id, last))
            return
        policy_file = memory_file.from_bytes("policy", codec.pack(policy))
        try:
            self._send(Reply(worker_id, last), (policy_file,))
        finally:
            os.close(policy_file)

    def detach(self, worker_id: str) -> None:
        """Say that a prepared worker has ended; the answer is a `Detached` once its counts are in the log."""
        self._send(Detach(worker_id))

    def receive(self, timeout_s: float | None) -> WardenMessage:
        """Return the next message; raises EOFError when the warden is gone.

        The first of a warden that was not waited for is `WardenReady`.
        """
        allowed = get_args(AboutWorker) if self._ready else (WardenReady,)
        message, _ = self.channel.receive(allowed, timeout_s)
        assert isinstance(message, WardenMessage)
        if isinstance(message, WardenReady):
            self._take(message)
        return message

    def _send(self, message: object, files: Sequence[int] = ()) -> None:
        try:
            self.channel.send(message, files)
        except BlockingIOError:
            # Stopped, or stuck: whoever waits here has other workers to see to. Its end is met as that of its channel.
            self._process.see_gone()
            raise BrokenPipeError("the warden takes nothing any more; it was ended") from None

    def _take(self, ready: WardenReady) -> None:
        self.layers = ready.layers
        self._ready = True
