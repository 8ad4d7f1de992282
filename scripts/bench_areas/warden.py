"""What the warden costs: an allowed open against a native one, and a read on a file that it opened."""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]
STAGE = ROOT / "tests" / "integration" / "warden" / "conftest.py"
"""The tests' stage: a real warden with a real audit log, and a process whose file calls it answers."""
ROUNDS = 3000
TURNS = 10

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


def _stage_module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("warden_stage", STAGE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _row(name: str, answered: list[int], native: list[int], scale: float, unit: str) -> dict[str, object]:
    answered.sort()
    native.sort()
    p50, base = answered[len(answered) // 2] / scale, native[len(native) // 2] / scale
    return {
        "name": name,
        "p50": round(p50, 2),
        "p99": round(answered[len(answered) * 99 // 100] / scale, 2),
        "unit": unit,
        "n": len(answered),
        "baseline": "the same call, not notified",
        "baseline_p50": round(base, 2),
        "ratio": round(p50 / base, 3),
    }


def measure() -> Iterator[dict[str, object]]:
    """Yield one row for opens and one for reads; budget: an open at most 100 µs more than native, reads within 1.05."""
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
