"""The namespace layers: what the worker can see of network, IPC, host name and files is empty (namespaces(7)).

The process is already inside an outer user namespace (or root), so these need no user namespace of their own; the pid
namespace was entered at the fork by the keeper.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence

from ipc.errors import ConfinementError
from ipc.messages import LayerReport
from worker import libc

LAYER = "namespaces"
_FLAGS = libc.CLONE_NEWNET | libc.CLONE_NEWIPC | libc.CLONE_NEWNS | libc.CLONE_NEWUTS
_ROOT_OPTIONS = b"size=4096,nr_inodes=2,mode=0555"
_KEPT_OPTIONS = b"size=65536,nr_inodes=256,mode=0555"


def isolate(keep: Sequence[str] = ()) -> LayerReport:
    """Enter new network, IPC, mount and UTS namespaces, and make an empty read-only directory the root.

    The directories and files of `keep`, real paths, are in it under their own names.
    """
    try:
        libc.unshare(_FLAGS)
    except OSError as error:
        return LayerReport(LAYER, "unavailable", f"unshare: {os.strerror(error.errno or 0)}")
    try:
        _empty_root(keep)
    except OSError as error:
        raise ConfinementError(LAYER, str(error.filename), error.errno or 0, "making an empty root") from error
    what = f"only {', '.join(keep)}" if keep else "empty root"
    return LayerReport(LAYER, "enforced", f"net, ipc, mount ({what}), uts")


def _empty_root(keep: Sequence[str]) -> None:
    # Nothing may travel back to the mounts of the host (mount_namespaces(7)).
    libc.mount(None, b"/", None, libc.MS_REC | libc.MS_PRIVATE)
    # /proc is certain to be a directory and nobody needs it here: the new root only has to be mounted somewhere.
    flags = libc.MS_NOSUID | libc.MS_NODEV | libc.MS_NOEXEC
    options = _KEPT_OPTIONS if keep else _ROOT_OPTIONS
    libc.mount(b"none", b"/proc", b"tmpfs", flags, options)
    umask = os.umask(0o022)  # whoever we become passes through
    for path in keep:
        _bind(path, flags)
    os.umask(umask)
    os.chdir("/proc")
    # pivot_root(".", ".") stacks the old root on the new one, where it is detached: pivot_root(2), NOTES.
    libc.pivot_root(b".", b".")
    libc.detach_mount(b".")
    os.chdir("/")
    libc.mount(None, b"/", None, libc.MS_REMOUNT | libc.MS_RDONLY | flags, options)


def _bind(path: str, flags: int) -> None:
    """Make `path` appear in the new root, which is mounted on /proc still."""
    target = "/proc" + path
    os.makedirs(os.path.dirname(target), mode=0o755, exist_ok=True)
    if os.path.isdir(path):
        os.mkdir(target, 0o755)
    else:
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    libc.mount(os.fsencode(path), os.fsencode(target), None, libc.MS_BIND)
    with contextlib.suppress(OSError):  # flags of the mount that it comes from may be locked: mount_namespaces(7)
        libc.mount(None, os.fsencode(target), None, libc.MS_REMOUNT | libc.MS_BIND | flags)
