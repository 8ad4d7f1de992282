"""Real workers: programs of both previews under every layer, their limits, and what is reported of them."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ipc.messages import ARTIFACT_PATH, EngineSettings, WorkerLimits

if TYPE_CHECKING:
    from conftest import Stage

    from supervisor.host.launch import Launched

GUESTS = Path(__file__).parent.parent.parent / "guests"
PROGRAMS = ["tool.wasm", "tool.component.wasm"]
SPIN = '(module (func (export "_start") (loop (br 0))))'
MEMORIES = 40


@pytest.mark.parametrize("name", ["hello.wasm", "hello.component.wasm"])
def test_hello(stage: Stage, name: str) -> None:
    """A program of either preview runs under every layer; the outside agrees with the worker's own report."""
    outcome = stage.run((GUESTS / name).read_bytes())
    assert outcome.stdout == b"hello\n"
    assert outcome.finished is not None
    assert (outcome.finished.outcome, outcome.finished.exit_code) == ("exited", 0)
    assert outcome.problems == ()
    assert outcome.ended is not None
    assert outcome.ended.wait_status == 0
    states = {report.layer: report.status for report in outcome.layers}
    for layer in ("environment", "rlimits", "capabilities", "no_new_privs", "landlock", "seccomp", "sealed"):
        assert states[layer] in ("enforced", "partial"), (layer, states)


@pytest.mark.parametrize("name", PROGRAMS)
def test_no_file_is_named_but_the_artifact(stage: Stage, name: str) -> None:
    """After filter 1 nothing is imported and no library looks around: only the artifact is asked for by name."""
    outcome = stage.run((GUESTS / name).read_bytes(), ("tool", "echo"), b"through")
    assert outcome.stdout == b"through"
    assert outcome.named == [("openat", ARTIFACT_PATH)]
    assert outcome.forbidden == []


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("command", ["cat /d/answered-0", "write /d/answered-0 x", "ls /d/answered-0"])
def test_a_wrong_number_ends_the_worker_before_its_guest_hears_of_it(
    stage: Stage, name: str, command: str, tmp_path: Path
) -> None:
    """An open of a file or directory that came to 0 for nothing (ADR 13): the engine's next step with it kills."""
    program = (GUESTS / name).read_bytes()
    words = ("tool", "print", "before\\n", ",", *command.split(), ",", "print", "after\\n")
    outcome = stage.run(program, words, b"standard input", mounts=(("/d", str(tmp_path)),))
    assert (outcome.finished, outcome.stdout) == (None, b"before\n")
    assert outcome.ended is not None
    assert os.WTERMSIG(outcome.ended.wait_status) == signal.SIGSYS
    # The control: the same number by itself is the standard input, and a refused open is an error that the guest sees.
    assert stage.run(program, ("tool", "echo"), b"standard input").stdout == b"standard input"
    refused = stage.run(program, ("tool", "cat", "/d/refused", ",", *words), mounts=(("/d", str(tmp_path)),))
    assert b"EACCES" in refused.stdout


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize(
    "command",
    ["args a b", "echo", "sleep 5", "clock", "random 100", "yield 10", "poll 5", "grow 8", "malloc 8", "print x"],
)
def test_no_honest_program_makes_a_forbidden_call(stage: Stage, name: str, command: str) -> None:
    """What WASI offers without files needs no call that the filter doesn't list."""
    outcome = stage.run((GUESTS / name).read_bytes(), ("tool", *command.split()), b"x")
    assert outcome.forbidden == []
    assert outcome.finished is not None
    assert outcome.finished.exit_code == 0, outcome.stdout


def test_without_namespaces_too(bare_stage: Stage) -> None:
    """Where the kernel gives no namespaces the required layers still hold."""
    outcome = bare_stage.run((GUESTS / "hello.wasm").read_bytes())
    assert outcome.stdout == b"hello\n"
    assert outcome.problems == ()
    states = {report.layer: report.status for report in outcome.layers}
    assert states["namespaces"] == "unavailable"
    assert states["seccomp"] == states["no_new_privs"] == "enforced"


def test_arguments_and_environment_are_only_what_is_given(stage: Stage) -> None:
    """The guest sees its own arguments and environment and nothing of ours."""
    tool = (GUESTS / "tool.wasm").read_bytes()
    assert stage.run(tool, ("tool", "args", "a b", "ü")).stdout.decode().split("\n")[:2] == ["a b", "ü"]
    assert stage.run(tool, ("tool", "env"), environment=(("TZ", "UTC"),)).stdout == b"TZ=UTC\n"


def test_mounts_are_opened_before_the_seal(stage: Stage, tmp_path: Path) -> None:
    """Each root is opened while loading, under its host name; a root that can't be opened ends the start."""
    tool = (GUESTS / "tool.wasm").read_bytes()
    outcome = stage.run(tool, ("tool", "exit", "0"), mounts=(("/data", str(tmp_path)),))
    assert outcome.named == [("openat", ARTIFACT_PATH), ("openat", str(tmp_path))]
    outcome = stage.run(tool, ("tool", "exit", "0"), mounts=(("/data", str(tmp_path / "none")),))
    assert outcome.start_failed is not None
    assert "can't be opened" in outcome.start_failed.message


def test_exit_codes(stage: Stage) -> None:
    """Preview 1 passes its code on; preview 2 knows success and failure."""
    codes = []
    for name in PROGRAMS:
        finished = stage.run((GUESTS / name).read_bytes(), ("tool", "exit", "7")).finished
        assert finished is not None
        codes.append((finished.outcome, finished.exit_code))
    assert codes == [("exited", 7), ("exited", 1)]


