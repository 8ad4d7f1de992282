"""From what one run used to the smallest patterns that cover it. Pure: what is on disk now is asked of `Disk`.

A file that was used is named exactly. Where nearly all of a directory's files were used, one pattern names them, as
long as it reaches at most a fifth more than was used. A name that was made and is gone again gets a pattern for its
random part, by the same rule. Names that were looked for and aren't there need no more than that their directory's
names may be seen. What was renamed gets under its old name every right that its new one has: else it couldn't be.
"""

from __future__ import annotations

import os.path
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Final

from ipc.policy.capability import Grant
from ipc.policy.decision import Policy, compile_policy
from ipc.policy.document import PolicyDocument
from ipc.policy.patterns import PatternError, literal_pattern_text, parse_pattern, with_any_for_refused
from ipc.policy.rules import PARTLY_LISTED
from ipc.struct import Struct, field
from ipc.syscalls import LOOKING_ONLY
from supervisor.run.disk_view import Disk, ancestors, walk
from supervisor.run.temporary_names import SPARE_IN, passing_patterns, within

READ: Final = "filesystem.read"
WRITE: Final = "filesystem.write"
LIST: Final = "filesystem.list"
USES_MAX: Final = 200_000
GATHERED_MIN: Final = 5
"""Fewer names of one directory are written one by one."""
_LOOKS: Final = frozenset(
    ["stat", "lstat", "newfstatat", "statx", "access", "faccessat", "faccessat2", "readlink", "readlinkat", "statfs"]
)
_LISTING_CALL: Final = "getdents64"
_OPENING_CALL: Final = "openat2"


class Uses(Struct):
    """What was used, by action and real path, with the calls that used it."""

    by_action: dict[str, dict[str, set[str]]] = field(default_factory=dict)
    names: dict[str, set[str]] = field(default_factory=dict)
    """Name → the names that the object under it got in a rename or by a link."""
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

    def renamed(self, old: str, new: str) -> None:
        """Take a name that became another one, or got one beside it."""
        if len(self.names) < USES_MAX:
            self.names.setdefault(old, set()).add(new)


class Patterns(Struct):
    """The patterns of one action, and how they say yes to a path."""

    texts: set[str] = field(default_factory=set)
    exact: set[str] = field(default_factory=set)
    whole: dict[str, bool] = field(default_factory=dict)
    """Directory → whether all beneath it is covered, or only what is directly in it."""
    ways: set[str] = field(default_factory=set)
    """What leads to them."""

    def add(self, text: str, path: str = "") -> None:
        """Take one more, which names `path` exactly where that is given."""
        if text not in self.texts:
            self.texts.add(text)
            self.ways.update(ancestors(text))
        if path:
            self.exact.add(path)

    def cover(self, path: str) -> bool:
        """Whether one of them covers this path."""
        return path in self.exact or os.path.dirname(path) in self.whole or self._deep(path)

    def lists(self, directory: str) -> bool:
        """Whether all names in this directory may be seen by what covers what is in it."""
        return directory in self.whole or self._deep(directory)

    def reach(self, path: str) -> bool:
        """Whether something beneath this path is granted, so that the way there may be walked anyway."""
        return literal_pattern_text(path) in self.ways

    def remove(self, paths: set[str]) -> None:
        """Take back what was named exactly."""
        self.exact -= paths
        self.texts -= {literal_pattern_text(path) for path in paths}

    def _deep(self, path: str) -> bool:
        return any(self.whole.get(directory) for directory in ancestors(path))


