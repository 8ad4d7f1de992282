"""Which components within a component speak with the host itself, and nobody in between.

Some toolchains wrap what they make in a component, beside others of their own. What is within such a one asks the host
where it is given the very interfaces that the one around it imports, and answers it where what it exports goes straight
out, and nowhere else.

Source: the component model's Binary.md ("Instance Definitions", "Alias Definitions", "Import and Export Definitions").
"""

from __future__ import annotations

import collections
from typing import Final, NamedTuple

from worker.component_bytes import (
    ALIAS,
    CANON,
    COMPONENT,
    CORE,
    CORE_INSTANCE,
    EXPORT,
    FUNC,
    HEAD,
    IMPORT,
    INSTANCE,
    INSTANCES,
    MODULE,
    Reader,
    UnknownError,
)

OWN: Final = "airssys:core/"
LIFECYCLE: Final = OWN + "component-lifecycle@"
_TYPES, _COMPONENTS = 3, 4
_DEPTH_MAX: Final = 8


def sections_of(component: bytes) -> list[tuple[int, Reader]]:
    """Return the sections, each with its content."""
    reader, found = Reader(component, len(HEAD)), []
    while reader.at < reader.end:
        kind, size = reader.byte(), reader.number()
        start = reader.at
        reader.skip(size)
        found.append((kind, Reader(component, start, reader.at)))
    return found


def has_code_within(component: bytes, depth: int = 0) -> bool:
    """Whether components within it have code of their own: wrappers that name types anew have none."""
    for kind, section in sections_of(component):
        if depth and kind in (MODULE, CORE_INSTANCE, CANON):
            return True
        if kind == COMPONENT and (depth == _DEPTH_MAX or has_code_within(section.rest(), depth + 1)):
            return True
    return False


def read_extern(section: Reader) -> int:
    """Read what an import or export is declared to be; return its sort, CORE for a core module."""
    kind = section.byte()
    if kind == CORE:
        section.byte()
        section.number()
    elif kind == _TYPES:
        if section.byte() == 0:
            section.number()
    elif kind in (FUNC, _COMPONENTS, INSTANCES):
        section.number()
    else:
        raise UnknownError
    return kind


def read_name(section: Reader) -> str:
    """Read the name of an import or export."""
    if section.byte() > 1:
        raise UnknownError
    return section.name()


class _Made(NamedTuple):
    """An instance: of which component within, and what it was given."""

    component: int
    instance: int
    given: tuple[tuple[str, int], ...]


class _Survey:
    """What one component does with those that lie in it. Instances are known by their numbers."""

    def __init__(self, component: bytes) -> None:
        self._components: list[int] = []
        """Component → which of those within it is, -1 for none."""
        self._imported: dict[int, str] = {}
        self._aliased: dict[int, tuple[int, str]] = {}
        self._made: list[_Made] = []
        self._used: set[int] = set()
        """Who is given to somebody, or asked for a function of its own."""
        self._exported: list[tuple[str, int]] = []
        self._instances = self._within = 0
        read = {IMPORT: self._import, INSTANCE: self._instance, ALIAS: self._alias, EXPORT: self._export}
        for kind, section in sections_of(component):
            if kind == COMPONENT:
                self._components.append(self._within)
                self._within += 1
            elif kind in read:
                for _ in range(section.number()):
                    read[kind](section)

    def _new_instance(self) -> int:
        self._instances += 1
        return self._instances - 1

    def _import(self, section: Reader) -> None:
        name, sort = read_name(section), read_extern(section)
        if sort == INSTANCES:
            self._imported[self._new_instance()] = name
        elif sort == _COMPONENTS:
            self._components.append(-1)

    def _instance(self, section: Reader) -> None:
        kind = section.byte()
        if kind == 0:
            component = self._components[section.number()]
            given = [(section.name(), *self._sorted(section)) for _ in range(section.number())]
            self._used |= {index for _, sort, index in given if sort == INSTANCES}
            instances = tuple((name, index) for name, sort, index in given if sort == INSTANCES)
            self._made.append(_Made(component, self._new_instance(), instances))
            return
        if kind != 1:
            raise UnknownError
        for _ in range(section.number()):
            read_name(section)
            sort, index = self._sorted(section)
            self._used |= {index} if sort == INSTANCES else set()
        self._new_instance()

    def _sorted(self, section: Reader) -> tuple[int, int]:
        sort = section.byte()
        if sort == CORE:
            section.byte()
        elif sort == _COMPONENTS:
            raise UnknownError  # who gets one can make more of it
        return sort, section.number()

    def _alias(self, section: Reader) -> None:
        sort = section.byte()
        if sort == CORE:
            section.byte()
        target, index = section.byte(), section.number()
        name = section.name() if target != 2 else str(section.number())
        if sort == _COMPONENTS:
            self._components.append(-1)
        elif sort == INSTANCES:
            self._aliased[self._new_instance()] = (index, name)
        elif sort == FUNC and index in self._aliased:
            self._used.add(index)

    def _export(self, section: Reader) -> None:
        name = read_name(section)
        sort, index = self._sorted(section)
        if section.byte():
            read_extern(section)
        if sort == INSTANCES:
            self._exported.append((name, index))
            again = self._new_instance()
            if index in self._aliased:
                self._aliased[again] = self._aliased[index]

    def direct(self) -> set[int]:
        """Return those within that are made once, are given what is imported, and whose answers go out."""
        often = collections.Counter(one.component for one in self._made)
        answers = {i: of for i, (of, name) in self._aliased.items() if name.startswith(LIFECYCLE)}
        outside = {answers[i] for name, i in self._exported if name.startswith(LIFECYCLE) and i in answers}
        outside -= self._used | {of for i, of in answers.items() if i in self._used}
        return {
            one.component
            for one in self._made
            if often[one.component] == 1 and one.instance in outside and self._asks_directly(one)
        } - {-1}

    def _asks_directly(self, one: _Made) -> bool:
        return all(self._imported.get(given) == name for name, given in one.given if name.startswith(OWN))


def direct_within(component: bytes) -> set[int]:
    """Return which of the components within, in their order, speak with whom the one around them speaks with."""
    try:
        return _Survey(component).direct()
    except (UnknownError, IndexError, UnicodeDecodeError):
        return set()
