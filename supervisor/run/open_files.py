"""Which files a worker holds open, seen from outside, and by which of its grants: pidfd_getfd(2)."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Sequence
from typing import Final

from ipc.libc import pidfd_descriptors
from ipc.policy.capability import Grant, parse_grant_pattern
from ipc.policy.patterns import Pattern, PatternError

_ACCESS: Final = {
    "filesystem.read": (os.O_RDONLY, os.O_RDWR),
    "filesystem.write": (os.O_WRONLY, os.O_RDWR),
}
_DELETED: Final = " (deleted)"
"""What the kernel writes behind the path of a file without a name: proc(5)."""


def count_open_files(pidfd: int, numbers: int, names: Sequence[str], grants: Sequence[Grant]) -> dict[str, int] | None:
    """Return how many regular files a process has open by each grant, named as in `names`; None where nobody may look.

    `numbers` bounds its descriptors. One that is covered by two grants counts for both; what was opened to be stat'ed
    only counts for none.
    """
    patterns = [(name, grant.action, _pattern(grant)) for name, grant in zip(names, grants, strict=True)]
    found: dict[str, int] = {}
    try:
        for _, duplicate, status in pidfd_descriptors(pidfd, numbers):
            if not stat.S_ISREG(status.st_mode):
                continue
            path = os.readlink(f"/proc/self/fd/{duplicate}")
            if status.st_nlink == 0:
                path = path.removesuffix(_DELETED)
            access = fcntl.fcntl(duplicate, fcntl.F_GETFL) & os.O_ACCMODE
            for name, action, pattern in patterns:
                if pattern is not None and access in _ACCESS[action] and pattern.matches(path):
                    found[name] = found.get(name, 0) + 1
    except OSError:
        return None
    return found


def _pattern(grant: Grant) -> Pattern | None:
    if grant.action not in _ACCESS:
        return None
    try:
        pattern = parse_grant_pattern(grant.action, grant.pattern_text)
    except PatternError:
        return None
    return pattern if isinstance(pattern, Pattern) else None
