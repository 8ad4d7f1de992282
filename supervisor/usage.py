"""From what one run used to the smallest patterns that cover it. Pure: what is on disk now is asked of `Disk`.

A file that was used is named exactly. Where nearly all of a directory's files were used, one pattern names them, as
long as it reaches at most a fifth more than was used. A name that was made and is gone again gets a pattern for its
random part, by the same rule. Names that were looked for and aren't there need no more than that their directory's
names may be seen.
"""

from __future__ import annotations

import os.path
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final, Protocol

from ipc.policy.patterns import literal_pattern_text
from ipc.policy.rules import PARTLY_LISTED
from ipc.struct import Struct, field

READ: Final = "filesystem.read"
WRITE: Final = "filesystem.write"
LIST: Final = "filesystem.list"
USES_MAX: Final = 200_000
GATHERED_MIN: Final = 5
"""Fewer names of one directory are written one by one."""
SPARE_IN: Final = 5
"""A pattern for many may reach one file more for so many that were used: at most 1.2 times as much."""
VISITED_MAX: Final = 20_000
"""A directory with more entries than this beneath is not counted, and so never named as a whole."""
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
        """Return file, directory, other or missing; a symbolic link is other."""

    def names(self, directory: str) -> Sequence[str] | None:
        """Return the names in a directory; None where they can't be listed."""


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


class Patterns(Struct):
    """The patterns of one action, and how they say yes to a path."""

    texts: set[str] = field(default_factory=set)
    exact: set[str] = field(default_factory=set)
    whole: dict[str, bool] = field(default_factory=dict)
    """Directory → whether all beneath it is covered, or only what is directly in it."""

    def cover(self, path: str) -> bool:
        """Whether one of them covers this path."""
        return path in self.exact or os.path.dirname(path) in self.whole or self._deep(path)

    def lists(self, directory: str) -> bool:
        """Whether all names in this directory may be seen by what covers what is in it."""
        return directory in self.whole or self._deep(directory)

    def _deep(self, path: str) -> bool:
        return any(self.whole.get(directory) for directory in _ancestors(path))


def smallest_patterns(uses: Mapping[str, Mapping[str, Iterable[str]]], disk: Disk) -> dict[str, tuple[str, ...]]:
    """Return action → patterns that cover what was used, sorted; actions that were not used are left out."""
    needs = _by_need(uses)
    passing = _passing_patterns(needs, disk)
    found: dict[str, Patterns] = {}
    seen: dict[str, set[str]] = {path: set(calls) for path, calls in needs.get(LIST, {}).items()}
    for action in (READ, WRITE):
        used = [path for path in needs.get(action, {}) if disk.kind(path) != "directory" or action == WRITE]
        found[action] = _covering(used, passing, disk)
    looked_for = _looked_for(needs, found[READ], passing, disk)
    found[READ].texts -= {literal_pattern_text(path) for paths in looked_for.values() for path in paths}
    found[READ].exact -= {path for paths in looked_for.values() for path in paths}
    found[LIST] = _listings(seen, looked_for, found, passing, disk)
    return {action: tuple(sorted(patterns.texts)) for action, patterns in found.items() if patterns.texts}


def _by_need(uses: Mapping[str, Mapping[str, Iterable[str]]]) -> dict[str, dict[str, set[str]]]:
    """Turn reads of what was only looked at into listings: any right gives a look, and that one gives no more."""
    needs = {action: {path: set(calls) for path, calls in paths.items()} for action, paths in uses.items()}
    for path, calls in list(needs.get(READ, {}).items()):
        if all(call in _LOOKS or call.endswith(_LOOKING_ONLY) for call in calls):
            del needs[READ][path]
            if path not in needs.get(WRITE, {}):
                needs.setdefault(LIST, {}).setdefault(path, set()).update(calls)
    return needs


def _looked_for(
    needs: Mapping[str, Mapping[str, set[str]]], read: Patterns, passing: Mapping[str, str], disk: Disk
) -> dict[str, set[str]]:
    """Return directory → names that were looked for in vain there, where they are many, as along a search path."""
    missing: dict[str, set[str]] = {}
    for path in needs.get(READ, {}):
        if path in read.exact and path not in passing and disk.kind(path) == "missing":
            missing.setdefault(os.path.dirname(path), set()).add(path)
    written = needs.get(WRITE, {})
    return {
        directory: paths
        for directory, paths in missing.items()
        if len(paths) >= GATHERED_MIN and directory != "/" and not any(path in written for path in paths)
    }


