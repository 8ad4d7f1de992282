"""Cost of the whole broker (identity, CURVE, grants, quotas, records, mailboxes), against what does none of that.

All run between two other processes, in turn, with the same sizes: libzmq's own proxy, a Python loop over a ROUTER that
only swaps addresses (with and without CURVE), nats-server and redis. Rates are shown as time a message, so that less is
better; and as processor time of the process in the middle, which a busy machine changes less.
"""

from __future__ import annotations

import contextlib
import shutil
import statistics
import tempfile
from collections.abc import Iterator

from bench_areas import _relays as relays
from bench_areas._broker_stage import PAYLOAD_BYTES, Stage
from bench_areas._programs import Pair, ask_us, one_way_us

ROUNDS = 5
MESSAGES = 40_000
REQUESTS = 1_000
BATCHES = (1, 32)
CROWDS = (2, 500)
STORED_AT_ONCE = 8
STORED_S = 2

ROUTER = "bare Python ROUTER loop"
CURVE_ROUTER = "bare Python ROUTER loop, with CURVE"
PROXY = "zmq.proxy (C)"
NATS = "nats-server"
REDIS = "redis, publish and subscribe"


def _row(name: str, ours: list[float], baseline: str, theirs: list[float]) -> dict[str, object]:
    p50, base = statistics.median(ours), statistics.median(theirs) if theirs else None
    return {
        "name": f"broker.{name}",
        "p50": round(p50, 2),
        "p99": round(sorted(ours)[min(len(ours) - 1, int(len(ours) * 0.99))], 2),
        "unit": "us",
        "n": len(ours),
        "baseline": baseline if theirs else f"{baseline}: not installed",
        "baseline_p50": None if base is None else round(base, 2),
        "ratio": None if base is None else round(p50 / base, 3),
    }


@contextlib.contextmanager
def _place() -> Iterator[tuple[contextlib.ExitStack, str]]:
    with contextlib.ExitStack() as stack:
        root = tempfile.mkdtemp(prefix="bb-", dir="/tmp")
        stack.callback(shutil.rmtree, root, ignore_errors=True)
        yield stack, root


def _stage(stack: contextlib.ExitStack) -> Stage:
    root = tempfile.mkdtemp(prefix="bb-", dir="/tmp")
    stack.callback(shutil.rmtree, root, ignore_errors=True)
    return Stage(stack, root)


def _one_way() -> Iterator[dict[str, object]]:
    with _place() as (stack, root):
        ours = {batch: _stage(stack).pair(stack, MESSAGES, batch) for batch in BATCHES}
        theirs = {
            ROUTER: relays.router(stack, root, MESSAGES),
            CURVE_ROUTER: relays.router(stack, root, MESSAGES, curve=True),
            PROXY: relays.proxy(stack, root, MESSAGES),
            NATS: relays.nats(stack, root, MESSAGES),
            REDIS: relays.redis(stack, root, MESSAGES),
        }
        pairs: dict[object, Pair] = {**ours, **{name: pair for name, pair in theirs.items() if pair is not None}}
        took: dict[object, list[float]] = {name: [] for name in (*ours, *theirs)}
        used: dict[object, list[float]] = {name: [] for name in (*ours, *theirs)}
        for _ in range(ROUNDS):
            for name, pair in pairs.items():
                took_us, used_us = one_way_us(pair, MESSAGES)
                took[name].append(took_us)
                used[name].append(used_us)
    for batch in BATCHES:
        name = f"one way, {PAYLOAD_BYTES} B, {batch} a frame, a message"
        for baseline in theirs:
            yield _row(name, took[batch], baseline, took[baseline])
        yield _row(f"{name}, processor", used[batch], ROUTER, used[ROUTER])


def _requests() -> Iterator[dict[str, object]]:
    with _place() as (stack, root):
        stage = _stage(stack)
        ours = stage.pair(stack, REQUESTS, 1)
        storer = stage.storer(stack, STORED_AT_ONCE)
        theirs = relays.router(stack, root, REQUESTS)
        times: list[float] = []
        disturbed: list[float] = []
        baseline: list[float] = []
        ask_us(ours)
        for _ in range(3):
            baseline += ask_us(theirs)
            times += ask_us(ours)
            storer.tell(str(STORED_S))
            disturbed += ask_us(ours)
            storer.read()
    name = f"request and response, {PAYLOAD_BYTES} B, one at a time"
    yield _row(name, times, ROUTER, baseline)
    yield _row(f"{name}, while another component stores", disturbed, "the same, while it doesn't", times)


def _crowded() -> Iterator[dict[str, object]]:
    with _place() as (stack, _):
        pairs = {}
        for connected in CROWDS:
            stage = _stage(stack)
            pairs[connected] = stage.pair(stack, MESSAGES, BATCHES[-1])
            stage.crowd(stack, connected - 2)
        took: dict[int, list[float]] = {connected: [] for connected in CROWDS}
        used: dict[int, list[float]] = {connected: [] for connected in CROWDS}
        for _ in range(ROUNDS):
            for connected, pair in pairs.items():
                took_us, used_us = one_way_us(pair, MESSAGES)
                took[connected].append(took_us)
                used[connected].append(used_us)
    few, many = CROWDS
    name = f"one way, {many} components connected, a message"
    yield _row(name, took[many], f"the same, {few} connected", took[few])
    yield _row(f"{name}, processor", used[many], f"the same, {few} connected", used[few])


def measure() -> Iterator[dict[str, object]]:
    """Yield one row a comparison."""
    yield from _one_way()
    yield from _requests()
    yield from _crowded()
