"""A running component gets another version: healthy, failing, not approved yet; and supervisors that are killed."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import wasmtime
from as_another import as_another_user

from ipc import memory_file
from supervisor.cli import approvals as _approvals  # noqa: F401 # loaded before a fork that can't read it any more
from supervisor.control.client import Address, ControlClient
from supervisor.control.messages import CallAnswer, CallComponent

WAT = Path(__file__).resolve().parents[2] / "guests" / "wat"
GLOBAL = "(global $health (mut i32) (i32.const 0))"
UNWELL = (GLOBAL, GLOBAL.replace("0)", "2)"))
"""It says from the start that it is unhealthy."""
CONFIG = '(func (export "initialize") (param $at i32) (param $length i32) (result i32)'
SLOW = (CONFIG, f"{CONFIG} (call $sleep (i32.const 2000))")
"""It takes two seconds to be initialised."""
READ_K = '[capabilities.storage]\nread = ["k"]\nwrite = ["k"]\n'
SETTINGS = """schema = 1
[control]
approvers = ["daemon"]
[[approvals.rules]]
when = ["storage.*"]
"""
DAEMON = 1


@pytest.fixture
def release(airssys) -> Callable[..., Path]:
    """Make the next version of a component in the directory that it was installed from."""

    def make(
        name: str, version: str, more: str = "", wat: str = "actor.wat", change: Sequence[tuple[str, str]] = ()
    ) -> Path:
        place = airssys.directory / name
        place.mkdir(exist_ok=True)
        text = (WAT / wat).read_text()
        for old, new in change:
            assert old in text
            text = text.replace(old, new)
        (place / "program.wasm").write_bytes(wasmtime.wat2wasm(text))
        (place / "Component.toml").write_text(
            f'schema = 1\n[component]\nname = "{name}"\nversion = "{version}"\nwasm = "program.wasm"\n{more}'
        )
        return place

    return make


def _component(airssys, name: str = "one") -> dict[str, Any]:
    (found,) = airssys("status", name, "--json").json()["components"]
    return found


def _until(condition: Callable[[], object], what: str, within_s: float = 30) -> None:
    until_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < until_s, what


def _records(airssys, event: str) -> list[dict[str, Any]]:
    lines = airssys("audit", "query", "--json").stdout.splitlines()
    return [record for record in map(json.loads, lines) if record["event"] == event]


@contextlib.contextmanager
def _calling(airssys, payload: bytes) -> Iterator[list[CallAnswer]]:
    """Call a component again and again meanwhile, from three clients; yields the answers."""
    answers: list[CallAnswer] = []
    ended = threading.Event()

    def call() -> None:
        with ControlClient(Address(str(airssys.state / "control.sock"), "the test", trusted=True)) as client:
            while not ended.is_set():
                descriptor = memory_file.from_bytes("payload", payload)
                for part, received in client.ask(CallComponent("one", True, 20_000), [descriptor], 30):
                    assert isinstance(part, CallAnswer)
                    answers.append(part)
                    for each in received:
                        os.close(each)
                os.close(descriptor)

    threads = [threading.Thread(target=call) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def test_an_actor_changes_over_and_no_call_is_lost(airssys, up, release) -> None:
    """Calls that come all the while are all answered; then the new version runs, with what the old one has kept."""
    airssys("install", release("one", "1.0.0"))
    with up("one") as fleet:
        fleet.until("one: running")
        _until(lambda: (airssys.state / "versions" / "one.json").exists(), "it is known to be healthy")
        release("one", "1.1.0")
        with _calling(airssys, b"b") as answers:
            before = len(answers)
            done = airssys("upgrade", "one")
            after = len(answers)
        assert done.code == 0, done.stderr + done.stdout
        assert "one: 1.1.0 runs now" in done.stdout
        assert after > before
        assert {answer.kind for answer in answers} == {""}
        now = _component(airssys)
        assert (now["version"], now["phase"], now["health"], now["change"]) == ("1.1.0", "running", "healthy", None)
        listed = {each["version"]: each["package"] for each in airssys("list", "--json").json()["installed"]}
        assert now["package"] == listed["1.1.0"]
        assert f"1.1.0 {listed['1.1.0'][:8]}" in airssys("status").stdout
        assert not _records(airssys, "messages_lost")
        back = airssys("rollback", "one", "--json").json()["running"]
        assert (back["phase"], back["runs"]["version"]) == ("settled", "1.0.0")
        again = airssys("rollback", "one", "1.0.0")
        assert "1.0.0 is active already" in again.stdout
        assert airssys("call", "one", "-", stdin=b"t").code == 69
        _until(lambda: _component(airssys)["phase"] == "failed", "it has ended")
        assert airssys("rollback", "one", "1.0.0").code == 0, "what has failed is started again"
        assert airssys("call", "one", "-", stdin=b"e!").stdout == "e!"
        assert airssys("down").code == 0
        assert fleet.end() == 0
    taken = [
        (each["detail"]["before"]["version"], each["detail"]["version"])
        for each in _records(airssys, "version_taken_over")
    ]
    assert taken == [("1.0.0", "1.1.0"), ("1.1.0", "1.0.0"), ("1.0.0", "1.0.0")]
    assert all(each["actor"] == f"uid {os.getuid()}" for each in _records(airssys, "version_wanted"))


@pytest.mark.any_user
def test_one_that_is_not_healthy_leaves_the_old_one_in_place(airssys, up, release) -> None:
    """The old instance goes on, says so everywhere, and is what a supervisor that was killed starts next."""
    airssys("install", release("one", "1.0.0"))
    with up("one") as fleet:
        fleet.until("one: running")
        _until(lambda: (airssys.state / "versions" / "one.json").exists(), "it is known to be healthy")
        instance = _component(airssys)["instance"]
        release("one", "1.1.0", change=(UNWELL,))
        failed = airssys("upgrade", "one")
        assert failed.code == 1, failed.stdout
        assert "one: 1.0.0 runs on; 1.1.0 failed: it says that it is unhealthy" in failed.stdout
        now = _component(airssys)
        assert (now["version"], now["instance"]) == ("1.0.0", instance)
        for shown in (now["change"], airssys("status").stdout, airssys("list").stdout):
            assert "1.1.0 failed: it says that it is unhealthy" in shown
            assert "airssys rollback one" in shown
        assert airssys("call", "one", "-", stdin=b"e!").stdout == "e!"
        fleet.process.kill()
        fleet.process.wait()
    with up("one") as fleet:
        fleet.until("one: running")
        assert _component(airssys)["version"] == "1.0.0"
        assert "1.1.0 failed" in _component(airssys)["change"]
        assert airssys("rollback", "one").code == 0
        assert _component(airssys)["change"] is None
        release("one", "1.2.0", 'args = []\n[parameters]\nwhere = { type = "directory" }\n')
        unbound = airssys("upgrade", "one")
        assert (unbound.code, "1.2.0 failed" in unbound.stdout) == (1, True), unbound.stdout
        release("one", "1.3.0")
        mended = airssys("upgrade", "one", "--no-wait")
        assert mended.code == 0
        _until(lambda: _component(airssys)["version"] == "1.3.0", "the next one takes over")
    assert len(_records(airssys, "version_failed")) == 2


@pytest.mark.any_user
def test_what_was_granted_on_the_command_line_was_granted_to_other_bytes(airssys, up, release) -> None:
    """Another version waits for a yes of its own: an approval, or the word of who upgrades."""
    airssys("install", release("one", "1.0.0", READ_K))
    with up("one", "--grant", "asked") as fleet:
        fleet.until("one: running")
        release("one", "1.1.0", READ_K)
        waits = airssys("upgrade", "one")
        assert waits.code == 77, waits.stdout
        assert "one: 1.0.0 runs on; 1.1.0" in waits.stdout
        assert _component(airssys)["version"] == "1.0.0"
        granted = airssys("upgrade", "one", "--grant", "asked")
        assert (granted.code, "one: 1.1.0 runs now" in granted.stdout) == (0, True), granted.stdout
        assert airssys("call", "one", "-", stdin=b"pv").code == 0
    asked = [each["detail"] for each in _records(airssys, "version_wanted")]
    assert asked == [{}, {"grant": "asked"}]


@pytest.mark.needs_root
def test_one_that_awaits_approval_takes_over_once_it_is_approved(airssys, up, release) -> None:
    """Until then, and after a restart, the old one runs; an answer over the control socket begins the change."""
    config = airssys.directory / "airssys.toml"
    config.write_text(SETTINGS)

    def says(*arguments: str) -> tuple[int, str]:
        return as_another_user(DAEMON, airssys.state / "control.sock", ("approvals", *arguments))

    def review(number: int) -> str:
        return str(airssys("approvals", "show", str(number), "--json").json()["review"])

    airssys("install", release("one", "1.0.0"), "--config", config)
    with up("one", "--config", config) as fleet:
        fleet.until("one: running")
        _until(lambda: (airssys.state / "versions" / "one.json").exists(), "it is known to be healthy")
        release("one", "1.1.0", READ_K)
        waits = airssys("upgrade", "one", "--yes", "--config", config)
        assert waits.code == 77
        assert "1.0.0 runs on; 1.1.0 awaits approval: request 1" in waits.stdout
        assert "to run it" not in waits.stdout, "a supervisor runs it"
        assert "approvals show 1" in _component(airssys)["change"]
        fleet.process.kill()
        fleet.process.wait()
    with up("one", "--config", config) as fleet:
        fleet.until("one: running")
        _until(lambda: "awaits approval" in (_component(airssys)["change"] or ""), "it is asked for again")
        assert _component(airssys)["version"] == "1.0.0"
        assert says("reject", "1")[0] == 0
        assert "isn't approved" in _component(airssys)["change"]
        assert airssys("approvals", "request", "1", "--config", config).code == 0
        assert "approvals show 2" in _component(airssys)["change"]
        code, said = says("approve", "2", "--yes", review(2))
        assert code == 0, said
        _until(lambda: _component(airssys)["version"] == "1.1.0", "it takes over")
        assert airssys("call", "one", "-", stdin=b"pv").code == 0
        release("one", "1.2.0", READ_K, change=(UNWELL,))
        assert airssys("upgrade", "one", "--yes", "--config", config).code == 77
        assert says("approve", "3", "--yes", review(3))[0] == 0
        _until(lambda: "1.2.0 failed" in (_component(airssys)["change"] or ""), "it is tried, and fails")
        assert _component(airssys)["version"] == "1.1.0"
        fleet.process.kill()
        fleet.process.wait()
    # Its approval was superseded by that of the version which failed; it stands.
    with up("one", "--config", config) as fleet:
        fleet.until("one: running")
        assert _component(airssys)["version"] == "1.1.0"
        assert airssys("call", "one", "-", stdin=b"gk").stdout == "v"


@pytest.mark.any_user
def test_killed_in_the_middle_of_a_trial_the_next_one_comes_to_the_same_end(airssys, up, release) -> None:
    """What wasn't known to fail is started, fails as it would have, and what was healthy last is in its place again."""
    airssys("install", release("one", "1.0.0"))
    with up("one") as fleet:
        fleet.until("one: running")
        _until(lambda: (airssys.state / "versions" / "one.json").exists(), "it is known to be healthy")
        release("one", "1.1.0", change=(SLOW, UNWELL))
        assert airssys("upgrade", "one", "--no-wait", "--yes").code == 0
        _until(lambda: "1.1.0: trying" in (_component(airssys)["change"] or ""), "it is tried out")
        assert _component(airssys)["version"] == "1.0.0"
        fleet.process.kill()
        fleet.process.wait()
    with up("one") as fleet:
        fleet.until("1.1.0 failed: it says that it is unhealthy")
        now = _component(airssys)
        assert (now["version"], now["phase"]) == ("1.0.0", "running")
        assert airssys("call", "one", "-", stdin=b"e!").stdout == "e!"


@pytest.mark.any_user
def test_a_command_that_fails_in_its_trial_ends_alone(airssys, up, release) -> None:
    """The one before goes on; one that goes on itself takes its place, and that one is ended."""
    airssys("install", release("one", "1.0.0", wat="block-poll.wat"))
    with up("one") as fleet:
        fleet.until("one: running")
        instance = _component(airssys)["instance"]
        release("one", "1.1.0", wat="start-trap.wat")
        failed = airssys("upgrade", "one")
        assert (failed.code, "1.1.0 failed: trapped" in failed.stdout) == (1, True), failed.stdout
        assert _component(airssys)["instance"] == instance
        release("one", "1.2.0", wat="block-poll.wat")
        done = airssys("upgrade", "one", "--json", "--yes")
        assert done.json()["running"]["phase"] == "settled"
        assert _component(airssys)["version"] == "1.2.0"
        assert len([each for each in fleet.tree if "keeper" in each.name()]) <= 1
