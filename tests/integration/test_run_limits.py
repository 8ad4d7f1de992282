"""Each limit of `airssys run` ends the guest with a clear message, exit code 75, an event and `limit` in the report."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import wasmtime

GUESTS = Path(__file__).resolve().parents[1] / "guests"
TOOL = GUESTS / "tool.wasm"

FULL = """(module (memory 940)
  (func (export "_start") (local $page i32)
    (loop $next
      (i32.store (i32.shl (local.get $page) (i32.const 12)) (i32.const 1))
      (local.set $page (i32.add (local.get $page) (i32.const 1)))
      (br_if $next (i32.lt_u (local.get $page) (i32.const 15040))))
    (loop $spin (br $spin))))
"""

Wat = Callable[[str], Path]


def _ended(run, target: Path, *options: str, guest: tuple[str, ...] = ()) -> tuple[dict, dict]:
    """Run with --json; return the document and the record of the run's end."""
    known = len(run.records())
    result = run(target, *options, "--json", guest=guest)
    document = result.document()
    assert result.code == document["exit_code"], result.stderr
    ended = [record for record in run.records()[known:] if record["event"] in ("worker_ended", "worker_limit_reached")]
    assert len(ended) == 1
    return document, ended[0]


def _assert_limit(document: dict, ended: dict, name: str, code: str, limit: int) -> None:
    assert (document["outcome"], document["exit_code"]) == ("limit", 75), document
    assert document["limit"]["name"] == name
    assert document["limit"]["code"] == code == document["code"] == ended["code"]
    assert document["limit"]["limit"] == limit
    assert ended["event"] == "worker_limit_reached"
    assert (ended["quota"]["name"], ended["quota"]["limit"]) == (name, limit)


@pytest.mark.parametrize("program", ["tool.wasm", "tool.component.wasm"])
def test_a_guest_that_spins_meets_its_deadline(run, program: str) -> None:
    """The epoch ends a spinning guest soon after its deadline, whatever the preview."""
    document, ended = _ended(run, GUESTS / program, "--timeout", "300ms", guest=("spin",))
    _assert_limit(document, ended, "timeout", "A2002", 300_000_000)
    assert 0.25 < document["duration_s"] < 15
    assert "timeout of 0.3 s" in document["message"]


@pytest.mark.parametrize("guest", [("sleep", "60000"), ("poll", "60000")])
def test_a_guest_that_blocks_in_the_host_meets_its_deadline(run, guest: tuple[str, ...]) -> None:
    """Where no epoch reaches (poll, sleep), the outer deadline ends it."""
    with run.start(TOOL, "--timeout", "300ms", guest=guest) as process:
        started = time.monotonic()
        code = process.wait(30)
        stderr = process.stderr.read().decode()
    assert time.monotonic() - started < 15
    assert code == 75
    assert "ran longer than its timeout of 0.3 s [A2002]" in stderr


def test_a_guest_that_waits_for_standard_input_meets_its_deadline(run) -> None:
    """A pipe that nobody writes to holds no run for ever."""
    with run.start(TOOL, "--timeout", "300ms", guest=("wait-stdin",)) as process:
        code = process.wait(30)
        stderr = process.stderr.read().decode()
    assert code == 75
    assert "[A2002]" in stderr


@pytest.mark.any_user
def test_a_start_function_that_spins_meets_the_deadline(run, wat: Wat) -> None:
    """The guest's first instruction may be in its start function: the deadline holds there, too."""
    document, ended = _ended(run, wat("spin-start.wat"), "--timeout", "300ms")
    _assert_limit(document, ended, "timeout", "A2002", 300_000_000)


@pytest.mark.any_user
def test_a_host_call_flood_meets_the_deadline(run, wat: Wat) -> None:
    """A guest that only makes host calls is ended like one that computes."""
    document, ended = _ended(run, wat("host-call-flood.wat"), "--timeout", "300ms")
    _assert_limit(document, ended, "timeout", "A2002", 300_000_000)


@pytest.mark.any_user
def test_fuel_ends_at_the_same_instruction_each_time(run, wat: Wat) -> None:
    """Fuel is deterministic: two runs print the same and use the same."""
    known = [_ended(run, TOOL, "--fuel", "3000000", guest=("print", "begun", ",", "spin"))[0] for _ in range(2)]
    for document in known:
        assert (document["outcome"], document["exit_code"]) == ("limit", 75)
        assert document["limit"]["name"] == "fuel"
        assert document["code"] == "A2003"
        assert "used up its fuel of 3000000" in document["message"]
    assert [document["stdout"] for document in known] == ["begun", "begun"]
    assert known[0]["limit"] == known[1]["limit"]
    enough, _ = _ended(run, TOOL, "--fuel", "100000000", guest=("print", "ok"))
    assert (enough["exit_code"], enough["stdout"]) == (0, "ok")


