"""A component that asks for ever new things that it is refused: paced, then ended, on record, and nobody else waits."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Protocol

import pytest

from ipc.audit.event import exact, parse_line
from supervisor.audit.segments import segment_names
from supervisor.audit.verify import verify_log

pytestmark = pytest.mark.any_user

TOOL = Path(__file__).resolve().parents[1] / "guests" / "tool.wasm"
FLOOD = 400
AT_ONCE, PER_S, TOLERATED_S = 60, 20, 2
BUDGET = f"""schema = 1
[audit]
max_size = "1MB"
[audit.budget]
refused = {AT_ONCE}
refused_rate = "{PER_S}/s"
tolerated = "{TOLERATED_S}s"
"""
GUARD_S = 60.0


class _Outcome(Protocol):
    code: int
    stdout: str

    def json(self) -> dict[str, object]: ...


class _CommandLine(Protocol):
    directory: Path
    state: Path

    def __call__(self, *arguments: str | Path) -> _Outcome: ...

    def start(self, *arguments: str | Path) -> subprocess.Popen[bytes]: ...


class _Deadline(Protocol):
    def until(self, condition: object, what: str) -> None: ...


def asks(name: str, count: int) -> list[str]:
    """Return the arguments of a run that asks for so many files that it isn't granted, no two alike."""
    guest = [part for number in range(count) for part in ("stat", f"/x/{name}-{number}", ",")]
    return ["--dir", "work::/x", "--", *guest]


def refusals(airssys: _CommandLine, name: str) -> int:
    """Count the records of what was refused to one run."""
    directory = airssys.state / "audit"
    found = 0
    for segment in segment_names(str(directory)):
        found += (directory / segment).read_bytes().count(f"/work/{name}-".encode())
    return found


@pytest.fixture
def config(airssys: _CommandLine) -> Path:
    """A host that lets a component cause few records."""
    (airssys.directory / "work").mkdir()
    path = airssys.directory / "airssys.toml"
    path.write_text(BUDGET)
    path.chmod(0o600)
    return path


def run_s(airssys: _CommandLine, config: Path, name: str) -> float:
    """Return how long a run with forty refusals takes, in seconds."""
    document = airssys("run", TOOL, "--config", config, "--json", *asks(name, 40)).json()
    assert document["outcome"] == "exited"
    duration_s = document["duration_s"]
    assert isinstance(duration_s, float)
    return duration_s


def test_who_floods_the_log_with_refusals_is_ended_and_slows_nobody(
    airssys: _CommandLine, config: Path, deadline: _Deadline
) -> None:
    """Another run on the same log takes about as long as alone; the flood ends with 77, an event, and few records."""
    alone_s = min(run_s(airssys, config, f"alone{number}") for number in range(2))
    with airssys.start("run", TOOL, "--config", config, "--json", *asks("flood", FLOOD)) as flood:
        assert flood.stdin is not None
        flood.stdin.close()
        deadline.until(lambda: refusals(airssys, "flood") > 5, "the flood has begun")
        beside_s = run_s(airssys, config, "beside")
        assert flood.stdout is not None
        document = json.loads(flood.stdout.read())
        assert flood.wait(GUARD_S) == 77
    assert beside_s < 4 * alone_s + 2
    assert (document["outcome"], document["code"]) == ("refused", "A1707")
    recorded = refusals(airssys, "flood")
    assert AT_ONCE <= recorded <= AT_ONCE + PER_S * (document["duration_s"] + 1)
    directory = airssys.state / "audit"
    lines = b"".join((directory / name).read_bytes() for name in segment_names(str(directory))).splitlines(True)
    violations = [record for line in lines if (record := exact(parse_line(line)))["event"] == "violation"]
    assert [record["code"] for record in violations] == ["A1707"]
    assert verify_log(str(directory)).fault is None


def test_within_its_budget_the_same_program_is_not_ended(airssys: _CommandLine) -> None:
    """The control: by default it may be refused that many things, each is on record, and it ends as it wants to."""
    (airssys.directory / "work").mkdir()
    assert airssys("run", TOOL, "-q", *asks("flood", FLOOD)).code == 1
    assert refusals(airssys, "flood") == FLOOD
