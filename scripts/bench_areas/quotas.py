"""The quotas: one check-and-consume of each kind, a governor's look; and how many bytes a component's five take.

The baseline of a check is what it replaces: a bucket of tokens in floating point, filled at each look. Rounds are
interleaved; each sample is the mean of a batch, without which the clock would cost as much as what is measured.
"""

import gc
import statistics
import tracemalloc
from collections.abc import Callable, Iterator
from time import perf_counter_ns

from ipc.policy.quotas import QuotaLimits, Quotas
from ipc.policy.rate import SpentRate
from supervisor.run.governor import Governor

ROUNDS = 400
BATCH = 50
COMPONENTS = 10_000
START_NS = 10**15


class Bucket:
    """What is written at first: tokens as a float."""

    def __init__(self, per_s: float) -> None:
        self.per_s = self.tokens = per_s
        self.then_s = 0.0

    def take(self, now_s: float, count: int = 1) -> bool:
        self.tokens = min(self.per_s, self.tokens + (now_s - self.then_s) * self.per_s)
        self.then_s = now_s
        if count > self.tokens:
            return False
        self.tokens -= count
        return True


def measure() -> Iterator[dict[str, object]]:
    """One row for each measurement."""
    many, few = Quotas(QuotaLimits(10**12, 10**7, 10**10)), Quotas(QuotaLimits(message_rate=0))
    bucket = Bucket(10**7)
    idle, busy = Governor(SpentRate(10**9, START_NS), START_NS, 0), Governor(SpentRate(10**8, START_NS), START_NS, 0)
    cases: dict[str, Callable[[int], object]] = {
        "accepted message": many.message_rate.take,
        "accepted message, as a value": many.take_messages,
        "refused message, with its numbers": few.take_messages,
        "accepted bytes of storage": lambda _: many.take_storage(1),
        "accepted bytes of bandwidth": lambda now_ns: many.take_bandwidth(now_ns, 1),
        "piece of a paced stream": lambda now_ns: many.pace_bandwidth(now_ns, 1),
        "spent CPU time": lambda now_ns: many.spend_cpu_time(now_ns, 100),
        "measured memory": many.measure_memory,
        "governor's look at an idle worker": lambda now_ns: idle.look(now_ns, 0),
        "governor's look at a busy worker": lambda now_ns: busy.look(now_ns, (now_ns - START_NS) // 10),
        "how full all five are": many.crossings,
    }
    baseline: list[float] = []
    samples: dict[str, list[float]] = {name: [] for name in cases}
    now_ns = START_NS
    for _ in range(ROUNDS):
        for name, case in cases.items():
            before = perf_counter_ns()
            for _ in range(BATCH):
                now_ns += 1000
                case(now_ns)
            samples[name].append((perf_counter_ns() - before) / BATCH / 1e3)
        before = perf_counter_ns()
        for _ in range(BATCH):
            now_ns += 1000
            bucket.take(now_ns / 1e9)
        baseline.append((perf_counter_ns() - before) / BATCH / 1e3)
    for name, values in samples.items():
        yield _row(f"quotas: {name}", values, "us", "a bucket of tokens in floating point", baseline)
    used, plain = [_bytes_each(_used_quotas) for _ in range(5)], [_bytes_each(_plain_numbers) for _ in range(5)]
    yield _row(f"quotas: one of {COMPONENTS} components, all five used", used, "B", "five floats in a dict", plain)


def _used_quotas(number: int) -> object:
    quotas = Quotas()
    now_ns = START_NS + number * 1_000_003
    quotas.take_messages(now_ns, 300 + number % 700)
    quotas.network_bandwidth.take(now_ns, 100_000 + number)
    quotas.spend_cpu_time(now_ns, 1_000_000 + number)
    quotas.take_storage(10_000 + number)
    quotas.measure_memory(250_000_000 + number)
    quotas.crossings(now_ns)
    return quotas


def _plain_numbers(number: int) -> object:
    return dict.fromkeys(("storage", "messages", "network", "cpu", "memory"), number + 0.5)


def _bytes_each(make: Callable[[int], object]) -> float:
    gc.collect()
    tracemalloc.start()
    kept = [make(number) for number in range(COMPONENTS)]
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return size / len(kept)


def _row(name: str, values: list[float], unit: str, baseline: str, baseline_values: list[float]) -> dict[str, object]:
    p50, of = statistics.median(values), statistics.median(baseline_values)
    return {
        "name": name,
        "p50": round(p50, 3),
        "p99": round(sorted(values)[int(len(values) * 0.99)], 3),
        "unit": unit,
        "n": len(values),
        "baseline": baseline,
        "baseline_p50": round(of, 3),
        "ratio": round(p50 / of, 3),
    }