def _listings(
    seen: Mapping[str, set[str]],
    looked_for: Mapping[str, set[str]],
    found: Mapping[str, Patterns],
    passing: Mapping[str, str],
    disk: Disk,
) -> Patterns:
    """Return what has to be listed beside what is read or written anyway."""
    listed = Patterns()
    directories = {
        path
        for path, calls in seen.items()
        if path not in passing
        and _LISTING_CALL in calls
        and disk.kind(path) == "directory"
        and not found[READ].lists(path)
    }
    directories.update(directory for directory in looked_for if not found[READ].lists(directory))
    for directory in sorted(directories):
        if listed.lists(directory):
            continue
        deep = directory != "/" and _is_whole_tree(directory, directories, disk)
        listed.whole[directory] = deep
        listed.texts.add(f"{literal_pattern_text(directory).rstrip('/')}/{'' if deep else '*'}")
    named = [text for action in (READ, WRITE) for text in found[action].texts] + list(listed.texts)
    for path, calls in seen.items():
        if path in passing and _LISTING_CALL in calls:
            listed.texts.add(passing[path] if passing[path].endswith("/**") else f"{passing[path]}/*")
        elif path in passing or path in directories:
            continue
        elif not (listed.cover(path) or any(found[a].cover(path) for a in (READ, WRITE)) or _is_reached(path, named)):
            listed.texts.add(literal_pattern_text(path))
    return listed


def _is_whole_tree(directory: str, listed: Collection[str], disk: Disk) -> bool:
    """Whether nearly all directories beneath this one were listed, and they are many."""
    beneath = sum(1 for path in listed if path == directory or path.startswith(directory + "/"))
    if beneath < GATHERED_MIN:
        return False
    more = beneath // SPARE_IN
    for path in _walk(directory, disk):
        if path is None or (disk.kind(path) == "directory" and path not in listed):
            more -= 1
        if path is None or more < 0:
            return False
    return True


def _is_reached(path: str, patterns: list[str]) -> bool:
    """Whether something that is granted lies beneath, so that the way there may be walked anyway."""
    inner = literal_pattern_text(path).rstrip("/") + "/"
    return any(pattern.startswith(inner) for pattern in patterns)


def _passing_patterns(uses: Mapping[str, Mapping[str, Iterable[str]]], disk: Disk) -> dict[str, str]:
    """Return path → pattern for what was made under a random name and is gone again, and all that was in it."""
    gone = {path for path in uses.get(WRITE, {}) if disk.kind(path) == "missing"}
    everything = {path for paths in uses.values() for path in paths}
    groups: dict[tuple[str, str], set[str]] = {}
    inside: dict[str, str] = {}
    for path in sorted(gone):  # a directory before what is in it
        general = general_name(os.path.basename(path))
        if general is None or any(directory in inside for directory in _ancestors(path)):
            continue
        groups.setdefault((os.path.dirname(path), general), set()).add(path)
        inside[path] = general
    passing: dict[str, str] = {}
    for (directory, general), paths in groups.items():
        names = {os.path.basename(path) for path in paths}
        # The random part of a fixed length, where one of any length would reach too much; else no pattern at all.
        lengths = {len(name) for name in names}
        fixed = {_of_one_length(name) for name in names} if len(lengths) == 1 else set()
        for choice in (general, *(fixed if len(fixed) == 1 else ())):
            if choice is not None and _may_stand(choice, directory, names, everything, disk):
                pattern = f"{literal_pattern_text(directory).rstrip('/')}/{choice}"
                passing.update((path, pattern) for path in paths)
                break
    for path in everything - passing.keys():
        outer = next((directory for directory in _ancestors(path) if directory in passing), None)
        if outer is not None:
            passing[path] = f"{passing[outer]}/**"
    return passing


def _may_stand(general: str, directory: str, names: set[str], used: Collection[str], disk: Disk) -> bool:
    """Whether a pattern for these names reaches little else that is there now."""
    spare = len(names) // SPARE_IN
    expression = _expression(general)
    for name in disk.names(directory) or ():
        if name in names or not expression.fullmatch(name):
            continue
        path = f"{directory.rstrip('/')}/{name}"
        for inner in (path, *_walk(path, disk)):
            if inner is None:
                return False
            if disk.kind(inner) == "file" and inner not in used:
                spare -= 1
            if spare < 0:
                return False
    return True


