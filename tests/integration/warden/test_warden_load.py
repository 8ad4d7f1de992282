"""Paths that cost the warden far more than the call that names them: descriptors, time, and others' share of both."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from conftest import Stage

WARDENS_CPU_S = 5.0
"""What one call may cost at most on a busy machine; halving the path takes milliseconds, going through it half a
minute."""


def _cpu_s(stage: Stage) -> float:
    times = psutil.Process(stage.process.pid).cpu_times()
    return times.user + times.system


def _descriptors(stage: Stage) -> int:
    """How many the warden holds; an ordinary user isn't shown that."""
    return psutil.Process(stage.process.pid).num_fds() if os.geteuid() == 0 else 0


def test_a_path_that_climbs_hundreds_of_times_is_refused(stage: Stage, tree: Path) -> None:
    """Each `..` after a name holds a descriptor of the warden's, which all workers share: forty are enough."""
    (tree / "in/d").mkdir()
    (tree / "in/d").chmod(0o755)
    actor = stage.actor(("read", f"{tree}/in/**"))
    before = _descriptors(stage)
    for climbs, answer in ((30, "alpha"), (41, "ENAMETOOLONG"), (780, "ENAMETOOLONG")):
        assert actor.read(f"{tree}/in/{'d/../' * climbs}a.txt") == answer
    assert actor.run("os.mkdir(p)", p=f"{tree}/in/{'d/../' * 780}new") == "ENAMETOOLONG"
    assert _descriptors(stage) == before


def test_links_that_lead_to_links_do_not_keep_it_busy(stage: Stage, tree: Path) -> None:
    """A chain of dangling links with thousands of names behind each is answered at once."""
    actor = stage.actor(("write", f"{tree}/out/**"), ("read", f"{tree}/out/**"))
    other = stage.actor(("read", f"{tree}/in/**"))
    out = str(tree / "out")
    chain = "for n in range(39): os.symlink(f'l{n + 1}/' + 'x/' * 1990, f'{out}/l{n}')"
    assert actor.run(chain, out=out) is None
    before_s = _cpu_s(stage)
    assert actor.open(tree / "out/l0") in ("EACCES", "ENOENT")
    assert actor.open(f"{tree}/out/l0/{'x/' * 1900}") in ("EACCES", "ENOENT")
    assert _cpu_s(stage) - before_s < WARDENS_CPU_S
    assert other.read(tree / "in/a.txt") == "alpha"
    assert actor.run("os.symlink('nothing', p + '/short'); os.open(p + '/short', os.O_RDONLY)", p=out) == "ENOENT"
