"""Records that are held until they are durable, without anybody waiting: against the real writer of the log."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipc.audit.errors import AuditLogError
from ipc.audit.event import AuditEvent
from ipc.broker.events import Recorded
from ipc.broker.holding import DEADLINE_NS, TOO_LATE, WAITING_MAX, Holding
from supervisor.audit.log import AuditLog
from supervisor.audit.writer import AuditWriter

from .conftest import readable

pytestmark = pytest.mark.any_user

GUARD_S = 10.0


@pytest.fixture
def writer(short_dir: Path) -> Iterator[AuditWriter]:
    """A writer that wasn't started: it acknowledges nothing until it is."""
    writer = AuditWriter(AuditLog(str(short_dir / "log")), str(short_dir / "s"))
    yield writer
    writer.close()


def holding_for(writer: AuditWriter) -> Holding:
    """Return the broker's end."""
    return Holding(writer.endpoint, writer.server_public_key, *writer.new_client_keys("broker"))


def test_a_ticket_comes_back_when_its_record_is_durable(writer: AuditWriter) -> None:
    """Nothing before, each once and in order after; what has no ticket tells nothing; the descriptor wakes."""
    holding = holding_for(writer)
    now_ns = time.monotonic_ns()
    for ticket in (1, 0, 2):
        holding.record(AuditEvent("message", detail={"ticket": ticket}), ticket, now_ns)
    assert holding.take_recorded(now_ns) == []
    assert not readable(holding)
    writer.start()
    recorded: list[Recorded] = []
    until_s = time.monotonic() + GUARD_S
    while len(recorded) < 2:
        assert time.monotonic() < until_s
        if readable(holding):
            recorded += holding.take_recorded(time.monotonic_ns())
    assert recorded == [Recorded(1), Recorded(2)]
    assert holding.next_due_ns() is None
    holding.close()


def test_a_record_that_is_not_acknowledged_in_time_has_failed(writer: AuditWriter) -> None:
    """At its deadline and not before; it is recorded all the same once the log can be written."""
    holding = holding_for(writer)
    holding.record(AuditEvent("message"), 1, 0)
    assert holding.next_due_ns() == DEADLINE_NS
    assert holding.take_recorded(DEADLINE_NS - 1) == []
    assert holding.take_recorded(DEADLINE_NS) == [Recorded(1, TOO_LATE)]
    assert holding.take_recorded(2 * DEADLINE_NS) == []
    records: list[object] = []
    writer.subscribe(lambda record: records.append(record.event.event))
    writer.start()
    holding.close()
    assert records == ["message"]


def test_what_does_not_fit_in_waits_and_stops_the_reading(writer: AuditWriter) -> None:
    """Nobody blocks; the order is kept; the deadline holds for what waits too; in the end all of it is recorded."""
    holding = holding_for(writer)
    count = 8_192 + WAITING_MAX
    for number in range(count):
        assert not holding.is_full()
        holding.record(AuditEvent("message", detail={"number": number}), number + 1, 0)
    assert holding.is_full()
    late = holding.take_recorded(DEADLINE_NS)
    late += holding.take_recorded(DEADLINE_NS)
    assert [recorded.ticket for recorded in late] == list(range(1, count + 1))
    numbers: list[object] = []
    writer.subscribe(lambda record: numbers.append(record.event.detail))
    writer.start()
    holding.close()
    assert numbers == [{"number": number} for number in range(count)]


def test_a_stream_that_was_closed_is_no_success(writer: AuditWriter) -> None:
    """Asking for what is acknowledged raises; nothing is taken for recorded."""
    holding = holding_for(writer)
    holding.record(AuditEvent("message"), 1, time.monotonic_ns())
    with pytest.raises(AuditLogError):
        holding.client.close(0.1)
    with pytest.raises(AuditLogError):
        holding.take_recorded(time.monotonic_ns())
    writer.start()
