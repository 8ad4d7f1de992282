"""Who sends and receives for a producer: whoever waits, one at a time, and else the stream's own thread."""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq

from ipc.audit.errors import AuditLogError
from ipc.audit.event import AuditEvent
from ipc.audit.stream import AuditClient
from ipc.errors import AuditError
from supervisor.audit.log import AuditLog
from supervisor.audit.query import Filter, last_records
from supervisor.audit.writer import AuditWriter

pytestmark = pytest.mark.any_user

GUARD_S = 30.0
THREADS = 6
EVENTS = 40


class Place:
    """A socket that producers know the keys of, before and after a writer is there."""

    def __init__(self, root: Path, sockets: str) -> None:
        self.directory = str(root / "audit")
        self._path = os.path.join(sockets, "s")
        self._server, self._producer = zmq.curve_keypair(), zmq.curve_keypair()
        self._closing = contextlib.ExitStack()
        self.progress = threading.Event()

    def writer(self) -> AuditWriter:
        """Start the writer."""
        writer = AuditWriter(AuditLog(self.directory), self._path, server_keys=self._server)
        self._closing.callback(self._close, writer)
        writer.start()
        writer.register(self._producer[0], "warden")
        return writer

    def client(self, **options: int) -> AuditClient:
        """Connect the producer."""
        endpoint, progress = f"ipc://{self._path}", self.progress
        client = AuditClient(endpoint, self._server[0], *self._producer, on_progress=progress.set, **options)
        self._closing.callback(self._close, client)
        return client

    def said(self) -> list[str]:
        """Return what is in the log, in order."""
        found = [each.record for each in last_records(self.directory, Filter(), None)]
        return [str(record["correlation"]) for record in found if record["producer"] == "warden"]

    @staticmethod
    def _close(part: AuditClient | AuditWriter) -> None:
        with contextlib.suppress(AuditError):
            part.close(0.2)

    def close(self) -> None:
        """End everything, in the order opposite to the one in which it was made."""
        self._closing.close()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """A place for one writer and one producer."""
    with tempfile.TemporaryDirectory(prefix="audit-") as sockets:  # tmp_path may be too long for a unix socket
        place = Place(tmp_path, sockets)
        yield place
        place.close()


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for a condition; fails after GUARD_S."""
    deadline_s = time.monotonic() + GUARD_S
    while not condition():
        assert time.monotonic() < deadline_s, "it did not come about"
        time.sleep(0.002)


def event(words: str) -> AuditEvent:
    """Return an event that says this."""
    return AuditEvent("e", correlation=words)


def test_many_who_wait_at_once_are_all_served(place: Place) -> None:
    """Threads that wait and threads that don't, on one stream: each event is there once, each thread's in its order."""
    writer, client, failed = place.writer(), place.client(), []

    def produce(number: int) -> None:
        try:
            for each in range(EVENTS):
                if each % 3 == number % 3:
                    client.record(event(f"{number}:{each}"))
                else:
                    client.record_durable(event(f"{number}:{each}"), GUARD_S)
                    assert client.acknowledged
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=produce, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(GUARD_S)
    client.flush(GUARD_S)
    assert not failed
    assert not any(thread.is_alive() for thread in threads)
    assert client.unacknowledged == 0
    writer.close()
    said = place.said()
    assert len(said) == THREADS * EVENTS
    for number in range(THREADS):
        assert [s for s in said if s.startswith(f"{number}:")] == [f"{number}:{each}" for each in range(EVENTS)]


def test_what_its_waiter_gave_up_is_sent_by_the_streams_own_thread(place: Place) -> None:
    """Nobody waits any more when the writer comes: what is in the queue gets there all the same."""
    client = place.client()
    with pytest.raises(AuditLogError, match="not acknowledged in time"):
        client.record_durable(event("given up"), 0.05)
    writer = place.writer()
    assert place.progress.wait(GUARD_S)
    assert client.unacknowledged == 0
    writer.close()
    assert place.said() == ["given up"]


def test_who_waits_while_another_leads_takes_over(place: Place) -> None:
    """The one who leads gives up; the one who waited behind it has its answer."""
    client, said = place.client(), []

    def wait(words: str, timeout_s: float) -> None:
        try:
            client.record_durable(event(words), timeout_s)
            said.append(words)
        except AuditLogError:
            said.append(f"not {words}")

    hasty = threading.Thread(target=wait, args=("hasty", 0.3))
    hasty.start()
    wait_until(lambda: client.unacknowledged == 1)
    patient = threading.Thread(target=wait, args=("patient", GUARD_S))
    patient.start()
    wait_until(lambda: client.unacknowledged == 2)
    hasty.join(GUARD_S)
    assert said == ["not hasty"]
    place.writer()
    patient.join(GUARD_S)
    assert said == ["not hasty", "patient"]


def test_what_comes_before_is_there_before(place: Place) -> None:
    """What is handed over together is recorded in order, and taken from the list."""
    writer, client = place.writer(), place.client()
    before = [event("1"), event("2")]
    client.record_durable(event("3"), GUARD_S, before)
    assert before == []
    writer.close()
    assert place.said() == ["1", "2", "3"]


def test_what_finds_no_room_stays_with_its_owner(place: Place) -> None:
    """The queue takes one of three: the others are not in it, and in the list still."""
    client = place.client(queue_events=1, queue_deadline_s=0.05)
    before = [event("1"), event("2")]
    with pytest.raises(AuditLogError, match="no more fit"):
        client.record_durable(event("3"), GUARD_S, before)
    assert before == [event("2")]
    assert client.unacknowledged == 1


def test_closing_ends_whoever_leads(place: Place) -> None:
    """A stream that is closed tells who waits in it, and doesn't wait for them."""
    client, ended = place.client(), []

    def wait() -> None:
        try:
            client.record_durable(event("e"), GUARD_S)
        except AuditLogError as error:
            ended.append(str(error))

    waiting = threading.Thread(target=wait)
    waiting.start()
    wait_until(lambda: client.unacknowledged == 1)
    with pytest.raises(AuditLogError):
        client.close(0.05)
    waiting.join(GUARD_S)
    assert ended == ["the audit stream was closed"]
