"""The keeper: the process that multiprocess forked. It forks the worker into a pid namespace, then only waits.

It holds the lifeline: when the supervisor's end closes, or says so, the worker is killed; when the worker ends,
wait4(2)'s word on it is reported. It runs no byte that came from a component.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import time

from multiprocess import forkserver

from ipc import codec
from ipc.channel import Channel
from ipc.messages import Ended, Spawned, WorkerPlan
from worker import libc
from worker.descriptors import arrange, close_from
from worker.main import check_origin

LIFELINE = 0
"""Where the keeper's own channel sits among its descriptors, after the worker has been forked."""
_POLL_MS = 250
"""How often a worker whose leader thread may have left its threads behind is looked at."""
LIFELINE_CUT = "its lifeline to the supervisor was cut"
_CPUCLOCK_SCHED = 2
"""A process's clock by its number (include/linux/posix-timers.h)."""
_ZOMBIE_LEADER = "leader thread exited while others ran"


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
    """Wait for the worker's end, killing it when the supervisor is gone; returns why it was killed, if it was."""
    poller = select.poll()
    poller.register(lifeline.fileno(), select.POLLIN)
    poller.register(worker, select.POLLIN)
    killed_for = ""
    zombie_before = False
    seen_cpu_ns = -1
    while True:
        ready = dict(poller.poll(_POLL_MS))
        if worker in ready:
            return killed_for
        if lifeline.fileno() in ready and not killed_for:
            # Anything on the lifeline, its end above all, means: end the worker.
            killed_for = LIFELINE_CUT
            os.kill(pid, signal.SIGKILL)
            poller.unregister(lifeline.fileno())
        elif not ready and not killed_for:
            cpu_ns = _cpu_ns(pid)
            if cpu_ns == seen_cpu_ns >= 0 and not zombie_before:
                continue  # no thread of it has computed, and so none has ended
            seen_cpu_ns = cpu_ns
            # Seen twice: the leader of a worker that was killed is a zombie too, while its threads are being reaped.
            zombie = is_zombie(pid)
            if zombie and zombie_before:
                killed_for = _ZOMBIE_LEADER
                os.kill(pid, signal.SIGKILL)
            zombie_before = zombie


def _cpu_ns(pid: int) -> int:
    """Return how long all threads of a process have computed (clock_getcpuclockid(3)): a tenth of the cost of /proc."""
    try:
        return time.clock_gettime_ns((~pid << 3) | _CPUCLOCK_SCHED)
    except OSError:
        return -1


def is_zombie(pid: int) -> bool:
    """Return whether the leader is a zombie although its pidfd isn't readable: other threads live (proc(5), state)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as source:
            return source.read().rpartition(b")")[2].split()[0] == b"Z"
    except OSError:
        return False
