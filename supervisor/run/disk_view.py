"""What is asked about a disk after a run, and a walk over it that always ends. Pure: `Disk` is whoever knows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, Protocol

VISITED_MAX: Final = 20_000
"""A directory with more entries than this beneath is not counted, and so never named as a whole."""


class Disk(Protocol):
    """What is asked about the file system after the run."""

    def kind(self, path: str) -> str:
        """Return file, directory, other or missing; a symbolic link is other."""

    def names(self, directory: str) -> Sequence[str] | None:
        """Return the names in a directory; None where they can't be listed."""


def walk(directory: str, disk: Disk, deep: bool = True) -> Iterator[str | None]:
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


def ancestors(path: str) -> Iterator[str]:
    """Yield the directories that a path lies in, `/` first."""
    if path != "/":
        yield "/"
    at = path.find("/", 1)
    while at > 0:
        yield path[:at]
        at = path.find("/", at + 1)
