"""The warden is killed while components run: who was in no call goes on, who was in one is ended and named."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import Popen
from typing import TYPE_CHECKING, Protocol

import psutil
import pytest

from ipc.hand_over import is_marked
from ipc.libc import pidfd_getfd
from ipc.struct import Struct, field
from supervisor.fleet.deaths import DEATHS_MAX
from supervisor.host.processes import WardenProcess
from supervisor.host.warden_client import WardenClient
from supervisor.host.warden_recovery import has_unanswered_call
from supervisor.host.warden_restart import ANSWERED_WRONG, UNANSWERED

if TYPE_CHECKING:
    from tests.integration.conftest import Runner

GUESTS = Path(__file__).resolve().parents[1] / "guests"
TIMEOUT_S = 30.0
KILLS = 100
HANG_MS = 10_000
"""Promised is a second; a busy machine is given ten."""


class Until(Protocol):
    """The fixture `deadline` of tests/conftest.py."""

    at_s: float

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Return as soon as the condition holds."""


class Victim(Struct):
    """A run whose wardens are killed, by pid."""

    process: Popen[bytes]
    report: Path
    deadline: Until
    killed: list[int] = field(default_factory=list)
    output: bytes = b""
    lines: int = 0

    def has_ended(self) -> bool:
        """Whether the supervisor has."""
        return self.process.poll() is not None

    def find_warden(self) -> int | None:
        """Return the warden that lives, if one does."""
        with contextlib.suppress(psutil.Error):
            for child in psutil.Process(self.process.pid).children():
                with contextlib.suppress(psutil.Error):
                    if child.pid not in self.killed and "ipc.warden.shell" in " ".join(child.cmdline()):
                        return child.pid
        return None

    def warden(self) -> int:
        """Wait for a warden that lives; 0 when the run has ended without one."""
        self.deadline.until(lambda: self.find_warden() or self.has_ended(), "no other warden was started")
        return self.find_warden() or 0

    def kill_warden(self) -> bool:
        """Wait for a warden and kill it; False when the run has ended."""
        pid = self.warden()
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            self.killed.append(pid)
        return bool(pid)

    def kill_warden_when(self, wanted: Callable[[int], bool]) -> None:
        """Kill the warden while `wanted` holds of a duplicate of the worker's listener: it is stopped to look."""
        pid = self.warden()
        with self._listener() as listener:

            def found() -> bool:
                os.kill(pid, signal.SIGSTOP)
                self.deadline.until(lambda: _all_stopped(pid), "the warden does not stop")
                if wanted(listener):
                    return True
                os.kill(pid, signal.SIGCONT)
                return False

            self.deadline.until(found, "the moment never came")
            os.kill(pid, signal.SIGKILL)
        self.killed.append(pid)

    @contextlib.contextmanager
    def _listener(self) -> Iterator[int]:
        listener = self._descriptor("anon_inode:seccomp notify")
        try:
            yield listener
        finally:
            os.close(listener)

    def set_mark(self) -> None:
        """Set the worker's mark, as its warden does while it hands a descriptor over."""
        mark = self._descriptor("/memfd:hand-over (deleted)")
        self.deadline.until(lambda: not is_marked(mark), "the hand-over before this one has no end")
        os.pwrite(mark, b"x", 0)
        os.close(mark)

    def _descriptor(self, target: str) -> int:
        """Return a duplicate of the one descriptor of the supervisor's that leads there."""
        supervisor = self.process.pid
        directory = f"/proc/{supervisor}/fd"
        (number,) = (n for n in os.listdir(directory) if os.readlink(f"{directory}/{n}") == target)
        pidfd = os.pidfd_open(supervisor)
        try:
            return pidfd_getfd(pidfd, int(number))
        finally:
            os.close(pidfd)

    def read_lines(self, count: int) -> bool:
        """Wait for so many more lines of output; False at its end. Not buffered: `communicate` would miss the rest."""
        assert self.process.stdout is not None
        self.lines += count
        while self.output.count(b"\n") < self.lines:
            data = os.read(self.process.stdout.fileno(), 1 << 16)
            if not data:
                return False
            self.output += data
        return True

    def finish(self, stdin: bytes = b"x") -> Ended:
        """Let it come to its end."""
        out, err = self.process.communicate(stdin, TIMEOUT_S)
        document = json.loads(self.report.read_text())
        output = (self.output + out).decode().removeprefix("here\n")
        return Ended(self.process.returncode, output, err.decode(), document)


