"""Reading one warden's channel: each message goes to the worker that it names, a warden's start and death to all."""

from __future__ import annotations

from typing import Protocol

from ipc.messages import WardenReady
from supervisor.host.warden_client import AboutWorker, WardenClient


class Reader(Protocol):
    """Who takes what a warden says of one worker."""

    def on_warden_said(self, message: AboutWorker) -> None:
        """Take a message about this worker."""

    def on_warden_ready(self, message: WardenReady) -> None:
        """Take the word of a warden that was started in the place of another one."""

    def on_warden_lost(self, lost: WardenClient) -> None:
        """Learn that the channel of this warden has closed."""


class WardenMail:
    """The channel to the warden of one host, whichever warden that is now, and who reads it."""

    __slots__ = ("_readers", "warden")

    def __init__(self, warden: WardenClient) -> None:
        """Read what `warden` says, or who is put in its place later."""
        self.warden = warden
        self._readers: dict[str, Reader] = {}

    def fileno(self) -> int:
        """Return the descriptor that is readable when there is something to read."""
        return self.warden.channel.fileno()

    def join(self, worker_id: str, reader: Reader) -> None:
        """From now on `reader` takes what is said of this worker."""
        self._readers[worker_id] = reader

    def leave(self, worker_id: str) -> None:
        """Nobody waits for word of this worker any more; what still comes is dropped."""
        self._readers.pop(worker_id, None)

    def read(self) -> tuple[str, ...]:
        """Take one message, or the end of the channel, to whom it concerns; return which workers that are."""
        return self._take()[0]

    def see_end(self) -> tuple[str, ...]:
        """Take what a warden that has died still said, and its end, to whom it concerns."""
        concerned, ended = self._take()
        while not ended:
            more, ended = self._take()
            concerned += more
        return concerned

    def _take(self) -> tuple[tuple[str, ...], bool]:
        warden, everybody = self.warden, tuple(self._readers)
        try:
            message = warden.receive(None)
        except (EOFError, OSError):
            for reader in tuple(self._readers.values()):
                reader.on_warden_lost(warden)
            return everybody, True
        if isinstance(message, WardenReady):
            for reader in tuple(self._readers.values()):
                reader.on_warden_ready(message)
            return everybody, False
        named = self._readers.get(message.worker_id)
        if named is None:
            return (), False
        named.on_warden_said(message)
        return (message.worker_id,), False
