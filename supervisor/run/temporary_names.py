"""Patterns for names that were made in a run and are gone again: their random part will be another next time. Pure.

Such a pattern, too, reaches at most a fifth more than was used. Where the shortest would reach more, one is tried whose
random part has the same length; else there is none, and the name stays as it was.
"""

from __future__ import annotations

import os.path
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final

from ipc.policy.patterns import PatternError, literal_pattern_text, parse_pattern
from supervisor.run.disk_view import Disk, ancestors, walk

ALIKE_MIN: Final = 5
"""So many patterns of one kind become one."""
SPARE_IN: Final = 5
"""A pattern for many may reach one file more for so many that were used: at most 1.2 times as much."""
_RANDOM: Final = re.compile(r"(?<=[-_.])(?=[A-Za-z]*[0-9]|[a-z]*[A-Z]|[A-Z]+[a-z])[A-Za-z0-9]{5,}|[0-9]{4,}")
_EIGHT: Final = re.compile(r"(?<=[-_.])(?=[a-z_]*[0-9_]|[a-z]*[b-df-hj-np-tv-z]{5})[a-z0-9_]{8}(?=\.|$)")
"""As Python's tempfile and others make them; letters alone where hardly any word has so many consonants in a row."""
_NUMBERED: Final = re.compile(r"(?:^|[-_.])[A-Za-z]{3,}([0-9]{6,})(?![A-Za-z0-9_])")
"""A word and a number, as Go's library makes them."""
_TEMPORARY: Final = re.compile(r"(te?mp)[A-Za-z0-9_]{4,}", re.IGNORECASE)


def passing_patterns(written: Mapping[str, bool], used: Iterable[str], disk: Disk) -> dict[str, str]:
    """Return path → pattern for what was made under a random name and is gone again, and all that was used in it.

    `written` says of each whether it, or something in it, was read as well: a pattern for what was is no way to read
    what was only written.
    """
    gone = {path for path in written if disk.kind(path) == "missing"}
    named: dict[tuple[str, str, str], set[str]] = {}
    outermost: set[str] = set()
    for path in sorted(gone):  # a directory before what is in it
        directory, name = os.path.split(path)
        start, end = _random_part(name)
        if start < end and outermost.isdisjoint(ancestors(path)):
            named.setdefault((directory, name[:start], name[end:]), set()).add(path)
            outermost.add(path)
    passing: dict[str, str] = {}
    for pattern, paths in _general_patterns(named, written, disk):
        passing.update((path, pattern) for path in paths)
    for path in set(used) - passing.keys():
        outer = next((directory for directory in ancestors(path) if directory in passing), None)
        if outer is not None:
            passing[path] = f"{passing[outer]}/**"
    return passing


_Name = tuple[str, str, str]
"""The directory of a name, what precedes its random part, and what follows."""


def _general_patterns(
    named: Mapping[_Name, set[str]], written: Mapping[str, bool], disk: Disk
) -> Iterator[tuple[str, set[str]]]:
    """Yield a pattern and the paths for which it stands.

    Many that end alike get one pattern, together or at least those of one directory; else each has its own. One that
    would reach too much is of the random part's length, or there is none.
    """
    alike: dict[str, list[_Name]] = {}
    for name in named:
        alike.setdefault(name[2], []).append(name)
    for names in alike.values():
        together = _together(named, names, written, disk)
        if together is not None:
            yield together
            continue
        directories = dict.fromkeys(directory for directory, _, _ in names)
        for directory in directories:
            in_one = [name for name in names if name[0] == directory]
            together = _together(named, in_one, written, disk)
            yield from [together] if together is not None else _each(named, in_one, written, disk)


def _together(
    named: Mapping[_Name, set[str]], names: Sequence[_Name], written: Mapping[str, bool], disk: Disk
) -> tuple[str, set[str]] | None:
    """Return one pattern for all of these, which end alike, where they are many and it reaches little else."""
    directories = {directory for directory, _, _ in names}
    common = os.path.commonpath(directories)
    starts, end = [start for _, start, _ in names], names[0][2]
    first = _common_start(starts)
    last = _common_start([start[len(first) :][::-1] for start in starts])[::-1]
    if len(names) < ALIKE_MIN or (common == "/" and len(directories) > 1) or not (first or last or end):
        return None
    text = "*".join(map(literal_pattern_text, (first, last, end) if last else (first, end)))
    paths = {path for name in names for path in named[name]}
    if not _may_stand(text, common, paths, written, disk, deep=len(directories) > 1):
        return None
    return within(common, f"**/{text}" if len(directories) > 1 else text), paths


def _each(
    named: Mapping[_Name, set[str]], names: Iterable[_Name], written: Mapping[str, bool], disk: Disk
) -> Iterator[tuple[str, set[str]]]:
    for directory, start, end in names:
        paths = named[directory, start, end]
        lengths = {len(os.path.basename(path)) - len(start) - len(end) for path in paths}
        any_length = "*" if start or end else "[0-9]*"  # only digits are random where nothing else is in the name
        for random in (any_length, *("?" * length for length in lengths if len(lengths) == 1)):
            text = f"{literal_pattern_text(start)}{random}{literal_pattern_text(end)}"
            if _may_stand(text, directory, paths, written, disk, deep=False):
                yield within(directory, text), paths
                break


def _may_stand(
    name_pattern: str, directory: str, paths: Collection[str], written: Mapping[str, bool], disk: Disk, deep: bool
) -> bool:
    """Whether a pattern for names in a directory, or anywhere beneath, reaches little else that is there now."""
    spare = len(paths) // SPARE_IN
    read = any(written[path] for path in paths)
    try:
        pattern = parse_pattern(f"/{name_pattern}")
    except PatternError:  # a name that no pattern can hold
        return False
    for path in walk(directory, disk, deep):
        if path is None:
            return False
        if not pattern.matches(f"/{os.path.basename(path)}"):
            continue
        for inner in (path, *walk(path, disk)):
            if inner is None:
                return False
            if disk.kind(inner) == "file" and (inner not in written or (read and not written[inner])):
                spare -= 1
            if spare < 0:
                return False
    return True


def within(directory: str, name_pattern: str) -> str:
    """Return the pattern for what `name_pattern` names in this directory."""
    return f"{literal_pattern_text(directory).rstrip('/')}/{name_pattern}"


def _random_part(name: str) -> tuple[int, int]:
    temporary = _TEMPORARY.fullmatch(name)
    if temporary:
        return temporary.end(1), len(name)
    for expression in (_EIGHT, _NUMBERED, _RANDOM):
        if found := list(expression.finditer(name)):
            return found[-1].span(expression.groups)
    return 0, 0


def _common_start(texts: Sequence[str]) -> str:
    """Return what all of them begin with."""
    low, high = min(texts), max(texts)
    return next((low[:n] for n, character in enumerate(low) if high[n : n + 1] != character), low)
