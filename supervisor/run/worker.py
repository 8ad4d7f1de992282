"""One run's side of its worker: the two channels, the process by its pidfd, and the kill."""

from __future__ import annotations

import contextlib
import os
import signal

from ipc.errors import PeerProtocolError
from ipc.messages import (
    Confined,
    ConfinementPlan,
    Ended,
    Finished,
    Go,
    LayerReport,
    Sealed,
    Spawned,
    StartFailed,
    Stop,
    WorkerJob,
)
from ipc.struct import Struct
from supervisor.host.launch import Launched
from supervisor.host.verify import Expected, verify_and_bound
from supervisor.run import watch
from supervisor.run.events import Happened, protocol_broken, worker_said
from supervisor.run.machine import Event
from supervisor.run.verdict import Facts


class RunWorker(Struct):
    """What one run has of its worker. What the worker says of itself is a claim; the keeper's word counts."""

    job: WorkerJob
    plan: ConfinementPlan
    launched: Launched
    artifact: int
    expected: Expected
    pid: int = 0
    pidfd: int = -1
    lost: bool = False
    kill_sent: bool = False
    layers: tuple[LayerReport, ...] = ()
    claimed_peak_bytes: int = 0
    memory_bound_bytes: int = 0
    """What it may hold once it runs, as `watch.read_usage` counts."""
    own_memory_bytes: int = 0
    """What it held before its component ran, counted likewise."""
    _said_go: bool = False
    _seen_cpu_ns: int = -watch.IDLE_CPU_NS
    _seldom_ns: int = 0

    def receive_from_keeper(self) -> Spawned | Ended | None:
        """Take the keeper's next word; None when it is gone."""
        try:
            message, descriptors = self.launched.keeper.receive((Spawned, Ended))
        except (EOFError, OSError):
            return None
        for descriptor in descriptors:
            os.close(descriptor)
        if isinstance(message, Spawned):
            self.pid = message.pid
            with contextlib.suppress(ProcessLookupError):  # it has ended and been reaped: its keeper's next word
                self.pidfd = os.pidfd_open(message.pid)
            return message
        assert isinstance(message, Ended)
        return message

    def hear(self, facts: Facts, timeout_s: float | None, wants_listener: bool) -> tuple[Happened, int]:
        """Take the worker's next word, or the end of its channel; with it the listener that it hands over, or -1."""
        try:
            message, descriptors = self.launched.worker.receive((Confined, Sealed, Finished, StartFailed), timeout_s)
        except (EOFError, OSError):
            self.lost = True
            return Happened(Event.WORKER_LOST, facts), -1
        except PeerProtocolError as error:
            self.lost = True
            return protocol_broken(facts, f"its worker broke the protocol: {error}"), -1
        listener = -1
        if isinstance(message, Confined) and len(descriptors) == 1 and wants_listener:
            listener = descriptors.pop()
        for descriptor in descriptors:
            os.close(descriptor)
        assert isinstance(message, Confined | Sealed | Finished | StartFailed)
        if isinstance(message, Confined | Sealed):
            self.layers = message.layers
        if isinstance(message, Confined):
            self.expected = self.expected.after(message.layers)
        if isinstance(message, Finished):
            self.claimed_peak_bytes = max(self.claimed_peak_bytes, message.peak_memory_bytes)
        happened = worker_said(message, facts, self._said_go)
        if happened.event is Event.PROTOCOL_BROKEN:
            self.lost = True
        return happened, listener

    def load(self) -> None:
        """Tell it its job."""
        try:
            self.launched.load(self.job, self.artifact if "seccomp" in self.plan.off else None)
        except OSError:
            self.lost = True

    def verify(self) -> tuple[str, ...]:
        """Look at the sealed worker from outside and bound its memory; return what is wrong."""
        look = verify_and_bound(self.pid, self.expected, self.job.limits)
        self.layers += look.reports
        self.memory_bound_bytes = look.memory_bytes
        self.own_memory_bytes = look.own_memory_bytes
        return look.problems

    def go(self) -> None:
        """Let the guest run."""
        self._said_go = True
        try:
            self.launched.worker.send(Go())
        except OSError:
            self.lost = True

    def stop(self) -> None:
        """Tell an actor to end in order."""
        with contextlib.suppress(OSError):  # it has ended: heard of at its end of the channel
            self.launched.worker.send(Stop())

    @property
    def is_bounded(self) -> bool:
        """Whether what it holds is looked at; False where a test has switched that layer off."""
        return "rlimits" not in self.plan.off

    def read_cpu_ns(self) -> int | None:
        """Return how long its process has computed; None when it has ended."""
        try:
            return watch.read_cpu_ns(self.pid)
        except OSError:
            return None

    def is_to_be_seen(self, now_ns: int, cpu_ns: int | None) -> bool:
        """Whether it has computed since this was last so, and for how long: only then can it hold more than before."""
        if cpu_ns is None:
            return True  # it has ended, as the look will tell
        computed_ns = abs(cpu_ns - self._seen_cpu_ns)
        if not computed_ns or (computed_ns < watch.IDLE_CPU_NS and now_ns < self._seldom_ns):
            return False
        self._seen_cpu_ns = cpu_ns
        self._seldom_ns = now_ns + watch.SELDOM_NS
        return True

    def was_seen(self, cpu_ns: int) -> bool:
        """Whether it was to be seen when it had computed so much, and so isn't before it computes more."""
        return cpu_ns == self._seen_cpu_ns

    def hold(self) -> None:
        """Stop it where it is; a call that the warden has in hand comes to its end first (WAIT_KILLABLE_RECV)."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it go on that was held."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        if self.pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, number)

    def look(self) -> watch.Usage | None:
        """Look at what it holds; None when it has ended, or has been made to."""
        return None if self.kill_sent else watch.read_usage(self.pid, self.pidfd)

    def kill(self) -> bool:
        """Kill it; False when that had been done before."""
        if self.pidfd >= 0:
            self._signal(signal.SIGKILL)
        else:
            self.launched.abandon()
        first, self.kill_sent = not self.kill_sent, True
        return first

    def close(self) -> None:
        """Let go of it; one that still lives is killed by its keeper."""
        if self.pidfd >= 0:
            os.close(self.pidfd)
        self.launched.close()
