"""Two actors in C that talk, from `airssys up`: every process and every layer is there; a guest's own clock measures.

A guest's `send` returns when the message lies in the receiver's mailbox, so that one guest sends one at a time.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench_areas._fleet import GUESTS, call, up

ROUNDS = 3
REQUESTS = 1_000
SENDS = 2_000
LONG_SENDS = 200
PAYLOAD_BYTES = 256
LONG_BYTES = 65_536
P50_BAR_US, P99_BAR_US, LONG_BAR_US = 400.0, 5_000.0, 2_000.0
LONGEST_S = 60.0
_MAY = '[capabilities.messaging]\nsend = ["{0}"]\nreceive = ["{0}"]\n[quota]\nmessage_rate = "100000/s"\n'


def _asked_us(directory: Path) -> tuple[float, float]:
    """Have one ask the other, one request after another; the middle and the 99th of a hundred."""
    call(directory, "one", f"!ask {REQUESTS} {PAYLOAD_BYTES} two")
    until_s = time.monotonic() + LONGEST_S
    while True:
        missing, failed, p50_ns, p99_ns = map(int, call(directory, "one", "!asked").split())
        if not missing and not failed:
            return p50_ns / 1e3, p99_ns / 1e3
        if failed or time.monotonic() > until_s:
            raise RuntimeError(f"{missing} requests without an answer, {failed} failed")
        time.sleep(0.5)


def _sent_us(directory: Path, count: int, payload_bytes: int) -> float:
    accepted, took_ns = map(int, call(directory, "one", f"!send {count} {payload_bytes} two").split())
    if accepted != count:
        raise RuntimeError(f"{accepted} of {count} messages were accepted")
    return took_ns / 1e3 / count


def _row(name: str, values: list[float], bar_us: float) -> dict[str, object]:
    p50 = sorted(values)[len(values) // 2]
    return {
        "name": f"guests: {name}",
        "p50": round(p50, 1),
        "p99": round(max(values), 1),
        "unit": "us",
        "n": len(values),
        "baseline": "the bar",
        "baseline_p50": bar_us,
        "ratio": round(p50 / bar_us, 3),
    }


def measure() -> Iterator[dict[str, object]]:
    """Yield rows of `ROUNDS` figures each."""
    wasm = (GUESTS / "actors" / "bench.wasm").read_bytes()
    with tempfile.TemporaryDirectory(prefix="airssys-bench-", ignore_cleanup_errors=True) as place:
        directory = Path(place)
        with up(directory, {"one": _MAY.format("two"), "two": _MAY.format("one")}, wasm):
            _sent_us(directory, SENDS, PAYLOAD_BYTES)
            asked = [_asked_us(directory) for _ in range(ROUNDS)]
            sent = [_sent_us(directory, SENDS, PAYLOAD_BYTES) for _ in range(ROUNDS)]
            long = [_sent_us(directory, LONG_SENDS, LONG_BYTES) for _ in range(ROUNDS)]
    name = f"request and response, {PAYLOAD_BYTES} B, one at a time"
    yield _row(f"{name}, p50 of {REQUESTS}", [p50 for p50, _ in asked], P50_BAR_US)
    yield _row(f"{name}, p99 of {REQUESTS}", [p99 for _, p99 in asked], P99_BAR_US)
    yield _row(f"a send of {PAYLOAD_BYTES} B until it lies in the mailbox", sent, P50_BAR_US)
    yield _row(f"a send of {LONG_BYTES >> 10} KiB until it lies in the mailbox", long, LONG_BAR_US)
