"""From what one run used to the smallest patterns that cover it. Pure: what is on disk now is asked of `Disk`.

A file that was used is named exactly. Where nearly all of a directory's files were used, one pattern names them, as
long as it reaches at most a fifth more than was used. A name that was made and is gone again gets a pattern for its
random part.
"""

from __future__ import annotations

import os.path
import re
from collections.abc import Iterable, Mapping
from typing import Final, Protocol

from ipc.policy.patterns import literal_pattern_text
from ipc.policy.rules import PARTLY_LISTED
from ipc.struct import Struct, field

READ: Final = "filesystem.read"
WRITE: Final = "filesystem.write"
LIST: Final = "filesystem.list"
USES_MAX: Final = 200_000
GATHERED_MIN: Final = 5
"""Fewer files of one directory are named one by one."""
SPARE_IN: Final = 5
"""A pattern for many may reach one file more for so many that were used: at most 1.2 times as much."""
_LOOKS: Final = frozenset(
    ["stat", "lstat", "newfstatat", "statx", "access", "faccessat", "faccessat2", "readlink", "readlinkat", "statfs"]
)
_LOOKING_ONLY: Final = " O_PATH"
_LISTING_CALL: Final = "getdents64"
_RANDOM: Final = re.compile(r"(?<=[-_.])(?=[A-Za-z]*[0-9]|[a-z]*[A-Z]|[A-Z]+[a-z])[A-Za-z0-9]{5,}|[0-9]{4,}")
_TEMPORARY: Final = re.compile(r"(te?mp)[A-Za-z0-9_]{4,}", re.IGNORECASE)


class Disk(Protocol):
    """What is asked about the file system after the run."""

    def kind(self, path: str) -> str:
        """Return file, directory, other or missing."""

    def files_beneath(self, directory: str, deep: bool) -> int | None:
        """Count the files in a directory, or in all beneath it; None when there are too many to count."""


class Uses(Struct):
    """What was used, by action and real path, with the calls that used it."""

    by_action: dict[str, dict[str, set[str]]] = field(default_factory=dict)
    count: int = 0

    def note(self, action: str, resource: str, call: str, rule: str) -> None:
        """Take one use; a listing in part needs no grant of its own: what else is granted shows the same names."""
        if rule == PARTLY_LISTED:
            return
        calls = self.by_action.setdefault(action, {}).get(resource)
        if calls is None:
            if self.count >= USES_MAX:
                return
            self.count += 1
            calls = self.by_action[action][resource] = set()
        calls.add(call)


def smallest_patterns(uses: Mapping[str, Mapping[str, Iterable[str]]], disk: Disk) -> dict[str, tuple[str, ...]]:
    """Return action → patterns that cover what was used, sorted; actions that were not used are left out."""
    uses = _by_need(uses)
    passing = _passing_patterns(uses, disk)
    patterns: dict[str, tuple[str, ...]] = {}
    for action in (READ, WRITE):
        used = [path for path in uses.get(action, {}) if disk.kind(path) != "directory" or action == WRITE]
        if used:
            patterns[action] = tuple(sorted(_covering(used, passing, disk)))
    named = [text for found in patterns.values() for text in found]
    listed: set[str] = set()
    single: set[str] = set()
    for path, calls in uses.get(LIST, {}).items():
        if path in passing:
            listed.add(passing[path])
        elif disk.kind(path) == "directory" and _LISTING_CALL in calls:
            listed.add(f"{literal_pattern_text(path).rstrip('/')}/*")
        elif not _is_reached(path, named):
            single.add(path)
    # A name of which the listing is granted anyway may be looked at by that.
    listed |= {
        literal_pattern_text(path)
        for path in single
        if f"{literal_pattern_text(os.path.dirname(path)).rstrip('/')}/*" not in listed
    }
    if listed:
        patterns[LIST] = tuple(sorted(listed))
    return patterns


