"""Memory in one and in many pieces, and time: spinning, blocked, asleep; from WebAssembly and from native code."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import wasmtime

if TYPE_CHECKING:
    from conftest import Steps, World

MIB = 1 << 20
OUTER_GRACE_S = 0.25
SLACK_S = 15.0
"""What a busy machine may add to a deadline before a test calls it missed."""


def test_one_memory_ends_at_the_limit(sealed: World) -> None:
    """A guest grows its memory to the limit and not beyond; with a higher limit the same growth works."""
    ran = sealed.run("grow", "200", flags=["--memory", "64MiB"])
    assert ran.ending == ("limit", "A2001")
    got = int(ran.text.split("refused after ")[1].split()[0])
    assert 32 <= got < 64
    assert ran.report.peak_memory_bytes < 160 * MIB
    assert sealed.run("grow", "200", flags=["--memory", "256MiB"]).text == "grow: ok 200 MiB\n"


def many_memories(count: int, pages: int) -> bytes:
    """Return a program that makes and touches `count` memories of `pages` each, and traps if it can't."""
    memories = "".join(f"(memory $m{n} 1)" for n in range(count))
    grows = "".join(
        f"(if (i32.eq (memory.grow $m{n} (i32.const {pages - 1})) (i32.const -1)) (then unreachable))"
        f"(memory.fill $m{n} (i32.const 0) (i32.const 7) (i32.const {pages * 65536}))"
        for n in range(count)
    )
    return wasmtime.wat2wasm(f'(module {memories} (export "memory" (memory $m0)) (func (export "_start") {grows}))')


def test_many_memories_share_one_limit(sealed: World, short_dir: Path) -> None:
    """Eight memories, each far below the limit, are bounded by their sum; with a limit above the sum they all exist."""
    path = short_dir / "many.wasm"
    path.write_bytes(many_memories(8, 25 * 16))
    ran = sealed.run(wasm=path, flags=["--memory", "64MiB"])
    assert ran.ending == ("limit", "A2001")
    assert ran.report.peak_memory_bytes < 160 * MIB
    control = sealed.run(wasm=path, flags=["--memory", "256MiB"])
    assert control.report.verdict.outcome == "exited"
    assert control.report.peak_memory_bytes > 190 * MIB


def mappings(count: int, bytes_each: int) -> Steps:
    """Return steps that map private memory natively, past the engine's own limits."""
    return [(f"m{n}", "mmap", 0, bytes_each, 3, 0x22, -1, 0) for n in range(count)]


@pytest.mark.parametrize(("count", "mib"), [(1, 512), (32, 16), (256, 2)])
def test_native_memory_is_bounded_from_outside(sealed: World, count: int, mib: int) -> None:
    """Code that has left WebAssembly gets ENOMEM near the limit (RLIMIT_DATA), in one piece or in many."""
    results = sealed.probe(mappings(count, mib * MIB), "--memory", "64MiB").results
    got_bytes = sum(mib * MIB for result in results.values() if result > 0)
    assert got_bytes <= (64 + 64) * MIB
    assert -errno.ENOMEM in results.values()
    control = sealed.probe(mappings(count, mib * MIB), "--memory", "700MiB").results
    assert all(result > 0 for result in control.values())


def test_growing_a_mapping_is_bounded_too(sealed: World, bare: World) -> None:
    """mremap(2) makes nothing larger once the worker is sealed; without the layers it makes half a GiB of a page."""
    steps: Steps = [
        ("page", "mmap", 0, 4096, 3, 0x22, -1, 0),
        ("x", "mremap", "r:page", 4096, 512 * MIB, 1),
    ]
    assert sealed.probe(steps, "--memory", "64MiB").results["x"] == -errno.ENOMEM
    assert bare.probe(steps, "--memory", "700MiB").results["x"] > 0


# ---- time


def _within(ran_s: float, limit_s: float) -> bool:
    return ran_s < limit_s + OUTER_GRACE_S + SLACK_S


@pytest.mark.parametrize(
    ("command", "twin"),
    [(("spin",), ("spin", "1")), (("sleep", "60000"), ("sleep", "1")), (("poll", "60000"), ("poll", "1"))],
    ids=["spin", "sleep", "poll_oneoff"],
)
def test_a_guest_that_never_ends_is_ended(sealed: World, command: tuple[str, ...], twin: tuple[str, ...]) -> None:
    """Spinning ends by the epoch inside; blocked in the host it ends by the supervisor's deadline outside."""
    reader, writer = os.pipe()
    try:
        started = time.monotonic()
        ran = sealed.run(*command, flags=["--timeout", "300ms"], stdin=reader)
        assert ran.ending == ("limit", "A2002"), ran.report.verdict
        assert ran.report.verdict.exit_code == 75
        assert _within(ran.report.duration_s, 0.3), f"{time.monotonic() - started:.2f} s"
        assert "ok" in sealed.run(*twin, flags=["--timeout", "60s"], stdin=reader).text
    finally:
        os.close(reader)
        os.close(writer)


def test_a_guest_that_waits_for_input_is_ended(sealed: World) -> None:
    """Blocked in a read of standard input that nobody writes to: the outer deadline; with input it goes on."""
    reader, writer = os.pipe()
    try:
        ran = sealed.run("wait-stdin", flags=["--timeout", "300ms"], stdin=reader)
        assert ran.ending == ("limit", "A2002")
        assert _within(ran.report.duration_s, 0.3)
        os.write(writer, b"x")
        assert sealed.run("wait-stdin", flags=["--timeout", "60s"], stdin=reader).report.verdict.exit_code == 0
    finally:
        os.close(reader)
        os.close(writer)


def test_fuel_ends_a_spin(sealed: World) -> None:
    """With fuel a spin ends at the same point each time; with enough of it a short program ends by itself."""
    ran = sealed.run("spin", flags=["--fuel", "10000000"])
    assert ran.ending == ("limit", "A2003")
    assert sealed.run("args", "x", flags=["--fuel", "10000000"]).report.verdict.exit_code == 0


def test_cpu_time_ends_a_spin(sealed: World) -> None:
    """RLIMIT_CPU holds without any deadline, and says so."""
    ran = sealed.run("spin", flags=["--cpu-time", "1s"])
    assert ran.ending == ("limit", "A2004"), (ran.report.verdict, ran.records[-1])
    assert ran.report.verdict.exit_code == 75
    assert sealed.run("spin", "1", flags=["--cpu-time", "10s"]).report.verdict.exit_code == 0


def test_native_code_that_sleeps_is_ended_from_outside(sealed: World) -> None:
    """Where no epoch reaches, in a raw system call, the supervisor's deadline does; a short sleep is let through."""
    sixty_s = (60).to_bytes(8, "little").hex() + "00" * 8
    started = time.monotonic()
    ran = sealed.probe([("x", "futex", "b:4", 128, 0, f"x:{sixty_s}")], "--timeout", "300ms")
    assert ran.ending == ("limit", "A2002")
    assert "x" not in ran.results
    assert time.monotonic() - started < 10
    no_time = "00" * 16
    short = sealed.probe([("x", "futex", "b:4", 128, 0, f"x:{no_time}")], "--timeout", "60s")
    assert short.results == {"x": -errno.ETIMEDOUT}
