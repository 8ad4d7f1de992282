"""`[dev.components]` of airssys.toml: what runs in dev mode on this host, by its name and by where it lies.

The name alone is what a package says of itself; so a directory is named too, or that it is installed, and then whoever
installed it has said which package has the name.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from ipc.naming import identity_text
from ipc.struct import Struct
from supervisor.config.toml_reader import Section
from supervisor.manifest import checks

if TYPE_CHECKING:
    pass

INSTALLED: Final = "installed"
_IDENTITY: Final = re.compile(r"[a-z][a-z0-9-]{0,62}(?:@[A-Za-z0-9][A-Za-z0-9_.-]{0,62})?")


class DevComponent(Struct, frozen=True):
    """One that runs in dev mode: what lies in a directory (its real path), or with "" what is installed."""

    name: str
    instance: str
    directory: str
    origin: str
    """Where it is written."""

    @property
    def identity(self) -> str:
        """Return `NAME`, or `NAME@INSTANCE`."""
        return identity_text(self.name, self.instance)


def read_dev(section: Section) -> tuple[DevComponent, ...]:
    """Return every entry that is right; what is wrong is noted with file, line and key."""
    inner = section.section("components")
    found = []
    for identity in inner.values:
        before = len(section.document.problems)
        place = inner.text(identity, _check_place, required=True)
        if not _IDENTITY.fullmatch(identity):
            inner.problem(identity, 'a component\'s name or "NAME@INSTANCE", and no pattern', f'the key "{identity}"')
        name, _, instance = identity.partition("@")
        if instance and place not in ("", INSTALLED):
            inner.problem(identity, f'"{INSTALLED}": a directory has no instances', f'"{place}"')
        if len(section.document.problems) == before:
            directory = "" if place == INSTALLED else place.rstrip("/")
            origin = str(section.document.source.origin((*inner.path, identity)))
            found.append(DevComponent(name, instance, directory, origin))
    section.finish()
    return tuple(found)


def dev_entry(
    entries: tuple[DevComponent, ...], name: str, instance: str, directory: str, installed: bool
) -> DevComponent | None:
    """Return the entry for what is started: of what is `installed` by its name, else by name and real path."""
    place = "" if installed else directory
    return next(
        (each for each in entries if (each.name, each.instance, each.directory) == (name, instance, place)), None
    )


def _check_place(text: str) -> str | None:
    plain = checks.check_absolute_path(text) is None and text != "/" and not any(each in "*?[" for each in text)
    if text == INSTALLED or plain:
        return None
    return f'the absolute path of its directory, and no pattern, or "{INSTALLED}"'
