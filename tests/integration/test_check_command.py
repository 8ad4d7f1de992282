"""`airssys check` and `airssys explain` on real component directories: words, findings, imports, rules, JSON."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import wasmtime

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.mark.any_user
@pytest.mark.parametrize("example", ["log-summary", "json-transform", "hostile"])
def test_the_examples_say_what_they_ask_for(run, example: str) -> None:
    """Each shipped component is described in words, with a document of the same facts."""
    result = run.other_command("check", EXAMPLES / example)
    assert result.code in (0, 65), result.stderr
    assert result.stdout.decode().startswith(f"{example} ")
    document = json.loads(run.other_command("check", EXAMPLES / example, "--json").stdout)
    assert document["name"] == example
    assert result.code == (65 if any(f["severity"] == "error" for f in document["findings"]) else 0)


@pytest.mark.any_user
def test_explain_prints_the_rules_it_compiles_to(run) -> None:
    """--explain shows access control entries and permissions with the real paths."""
    logs = run.folder("logs")
    result = run.other_command("check", EXAMPLES / "log-summary", "--set", f"logs={logs}", "--explain")
    assert result.code == 0, result.stderr
    assert f"filesystem.read:{logs}/**/*.log" in result.stdout.decode()


def test_imports_that_nothing_covers_are_found(run) -> None:
    """A program whose imports nothing provides or no capability covers is named in the findings."""
    directory = run.folder("component")
    module = '(module (import "env" "system" (func)) (memory (export "memory") 1) (func (export "_start")))'
    (directory / "p.wasm").write_bytes(wasmtime.wat2wasm(module))
    (directory / "Component.toml").write_text(
        'schema = 1\n[component]\nname = "p"\nversion = "1.0.0"\nwasm = "p.wasm"\n'
    )
    result = run.other_command("check", directory)
    assert "env" in result.stdout.decode()
    assert "system" in result.stdout.decode()


def test_a_program_that_can_not_be_read_is_an_error(run) -> None:
    """Garbage in place of the program is found without being run."""
    directory = run.directory / "log-summary"
    shutil.copytree(EXAMPLES / "log-summary", directory)
    (directory / "log-summary.wasm").write_bytes(b"\0asm\1\0\0\0garbage")
    result = run.other_command("check", directory)
    assert result.code == 65
    assert "wasm" in result.stdout.decode()


@pytest.mark.any_user
def test_explain_answers_for_one_resource(run) -> None:
    """It says yes with the rule, and no with the grant that came nearest."""
    logs = run.folder("logs")
    base = ("explain", EXAMPLES / "log-summary", "--set", f"logs={logs}")
    allowed = run.other_command(*base, "filesystem.read", f"{logs}/a.log")
    assert allowed.code == 0, allowed.stderr
    assert f"{logs}/**/*.log" in allowed.stdout.decode()
    denied = run.other_command(*base, "filesystem.read", f"{logs}/a.txt")
    assert "A1203" in denied.stdout.decode()


@pytest.mark.needs_root
def test_the_inspecting_process_gets_its_uid_where_runs_do(airssys) -> None:
    """Uids of workers are handed out in one place for the machine, whatever the state directory is."""
    assert airssys("check", EXAMPLES / "log-summary").code == 0
    assert not (airssys.state / "run").exists()
