"""The supervisor's end of one warden: starts it in the workers' user namespace, hands it listeners, hears its orders.

A duplicate of every listener stays here while its worker lives: if the last holder of a listener died, each file call of
the worker would answer ENOSYS instead of waiting (seccomp_unotify(2)).
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass

from ipc import codec
from ipc.channel import Channel
from ipc.errors import ConfinementError
from ipc.messages import (
    Attach,
    Attached,
    AttachPolicy,
    Detach,
    Detached,
    EndWorker,
    LayerReport,
    WardenReady,
    WardenSetup,
)
from supervisor import memory_file
from supervisor.namespaces import Spawned, isolated_python, spawn

START_TIMEOUT_S = 15.0

WardenMessage = Attached | Detached | EndWorker


@dataclass(slots=True)
class WardenClient:
    """One running warden."""

    channel: Channel
    process: Spawned
    layers: tuple[LayerReport, ...] = ()

    @classmethod
    def start(cls, user_namespace: int | None) -> WardenClient:
        """Start the process; it imports and waits for its setup meanwhile."""
        ours, theirs = Channel.pair()
        descriptor = theirs.fileno()
        process = spawn(
            isolated_python(f"from ipc.warden.shell import main; main({descriptor})"),
            pass_descriptors=(descriptor,),
            join=user_namespace,
        )
        theirs.close()
        return cls(ours, process)

    def set_up(self, setup: WardenSetup) -> None:
        """Tell it whose files it touches, and wait until it has dropped to that identity."""
        try:
            self.channel.send(setup)
            message, _ = self.channel.receive((WardenReady,), START_TIMEOUT_S)
        except (OSError, EOFError) as error:
            raise ConfinementError("warden", "start", getattr(error, "errno", 0) or 0, "the warden did not start") from error
        assert isinstance(message, WardenReady)
        self.layers = message.layers

    def attach(
        self, worker_id: str, pid: int, listener: int, pidfd: int, policy: AttachPolicy, artifact: int
    ) -> None:
        """Hand one worker over; the answer is an `Attached` on the channel."""
        policy_file = memory_file.from_bytes("policy", codec.pack(policy))
        try:
            self.channel.send(Attach(worker_id, pid), (listener, pidfd, policy_file, artifact))
        finally:
            os.close(policy_file)

    def detach(self, worker_id: str) -> None:
        """Say that a worker has ended; the answer is a `Detached` once its counts are in the log."""
        self.channel.send(Detach(worker_id))

    def receive(self, timeout_s: float | None) -> WardenMessage:
        """Return the next message; raises EOFError when the warden is gone."""
        message, _ = self.channel.receive((Attached, Detached, EndWorker), timeout_s)
        assert isinstance(message, Attached | Detached | EndWorker)
        return message

    def close(self) -> None:
        """End it: it leaves when its channel closes; one that doesn't is killed."""
        self.channel.close()
        if not self.process.wait(2.0):
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(2.0)
