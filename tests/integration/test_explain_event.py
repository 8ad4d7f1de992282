"""`airssys explain --event`: a real run's records are explained by the policy that was in force then."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ipc.policy.document import PolicyDocument


def _denied(run, path: Path) -> dict[str, object]:
    """Be refused a file and return the record."""
    result = run.tool("--read", str(run.directory / "in" / "*.csv"), guest=("cat", str(path)))
    assert result.code != 0
    return next(r for r in reversed(run.records()) if r["event"] == "denied" and r["resource"] == str(path))


def test_a_refusal_is_explained(run) -> None:
    """The event, its code, the nearest grant and what would allow it; the same under stable keys."""
    path = run.file("in/a.txt", "x")
    seq = str(_denied(run, path)["seq"])
    result = run.other_command("explain", "--event", seq)
    assert result.code == 0, result.stderr
    text = result.stdout.decode()
    assert f"denied filesystem.read {path} [A1203]" in text
    assert f'nearest: read "{path.parent}/*.csv"' in text
    assert f"--read {path}" in text
    document = json.loads(run.other_command("explain", "--event", seq, "--json").stdout)
    assert set(document) == {
        *("event", "policy", "identity", "allowed", "rule", "code", "reason", "nearest", "to_allow", "notes")
    }
    assert document["event"]["seq"] == int(seq)
    assert document["allowed"] is False


@pytest.mark.any_user
def test_every_event_that_names_a_policy_can_be_explained(run) -> None:
    """After a run each hash in its records is kept, owner-only, and hashes to its name."""
    _denied(run, run.file("in/b.txt", "x"))
    records = [r for r in run.records() if r["component"] == "tool"]
    names = {str(r["policy"]) for r in records if r["policy"]}
    assert names
    for name in names:
        kept = run.state / "audit" / "policies" / name
        assert kept.stat().st_mode & 0o777 == 0o600
        assert PolicyDocument.from_wire(json.loads(kept.read_bytes())).digest() == name


@pytest.mark.any_user
def test_a_policy_that_was_changed_or_lost_is_said(run, short_dir: Path) -> None:
    """A changed document is not believed (73), a missing one is named (65), and so is an event that isn't there."""
    state = short_dir / "own"
    path = run.file("in/c.txt", "x")
    result = run(_tool(), "--read", str(path.parent / "*.csv"), guest=("cat", str(path)), state=state)
    assert result.code != 0
    log = state / "audit"
    event = next(r for r in run.records(state) if r["event"] == "denied")
    arguments = ("explain", "--event", str(event["seq"]), "--audit-log", log)
    assert run.other_command(*arguments).code == 0
    kept = log / "policies" / str(event["policy"])
    kept.write_bytes(kept.read_bytes().replace(b"*.csv", b"*.txt"))
    changed = run.other_command(*arguments, "--json")
    assert changed.code == 73
    assert changed.document()["error"]["code"] == "audit"
    kept.unlink()
    lost = run.other_command(*arguments, "--json")
    assert lost.code == 65
    assert "isn't kept" in lost.document()["error"]["message"]
    absent = run.other_command("explain", "--event", "999999", "--audit-log", log)
    assert absent.code == 65
    assert "no event 999999" in absent.stderr
    assert run.other_command("explain", "--event", "1", "--audit-log", short_dir / "none").code == 73


@pytest.mark.any_user
def test_what_can_not_be_kept_does_not_run(run, short_dir: Path) -> None:
    """Without a place for its policy nothing runs, and no record names one; with it, the control, it does."""
    state = short_dir / "own"
    path = run.file("in/a.csv", "x")
    arguments = (_tool(), "--read", str(path))
    assert run(*arguments, guest=("cat", str(path)), state=state).code == 0
    before = len(run.records(state))
    policies = state / "audit" / "policies"
    for kept in policies.iterdir():
        kept.unlink()
    policies.rmdir()
    policies.write_text("in the way")
    refused = run(*arguments, guest=("cat", str(path)), state=state)
    assert refused.code == 73
    assert refused.stdout == b""
    assert "can't be kept" in refused.stderr
    assert [r["event"] for r in run.records(state)[before:] if r["policy"]] == []


@pytest.mark.any_user
def test_wrong_usage(run) -> None:
    """--event stands alone, and without it all three words are needed."""
    for arguments in (
        ("explain",),
        ("explain", "x", "filesystem.read"),
        ("explain", "x", "filesystem.read", "y", "--event", "1"),
        ("explain", "--event", "0"),
        ("explain", "--event", "x"),
        ("explain", "--audit-log", "x"),
    ):
        assert run.other_command(*arguments).code == 64, arguments


def _tool() -> Path:
    return Path(__file__).resolve().parents[1] / "guests" / "tool.wasm"
