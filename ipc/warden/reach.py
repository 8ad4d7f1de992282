"""What the warden can't do its work without, tried before a worker is let go: it must reach into that very worker.

Yama, a container's filter or a missing capability may stand between the two. Found out in the middle of a run, that
would look like a fault of the component.
"""

from __future__ import annotations

import errno
import os
import select

from ipc.errors import ConfinementError
from ipc.libc import RESOLVE_BENEATH, RemoteMemory, openat2, pidfd_getfd

_CHANNEL = 3
"""A descriptor that every worker has."""
_REFUSALS = (errno.EPERM, errno.EACCES, errno.ENOSYS)
_ENDS_WITHIN_MS = 500
"""How long after a refusal a worker's end is waited for: one that is about to end has no memory to look into."""


def check_openat2() -> None:
    """Raise ConfinementError where paths can't be opened beneath a root: openat2(2)."""
    root = os.open("/", os.O_PATH | os.O_CLOEXEC)
    try:
        os.close(openat2(root, b".", os.O_PATH | os.O_CLOEXEC, 0, RESOLVE_BENEATH))
    except OSError as error:
        raise ConfinementError("warden", "openat2", error.errno or 0) from error
    finally:
        os.close(root)


def check_reach(pidfd: int) -> None:
    """Raise ConfinementError where a worker's memory or descriptors are out of reach; one that has ended is no error.

    Sources: process_vm_readv(2), pidfd_getfd(2), ptrace(2) "access mode checking".
    """
    try:
        RemoteMemory(1).read(pid_of(pidfd), 0, 1)  # nothing is there: EFAULT, once we may look
    except OSError as error:
        judge(pidfd, "process_vm_readv", error)
    try:
        os.close(pidfd_getfd(pidfd, _CHANNEL))
    except OSError as error:
        judge(pidfd, "pidfd_getfd", error)


def has_ended(pidfd: int, within_ms: int = 0) -> bool:
    """Whether a process has ended, or ends within so many milliseconds (pidfd_open(2))."""
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    return bool(poller.poll(within_ms))


def judge(pidfd: int, call: str, error: OSError) -> None:
    """Raise ConfinementError for what refuses a look into a worker that lives."""
    if error.errno in _REFUSALS and not has_ended(pidfd, _ENDS_WITHIN_MS):
        raise ConfinementError("warden", call, error.errno or 0, "it can't look into the worker") from error


def pid_of(pidfd: int) -> int:
    """Return the process of a pidfd, -1 when it has ended: pidfd_open(2), proc(5)."""
    with open(f"/proc/self/fdinfo/{pidfd}", "rb") as lines:
        return next((int(line[4:]) for line in lines if line.startswith(b"Pid:")), -1)
