"""`--json`, `--report` and the denials on stderr: stable keys, every byte, one account with the audit log."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import pytest

GUESTS = Path(__file__).resolve().parents[1] / "guests"

KEYS = {
    "exit_code",
    "outcome",
    "message",
    "code",
    "stdout",
    "stderr",
    "duration_s",
    "peak_memory_bytes",
    "decisions",
    "denials",
    "limit",
    "confinement",
    "audit_log",
    "warden_restarts",
    "notes",
    "storage",
    "cpu",
}


@pytest.mark.any_user
def test_the_document_of_json(run) -> None:
    """One document on stdout with stable keys; nothing else is printed."""
    run.file("in/a.txt", "text\n")
    guest = ("cat", "in/a.txt", ",", "cat", "in/b.txt", ",", "cat", "in/b.txt", ",", "print-err", "complaint")
    result = run.tool("--read", "in/a.txt", "--json", guest=guest)
    document = result.document()
    assert result.stderr == ""
    assert set(document) == KEYS
    assert (document["exit_code"], document["outcome"], document["limit"]) == (1, "exited", None)
    assert str(document["stdout"]).startswith("text\n")
    assert document["stderr"] == "complaint"
    assert document["decisions"] == {"allowed": 1, "denied": 2}
    assert document["denials"] == [
        {
            "action": "filesystem.read",
            "resource": f"{run.directory}/in/b.txt",
            "code": "A1203",
            "reason": "no grant covers it",
            "rule": document["denials"][0]["rule"],
            "nearest": f'read "{run.directory}/in/a.txt"',
            "count": 2,
        }
    ]
    assert 0 < document["duration_s"] < 60
    assert document["peak_memory_bytes"] > 1_000_000
    layers = {layer["layer"]: layer["status"] for layer in document["confinement"]}
    assert {layers[name] for name in ("rlimits", "no_new_privs", "landlock", "seccomp")} == {"enforced"}
    assert document["audit_log"] == str(run.state / "audit")


@pytest.mark.any_user
def test_streams_that_are_not_text_have_twins(run) -> None:
    """Bytes that aren't UTF-8 come in base64 beside the readable form; text has no twin."""
    document = run.tool("--json", guest=("print", "a\\xff\\x00b", ",", "print-err", "text")).document()
    assert base64.b64decode(str(document["stdout_base64"])) == b"a\xff\x00b"
    assert document["stdout"] == "a\ufffd\x00b"
    assert document["stderr"] == "text"
    assert "stderr_base64" not in document


@pytest.mark.any_user
def test_the_report_file_leaves_the_streams_alone(run) -> None:
    """--report writes the same document while the guest's streams go where they always go."""
    result = run.tool("--report", "r.json", guest=("print", "out", ",", "cat", "/etc/passwd"))
    assert result.stdout.startswith(b"out")
    assert "denied filesystem.read /etc/passwd" in result.stderr
    document = json.loads((run.directory / "r.json").read_text())
    assert set(document) == KEYS
    assert (document["exit_code"], document["decisions"]["denied"]) == (1, 1)


def test_a_report_that_can_not_be_written_is_an_error(run) -> None:
    """A report nobody will find is told, and not by success."""
    result = run.tool("--report", "missing/r.json", guest=("print", "out"))
    assert result.code in (65, 73)
    assert "missing/r.json" in result.stderr


def test_a_denial_reads_as_designed_and_is_in_the_log(run) -> None:
    """What, why, the nearest grant, what would allow it; the event's number leads to the same facts in the log."""
    run.file("in/a.txt")
    result = run.tool("--read", "in/a.txt", guest=("cat", "in/b c.txt"))
    path = f"{run.directory}/in/b c.txt"
    lines = result.stderr.splitlines()
    head = re.fullmatch(rf"airssys: denied filesystem\.read {re.escape(path)} \[A1203, event (\d+)\]", lines[0])
    assert head, lines
    assert lines[1] == f'  no grant covers it; nearest: read "{run.directory}/in/a.txt"'
    assert lines[2] == f"  to allow: --read '{path}'   or [capabilities.filesystem] read in Component.toml"
    (record,) = [r for r in run.records() if r["seq"] == int(head[1])]
    assert (record["action"], record["resource"], record["code"], record["decision"]) == (
        "filesystem.read",
        path,
        "A1203",
        "denied",
    )
    queried = run.other_command("audit", "query", "--decision", "denied")
    assert path in queried.stdout.decode()


@pytest.mark.any_user
def test_following_the_advice_helps(run) -> None:
    """The flag that a denial names allows exactly that."""
    run.file("in/b c.txt", "now allowed\n")
    refused = run.tool(guest=("cat", "in/b c.txt"))
    advice = re.search(r"to allow: --read '([^']+)'", refused.stderr)
    assert advice, refused.stderr
    allowed = run.tool("--read", advice[1], guest=("cat", "in/b c.txt"))
    assert (allowed.code, allowed.stdout) == (0, b"now allowed\n")


@pytest.mark.any_user
def test_a_denied_path_can_not_act_on_the_terminal(run) -> None:
    """Control characters in a name arrive escaped on stderr and in the log."""
    result = run.tool(guest=("cat", "a\x1b]0;x\x07b"))
    assert "denied filesystem.read" in result.stderr
    assert b"\x1b" not in result.stderr_bytes
    assert b"\x07" not in result.stderr_bytes


@pytest.mark.any_user
def test_many_denials_are_shown_twenty_times_and_counted(run) -> None:
    """Twenty distinct denials are shown, the others counted; the report has them all, with exact counts."""
    guest = tuple(word for n in range(50) for word in ("cat", f"f{n % 25}", ","))[:-1]
    result = run.tool("--report", "r.json", guest=guest)
    assert result.stderr.count("airssys: denied ") == 20
    assert "and 5 more denials" in result.stderr
    assert "50 denied" in result.summary
    denials = json.loads((run.directory / "r.json").read_text())["denials"]
    assert len(denials) == 25
    assert {denial["count"] for denial in denials} == {2}


@pytest.mark.any_user
def test_fail_on_denied(run) -> None:
    """A success with denials becomes 77; without denials, and for a failure of the guest's own, nothing changes."""
    denied = run.tool("--fail-on-denied", guest=("access", "/etc/hostname", ",", "exit", "0"))
    assert denied.code == 77, denied.stderr
    assert run.tool("--fail-on-denied", guest=("exit", "0")).code == 0


@pytest.mark.any_user
def test_quiet_says_nothing_and_keeps_the_exit_code(run) -> None:
    """-q leaves stderr to the guest."""
    result = run.tool("-q", guest=("cat", "/etc/passwd"))
    assert result.code == 1
    assert result.stderr == ""


@pytest.mark.any_user
def test_an_error_in_json(run) -> None:
    """With --json, what went wrong before a run is a document, too."""
    bad = run.file("bad.wasm", b"not wasm")
    result = run(bad, "--json")
    assert result.code == 65
    error = result.document()["error"]
    assert set(error) == {"code", "message", "hint"}
    assert "not a WebAssembly binary" in error["message"]


@pytest.mark.any_user
def test_quiet_still_says_what_ended_a_program_but_itself(run) -> None:
    """With -q a limit, a trap and a refusal are told in a line; an exit of the program's own is not."""
    result = run.tool("-q", "--timeout", "200ms", guest=("spin",))
    assert result.code == 75
    assert "A2002" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert run.tool("-q", guest=("exit", "3")).stderr == ""
