"""What a start pays for an installed component: the registry asked, each file compared, and trust decided.

Of a component of 30 kB and of one of 18 MB, each with ten files beside its program and among fifty others. The
program's digest is taken of the copy that is compiled or run, at each start, installed or not, and isn't in it. The
baseline is the same directory, every byte of it read and hashed.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Iterator
from time import perf_counter_ns

from supervisor.cli.targets import open_installed
from supervisor.config import places
from supervisor.packages.directory import copy_directory, read_directory
from supervisor.packages.installed import Installed
from supervisor.packages.installing import enter
from supervisor.packages.naming import Permitted
from supervisor.packages.provenance import Fetched, Provenance
from supervisor.packages.registry import Registry
from supervisor.packages.store import PackageStore
from supervisor.signing.keys import read_public_key
from supervisor.trust.installed import judge_installed
from supervisor.trust.sources import KeySource, LocalSource

ROUNDS = 200
OTHERS = 50
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGsyfOZGhJXUmSmLBLvDbqHJVHXUEmIuGLYEW/wDjQxP"
SOURCES = (
    *(LocalSource(number, "bench", f"/srv/components/{number}/*") for number in range(10)),
    KeySource(10, "bench", read_public_key(KEY)),
)
SIZES = {"small": 30_000, "18 MB": 18_000_000}


def measure() -> Iterator[dict[str, object]]:
    """One row for each size."""
    with tempfile.TemporaryDirectory(prefix="ab-") as place:
        state = os.path.join(place, "state")
        directories = {name: _install(place, state, f"c{size}", size) for name, size in SIZES.items()}
        for number in range(OTHERS):
            _install(place, state, f"other-{number}", 1_000 + number)
        for name, size in SIZES.items():
            yield _row(name, state, f"c{size}", directories[name])


def _row(name: str, state: str, called: str, directory: str) -> dict[str, object]:
    ours: list[float] = []
    baseline: list[float] = []
    for _ in range(ROUNDS):
        before = perf_counter_ns()
        with open_installed(called, state, unread_program=True) as found:
            judge_installed(found.installed, SOURCES, 0)
            ours.append((perf_counter_ns() - before) / 1e6)
        before = perf_counter_ns()
        read_directory(directory)
        baseline.append((perf_counter_ns() - before) / 1e6)
    p50, baseline_p50 = statistics.median(ours), statistics.median(baseline)
    return {
        "name": f"installed: looked up, verified, trust decided, {name}",
        "p50": round(p50, 3),
        "p99": round(statistics.quantiles(ours, n=100)[98], 3),
        "unit": "ms",
        "n": ROUNDS,
        "baseline": "each byte of it read and hashed",
        "baseline_p50": round(baseline_p50, 3),
        "ratio": round(p50 / baseline_p50, 2),
    }


def _install(place: str, state: str, name: str, size_bytes: int) -> str:
    source = os.path.join(place, f"source-{name}")
    os.makedirs(os.path.join(source, "data"))
    for file, data in (("Component.toml", name.encode()), ("p.wasm", os.urandom(size_bytes))):
        _write(os.path.join(source, file), data)
    for number in range(10):
        _write(os.path.join(source, "data", str(number)), os.urandom(1_000))
    store = PackageStore(places.packages_directory(state))
    with store.incoming() as incoming, Registry(state) as registry:
        contents = copy_directory(source, incoming)
        fetched = Fetched(contents, b"", Provenance("directory", source))
        new = Installed(name, "", "1.0.0", contents.digest, "p.wasm", fetched.provenance, source, (KEY,))
        enter(store, registry, incoming, fetched, new, Permitted(), None, lambda _: None)
    return store.path(contents.digest)


def _write(path: str, data: bytes) -> None:
    with open(path, "wb") as stream:
        stream.write(data)