def test_a_trap_is_told_apart(stage: Stage) -> None:
    """A trap is no exit: its cause comes first in the message."""
    finished = stage.run('(module (memory 1) (func (export "_start") (drop (i32.load (i32.const 70000)))))').finished
    assert finished is not None
    assert finished.outcome == "trapped"
    assert finished.message.startswith("memory fault at wasm address")


def test_missing_imports_are_all_named(stage: Stage) -> None:
    """Imports that nothing provides are named together, before anything runs."""
    outcome = stage.run('(module (import "x" "a" (func)) (import "y" "b" (func)) (func (export "_start")))')
    assert outcome.start_failed is not None
    assert outcome.start_failed.message.endswith("nothing here provides: x.a, y.b")
    outcome = stage.run('(module (func (export "other")))')
    assert outcome.start_failed is not None
    assert "_start" in outcome.start_failed.message


def test_the_deadline(stage: Stage) -> None:
    """A guest that spins is ended at its deadline, and that is called a timeout."""
    finished = stage.run(SPIN, limits=WorkerLimits(1 << 20, 1, timeout_ns=50_000_000)).finished
    assert finished is not None
    assert (finished.outcome, finished.limit) == ("limit", "timeout")


def test_fuel(stage: Stage) -> None:
    """Fuel ends a guest after exactly as much as it was given."""
    finished = stage.run(
        SPIN, limits=WorkerLimits(1 << 20, 1, fuel=100_000), settings=EngineSettings(fuel=True)
    ).finished
    assert finished is not None
    assert (finished.outcome, finished.limit, finished.fuel_used) == ("limit", "fuel", 100_000)


def test_processor_time(stage: Stage) -> None:
    """The kernel kills at RLIMIT_CPU, pid namespace or not; what was used tells why."""
    ended = stage.run(SPIN, limits=WorkerLimits(1 << 20, 1, cpu_s=1)).ended
    assert ended is not None
    assert os.WTERMSIG(ended.wait_status) == 9
    # The kernel counts the limit in ticks and the report in run time: they differ by some percent, more under load.
    assert ended.user_cpu_ns + ended.system_cpu_ns >= 600_000_000


@pytest.mark.parametrize("limit_pages", [64, 4096])
def test_memory_is_one_sum_over_all_memories(stage: Stage, limit_pages: int) -> None:
    """Forty memories, each under the limit, can't hold more than it together (control: a larger limit)."""
    grow = "".join(
        f"(if (i32.eq (memory.grow $m{n} (i32.const 30)) (i32.const -1)) (then unreachable))" for n in range(MEMORIES)
    )
    memories = "".join(f"(memory $m{n} 1)" for n in range(MEMORIES))
    limits = WorkerLimits(limit_pages << 16, 1, memories=MEMORIES)
    finished = stage.run(f'(module {memories} (func (export "_start") {grow}))', limits=limits).finished
    assert finished is not None
    assert finished.peak_memory_bytes <= limits.memory_bytes
    if limit_pages == 64:
        assert (finished.outcome, finished.limit) == ("limit", "memory")
        assert finished.usage > limits.memory_bytes
    else:
        assert (finished.outcome, finished.peak_memory_bytes) == ("exited", MEMORIES * 31 << 16)


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_guest_that_gives_up_for_want_of_memory(stage: Stage, name: str) -> None:
    """A guest whose last request was refused and which then fails was ended by its memory limit."""
    outcome = stage.run((GUESTS / name).read_bytes(), ("tool", "grow", "1000"))
    assert outcome.finished is not None
    assert (outcome.finished.outcome, outcome.finished.limit) == ("limit", "memory")
    assert outcome.finished.refused_growth_bytes > 0


def test_tables(stage: Stage) -> None:
    """A table beyond its bound is refused at instantiation."""
    finished = stage.run('(module (table 4000000 funcref) (func (export "_start")))').finished
    assert finished is not None
    assert (finished.outcome, finished.limit) == ("limit", "tables")


def test_what_an_idle_worker_holds(stage: Stage) -> None:
    """A sealed worker has its streams, its channel, and nothing of ours; its root is empty."""
    seen: dict[str, object] = {}

    def look(pid: int, launched: Launched) -> None:
        if os.getuid() == 0:
            seen["root"] = os.listdir(f"/proc/{pid}/root/")
            links = {n: os.readlink(f"/proc/{pid}/fd/{n}") for n in os.listdir(f"/proc/{pid}/fd")}
            seen["fds"] = sorted(links.values())
        with open(f"/proc/{pid}/environ", "rb") as environment:
            seen["environ"] = environment.read()

    outcome = stage.run((GUESTS / "hello.wasm").read_bytes(), on_sealed=look if os.getuid() == 0 else lambda *_: None)
    assert outcome.stdout == b"hello\n"
    if os.getuid() == 0:
        assert seen["root"] == []
        held = seen["fds"]
        assert isinstance(held, list)
        # The engine keeps the artifact open: the worker's own code, sealed and read-only.
        kinds = {name.split(":")[0] for name in held if name != "/memfd:artifact (deleted)"}
        assert kinds <= {"pipe", "socket", "anon_inode"}, held
        assert len([name for name in held if name.startswith("pipe")]) == 3


def test_a_program_can_not_flood_the_channel_with_names(stage: Stage) -> None:
    """A thousand long import names fit into what the channel carries; the count is said."""
    imports = "".join(f'(import "{"é" * 300}" "{n}{"ü" * 300}" (func))' for n in range(1000))
    outcome = stage.run(f'(module {imports} (func (export "_start")))')
    assert outcome.start_failed is not None
    assert outcome.start_failed.message.endswith("(1000 in all)")
