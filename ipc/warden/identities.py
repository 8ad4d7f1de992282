"""Forbidden objects by device and inode, so that a hard link or a bind mount gives none of them another name.

Objects that are forbidden by a name of their own are looked up when a worker is attached, as far as the warden's
identity can see them. What lies beneath a forbidden directory matters only for hard links, so it is searched the first
time that a file with several links is met, and again when the answer is older than `FRESH_NS`.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Iterable, Iterator
from typing import Final

FRESH_NS: Final = 10_000_000_000
SEARCHED_ENTRIES_MAX: Final = 50_000
"""Names looked at in one search; a bound on the time that one call can take."""

Identity = tuple[int, int]


class ForbiddenIdentities:
    """(device, inode) → path, for objects that must not be opened under another name."""

    __slots__ = ("_by_name", "_directories", "_linked", "_searched_at_ns")

    def __init__(self, paths: Iterable[str]) -> None:
        """Look up `paths`; those that are not there or can't be seen are left out."""
        self._by_name: dict[Identity, str] = {}
        self._directories: list[str] = []
        self._linked: dict[Identity, str] = {}
        self._searched_at_ns = -FRESH_NS
        for path in paths:
            with contextlib.suppress(OSError):
                status = os.lstat(path)
                self._by_name[status.st_dev, status.st_ino] = path
                if stat.S_ISDIR(status.st_mode):
                    self._directories.append(path)

    def find(self, status: os.stat_result) -> str:
        """Return the forbidden path of which this is the object, or an empty string."""
        identity = (status.st_dev, status.st_ino)
        found = self._by_name.get(identity, "")
        if found or status.st_nlink < 2 or not stat.S_ISREG(status.st_mode):
            return found
        now_ns = time.monotonic_ns()
        if now_ns - self._searched_at_ns >= FRESH_NS:
            self._linked = dict(_search(self._directories))
            self._searched_at_ns = now_ns
        return self._linked.get(identity, "")


def _search(directories: Iterable[str]) -> Iterator[tuple[Identity, str]]:
    """Yield the files with several links beneath the directories."""
    pending = list(directories)
    seen = 0
    while pending:
        with contextlib.suppress(OSError), os.scandir(pending.pop()) as entries:
            for entry in entries:
                seen += 1
                if seen > SEARCHED_ENTRIES_MAX:
                    return
                with contextlib.suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
                    elif entry.is_file(follow_symlinks=False):
                        status = entry.stat(follow_symlinks=False)
                        if status.st_nlink > 1:
                            yield (status.st_dev, status.st_ino), entry.path