class Ended(Struct):
    """What came of it."""

    code: int
    output: str
    stderr: str
    document: dict[str, object]


def _all_stopped(pid: int) -> bool:
    states = []
    for thread in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(OSError):
            states.append(Path(f"/proc/{pid}/task/{thread}/stat").read_text().rpartition(")")[2].split()[0])
    return set(states) == {"T"}


def call_waits(listener: int) -> bool:
    """Whether a call was made that nobody has received, and none is in anybody's hands."""
    poller = select.poll()
    poller.register(listener, select.POLLIN)
    return bool(poller.poll(0)) and not has_unanswered_call(listener)


@contextlib.contextmanager
def victim(run: Runner, deadline: Until, *guest: str, options: tuple[str | Path, ...] = ()) -> Iterator[Victim]:
    """Start a run and yield it once its guest has said that it is there."""
    report = run.directory.parent / "report.json"
    grants = ("--read", "in", "--write", "out", "--read", "out", "--report", report, *options)
    with run.start(GUESTS / "tool.wasm", *grants, guest=("print", "here\\n", ",", *guest)) as process:
        try:
            started = Victim(process, report, deadline)
            assert started.read_lines(1)
            yield started
        finally:
            if process.poll() is None:
                process.kill()


@pytest.fixture
def place(run: Runner) -> Runner:
    """A directory to read, one to write, and a host whose warden can be replaced."""
    run.file("in/a.txt", "alpha\n")
    run.file("in/sub/b.txt", "beta\n")
    run.folder("out")
    return run


EVERYTHING = (
    *("cat", "in/a.txt", ",", "cat", "in/sub/b.txt", ",", "tree", "in", ",", "stat", "in/a.txt", ",", "ls", "in"),
    *(",", "cat", "/etc/passwd", ",", "ls", "/etc", ",", "stat", "/etc/hostname", ",", "cat", "in/../../x"),
    *(",", "write", "out/w", "text", ",", "append", "out/w", "more", ",", "cat", "out/w", ",", "mkdir", "out/d"),
    *(",", "rename", "out/w", "out/d/w", ",", "write", "in/no", "x", ",", "cat", "in/missing", ",", "ls", "out/d"),
    *(",", "symlink", "w", "out/d/l", ",", "readlink", "out/d/l", ",", "unlink", "out/d/l", ",", "fds"),
)


CALLS = (*("mkdir", "/o/d", ",", "rmdir", "/o/d", ",") * 2000, "args")
"""Directly beneath a mount: no descriptor is handed over, so that the warden may be stopped at any time."""
CALLS_OUTPUT = "mkdir /o/d: ok\nrmdir /o/d: ok\n" * 2000


def _events(run: Runner, instance: object, *names: str) -> list[dict[str, object]]:
    return [r for r in run.records() if r["instance"] == instance and r["event"] in names]


def _instance(run: Runner) -> object:
    """Return the instance of the last run."""
    return [r["instance"] for r in run.records() if r["event"] == "worker_starting"][-1]


