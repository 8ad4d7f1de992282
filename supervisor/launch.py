"""Starting one worker: which descriptors it gets, and what the supervisor holds of it."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Sequence

from ipc import codec
from ipc.channel import Channel
from ipc.errors import ConfinementError
from ipc.launch import ByName
from ipc.messages import Become, WorkerJob
from ipc.struct import Struct
from supervisor import memory_file
from supervisor.zygote import Forking, Keeper, Zygote

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


class Keepers:
    """Has keepers forked, on demand or one ahead of it: the fork is a third of what a worker's start takes."""

    def __init__(self, zygote: Zygote) -> None:
        """Have them forked by `zygote`, which stays the caller's."""
        self._zygote = zygote
        self._ahead: tuple[Forking, Channel] | None = None

    def fork_ahead(self) -> None:
        """Have one made that waits for its job, unless there is one; waits for nothing."""
        if self._ahead is None:
            ours, theirs = Channel.pair()
            try:
                self._ahead = (self._zygote.begin_fork(KEEPER, b"", (theirs.fileno(),)), ours)
            except ConfinementError:
                ours.close()  # whoever needs one will try again, and be told
            finally:
                theirs.close()

    def employ(self, job: WorkerJob, descriptors: Sequence[int]) -> tuple[Keeper, Channel]:
        """Give the job and what belongs to it to a keeper; one that died while it waited is replaced."""
        job_file = memory_file.from_bytes("job", codec.pack(job))
        try:
            ahead, self._ahead = self._ahead, None
            if ahead is not None:
                with contextlib.suppress(OSError, EOFError):
                    return _employ(ahead[0].finish(), ahead[1], (job_file, *descriptors))
                ahead[1].close()
            ours, theirs = Channel.pair()
            try:
                keeper = self._zygote.fork(KEEPER, b"", (theirs.fileno(),))
            except BaseException:
                ours.close()
                raise
            finally:
                theirs.close()
            return _employ(keeper, ours, (job_file, *descriptors))
        finally:
            os.close(job_file)

    def close(self) -> None:
        """Dismiss the one that waits, and see it gone."""
        if self._ahead is not None:
            (forking, ours), self._ahead = self._ahead, None
            ours.close()
            with contextlib.suppress(OSError, EOFError):
                forking.finish().wait_gone()


def _employ(keeper: Keeper, channel: Channel, descriptors: Sequence[int]) -> tuple[Keeper, Channel]:
    try:
        channel.send(Become(), descriptors)
    except BaseException:
        channel.close()
        keeper.close()
        raise
    return keeper, channel


def launch(
    keepers: Keepers, job: WorkerJob, stdin: int, stdout: int, stderr: int, artifact: int | None = None
) -> Launched:
    """Fork a worker for `job` on the guest's three streams, all of which stay the caller's.

    The worker gets `artifact` itself only when the seccomp layer is off: else it opens it by name, through the warden.
    """
    native = artifact is not None and SECCOMP in job.confinement.off
    extra = (artifact,) if native and artifact is not None else ()
    return _launch(keepers, job, (stdin, stdout, stderr), extra)


def launch_compiler(keepers: Keepers, job: WorkerJob, wasm: int, output: int) -> Launched:
    """Fork a compiler that reads `wasm` (sealed) and writes the artifact to `output`; both stay the caller's."""
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    try:
        return _launch(keepers, job, (null, null, null), (wasm, output))
    finally:
        os.close(null)


def _launch(keepers: Keepers, job: WorkerJob, streams: Sequence[int], extra: Sequence[int]) -> Launched:
    worker, workers_end = Channel.pair()
    try:
        process, keeper = keepers.employ(job, (*streams, workers_end.fileno(), *extra))
    except BaseException:
        worker.close()
        raise
    finally:
        workers_end.close()
    return Launched(process, keeper, worker)
