"""Where a value lies: in the component's own namespace, or in one that the host shares among several. Pure.

A key whose first part begins with `@` is one of the shared namespace of that name. It takes both sides: the host names
the component in airssys.toml, and the component's grant names the namespace. `**` never does, so that nobody who asked
for all keys of its own is granted others'.
"""

from __future__ import annotations

from typing import Final

from ipc.broker.events import Bounds, Rights
from ipc.broker.messages import ListKeys, StorageCall, Usage
from ipc.struct import Struct

MARK: Final = "@"
_SEPARATOR: Final = ":"
_ACTIONS: Final = ("storage.read", "storage.write")


class Namespace(Struct, frozen=True):
    """Where a call goes, and how much may lie there."""

    name: str
    limit_bytes: int | None


class Namespaces:
    """Those of one component."""

    __slots__ = ("_shared", "own")

    def __init__(self, component: str, rights: Rights, bounds: Bounds) -> None:
        """Find out which ones its grants and its host agree upon."""
        self.own = Namespace(component, bounds.storage_bytes)
        named = {_shared_name(pattern) for action in _ACTIONS for pattern in rights.granted(action)}
        self._shared = {
            each.name: Namespace(MARK + each.name, each.limit_bytes)
            for each in bounds.shared_storage
            if each.name in named
        }

    def by(self, rights: Rights, bounds: Bounds) -> Namespaces:
        """Return those of the same component by other rights; its own is the same, whatever is under way there."""
        others = Namespaces(self.own.name, rights, bounds)
        others.own = self.own
        return others

    def of(self, call: StorageCall) -> Namespace | None:
        """Return where a call goes; None for a shared one that this component doesn't have.

        A listing is of a shared one when its prefix names it whole: others are of its own keys.
        """
        if isinstance(call, Usage):
            return self.own
        if not isinstance(call, ListKeys):
            name = _shared_name(call.key)
        else:
            name = _shared_name(call.prefix) if _SEPARATOR in call.prefix else None
        return self.own if name is None else self._shared.get(name)


def _shared_name(text: str) -> str | None:
    """Return the shared namespace that a key or a pattern names, None for one's own."""
    first, _, _ = text.partition(_SEPARATOR)
    return first.removeprefix(MARK) if first.startswith(MARK) else None
