"""The keeper: the process that multiprocess forked. It forks the worker into a pid namespace, then only waits.

It holds the lifeline: when the supervisor's end closes, or says so, the worker is killed; when the worker ends,
wait4(2)'s word on it is reported. It runs no byte that came from a component.
"""

from __future__ import annotations

import gc
import os
import select
import signal

from multiprocess import forkserver

from ipc import codec
from ipc.channel import Channel
from ipc.messages import Ended, Spawned, WorkerPlan
from worker import libc
from worker.descriptors import arrange, close_from
from worker.main import check_origin

LIFELINE = 0
"""Where the keeper's own channel sits among its descriptors, after the worker has been forked."""
LIFELINE_CUT = "its lifeline to the supervisor was cut"


def keep(packed_plan: bytes) -> None:
    """Be the keeper of one worker (called by multiprocess in the forked process); doesn't return.

    Inherited descriptors, in order: the keeper's channel, the worker's stdin, stdout, stderr and channel, then what
    the plan's kind adds.
    """
    status = 70
    try:
        lifeline, *given = forkserver.get_inherited_fds()
        arrange([lifeline, 2, *given])
        status = _keep(codec.unpack(WorkerPlan, packed_plan, len(packed_plan)), len(given))
    finally:
        os._exit(status)


def _keep(plan: WorkerPlan, given: int) -> int:
    lifeline = Channel.from_descriptor(LIFELINE)
    os.setsid()
    # Nobody reads what this process and its worker know (secrets come with the job).
    libc.prctl(libc.PR_SET_DUMPABLE, 0)
    gc.disable()  # a collection would write to pages that are shared with the zygote and each other worker
    check_origin(plan.origin)
    in_pid_namespace = False
    if plan.confinement.namespaces and "namespaces" not in plan.confinement.off:
        try:
            libc.unshare(libc.CLONE_NEWPID)
            in_pid_namespace = True
        except OSError:
            pass  # the worker reports it: net, ipc, mount and uts will be refused too
    parent_pidfd = os.pidfd_open(os.getpid())
    pid = os.fork()
    if pid == 0:
        _become_worker(plan, given, parent_pidfd, in_pid_namespace)
    close_from(1)
    worker = os.pidfd_open(pid)
    try:
        lifeline.send(Spawned(pid))
    except OSError:
        os.kill(pid, signal.SIGKILL)
    killed_for = _wait(lifeline, pid, worker)
    _, wait_status, usage = os.wait4(pid, 0)
    if not (os.WIFSIGNALED(wait_status) and os.WTERMSIG(wait_status) == signal.SIGKILL):
        # It was ending by itself already (a leader is a zombie while its threads are still being reaped).
        killed_for = ""
    ended = Ended(
        wait_status,
        round(usage.ru_utime * 1e9),
        round(usage.ru_stime * 1e9),
        usage.ru_maxrss * 1024,
        killed_for,
    )
    try:
        lifeline.send(ended)
    except OSError:
        return 1
    return 0


def _become_worker(plan: WorkerPlan, given: int, parent_pidfd: int, in_pid_namespace: bool) -> None:
    status = 70
    try:
        numbers = list(range(2, 2 + given))
        arrange([*numbers[:4], parent_pidfd, *numbers[4:]])
        if plan.kind == "compile":
            from worker.compiler import run_compiler

            status = run_compiler(plan, in_pid_namespace)
        else:
            from worker.main import run_worker

            status = run_worker(plan, in_pid_namespace)
    finally:
        os._exit(status)


def _wait(lifeline: Channel, pid: int, worker: int) -> str:
    """Wait for the worker's end, killing it when the supervisor is gone; returns why it was killed, if it was.

    No timer: hundreds of keepers of idle workers cost nothing. A worker whose leader thread left the others behind ends
    without its pidfd telling so; the supervisor, which looks at all workers in one go, sees that.
    """
    poller = select.poll()
    poller.register(lifeline.fileno(), select.POLLIN)
    poller.register(worker, select.POLLIN)
    killed_for = ""
    while True:
        ready = dict(poller.poll())
        if worker in ready:
            return killed_for
        # Anything on the lifeline, its end above all, means: end the worker.
        killed_for = LIFELINE_CUT
        os.kill(pid, signal.SIGKILL)
        poller.unregister(lifeline.fileno())
