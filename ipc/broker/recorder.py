"""What the broker's core, its store and its sockets have to put on record, as audit events of who it is about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ipc.audit.event import AuditEvent, about
from ipc.broker.events import Record
from ipc.broker.holding import Holding
from ipc.broker.orders import Admit, ChangePolicy
from ipc.struct import replace

_ANNOUNCED_SHOWN_MAX: Final = 8


class Recorder:
    """Knows what is said of each instance in every record about it."""

    def __init__(self, holding: Holding) -> None:
        """Give events to `holding`; nobody is known."""
        self._holding = holding
        self._stamps: dict[str, AuditEvent] = {}

    def admit(self, order: Admit | ChangePolicy) -> None:
        """Know an instance from here on, or what is said of it now."""
        self._stamps[order.instance] = about(order.context, "", order.instance)

    def forget(self, instance: str) -> None:
        """Know it no longer."""
        self._stamps.pop(instance, None)

    def record(self, record: Record, now_ns: int) -> None:
        """Put on record what the core says; its ticket comes back when that is durable."""
        stamp = self._stamps.get(record.instance) or AuditEvent("", instance=record.instance)
        detail: dict[str, object] = dict(record.detail)
        if record.nearest is not None:
            detail["nearest"] = record.nearest
        quota = {"name": record.quota, "usage": record.usage, "limit": record.limit} if record.quota else None
        event = replace(
            stamp,
            event=record.event,
            action=record.action,
            resource=record.resource,
            decision=record.decision,
            code=record.code,
            reason=record.reason,
            rule=record.rule,
            actor=record.actor,
            quota=quota,
            count=record.count,
            detail=detail or None,
        )
        self._holding.record(event, record.ticket, now_ns)

    def record_handshakes(self, failed: int, announced: Sequence[str], now_ns: int) -> None:
        """Put on record that handshakes failed: whose can't be known, but who was about to make one can."""
        event = AuditEvent(
            "handshake_failed",
            decision="info",
            reason="connections to the broker came to nothing: their handshake failed, or who made it ended meanwhile",
            count=failed,
            detail={"announced": list(announced[:_ANNOUNCED_SHOWN_MAX])} if announced else None,
        )
        self._holding.record(event, 0, now_ns)

    def record_store_failed(self, reason: str, now_ns: int) -> None:
        """Put on record that the store can't be written."""
        self._holding.record(AuditEvent("store_failed", reason=reason), 0, now_ns)
