"""A review on another machine: exported, signed by the real ssh-keygen, imported; and a component that then starts."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import signed

GUESTS = Path(__file__).resolve().parents[1] / "guests"
MANIFEST = """schema = 1
[component]
name = "writer"
version = "1.0.0"
wasm = "tool.wasm"
args = ["write", "${tmp}/x", "text"]
[capabilities.filesystem]
write = ["${tmp}/**", "${data}/**"]
"""
SETTINGS = """schema = 1
[host]
name = "web-1"
[[approvals.rules]]
when = ["filesystem.write"]
[[approvals.signers]]
key = "{key}"
identity = "alice@example.com"
"""
pytestmark = pytest.mark.any_user  # and ssh-keygen runs for no user without an entry in /etc/passwd


def test_a_review_on_another_machine(run, tmp_path: Path) -> None:
    """What is exported is read and signed without any state, checked by ssh-keygen, and counts once."""
    component = run.folder("component")
    shutil.copy(GUESTS / "tool.wasm", component / "tool.wasm")
    (component / "Component.toml").write_text(MANIFEST)
    key = signed.signer("ssh-ed25519")
    key_file = run.directory / "key"
    key_file.write_bytes(key.private)
    key_file.chmod(0o600)
    config = tmp_path / "airssys.toml"
    config.write_text(SETTINGS.format(key=key.line))
    state = ("--config", config, "--state-dir", run.directory / "state")
    exported, file = run.directory / "1.json", run.directory / "1.signed"
    assert run(component, *state).code == 77
    assert run.other_command("approvals", "export", "1", *state, "-o", exported).code == 0
    shown = run.other_command("approvals", "show", exported)
    assert "create, change and delete everything beneath ${tmp}" in shown.stdout.decode()
    digest = shown.stdout.decode().split("--yes ")[1][:12]
    how = ("--key", key_file, "--hosts", "web-*", "--without", "filesystem.write:${data}/**", "-o", file)
    assert run.other_command("approvals", "sign", exported, *how).code == 77
    assert run.other_command("approvals", "sign", exported, *how, "--yes", "0" * 12).code == 77
    assert not file.exists()
    made = run.other_command("approvals", "sign", exported, *how, "--yes", digest)
    assert made.code == 0, made.stderr
    statement, begin, block = file.read_text().partition("-----BEGIN SSH SIGNATURE-----")
    allowed, signature = run.file("allowed", f"alice {key.line}\n"), run.file("signature", begin + block)
    command = ["ssh-keygen", "-Y", "verify", "-n", "airssys-approval", "-I", "alice", "-f", allowed, "-s", signature]
    assert subprocess.run(command, input=statement.encode(), capture_output=True).returncode == 0
    told = run.other_command("approvals", "show", file)
    assert (told.code, "[left out]" in told.stdout.decode()) == (0, True)
    assert run.other_command("approvals", "import", file, *state).stdout.startswith(b"request 1 of writer is approved")
    assert run(component, *state).code == 0
    again = run.other_command("approvals", "import", file, *state)
    assert (again.code, "counted here already" in again.stderr) == (77, True)
    file.write_text(file.read_text().replace('"once": false', '"once": true'))
    assert run.other_command("approvals", "show", file).code == 65


@pytest.mark.parametrize(("what", "content"), [("sign", b"[" * 100_000), ("show", b"\xff"), ("import", None)])
def test_a_file_that_is_none_is_told(run, what: str, content: bytes | None) -> None:
    """In two lines."""
    file = run.directory / "file"
    if content is not None:
        file.write_bytes(content)
    key = ("--key", run.directory / "key", "--yes", "12345678") if what == "sign" else ()
    told = run.other_command("approvals", what, file, *key)
    assert told.code == 65, told.stderr
    assert len(told.stderr.splitlines()) in (1, 2)
