"""What the warden costs: an allowed open against a native one, by raw call and by a guest; a read on what it opened."""

from __future__ import annotations

import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]
STAGE = ROOT / "tests" / "integration" / "warden" / "conftest.py"
"""The tests' stage: a real warden with a real audit log, and a process whose file calls it answers."""
ROUNDS = 3000
TURNS = 10
NEW_NAMES = 50
"""Fewer than a component may be refused at once before it is paced."""
NEW_TURNS = 6
AIRSSYS = ROOT / ".venv" / "bin" / "airssys"
GUEST = ROOT / "tests" / "guests" / "tool.wasm"
GUEST_OPENS = 3000
GUEST_TURNS = 4

# The same calls by the same code in two processes: one is answered by the warden, the other by the kernel.
OPENS = """
import_time = __import__("time").perf_counter_ns
how = ctypes.create_string_buffer(struct.pack("<QQQ", os.O_RDONLY, 0, 0x0A), 24)
number, directory, size = ctypes.c_long(NUMBERS["openat2"]), ctypes.c_long(root), ctypes.c_long(24)
def once():
    start = import_time()
    fd = libc.syscall(number, directory, b"file", how, size)
    end = import_time()
    os.close(fd)
    return end - start
for _ in range(100):
    once()
result = [once() for _ in range(ROUNDS)]
"""
# What is refused: the same name again and again (counted), and one that is new each time (durable before the answer).
DENIED = """
now = __import__("time").perf_counter_ns
how = ctypes.create_string_buffer(struct.pack("<QQQ", os.O_RDONLY, 0, 0x0A), 24)
number, directory, size = ctypes.c_long(NUMBERS["openat2"]), ctypes.c_long(root), ctypes.c_long(24)
def once(name):
    start = now()
    fd = libc.syscall(number, directory, name, how, size)
    end = now()
    if fd >= 0:
        os.close(fd)
    return end - start
once(names[0].encode())
result = [once(name.encode()) for name in names]
"""
READS = """
now = __import__("time").perf_counter_ns
fd = os.open(path, os.O_RDONLY)
buffer = bytearray(65536)
def once():
    start = now()
    for _ in range(16):
        os.preadv(fd, [buffer], 0)
    return (now() - start) // 16
for _ in range(100):
    once()
result = [once() for _ in range(ROUNDS)]
os.close(fd)
"""


# The same guest in wasmtime as it comes, with the directory as a preopened one.
NATIVE_GUEST = """
import sys, wasmtime
engine = wasmtime.Engine()
linker = wasmtime.Linker(engine)
linker.define_wasi()
store = wasmtime.Store(engine)
config = wasmtime.WasiConfig()
config.argv = ["tool", *sys.argv[3:]]
config.inherit_stdout()
config.preopen_dir(sys.argv[2], "/d")
store.set_wasi(config)
linker.instantiate(store, wasmtime.Module.from_file(engine, sys.argv[1])).exports(store)["_start"](store)
"""


def _guest_ns(command: list[str]) -> tuple[int, int]:
    """Run `bench-open` and return its p50 and p99 in nanoseconds."""
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    fields = dict(field.split("=") for field in done.stdout.split() if "=" in field)
    return int(fields["p50_ns"]), int(fields["p99_ns"])


def _guest_opens() -> Iterator[dict[str, object]]:
    """Opens by an unmodified preview 1 guest: all that a program pays for one, wasmtime's own work included."""
    with tempfile.TemporaryDirectory(dir="/tmp") as place:
        directory = Path(place)
        directory.chmod(0o755)
        (directory / "file").write_bytes(b"x")
        asked = ["bench-open", "/d/file", str(GUEST_OPENS)]
        ours = [str(AIRSSYS), "run", str(GUEST), "-q", "--read", place, "--dir", f"{place}::/d", "--", *asked]
        native = [sys.executable, "-I", "-c", NATIVE_GUEST, str(GUEST), place, *asked]
        times: list[tuple[int, int]] = []
        baseline: list[tuple[int, int]] = []
        for _ in range(GUEST_TURNS):
            times.append(_guest_ns(ours))
            baseline.append(_guest_ns(native))
        p50, base = statistics.median(t[0] for t in times) / 1000, statistics.median(t[0] for t in baseline) / 1000
        yield {
            "name": "warden: open and close by a guest",
            "p50": round(p50, 1),
            "p99": round(statistics.median(t[1] for t in times) / 1000, 1),
            "unit": "us",
            "n": GUEST_OPENS * GUEST_TURNS,
            "baseline": "the same guest in wasmtime alone",
            "baseline_p50": round(base, 1),
            "ratio": round(p50 / base, 2),
            "above_baseline": round(p50 - base, 1),
        }


