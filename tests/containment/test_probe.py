"""The instrument itself: what a probe does in a sealed worker is what a guest could do there, no more."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from conftest import World

READ = [
    ("open", "openat", -100, "PATH", 0),
    ("read", "read", "r:open", "m:text:64", 64),
    ("show", "write", 1, "m:text:64", "r:read"),
]


def test_a_probe_reads_what_was_granted_and_nothing_else(sealed: World, tree: Path) -> None:
    """Its calls go the way of a guest's: a granted file is read, another one is refused and on record."""
    good = [(label, call, *(f"s:{tree}/in/a.txt" if a == "PATH" else a for a in rest)) for label, call, *rest in READ]
    ran = sealed.probe(good, "--read", tree / "in")
    assert ran.report.verdict.outcome == "exited"
    assert "alphashow 5 0" in ran.text
    bad = [(label, call, *(f"s:{tree}/secret/key" if a == "PATH" else a for a in rest)) for label, call, *rest in READ]
    ran = sealed.probe(bad[:1], "--read", tree / "in")
    assert ran.results == {"open": -errno.EACCES}
    assert ran.denied(tree / "secret/key") == {("filesystem.read", "A1203")}


def test_a_probe_is_sealed_like_a_guest(sealed: World) -> None:
    """Both filters, no_new_privs, the empty capability sets and the namespaces were seen from outside before it ran."""
    ran = sealed.probe([("me", "getpid")])
    assert ran.results == {"me": 1}
    layers = {layer.layer: layer.status for layer in ran.report.confinement}
    assert layers["seccomp"] == layers["sealed"] == layers["landlock"] == "enforced"
    # An ordinary user sees no namespaces and descriptors of a process that is not dumpable: partial.
    assert layers["outside_check"] == ("enforced" if os.geteuid() == 0 else "partial")
