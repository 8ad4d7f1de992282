"""What a command says and ends with that has told a supervisor of a version."""

from __future__ import annotations

import pytest

from ipc.struct import replace
from supervisor.cli.taking_version import Outcome
from supervisor.control.messages import VersionChange
from supervisor.fleet.change_over import Phase

ONE = VersionChange("settled", "1.1.0", "b" * 64, "1.0.0", "a" * 64)


@pytest.mark.parametrize(
    ("phase", "waited", "code", "said"),
    [
        (Phase.SETTLED, True, 0, "one: 1.0.0 runs now"),
        (Phase.HANDING_OVER, True, 0, "one: 1.0.0 runs; the version before it finishes"),
        (Phase.AWAITING, True, 77, "1.0.0 runs on; 1.1.0 awaits approval: request 7"),
        (Phase.REFUSED, True, 77, "1.0.0 runs on; 1.1.0 isn't approved: because"),
        (Phase.FAILED, True, 1, "1.0.0 runs on; 1.1.0 failed: because"),
        (Phase.DECIDING, True, 75, "1.1.0 is being decided on"),
        (Phase.COMPILING, True, 75, "1.1.0 is being compiled"),
        (Phase.TRYING, True, 75, "isn't known to be healthy yet"),
        (Phase.TRYING, False, 0, "isn't known to be healthy yet"),
    ],
)
def test_each_phase_has_its_words_and_exit_code(phase: Phase, waited: bool, code: int, said: str) -> None:
    """Who doesn't wait has nothing to fail by; the hint stands below, and no text acts on a terminal."""
    change = replace(ONE, phase=phase, reason="because", hint="do \x1b[2Jthis", approval=7)
    outcome = Outcome(change, "one", waited)
    assert outcome.exit_code == code
    lines = outcome.lines()
    assert said in lines[0]
    assert lines[1] == "  do \\x1b[2Jthis"
    assert outcome.to_json()["phase"] == phase


def test_after_a_failure_the_way_to_stay_is_named() -> None:
    """And under its keys what runs, and what was wanted, are told apart."""
    outcome = Outcome(replace(ONE, phase="failed", reason="it trapped"), "one", True)
    assert outcome.lines()[-1] == "  to stay with it: airssys rollback one 1.0.0"
    document = outcome.to_json()
    assert document["runs"] == {"version": "1.0.0", "package": "a" * 64}
    assert document["wanted"] == {"version": "1.1.0", "package": "b" * 64}
    assert document["hint"] is None
