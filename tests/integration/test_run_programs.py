"""Programs that can't or mustn't be run; the bounds of compiling; the cache; the audit log comes first."""

from __future__ import annotations

import importlib.util
import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import wasmtime

GUESTS = Path(__file__).resolve().parents[1] / "guests"
TOOL = GUESTS / "tool.wasm"

EXIT_100 = """(module
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (func (export "_start") (call $exit (i32.const 100))))"""

Wat = Callable[[str], Path]


def _bomb(name: str, *arguments: int) -> bytes:
    spec = importlib.util.spec_from_file_location("bombs", GUESTS / "bombs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made = getattr(module, name)(*arguments)
    assert isinstance(made, bytes)
    return made


@pytest.mark.any_user
def test_imports_that_nothing_provides_are_named_at_once(run, wat: Wat) -> None:
    """Each missing import is named, before anything runs, as an error of the program."""
    result = run(wat("unknown-imports.wat"))
    assert result.code == 65
    for name in ("env.system", "wasi_snapshot_preview1.proc_spawn", "wasi_unstable.proc_exit"):
        assert name in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.any_user
@pytest.mark.parametrize(("program", "words"), [("no-start.wat", "_start"), ("wrong-type.wat", "fd_write")])
def test_programs_that_are_no_commands(run, wat: Wat, program: str, words: str) -> None:
    """A library, and an import of the wrong type, are told in words and by no trap."""
    result = run(wat(program))
    assert result.code in (65, 70)
    assert words in result.stderr


@pytest.mark.any_user
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not a WebAssembly binary"),
        (b"\0asm", "WebAssembly"),
        (b"\0asm\1\0\0\0garbage that is no section", "WebAssembly"),
        (b"(module)", "text format"),
        (b"\x7fELF", "precompiled"),
        (b"\0asm\x0d\0\1\0garbage", "WebAssembly"),
        (b"\0asm\2\0\0\0", "WebAssembly"),
    ],
)
def test_input_that_is_no_program(run, content: bytes, words: str) -> None:
    """Garbage, text and native code end with 65 and say what they are."""
    result = run(run.file("p.wasm", content))
    assert result.code == 65, result.stderr
    assert "p.wasm" in result.stderr
    assert "Traceback" not in result.stderr
    assert words in result.stderr or "p.wasm" in result.stderr


@pytest.mark.any_user
def test_code_that_somebody_else_compiled_is_refused(run) -> None:
    """A precompiled artifact of the very engine is refused: its machine code could be anything."""
    module = wasmtime.Module(wasmtime.Engine(), '(module (func (export "_start")))')
    result = run(run.file("p.wasm", bytes(module.serialize())))
    assert result.code == 65
    assert "precompiled native code" in result.stderr


@pytest.mark.any_user
def test_a_compile_bomb_ends_within_its_time(run) -> None:
    """--compile-timeout ends the compiler; it is a limit's exit code, and the same bytes compile given time."""
    path = run.file("bomb.wasm", _bomb("wide_function", 400_000))
    result = run(path, "--compile-timeout", "1s")
    assert result.code == 75, result.stderr
    assert "compiling took longer than 1 s" in result.stderr


def test_a_compile_bomb_ends_within_its_memory(run) -> None:
    """--compile-memory ends the compiler."""
    path = run.file("bomb.wasm", _bomb("wide_function", 200_000))
    result = run(path, "--compile-memory", "100MB")
    assert result.code == 75, result.stderr
    assert "memory" in result.stderr


def _artifacts(state: Path) -> list[Path]:
    return sorted((state / "cache").glob("*.cwasm"))


@pytest.mark.any_user
def test_a_second_run_takes_what_the_first_compiled(run) -> None:
    """The second run of the same bytes starts from the cache, and says so in the log."""
    state = run.directory.parent / "own"
    for _ in range(2):
        assert run(GUESTS / "hello.wasm", state=state).stdout == b"hello\n"
    starts = [r["detail"] for r in run.records(state) if r["event"] == "worker_starting"]
    assert [detail["cached"] for detail in starts] == [False, True]
    assert starts[0]["artifact_sha256"] == starts[1]["artifact_sha256"]


def test_a_tampered_artifact_is_never_run(run, wat: Wat) -> None:
    """Machine code in the cache that isn't what was recorded is thrown away and compiled again."""
    state = run.directory.parent / "own"
    program = wat(EXIT_100)
    assert run(program, state=state).code == 100
    (artifact,) = _artifacts(state)
    good = artifact.read_bytes()
    artifact.write_bytes(good[:-100] + bytes(100))
    assert run(program, state=state).code == 100
    assert artifact.read_bytes() == good
    # Another program's artifact under this one's name: the hash tells.
    other = bytes(wasmtime.Module(wasmtime.Engine(), '(module (func (export "_start")))').serialize())
    artifact.write_bytes(other)
    assert run(program, state=state).code == 100
    starts = [r["detail"] for r in run.records(state) if r["event"] == "worker_starting"]
    assert [detail["cached"] for detail in starts] == [False, False, False]
    told = [r["reason"] for r in run.records(state) if r["event"] == "artifact_discarded"]
    assert len(told) == 2
    assert "not the one that was recorded" in told[0]


