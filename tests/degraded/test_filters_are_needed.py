"""The filters allow nothing that no program needs: real programs run while each rule's use is counted.

The runs are those of any user (`airssys run`), traced (`record.py`). A rule that none of them uses carries a reason,
and which rules may have one is written down here.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
import wasmtime
from recording import numbered_rules

if TYPE_CHECKING:
    from conftest import Deadline

pytestmark = pytest.mark.any_user

HERE = Path(__file__).resolve().parent
GUESTS = HERE.parent / "guests"
NOBODY = 65534
REVIEWED = {
    ("confine", "writev", "error path"),
    ("confine", "fstat", "another libc"),
    ("confine", "ioctl", "another libc"),
    ("confine", "madvise", "another libc"),
    ("confine", "sched_yield", "timing"),
    ("confine", "rt_sigaction", "error path"),
    ("confine", "tgkill", "error path"),
    ("confine", "clock_gettime", "another machine"),
    ("compile", "writev", "error path"),
    ("compile", "madvise", "another libc"),
    ("compile", "madvise", "timing"),
    ("compile", "clock_gettime", "another machine"),
}
"""The rules that may be there without a program that is seen to need them, and why. Think twice before adding one."""

FILES = (
    "cat in/a.txt , ls in , ls-small in 64 , ls-again in , tree in ,"
    " write out/w x , append out/w y , overwrite out/w z ,"
    " stat out/w , fstat out/w , trunc out/w 100 , fallocate out/w 8192 , fsync out/w , fdatasync out/w ,"
    " fadvise out/w , futimes out/w 5 , nonblock out/w , open out/w ra read , open out/w rwny keep , utimes out/w 7 ,"
    " fill out/big 2 , opens in/a.txt 100 , openat in a.txt , copy out/big out/big2 , mkdir out/d ,"
    " rename out/w out/x ,"
    " symlink a out/s , readlink out/s , unlink out/x , rmdir out/d , touch-many out 20 , ls out , access in/a.txt r ,"
    " cat in/none , utimes named/a.txt 5 , fds , bench-read out/big 1 , bench-write out/big 1"
)
OTHERS = (
    "env , clock , random 100 , random 100000 , sleep 20 , yield 10 , poll 10 , echo , grow 16 , malloc 32 ,"
    " print abc ,"
    " print-err abc , flood 1 , flood-err 1 , cat key , bench-compute 1"
)
GRANTED = ("--list", "named", "--read", "in", "--list", "in", "--write", "out", "--read", "out", "--list", "out")


class Recorder:
    """Runs programs, and adds up how often each rule was used."""

    def __init__(self, place: Path) -> None:
        """Keep everything in `place`."""
        self._place = place
        self.used: Counter[int] = Counter()
        self.exit_codes: dict[str, int] = {}

    def start(self, target: Path, options: Sequence[str], guest: Sequence[str]) -> subprocess.Popen[bytes]:
        """Start a run; `finish` adds it up."""
        (self._place / "used.json").unlink(missing_ok=True)
        command = [sys.executable, "-I", HERE / "record.py", self._place / "used.json", "run", target, "-q", *options]
        return subprocess.Popen(
            [*map(str, command), *(("--", *guest) if guest else ())],
            cwd=self._place,
            env={"AIRSSYS_STATE": str(self._place / "state"), "PATH": os.environ["PATH"], "HOME": str(self._place)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def finish(self, process: subprocess.Popen[bytes], label: str, stdin: bytes = b"") -> bytes:
        """Wait for its end and return what it printed."""
        try:
            output, _ = process.communicate(stdin, 60)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        self.exit_codes[label] = process.returncode
        counts = json.loads((self._place / "used.json").read_text())
        self.used += Counter({int(number): count for number, count in counts.items()})
        return output

    def run(self, label: str, target: Path, *options: str, guest: Sequence[str] = (), stdin: bytes = b"") -> bytes:
        """Run to the end."""
        with self.start(target, options, guest) as process:
            return self.finish(process, label, stdin)


def _worker_of(process: psutil.Process) -> psutil.Process | None:
    """The descendant with both filters, once it is there."""
    for one in process.children(recursive=True):
        try:
            status = Path(f"/proc/{one.pid}/status").read_text(encoding="utf-8")
        except OSError:
            continue
        if "\nSeccomp_filters:\t2\n" in status:
            return one
    return None


_STOPS = 300
"""At most, until the run's timeout. The thread that has to be met in its wait need not have begun it at the first."""