def _by_need(uses: Mapping[str, Mapping[str, Iterable[str]]]) -> dict[str, dict[str, set[str]]]:
    """Turn reads of what was only looked at into listings: any right gives a look, and that one gives no more."""
    needs = {action: {path: set(calls) for path, calls in paths.items()} for action, paths in uses.items()}
    for path, calls in list(needs.get(READ, {}).items()):
        if all(call in _LOOKS or call.endswith(_LOOKING_ONLY) for call in calls):
            del needs[READ][path]
            if path not in needs.get(WRITE, {}):
                needs.setdefault(LIST, {}).setdefault(path, set()).update(calls)
    return needs


def _is_reached(path: str, patterns: list[str]) -> bool:
    """Whether something that is granted lies beneath, so that the way there may be walked anyway."""
    inner = literal_pattern_text(path).rstrip("/") + "/"
    return any(pattern.startswith(inner) for pattern in patterns)


def _passing_patterns(uses: Mapping[str, Mapping[str, Iterable[str]]], disk: Disk) -> dict[str, str]:
    """Return path → pattern for what was made under a random name and is gone again, and all that was in it."""
    gone = {path for path in uses.get(WRITE, {}) if disk.kind(path) == "missing"}
    passing: dict[str, str] = {}
    everything = {path for paths in uses.values() for path in paths}
    for path in sorted(gone):  # a directory before what is in it
        general = general_name(os.path.basename(path))
        if path in passing or general is None:
            continue
        pattern = f"{literal_pattern_text(os.path.dirname(path)).rstrip('/')}/{general}"
        passing[path] = pattern
        for inner in everything:
            if inner.startswith(path + "/"):
                passing.setdefault(inner, f"{pattern}/**")
    return passing


def general_name(name: str) -> str | None:
    """Return the pattern of a temporary file's name, its random part replaced; None when nothing of it looks random."""
    temporary = _TEMPORARY.fullmatch(name)
    if temporary:
        return f"{temporary[1]}*"
    found = list(_RANDOM.finditer(name))
    if not found:
        return None
    last = found[-1]
    return f"{literal_pattern_text(name[: last.start()])}*{literal_pattern_text(name[last.end() :])}"


def _covering(used: list[str], passing: Mapping[str, str], disk: Disk) -> set[str]:
    patterns = {passing[path] for path in used if path in passing}
    rest = sorted(path for path in used if path not in passing)
    files = [path for path in rest if disk.kind(path) == "file"]
    gathered = _gathered(files, disk)
    for path in rest:
        home = next((directory for directory in gathered if path.startswith(directory + "/")), None)
        if home is None or (gathered[home].endswith("/*") and "/" in path[len(home) + 1 :]):
            patterns.add(literal_pattern_text(path))
        else:
            patterns.add(gathered[home])
    return patterns


def _gathered(files: list[str], disk: Disk) -> dict[str, str]:
    """Return directory → the one pattern for it, for those of which nearly every file was used; outer ones first."""
    beneath: dict[str, int] = {}
    direct: dict[str, int] = {}
    for path in files:
        directory = os.path.dirname(path)
        direct[directory] = direct.get(directory, 0) + 1
        while directory != "/":
            beneath[directory] = beneath.get(directory, 0) + 1
            directory = os.path.dirname(directory)
    found: dict[str, str] = {}
    for directory in sorted(beneath):
        if any(directory.startswith(outer + "/") and found[outer].endswith("/**") for outer in found):
            continue
        literal = literal_pattern_text(directory)
        if direct.get(directory, 0) != beneath[directory] and _nearly_all(beneath[directory], disk, directory, True):
            found[directory] = f"{literal}/**"
        elif _nearly_all(direct.get(directory, 0), disk, directory, False):
            found[directory] = f"{literal}/*"
    return dict(sorted(found.items(), key=lambda item: -len(item[0])))


def _nearly_all(used: int, disk: Disk, directory: str, deep: bool) -> bool:
    if used < GATHERED_MIN:
        return False
    there = disk.files_beneath(directory, deep)
    return there is not None and there - used <= used // SPARE_IN
