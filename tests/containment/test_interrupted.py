"""Calls that are interrupted, threads that end out of turn, and claims that come out of turn."""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import psutil
import pytest

from ipc.codec import pack_tagged
from ipc.messages import Confined, Finished, Go, Sealed, StartFailed
from supervisor.audit.log import AuditLog

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Ran, Steps, World

    from ipc.audit.event import AuditRecord
    from supervisor.audit.log import Entry

THREAD = 0x3D0F00


class Deadline(Protocol):
    """The fixture of tests/conftest.py."""

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Wait for it."""


class Held:
    """Holds back the record of an action on one resource, and with it the answer of the call."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, resource: Path) -> None:
        """Put itself before the audit log."""
        self.asked, self.go_on = threading.Event(), threading.Event()
        append = AuditLog.append

        def hold(log: AuditLog, entries: Sequence[Entry]) -> tuple[AuditRecord, ...]:
            if any(event.resource == str(resource) for event, _ in entries):
                self.asked.set()
                assert self.go_on.wait(20)
            return append(log, entries)

        monkeypatch.setattr(AuditLog, "append", hold)


def worker_of_this_run() -> psutil.Process:
    """Return the process that makes the calls: the deepest below us."""
    return max(psutil.Process().children(recursive=True), key=lambda process: len(process.parents()))


def test_a_call_that_is_stopped_and_continued_is_made_once(
    sealed: World, tree: Path, monkeypatch: pytest.MonkeyPatch, deadline: Deadline
) -> None:
    """A worker stopped while its mkdir is being decided has made one directory when it goes on, not tried two."""
    steps: Steps = [("make", "mkdir", f"s:{tree}/out/made", 0o755), ("after", "getpid")]
    held = Held(monkeypatch, tree / "out/made")
    ran: list[Ran] = []
    running = threading.Thread(target=lambda: ran.append(sealed.probe(steps, "--write", f"{tree}/out/")))
    running.start()
    try:
        assert held.asked.wait(20)
        worker = worker_of_this_run()
        worker.send_signal(signal.SIGSTOP)
        held.go_on.set()
        deadline.until(lambda: worker.status() == psutil.STATUS_STOPPED, "the worker stops when its call is answered")
        worker.send_signal(signal.SIGCONT)
    finally:
        held.go_on.set()
        running.join()
    assert ran[0].results == {"make": 0, "after": 1}
    assert [r["resource"] for r in ran[0].records if r["decision"] == "allowed"] == [f"{tree}/out/made"]
    again = sealed.probe(steps, "--write", f"{tree}/out/")
    assert again.results["make"] == -errno.EEXIST, "a second try would have been told"


def test_a_leader_that_ends_while_its_threads_go_on_is_ended(sealed: World) -> None:
    """The main thread leaves others behind that nobody would see: a violation; leaving alone or with all is none."""
    thread: Steps = [("thread", "stay:clone", THREAD)]
    ran = sealed.probe([*thread, ("x", "exit", 0)], "--timeout", "60s")
    assert ran.results["thread"] > 0
    assert "leader thread exited while others ran" in ran.report.verdict.message
    assert ran.report.verdict.outcome == "crashed"
    twin = sealed.probe([*thread, ("x", "exit_group", 0)], "--timeout", "60s")
    assert "leader thread" not in twin.report.verdict.message


CLAIMS = {
    "a layer is missing": StartFailed("sealing", "seccomp", "seccomp", errno.ENOSYS, "none here"),
    "its program is refused": StartFailed("loading", "", "program", 0, "no WebAssembly"),
    "it is confined": Confined(()),
    "it is sealed": Sealed(()),
    "go": Go(),
}


@pytest.mark.parametrize("claim", CLAIMS)
def test_what_is_said_out_of_turn_ends_the_run(sealed: World, claim: str) -> None:
    """After its start a worker can't say that it never started, nor start again: it has broken the protocol."""
    said = pack_tagged(CLAIMS[claim])
    ran = sealed.probe([("said", "write", 3, f"x:{said.hex()}", len(said)), ("wait", "futex", "b:4", 128, 0, 0)])
    assert "wait" not in ran.results
    assert (ran.report.verdict.outcome, ran.report.verdict.exit_code) == ("host_error", 70)
    in_turn = pack_tagged(Finished("exited", 3))
    steps: Steps = [("said", "write", 3, f"x:{in_turn.hex()}", len(in_turn)), ("end", "exit_group", 0)]
    verdict = sealed.probe(steps).report.verdict
    assert (verdict.outcome, verdict.exit_code) == ("exited", 3)


@pytest.mark.parametrize(
    "data", [b"\xff" * 16, b"\x91" * 2000, b"\xc1" * 60_000, b"\x81\xa1t"], ids=["junk", "deep", "long", "cut off"]
)
def test_what_is_no_message_ends_the_run(sealed: World, data: bytes) -> None:
    """Bytes on the channel that are no message end the worker that sent them, and the host serves the next."""
    ran = sealed.probe([("said", "write", 3, f"x:{data.hex()}", len(data)), ("wait", "futex", "b:4", 128, 0, 0)])
    assert ran.report.verdict.outcome == "host_error"
    assert "protocol" in ran.report.verdict.message
    assert sealed.probe([("me", "getpid")]).results == {"me": 1}


def test_a_call_beside_a_hand_over_does_not_pass_for_a_broken_one(sealed: World, tree: Path, bare: World) -> None:
    """What a filter kills is told as such, also while another thread waits for a descriptor: no mark explains it away.

    The descriptor takes as long as its record takes to the disk, so the other thread's call nearly always comes first.
    """
    opening: Steps = (("open", "openat", -100, f"s:{tree}/in/a.txt", 0), ("wait", "read", 0, "b:8", 8))
    flags = ("--read", f"{tree}/in/a.txt")
    for _ in range(10):
        reader, writer = os.pipe2(os.O_CLOEXEC)
        try:
            ran = sealed.run(
                flags=flags, wasm="hello.wasm", steps=(("kill", "beside:seccomp", 0), *opening), stdin=reader
            )
        finally:
            os.close(reader)
            os.close(writer)
        verdict = ran.report.verdict
        assert (verdict.outcome, verdict.exit_code) == ("crashed", 128 + signal.SIGSYS), verdict
    harmless: Steps = (("beside", "beside:getpid"), *opening)
    for world in (sealed, bare):
        ran = world.probe(harmless, *flags)
        assert ran.ending == ("exited", "")
        assert ran.results["open"] > 2
