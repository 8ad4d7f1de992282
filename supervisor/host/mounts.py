"""Other names of a place: what is mounted twice, or bound elsewhere (mount(8)), is there under several paths.

What is denied by a path is denied under each of them. The kernel says where what is mounted (proc_pid_mountinfo(5));
who could change that is root, of this machine or of the namespace.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import Final

from ipc.policy.access import AclEntry
from ipc.policy.document import PolicyDocument
from ipc.policy.patterns import literal_pattern_text, parse_pattern
from ipc.struct import Struct, replace

_MOUNTS: Final = "/proc/self/mountinfo"
_ESCAPED: Final = re.compile(r"\\([0-7]{3})")


class Mount(Struct, frozen=True):
    """A part of a file system, from `root` on, at `point`."""

    device: str
    root: str
    point: str


def read_mounts() -> tuple[Mount, ...]:
    """Return what is mounted where, as the kernel says it."""
    try:
        with open(_MOUNTS, encoding="utf-8", errors="surrogateescape") as file:
            return parse_mounts(file.read())
    except OSError:  # without /proc no worker starts anyway
        return ()


def parse_mounts(text: str) -> tuple[Mount, ...]:
    """Return all mounts, in the order in which they were made; none where no file system is mounted more than once."""
    fields = [line.split(" ", 5) for line in text.splitlines()]
    mounts = tuple(Mount(each[2], _unescaped(each[3]), _unescaped(each[4])) for each in fields if len(each) > 5)
    several = len({each.device for each in mounts}) < len(mounts)
    return mounts if several else ()


def _unescaped(text: str) -> str:
    return _ESCAPED.sub(lambda found: chr(int(found[1], 8)), text)


def other_names(path: str, mounts: Sequence[Mount]) -> Iterator[tuple[str, str]]:
    """Yield each other path of a directory or file, with "", or of something beneath it, with where that is."""
    above = [each for each in reversed(mounts) if _beneath(path, each.point) is not None]
    here = max(above, key=lambda mount: len(mount.point), default=None)  # of several at one point the last is seen
    if here is None:
        return
    inner = _joined(here.root, _beneath(path, here.point) or "")
    for each in mounts:
        if each.device != here.device or each.point == here.point:
            continue
        further, within = _beneath(inner, each.root), _beneath(each.root, inner)
        if further is not None:
            yield _joined(each.point, further), ""
        elif within is not None:
            yield each.point, within


def under_all_names(document: PolicyDocument, mounts: Sequence[Mount]) -> PolicyDocument:
    """Return a policy that denies what it denies under each name of it; what it grants it grants by its own name."""
    if not mounts:
        return document
    return replace(
        document,
        host_paths=_with_others(document.host_paths, mounts),
        path_directories=_with_others(document.path_directories, mounts),
        acl=(
            *(each for entry in document.acl for each in (entry, *_entries(entry, mounts))),
            *(each for entry in _forbidden() for each in _entries(entry, mounts)),
        ),
    )


def _forbidden() -> Iterator[AclEntry]:
    """Yield what is forbidden at its place: what is forbidden by a name anywhere has that name under each mount."""
    # Only here: on most machines nothing is mounted twice.
    from ipc.policy.forbidden_paths import FORBIDDEN_AT, WRITE_FORBIDDEN_AT

    for action, table in (("filesystem.*", FORBIDDEN_AT), ("filesystem.write", WRITE_FORBIDDEN_AT)):
        yield from (AclEntry("*", action, pattern, "deny", reason) for pattern, reason in table)


def _with_others(paths: Sequence[str], mounts: Sequence[Mount]) -> tuple[str, ...]:
    found = (name for path in paths for name, _ in other_names(path, mounts))
    return tuple(dict.fromkeys((*paths, *found)))


def _entries(entry: AclEntry, mounts: Sequence[Mount]) -> Iterator[AclEntry]:
    """Yield what a denial of files says by the other names of what its pattern begins with."""
    if entry.effect != "deny" or not entry.action.startswith("filesystem.") or not entry.resource.startswith("/"):
        return
    pattern = parse_pattern(entry.resource)
    fixed = list(takewhile(lambda token: isinstance(token, str), pattern.tokens))
    rest = "".join(f"/{segment}" for segment in entry.resource.split("/")[1 + len(fixed) :])
    for name, within in other_names("/" + "/".join(map(str, fixed)), mounts):
        literal = literal_pattern_text(name).rstrip("/")
        if not within:
            yield replace(entry, resource=f"{literal}{rest}" or "/")
        elif pattern.matches(_joined("/" + "/".join(map(str, fixed)), within)):
            yield replace(entry, resource=f"{literal}/")


def _beneath(path: str, directory: str) -> str | None:
    """Return what a path is beneath a directory, "" for the directory itself, None for neither."""
    if path == directory:
        return ""
    start = directory.rstrip("/") + "/"
    return path[len(start) :] if path.startswith(start) else None


def _joined(directory: str, rest: str) -> str:
    return f"{directory.rstrip('/')}/{rest}" if rest else directory
