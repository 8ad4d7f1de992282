"""Much of one thing: subscriptions, descriptors, threads, table entries, sparse files; each beside a little of it."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import wasmtime

if TYPE_CHECKING:
    from conftest import Ran, Steps, World

AT, RDONLY, WRONLY, RDWR = -100, 0, 1, 2
MIB, GIB = 1 << 20, 1 << 30
THREAD = 0x3D0F00
THREADS_MOST = 192
OPEN_MOST = 1024
CORE = 4


def run_text(world: World, place: Path, text: str, *flags: str) -> Ran:
    """Run a program given as WebAssembly text."""
    path = place / "program.wasm"
    path.write_bytes(wasmtime.wat2wasm(text))
    return world.run(wasm=path, flags=flags)


POLL = """
(module
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 400)
  (func (export "_start") (local $i i32) (local $at i32)
    (local.set $at (i32.const 1024))
    (loop $next
      (i32.store offset=16 (local.get $at) (i32.const 1))         ;; the monotonic clock
      (i64.store offset=24 (local.get $at) (i64.const @NS@))
      (local.set $at (i32.add (local.get $at) (i32.const 48)))
      (br_if $next (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const @COUNT@))))
    (call $exit (call $poll (i32.const 1024) (i32.const 4194304) (i32.const @COUNT@) (i32.const 0)))))
