"""The policy core: a check that was seen before, a new one at 10, 1,000 and 10,000 patterns, and compiling a policy.

Each new check is timed by itself, reading the clock included (some 0.1 us), and each asks for a path that was never
asked for before; only the cache of decisions is emptied. Rounds over the sizes are interleaved in changing order, so
whatever else the machine does, and what the others leave in the processor's caches, falls on all alike.

The baseline of a check is what a first attempt would do: the patterns one after the other, each a compiled regular
expression (`fnmatch.translate`), until one matches; measured in the same rounds, over a sample of the same paths.
"""

import fnmatch
import random
import re
import statistics
from collections.abc import Callable, Iterator
from time import perf_counter_ns

from ipc.policy.capability import Grant
from ipc.policy.decision import Policy, PolicyDocument, compile_policy

ROUNDS = 20
CHECKS = 4000
BASELINE_CHECKS = 400
BATCH = 50  # cached checks between two readings of the clock, which itself costs as much as one
HOST_PATHS = ("/var/lib/airssys", "/run/airssys", "/etc/airssys")
PATH_DIRECTORIES = ("/usr/local/bin", "/usr/bin", "/bin", "/opt/tools/bin")

# What the patterns have in common, and a path that one of them covers.
SHAPES: dict[str, tuple[Callable[[int], str], Callable[[int, int], str]]] = {
    "trees": (lambda i: f"/srv/data/team-{i}/in/**", lambda i, k: f"/srv/data/team-{i}/in/2024/file-{k}.csv"),
    "nested globs": (lambda i: f"/srv/data/team-{i}/**/*.log", lambda i, k: f"/srv/data/team-{i}/a/b/file-{k}.log"),
    "one directory, literals": (lambda i: f"/srv/data/in/dir-{i}/", lambda i, k: f"/srv/data/in/dir-{i}/{k}"),
    "one directory, globs": (lambda i: f"/srv/data/in/file-{i}-*.csv", lambda i, k: f"/srv/data/in/file-{i}-{k}.csv"),
    "one directory, infixes": (lambda i: f"/srv/data/in/*-{i}-*.csv", lambda i, k: f"/srv/data/in/{k}-{i}-x.csv"),
    "one directory, suffixes": (lambda i: f"/srv/data/in/*-{i}.csv", lambda i, k: f"/srv/data/in/{k}-{i}.csv"),
}


def measure() -> Iterator[dict[str, object]]:
    """One row for each measurement."""
    generator = random.Random(7)
    for shape, (pattern, path) in SHAPES.items():
        yield from _shape(shape, pattern, path, generator)
    yield _denied(generator)
    yield _seen()
    yield _compile()


def _policy(patterns: list[str]) -> Policy:
    return compile_policy(
        PolicyDocument(
            "bench",
            "",
            grants=tuple(Grant("filesystem.read", text, "bench") for text in patterns),
            host_paths=HOST_PATHS,
            path_directories=PATH_DIRECTORIES,
        )
    )


def _new_checks(policy: Policy, paths: list[str]) -> list[float]:
    """Microseconds of each check of paths that were not asked about before."""
    forget_decisions(policy)
    samples = []
    for path in paths:
        before = perf_counter_ns()
        policy.decide("filesystem.read", path)
        samples.append((perf_counter_ns() - before) / 1e3)
    return samples


def forget_decisions(policy: Policy) -> None:
    """Empty the caches of decisions, which are measured by themselves."""
    for decider in policy._deciders.values():
        decider.seen.clear()


