"""Two people approve, narrow and revoke over the control socket of a supervisor that is somebody else's."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from as_another import as_another_user
from ending import end
from signed import signer, sshsig

from supervisor.approvals.signed import NAMESPACE
from supervisor.approvals.statement import Statement, read_exported
from supervisor.cli import approvals as _approvals  # noqa: F401 # loaded before a fork that can't read it any more
from supervisor.cli import status as _status  # noqa: F401 # likewise

SETTINGS = """schema = 1
[control]
viewers = ["games"]
approvers = ["daemon", "nobody"]
[[approvals.rules]]
when = ["filesystem.*"]
approvers = 2
[host]
name = "web-1"
[[approvals.signers]]
key = "{key}"
identity = "carol@example.com"
"""
CAROLS = signer("ssh-ed25519")
DAEMON, GAMES, NOBODY = 1, 5, 65534


def _statement(data: bytes) -> bytes:
    """Return what somebody signs who says yes to what was exported, for an hour."""
    seen, now_s = read_exported(data), int(time.time())
    limits = (now_s, now_s + 3600, None, False, "")
    return Statement(seen.subject, seen.granted, ("web-*",), *limits, seen.digest, seen.host, seen.number, "1").encoded


@contextlib.contextmanager
def _serving(airssys, config: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Have approvals answered for where nothing is up."""
    process = airssys.start("approvals", "serve", "--config", config)
    try:
        assert process.stderr is not None
        assert b"answering for approvals" in process.stderr.readline()
        yield process
    finally:
        end(process)


@pytest.mark.needs_root
def test_two_people_approve_narrow_and_revoke(airssys, up, component: Callable[..., Path]) -> None:
    """Refused, approved with less than it asked, done, taken back, refused again; who runs with it is ended."""
    config = airssys.directory / "airssys.toml"
    config.write_text(SETTINGS.format(key=CAROLS.line))
    os.chmod(airssys.directory, 0o755)
    out = airssys.directory / "out"
    out.mkdir()
    os.chown(out, NOBODY, NOBODY)
    asks = f'[capabilities.filesystem]\nread = ["/srv/secret"]\nwrite = ["{out}/**"]\n'
    writer = component("writer", "tool.wasm", f'args = ["write", "{out}/x", "text"]\n{asks}')
    waiting = component("waiting", "block-poll.wat", asks)

    def says(uid: int, *arguments: str) -> tuple[int, str]:
        return as_another_user(uid, airssys.state / "control.sock", ("approvals", *arguments))

    def start(*options: str):
        return airssys("run", writer, "--config", config, *options)

    def review(number: int) -> str:
        return str(airssys("approvals", "show", str(number), "--json").json()["review"])

    with _serving(airssys, config) as serving:
        for options in ((), ("--grant", "asked")):
            refused = start(*options)
            assert refused.code == 77
            assert "awaiting approval: request 1 (needs 2 approvers)" in refused.stderr
        assert airssys("up", writer, waiting, "--config", config, "--state-dir", airssys.directory / "other").code == 77
        waits = airssys("run", waiting, "--config", config)
        assert "request 2" in waits.stderr
        assert "airssys approvals serve" in waits.stderr, "root answers nothing itself, and is told who does"
        assert "root has no vote" in airssys("approvals", "show", "2", "--config", config).stdout

        narrow = ("--without", "filesystem.read:/srv/secret")
        assert says(GAMES, "approve", "1", "--yes", review(1))[0] == 77
        assert says(DAEMON, "approve", "1", "--yes", "00000000")[0] == 77
        code, said = says(DAEMON, "approve", "1", *narrow, "--yes", review(1))
        assert code == 0, said
        assert says(DAEMON, "approve", "1", "--yes", review(1))[0] == 77, "one person has one vote"
        root = airssys("approvals", "approve", "1", "--yes", review(1))
        assert (root.code, "who has: [control] approvers" in root.stderr) == (77, True), "root has none"
        assert start().code == 77
        code, said = says(NOBODY, "show", "1")
        assert "left out" in said
        assert says(NOBODY, "approve", "1", "--yes", review(1))[0] == 0

        done = start()
        assert done.code == 0, done.stderr
        assert (out / "x").read_text() == "text"
        statement = _statement(airssys("approvals", "export", "2", "--config", config).stdout.encode())
        signed_file = airssys.directory / "2.signed"
        signed_file.write_bytes(statement + sshsig(CAROLS, statement, NAMESPACE))
        assert says(GAMES, "import", str(signed_file))[0] == 77, "who has no vote brings nothing"
        code, said = says(DAEMON, "import", str(signed_file))
        assert (code, "the yes counts" in said) == (0, True), said
        assert says(DAEMON, "import", str(signed_file))[0] == 77, "one yes on a host"
        assert says(NOBODY, "approve", "2", "--yes", review(2))[0] == 0
        assert says(NOBODY, "revoke", "9")[0] == 65
        assert as_another_user(NOBODY, airssys.state / "control.sock", ("status",))[0] == 69
        assert airssys("down").code == 0
        assert serving.wait(30) == 0

    with up(waiting, "--config", config) as fleet:
        fleet.until("waiting: running")
        assert says(GAMES, "revoke", "2")[0] == 77
        code, said = says(DAEMON, "revoke", "2", "--reason", "enough")
        assert code == 0, said
        assert "ended: waiting" in said
        assert airssys("status", "waiting", "--json").json()["components"][0]["phase"] == "stopped"
        assert airssys("approvals", "revoke", "1").code == 0, "root takes away"
        assert airssys("down").code == 0
        assert fleet.end() == 0
    again = start()
    assert again.code == 77
    assert "request 1 was revoked by root (uid 0)" in again.stderr

    records = [json.loads(line) for line in airssys("audit", "query", "--json").stdout.splitlines()]
    granted = [each for each in records if each["event"] == "approval_granted"]
    assert [(each["component"], each["actor"]) for each in granted] == [
        ("writer", "uid 65534"),
        ("waiting", "uid 65534"),
    ]
    assert granted[0]["detail"]["granted"] == [f"filesystem.write:{out}/**"]
    used = {
        each["approval"] for each in records if each["event"] == "worker_starting" and each["component"] == "writer"
    }
    assert used == {"approval 1"}