def test_a_worker_in_no_call_goes_on_as_if_nothing_had_happened(place: Runner, deadline: Until) -> None:
    """Every kind of call gets the answer after the warden's death that it gets without: results, refusals, names."""
    with victim(place, deadline, "wait-stdin", ",", *EVERYTHING) as undisturbed:
        expected = undisturbed.finish()
    (place.directory / "out/d/w").unlink()
    (place.directory / "out/d").rmdir()
    with victim(place, deadline, "wait-stdin", ",", *EVERYTHING) as disturbed:
        assert disturbed.kill_warden()
        assert disturbed.warden() not in disturbed.killed
        ended = disturbed.finish()
    assert (ended.code, ended.output) == (expected.code, expected.output)
    assert "wait-stdin: ok byte" in ended.output
    assert ended.document["denials"] == expected.document["denials"]
    assert ended.document["outcome"] == "exited"
    assert (expected.document["warden_restarts"], ended.document["warden_restarts"]) == (0, 1)
    assert "the warden ended and was replaced once" in ended.stderr
    told = _events(place, _instance(place), "warden_lost", "warden_restarted")
    assert [(r["event"], r["producer"]) for r in told] == [
        ("warden_lost", "supervisor"),
        ("warden_restarted", "supervisor"),
    ]
    assert told[0]["detail"]["worker"] == "waits for another"
    assert (told[0]["detail"]["signal"], told[0]["detail"]["call_unanswered"]) == (signal.SIGKILL, False)
    assert told[1]["detail"]["took_ms"] > 0
    assert {layer["layer"]: layer["status"] for layer in told[1]["detail"]["layers"]}["no_new_privs"] == "enforced"
    streams = {r["stream"] for r in _events(place, _instance(place), "file_access", "denied")}
    assert len(streams) == 1, "what follows comes from the new warden's own stream"
    assert place.other_command("audit", "verify").code == 0


def test_a_call_that_was_made_and_not_received_is_answered_by_the_next_warden(place: Runner, deadline: Until) -> None:
    """A call that lies in the kernel when the warden dies is performed once, by the next one."""
    with victim(place, deadline, *CALLS, options=("--dir", "out::/o")) as disturbed:
        disturbed.kill_warden_when(call_waits)
        ended = disturbed.finish()
    # A call that was performed twice would fail.
    assert (ended.code, ended.output) == (0, CALLS_OUTPUT), ended.stderr
    assert ended.document["warden_restarts"] == 1


def test_a_worker_in_a_call_is_ended_and_named(place: Runner, deadline: Until) -> None:
    """A call that the dead warden held is never answered: its worker ends, and report, stderr and log say so."""
    with victim(place, deadline, *CALLS, options=("--dir", "out::/o")) as disturbed:
        disturbed.kill_warden_when(has_unanswered_call)
        ended = disturbed.finish()
    assert ended.code == 70
    assert CALLS_OUTPUT.startswith(ended.output)
    assert (ended.document["outcome"], ended.document["message"]) == ("host_error", UNANSWERED)
    assert ended.document["warden_restarts"] == 0
    assert UNANSWERED in ended.stderr
    lost, over = _events(place, _instance(place), "warden_lost", "worker_ended", "warden_restarted")
    assert (lost["event"], lost["detail"]["worker"], lost["detail"]["call_unanswered"]) == (
        "warden_lost",
        "ended",
        True,
    )
    assert lost["reason"].startswith(UNANSWERED)
    # An ordinary user is not told by /proc which call it was.
    assert len(lost["detail"]["calls"]) == (os.geteuid() == 0), lost["detail"]
    assert (over["event"], over["reason"]) == ("worker_ended", UNANSWERED)


def test_a_worker_that_got_the_right_number_goes_on(place: Runner, deadline: Until) -> None:
    """A warden may die when the worker has its descriptor and the mark is not taken back yet: nobody ends for that."""
    with victim(place, deadline, "wait-stdin", ",", "cat", "in/a.txt") as disturbed:
        disturbed.set_mark()
        assert disturbed.kill_warden()
        ended = disturbed.finish()
    assert (ended.code, ended.output) == (0, "wait-stdin: ok byte\nalpha\n")
    (lost,) = _events(place, _instance(place), "warden_lost")
    assert (lost["detail"]["worker"], lost["detail"]["handing_over"]) == ("waits for another", True)


def test_a_warden_that_dies_again_and_again_is_given_up(place: Runner, deadline: Until) -> None:
    """A few deaths in a row are made good; one more ends the run with an exit code and words of its own."""
    with victim(place, deadline, "wait-stdin") as disturbed:
        while disturbed.kill_warden():
            pass
        ended = disturbed.finish()
    assert len(disturbed.killed) == DEATHS_MAX + 1
    assert (ended.code, ended.document["outcome"]) == (70, "host_error")
    assert ended.document["warden_restarts"] == DEATHS_MAX
    assert f"the warden ended {DEATHS_MAX + 1} times within 10 s" in ended.stderr


