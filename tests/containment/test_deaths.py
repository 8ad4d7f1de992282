"""Violent deaths: whoever of a run is killed, nothing is left, nothing hangs, and what is told is what happened."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import psutil
import pytest

from ipc.errors import ConfinementError
from ipc.struct import Struct, replace
from supervisor.host.host import open_host
from supervisor.host.processes import Processes
from supervisor.host.warden_recovery import has_unanswered_call
from supervisor.host.warden_restart import ANSWERED_WRONG, UNANSWERED
from supervisor.run import loop as run_loop
from supervisor.run.machine import Command, Event, Phase, advance
from supervisor.run.verdict import Verdict

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator

    from conftest import World

GUESTS = Path(__file__).resolve().parents[1] / "guests"
ASSERTED_S = 1.0
"""What a busy machine is given for what is promised in 250 ms; the measured time is printed."""
HANG_S = 20.0


class CommandLine(Protocol):
    """The fixture of tests/conftest.py."""

    directory: Path

    def start(self, *arguments: str | Path, cwd: Path | None = None, **environment: str) -> subprocess.Popen[bytes]:
        """Start it."""


class Run(Struct):
    """A run whose guest is at work: the supervisor, and a pidfd of every process below it."""

    process: subprocess.Popen[bytes]
    zygote: int
    warden: int
    keeper: int
    worker: int
    pidfds: dict[int, int]
    report_path: Path

    def kill(self, which: str) -> None:
        """Send SIGKILL to one of them."""
        os.kill(getattr(self, which), signal.SIGKILL)

    def seconds_until_all_are_gone(self) -> float:
        """Wait until every process below the supervisor has ended; fails after HANG_S."""
        started = time.monotonic()
        poller = select.poll()
        waiting = set(self.pidfds.values())
        for descriptor in waiting:
            poller.register(descriptor, select.POLLIN)
        while waiting:
            left_s = started + HANG_S - time.monotonic()
            if left_s <= 0:
                left = [pid for pid, descriptor in self.pidfds.items() if descriptor in waiting]
                pytest.fail(f"still there after {HANG_S} s: {left}")
            for descriptor, _ in poller.poll(left_s * 1000):
                poller.unregister(descriptor)
                waiting.discard(descriptor)
        return time.monotonic() - started


@contextlib.contextmanager
def running(airssys: CommandLine, *guest: str) -> Iterator[Run]:
    """Start a run and yield it once its guest has said that it is there."""
    report = airssys.directory / "report.json"
    options = ("--report", report)
    process = airssys.start("run", GUESTS / "tool.wasm", *options, "--", "print", "here\\n", ",", *guest)
    with process, contextlib.ExitStack() as stack:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == b"here\n"
        below = psutil.Process(process.pid).children()
        zygote, warden = sorted(below, key=lambda p: not p.children())
        (keeper,) = zygote.children()
        (worker,) = keeper.children()
        pids = [p.pid for p in (zygote, warden, keeper, worker)]
        pidfds = {pid: os.pidfd_open(pid) for pid in pids}
        for descriptor in pidfds.values():
            stack.callback(os.close, descriptor)
        try:
            yield Run(process, *pids, pidfds, report)
        finally:
            for descriptor in pidfds.values():
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            if process.poll() is None:
                process.kill()


@pytest.mark.parametrize("guest", [("spin",), ("wait-stdin",), ("sleep", "60000")], ids=["spins", "waits", "sleeps"])
def test_nothing_survives_its_supervisor(
    airssys: CommandLine,
    guest: tuple[str, ...],
    promptly: Callable[[float, Callable[[], float]], float],
    record_property: Callable[[str, object], None],
) -> None:
    """When the supervisor is killed, no descendant is left: promised within 250 ms, asserted within a second."""

    def kill() -> float:
        with running(airssys, *guest) as run:
            assert all(psutil.pid_exists(pid) for pid in run.pidfds)
            run.process.kill()
            return run.seconds_until_all_are_gone()

    took_s = promptly(ASSERTED_S, kill)
    sys.stdout.write(f"all gone after {took_s * 1000:.0f} ms\n")
    record_property("all_gone_ms", round(took_s * 1000))


ENDINGS = {
    "worker": (137, "crashed", "killed from outside"),
    "keeper": (70, "crashed", "keeper process was killed from outside"),
}
"""Who is killed → exit code, outcome, words."""


@pytest.mark.parametrize("who", ENDINGS)
def test_a_death_from_outside_is_told_in_words(airssys: CommandLine, who: str) -> None:
    """The worker or its keeper is killed: the run ends at once, says which it was, and leaves nothing."""
    exit_code, outcome, words = ENDINGS[who]
    with running(airssys, "spin") as run:
        run.kill(who)
        _, stderr = run.process.communicate(timeout=HANG_S)
        document = json.loads(run.report_path.read_text())
        assert document["outcome"] == outcome, document
        assert words in document["message"]
        assert run.process.returncode == exit_code == document["exit_code"]
        assert words.encode() in stderr
        run.seconds_until_all_are_gone()
        ended = [r for r in _records(airssys) if r["event"] == "worker_ended"]
        assert [words in str(r["reason"]) for r in ended] == [True]


def _records(airssys: CommandLine) -> list[dict[str, object]]:
    segments = sorted((airssys.directory / "state/audit").glob("audit-*.jsonl"))
    return [json.loads(line) for segment in segments for line in segment.read_text().splitlines()]


def test_the_wardens_death_takes_nobody_along(airssys: CommandLine) -> None:
    """With another warden in its place the guest goes on, ends as it would have, and nothing is left of either."""
    with running(airssys, "wait-stdin") as run:
        run.kill("warden")
        assert select.select([run.pidfds[run.warden]], [], [], HANG_S)[0]
        out, stderr = run.process.communicate(b"x", timeout=20)
        document = json.loads(run.report_path.read_text())
        assert (document["outcome"], run.process.returncode) == ("exited", 0), (document, stderr, out)
        run.seconds_until_all_are_gone()
    assert [r["event"] for r in _records(airssys) if r["event"] == "warden_lost"] == ["warden_lost"]


def test_the_zygotes_death_takes_nobody_along(airssys: CommandLine) -> None:
    """With the zygote gone the guest goes on, and ends as it would have."""
    with running(airssys, "wait-stdin") as run:
        run.kill("zygote")
        assert select.select([run.pidfds[run.zygote]], [], [], HANG_S)[0]
        out, stderr = run.process.communicate(b"x", timeout=20)
        document = json.loads(run.report_path.read_text())
        assert (document["outcome"], run.process.returncode) == ("exited", 0), (document, stderr, out)
        run.seconds_until_all_are_gone()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_run_cleans_up(airssys: CommandLine, number: signal.Signals) -> None:
    """The signals that people send end the run with 128 + n, and nothing is left in its directories."""
    with running(airssys, "spin") as run:
        run.process.send_signal(number)
        run.process.communicate(timeout=20)
        assert run.process.returncode == 128 + number
        run.seconds_until_all_are_gone()
    assert list((airssys.directory / "state-data").glob("tmp.*")) == []


@pytest.mark.parametrize("who", ["worker", "keeper"])
def test_a_stopped_process_does_not_hold_up_the_end(airssys: CommandLine, who: str) -> None:
    """A worker or keeper that is stopped (SIGSTOP) still ends with its supervisor."""
    with running(airssys, "spin") as run:
        os.kill(getattr(run, who), signal.SIGSTOP)
        run.process.kill()
        if who == "keeper":
            # It can't act while it is stopped; what ends the worker is its own link to the keeper's parent.
            os.kill(run.keeper, signal.SIGCONT)
        run.seconds_until_all_are_gone()


def test_a_host_whose_warden_died_between_two_runs_starts_another(sealed: World) -> None:
    """What runs next on the same host has a warden again, and is decided as before."""
    before = sealed.run("cat", "/etc/hostname")
    warden = sealed.host.warden
    assert warden is not None
    pidfd = os.pidfd_open(warden.pid)
    os.kill(warden.pid, signal.SIGKILL)
    assert select.select([pidfd], [], [], HANG_S)[0]
    os.close(pidfd)
    after = sealed.run("cat", "/etc/hostname")
    assert sealed.host.warden is not None
    assert sealed.host.warden.pid != warden.pid
    assert (after.report.verdict, after.report.warden_restarts) == (before.report.verdict, 0)
    assert list(after.report.tally.denials) == list(before.report.tally.denials) != []


def test_a_warden_that_ends_before_it_is_ready_is_told_in_plain_words(sealed: World, short_dir: Path) -> None:
    """Killed before it said that it was there: what ended, how, that nothing was run, and what to do."""
    options = sealed.host.options
    own = {f"{name}_directory": str(short_dir / name) for name in ("state", "run", "audit", "data")}
    with Processes(options.namespaces, ()) as processes:
        assert processes.warden is not None
        processes.warden.process.send_signal(signal.SIGKILL)
        assert processes.warden.process.wait(HANG_S)
        with open_host(replace(options, **own), processes) as host, pytest.raises(ConfinementError) as caught:
            host.wait_ready()
    assert str(caught.value) == (
        "the warden, the process that decides file calls, was killed before it was ready (SIGKILL)"
    )
    assert "nothing was run; start it again" in caught.value.hint


def test_a_warden_that_is_ready_is_not_waited_for_again(sealed: World) -> None:
    """The second run on a host starts at once: a warden says only once that it is ready."""
    sealed.run("exit", "0")
    started = time.monotonic()
    sealed.host.wait_ready()
    assert time.monotonic() - started < HANG_S


def _has_call_in_hand() -> bool:
    """Whether a dead warden has left a call unanswered: by this process's duplicate of the worker's listener."""
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{number}") == "anon_inode:seccomp notify":
                return has_unanswered_call(int(number))
    return False


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase is not Phase.LAUNCHING])
def test_a_warden_may_die_in_any_phase_of_a_run(
    sealed: World, tree: Path, phase: Phase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at each step of a run, from the fork to the last byte: the guest's result is the same, and its own.

    But where it had the worker's first call in hand, or was answering it: then the guest never runs, and that is told.
    """
    lost = []
    in_hand = []

    def advance_and_kill(before: Phase, event: Event) -> tuple[Phase, Command]:
        after, command = advance(before, event)
        if after is phase and before is not phase and not lost:
            assert sealed.host.warden is not None
            lost.append(sealed.host.warden.pid)
            pidfd = os.pidfd_open(lost[0])
            os.kill(lost[0], signal.SIGKILL)
            assert select.select([pidfd], [], [], HANG_S)[0]
            os.close(pidfd)
            in_hand.append(_has_call_in_hand())
        return after, command

    file = next(path for path in tree.rglob("*") if path.is_file())
    monkeypatch.setattr(sealed.host.supply, "_deaths_ns", ())  # those of the other phases
    monkeypatch.setattr(run_loop, "advance", advance_and_kill)
    ran = sealed.run("cat", file, flags=("--read", file))
    assert lost
    (told,) = [r["detail"]["worker"] for r in ran.records if r["event"] == "warden_lost"]
    if told == "ended":
        verdict = ran.report.verdict
        assert (phase, verdict.outcome, ran.report.stdout) == (Phase.LOADING, "host_error", b"")
        assert verdict.message == (UNANSWERED if in_hand[0] else ANSWERED_WRONG)
        return
    assert (ran.report.verdict, ran.report.stdout) == (Verdict("exited", 0), file.read_bytes())
    ending = phase in (Phase.ENDING, Phase.ENDED)
    assert ran.report.warden_restarts == (0 if ending else 1)
    assert told == ("was ending" if ending else "waits for another")
