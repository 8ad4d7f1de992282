"""The privilege layers: identity, capabilities, death signal, dumpability, no_new_privs (capabilities(7), prctl(2))."""

from __future__ import annotations

import errno
import os
import select
import signal

from ipc.errors import ConfinementError
from ipc.messages import LayerReport
from worker import libc


def drop_identity(uid: int | None, gid: int | None) -> LayerReport:
    """Become the worker's own uid and gid with no supplementary group; without a uid of its own, stay the user."""
    if uid is None or gid is None:
        return LayerReport("identity", "partial", f"shares uid {os.getuid()} with its user")
    if uid == 0 or gid == 0:
        raise ConfinementError("identity", "setresuid", errno.EINVAL, "a worker never runs as root")
    try:
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    except OSError as error:
        raise ConfinementError("identity", "setresuid", error.errno or 0) from error
    return LayerReport("identity", "enforced", f"uid {uid}, gid {gid}, no groups")


def empty_bounding_set() -> None:
    """Empty the capability bounding set; must come before the change of uid, which takes CAP_SETPCAP away."""
    for capability in range(libc.CAP_LAST + 1):
        try:
            if libc.prctl(libc.PR_CAPBSET_READ, capability):
                libc.prctl(libc.PR_CAPBSET_DROP, capability)
        except OSError as error:
            if error.errno == errno.EINVAL:  # the first number that this kernel doesn't know
                return
            if error.errno == errno.EPERM:  # nothing in any other set either: no_new_privs keeps it that way
                return
            raise ConfinementError("capabilities", "prctl(PR_CAPBSET_DROP)", error.errno or 0) from error


def drop_capabilities() -> LayerReport:
    """Empty the ambient, inheritable, permitted and effective sets."""
    try:
        libc.drop_all_capabilities()  # the ambient set follows the inheritable one
    except OSError as error:
        raise ConfinementError("capabilities", "capset", error.errno or 0) from error
    return LayerReport("capabilities", "enforced", "none")


def die_with_parent(parent_pidfd: int) -> None:
    """Ask to be killed when the parent dies, and make sure that it lives; a change of uid would clear this."""
    libc.prctl(libc.PR_SET_PDEATHSIG, signal.SIGKILL)
    poller = select.poll()
    poller.register(parent_pidfd, select.POLLIN)
    if poller.poll(0):
        os._exit(1)


def set_dumpable(dumpable: bool, ptracer_pid: int | None) -> LayerReport:
    """Close this process to siblings of its uid; where the warden has no capability, open it to the warden only."""
    libc.prctl(libc.PR_SET_DUMPABLE, int(dumpable))
    if not dumpable:
        return LayerReport("non_dumpable", "enforced")
    detail = "a warden without a user namespace reads its arguments as the same uid"
    if ptracer_pid is not None:
        try:
            libc.prctl(libc.PR_SET_PTRACER, ptracer_pid)
            detail += "; Yama restricts that to the warden"
        except OSError as error:
            if error.errno != errno.EINVAL:  # EINVAL: no Yama in this kernel
                raise ConfinementError("non_dumpable", "prctl(PR_SET_PTRACER)", error.errno or 0) from error
    return LayerReport("non_dumpable", "unavailable", detail)


def forbid_new_privileges() -> LayerReport:
    """Make execve(2) unable to grant anything, for good; seccomp and Landlock need it."""
    try:
        libc.prctl(libc.PR_SET_NO_NEW_PRIVS, 1)
    except OSError as error:
        raise ConfinementError("no_new_privs", "prctl", error.errno or 0) from error
    return LayerReport("no_new_privs", "enforced")