"""


def test_twenty_thousand_subscriptions_end_at_the_deadline(sealed: World, short_dir: Path) -> None:
    """A poll_oneoff of 20,000 clocks that ring in an hour is ended like any other wait; if they ring it returns."""
    hour, at_once = "3600000000000", "1"
    flags = ("--memory", "64MiB", "--timeout", "500ms")
    ran = run_text(sealed, short_dir, POLL.replace("@NS@", hour).replace("@COUNT@", "20000"), *flags)
    assert ran.ending == ("limit", "A2002")
    assert ran.report.peak_memory_bytes < 192 * MIB
    twin = run_text(sealed, short_dir, POLL.replace("@NS@", at_once).replace("@COUNT@", "20000"), "--timeout", "60s")
    assert twin.ending == ("exited", "")
    assert twin.report.verdict.exit_code == 0


GROWING = {
    "a table": (
        "(table $t 1 funcref)",
        "(br_if 1 (i32.eq (table.grow $t (ref.null func) (i32.const 1000000)) (i32.const -1)))",
    ),
    "managed objects": (
        """(type $a (array i8)) (type $l (struct (field (ref null $l)) (field (ref $a))))
        (global $all (mut (ref null $l)) (ref.null $l))""",
        "(global.set $all (struct.new $l (global.get $all) (array.new $a (i32.const 1) (i32.const 1000000))))",
    ),
    "a memory of 64-bit addresses": (
        "(memory $m i64 1)",
        "(br_if 1 (i64.eq (memory.grow $m (i64.const 16)) (i64.const -1)))",
    ),
}


@pytest.mark.parametrize("what", GROWING)
def test_what_is_not_an_ordinary_memory_counts_too(sealed: World, short_dir: Path, what: str) -> None:
    """Tables, managed objects and 64-bit memories grown for ever end near the limit; a few steps of each are let be."""
    declared, step = GROWING[what]
    memory = "" if "memory" in what else '(memory (export "memory") 1)'
    export = '(export "memory" (memory $m))' if "memory" in what else ""
    text = f"""(module {declared} {memory} {export} (func (export "_start") (local $i i32) (block (loop $again {step}
        (br_if $again (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const @STEPS@)))))))"""
    ran = run_text(sealed, short_dir, text.replace("@STEPS@", "4000"), "--memory", "64MiB")
    assert ran.report.peak_memory_bytes < (64 + 96) * MIB
    assert ran.ending in (("limit", "A2001"), ("exited", ""))
    twin = run_text(sealed, short_dir, text.replace("@STEPS@", "4"), "--memory", "256MiB")
    assert twin.ending == ("exited", "")


@pytest.mark.parametrize("call", ["openat", "epoll_create1", "eventfd2", "fcntl"])
def test_descriptors_run_out_for_who_takes_them_alone(sealed: World, tree: Path, call: str) -> None:
    """Whoever opens without end gets EMFILE at its own bound, and nobody else notices; a hundred are let be."""
    one: dict[str, tuple[str | int, ...]] = {
        "openat": ("openat", AT, f"s:{tree}/in/a.txt", RDONLY),
        "epoll_create1": ("epoll_create1", 0),
        "eventfd2": ("eventfd2", 0, 0),
        "fcntl": ("fcntl", 1, 1030, 0),
    }

    def taking(count: int) -> list[int]:
        steps: Steps = [(f"x{n}", *one[call]) for n in range(count)]
        return list(sealed.probe(steps, "--read", f"{tree}/in/").results.values())

    results = taking(OPEN_MOST + 50)
    assert results[-1] == -errno.EMFILE
    assert 100 < sum(result >= 0 for result in results) < OPEN_MOST
    assert all(result >= 0 for result in taking(100))


def test_threads_run_out(sealed: World) -> None:
    """A bomb of threads that stay is refused (EAGAIN) or ended at its bound; a dozen are let be."""
    second: Steps = [("wait", "futex", "b:4", 128, 0, "x:" + ((1).to_bytes(8, "little") + bytes(8)).hex())]
    ran = sealed.probe([*((f"x{n}", "stay:clone", THREAD) for n in range(400)), *second], "--timeout", "60s")
    made = sum(result > 0 for label, result in ran.results.items() if label != "wait")
    if ran.ending == ("exited", ""):
        assert made <= THREADS_MOST
        assert -errno.EAGAIN in ran.results.values()
    else:  # an ordinary user's workers share its uid, so no rlimit counts them: seen from outside
        assert ran.ending == ("refused", "A1706")
    twin = sealed.probe([(f"x{n}", "stay:clone", THREAD) for n in range(12)], "--timeout", "60s")
    assert all(result > 0 for result in twin.results.values())


def test_a_file_is_no_longer_than_it_may_be(sealed: World, bare: World, tree: Path) -> None:
    """By no call a file of a component gets longer than the bound, holes included; a shorter one is made."""
    path = f"s:{tree}/out/old.txt"
    steps: Steps = [
        ("path", "truncate", path, 6 * GIB),
        ("file", "openat", AT, path, WRONLY),
        ("descriptor", "ftruncate", "r:file", 6 * GIB),
        ("write", "pwrite64", "r:file", "s:X", 1, 6 * GIB),
        ("seek", "lseek", "r:file", 6 * GIB, 0),
        ("after_it", "write", "r:file", "s:X", 1),
    ]
    results = sealed.probe(steps, "--write", f"{tree}/out/").results
    tried = {label: result for label, result in results.items() if label not in ("file", "seek")}
    assert set(tried.values()) <= {-errno.EFBIG, -errno.EDQUOT}
    assert (tree / "out/old.txt").stat().st_size == 3
    ran = sealed.run("trunc", "out/old.txt", str(6 * GIB), flags=["--write", "out"], cwd=tree)
    assert ran.report.verdict.exit_code == 1
    shorter, opened, longer = ("shorter", "truncate", path, 1), steps[1], ("longer", "ftruncate", "r:file", MIB)
    twin = sealed.probe([shorter, opened, longer], "--write", f"{tree}/out/").results
    assert (twin["shorter"], twin["longer"]) == (0, 0)
    assert (tree / "out/old.txt").stat().st_size == MIB
    assert bare.probe(steps[:1]).results["path"] == 0
    os.truncate(tree / "out/old.txt", 0)


def test_a_crash_leaves_no_core(sealed: World, bare: World) -> None:
    """The bound of a core dump is 0, soft and hard, and can't be raised; without the layer it is what was inherited."""
    ask: Steps = [("ask", "prlimit64", 0, CORE, 0, "m:limit:16"), ("show", "write", 1, "m:limit:16", 16)]
    ran = sealed.probe([*ask, ("me", "getpid"), ("abort", "tgkill", "r:me", "r:me", 6)])
    assert ran.report.stdout.partition(b"ask 0 0\n")[2][:16] == bytes(16)
    sealed.assert_kills([("raise", "prlimit64", 0, CORE, "x:" + (b"\xff" * 16).hex(), 0)])
    assert bare.probe([("lower", "prlimit64", 0, CORE, "b:16", 0)]).results == {"lower": 0}
