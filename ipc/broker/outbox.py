"""What goes to the workers: the messages of one turn share frames, and what a peer can't take yet waits, bounded."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import zmq

from ipc.broker.messages import MAX_BATCH, MAX_FRAME_BYTES, ToWorker, pack

FRAME_BYTES: Final = 256 * 1024
"""A batch larger than this is split: what libzmq keeps for a slow reader is bounded by frames."""
WAITING_BYTES: Final = 16 << 20
"""What may wait for one peer beside that; a peer for whom more waits reads too slowly."""
RETRY_NS: Final = 2_000_000
"""How soon what waits is tried again: ROUTER can't say when one of its peers can take more."""

Send = Callable[[bytes, bytes], bool]
"""Send a frame to a route: False when it has to read first; zmq.ZMQError when there is no such peer."""


class _Backlog:
    __slots__ = ("frames", "size_bytes")

    def __init__(self) -> None:
        self.frames: deque[bytes] = deque()
        self.size_bytes = 0


class Outbox:
    """Frames by route."""

    def __init__(self, send: Send) -> None:
        """Send with `send`."""
        self._send = send
        self._turn: dict[bytes, list[ToWorker]] = {}
        self._backlogs: dict[bytes, _Backlog] = {}
        self.gone: list[bytes] = []
        """Routes that turned out to have no peer; for the caller to take."""
        self.slow: list[bytes] = []
        """Routes whose peer reads too slowly: nothing more is kept for it; for the caller to take."""

    def add(self, route: bytes, messages: Sequence[ToWorker]) -> None:
        """Put messages behind what goes to `route` with the next `flush`."""
        turn = self._turn.get(route)
        if turn is None:
            self._turn[route] = list(messages)
        else:
            turn.extend(messages)

    def flush(self) -> None:
        """Send what came since the last time, and what waits."""
        if self._backlogs:
            for route in list(self._backlogs):
                self._drain(route)
        if self._turn:
            turn, self._turn = self._turn, {}
            for route, messages in turn.items():
                for frame in frames(messages):
                    self._put(route, frame)

    def waits(self) -> bool:
        """Whether something has to be tried again."""
        return bool(self._backlogs)

    def forget(self, route: bytes) -> None:
        """Drop what waits for a peer that is gone."""
        self._backlogs.pop(route, None)

    def _put(self, route: bytes, frame: bytes) -> None:
        backlog = self._backlogs.get(route)
        if backlog is None:
            if self._sent(route, frame) is not False:
                return
            backlog = self._backlogs[route] = _Backlog()
        if backlog.size_bytes + len(frame) > WAITING_BYTES:
            self._backlogs.pop(route)
            self.slow.append(route)
            return
        backlog.frames.append(frame)
        backlog.size_bytes += len(frame)

    def _drain(self, route: bytes) -> None:
        backlog = self._backlogs[route]
        while backlog.frames:
            sent = self._sent(route, backlog.frames[0])
            if sent is False:
                return
            if sent is None:
                break
            backlog.size_bytes -= len(backlog.frames.popleft())
        del self._backlogs[route]

    def _sent(self, route: bytes, frame: bytes) -> bool | None:
        """Try; None when there is no such peer."""
        try:
            return self._send(route, frame)
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            self.gone.append(route)
            return None


def frames(messages: Sequence[ToWorker]) -> list[bytes]:
    """Pack messages, in order, into frames of at most FRAME_BYTES; one message may be longer."""
    if len(messages) <= MAX_BATCH:
        frame = pack(messages)
        if len(frame) <= FRAME_BYTES or len(messages) == 1:
            assert len(frame) <= MAX_FRAME_BYTES
            return [frame]
    half = len(messages) // 2
    return frames(messages[:half]) + frames(messages[half:])
