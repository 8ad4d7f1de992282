"""A command is held for its CPU time: its own timeout goes on meanwhile, and none of its calls is lost."""

from __future__ import annotations

import shutil
from pathlib import Path

import wasmtime

GUESTS = Path(__file__).resolve().parents[1] / "guests"


def _component(run, name: str, wasm: Path, more: str) -> Path:
    directory = run.folder(name)
    if wasm.suffix == ".wat":
        (directory / "program.wasm").write_bytes(wasmtime.wat2wasm(wasm.read_text()))
    else:
        shutil.copy(wasm, directory / "program.wasm")
    (directory / "Component.toml").write_text(
        f'schema = 1\n[component]\nname = "{name}"\nversion = "1.0.0"\nwasm = "program.wasm"\n{more}'
    )
    return directory


def test_a_spin_is_held_and_its_timeout_goes_on(run) -> None:
    """A fiftieth of a core for a second and a half of wall time; the report, the summary and the log say so."""
    spin = _component(
        run, "spin", GUESTS / "wat/spin.wat", '[quota]\ncpu_time = "20ms/s"\n[limits]\ntimeout = "1500ms"\n'
    )
    document = run(spin, "--grant", "asked", "--json").document()
    assert (document["outcome"], document["code"]) == ("limit", "A2002")
    cpu = document["cpu"]
    assert cpu["quota_ns_per_s"] == 2 * 10**7
    # What it takes to start is in it, a burst, and a look that comes late.
    assert cpu["used_ns"] < 9 * 10**8
    assert cpu["held_ns"] > 3 * 10**8
    crossed = [
        r["quota"]["status"] for r in run.records() if r["event"] == "quota_crossed" and r["component"] == "spin"
    ]
    assert "exceeded" in crossed
    result = run(spin, "--grant", "asked")
    assert "s for its CPU time (20 ms/s)" in result.summary


def test_what_is_too_little_to_answer_is_refused(run) -> None:
    """Nothing at all, and less than a supervisor needs to hear from it."""
    for amount in ("0ms/s", "9ms/s"):
        few = _component(run, f"few-{amount[0]}", GUESTS / "hello.wasm", f'[quota]\ncpu_time = "{amount}"\n')
        result = run(few, "--grant", "asked")
        assert result.code == 65
        assert f"quota.cpu_time: expected at least 10ms/s, got {amount}" in result.stderr


def test_a_held_command_makes_each_of_its_calls_once(run) -> None:
    """Stopped and continued while the warden answers it: 400 directories, none missing, none tried twice."""
    out = run.folder("out")
    more = f"""[component.mounts]
"/out" = "{out}"
[capabilities.filesystem]
write = ["{out}/**"]
[quota]
cpu_time = "50ms/s"
"""
    busy = _component(run, "busy", GUESTS / "wat/make-directories.wat", more)
    document = run(busy, "--grant", "asked", "--json").document()
    assert document["outcome"] == "exited", document
    assert document["exit_code"] == 0
    assert {path.name for path in out.iterdir()} == {f"{number:04}" for number in range(400)}
    assert document["cpu"]["held_ns"] > 0
