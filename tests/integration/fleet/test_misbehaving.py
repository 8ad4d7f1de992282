"""The actor that means harm under `airssys up`: what its caller is told, what status and logs say, who else is hurt."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ipc import memory_file
from supervisor.control.client import Address, ControlClient
from supervisor.control.messages import CallAnswer, CallComponent

ECHO = Path(__file__).resolve().parents[3] / "examples/echo/echo.wasm"
MAY = """[limits]
timeout = "{timeout}"
[quota]
memory = "64MB"
storage = "1MB"
message_rate = "20/s"
[capabilities.messaging]
send = ["echo"]
publish = ["news.*"]
[capabilities.storage]
read = ["fill:*"]
write = ["fill:*"]
[capabilities.filesystem]
write = ["${{data}}/**"]
"""
ENDS = {
    "trap": ("trap", "trapped", "", "wasm `unreachable` instruction executed"),
    "spin": ("spin", "limit", "A2002", "ran longer than its timeout of 1 s"),
    "recurse": ("recurse", "trapped", "", "out of bounds|call stack exhausted"),
    "exit": ("exit", "exited", "", "exited 1"),
    "blocks": ("blocks 100000000", "limit", "A2001", "needed more memory than its limit of 64 MB"),
    "unaligned": ("unaligned", "trapped", "", "list pointer/length out of bounds of memory"),
    "bad-text": ("bad-text", "trapped", "", "invalid utf-8"),
}
"""Component → what it is told to do, how that ends, the code, and what status says of it."""
LIVES = [
    ("memory 1000000", "", "ok 1048576"),
    ("huge 1200000", "failed", "its answer has 1200000 bytes"),
    ("oversize 1200000 echo", "", "too-large: 1000000"),
    ("oversize 9000000 echo", "", "too-large: 2621440"),
    ("fill 1 9000000", "", "ok 0 too-large: 2621440"),
    ("huge 9000000", "failed", "too-large: 2621440"),
    ("silent", "", ""),
    ("fail on purpose", "failed", "on purpose"),
    ("nonsense", "failed", "no such order"),
    ("flood 60 echo", "", "over-quota: usage"),
    ("topics 3 other", "", "ok 0 not-permitted: no grant covers it"),
    ("guess 100", "", "ok 100"),
    ("send nobody x", "", "not-permitted: no grant covers it"),
    ("about nobody", "", "not-permitted: no grant covers it"),
    ("request echo 5000 hi", "", "ok "),
    ("fill 5 300000", "", "ok 3 over-quota: usage"),
    ("key-of 5000", "", "invalid: the key has more than 1024 bytes"),
    ("odd-key 612e2e2f000a", "", "invalid: a key is"),
    ("get secret", "", "not-permitted: no grant covers it"),
    ("invoke sql query x", "", "not-permitted"),
    ("write /etc/passwd", "", "errno"),
    ("log-control", "", "ok"),
    ("log-fields 100 1000", "", "ok"),
    ("logs 300", "", "ok 300"),
]
"""What it survives: the order, the kind of error that its caller gets, if any, and what the caller is told."""


@pytest.fixture
def fleet(up, component) -> Callable[..., contextlib.AbstractContextManager[object]]:
    """Bring up instances of it under these names, and a neighbour."""

    @contextlib.contextmanager
    def bring_up(names: list[str], timeout: str) -> Iterator[object]:
        places = [component(name, "actors/misbehaving.wasm", MAY.format(timeout=timeout)) for name in names]
        neighbour = component("echo", "hello.wasm", f"[capabilities.messaging]\nreceive = {json.dumps(names)}\n")
        shutil.copy(ECHO, neighbour / "program.wasm")
        with up(*places, neighbour, "--grant", "asked") as running:
            for name in (*names, "echo"):
                running.until(f"{name}: running as")
            yield running

    return bring_up


def _call(airssys, name: str, order: str) -> tuple[str, str]:
    """Send one message as `airssys call` does, without a process for it; how it ended, and the answer or the reason."""
    with ControlClient(Address(str(airssys.state / "control.sock"), "a test", trusted=True)) as client:
        file = memory_file.from_bytes("message", order.encode())
        try:
            ((answer, files),) = client.ask(CallComponent(name, wants_answer=True, timeout_ms=30_000), (file,), 40.0)
            assert isinstance(answer, CallAnswer)
            body = b"".join(memory_file.read_all(each) for each in files)
            return answer.kind, answer.reason + body.decode("utf-8", "replace")
        finally:
            os.close(file)


def _components(airssys) -> dict[str, dict[str, object]]:
    return {each["name"]: each for each in airssys("status", "--json").json()["components"]}


def test_what_ends_it_is_told_and_hurts_nobody_else(airssys, fleet) -> None:
    """Each caller gets 69 in two lines, status the reason in words, the log a line; the neighbour answers on."""
    with fleet(list(ENDS), "1s") as running:
        before = _components(airssys)["echo"]
        for name, (order, *_) in ENDS.items():
            told = airssys("call", name, "-", stdin=order.encode())
            assert (told.code, told.stdout) == (69, ""), (name, told.stderr)
            assert len(told.stderr.splitlines()) == 2, told.stderr
            assert f"airssys status {name}" in told.stderr
        for name in ENDS:
            running.until(f"{name}: failed")
        found = _components(airssys)
        for name, (_, outcome, code, words) in ENDS.items():
            about = found[name]
            assert (about["phase"], about["outcome"], about["code"] or "") == ("failed", outcome, code), about
            assert any(each in str(about["ended"]) for each in words.split("|")), about
        assert "in handle-message" in str(found["trap"]["ended"])
        assert str(found["trap"]["ended"]) in airssys("logs", "trap").stdout
        again = airssys("call", "trap", "-", stdin=b"echo hi")
        assert (again.code, "trap is failed" in again.stderr) == (69, True)
        assert (found["echo"]["phase"], found["echo"]["pid"]) == ("running", before["pid"])
        assert airssys("call", "echo", "-", stdin=b"still here").stdout == "still here"
        assert airssys("down").code == 0


@pytest.mark.any_user
def test_what_it_survives_is_refused_in_words(airssys, fleet) -> None:
    """Every excess is an error value for it, and an answer for its caller; it and its neighbour live on."""
    with fleet(["mild"], "30s") as running:
        before = {name: each["pid"] for name, each in _components(airssys).items()}
        for order, kind, words in LIVES:
            told, until_s = _call(airssys, "mild", order), time.monotonic() + 20
            while "over-quota" in told[1] and "over-quota" not in words and time.monotonic() < until_s:
                told = _call(airssys, "mild", order)  # what it asked for before counts still
            assert (told[0], words in told[1]) == (kind, True), (order, told)
        late = airssys("call", "mild", "-", "--timeout", "200ms", stdin=b"late 600")
        assert (late.code, "did not answer in time" in late.stderr) == (75, True)
        assert airssys("call", "mild", "-", stdin=b"echo after all").stdout == "after all", (
            "the late answer is nobody's"
        )
        log = airssys("logs", "mild").stdout
        assert "airssys: allowed everything" in log
        assert "\x1b" not in log
        assert _quota_parts(airssys)["values"] > 900_000
        assert {name: each["pid"] for name, each in _components(airssys).items()} == before
        assert airssys("call", "echo", "-", stdin=b"still here").stdout == "still here"
        running.until("mild: denied storage.read secret")


def _quota_parts(airssys) -> dict[str, int]:
    quotas = airssys("quota", "mild", "--json").json()["quotas"]
    return {each["part"]: each["usage"] for each in quotas if each["name"] == "storage"}


def test_files_of_an_actor_are_told_beside_its_values(airssys, fleet) -> None:
    """What it writes beneath `${data}` is in `airssys quota` while it runs, as a part by itself."""
    airssys.directory.chmod(0o755)  # passed through on the way, by another identity where this runs as root
    data = Path(f"{airssys.state}-data/mild")
    with fleet(["mild"], "30s"):
        assert _quota_parts(airssys) == {"values": 0, "files": 0}
        assert airssys("call", "mild", "-", stdin=f"write {data}/report".encode()).stdout == "ok 7"
        until_s = time.monotonic() + 20
        while _quota_parts(airssys)["files"] != 4096:
            assert time.monotonic() < until_s
        assert airssys("call", "mild", "-", stdin=b"set fill:a b").stdout == "ok"
        assert _quota_parts(airssys) == {"values": len("fill:a") + 1 + 64, "files": 4096}
