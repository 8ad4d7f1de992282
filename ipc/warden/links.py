"""Symbolic links that a component makes, moves, or carries along beneath a directory: none leads out of its grants.

The component itself gains nothing by one that does, as every path is judged on the real object. But other programs of
the person who granted the directory follow links there.
"""

from __future__ import annotations

import errno
import os
from typing import Final

from ipc.policy.capability import WRITE
from ipc.warden.context import Context
from ipc.warden.decide import Refusal, decide_link_target, link_leads_to
from ipc.warden.files import Found, Place
from ipc.warden.held_objects import join, raw, text, through

WALKED_MAX: Final = 20_000
"""Names looked at beneath one directory that is to be moved: some ten milliseconds."""


def refuse_link(context: Context, place: Place, target: bytes) -> Refusal | None:
    """Refuse a symbolic link at this place by what its words name, and by what is really there."""
    return _refuse(context, place.parent.path, text(place.name), text(target))


def _refuse(context: Context, parent: str, name: str, target: str) -> Refusal | None:
    path, leads_to = join(parent, name), link_leads_to(parent, target)
    refusal = decide_link_target(context.policy, path, target, leads_to)
    if refusal is not None or leads_to is None:
        return refusal
    really = context.files.look(context.files.root_base(), raw(leads_to), nofollow=False).path
    return None if really == leads_to else decide_link_target(context.policy, path, target, really)


def refuse_links_beneath(context: Context, directory: Found, old: Place, new: Place) -> Refusal | None:
    """Refuse moving a directory with a symbolic link that climbs out of it, and from its new place out of grants."""
    if old.parent.identity == new.parent.identity:
        return None  # what `..` means to them stays the same
    links = links_beneath(directory)
    if links is None:
        return _stays(old, "not everything beneath it could be searched for symbolic links")
    for inside, target in links:
        parent, _, name = inside.rpartition(b"/")
        if climbs_out(inside, target):
            at = join(new.path, text(parent)) if parent else new.path
            if _refuse(context, at, text(name), text(target)) is not None:
                return _stays(old, f"the symbolic link {text(inside)!r} beneath it would lead out of what is granted")
    return None


def _stays(old: Place, reason: str) -> Refusal:
    return Refusal(errno.EXDEV, WRITE, old.path, "A1206", reason)


def climbs_out(inside: bytes, target: bytes) -> bool:
    """Whether a link at the path `inside` of a directory leads out of that by `..`; not so an absolute one."""
    if target.startswith(b"/"):
        return False
    depth = inside.count(b"/")
    for part in target.split(b"/"):
        if part == b"..":
            depth -= 1
            if depth < 0:
                return True
        elif part not in (b"", b"."):
            depth += 1
    return False


def links_beneath(directory: Found) -> list[tuple[bytes, bytes]] | None:
    """Return every symbolic link beneath a directory, as its path from there and its target.

    None when they can't all be seen: there is too much, or something that this identity may not list.
    """
    found: list[tuple[bytes, bytes]] = []
    top = raw(through(directory.descriptor))
    pending, seen = [b""], 0
    try:
        while pending:
            inside = pending.pop()
            with os.scandir(top + b"/" + inside) as entries:
                for entry in entries:
                    seen += 1
                    if seen > WALKED_MAX:
                        return None
                    if entry.is_symlink():
                        found.append((inside + entry.name, os.readlink(entry.path)))
                    elif entry.is_dir(follow_symlinks=False):
                        pending.append(inside + entry.name + b"/")
    except OSError:
        return None
    return found
