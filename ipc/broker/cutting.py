"""Cutting off who fills the broker's memory, by a message without end or by reading nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from ipc.broker import memory
from ipc.broker.events import Malformed
from ipc.broker.peers import Connection, Peers

SILENT_READER: Final = "it doesn't read what it is sent"


class Cutting:
    """What `ipc.broker.memory` sees is done: a connection is cut, and whose it was is told."""

    def __init__(self, watch: memory.MemoryWatch, peers: Peers, tell: Callable[[Malformed], None]) -> None:
        """Look at the connections of `peers`."""
        self._watch = watch
        self._peers = peers
        self._tell = tell
        self.due_ns = 0
        """When to look next."""

    def look(self, now_ns: int) -> None:
        """See whether a message without end fills the memory, or what somebody doesn't read."""
        if not self._watch.is_high():
            self.due_ns = now_ns + memory.IDLE_NS
            return
        self.due_ns = now_ns + memory.LOOK_NS
        open_links = self._peers.open_links()
        frames = {d: -1 if connection is None else connection.frames for d, connection in open_links.items()}
        worst = self._watch.look(frames)
        if worst is None:
            self._look_unread(open_links)
            return
        connection = open_links[worst]
        memory.cut(worst)
        if connection is not None:
            keys: Sequence[tuple[str, bytes]] = ((connection.key, connection.route),)
        else:
            silent = self._peers.silent()
            keys = [(key, b"") for key in silent] if len(silent) == 1 else []
        for key, route in keys:
            self._tell(Malformed(key, route, "a message without end", 0))

    def _look_unread(self, open_links: Mapping[int, Connection | None]) -> None:
        stuck = self._watch.look_unread(d for d, connection in open_links.items() if connection is not None)
        connection = None if stuck is None else open_links[stuck]
        if stuck is not None and connection is not None:
            memory.cut(stuck)
            self._tell(Malformed(connection.key, connection.route, SILENT_READER, 0))