def _stop_and_continue(recorder: Recorder, deadline: Deadline) -> None:
    """A worker that waits is stopped and goes on, as the shell's ^Z does to a job."""
    with recorder.start(
        GUESTS / "tool.wasm", ("--timeout", "1500ms"), ("print", "ready", ",", "sleep", "60000")
    ) as run:
        assert run.stdout is not None
        assert run.stdout.read(5) == b"ready"
        worker = _worker_of(psutil.Process(run.pid))
        assert worker is not None
        stopped = (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)
        with contextlib.suppress(psutil.NoSuchProcess):
            for _ in range(_STOPS):
                worker.suspend()
                deadline.until(lambda: worker.status() in stopped, "the worker stops")
                worker.resume()
        recorder.finish(run, "stopped")


def _wat(place: Path, name: str) -> Path:
    path = place / f"{name}.wasm"
    path.write_bytes(wasmtime.wat2wasm((GUESTS / "wat" / f"{name}.wat").read_text(encoding="utf-8")))
    return path


def _large(place: Path) -> Path:
    """A module that takes the compiler more memory than its smallest limit."""
    body = "".join("(local.set 0 (i32.mul (i32.add (local.get 0) (i32.const 7)) (local.get 0)))" for _ in range(4))
    functions = "".join(f"(func (param i32) (result i32) {body} (i32.const {n}))" for n in range(4000))
    path = place / "large.wasm"
    path.write_bytes(wasmtime.wat2wasm(f'(module {functions} (func (export "_start")))'))
    return path


@pytest.fixture(scope="module")
def recorder() -> Iterator[Recorder]:
    """All runs, recorded once."""
    with tempfile.TemporaryDirectory(prefix="ad-", dir="/tmp") as name:
        place = Path(name)
        place.chmod(0o755)
        for directory in ("in", "named", "out"):
            (place / directory).mkdir()
        for directory in ("in", "named"):
            (place / directory / "a.txt").write_text("alpha")
        (place / "key").write_text("the key")
        if os.geteuid() == 0:
            for path in (place, *place.rglob("*")):
                os.chown(path, NOBODY, NOBODY)
        recorder = Recorder(place)
        for wasm in ("tool.wasm", "tool.component.wasm"):
            tool = GUESTS / wasm
            assert b"alpha" in recorder.run(f"{wasm} files", tool, *GRANTED, guest=FILES.split())
            for path in (place / "out").iterdir():
                path.unlink()
            assert b"hello" in recorder.run(f"{wasm} others", tool, guest=OTHERS.split(), stdin=b"hello")
            recorder.run(f"{wasm} trap", tool, guest=("trap", "memory"))
            recorder.run(f"{wasm} memory", tool, "--memory", "16MiB", guest=("malloc", "64"))
        recorder.run("fuel", GUESTS / "tool.wasm", "--fuel", "10000", guest=("spin",))
        recorder.run("recursion", _wat(place, "recursion"))
        recorder.run("memories", _wat(place, "many-memories"), "--memory", "64MiB")
        large = _large(place)
        recorder.run("compiler's memory", large, "--compile-memory", "4MB")
        recorder.run("large", large)
        yield recorder


@pytest.fixture(scope="module")
def used(recorder: Recorder) -> Counter[int]:
    """Number of a rule → how often it was used."""
    return recorder.used


def test_the_runs_ended_as_they_do_without_a_tracer(recorder: Recorder) -> None:
    """The record is of programs that worked, trapped and reached their limits, not of a tracer that got in the way."""
    expected = {"fuel": 75, "recursion": 134, "memories": 75, "compiler's memory": 75, "large": 0}
    for wasm in ("tool.wasm", "tool.component.wasm"):
        expected |= {f"{wasm} files": 1, f"{wasm} others": 1, f"{wasm} trap": 134, f"{wasm} memory": 75}
    assert recorder.exit_codes == expected


def test_a_stopped_worker_goes_on(recorder: Recorder, deadline: Deadline) -> None:
    """It is continued by a call of its own (restart_syscall), which the filter allows: it ends by its timeout."""
    _stop_and_continue(recorder, deadline)
    assert recorder.exit_codes.pop("stopped") == 75


@pytest.mark.parametrize(
    "number", [pytest.param(n, id=f"{name}-{rule.call}-{n}") for n, (name, rule) in numbered_rules().items()]
)
def test_every_rule_is_needed(used: Counter[int], number: int) -> None:
    """Some program used it; or it says why none did, and that has been reviewed."""
    name, rule = numbered_rules()[number]
    if rule.unseen:
        assert (name, rule.call, rule.unseen) in REVIEWED
    else:
        assert used[number], f"no program made {rule.call} by this rule of {name}.json: {rule.why}"


def test_what_was_reviewed_is_still_there() -> None:
    """No exception outlives its rule."""
    there = {(name, rule.call, rule.unseen) for name, rule in numbered_rules().values() if rule.unseen}
    assert there == REVIEWED