def smallest_patterns(
    uses: Mapping[str, Mapping[str, Iterable[str]]], disk: Disk, names: Mapping[str, Collection[str]] | None = None
) -> dict[str, tuple[str, ...]]:
    """Return action → patterns that cover what was used, sorted; actions that were not used are left out.

    `names` are the renames: old name → new ones.
    """
    names = names or {}
    needs = _by_need(uses)
    for path in _renamed_to(needs[READ], names):
        if disk.kind(path) != "directory":
            needs[READ].setdefault(path, set()).add(_OPENING_CALL)
    moved = _moved_directories(needs, names, disk)
    everything = {path for paths in needs.values() for path in paths}
    read = needs[READ].keys() | {outer for path in needs[READ] for outer in ancestors(path)}
    passing = passing_patterns({path: path in read for path in needs[WRITE]}, everything, disk)
    found: dict[str, Patterns] = {}
    for action in (READ, WRITE):
        used = [path for path in needs[action] if disk.kind(path) != "directory" or action == WRITE]
        whole = [directory for directory, actions in moved.items() if action in actions]
        found[action] = _covering(used, passing, disk, whole)
    for path in [path for path in needs[LIST] if path in moved or not moved.keys().isdisjoint(ancestors(path))]:
        del needs[LIST][path]
    seen = {path: calls for path, calls in needs[LIST].items() if path not in passing}
    looked_for = _looked_for(needs, seen, found, passing, disk)
    found[READ].remove({path for paths in looked_for.values() for path in paths})
    listed = found[LIST] = _listings(seen, looked_for, found, disk)
    for path in needs[LIST].keys() & passing.keys():
        pattern = passing[path]
        if _LISTING_CALL in needs[LIST][path]:
            listed.add(pattern if pattern.endswith("/**") else f"{pattern}/*")
        elif not any(pattern in found[action].texts for action in (READ, WRITE)):
            listed.add(pattern)
    for directory, actions in moved.items():
        pattern = passing.get(directory) or literal_pattern_text(directory)
        for action in actions:
            found[action].add(pattern if pattern.endswith("/**") else f"{pattern}/**")
    for action, path in _short_of(found, names):
        found[action].add(passing.get(path) or literal_pattern_text(path), path)
    return {action: tuple(sorted(patterns.texts)) for action, patterns in found.items() if patterns.texts}


def _moved_directories(
    needs: Mapping[str, dict[str, set[str]]], names: Mapping[str, Collection[str]], disk: Disk
) -> dict[str, set[str]]:
    """Return directory → actions that have to be granted on all beneath, for those that had several names in turn.

    A directory can only be renamed where no rule tells the two places apart. So what was used beneath one name is noted
    as used beneath the others (in `needs`), and each gets a pattern for all of it, unless that reaches much else.
    """
    outer = {directory for paths in needs.values() for path in paths for directory in ancestors(path)}
    group_of: dict[str, set[str]] = {}
    for old, new_names in names.items():
        for new in new_names:
            if any(path in outer or disk.kind(path) == "directory" for path in (old, new)):
                group = group_of.get(old, {old}) | group_of.get(new, {new})
                group_of.update(dict.fromkeys(group, group))
    beneath: dict[int, list[tuple[dict[str, set[str]], str, str]]] = {id(group): [] for group in group_of.values()}
    for paths in needs.values():
        for path in paths:
            for directory in ancestors(path):
                if directory in group_of:
                    beneath[id(group_of[directory])].append((paths, directory, path))
    moved: dict[str, set[str]] = {}
    for group in {id(group): group for group in group_of.values()}.values():
        inside = beneath[id(group)]
        if len(inside) * len(group) > USES_MAX:
            continue
        for paths, directory, path in inside:
            for other in group:
                paths.setdefault(other + path[len(directory) :], set()).update(paths[path])
        used = {action: _within_any(group, paths) for action, paths in needs.items()}
        if all(_is_whole(directory, used[READ] | used[WRITE], disk) for directory in group):
            actions = {action for action, paths in used.items() if paths - group or (action == LIST and paths)}
            moved.update((directory, actions) for directory in group)
    return moved


def _within_any(directories: set[str], paths: Iterable[str]) -> set[str]:
    return {path for path in paths if path in directories or not directories.isdisjoint(ancestors(path))}


