"""A version that took another's place runs by an approval of its own: what is taken of that bites like any other's."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import wasmtime
from as_another import as_another_user

from supervisor.cli import approvals as _approvals  # noqa: F401 # loaded before a fork that can't read it any more

pytestmark = pytest.mark.needs_root

WAT = Path(__file__).resolve().parents[2] / "guests" / "wat"
INITIALIZE = '(func (export "initialize") (param $at i32) (param $length i32) (result i32)'
DAEMON = 1
KEEPS = '[capabilities.storage]\nread = ["k"]\nwrite = ["k"]\n'
SETTINGS = """schema = 1
[control]
approvers = ["daemon"]
[[approvals.rules]]
when = ["storage.*"]
"""


class Component:
    """One that is up, without an approval so far, and who approves its next version."""

    def __init__(self, airssys) -> None:
        """Name the approver in the settings."""
        self.airssys = airssys
        self.config = airssys.directory / "airssys.toml"
        self.config.write_text(SETTINGS)
        self.place = airssys.directory / "one"
        self.place.mkdir()

    def release(self, version: str, more: str = "", functions: int = 0, slow: bool = False) -> Path:
        """Make a version; with so many functions besides, which all have to be compiled, or `slow` to be ready."""
        work = "(local.set 0 (i32.mul (local.get 0) (i32.const 3)))" * 200
        besides = f"(core module {f'(func (param i32) (result i32) {work} (local.get 0))' * functions})"
        text = (WAT / "actor.wat").read_text().rstrip()
        if slow:
            assert INITIALIZE in text
            text = text.replace(INITIALIZE, f"{INITIALIZE} (call $sleep (i32.const 5000))")
        assert text.endswith(")")
        (self.place / "program.wasm").write_bytes(wasmtime.wat2wasm(f"{text[:-1]}{besides})"))
        (self.place / "Component.toml").write_text(
            f'schema = 1\n[component]\nname = "one"\nversion = "{version}"\nwasm = "program.wasm"\n{more}'
        )
        return self.place

    def says(self, *arguments: str) -> str:
        """Have the approver do something, which works; what it says."""
        code, said = as_another_user(DAEMON, self.airssys.state / "control.sock", ("approvals", *arguments))
        assert code == 0, said
        return said

    def approve(self, number: int, *more: str) -> None:
        """Have the approver say yes to a request as it is now."""
        review = self.airssys("approvals", "show", str(number), "--json").json()["review"]
        self.says("approve", str(number), "--yes", str(review), *more)

    def status(self) -> dict[str, object]:
        """Return how it is."""
        (found,) = self.airssys("status", "one", "--json").json()["components"]
        return found

    def until(self, condition: Callable[[dict[str, object]], object], within_s: float = 30) -> dict[str, object]:
        """Wait until it is so, and return how it is then."""
        until_s = time.monotonic() + within_s
        while not condition(found := self.status()):
            assert time.monotonic() < until_s, found
        return found


@pytest.fixture
def component(airssys) -> Component:
    """One whose first version asks for nothing."""
    return Component(airssys)


def test_the_approval_of_another_version_ends_what_runs_by_it(component: Component, airssys, up) -> None:
    """Nothing that was up before had an approval: its time bites as soon as something runs by one."""
    airssys("install", component.release("1.0.0"), "--config", component.config)
    with up("one", "--config", component.config) as fleet:
        fleet.until("one: running")
        component.release("1.1.0", KEEPS)
        assert airssys("upgrade", "one", "--yes", "--config", component.config).code == 77
        component.approve(1, "--expires", "5s")
        component.until(lambda found: found["version"] == "1.1.0")
        assert airssys("call", "one", "-", stdin=b"pv").code == 0, "until then it does what was approved"
        ended = component.until(lambda found: found["phase"] == "stopped")
        assert "approval 1 is over" in str(ended["ended"])


def test_what_is_taken_back_of_a_version_that_is_being_compiled_is_not_in_it(component: Component, airssys, up) -> None:
    """It is decided on anew, and not started; the one before runs on until somebody has approved it again."""
    airssys("install", component.release("1.0.0"), "--config", component.config)
    with up("one", "--config", component.config) as fleet:
        fleet.until("one: running")
        component.release("1.1.0", KEEPS, functions=1000)
        assert airssys("upgrade", "one", "--yes", "--config", component.config).code == 77
        shutil.rmtree(airssys.state / "cache")
        component.approve(1)
        component.until(lambda found: "compiling" in str(found["change"]))
        component.says("revoke", "1")
        assert "compiling" in str(component.status()["change"]), "it was revoked in time"
        left = component.until(lambda found: "compiling" not in str(found["change"]))
        assert left["version"] == "1.0.0"
        refused = component.until(lambda found: "isn't approved" in str(found["change"]) or found["version"] != "1.0.0")
        assert (refused["version"], refused["phase"]) == ("1.0.0", "running")
        assert airssys("approvals", "request", "1", "--config", component.config).code == 0
        component.approve(2)
        component.until(lambda found: found["version"] == "1.1.0")
    records = [json.loads(line) for line in airssys("audit", "query", "--json").stdout.splitlines()]
    by_first = {each["event"] for each in records if each["approval"] == "approval 1" and each["instance"]}
    assert not by_first, "no instance has run by what was taken back"
    assert any(each["approval"] == "approval 2" and each["instance"] for each in records)


def test_what_is_revoked_in_its_trial_has_not_failed(component: Component, airssys, up) -> None:
    """So it brings no superseded approval back; approved again it takes over."""
    airssys("install", component.release("1.0.0"), "--config", component.config)
    with up("one", "--config", component.config) as fleet:
        fleet.until("one: running")
        known = airssys.state / "versions" / "one.json"
        component.until(lambda _: known.exists())
        component.release("1.1.0", KEEPS, slow=True)
        assert airssys("upgrade", "one", "--yes", "--config", component.config).code == 77
        component.approve(1)
        component.until(lambda found: "trying" in str(found["change"]))
        component.says("revoke", "1")
        component.until(lambda found: "isn't approved" in str(found["change"]))
        assert component.status()["version"] == "1.0.0"
        assert json.loads(known.read_text())["last_healthy"]["failed"] == []
        assert airssys("approvals", "request", "1", "--config", component.config).code == 0
        component.approve(2)
        component.until(lambda found: found["version"] == "1.1.0")