def test_a_cache_that_others_may_write_is_refused(run) -> None:
    """Whoever could put machine code there could run it: nothing starts."""
    state = run.directory.parent / "own"
    (state / "cache").mkdir(parents=True)
    (state / "cache").chmod(0o777)
    result = run(GUESTS / "hello.wasm", state=state)
    assert result.code == 65
    assert "writable by nobody else" in result.stderr
    assert result.stdout == b""


@pytest.mark.any_user
def test_the_log_has_every_step_in_order(run) -> None:
    """Start, confinement, decisions, end; the confinement is on disk before the guest's first action."""
    state = run.directory.parent / "own"
    run.file("in/a.txt", "x")
    run(TOOL, "--read", "in", guest=("cat", "in/a.txt", ",", "cat", "/etc/passwd"), state=state)
    records = run.records(state)
    events = [r["event"] for r in records if r["component"] == "tool"]
    assert events[:2] == ["worker_starting", "worker_confined"]
    assert events[-1] == "worker_ended"
    decisions = [r["decision"] for r in records if r["action"]]
    assert sorted(decisions) == ["allowed", "denied"]
    assert [r["seq"] for r in records] == list(range(1, len(records) + 1))
    verified = run.command_line.start("audit", "verify", "--audit-log", str(state / "audit"), AIRSSYS_STATE=str(state))
    with verified:
        output = verified.communicate(b"", 60)
    assert verified.returncode == 0, output


def test_a_log_that_can_not_be_written_runs_nothing(run) -> None:
    """No record, no action: with something else where the log belongs, nothing runs and nothing is printed."""
    state = run.directory.parent / "own"
    state.mkdir()
    (state / "audit").write_text("in the way")
    result = run(GUESTS / "hello.wasm", state=state)
    assert result.code == 73, result.stderr
    assert result.stdout == b""
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_run_and_leaves_nothing(run, number: int, code: int) -> None:
    """SIGINT and SIGTERM end guest and helpers within moments; output so far was delivered; the end is on record."""
    with run.start(TOOL, guest=("print", "started\\n", ",", "spin")) as process:
        assert process.stdout.readline() == b"started\n"
        family = psutil.Process(process.pid).children(recursive=True)
        assert len(family) >= 3
        process.send_signal(number)
        assert process.wait(15) == code
        stderr = process.stderr.read().decode()
    assert "Traceback" not in stderr
    assert not psutil.wait_procs(family, timeout=20)[1]
    ended = [r for r in run.records() if r["event"] == "worker_ended" and r["detail"]["exit_code"] == code][-1]
    assert ended["detail"]["outcome"] == "crashed"


def test_a_killed_supervisor_leaves_no_descendant(run) -> None:
    """SIGKILL of the command itself: everything that it started ends."""
    with run.start(TOOL, guest=("print", "started\\n", ",", "spin")) as process:
        assert process.stdout.readline() == b"started\n"
        family = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.wait(15)
        gone, alive = psutil.wait_procs(family, timeout=20)
        assert not alive
        assert len(gone) >= 3


def test_the_first_root_is_the_working_directory(run, wat: Wat) -> None:
    """Zig's library takes the first directory that a program is given for the working directory, whatever its name."""
    program = wat("first-root.wat")
    assert run(program, "--read", ".").code == 44, "ENOENT: nothing is there yet"
    run.file("here.txt", "x")
    assert run(program, "--read", ".").code == 0
    written = run.directory / "Component.toml"
    assert run(program, "--read", ".", "--write-manifest", written).code == 0
    assert run(run.directory, "--grant", "asked").code == 0


@pytest.mark.any_user
def test_a_module_of_a_proposal_that_is_off_is_named_in_one_line(run) -> None:
    """What the engine says of a module that it can't compile is readable: no escaped ends of lines in it."""
    code = bytes.fromhex("0061736d 01000000 01040160 0000 03020100 0a09 0107 00 06 40 07 00 0b 0b".replace(" ", ""))
    result = run(run.file("p.wasm", code))
    assert result.code == 65
    assert "failed" in result.stderr or "Invalid" in result.stderr or "WebAssembly" in result.stderr
    assert "\\x0a" not in result.stderr
    assert result.stderr.count("\n") <= 2