def _is_whole(directory: str, used: Collection[str], disk: Disk) -> bool:
    """Whether nearly all files beneath a directory were used."""
    files = 0
    unused = 0
    for path in walk(directory, disk):
        if path is None:
            return False
        if disk.kind(path) == "file":
            files += 1
            unused += path not in used
    return unused <= (files - unused) // SPARE_IN


def _renamed_to(paths: Iterable[str], names: Mapping[str, Collection[str]]) -> set[str]:
    """Return the names that became one of these, over however many steps."""
    became: dict[str, list[str]] = {}
    for old, new_names in names.items():
        for new in new_names:
            became.setdefault(new, []).append(old)
    waiting = [old for path in paths for old in became.get(path, ())]
    found: set[str] = set()
    while waiting:
        old = waiting.pop()
        if old not in found:
            found.add(old)
            waiting += became.get(old, ())
    return found


def _short_of(found: Mapping[str, Patterns], names: Mapping[str, Collection[str]]) -> set[tuple[str, str]]:
    """Return (action, old name) for each right that a new name has by these patterns and the old one has not."""
    if not names:
        return set()
    policy = _policy(found)
    short: set[tuple[str, str]] = set()
    for action in (READ, LIST):
        right = action.rpartition(".")[2]
        everything = {path for old, new_names in names.items() for path in (old, *new_names)}
        having = {path for path in everything if right in policy.rights(path)}
        short.update((action, old) for old in _renamed_to(having, names) - having)
    return short


def _policy(found: Mapping[str, Patterns]) -> Policy:
    """Return the policy of a manifest that asks for these patterns, as far as it can be written."""
    grants = []
    for action, patterns in found.items():
        for text in patterns.texts:
            written = with_any_for_refused(text, undecodable=True)
            try:
                parse_pattern(written)
            except PatternError:
                continue
            grants.append(Grant(action, written, "used"))
    return compile_policy(PolicyDocument(component="used", instance="", grants=tuple(grants)))


def _by_need(uses: Mapping[str, Mapping[str, Iterable[str]]]) -> dict[str, dict[str, set[str]]]:
    """Turn what was only looked at into listings: any right gives a look, and that one is the least."""
    needs: dict[str, dict[str, set[str]]] = {READ: {}, WRITE: {}, LIST: {}}
    for action, paths in uses.items():
        for path, calls in paths.items():
            looked = all(call in _LOOKS or call.endswith(LOOKING_ONLY) for call in calls)
            needs[LIST if looked else action].setdefault(path, set()).update(calls)
    return needs


def _looked_for(
    needs: Mapping[str, Mapping[str, set[str]]],
    seen: Mapping[str, set[str]],
    found: Mapping[str, Patterns],
    passing: Mapping[str, str],
    disk: Disk,
) -> dict[str, set[str]]:
    """Return directory → names of which only this was wanted: are they there? Where they are many, as in a search path.

    So are those that were to be read and aren't there: once all names may be seen, that they are missing may be too.
    """
    exact = found[READ].exact - passing.keys() - needs[WRITE].keys()
    wanted = {path for path in exact if disk.kind(path) == "missing"}
    wanted |= {path for path in seen if _only_looked_at(path, seen, found)}
    places: dict[str, set[str]] = {}
    for path in wanted:
        places.setdefault(os.path.dirname(path), set()).add(path)
    return {place: paths for place, paths in places.items() if len(paths) >= GATHERED_MIN and place != "/"}


def _only_looked_at(path: str, seen: Mapping[str, set[str]], found: Mapping[str, Patterns]) -> bool:
    """Whether a look needs a grant of its own: nothing at or beneath it is granted, which allows one anyway."""
    if _LISTING_CALL in seen[path]:
        return False
    return not any(patterns.cover(path) or patterns.reach(path) for patterns in found.values())


