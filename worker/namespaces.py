"""The namespace layers: what the worker can see of network, IPC, host name and files is empty (namespaces(7)).

The process is already inside an outer user namespace (or root), so these need no user namespace of their own; the pid
namespace was entered at the fork by the keeper.
"""

from __future__ import annotations

import os

from ipc.errors import ConfinementError
from ipc.messages import LayerReport
from worker import libc

LAYER = "namespaces"
_FLAGS = libc.CLONE_NEWNET | libc.CLONE_NEWIPC | libc.CLONE_NEWNS | libc.CLONE_NEWUTS
_ROOT_OPTIONS = b"size=4096,nr_inodes=2,mode=0555"


def isolate() -> LayerReport:
    """Enter new network, IPC, mount and UTS namespaces, and make an empty read-only directory the root."""
    try:
        libc.unshare(_FLAGS)
    except OSError as error:
        return LayerReport(LAYER, "unavailable", f"unshare: {os.strerror(error.errno or 0)}")
    try:
        _empty_root()
    except OSError as error:
        raise ConfinementError(LAYER, str(error.filename), error.errno or 0, "making an empty root") from error
    return LayerReport(LAYER, "enforced", "net, ipc, mount (empty root), uts")


def _empty_root() -> None:
    # Nothing may travel back to the mounts of the host (mount_namespaces(7)).
    libc.mount(None, b"/", None, libc.MS_REC | libc.MS_PRIVATE)
    # /proc is certain to be a directory and nobody needs it here: the new root only has to be mounted somewhere.
    flags = libc.MS_NOSUID | libc.MS_NODEV | libc.MS_NOEXEC
    libc.mount(b"none", b"/proc", b"tmpfs", flags, _ROOT_OPTIONS)
    os.chdir("/proc")
    # pivot_root(".", ".") stacks the old root on the new one, where it is detached: pivot_root(2), NOTES.
    libc.pivot_root(b".", b".")
    libc.detach_mount(b".")
    os.chdir("/")
    libc.mount(None, b"/", None, libc.MS_REMOUNT | libc.MS_RDONLY | flags, _ROOT_OPTIONS)
