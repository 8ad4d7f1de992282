"""Who runs by an approval is found by its lock and ended; nobody else is."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from supervisor.approvals.reliance import Reliance
from supervisor.approvals.running import DIRECTORY, Ending, Held, holders
from supervisor.approvals.subject import STAND_INS
from supervisor.event_loop import EventLoop, Interest

pytestmark = pytest.mark.any_user

HOLDER = """
import signal, sys
from supervisor.approvals.reliance import Reliance
from supervisor.approvals.running import Held
from supervisor.approvals.subject import STAND_INS
if sys.argv[3] == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
held = Held(sys.argv[1], Reliance(int(sys.argv[2]), (), STAND_INS))
print("holds", flush=True)
sys.stdin.read()
held.close()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start a process that holds an approval; it is ended in any case."""
    started: list[subprocess.Popen[bytes]] = []

    def start(number: int, how: str = "plain") -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, tmp_path, str(number), how],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == b"holds\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def end_runs(approvals: Path, number: int, within_ns: int = 5 * 10**9) -> tuple[list[int], list[int]]:
    """End who runs by an approval: who has ended, and who is left."""
    ending = Ending([each for each in holders(str(approvals)) if each.number == number], time.monotonic_ns(), within_ns)
    loop = EventLoop()
    loop.add("ending", ending)
    while not ending.is_over:
        loop.turn()
    return sorted(each.pid for each in ending.ended), [each.pid for each in ending.left]


def test_who_holds_it_is_ended_and_nobody_else(holder, tmp_path: Path) -> None:
    """Two by approval 1 end; one by approval 11 goes on, and is found when that one is taken back."""
    ours = [holder(1), holder(1)]
    other = holder(11)
    assert end_runs(tmp_path, 1) == (sorted(each.pid for each in ours), [])
    assert [each.wait() for each in ours] == [-15, -15]
    assert other.poll() is None
    assert end_runs(tmp_path, 11) == ([other.pid], [])


def test_who_doesnt_listen_is_killed(holder, tmp_path: Path) -> None:
    """A process that ignores SIGTERM ends all the same."""
    deaf = holder(1, "deaf")
    assert end_runs(tmp_path, 1, within_ns=50_000_000) == ([deaf.pid], [])
    assert deaf.wait() == -9


class _Other:
    """Something else that a supervisor has to see to every few milliseconds."""

    def __init__(self) -> None:
        self.turns = 0

    def interests(self) -> Iterator[Interest]:
        return iter(())

    def next_ns(self) -> int:
        return time.monotonic_ns() + 2_000_000

    def tick(self, _now_ns: int) -> None:
        self.turns += 1


def test_who_ends_them_sees_to_others_meanwhile(holder, tmp_path: Path) -> None:
    """One that doesn't listen holds up nothing else in the loop that waits for its end."""
    deaf = holder(1, "deaf")
    loop, other = EventLoop(), _Other()
    ending = Ending(list(holders(str(tmp_path))), time.monotonic_ns(), 100_000_000)
    loop.add("ending", ending)
    loop.add("other", other)
    while not ending.is_over:
        loop.turn()
    assert deaf.wait() == -9
    assert other.turns > 3


def test_what_the_dead_have_left_is_nobodys(holder, tmp_path: Path) -> None:
    """A file without a lock names no one, whatever is in its name, and is removed; so is that of who ended in order."""
    dead = holder(1)
    dead.kill()
    dead.wait()
    assert len(list((tmp_path / DIRECTORY).iterdir())) == 1
    with contextlib.closing(Held(str(tmp_path), Reliance(1, (), STAND_INS))):
        assert len(list((tmp_path / DIRECTORY).iterdir())) == 1  # its own: who runs by it next has removed the other
    assert end_runs(tmp_path, 1) == ([], [])
    in_order = holder(1)
    in_order.communicate(b"")
    assert in_order.returncode == 0
    assert list((tmp_path / DIRECTORY).iterdir()) == []
    assert end_runs(tmp_path / "nothing", 1) == ([], [])
    strange = tmp_path / DIRECTORY / ".nfs0001"
    strange.touch()
    assert end_runs(tmp_path, 1) == ([], [])
    assert strange.exists(), "what is none of these files is left alone"
    strange.unlink()


def test_it_is_held_until_it_is_closed(tmp_path: Path) -> None:
    """Two of one process are two files, and each goes with its own end."""
    first, second = (Held(str(tmp_path), Reliance(number, (), STAND_INS)) for number in (1, 2))
    first.close()
    assert [each.name.partition(".")[0] for each in (tmp_path / DIRECTORY).iterdir()] == ["2"]
    second.close()
    assert list((tmp_path / DIRECTORY).iterdir()) == []