def test_cpu_time(run) -> None:
    """RLIMIT_CPU ends a guest that computes for longer."""
    document, ended = _ended(run, TOOL, "--cpu-time", "1s", guest=("spin",))
    _assert_limit(document, ended, "cpu", "A2004", 10**9)
    assert "CPU time" in document["message"]


@pytest.mark.any_user
@pytest.mark.parametrize("command", ["flood", "flood-err"])
def test_output(run, command: str) -> None:
    """Output is delivered up to the limit, then the guest is ended."""
    result = run.tool("--output", "100kB", guest=(command, "0"))
    assert result.code == 75
    assert "printed more than its output limit of 100000 bytes [A2005]" in result.stderr
    if command == "flood":
        assert len(result.stdout) == 100_000
    else:
        assert 100_000 < len(result.stderr_bytes) < 101_000


@pytest.mark.any_user
def test_output_of_both_streams_is_counted_together(run) -> None:
    """Half of the limit on each stream is the whole limit."""
    result = run.tool("--output", "1500kB", guest=("flood", "1", ",", "flood-err", "1"))
    assert result.code == 75
    assert "[A2005]" in result.stderr


@pytest.mark.parametrize(
    ("program", "guest"),
    [("tool.wasm", ("grow", "100")), ("tool.component.wasm", ("grow", "100"))],
)
def test_memory(run, program: str, guest: tuple[str, ...]) -> None:
    """A guest that needs more than --memory ends; with more it doesn't (the control)."""
    document, ended = _ended(run, GUESTS / program, "--memory", "64MB", guest=guest)
    _assert_limit(document, ended, "memory", "A2001", 64_000_000)
    assert "needed more memory than its limit of 64 MB" in document["message"]
    control = run(GUESTS / program, "--memory", "200MB", guest=guest)
    assert control.code == 0, control.stderr


@pytest.mark.parametrize("program", ["memory-over.wat", "many-memories.wat"])
def test_memory_in_one_and_in_many_memories(run, wat: Wat, program: str) -> None:
    """The limit is a sum over all memories, and holds for what is wanted at instantiation."""
    document, ended = _ended(run, wat(program), "--memory", "64MB")
    _assert_limit(document, ended, "memory", "A2001", 64_000_000)


@pytest.mark.any_user
@pytest.mark.parametrize("program", ["huge-table.wat", "table-grow.wat"])
def test_tables(run, wat: Wat, program: str) -> None:
    """Tables are bounded: one that is too large ends as a limit, one that grows is refused its growth."""
    document, ended = _ended(run, wat(program), "--memory", "64MB")
    if program == "table-grow.wat":
        # The guest asks, is told no (-1), and goes on: nothing was exceeded.
        assert (document["outcome"], document["exit_code"]) == ("exited", 0)
        return
    assert (document["outcome"], document["exit_code"], document["limit"]["name"]) == ("limit", 75, "tables")
    assert ended["code"] == "A2006"


@pytest.mark.any_user
def test_a_recursion_without_end_is_a_trap(run, wat: Wat) -> None:
    """The stack is bounded, and what overflows it is the guest alone."""
    result = run(wat("recursion.wat"))
    assert result.code == 134
    assert "call stack exhausted" in result.stderr


@pytest.mark.any_user
def test_zero_means_nothing(run) -> None:
    """A limit of zero allows nothing at all."""
    result = run.tool("--output", "0B", guest=("print", "x"))
    assert result.code == 75
    assert result.stdout == b""


@pytest.mark.any_user
def test_a_memory_limit_below_what_an_engine_needs_is_refused(run) -> None:
    """A limit nothing can run under is told before anything runs."""
    result = run.tool("--memory", "1kB", guest=("print", "RAN"))
    assert result.code == 65
    assert "at least" in result.stderr
    assert b"RAN" not in result.stdout


def test_memory_tells_when_it_gets_near_its_limit(run) -> None:
    """96 percent of --memory, each page touched: on record as critical, with the peak, and nothing is ended for it."""
    program = run.file("full.wasm", wasmtime.wat2wasm(FULL))
    _, ended = _ended(run, program, "--memory", "64MB", "--timeout", "700ms")
    crossed = [
        record["quota"]
        for record in run.records()
        if record["event"] == "quota_crossed" and record["instance"] == ended["instance"]
    ]
    (memory,) = [quota for quota in crossed if quota["name"] == "memory" and quota["status"] == "critical"]
    assert 940 << 16 <= memory["usage"] == memory["peak"] <= memory["limit"] == 64_000_000
    assert ended["code"] == "A2002"
