"""What people send to components through the control socket. Pure.

They need no grant of a component's: who may do it was decided by the supervisor. Each call is on record, by name,
before it takes effect, and then goes the way of every message: through the mailbox.
"""

from __future__ import annotations

from typing import Final

from ipc.broker.board import Board
from ipc.broker.events import OperatorAnswered, OperatorCalled, Record
from ipc.broker.ledger import NOT_RECORDED_REASON
from ipc.broker.messages import MAX_NAME_BYTES, MAX_PAYLOAD_BYTES, ErrorKind
from ipc.broker.messaging import FULL, SEND, TIMEOUT_MAX_MS, UNKNOWN

OPERATOR: Final = "@operator"
"""The sender that a component sees: no component can have this name."""
CALLS_MAX: Final = 1_000
"""Calls of people that may be under way; each holds a payload until it is on record."""


class Operators:
    """The calls that aren't on record yet; those that wait for an answer are among the requests."""

    def __init__(self, board: Board) -> None:
        """Work on this board."""
        self._board = board
        self._calls: dict[int, OperatorCalled] = {}

    def called(self, event: OperatorCalled) -> None:
        """Put a call on record."""
        if len(event.payload) > MAX_PAYLOAD_BYTES:
            self._end(event, ErrorKind.TOO_LARGE, f"at most {MAX_PAYLOAD_BYTES} bytes")
        elif len(self._calls) + self._board.requests.calls() >= CALLS_MAX:
            self._end(event, ErrorKind.UNAVAILABLE, f"{CALLS_MAX} calls are under way already")
        elif self._board.requests.has_call(event.call) or any(each.call == event.call for each in self._calls.values()):
            self._end(event, ErrorKind.INVALID, "this call is under way already")
        else:
            target = self._board.by_name.get(event.to)
            record = Record(
                "" if target is None else target.instance,
                "operator_call",
                SEND,
                event.to[:MAX_NAME_BYTES],
                "allowed",
                actor=event.sender,
                detail=(("bytes", len(event.payload)),),
            )
            self._calls[self._board.ledger.ticketed(record)] = event

    def recorded(self, ticket: int, failed: bool, now_ns: int) -> None:
        """A call is on record: put it into the mailbox."""
        event = self._calls.pop(ticket, None)
        if event is None:
            return
        if failed:
            self._end(event, ErrorKind.UNAVAILABLE, NOT_RECORDED_REASON)
            return
        target = self._board.by_name.get(event.to)
        if target is None:
            self._end(event, UNKNOWN.kind, UNKNOWN.reason)
            return
        if len(event.payload) > target.max_payload_bytes:
            self._end(event, ErrorKind.TOO_LARGE, f"at most {target.max_payload_bytes} bytes")
            return
        requests = self._board.requests
        if not event.wants_answer:
            delivery = target.mailbox.put(OPERATOR, event.payload)
            if delivery is False:
                self._end(event, FULL.kind, FULL.reason)
                return
            self._end(event)
        else:
            timeout_ms = min(max(event.timeout_ms, 0), TIMEOUT_MAX_MS)
            pending = requests.add(None, target, now_ns + timeout_ms * 1_000_000, event.call)
            delivery = target.mailbox.put(OPERATOR, event.payload, pending.correlation)
            if delivery is False:
                requests.never_put(pending)
                self._end(event, FULL.kind, FULL.reason)
                return
            pending.delivered = delivery is not True
        if delivery is not True:
            self._board.tell(target, delivery)

    def gone(self, call: int) -> None:
        """Nobody waits for it any more."""
        for ticket, event in self._calls.items():
            if event.call == call:
                del self._calls[ticket]
                return
        self._board.requests.end_call(call)

    def _end(self, event: OperatorCalled, kind: str = "", reason: str = "") -> None:
        self._board.commands.append(OperatorAnswered(event.call, None, kind, reason))
