"""Escape sequences: nothing that a component prints, or names a file, drives the terminal of whoever looks."""

from __future__ import annotations

import contextlib
import errno
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest

pytestmark = pytest.mark.any_user

if TYPE_CHECKING:
    from collections.abc import Sequence

GUESTS = Path(__file__).resolve().parents[1] / "guests"
TOOL = GUESTS / "tool.wasm"
AIRSSYS = Path(sys.executable).parent / "airssys"
HOSTILE = r"\e]0;pwned\x07\e[2J\e[1;31mred\e[0m\e]52;c;cHduZWQ=\x07\eP$q\e\\\r\x9b31m\x08\x7fend\n"


class CommandLine(Protocol):
    """The fixture of tests/conftest.py."""

    directory: Path
    environment: dict[str, str]


def on_terminal(airssys: CommandLine, *arguments: str | Path, cwd: Path | None = None) -> bytes:
    """Run `airssys` on a pseudo-terminal and return every byte that it received."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [AIRSSYS, *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=cwd or airssys.directory,
        env=airssys.environment | {"TERM": "xterm-256color"},
        start_new_session=True,
    ) as process:
        os.close(theirs)
        received = b""
        with contextlib.suppress(OSError):  # EIO: nobody holds the other side any more (pty(7))
            while data := os.read(ours, 65536):
                received += data
        process.wait(30)
    os.close(ours)
    return received


def escapes(received: bytes) -> set[bytes]:
    """Return the control characters in it, but for colours, and the erasure of our own progress line."""
    without_colours = re.sub(rb"\x1b\[[0-9;]*m|\r\x1b\[K", b"", received)
    text = without_colours.decode()  # strictly: a stray byte may be a control to a terminal
    return {c.encode() for c in text if (ord(c) < 32 and c not in "\r\n\t") or 0x7F <= ord(c) < 0xA0}


@pytest.mark.parametrize("command", ["print", "print-err"])
def test_what_a_guest_prints_does_not_drive_a_terminal(airssys: CommandLine, command: str) -> None:
    """Titles, clipboards and cursor movements are shown, not done; `--raw-output` lets them through."""
    received = on_terminal(airssys, "run", GUESTS / "tool.wasm", "--", command, HOSTILE)
    assert b"pwned" in received
    assert escapes(received) == set()
    raw = on_terminal(airssys, "run", GUESTS / "tool.wasm", "--raw-output", "--", command, HOSTILE)
    assert b"\x1b]0;pwned\x07" in raw
    assert b"\x1b[2J" in raw


def test_what_a_guest_prints_is_not_changed_in_a_pipe(airssys: CommandLine) -> None:
    """Where no terminal listens, every byte passes: the filter is about terminals, not about output."""
    done = subprocess.run(
        [AIRSSYS, "run", GUESTS / "tool.wasm", "--", "print", HOSTILE],
        cwd=airssys.directory,
        env=airssys.environment,
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.startswith(b"\x1b]0;pwned\a\x1b[2J")


NAME = "a\x1b]0;pwned\x07\x1b[2J\r\n\u202eb\x9b"


def hostile_runs(airssys: CommandLine) -> Sequence[bytes]:
    """Return what a terminal receives of a run that tries a file of a hostile name, and of the log of it."""
    place = airssys.directory / "work"
    place.mkdir()
    (place / NAME).write_text("x")
    run = on_terminal(airssys, "run", GUESTS / "tool.wasm", "--", "cat", NAME, ",", "stat", NAME, cwd=place)
    log = on_terminal(airssys, "audit", "query")
    denied = on_terminal(airssys, "audit", "query", "--decision", "denied", "--json")
    return run, log, denied


def test_a_files_name_does_not_drive_a_terminal(airssys: CommandLine) -> None:
    """Denials on stderr, `audit query` and its JSON show the name of a file with its control characters escaped."""
    run, log, denied = hostile_runs(airssys)
    assert b"denied filesystem.read" in run
    assert b"A1201" in run
    for received in (run, log, denied):
        assert b"pwned" in received
        assert escapes(received) == set()
        assert "\u202e".encode() not in received


def test_a_files_name_does_not_break_a_line_of_the_log(airssys: CommandLine) -> None:
    """The log stays one record a line, all ASCII, and verifies."""
    hostile_runs(airssys)
    segments = sorted((airssys.directory / "state/audit").glob("audit-*.jsonl"))
    assert segments
    for segment in segments:
        data = segment.read_bytes()
        assert data.isascii()
        assert all(line.startswith(b"{") and line.endswith(b"}") for line in data.splitlines())
    verified = on_terminal(airssys, "audit", "verify")
    assert b"pwned" not in verified
    done = subprocess.run([AIRSSYS, "audit", "verify"], env=airssys.environment, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr or errno.errorcode


def test_a_refusal_begins_a_line_of_the_terminal(airssys: CommandLine) -> None:
    """What a guest leaves on the line doesn't stand before a line of ours; a whole line of its own gets none behind."""
    for printed, text in ((r"half a line", b"half a line"), (r"a whole line\n", b"a whole line")):
        plain = re.sub(rb"\x1b\[[0-9;]*m|\r", b"", on_terminal(airssys, "run", TOOL, "--", "print", printed))
        assert plain.startswith(text + b"\nairssys: tool exited 0"), plain
    quiet = on_terminal(airssys, "run", TOOL, "-q", "--", "print", "half a line")
    assert quiet == b"half a line"
