"""The streams of `airssys run`: every byte arrives, in order, whoever is at the other end."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
from pathlib import Path

import pytest

GUESTS = Path(__file__).resolve().parents[1] / "guests"
TOOL = GUESTS / "tool.wasm"
BOTH = ["tool.wasm", "tool.component.wasm"]


@pytest.fixture(scope="module")
def ten_megabytes() -> bytes:
    """Bytes of every value, incompressible and the same each time."""
    return random.Random(1).randbytes(10_000_000)


@pytest.mark.parametrize("program", BOTH)
def test_ten_binary_megabytes_through_both_pipes(run, ten_megabytes: bytes, program: str) -> None:
    """What goes in comes out, byte for byte."""
    result = run(GUESTS / program, guest=("echo",), stdin=ten_megabytes)
    assert result.code == 0, result.stderr
    assert hashlib.sha256(result.stdout).digest() == hashlib.sha256(ten_megabytes).digest()


def test_standard_input_from_a_file(run, ten_megabytes: bytes) -> None:
    """A regular file as standard input is read to its end."""
    path = run.file("input", ten_megabytes)
    with path.open("rb") as stream, (run.directory / "output").open("wb") as output:
        code = _run_with(run, stream.fileno(), output.fileno())
    assert code == 0
    assert (run.directory / "output").read_bytes() == ten_megabytes


def _run_with(run, stdin: int | None, stdout: int, *guest: str) -> int:
    """Run the tool's echo with these descriptors as its standard streams."""
    command = [run.command_line_path, "run", str(TOOL), "-q", "--", *(guest or ("echo",))]
    return subprocess.run(
        command,
        stdin=stdin,
        stdout=stdout,
        cwd=run.directory,
        env={**run.environment},
        timeout=60,
        check=False,
    ).returncode


@pytest.mark.any_user
def test_standard_input_from_dev_null(run) -> None:
    """/dev/null is an end at once."""
    result = subprocess.run(
        [run.command_line_path, "run", str(TOOL), "-q", "--", "echo"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        cwd=run.directory,
        env=run.environment,
        timeout=60,
        check=False,
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_closed_standard_descriptors(run, closed: str) -> None:
    """A caller that closed a standard descriptor gets no other file in its place, and the guest still runs."""
    run.file("out/f")
    script = f'exec "{run.command_line_path}" run "{TOOL}" -q --write out -- echo , write out/f done {closed}'
    result = subprocess.run(
        ["sh", "-c", script],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        cwd=run.directory,
        env=run.environment,
        timeout=60,
        check=False,
    )
    assert (run.directory / "out/f").read_bytes() == b"done", (result.returncode, result.stderr)
    assert result.returncode == 0


@pytest.mark.any_user
def test_input_that_the_guest_does_not_read(run, ten_megabytes: bytes) -> None:
    """A guest that ends without reading leaves the writer with a closed pipe, not with a hang."""
    with run.start(TOOL, guest=("print", "done")) as process:
        stdout, stderr = process.communicate(ten_megabytes, 60)
    assert (process.returncode, stdout) == (0, b"done"), stderr


@pytest.mark.any_user
def test_input_streams_as_it_comes(run) -> None:
    """What was written is answered before the input ends: nothing waits for a full buffer or the end."""
    with run.start(TOOL, guest=("echo",)) as process:
        for line in (b"one\n", b"two\n"):
            process.stdin.write(line)
            process.stdin.flush()
            assert process.stdout.readline() == line
        process.stdin.close()
        assert process.wait(30) == 0
        assert process.stdout.read() == b""


@pytest.mark.any_user
def test_output_keeps_to_its_stream(run) -> None:
    """stdout and stderr aren't mixed; with -q nothing of ours is added to stderr."""
    result = run.tool("-q", guest=("print", "out\\x00\\xff", ",", "print-err", "err\\xfe"))
    assert (result.code, result.stdout, result.stderr_bytes) == (0, b"out\x00\xff", b"err\xfe")


@pytest.mark.any_user
@pytest.mark.parametrize("program", BOTH)
def test_a_reader_that_goes_away(run, program: str) -> None:
    """`airssys run … | head -1` ends, as any program does whose reader left."""
    script = f'"{run.command_line_path}" run "{GUESTS / program}" --output 2GB -- flood 200 | head -1'
    result = subprocess.run(
        ["sh", "-c", script],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        cwd=run.directory,
        env=run.environment,
        timeout=60,
        check=False,
    )
    assert result.stdout.count(b"\n") == 1
    assert b"Traceback" not in result.stderr


@pytest.mark.any_user
def test_a_guest_that_writes_for_ever_ends_when_its_reader_goes_away(run) -> None:
    """Nobody reads: the guest is told by a broken pipe, instead of running for ever unseen."""
    with run.start(TOOL, "--output", "1TB", guest=("flood", "0")) as process:
        process.stdout.read(100_000)
        process.stdout.close()
        process.wait(30)
        assert b"Traceback" not in process.stderr.read()


@pytest.mark.any_user
def test_a_slow_reader_loses_nothing(run) -> None:
    """The guest has long ended when its output is at last read: every byte is still there (`| less`)."""
    with run.start(TOOL, guest=("flood", "1")) as process:
        head = os.read(process.stdout.fileno(), 1)
        # Longer than any patience for a process that has ended: nothing notifies of "still waiting".
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(7)
        rest = process.stdout.read()
        assert process.wait(30) == 0
    assert len(head + rest) == 1 << 20


@pytest.mark.any_user
def test_output_without_room_is_told(run) -> None:
    """What was printed to a full disk is lost: 73 and why, with --quiet too; the same program elsewhere ends with 0."""
    for quiet in ((), ("-q",)):
        full = os.open("/dev/full", os.O_WRONLY)
        try:
            command = [run.command_line_path, "run", GUESTS / "hello.wasm", *quiet]
            done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, env=run.environment, check=False)
        finally:
            os.close(full)
        assert done.returncode == 73
        assert b"airssys: hello: its standard output can't be written: No space left on device\n" in done.stderr
    assert run(GUESTS / "hello.wasm").code == 0
