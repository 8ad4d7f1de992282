"""The audit stream on real sockets: identity, acknowledgement, kills on both ends, full queues, hostile peers."""

import json
import os
import random
import resource
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq

from ipc.audit import protocol
from ipc.audit.errors import AuditLogError
from ipc.audit.event import AuditEvent, ComponentStamp
from ipc.audit.protocol import Batch, Reply, pack_batch, pack_event, unpack_reply
from ipc.audit.stream import AuditClient
from ipc.errors import AuditError
from supervisor.audit.heads import Head
from supervisor.audit.log import AuditLog
from supervisor.audit.query import Filter, last_records
from supervisor.audit.verify import verify_log
from supervisor.audit.writer import AuditWriter

GUARD_S = 30.0


class Site:
    """A log, a socket directory, and writers on them."""

    def __init__(self, root: Path) -> None:
        self.sockets = tempfile.mkdtemp(prefix="audit-")  # tmp_path may be too long for a unix socket
        self.directory = str(root / "audit")
        self.keys = zmq.curve_keypair()
        self.writers: list[AuditWriter] = []
        self.clients: list[AuditClient] = []

    def writer(self, **options: object) -> AuditWriter:
        """Start a writer."""
        path = os.path.join(self.sockets, "s")
        writer = AuditWriter(AuditLog(self.directory), path, server_keys=self.keys, **options)
        writer.start()
        self.writers.append(writer)
        return writer

    def client(self, keys: tuple[bytes, bytes], **options: int) -> AuditClient:
        """Connect a producer."""
        client = AuditClient(f"ipc://{self.sockets}/s", self.keys[0], *keys, **options)
        self.clients.append(client)
        return client

    def records(self, **wanted: str) -> list[dict[str, object]]:
        """Read the log."""
        return [found.record for found in last_records(self.directory, Filter(**wanted), None)]

    def close(self) -> None:
        """End everything, whatever state it is in."""
        for part in (*self.clients, *self.writers):
            try:
                part.close(0.2)
            except AuditError:
                continue


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A place for one log."""
    site = Site(tmp_path)
    yield site
    site.close()


def wait_until(condition: Callable[[], bool]) -> None:
    """Return when `condition` holds; a guard against hanging, not a synchronisation."""
    deadline_s = time.monotonic() + GUARD_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.005)


def test_a_durable_event_is_in_the_log_under_its_connections_name(site: Site) -> None:
    """When record_durable returns the event is on disk; producer and component come from the registration."""
    writer = site.writer()
    stamp = ComponentStamp(component="real", instance="real-1")
    client = site.client(writer.new_client_keys("worker", stamp))
    client.record_durable(AuditEvent("claimed", component="forged", resource="\udcff\x1b", detail={"producer": "x"}))
    (record,) = site.records()
    assert (record["producer"], record["component"], record["instance"]) == ("worker", "real", "real-1")
    assert record["resource"] == "\udcff\x1b"
    assert record["stream_seq"] == 1
    assert client.unacknowledged == 0


def test_an_unknown_key_is_let_in_by_nobody(site: Site) -> None:
    """A key that was never registered gets nothing recorded; once it is registered, the same client does."""
    writer = site.writer()
    keys = zmq.curve_keypair()
    client = site.client(keys)
    with pytest.raises(AuditLogError, match="not acknowledged"):
        client.record_durable(AuditEvent("e"), timeout_s=0.3)
    assert site.records() == []
    writer.register(keys[0], "late")
    client.flush(GUARD_S)
    assert [r["producer"] for r in site.records()] == ["late"]
    writer.unregister(keys[0])
    with pytest.raises(AuditLogError):
        client.record_durable(AuditEvent("e"), timeout_s=0.3)
    assert len(site.records()) == 1


def test_without_its_zap_handler_the_socket_takes_nobody(site: Site) -> None:
    """Fails closed: the socket's own options refuse every key when no handler answers; with one, they take it."""
    for enforced in (True, False):
        context = zmq.Context()
        router = context.socket(zmq.ROUTER)
        router.curve_server = True
        router.curve_secretkey = site.keys[1]
        router.zap_domain = protocol.ZAP_DOMAIN
        if enforced:
            router.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
        router.bind(f"ipc://{site.sockets}/s")
        client = site.client(zmq.curve_keypair())
        client.record(AuditEvent("e"))
        assert bool(router.poll(500 if enforced else GUARD_S * 1000)) is not enforced
        context.destroy(linger=0)


