"""`airssys show` and `airssys grants`: what a person looks at before and after saying yes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
from on_terminal import run_on_terminal

GUESTS = Path(__file__).resolve().parents[1] / "guests"

MANIFEST = """schema = 1

[component]
name = "reader"
version = "1.0.0"
wasm = "tool.wasm"
args = ["write", "${tmp}/x", "text"]

[parameters]
data = { type = "directory" }

[capabilities.filesystem]
read = ["${param.data}/*.txt"]
write = ["${tmp}/**"]
"""


@pytest.fixture
def component(run) -> Path:
    """A component that reads one directory and writes into `${tmp}`."""
    directory = run.folder("component")
    shutil.copy(GUESTS / "tool.wasm", directory / "tool.wasm")
    (directory / "Component.toml").write_text(MANIFEST)
    run.folder("data")
    return directory


def _say_yes(run, component: Path, state: Path, deadline) -> bool:
    """Run it on a terminal and grant what it asks; whether it had to ask."""
    command = [run.command_line_path, "run", str(component), "--set", "data=data"]
    environment = {**run.environment, "AIRSSYS_STATE": str(state)}
    code, shown = run_on_terminal(command, "y", deadline.left_s, cwd=run.directory, env=environment)
    assert code == 0, shown
    return "[y/N]" in shown


def _command(run, state: Path, *arguments: str | Path):
    return run.other_command(*arguments, "--state-dir", state)


def test_a_yes_is_shown_listed_and_forgotten(run, component: Path, short_dir: Path, deadline) -> None:
    """Asked once although `${tmp}` is another directory each time; shown, listed with digests, forgotten."""
    state = short_dir / "own"
    show = ("show", component, "--set", "data=data", "--json")
    assert _command(run, state, *show).document()["granted"] is False
    assert _command(run, state, "grants", "list", "--json").document() == {"grants": []}
    assert not (state / "grants").exists()

    assert _say_yes(run, component, state, deadline)
    assert not _say_yes(run, component, state, deadline)

    document = _command(run, state, *show).document()
    assert document["granted"] is True
    (listed,) = _command(run, state, "grants", "list", "--json").document()["grants"]
    wasm_sha256 = hashlib.sha256((component / "tool.wasm").read_bytes()).hexdigest()
    assert listed["component"] == "reader"
    assert listed["wasm_sha256"] == wasm_sha256 == document["program"]["sha256"]
    assert listed["manifest_sha256"] == hashlib.sha256(MANIFEST.encode()).hexdigest() == document["manifest"]["sha256"]
    assert listed["grants"] == [f"filesystem.read {run.directory}/data/*.txt", "filesystem.write ${tmp}/**"]
    assert listed["granted_at"] == document["granted_at"]
    text = _command(run, state, "grants", "list").stdout.decode()
    assert f"reader  {listed['granted_at'][:10]}" in text

    (component / "Component.toml").write_text(MANIFEST.replace("*.txt", "*"))
    assert _command(run, state, *show).document()["granted"] is False
    (component / "Component.toml").write_text(MANIFEST)

    forgotten = _command(run, state, "grants", "forget", wasm_sha256[:8], "--json").document()
    assert [each["key"] for each in forgotten["forgotten"]] == [listed["key"]]
    assert _command(run, state, *show).document()["granted"] is False
    assert _say_yes(run, component, state, deadline)
    assert _command(run, state, "grants", "forget", "reader").code == 0
    assert os.listdir(state / "grants") == []


@pytest.mark.any_user
def test_what_can_not_be_forgotten_is_told(run, short_dir: Path) -> None:
    """An unknown name is bad input (65), nothing and too much named are wrong usage (64)."""
    state = short_dir / "own"
    unknown = _command(run, state, "grants", "forget", "nobody", "--json")
    assert unknown.code == 65
    assert "nothing is remembered for nobody" in unknown.document()["error"]["message"]
    assert _command(run, state, "grants", "forget").code == 64
    assert _command(run, state, "grants", "forget", "x", "--all").code == 64
    assert _command(run, state, "grants", "forget", "--all").code == 0


@pytest.mark.any_user
def test_show_says_what_a_component_is(run, component: Path) -> None:
    """Words, hashes, imports and exports; a parameter without a value leaves the grant open."""
    result = run.other_command("show", component)
    assert result.code == 0, result.stderr
    text = result.stdout.decode()
    assert text.startswith("reader 1.0.0\n")
    assert "a core module (WASI preview 1)" in text
    assert "wasi_snapshot_preview1: " in text
    assert "_start" in text
    assert "--set data=VALUE" in text
    document = json.loads(run.other_command("show", component, "--json").stdout)
    assert document["granted"] is None
    assert document["unset_parameters"] == ["data"]
    assert [ask["action"] for ask in document["asks"]] == ["filesystem.read", "filesystem.write"]
    assert "wasi_snapshot_preview1.path_open" in document["program"]["imports"]


@pytest.mark.any_user
@pytest.mark.parametrize("name", ["hello.wasm", "hello.component.wasm"])
def test_show_of_a_bare_program(run, name: str) -> None:
    """Both kinds of programs are described without a manifest, the same from the cache as when first read."""
    path = GUESTS / name
    document = json.loads(run.other_command("show", path, "--json").stdout)
    assert document["manifest"] is None
    assert document["asks"] is None
    program = document["program"]
    assert program["kind"] == ("component" if "component" in name else "module")
    assert program["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert program["size_bytes"] == path.stat().st_size
    assert program["imports"]
    assert json.loads(run.other_command("show", path, "--json").stdout) == document
    assert "the flags are the grant" in run.other_command("show", path).stdout.decode()


@pytest.mark.any_user
def test_what_is_no_program_is_told(run) -> None:
    """Garbage, a missing path and --set for a bare program end with 65, and nothing is shown as read."""
    garbage = run.file("garbage.wasm", b"\0asm\1\0\0\0garbage")
    result = run.other_command("show", garbage, "--json")
    assert result.code == 65
    assert result.document()["program"]["error"]
    assert result.document()["program"]["imports"] == []
    assert run.other_command("show", run.directory / "missing").code == 65
    assert run.other_command("show", GUESTS / "hello.wasm", "--set", "a=b").code == 65