ROUND = (
    *("bench-create", "out/f", "10", ",", "spin", "8", ",", "cat", "in/a.txt", ",", "spin", "8", ",", "ls", "in", ","),
    *("mkdir", "out/d", ",", "spin", "8", ",", "rmdir", "out/d", ",", "cat", "/etc/x", ",", "spin", "8", ","),
)
"""A call that is performed twice shows: a name exists that must not, or the other way round. Pauses are in no call."""
ROUND_OUTPUT = """\
bench-create: n=10
spin: ok
alpha
spin: ok
a.txt
sub/
mkdir out/d: ok
spin: ok
rmdir out/d: ok
cat /etc/x: EACCES
spin: ok
"""
ROUNDS = 8
EXPECTED = ROUND_OUTPUT * ROUNDS


def _told(output: str) -> str:
    return re.sub(r" p50_ns=\d+ p99_ns=\d+", "", output)


@pytest.mark.any_user
@pytest.mark.slow
def test_a_hundred_deaths_under_load(
    place: Runner, deadline: Until, record_property: Callable[[str, object], None]
) -> None:
    """A hundred wardens are killed while they answer: each run ends with the right output, or is ended and named."""
    killed = runs = survived = 0
    took_ms: list[float] = []
    while killed < KILLS:
        deadline.at_s = time.monotonic() + TIMEOUT_S  # for each run its own
        with victim(place, deadline, *ROUND * ROUNDS) as disturbed:
            for turn in range(DEATHS_MAX):
                lines = 1 + (runs + 5 * turn) % 11  # any place of a round
                if not disturbed.read_lines(lines) or not disturbed.kill_warden():
                    break
            ended = disturbed.finish()
        runs += 1
        killed += len(disturbed.killed)
        lost = _events(place, _instance(place), "warden_lost")
        if ended.code == 70:
            assert EXPECTED.startswith(_told(ended.output)), ended.output[-500:]
            assert ended.document["message"] in (UNANSWERED, ANSWERED_WRONG)
            assert str(ended.document["message"]) in ended.stderr
            assert [r["detail"]["worker"] for r in lost][-1] == "ended" or lost[-1]["detail"]["handing_over"]
        else:
            survived += 1
            assert (ended.code, _told(ended.output)) == (1, EXPECTED), (ended.stderr, ended.output[-500:])
            assert ended.document["outcome"] == "exited"
            assert {r["detail"]["worker"] for r in lost} <= {"waits for another", "was ending"}
        took_ms += [r["detail"]["took_ms"] for r in _events(place, _instance(place), "warden_restarted")]
        for name in ("out/f", "out/d"):
            with contextlib.suppress(FileNotFoundError):
                path = place.directory / name
                path.rmdir() if path.is_dir() else path.unlink()
    took_ms.sort()
    p50, p99 = took_ms[len(took_ms) // 2], took_ms[len(took_ms) * 99 // 100]
    line = f"{killed} deaths, {runs} runs, {survived} survived; calls waited {p50} ms (p50), {p99} ms (p99)"
    sys.stdout.write(line + "\n")
    record_property("recovery", line)
    assert survived
    assert len(took_ms) > KILLS // 10
    assert p99 < HANG_MS


def test_a_warden_that_takes_nothing_holds_nobody_up() -> None:
    """Stopped, with its channel full: who tells it something ends it instead of waiting, and meets that as its end."""
    process = WardenProcess.start("import signal\ndef main(descriptor):\n    signal.pause()", None)
    try:
        warden = WardenClient(process)
        process.process.send_signal(signal.SIGSTOP)

        def tell_ever_more() -> None:
            for number in range(100_000):
                warden.detach(f"worker-{number}")

        with pytest.raises(BrokenPipeError, match="was ended"):
            tell_ever_more()
        assert process.process.wait(0)
        with pytest.raises((EOFError, ConnectionError)):
            warden.receive(TIMEOUT_S)
    finally:
        process.close()