def test_the_socket_is_private_and_has_one_writer(site: Site) -> None:
    """Mode 0600, and a second writer on the same path is refused instead of taking it over."""
    writer = site.writer()
    assert os.stat(writer.socket_path).st_mode & 0o777 == 0o600
    with pytest.raises(AuditLogError, match="can't be made"):
        AuditWriter(AuditLog(site.directory), writer.socket_path).start()
    writer.local_durable(AuditEvent("still there"))


DROPPED = """
import os, sys
from ipc.audit.event import AuditEvent
from ipc.audit.stream import AuditClient
client = AuditClient(sys.argv[1], *(key.encode() for key in sys.argv[2:5]))
os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
client.record_durable(AuditEvent("first"))
print("first", flush=True)
sys.stdin.readline()
client.record_durable(AuditEvent("second"), timeout_s=20)
print("second", flush=True)
client.close()
"""


@pytest.mark.needs_root
def test_a_producer_that_dropped_its_uid_connects_and_reconnects(site: Site) -> None:
    """The socket belongs to the producer's uid: its connection outlives the drop, and can be made again after it."""
    os.chmod(site.sockets, 0o711)
    writer = site.writer(socket_owner_uid=65534)
    keys = writer.new_client_keys("warden")
    arguments = [writer.endpoint, *(key.decode() for key in (site.keys[0], *keys))]
    command = [sys.executable, "-I", "-c", DROPPED, *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdin is not None
        assert child.stdout.readline() == "first\n"
        writer.close()
        site.writer(socket_owner_uid=65534).register(keys[0], "warden")
        child.stdin.write("go\n")
        child.stdin.flush()
        assert child.stdout.readline() == "second\n"
        assert child.wait(GUARD_S) == 0
    assert [r["event"] for r in site.records()] == ["first", "second"]


PRODUCER = """
import os, sys
from ipc.audit.event import AuditEvent
from ipc.audit.stream import AuditClient
client = AuditClient(sys.argv[1], *(key.encode() for key in sys.argv[2:5]))
for number in range(100_000):
    client.record(AuditEvent("queued", correlation=str(number)))
    client.record_durable(AuditEvent("durable", correlation=str(number)))
    os.write(1, b"%d\\n" % number)
"""


@pytest.mark.any_user
def test_a_producer_killed_at_any_moment_loses_nothing_acknowledged(site: Site) -> None:
    """SIGKILL of eight producers: what each was told is durable is in the log once, in order."""
    writer = site.writer()
    chooser = random.Random(5)
    for turn in range(8):
        keys = writer.new_client_keys(f"producer-{turn}")
        arguments = [writer.endpoint, *(key.decode() for key in (site.keys[0], *keys))]
        with subprocess.Popen([sys.executable, "-I", "-c", PRODUCER, *arguments], stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            for _ in range(chooser.randrange(1, 30)):
                told = int(child.stdout.readline())
            child.send_signal(signal.SIGKILL)
            rest = child.stdout.read()
            told = max([told, *(int(x) for x in rest.splitlines(keepends=True) if x.endswith(b"\n"))])
        ours = [r for r in site.records() if r["producer"] == f"producer-{turn}"]
        positions = [r["stream_seq"] for r in ours]
        assert positions == list(range(1, len(ours) + 1))
        assert len(ours) >= 2 * (told + 1)
    assert verify_log(site.directory).fault is None


WRITER = """
import os, signal, sys
from supervisor.audit.log import AuditLog
from supervisor.audit.writer import AuditWriter
keys = tuple(key.encode() for key in sys.argv[3:5])
writer = AuditWriter(AuditLog(sys.argv[1]), sys.argv[2], server_keys=keys)
writer.register(sys.argv[5].encode(), "warden")
writer.start()
os.write(1, b"ready\\n")
signal.pause()
"""


@pytest.mark.any_user
def test_a_writer_killed_at_any_moment_records_each_event_exactly_once(site: Site) -> None:
    """SIGKILL of the writer ten times under load: a new one goes on, nothing is lost, nothing twice, order kept."""
    keys = zmq.curve_keypair()
    arguments = [site.directory, f"{site.sockets}/s", *(key.decode() for key in (*site.keys, keys[0]))]
    command = [sys.executable, "-I", "-c", WRITER, *arguments]
    client = site.client(keys)
    chooser = random.Random(7)
    stop = threading.Event()
    count = 0

    def produce() -> None:
        nonlocal count
        while not stop.is_set():
            client.record(AuditEvent("e", correlation=str(count)))
            count += 1
            if client.unacknowledged > 200:
                wait_until(lambda: client.unacknowledged < 50 or stop.is_set())

    thread = threading.Thread(target=produce)
    thread.start()
    try:
        for _ in range(10):
            with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
                assert writer.stdout is not None
                assert writer.stdout.readline() == b"ready\n"
                target = client._acked + chooser.randrange(1, 300)
                wait_until(lambda target=target: client._acked >= target)
                writer.send_signal(signal.SIGKILL)
        stop.set()
        thread.join(GUARD_S)
        with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
            client.flush(GUARD_S)
            writer.kill()
    finally:
        stop.set()
        thread.join(GUARD_S)
    assert [r["correlation"] for r in site.records(event="e")] == [str(n) for n in range(count)]
    assert verify_log(site.directory).fault is None


@pytest.mark.any_user
def test_a_full_queue_makes_the_producer_wait_and_then_fail(site: Site) -> None:
    """Without a writer nothing is dropped: five events are kept, the sixth is refused; later all five come."""
    keys = zmq.curve_keypair()
    client = site.client(keys, queue_events=5, queue_deadline_s=0.1)
    for number in range(5):
        client.record(AuditEvent("e", correlation=str(number)))
    with pytest.raises(AuditLogError, match="5 audit events wait"):
        client.record(AuditEvent("too many"))
    site.writer().register(keys[0], "warden")
    client.flush(GUARD_S)
    assert [r["correlation"] for r in site.records()] == ["0", "1", "2", "3", "4"]


def test_a_full_disk_stops_acknowledgements_and_room_resumes_them(site: Site) -> None:
    """Nothing is acknowledged while the log can't grow, each waiter hears why, and it all goes on by itself."""
    writer = site.writer()
    client = site.client(writer.new_client_keys("warden"))
    client.record_durable(AuditEvent("before"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (os.stat(writer._log.segment).st_size, hard))
    writer._log._tail.allocated_bytes = 0  # as if what was set aside were used up
    try:
        with pytest.raises(AuditLogError, match="can't be written") as caught:
            writer.local_durable(AuditEvent("refused"))
        assert "df -h" in caught.value.hint
        assert writer.trouble is not None
        client.record(AuditEvent("kept"))
        writer.local(AuditEvent("kept too"))
        with pytest.raises(AuditLogError, match=r"not acknowledged in time: the audit log .* can't be written"):
            client.record_durable(AuditEvent("late"), timeout_s=1.5)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    client.flush(GUARD_S)
    writer.flush(GUARD_S)
    assert writer.trouble is None
    names = [r["event"] for r in site.records()]
    assert sorted(names) == ["before", "kept", "kept too", "late"]
    assert verify_log(site.directory).fault is None


def test_a_lost_log_ends_the_writer_and_tells(site: Site) -> None:
    """A failed sync is fatal: waiters hear it, later calls too, and the supervisor is called."""
    told: list[AuditLogError] = []
    broken = threading.Event()

    def sync(descriptor: int) -> None:
        if broken.is_set():
            raise OSError(5, "Input/output error")
        os.fdatasync(descriptor)

    writer = AuditWriter(AuditLog(site.directory, sync=sync), f"{site.sockets}/s", on_fatal=told.append)
    writer.start()
    site.writers.append(writer)
    writer.local_durable(AuditEvent("before"))
    broken.set()
    for _ in range(2):
        with pytest.raises(AuditLogError) as caught:
            writer.local_durable(AuditEvent("after"))
        assert caught.value.fatal
    assert len(told) == 1


class Raw:
    """A peer that speaks the protocol by hand."""

    def __init__(self, site: Site, keys: tuple[bytes, bytes]) -> None:
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.curve_serverkey = site.keys[0]
        self.socket.curve_publickey, self.socket.curve_secretkey = keys
        self.socket.connect(f"ipc://{site.sockets}/s")
        self.stream = secrets.token_bytes(8)

    def ask(self, *events: bytes, first_seq: int = 1) -> list[Reply]:
        """Send a batch and return the answers up to the acknowledgement."""
        self.socket.send(pack_batch(Batch(self.stream, 0, 0, first_seq, events)))
        replies: list[Reply] = []
        while not replies or replies[-1].kind == protocol.REFUSED:
            assert self.socket.poll(GUARD_S * 1000)
            replies.append(unpack_reply(self.socket.recv()))
        return replies


@pytest.mark.any_user
def test_what_is_too_large_or_malformed_is_refused_in_its_place(site: Site) -> None:
    """A record of 20 KiB and one of garbage are refused, the refusals are in the log, the good ones around them too."""
    writer = site.writer()
    raw = Raw(site, writer.new_client_keys("worker", ComponentStamp(component="c")))
    good = pack_event(AuditEvent("good"))
    replies = raw.ask(good, b"x" * 20_000, b"\x91" * 100, good)
    assert [(r.kind, r.number) for r in replies] == [(protocol.REFUSED, 2), (protocol.REFUSED, 3), (protocol.ACK, 4)]
    records = site.records()
    assert [r["event"] for r in records] == ["good", "audit_record_refused", "audit_record_refused", "good"]
    assert [r["component"] for r in records[1:3]] == ["c", "c"]
    assert "20000 bytes" in str(records[1]["reason"])
    raw.context.destroy(linger=0)


@pytest.mark.any_user
def test_duplicates_are_dropped_and_gaps_are_asked_for(site: Site) -> None:
    """A batch sent twice is recorded once; one that skips ahead is not taken before what is missing came."""
    writer = site.writer()
    raw = Raw(site, writer.new_client_keys("worker"))
    one, two, three = (pack_event(AuditEvent("e", correlation=c)) for c in "123")
    assert raw.ask(one)[-1].number == 1
    assert raw.ask(one, two)[-1].number == 2
    assert raw.ask(three, first_seq=4)[-1].number == 2
    assert raw.ask(three, first_seq=3)[-1].number == 3
    assert [r["correlation"] for r in site.records()] == ["1", "2", "3"]
    raw.context.destroy(linger=0)


@pytest.mark.any_user
def test_a_flood_of_garbage_harms_no_neighbour(site: Site) -> None:
    """Two thousand bad frames of one peer leave a line or two, and another's events come through in between."""
    writer = site.writer()
    raw = Raw(site, writer.new_client_keys("hostile"))
    client = site.client(writer.new_client_keys("warden"))
    for number in range(2000):
        raw.socket.send_multipart([b"\xc1" * 50] * (1 + number % 3))
        if number % 500 == 0:
            client.record_durable(AuditEvent("mine"), timeout_s=GUARD_S)
    client.record_durable(AuditEvent("mine"), timeout_s=GUARD_S)
    wait_until(lambda: bool(site.records(event="audit_record_refused")))
    assert len(site.records(event="mine")) == 5
    assert 1 <= len(site.records(event="audit_record_refused")) < 50
    raw.context.destroy(linger=0)


@pytest.mark.any_user
def test_who_sends_too_fast_is_asked_to_wait_and_loses_nothing(site: Site) -> None:
    """Six hundred events at two hundred a second: all come, in order, and it takes the time it must."""
    writer = site.writer(rate_per_s=200)
    client = site.client(writer.new_client_keys("warden"))
    begun_s = time.monotonic()
    for number in range(600):
        client.record(AuditEvent("e", correlation=str(number)))
    client.flush(GUARD_S)
    assert time.monotonic() - begun_s > 0.5
    assert [r["correlation"] for r in site.records()] == [str(n) for n in range(600)]


@pytest.mark.any_user
def test_subscribers_hear_every_record_in_order_with_exact_text(site: Site) -> None:
    """Own and foreign events alike, after they are durable; one that fails is removed, and that is recorded."""
    writer = site.writer()
    heard: list[dict[str, object]] = []
    writer.subscribe(lambda record: heard.append(record.to_map()))
    writer.subscribe(lambda record: record.to_map()["no such key"])
    client = site.client(writer.new_client_keys("warden"))
    client.record_durable(AuditEvent("one", resource="a\\b\x1b"))
    assert writer.local_durable(AuditEvent("two")).seq >= 2
    writer.close()
    assert [r["seq"] for r in heard] == list(range(1, len(heard) + 1))
    assert heard[0]["resource"] == "a\\b\x1b"
    assert sum(r["event"] == "subscriber_failed" for r in heard) == 1
    assert [json.loads(json.dumps(r)) for r in site.records()] == [json.loads(json.dumps(r)) for r in heard]


@pytest.mark.any_user
def test_sealed_heads_go_to_the_journal(site: Site) -> None:
    """Each seal's own hash is told to syslog's socket, and it is a head that verification accepts as an anchor."""
    path = os.path.join(site.sockets, "log")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(path)
        journal.settimeout(GUARD_S)
        log = AuditLog(site.directory, segment_bytes=6000, journal=path)
        writer = AuditWriter(log, f"{site.sockets}/s")
        site.writers.append(writer)
        writer.start()
        for _ in range(12):
            writer.local_durable(AuditEvent("e", resource="x" * 500))
        told = journal.recv(4096).decode()
    head = Head.parse(told.rpartition("head ")[2])
    assert verify_log(site.directory, head).fault is None
    fault = verify_log(site.directory, Head(head.seq, "0" * 64)).fault
    assert fault is not None
    assert fault.kind == "head"
