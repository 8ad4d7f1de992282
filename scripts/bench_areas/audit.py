"""Cost of the audit: an event made durable, by the log alone, from this process and from another one; folding."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

from ipc.audit.event import SUPERVISOR, AuditEvent
from ipc.audit.folding import Folder, key_of
from supervisor.audit.log import AuditLog
from supervisor.audit.writer import AuditWriter

ROUNDS = 300
EVENT = AuditEvent(
    "file_opened",
    component="log-summary",
    instance="log-summary-1",
    action="filesystem.read",
    resource="/var/log/app/2026/01/31.log",
    decision="allowed",
    rule='grant filesystem.read "/var/log/**" (Component.toml)',
)

_PRODUCER = """
import os, sys, time
from ipc.audit.event import AuditEvent
from ipc.audit.stream import AuditClient
client = AuditClient(sys.argv[1], *(key.encode() for key in sys.argv[2:5]))
event = AuditEvent("file_opened", component="c", action="filesystem.read", resource="/var/a.log", decision="allowed")
client.record_durable(event)
print("ready", flush=True)
for command in sys.stdin:
    begun = time.perf_counter_ns()
    if command == "one\\n":
        client.record_durable(event)
    else:
        for _ in range(2000):
            client.record(event)
        client.flush(60)
    print(time.perf_counter_ns() - begun, flush=True)
"""


def _row(name: str, unit: str, ours: list[float], baseline: str, theirs: list[float]) -> dict[str, object]:
    def percentile(values: list[float], share: float) -> float:
        return sorted(values)[min(len(values) - 1, int(len(values) * share))]

    p50, base = statistics.median(ours), statistics.median(theirs)
    return {
        "name": name,
        "p50": round(p50, 3),
        "p99": round(percentile(ours, 0.99), 3),
        "unit": unit,
        "n": len(ours),
        "baseline": baseline,
        "baseline_p50": round(base, 3),
        "ratio": round(p50 / base, 3),
    }


def _timed_us(action: Callable[[], object]) -> float:
    begun = time.perf_counter_ns()
    action()
    return (time.perf_counter_ns() - begun) / 1000


def measure() -> Iterator[dict[str, object]]:
    """Yield one row a measurement; the baseline is write(2) and fdatasync(2) of as many bytes, interleaved."""
    root = tempfile.mkdtemp(prefix="audit-bench-")
    writer = AuditWriter(AuditLog(os.path.join(root, "log")), os.path.join(root, "s"))
    plain = os.open(os.path.join(root, "plain"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    alone = AuditLog(os.path.join(root, "alone"))
    try:
        writer.start()
        line = alone.append([(EVENT, SUPERVISOR)])[0].line

        def native() -> None:
            os.write(plain, line)
            os.fdatasync(plain)

        keys = writer.new_client_keys("bench")
        arguments = [writer.endpoint, *(key.decode() for key in (writer.server_public_key, *keys))]
        command = [sys.executable, "-I", "-c", _PRODUCER, *arguments]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as producer:
            assert producer.stdin is not None
            assert producer.stdout is not None
            producer.stdout.readline()

            def remote_us(what: str) -> float:
                assert producer.stdin is not None
                assert producer.stdout is not None
                producer.stdin.write(what + "\n")
                producer.stdin.flush()
                return int(producer.stdout.readline()) / 1000

            baseline: list[float] = []
            appended: list[float] = []
            local: list[float] = []
            remote: list[float] = []
            for _ in range(ROUNDS):
                baseline.append(_timed_us(native))
                appended.append(_timed_us(lambda: alone.append([(EVENT, SUPERVISOR)])))
                local.append(_timed_us(lambda: writer.local_durable(EVENT)))
                remote.append(remote_us("one"))
            bulk = [remote_us("many") / 2000 for _ in range(5)]
            producer.stdin.close()
        name = "write + fdatasync"
        yield _row("audit.append", "us", appended, name, baseline)
        yield _row("audit.local_durable", "us", local, name, baseline)
        yield _row("audit.record_durable", "us", remote, name, baseline)
        yield _row("audit.record, in bulk, an event", "us", bulk, name, baseline)
        yield _folding()
    finally:
        writer.close()
        alone.close()
        os.close(plain)
        shutil.rmtree(root, ignore_errors=True)


def _folding() -> dict[str, object]:
    folder = Folder()
    key = key_of(EVENT)
    folder.begin(key, EVENT, 0)
    counts = {key: 0}
    loops = 2000

    def count() -> None:
        for _ in range(loops):
            counts[key] += 1

    def repeat() -> None:
        for _ in range(loops):
            folder.repeat(key, 1)

    theirs, ours = [], []
    for _ in range(50):
        theirs.append(_timed_us(count) / loops)
        ours.append(_timed_us(repeat) / loops)
    return _row("audit.fold a repeat", "us", ours, "dict increment", theirs)
