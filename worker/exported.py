"""The functions that a component exports, by their types: for whoever lists them, and for whoever calls one."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterator
from typing import Any, Final

import wasmtime
import wasmtime.component

from ipc.struct import Struct
from worker import engine_package as package
from worker.abi import Signature, signature_of
from worker.type_words import signature_words

_SIGNATURE_CHARACTERS: Final = 2_000
_TYPES_MAX: Final = 100_000
"""Of all functions of a component together; what is beyond is left unread, and can't be called."""
_LISTED: Final = 20
_MEANT: Final = 3
_CUTOFF: Final = 0.5


class Exported(Struct, frozen=True):
    """One function. `interface` is its instance's name, "" for the root; without a signature it says `unfit`, why."""

    interface: str
    name: str
    signature: Signature | None
    unfit: str = ""

    @property
    def full_name(self) -> str:
        """Return its name with its interface, as it is asked for: `ns:pkg/iface#name`."""
        return f"{self.interface}#{self.name}" if self.interface else self.name

    @property
    def words(self) -> str:
        """Return its signature for a person, never longer than a few lines."""
        if self.signature is None:
            return f"func, can't be called: {self.unfit}"
        words = signature_words(self.signature)
        return words if len(words) <= _SIGNATURE_CHARACTERS else words[:_SIGNATURE_CHARACTERS] + "…"


class NoSuchFunctionError(Exception):
    """No export is meant by what was asked for, or more than one; the text names what there is."""


def functions_of(component: int, engine: int) -> list[Exported]:
    """Return the functions at the component's root and in the instances that it exports, in its order."""
    engine_object = package.engine_of(engine)
    left = itertools.count(_TYPES_MAX, -1)
    found: list[Exported] = []
    for name, extern in package.component_of(component).type.exports(engine_object).items():
        kind = extern.ty
        if isinstance(kind, wasmtime.component.FuncType):
            found.append(_exported("", name, kind, left))
        else:
            inside = package.functions_in(extern, engine_object)
            found += [_exported(name, inner, one, left) for inner, one in inside.items()]
    return found


_UNFIT: Final = {
    "OwnType": "a resource",
    "BorrowType": "a resource",
    "FutureType": "a future",
    "StreamType": "a stream",
}
"""Types that stand for something else than a value."""


def _exported(interface: str, name: str, kind: Any, left: Iterator[int]) -> Exported:
    try:
        return Exported(interface, name, signature_of(kind, left))
    except TypeError as error:
        words = next((words for one, words in _UNFIT.items() if one in str(error)), "")
        return Exported(
            interface,
            name,
            None,
            f"it takes or returns {words}, which is a handle and no value" if words else str(error),
        )


def find(functions: list[Exported], interface: str, name: str) -> Exported:
    """Return the function that is meant. Without an interface that at the root, else the only one of that name.

    An interface may be named in full, without its version, or by its last part.
    """
    named = [one for one in functions if one.name == name and (not interface or _is_of(one.interface, interface))]
    exact = [one for one in named if one.interface == interface]
    if exact:
        return exact[0]
    if len(named) == 1:
        return named[0]
    if named:
        raise NoSuchFunctionError(f"several functions are called {name}: {_list(named)}")
    asked = f"{interface}#{name}" if interface else name
    if not functions:
        raise NoSuchFunctionError(f"it has no function {asked}: it exports no functions")
    near = difflib.get_close_matches(name, {one.name for one in functions}, 1, _CUTOFF)
    if near:
        lines = [f"{one.full_name}: {one.words}" for one in functions if one.name == near[0]]
        raise NoSuchFunctionError("\n".join([f"it has no function {asked}; did you mean", *lines[:_MEANT]]))
    raise NoSuchFunctionError(f"it has no function {asked}; there are {_list(functions)}")


def _is_of(interface: str, asked: str) -> bool:
    unversioned = interface.partition("@")[0]
    return asked in (interface, unversioned, unversioned.rpartition("/")[2])


def _list(functions: list[Exported]) -> str:
    names = [one.full_name[:_SIGNATURE_CHARACTERS] for one in functions[:_LISTED]]
    more = len(functions) - len(names)
    return ", ".join(names) + (f" and {more} more" if more else "")
