"""`airssys diff` through the real command: its words, its document, its exit codes, and what the programs import."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import wasmtime

pytestmark = pytest.mark.any_user

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def _copy(run, name: str, old_part: str = "", new_part: str = "") -> Path:
    """A copy of the example with one replacement in its manifest."""
    directory = run.directory / name
    shutil.copytree(EXAMPLES / "log-summary", directory)
    manifest = directory / "Component.toml"
    assert old_part in manifest.read_text()
    if old_part:
        manifest.write_text(manifest.read_text().replace(old_part, new_part))
    return directory


def test_a_wider_version_ends_with_one(run) -> None:
    """A capability more is told with its danger and line, and the exit code says so; narrower and same end with 0."""
    old = _copy(run, "old")
    new = _copy(run, "new", '"${param.out}/*.json"', '"${param.out}/*.json", "/etc/cron.d/*"')
    result = run.other_command("diff", old, new)
    assert result.code == 1, result.stderr
    text = result.stdout.decode()
    assert "log-summary 1.0.0 → log-summary 1.0.0: wider" in text
    assert "critical  create, change and delete /etc/cron.d/*" in text
    assert "filesystem.write, line 20" in text
    back = run.other_command("diff", new, old)
    assert (back.code, "narrower" in back.stdout.decode()) == (0, True)
    same = run.other_command("diff", old, old)
    assert (same.code, "the same: 3 capabilities" in same.stdout.decode()) == (0, True)


def test_the_document_has_stable_keys(run) -> None:
    """Verdict, both sides with their hashes, and each list of changes under the same keys."""
    old, new = _copy(run, "old"), _copy(run, "new", 'timeout = "30s"', 'timeout = "1min"')
    result = run.other_command("diff", old, new / "Component.toml", "--json")
    assert result.code == 1, result.stderr
    document = json.loads(result.stdout)
    assert set(document) == {"verdict", "old", "new", "wider", "narrower", "changed", "same", "notes"}
    assert set(document["old"]) == {"name", "version", "manifest_sha256", "wasm_sha256"}
    assert document["new"]["wasm_sha256"] is None
    (change,) = document["wider"]
    assert (change["kind"], change["what"], change["old"], change["new"]) == ("limit", "limits.timeout", "30s", "1min")
    assert "imports" in document["notes"][0]


def test_a_new_import_is_wider(run) -> None:
    """What the new program wants from its host beyond the old one is found by a confined process."""
    old, new = _copy(run, "old"), _copy(run, "new")
    for directory, function in ((old, "random_get"), (new, "sock_accept")):
        kind = "(param i32 i32 i32) (result i32)" if function == "sock_accept" else "(param i32 i32) (result i32)"
        module = (
            f'(module (import "wasi_snapshot_preview1" "{function}" (func {kind}))'
            ' (memory (export "memory") 1) (func (export "_start")))'
        )
        (directory / "log-summary.wasm").write_bytes(wasmtime.wat2wasm(module))
    result = run.other_command("diff", old, new, "--json")
    assert result.code == 1, result.stderr
    document = json.loads(result.stdout)
    assert [change["what"] for change in document["wider"]] == ["wasi_snapshot_preview1.sock_accept"]
    assert [change["what"] for change in document["narrower"]] == ["wasi_snapshot_preview1.random_get"]
    assert [change["what"] for change in document["changed"]] == ["program"]


def test_bad_input_is_told(run) -> None:
    """A missing path, a broken manifest and a program that can't be read end with 65, a bare program with 64."""
    old = _copy(run, "old")
    broken = _copy(run, "broken", "schema = 1", "schema = 2")
    garbage = _copy(run, "garbage")
    (garbage / "log-summary.wasm").write_bytes(b"\0asm\1\0\0\0garbage")
    for bad in (run.directory / "missing", broken, garbage):
        result = run.other_command("diff", old, bad, "--json")
        assert result.code == 65, bad
        assert set(result.document()["error"]) >= {"code", "message", "hint"}
    (problem,) = run.other_command("diff", old, broken, "--json").document()["error"]["problems"]
    assert (problem["key"], problem["line"]) == ("schema", 1)
    assert run.other_command("diff", old, old / "log-summary.wasm").code == 64
