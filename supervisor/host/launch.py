"""Starting one worker: which descriptors it gets, and what the supervisor holds of it."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Sequence

from ipc import codec, memory_file
from ipc.channel import Channel
from ipc.launch import ByName
from ipc.messages import Load, WorkerJob, WorkerPlan
from supervisor.host.zygote import Forking, Keeper, Zygote

KEEPER = ByName("worker.keeper", "keep")


class Launched:
    """The supervisor's ends of one worker: its keeper's channel, which is also its lifeline, and its own channel."""

    __slots__ = ("_process", "keeper", "worker")

    def __init__(self, process: Keeper | Forking, keeper: Channel, worker: Channel) -> None:
        """Take over the ends of a worker that was forked, or asked for."""
        self._process = process
        self.keeper = keeper
        self.worker = worker

    @property
    def process(self) -> Keeper:
        """The keeper; waits until it has been forked, raises OSError or EOFError when it never was."""
        if isinstance(self._process, Forking):
            self._process = self._process.finish()
        return self._process

    def is_alive(self) -> bool:
        """Whether the keeper was forked and has not ended; waits for the former."""
        try:
            return not self.process.wait_gone(0)
        except (OSError, EOFError):
            return False

    def wait_gone(self, timeout_s: float) -> bool:
        """Wait until the keeper has ended, forked or not yet; False when the time was over first."""
        if isinstance(self._process, Forking) and not self._process.is_ready(timeout_s):
            return False
        try:
            return self.process.wait_gone(timeout_s)
        except (OSError, EOFError):
            return True

    def load(self, job: WorkerJob, artifact: int | None = None) -> None:
        """Tell a confined worker its job; the artifact itself only where no warden answers its name."""
        job_file = memory_file.from_bytes("job", codec.pack(job))
        try:
            self.worker.send(Load(), (job_file,) if artifact is None else (job_file, artifact))
        finally:
            os.close(job_file)

    def abandon(self) -> None:
        """Cut the lifeline: the keeper kills the worker, whether or not it has said which process that is."""
        # shutdown(2) and not close(2): our end stays readable for the keeper's last word.
        with socket.socket(fileno=os.dup(self.keeper.fileno())) as end, contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close every end; a worker that still lives is killed by its keeper."""
        self.keeper.close()
        self.worker.close()
        self._process.close()


def launch(zygote: Zygote, plan: WorkerPlan, stdin: int, stdout: int, stderr: int, ahead: bool = False) -> Launched:
    """Fork a worker for `plan` on the guest's three streams, all of which stay the caller's.

    One that is wanted `ahead` of its time is only asked for: whether there is a zygote to make it is seen later.
    """
    return _launch(zygote, plan, (stdin, stdout, stderr), (), ahead)


def launch_compiler(zygote: Zygote, plan: WorkerPlan, wasm: int, output: int) -> Launched:
    """Fork a compiler that reads `wasm` (sealed) and writes the artifact to `output`; both stay the caller's."""
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    try:
        return _launch(zygote, plan, (null, null, null), (wasm, output), False)
    finally:
        os.close(null)


def _launch(zygote: Zygote, plan: WorkerPlan, streams: Sequence[int], extra: Sequence[int], ahead: bool) -> Launched:
    keeper, keepers_end = Channel.pair()
    worker, workers_end = Channel.pair()
    descriptors = (keepers_end.fileno(), *streams, workers_end.fileno(), *extra)
    try:
        if ahead:
            return Launched(zygote.begin_fork(KEEPER, codec.pack(plan), descriptors), keeper, worker)
        return Launched(zygote.fork(KEEPER, codec.pack(plan), descriptors), keeper, worker)
    except BaseException:
        keeper.close()
        worker.close()
        raise
    finally:
        keepers_end.close()
        workers_end.close()
