"""Starting one worker: which descriptors it gets, and what the supervisor holds of it."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Sequence

from msgspec import Struct

from ipc import codec
from ipc.channel import Channel
from ipc.launch import ByName
from ipc.messages import WorkerJob
from supervisor.zygote import Keeper, Zygote

KEEPER = ByName("worker.keeper", "keep")
SECCOMP = "seccomp"


class Launched(Struct):
    """The supervisor's ends of one worker: its keeper's channel, which is also its lifeline, and its own channel."""

    process: Keeper
    keeper: Channel
    worker: Channel

    def abandon(self) -> None:
        """Cut the lifeline: the keeper kills the worker, whether or not it has said which process that is."""
        # shutdown(2) and not close(2): our end stays readable for the keeper's last word.
        with socket.socket(fileno=os.dup(self.keeper.fileno())) as end, contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close every end; a worker that still lives is killed by its keeper."""
        self.keeper.close()
        self.worker.close()
        self.process.close()


def launch(
    zygote: Zygote, job: WorkerJob, stdin: int, stdout: int, stderr: int, artifact: int | None = None
) -> Launched:
    """Fork a worker for `job` on the guest's three streams, all of which stay the caller's.

    The worker gets `artifact` itself only when the seccomp layer is off: else it opens it by name, through the warden.
    """
    native = artifact is not None and SECCOMP in job.confinement.off
    extra = (artifact,) if native and artifact is not None else ()
    return _launch(zygote, job, (stdin, stdout, stderr), extra)


def launch_compiler(zygote: Zygote, job: WorkerJob, wasm: int, output: int) -> Launched:
    """Fork a compiler that reads `wasm` (sealed) and writes the artifact to `output`; both stay the caller's."""
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    try:
        return _launch(zygote, job, (null, null, null), (wasm, output))
    finally:
        os.close(null)


def _launch(zygote: Zygote, job: WorkerJob, streams: Sequence[int], extra: Sequence[int]) -> Launched:
    keeper, keepers_end = Channel.pair()
    worker, workers_end = Channel.pair()
    try:
        process = zygote.fork(KEEPER, codec.pack(job), (keepers_end.fileno(), *streams, workers_end.fileno(), *extra))
    except BaseException:
        keeper.close()
        worker.close()
        raise
    finally:
        keepers_end.close()
        workers_end.close()
    return Launched(process, keeper, worker)
