"""Becoming the one identity whose files this warden touches: never root, and with one capability at most.

capabilities(7), user_namespaces(7), credentials(7).
"""

from __future__ import annotations

import contextlib
import os
import resource
import sys
from typing import Final

from ipc import libc
from ipc.errors import ConfinementError
from ipc.messages import LayerReport, WardenSetup

OPEN_FILES: Final = 65_536
_INITIAL_USER_NAMESPACE: Final = 0xEFFF_FFFD
"""Its inode, since Linux 3.8: PROC_USER_INIT_INO, include/linux/proc_ns.h (UAPI nsfs.h since 6.18)."""


def check_origin(package_file: str) -> None:
    """Refuse to be anything but an isolated interpreter that runs this very copy of the package."""
    if not sys.flags.isolated:
        raise ConfinementError("origin", "python", 0, "our processes run with -I only")
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(package_file))))
    for name in ("ipc", "ipc.warden", "ipc.broker", "ipc.policy", "worker"):
        module = sys.modules.get(name)
        file = getattr(module, "__file__", None)
        if module is not None and (file is None or not os.path.abspath(file).startswith(root + os.sep)):
            raise ConfinementError("origin", "import", 0, f"{name} comes from {file}, not from {root}")


def prepare() -> list[LayerReport]:
    """Do what must be done while there is one thread, and with what capabilities there are."""
    layers = []
    libc.prctl(libc.PR_SET_NO_NEW_PRIVS, 1)
    layers.append(LayerReport("no_new_privs", "enforced"))
    layers.append(_network())
    try:
        libc.drop_bounding_set()
        layers.append(LayerReport("bounding_set", "enforced"))
    except OSError as error:
        layers.append(LayerReport("bounding_set", "unavailable", error.strerror or ""))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, wanted))
    layers.append(LayerReport("rlimits", "enforced", f"core 0, descriptors {wanted}"))
    return layers


def _network() -> LayerReport:
    """A network namespace of its own; sockets that are files are reached all the same (unix(7))."""
    try:
        libc.unshare(libc.CLONE_NEWNET)
    except OSError as error:
        return LayerReport("network_namespace", "unavailable", error.strerror or "")
    return LayerReport("network_namespace", "enforced")


def become(setup: WardenSetup) -> list[LayerReport]:
    """Drop to the identity of `setup`; raises ConfinementError when that would be root, or does not work."""
    if setup.uid == 0:
        raise ConfinementError("identity", "setresuid", 0, "files are never touched as root")
    os.umask(setup.umask & 0o777)
    changes = set(os.getresuid()) != {setup.uid}
    wanted = _capabilities(changes)
    kept = libc.permitted_capabilities() & sum(1 << capability for capability in wanted.values())
    if changes:
        libc.prctl(libc.PR_SET_KEEPCAPS, 1)
        os.setgroups(list(setup.groups))
        os.setresgid(setup.gid, setup.gid, setup.gid)
        os.setresuid(setup.uid, setup.uid, setup.uid)
        libc.prctl(libc.PR_SET_KEEPCAPS, 0)
    with contextlib.suppress(OSError):  # EINVAL before Linux 4.3: no ambient set, so nothing in it
        libc.prctl(libc.PR_CAP_AMBIENT, libc.PR_CAP_AMBIENT_CLEAR_ALL)
    libc.set_capabilities(kept)
    libc.prctl(libc.PR_SET_DUMPABLE, 0)
    check_identity(setup.uid)
    names = [name for name, capability in wanted.items() if kept >> capability & 1]
    return [
        LayerReport("identity", "enforced", f"uid {setup.uid}, gid {setup.gid}"),
        LayerReport("capabilities", "enforced", ", ".join(names) or "none"),
    ]


def _capabilities(changes: bool) -> dict[str, int]:
    """Return what the work needs, by name: to look into workers, and to choose processors for those of another uid.

    The latter only over our own user namespace, where the former reaches as far (docs/adr/0018).
    """
    wanted = {"CAP_SYS_PTRACE": libc.CAP_SYS_PTRACE}
    if changes and os.stat("/proc/self/ns/user").st_ino != _INITIAL_USER_NAMESPACE:
        wanted["CAP_SYS_NICE"] = libc.CAP_SYS_NICE
    return wanted


def check_identity(uid: int) -> None:
    """Raise ConfinementError unless all uids are `uid`, and that is root neither here nor in the namespace above."""
    check_never_root(uid)
    uids = set(os.getresuid())
    if uids != {uid}:
        raise ConfinementError("identity", "getresuid", 0, f"the uids are {sorted(uids)}, not {uid}")


def check_never_root(uid: int) -> None:
    """Raise ConfinementError if `uid` is root here or in the namespace above."""
    if uid == 0 or _above(uid) == 0:
        raise ConfinementError("identity", "uid_map", 0, f"uid {uid} is root, which this process never is")


def _above(uid: int) -> int:
    """Return what `uid` is in the parent user namespace: /proc/self/uid_map, user_namespaces(7)."""
    with open("/proc/self/uid_map") as uid_map:
        for line in uid_map:
            inside, outside, count = map(int, line.split())
            if inside <= uid < inside + count:
                return outside + uid - inside
    return 65_534
