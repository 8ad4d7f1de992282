"""Forbidden objects by device and inode, so that a hard link or a bind mount gives none of them another name.

Objects that are forbidden by a name of their own are looked up when a worker is prepared, as far as the warden's
identity can see them. What lies beneath a forbidden directory matters only for hard links, so it is searched the first
time that a file with several links is met, and again when the answer is older than `FRESH_NS`.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import stat
import time
from collections.abc import Iterable, Iterator
from typing import Final

from ipc.policy.forbidden import NamedObjects

FRESH_NS: Final = 10_000_000_000
SEARCHED_ENTRIES_MAX: Final = 50_000
"""Names looked at in one search; a bound on the time that one call can take."""
_WORTH_LISTING: Final = 4
"""From so many names on a directory is listed once, instead of each name being asked for."""
_LISTED_ENTRIES_MAX: Final = 400
"""A home with more names than this is not listed: asking for the names that matter one by one is quicker."""

Identity = tuple[int, int]


class ForbiddenIdentities:
    """(device, inode) → path, for objects that must not be opened, or not be changed, under another name."""

    __slots__ = ("_any", "_write")

    def __init__(self, objects: NamedObjects, write_objects: NamedObjects) -> None:
        """Look both up; objects that are not there or can't be seen are left out."""
        listings: dict[str, frozenset[str] | None] = {}
        self._any = _Objects()
        self._any.note(objects.paths, search=True)
        self._any.note(_in_homes(objects, listings), search=True)
        self._write = _Objects()
        # Of what is only forbidden to change the operating system's own directories are not searched for hard links:
        # /usr alone would spend the bound, and its files belong to root, whom no warden can be.
        self._write.note(write_objects.paths, search=False)
        self._write.note(_in_homes(write_objects, listings), search=True)

    def find(self, status: os.stat_result) -> tuple[str, str]:
        """Return the path of the forbidden object that this is, and of the one forbidden to write; empty if none."""
        identity = (status.st_dev, status.st_ino)
        if status.st_nlink < 2 or not stat.S_ISREG(status.st_mode):
            return self._any.by_name.get(identity, ""), self._write.by_name.get(identity, "")
        return self._any.find_linked(identity), self._write.find_linked(identity)


class _Objects:
    """One of the two sets."""

    __slots__ = ("_directories", "_linked", "_searched_at_ns", "by_name")

    def __init__(self) -> None:
        self.by_name: dict[Identity, str] = {}
        self._directories: list[str] = []
        self._linked: dict[Identity, str] = {}
        self._searched_at_ns = -FRESH_NS

    def note(self, paths: Iterable[str], search: bool) -> None:
        """Look these up; `search` for hard links beneath those that are directories."""
        for path in paths:
            try:
                status = os.lstat(path)
            except OSError:
                continue
            self.by_name[status.st_dev, status.st_ino] = path
            if search and stat.S_ISDIR(status.st_mode):
                self._directories.append(path)

    def find_linked(self, identity: Identity) -> str:
        """Return the path of the forbidden object that this file, which has several links, is."""
        found = self.by_name.get(identity, "")
        if found:
            return found
        now_ns = time.monotonic_ns()
        if now_ns - self._searched_at_ns >= FRESH_NS:
            self._linked = dict(_search(self._directories))
            self._searched_at_ns = now_ns
        return self._linked.get(identity, "")


def _in_homes(objects: NamedObjects, listings: dict[str, frozenset[str] | None]) -> Iterator[str]:
    """Yield what may be there of the names in homes; `listings` keeps what was listed, for the next question.

    A listing of each home tells most of the hundreds of names away at once: asked for one by one, they were half of
    the time that a worker's start took. Case is ignored, for file systems that fold it; lstat(2) has the last word.
    """
    for home in objects.homes:
        yield from _beneath(home, objects.in_homes, listings)


def _beneath(directory: str, names: tuple[str, ...], listings: dict[str, frozenset[str] | None]) -> Iterator[str]:
    if directory not in listings:
        listings[directory] = _folded_names(directory)
    there = listings[directory]
    for folded, name, rest in _by_first(names):
        if there is None or folded in there:
            path = f"{directory}/{name}"
            if len(rest) < _WORTH_LISTING:
                yield from (f"{path}{end}" for end in rest)
            else:
                yield from (path for end in rest if not end)
                yield from _beneath(path, tuple(end[1:] for end in rest if end), listings)


@functools.lru_cache(maxsize=64)
def _by_first(names: tuple[str, ...]) -> tuple[tuple[str, str, tuple[str, ...]], ...]:
    """Return each first segment, case-folded and as it is, with what follows it: nothing, or a slash and more."""
    follows: dict[str, list[str]] = {}
    for name in names:
        first, slash, rest = name.partition("/")
        follows.setdefault(first, []).append(slash + rest)
    return tuple((first.casefold(), first, tuple(rest)) for first, rest in follows.items())


def _folded_names(directory: str) -> frozenset[str] | None:
    """Return the names in a directory, case-folded; none where nothing can be seen, None where they can't be told."""
    try:
        with os.scandir(directory) as entries:
            names = [entry.name for entry in itertools.islice(entries, _LISTED_ENTRIES_MAX + 1)]
    except (FileNotFoundError, NotADirectoryError):
        return frozenset()
    except OSError:
        # Not to be listed, and yet it may be passed through.
        return None if os.access(directory, os.X_OK, effective_ids=True) else frozenset()
    return frozenset(map(str.casefold, names)) if len(names) <= _LISTED_ENTRIES_MAX else None


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