def _listings(
    seen: Mapping[str, set[str]], looked_for: Iterable[str], found: Mapping[str, Patterns], disk: Disk
) -> Patterns:
    """Return what has to be listed beside what is read or written anyway."""
    listed = Patterns()
    # What was listed was a directory, also where it is gone: who removes a tree lists it first.
    there = ("directory", "missing")
    directories = {path for path, calls in seen.items() if _LISTING_CALL in calls and disk.kind(path) in there}
    directories.update(looked_for)
    directories = {path for path in directories if not found[READ].lists(path)}
    beneath = Counter(outer for directory in directories for outer in (directory, *ancestors(directory)))
    for directory in sorted(directories):
        if listed.lists(directory):
            continue
        deep = directory != "/" and _is_whole_tree(directory, directories, beneath[directory], disk)
        listed.whole[directory] = deep
        listed.add(f"{literal_pattern_text(directory).rstrip('/')}/{'' if deep else '*'}")
    granted = {**found, LIST: listed}
    for path in sorted(seen, reverse=True):  # what is beneath a directory before the directory
        if path not in directories and _only_looked_at(path, {path: set()}, granted):
            listed.add(literal_pattern_text(path))
    return listed


def _is_whole_tree(directory: str, listed: Collection[str], beneath: int, disk: Disk) -> bool:
    """Whether nearly all directories beneath this one were listed, and they are many."""
    if beneath < GATHERED_MIN:
        return False
    more = beneath // SPARE_IN
    for path in walk(directory, disk):
        if path is None or (disk.kind(path) == "directory" and path not in listed):
            more -= 1
        if path is None or more < 0:
            return False
    return True


def _covering(used: list[str], passing: Mapping[str, str], disk: Disk, whole: Collection[str]) -> Patterns:
    gathered = _gathered([path for path in used if disk.kind(path) == "file"], disk)
    gathered.update(dict.fromkeys((directory for directory in whole if directory not in passing), True))
    patterns = Patterns(whole=gathered)
    for path in used:
        parent = os.path.dirname(path)
        home = next((directory for directory in ancestors(path) if gathered.get(directory)), None)
        if home is None and parent in gathered:
            home = parent
        if home is not None:
            patterns.add(within(home, "**" if gathered[home] else "*"))
        else:
            patterns.add(passing.get(path) or literal_pattern_text(path), path)
    return patterns


def _gathered(files: list[str], disk: Disk) -> dict[str, bool]:
    """Return directory → whether all beneath it or only what is in it, for those of which nearly all was used.

    From the innermost outwards: an outer directory takes the place of the patterns within only where these are many,
    or where nothing beneath it was left unused.
    """
    beneath: dict[str, int] = {}
    direct: dict[str, int] = {}
    for path in files:
        parent = os.path.dirname(path)
        direct[parent] = direct.get(parent, 0) + 1
        for directory in ancestors(path):
            beneath[directory] = beneath.get(directory, 0) + 1
    beneath.pop("/", None)
    found: dict[str, bool] = {}
    patterns_of: dict[str, int] = {}
    for directory in sorted(beneath, key=lambda path: -path.count("/")):
        here = direct.get(directory, 0)
        inner = patterns_of.get(directory, 0)
        if _unused(here, disk, directory, False) is not None:
            found[directory] = False
            here = 1
        count = here + inner
        if inner and count > 1:
            unused = _unused(beneath[directory], disk, directory, True)
            if unused is not None and (not unused or count >= GATHERED_MIN):
                found[directory] = True
                count = 1
        outer = os.path.dirname(directory)
        patterns_of[outer] = patterns_of.get(outer, 0) + count
    return {
        directory: deep
        for directory, deep in found.items()
        if not any(found.get(outer) for outer in ancestors(directory))
    }


def _unused(used: int, disk: Disk, directory: str, deep: bool) -> int | None:
    """Return how many files of a directory weren't used; None where hardly any were, or too many weren't."""
    if used < GATHERED_MIN:
        return None
    unused = -used
    for path in walk(directory, disk, deep):
        if path is None:
            return None
        unused += disk.kind(path) == "file"
        if unused > used // SPARE_IN:
            return None
    return unused
