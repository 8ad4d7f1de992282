"""What an approval is about: one component, exactly these bytes, exactly this set of capabilities. Pure.

`${tmp}` and `${data}` stand in grants by their names: the first is another directory at each start, and the second is
the component's own wherever the host keeps it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from typing import Final

from ipc.policy.capability import FILE_ACTIONS, Grant
from ipc.struct import Struct, replace

TMP_STAND_IN: Final = "/<tmp>"
DATA_STAND_IN: Final = "/<data>"
"""Where a pattern has to be a path: no real directory has these names."""
PARTS: Final = ("action", "resource", "methods", "metadata")
_TMP: Final = "${tmp}"
_DATA: Final = "${data}"


class Subject(Struct, frozen=True, dict=True):
    """Component and instance, the package's digest (`Contents.digest`), and what it asks for, by name."""

    component: str
    instance: str
    package: str
    asked: tuple[Grant, ...]

    @property
    def identity(self) -> str:
        """Return `NAME`, or `NAME@INSTANCE`."""
        return f"{self.component}@{self.instance}" if self.instance else self.component

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


def named(grants: Sequence[Grant], tmp: str, data: str) -> tuple[Grant, ...]:
    """Return grants as they lie on this host with `${tmp}` and `${data}` by their names."""
    return _moved(grants, ((tmp, _TMP), (data, _DATA)))


def placed(grants: Sequence[Grant], tmp: str = TMP_STAND_IN, data: str = DATA_STAND_IN) -> tuple[Grant, ...]:
    """Return grants with the two where they lie: by default somewhere that only stands in for it."""
    return _moved(grants, ((_TMP, tmp), (_DATA, data)))


def named_value(value: str | int | bool, tmp: str, data: str) -> str | int | bool:
    """Return a parameter's value with `${tmp}` and `${data}` by their names."""
    return _moved_text(value, ((tmp, _TMP), (data, _DATA))) if isinstance(value, str) else value


def placed_value(value: str | int | bool) -> str | int | bool:
    """Return such a value with what stands in for the two."""
    return _moved_text(value, ((_TMP, TMP_STAND_IN), (_DATA, DATA_STAND_IN))) if isinstance(value, str) else value


def _moved_text(text: str, places: Sequence[tuple[str, str]]) -> str:
    for old, new in places:
        if text == old or text.startswith(f"{old}/"):
            return new + text[len(old) :]
    return text


def _moved(grants: Sequence[Grant], places: Sequence[tuple[str, str]]) -> tuple[Grant, ...]:
    def moved(grant: Grant) -> Grant:
        text = _moved_text(grant.pattern_text, places) if grant.action in FILE_ACTIONS else grant.pattern_text
        return grant if text == grant.pattern_text else replace(grant, pattern_text=text)

    return tuple(moved(grant) for grant in grants)


def grant_text(grant: Grant) -> str:
    """Return a grant in one line: `ACTION:PATTERN`, and the methods that it is limited to."""
    return " ".join([f"{grant.action}:{grant.pattern_text}", *grant.methods])
