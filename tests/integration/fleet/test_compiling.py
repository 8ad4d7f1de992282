"""`airssys up` while programs are compiled: it answers and ends, one that can't be ends the start, nothing is left."""

from __future__ import annotations

import contextlib
import json
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.any_user

BROKEN = b"\0asm\1\0\0\0garbage"
BLOCKS = 60_000
"""So many branches in one function keep a compiler busy for far longer than a test takes."""


def _sized(data: bytes) -> bytes:
    size, encoded = len(data), b""
    while size > 0x7F:
        encoded += bytes((size & 0x7F | 0x80,))
        size >>= 7
    return encoded + bytes((size,)) + data


@pytest.fixture
def compiled_before() -> None:
    """Nothing is."""


@pytest.fixture
def slow(component: Callable[..., Path]) -> Path:
    """A command that is compiled for minutes."""
    body = b"\1\1\x7f" + b"\x02\x40\x20\0\x0d\0\x20\0\x41\7\x6a\x21\0\x0b" * BLOCKS + b"\x0b"
    sections = {1: b"\1\x60\0\0", 3: b"\1\0", 7: b"\1\6_start\0\0", 10: b"\1" + _sized(body)}
    wasm = b"\0asm\1\0\0\0" + b"".join(bytes((number,)) + _sized(data) for number, data in sections.items())
    return component("slow", wasm)


def _phases(airssys) -> dict[str, str]:
    asked = airssys("status", "--json")
    return {each["name"]: each["phase"] for each in asked.json()["components"]} if asked.code == 0 else {}


def _lives(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


@pytest.mark.parametrize(("how", "code"), [("down", 0), ("SIGINT", 130)])
def test_it_can_be_asked_and_ended_while_it_compiles(airssys, up, slow: Path, hello: Path, how: str, code: int) -> None:
    """Status and down are answered from the start; whichever way it is ended, no compiler is left and nothing ran."""
    with up(hello, slow, "--grant", "asked") as fleet:
        until_s = time.monotonic() + 60
        while _phases(airssys) != {"hello": "down", "slow": "compiling"}:
            assert time.monotonic() < until_s
        fleet.until("slow: compiling")
        called = airssys("call", "slow", "--json", "1")
        assert (called.code, "slow is compiling" in called.stderr) == (69, True)
        processes = fleet.tree
        if how == "down":
            assert airssys("down").code == 0
        else:
            fleet.process.send_signal(signal.SIGINT)
        assert fleet.end() == code
        until_s = time.monotonic() + 20  # the compiler's keeper ends by itself, once it hears that nobody is there
        while any(_lives(each) for each in processes):
            assert time.monotonic() < until_s
    assert "hello: starting" not in fleet.said
    events = [json.loads(line)["event"] for line in airssys("audit", "query", "--json").stdout.splitlines()]
    assert (events.count("supervisor_started"), events.count("supervisor_ended")) == (1, 1)
    assert "worker_starting" not in events


def test_one_that_can_not_be_compiled_ends_the_start(airssys, component, slow: Path) -> None:
    """At once, though another one is being compiled, with the words that it has alone."""
    broken = component("broken", BROKEN)
    told = [airssys("up", *directories, "--grant", "asked") for directories in ((broken,), (slow, broken))]
    assert {each.code for each in told} == {65}
    assert told[0].stderr == told[1].stderr
    assert "failed to parse" in told[0].stderr


def test_what_two_have_in_common_is_compiled_once(airssys, up, component) -> None:
    """The second of two components of the same bytes finds what the first one's compiler has made."""
    both = [component(name, "hello.wasm") for name in ("one", "two")]
    with up(*both, "--until-done") as fleet:
        assert fleet.end() == 0, fleet.errors()
    lines = airssys("audit", "query", "--event", "worker_starting", "--json").stdout.splitlines()
    assert sorted(json.loads(line)["detail"]["cached"] for line in lines) == [False, True]
