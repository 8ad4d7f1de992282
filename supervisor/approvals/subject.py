"""What an approval is about: one component, exactly these bytes, exactly this set of capabilities. Pure.

`${tmp}`, `${data}` and `${component}` stand in grants by their names: the first is another directory at each start,
the second is the component's own wherever the host keeps it, and the third is wherever the package lies whose digest
this is about. So one set is the same on every host.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from typing import Final

from ipc.naming import identity_text
from ipc.policy.capability import FILE_ACTIONS, Grant
from ipc.struct import Struct, replace
from supervisor.manifest import Variables

STAND_INS: Final = Variables(component="/<component>", data="/<data>", tmp="/<tmp>")
"""Where a pattern has to be a path: no real directory has these names."""
PARTS: Final = ("action", "resource", "methods", "metadata")
_NAMES: Final = Variables(component="${component}", data="${data}", tmp="${tmp}")


class Subject(Struct, frozen=True, dict=True):
    """Component and instance, the package's digest (`Contents.digest`), and what it asks for, by name."""

    component: str
    instance: str
    package: str
    asked: tuple[Grant, ...]

    @property
    def identity(self) -> str:
        """Return `NAME`, or `NAME@INSTANCE`."""
        return identity_text(self.component, self.instance)

    @property
    def capability_set(self) -> str:
        """Return the hash of exactly what is asked for, in hexadecimal."""
        return hash_of(grant_terms(self.asked))

    @cached_property
    def key(self) -> str:
        """Return the hash of all of it: what an approval is found by."""
        return hash_of([self.component, self.instance, self.package, self.capability_set])


def hash_of(value: object) -> str:
    """Return the SHA-256 of plain values in their one JSON form, in hexadecimal."""
    material = json.dumps(value, ensure_ascii=True, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(material.encode()).hexdigest()


def grant_terms(grants: Sequence[Grant]) -> list[list[object]]:
    """Return what grants allow, in an order of their own; where they were written is no part of it."""
    terms: list[list[object]] = [
        [g.action, g.pattern_text, sorted(g.methods), sorted([name, value] for name, value in g.metadata)]
        for g in grants
    ]
    # A request twice in a manifest allows nothing more.
    return [each for _, each in sorted({json.dumps(each): each for each in terms}.items())]


def spelled_out(grants: Sequence[Grant]) -> list[dict[str, object]]:
    """Return the same with the names of its parts, as documents have it."""
    return [dict(zip(PARTS, term, strict=True)) for term in grant_terms(grants)]


def named(grants: Sequence[Grant], own: Variables) -> tuple[Grant, ...]:
    """Return grants as they lie on this host with the start's own directories by their names."""
    return tuple(_moved(grant, own, _NAMES) for grant in grants)


def placed(grants: Sequence[Grant], own: Variables = STAND_INS) -> tuple[Grant, ...]:
    """Return grants with these directories where they lie: by default somewhere that only stands in for it."""
    return tuple(_moved(grant, _NAMES, own) for grant in grants)


def named_value(value: str | int | bool, own: Variables) -> str | int | bool:
    """Return a parameter's value with the start's own directories by their names."""
    return _moved_text(value, own, _NAMES) if isinstance(value, str) else value


def placed_value(value: str | int | bool) -> str | int | bool:
    """Return such a value with what stands in for them."""
    return _moved_text(value, _NAMES, STAND_INS) if isinstance(value, str) else value


def _moved_text(text: str, old: Variables, new: Variables) -> str:
    # The component's own directory last: of a component that is developed the others may lie in it.
    for there, here in ((old.tmp, new.tmp), (old.data, new.data), (old.component, new.component)):
        if text == there or text.startswith(f"{there}/"):
            return here + text[len(there) :]
    return text


def _moved(grant: Grant, old: Variables, new: Variables) -> Grant:
    text = _moved_text(grant.pattern_text, old, new) if grant.action in FILE_ACTIONS else grant.pattern_text
    return grant if text == grant.pattern_text else replace(grant, pattern_text=text)


def grant_text(grant: Grant) -> str:
    """Return a grant in one line: `ACTION:PATTERN`, and the methods that it is limited to."""
    return " ".join([f"{grant.action}:{grant.pattern_text}", *grant.methods])
