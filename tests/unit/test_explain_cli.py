"""`airssys explain`: the answer, its exit code, and what it says of symbolic links and missing parameters."""

import argparse
import json
from pathlib import Path

import pytest

from supervisor.cli import explain
from supervisor.manifest.component_view import UsageError, parse_assignments

MANIFEST = """schema = 1
[component]
name = "tool"
version = "1.0.0"
wasm = "tool.wasm"
[parameters]
in = { type = "directory" }
[capabilities.filesystem]
read = ["${param.in}/**/*.csv"]
[capabilities.storage]
read = ["runs:*"]
"""


@pytest.fixture
def component(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A component directory beside a directory of data with a symbolic link in it; no host settings."""
    monkeypatch.delenv("AIRSSYS_CONFIG", raising=False)
    monkeypatch.chdir(tmp_path)
    directory = tmp_path / "component"
    directory.mkdir()
    (directory / "Component.toml").write_text(MANIFEST)
    (directory / "tool.wasm").write_bytes(b"\0asm")
    data = tmp_path / "data"
    data.mkdir(mode=0o755)
    (data / "a.csv").write_text("1")
    (tmp_path / "secret.txt").write_text("s")
    (data / "link.csv").symlink_to(tmp_path / "secret.txt")
    return directory


def ask(component: Path, action: str, resource: str, *assignments: str, as_json: bool = False) -> int:
    """Run the command as its parser would."""
    empty = Path("airssys.toml").absolute()
    empty.write_text("schema = 1\n")
    empty.chmod(0o644)
    empty.parent.chmod(0o755)
    args = argparse.Namespace(
        target=str(component),
        action=action,
        resource=resource,
        event=None,
        audit_log=None,
        set=list(assignments),
        config=str(empty),
        json=as_json,
    )
    return explain.run(args)


def test_an_allowed_file_names_its_rule(component: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A relative path is taken from the working directory, and the grant with its line is named."""
    assert ask(component, "filesystem.read", "data/a.csv", "in=data") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"allowed filesystem.read {component.parent}/data/a.csv"
    assert "(Component.toml:9)" in lines[1]


def test_a_symbolic_link_is_judged_by_what_it_leads_to(component: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A link with a granted name to an object without grant is denied, and the real object is named."""
    assert ask(component, "filesystem.read", "data/link.csv", "in=data") == 77
    out = capsys.readouterr().out
    assert f"denied filesystem.read {component.parent}/secret.txt [A1203]" in out
    assert "is really" in out
    assert "nearest: read" in out


def test_the_json_document_has_stable_keys(component: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All of the answer under the documented keys, also where a parameter has no value."""
    assert ask(component, "storage.read", "runs:1", as_json=True) == 0
    document = json.loads(capsys.readouterr().out)
    assert set(document) == {"action", "asked", "resource", "allowed", "rule", "code", "reason", "nearest", "notes"}
    assert document["allowed"] is True
    assert any("parameters without a value: in" in note for note in document["notes"])
    assert any("not enforced by this version" in note for note in document["notes"])


def test_a_custom_capability_is_said_in_words(component: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Who does it on this host; and of what isn't granted, the line that would grant it."""
    manifest = component / "Component.toml"
    manifest.write_text(MANIFEST + '[capabilities.custom.rates]\nactions = ["read"]\n')
    assert ask(component, "custom.rates.read", "rates") == 0
    assert "under `airssys up`, where no provider serves it on this host" in capsys.readouterr().out
    assert ask(component, "custom.rates.write", "rates") == 77
    out = capsys.readouterr().out
    assert 'to allow: "write" in actions of [capabilities.custom.rates] in Component.toml' in out


def test_wrong_usage_is_told_apart(component: Path) -> None:
    """An unknown action, an assignment without a value and a missing directory are usage errors (64)."""
    with pytest.raises(UsageError, match="no action") as caught:
        ask(component, "filesystem.fly", "x")
    assert caught.value.exit_code == 64
    with pytest.raises(UsageError, match="NAME=VALUE"):
        parse_assignments(["x"])
    with pytest.raises(UsageError, match="given twice"):
        parse_assignments(["x=1", "x=2"])
    with pytest.raises(UsageError, match="is not there"):
        ask(component / "nowhere", "filesystem.read", "x")
