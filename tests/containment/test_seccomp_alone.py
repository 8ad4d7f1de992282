"""What each newer version of Landlock added, on a kernel that has none and without namespaces: seccomp holds it alone.

More attacks are tried in this world by `HELD_BY_SECCOMP_ALONE` (conftest.py); sockets by test_sockets.py.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Argument, World, Worlds

AT = -100
RDWR = 2
ATTACKS: dict[str, tuple[Argument, ...]] = {
    "ABI 1: reading": ("openat", AT, "s:TREE/secret/key", 0),
    "ABI 2: linking across directories": ("linkat", AT, "s:TREE/secret/key", AT, "s:TREE/out/key", 0),
    "ABI 2: renaming across directories": ("renameat2", AT, "s:TREE/secret/key", AT, "s:TREE/out/key", 0),
    "ABI 3: truncating": ("truncate", "s:TREE/in/b.csv", 0),
    "ABI 4: TCP": ("socket", 2, 1, 0),
    "ABI 5: ioctl of a device": ("openat", AT, "s:/dev/null", RDWR),
    "ABI 6: a signal to another": ("kill", -1, 0),
    "ABI 6: an abstract socket": ("socket", 1, 1, 0),
}
"""A right that Landlock can take away → a call that needs it."""


@pytest.mark.parametrize("right", ATTACKS)
def test_what_landlock_would_hold_is_held_without_it(worlds: Worlds, bare: World, tree: Path, right: str) -> None:
    """Where no layer is on the call works; seccomp alone answers it with an errno, or it is the worker's last."""
    call, *arguments = (a.replace("TREE", str(tree)) if isinstance(a, str) else a for a in ATTACKS[right])
    flags = ("--read", tree / "in", "--write", tree / "out")
    ran = worlds["seccomp alone"].probe([("x", call, *arguments), ("after", "getpid")], *flags)
    assert ran.results.get("x", -1) < 0
    assert ("after" in ran.results) == ("x" in ran.results)
    assert ran.denied() or ran.violations()
    assert (tree / "secret/key").read_text() == "the key"
    assert (tree / "in/b.csv").read_text() == "beta"
    assert bare.probe([("x", call, *arguments)]).results["x"] >= 0


@pytest.mark.parametrize("call", ["clock_gettime", "clock_getres"])
def test_nobody_elses_processor_time_is_told(worlds: Worlds, bare: World, call: str) -> None:
    """A clock that is another process's, by its pid, is none of a worker's, also where no pid namespace hides it."""
    clock = ~os.getpid() << 3 | 2  # CPUCLOCK_SCHED (kernel/time/posix-cpu-timers.c)
    steps = [("own", call, 2, "b:16"), ("x", call, clock, "b:16")]
    assert bare.probe(steps).results == {"own": 0, "x": 0}
    worlds["seccomp alone"].assert_ends(steps)