def _stage_module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("warden_stage", STAGE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _denied(actor: object, data: Path, names: list[str]) -> list[int]:
    found = actor.run(DENIED, root=actor.root(data), names=names)  # type: ignore[attr-defined]
    assert isinstance(found, list), found
    return found


def _durable_lines(path: Path) -> list[int]:
    """How long a line of a record's length takes until it is on the disk."""
    taken = []
    with path.open("wb", buffering=0) as lines:
        for _ in range(NEW_NAMES):
            start_ns = time.perf_counter_ns()
            lines.write(b"x" * 600 + b"\n")
            os.fdatasync(lines.fileno())
            taken.append(time.perf_counter_ns() - start_ns)
    return taken


def _row(
    name: str,
    answered: list[int],
    native: list[int],
    scale: float,
    unit: str,
    baseline: str = "the same call, not notified",
) -> dict[str, object]:
    answered.sort()
    native.sort()
    p50, base = answered[len(answered) // 2] / scale, native[len(native) // 2] / scale
    return {
        "name": name,
        "p50": round(p50, 2),
        "p99": round(answered[len(answered) * 99 // 100] / scale, 2),
        "unit": unit,
        "n": len(answered),
        "baseline": baseline,
        "baseline_p50": round(base, 2),
        "ratio": round(p50 / base, 3),
        "above_baseline": round(p50 - base, 2),
    }


def measure() -> Iterator[dict[str, object]]:
    """Yield rows for opens and reads; budget: an open, allowed or denied, 60 µs more than native, reads within 1.05."""
    stage_module = _stage_module()
    with tempfile.TemporaryDirectory(dir="/tmp") as place:
        directory = Path(place)
        directory.chmod(0o755)
        data = directory / "data"
        data.mkdir()
        (data / "file").write_bytes(os.urandom(65536))
        stage_module.own(data)
        with (
            stage_module.user_namespace() as namespace,
            stage_module.running_stage(directory, namespace) as stage,
        ):
            answered = stage.actor(("read", f"{data}/**"), mounts=(str(data),))
            native = stage.actor(notify=False)
            for name, code in (("warden-open", OPENS), ("warden-read-64KiB", READS)):
                samples: tuple[list[int], list[int]] = ([], [])
                for _ in range(TURNS):
                    for actor, kept in ((answered, samples[0]), (native, samples[1])):
                        root = actor.root(data)
                        found = actor.run(code, root=root, path=str(data / "file"), ROUNDS=ROUNDS // TURNS)
                        assert isinstance(found, list), found
                        kept.extend(found)
                yield _row(name, *samples, 1000, "us")
            (data / "denied").mkdir()
            for number in range(NEW_NAMES):
                (data / "denied" / f"{number}").write_bytes(b"x")
            denied: tuple[list[int], list[int]] = ([], [])
            native_denied: list[int] = []
            disk: list[int] = []
            again, new = ["denied/0"] * (ROUNDS // NEW_TURNS), [f"denied/{number}" for number in range(NEW_NAMES)]
            for _ in range(NEW_TURNS):
                # Another one in each turn: to the same one nothing would be new.
                partly = stage.actor(("read", f"{data}/file"), mounts=(str(data),))
                denied[0].extend(_denied(partly, data, new))
                disk.extend(_durable_lines(directory / "lines"))
                denied[1].extend(_denied(partly, data, again))
                native_denied.extend(_denied(native, data, again))
                partly.close()
            yield _row("warden: a denied open, seen before", denied[1], native_denied, 1000, "us")
            yield _row("warden: a denied open, new, on record", denied[0], disk, 1000, "us", "a line and fdatasync(2)")
    yield from _guest_opens()
