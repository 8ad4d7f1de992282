"""The Landlock layer: every right that the kernel's ABI knows is taken away; for a worker no rule gives one back.

Source: the kernel's Documentation/userspace-api/landlock.rst. A descriptor that the warden opened keeps what it
was opened with: Landlock looks at the opener.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping

from ipc.errors import ConfinementError
from ipc.messages import LayerReport
from worker import libc

LAYER = "landlock"

# linux/landlock.h, LANDLOCK_ACCESS_FS_*
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, REMOVE_FILE, MAKE_REG, MAKE_SOCK, TRUNCATE = (
    1 << bit for bit in (0, 1, 2, 3, 5, 8, 9, 14)
)

FS_RIGHTS = {1: (1 << 13) - 1, 2: 1 << 13, 3: 1 << 14, 5: 1 << 15}
"""ABI → file rights it added: the first thirteen; REFER; TRUNCATE; IOCTL_DEV."""
EVERY_FILE_RIGHT = sum(FS_RIGHTS.values())
NET_RIGHTS = {4: 0b11}
"""ABI → network rights it added: BIND_TCP and CONNECT_TCP."""
SCOPES = {6: 0b11}
"""ABI → scopes it added: abstract unix sockets and signals."""
_ADDED_BY = {
    2: "link or rename across directories",
    3: "truncate",
    4: "TCP bind and connect",
    5: "device ioctl",
    6: "signals and abstract unix sockets",
}
_ATTRIBUTES_BYTES = ((6, 24), (4, 16), (1, 8))


def rights(abi: int) -> tuple[int, int, int, int]:
    """Return file rights, network rights, scopes and the attribute structure's length for an ABI."""
    fs = sum(bits for since, bits in FS_RIGHTS.items() if since <= abi)
    net = sum(bits for since, bits in NET_RIGHTS.items() if since <= abi)
    scoped = sum(bits for since, bits in SCOPES.items() if since <= abi)
    length = next(length for since, length in _ATTRIBUTES_BYTES if since <= abi)
    return fs, net, scoped, length


def report(abi: int) -> LayerReport:
    """Say what an ABI can enforce; partial names the rights that the kernel doesn't know yet."""
    missing = [words for since, words in _ADDED_BY.items() if since > abi]
    if missing:
        return LayerReport(LAYER, "partial", f"ABI {abi}; not known to this kernel: {', '.join(missing)}")
    return LayerReport(LAYER, "enforced", f"ABI {abi}")


def enforce(but: Mapping[str, int] | None = None, network: bool = False) -> LayerReport:
    """Take every right away from this process, which must have one thread; needs no_new_privs.

    `but` are the directories beneath which some file rights stay, as far as the kernel knows them, and files that keep
    some; with `network` those of the network stay.
    """
    try:
        abi = libc.landlock_abi()
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.EOPNOTSUPP):
            why = "not built into this kernel" if error.errno == errno.ENOSYS else "disabled at boot"
            return LayerReport(LAYER, "unavailable", why)
        raise ConfinementError(LAYER, "landlock_create_ruleset", error.errno or 0) from error
    fs, net, scoped, length = rights(abi)
    net = 0 if network else net
    exceptions: list[tuple[int, int]] = []
    try:
        for path, kept in (but or {}).items():
            exceptions.append((os.open(path, os.O_PATH | os.O_CLOEXEC), kept & fs))
        libc.landlock_deny(fs, net, scoped, length, exceptions)
    except OSError as error:
        raise ConfinementError(LAYER, str(error.filename), error.errno or 0) from error
    finally:
        for directory, _ in exceptions:
            os.close(directory)
    return report(abi)