def _shape(
    shape: str, pattern: Callable[[int], str], path: Callable[[int, int], str], generator: random.Random
) -> Iterator[dict[str, object]]:
    sizes = [10, 1000, 10_000]
    policies = {size: _policy([pattern(i) for i in range(size)]) for size in sizes}
    expressions = {size: [re.compile(fnmatch.translate(pattern(i))) for i in range(size)] for size in (10, 1000)}
    samples: dict[int, list[float]] = {size: [] for size in sizes}
    baselines: dict[int, list[float]] = {size: [] for size in sizes}
    for round_ in range(ROUNDS):
        for size in generator.sample(sizes, len(sizes)):
            wanted = [path(generator.randrange(size), round_ * CHECKS + k) for k in range(CHECKS // ROUNDS)]
            samples[size] += _new_checks(policies[size], wanted)
        for size, compiled in expressions.items():
            for k in range(BASELINE_CHECKS // ROUNDS):
                one = path(generator.randrange(size), k)
                before = perf_counter_ns()
                any(expression.match(one) for expression in compiled)
                baselines[size].append((perf_counter_ns() - before) / 1e3)
    smallest = statistics.median(samples[10])
    for size in sizes:
        row = _row(f"policy: new check, {shape}, {size} patterns", samples[size])
        if baselines[size]:
            _against(row, "compiled regular expressions in turn", statistics.median(baselines[size]))
        else:
            _against(row, "the same with 10 patterns", smallest)
        yield row


def _denied(generator: random.Random) -> dict[str, object]:
    policy = _policy([f"/srv/data/team-{i}/in/**" for i in range(1000)])
    samples: dict[str, list[float]] = {"in": [], "out": []}
    for round_ in range(ROUNDS):
        for kind in samples:
            paths = [f"/srv/data/team-{generator.randrange(1000)}/{kind}/x/file-{round_}-{k}" for k in range(200)]
            samples[kind] += _new_checks(policy, paths)
    row = _row("policy: new check that is denied, with its nearest grant, 1000 patterns", samples["out"])
    return _against(row, "the same when allowed", statistics.median(samples["in"]))


def _seen() -> dict[str, object]:
    policy = _policy([f"/srv/data/team-{i}/in/**" for i in range(1000)])
    paths = [f"/srv/data/team-{i}/in/x/file" for i in range(BATCH)]
    plain = {("filesystem.read", path): policy.decide("filesystem.read", path) for path in paths}
    samples, baseline = [], []
    for _ in range(200):
        before = perf_counter_ns()
        for path in paths:
            policy.decide("filesystem.read", path)
        samples.append((perf_counter_ns() - before) / len(paths) / 1e3)
        before = perf_counter_ns()
        for path in paths:
            plain.get(("filesystem.read", path))
        baseline.append((perf_counter_ns() - before) / len(paths) / 1e3)
    row = _row("policy: check seen before", samples)
    return _against(row, "a dictionary of the answers", statistics.median(baseline))


def _compile() -> dict[str, object]:
    patterns = [f"/home/me/project-{i}/**/*.json" for i in range(10)]
    samples, baseline = [], []
    for _ in range(100):
        before = perf_counter_ns()
        _policy(patterns)
        samples.append((perf_counter_ns() - before) / 1e3)
        re.purge()
        before = perf_counter_ns()
        for text in patterns:
            re.compile(fnmatch.translate(text))
        baseline.append((perf_counter_ns() - before) / 1e3)
    row = _row("policy: compile a document with 10 grants", samples)
    return _against(row, "compile 10 regular expressions", statistics.median(baseline))


def _row(name: str, samples_us: list[float]) -> dict[str, object]:
    ordered = sorted(samples_us)
    return {
        "name": name,
        "p50": round(statistics.median(ordered), 3),
        "p99": round(ordered[int(len(ordered) * 0.99)], 3),
        "unit": "us",
        "n": len(ordered),
    }


def _against(row: dict[str, object], baseline: str, baseline_p50_us: float) -> dict[str, object]:
    p50 = row["p50"]
    assert isinstance(p50, float)
    row["baseline"] = baseline
    row["baseline_p50"] = round(baseline_p50_us, 3)
    row["ratio"] = round(p50 / baseline_p50_us, 3)
    return row