def _expression(general: str) -> re.Pattern[str]:
    parts = {"*": ".*", "?": "."}
    found = re.findall(r"\[.\]|.", general, re.DOTALL)
    return re.compile(
        "".join(parts.get(part, re.escape(part[1] if len(part) == 3 else part)) for part in found), re.DOTALL
    )


def general_name(name: str) -> str | None:
    """Return the pattern of a temporary file's name, its random part replaced; None when nothing of it looks random."""
    start, end = _random_part(name)
    return None if start == end else f"{literal_pattern_text(name[:start])}*{literal_pattern_text(name[end:])}"


def _of_one_length(name: str) -> str | None:
    start, end = _random_part(name)
    if start == end:
        return None
    return f"{literal_pattern_text(name[:start])}{'?' * (end - start)}{literal_pattern_text(name[end:])}"


def _random_part(name: str) -> tuple[int, int]:
    temporary = _TEMPORARY.fullmatch(name)
    if temporary:
        return temporary.end(1), len(name)
    found = list(_RANDOM.finditer(name))
    return found[-1].span() if found else (0, 0)


def _covering(used: list[str], passing: Mapping[str, str], disk: Disk) -> Patterns:
    patterns = Patterns({passing[path] for path in used if path in passing}, {path for path in used if path in passing})
    rest = [path for path in used if path not in passing]
    gathered = _gathered([path for path in rest if disk.kind(path) == "file"], disk)
    patterns.whole.update(gathered)
    for path in rest:
        parent = os.path.dirname(path)
        home = next((directory for directory in _ancestors(path) if gathered.get(directory)), None)
        if home is None and parent in gathered:
            home = parent
        if home is None:
            patterns.texts.add(literal_pattern_text(path))
            patterns.exact.add(path)
        else:
            patterns.texts.add(f"{literal_pattern_text(home)}/{'**' if gathered[home] else '*'}")
    return patterns


def _gathered(files: list[str], disk: Disk) -> dict[str, bool]:
    """Return directory → whether all beneath it or only what is in it, for those of which nearly all was used."""
    beneath: dict[str, int] = {}
    direct: dict[str, int] = {}
    for path in files:
        parent = os.path.dirname(path)
        direct[parent] = direct.get(parent, 0) + 1
        for directory in _ancestors(path):
            beneath[directory] = beneath.get(directory, 0) + 1
    beneath.pop("/", None)
    found: dict[str, bool] = {}
    for directory in sorted(beneath):
        if any(found.get(outer) for outer in _ancestors(directory)):
            continue
        here = direct.get(directory, 0)
        if here != beneath[directory] and _nearly_all(beneath[directory], disk, directory, True):
            found[directory] = True
        elif _nearly_all(here, disk, directory, False):
            found[directory] = False
    return found


def _nearly_all(used: int, disk: Disk, directory: str, deep: bool) -> bool:
    if used < GATHERED_MIN:
        return False
    spare = used + used // SPARE_IN
    for path in _walk(directory, disk, deep):
        if path is None or disk.kind(path) == "file":
            spare -= 1
        if path is None or spare < 0:
            return False
    return True


def _walk(directory: str, disk: Disk, deep: bool = True) -> Iterator[str | None]:
    """Yield what is in a directory, or all beneath it; None where that can't be known, or is too much to look at."""
    if disk.kind(directory) != "directory":
        return
    left = VISITED_MAX
    waiting = [directory]
    while waiting:
        at = waiting.pop()
        names = disk.names(at)
        if names is None:
            yield None
            return
        for name in names:
            left -= 1
            path = f"{at.rstrip('/')}/{name}"
            yield path if left >= 0 else None
            if left < 0:
                return
            if deep and disk.kind(path) == "directory":
                waiting.append(path)


def _ancestors(path: str) -> Iterator[str]:
    """Yield the directories that a path lies in, `/` first."""
    if path != "/":
        yield "/"
    at = path.find("/", 1)
    while at > 0:
        yield path[:at]
        at = path.find("/", at + 1)
