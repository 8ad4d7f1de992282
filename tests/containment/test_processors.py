"""Processors: a worker that makes calls in quick succession is kept on one, and nobody else is."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Ran, Steps, World

ALL = os.sched_getaffinity(0)
CALLS = 400
THREAD = 0x3D0F00
"""clone(2) with exactly the flags of glibc's threads."""
PAUSE = "x:" + bytes(8).hex() + (3_000_000).to_bytes(8, "little").hex()
REST = "x:" + bytes(8).hex() + (150_000_000).to_bytes(8, "little").hex()


class Watch:
    """What all threads of our descendants, and our own, are seen to have, until it is left."""

    def __init__(self) -> None:
        """Nothing was seen yet."""
        self.narrow: dict[int, set[int]] = {}
        """Process → its threads that were seen on fewer processors."""
        self.confined: set[int] = set()
        """Processes that were seen with a filter."""
        self.last: dict[int, set[int]] = {}
        """Thread → what it had when it was last seen."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Watch:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._stop.is_set():
            pending = [os.getpid()]
            while pending:
                process = pending.pop()
                try:
                    for thread in os.listdir(f"/proc/{process}/task"):
                        pending += map(int, Path(f"/proc/{process}/task/{thread}/children").read_text().split())
                        self._see(process, int(thread))
                except OSError:
                    continue  # it has ended

    def _see(self, process: int, thread: int) -> None:
        cpus = self.last[thread] = os.sched_getaffinity(thread)
        if cpus != ALL:
            self.narrow.setdefault(process, set()).add(thread)
            if "\nSeccomp:\t2\n" in Path(f"/proc/{process}/status").read_text():
                self.confined.add(process)


def attack(world: World, file: Path, between: str) -> tuple[Ran, Watch]:
    """Open and close a file again and again with other threads around, then rest; `between` is a time after each."""
    steps: Steps = [("thread", "stay:clone", THREAD)]
    for n in range(CALLS if not between else 20):
        steps += [(f"open{n}", "openat", -100, f"s:{file}", 0, 0), (f"close{n}", "close", f"r:open{n}")]
        if between:
            steps.append((f"sleep{n}", "futex", "b:4", 128, 0, between))
    steps.append(("rest", "futex", "b:4", 128, 0, REST))
    with Watch() as watch:
        ran = world.probe(steps, "--read", file.parent)
    return ran, watch


@pytest.mark.skipif(len(ALL) < 2, reason="one processor is all there is")
def test_calls_in_quick_succession_move_nobody_but_who_makes_them(sealed: World, short_dir: Path) -> None:
    """No thread but its own and the one that serves it is put on one processor, and afterwards neither is."""
    file = short_dir / "file"
    file.write_bytes(b"x")
    ran, watch = attack(sealed, file, "")
    assert ran.results[f"open{CALLS - 1}"] > 0
    assert ran.results["rest"] == -errno.ETIMEDOUT
    warden = sealed.host.warden
    assert warden is not None
    (worker,) = watch.confined
    assert set(watch.narrow) == {worker, warden.pid}
    assert len(watch.narrow[warden.pid]) == 1
    assert [watch.last[thread] for threads in watch.narrow.values() for thread in threads] == [ALL] * (
        len(watch.narrow[worker]) + 1
    )
    ran, watch = attack(sealed, file, PAUSE)
    assert ran.results["open19"] > 0
    assert watch.narrow == {}
