"""`airssys doctor` on the real kernel, and its probes' promise to leave the caller as it was."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from supervisor.doctor.features import FEATURES, Observed
from supervisor.doctor.probes import PROBES, describe_host, in_child, probe_all

if TYPE_CHECKING:
    from conftest import Airssys


def _own_state() -> tuple[str, list[str], list[str]]:
    """Return what a probe could have changed of us: seccomp and privileges, namespaces, descriptors."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    lines = [line for line in status.splitlines() if line.startswith(("NoNewPrivs", "Seccomp", "Cap", "Uid", "Gid"))]
    namespaces = [os.readlink(f"/proc/self/ns/{name}") for name in sorted(os.listdir("/proc/self/ns"))]
    return "\n".join(lines), namespaces, sorted(os.listdir("/proc/self/fd"))


def test_doctor_prints_each_feature_once(airssys: Airssys) -> None:
    """The table has a line for every feature, no colours in a pipe, and a conclusion."""
    outcome = airssys("doctor")
    assert outcome.code in (0, 69), outcome.stderr
    for feature in FEATURES:
        rows = [line for line in outcome.stdout.splitlines() if line[9:].startswith(f"{feature.title}  ")]
        assert len(rows) == 1, feature.title
    assert "\x1b" not in outcome.stdout
    assert "required layer" in outcome.stdout.lower() or "every layer" in outcome.stdout.lower()


def test_json_agrees_with_the_probes(airssys: Airssys) -> None:
    """The document has the state that probing here gives, and the exit code says whether it is ready."""
    outcome = airssys("doctor", "--json")
    document = outcome.json()
    findings = probe_all(describe_host())
    features = document["features"]
    assert isinstance(features, list)
    assert {row["name"]: row["state"] for row in features} == {
        name: finding.state for name, finding in findings.items()
    }
    assert outcome.code == (0 if document["ready"] else 69)
    assert document["uid"] == os.geteuid()


def test_what_is_missing_has_a_cost(airssys: Airssys) -> None:
    """A feature has a cost exactly when it isn't found."""
    features = airssys("doctor", "--json").json()["features"]
    assert isinstance(features, list)
    assert all((row["cost"] is None) == (row["state"] == "found") for row in features)


def test_this_kernel_has_what_is_required() -> None:
    """The tests of confinement mean nothing on a kernel without the layers."""
    findings = probe_all(describe_host())
    lacking = [feature.title for feature in FEATURES if feature.required and findings[feature.name].state == "not"]
    if lacking:
        pytest.skip(f"this kernel lacks {', '.join(lacking)}")
    assert findings["seccomp-notify"].detail


@pytest.mark.parametrize("name", list(PROBES))
def test_a_probe_changes_nothing_here(name: str) -> None:
    """After a probe the caller has the same privileges, filters, namespaces and descriptors, and no child."""
    before = _own_state()
    in_child(PROBES[name])
    assert _own_state() == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_a_probe_really_works_in_its_child() -> None:
    """The positive control: a probe's effect is there inside the child."""

    def look() -> Observed:
        PROBES["seccomp"]()
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return Observed(text=next(line for line in status.splitlines() if line.startswith("Seccomp:")))

    assert in_child(look).text.split() == ["Seccomp:", "2"]


def _die() -> Observed:
    os.kill(os.getpid(), signal.SIGKILL)
    return Observed()


def _refused() -> Observed:
    raise PermissionError(errno.EPERM, "refused", "unshare")


@pytest.mark.parametrize(
    ("probe", "expected"), [(_die, Observed(errno.ECHILD)), (_refused, Observed(errno.EPERM, text="unshare"))]
)
def test_a_probe_that_fails_is_an_observation(probe: Callable[[], Observed], expected: Observed) -> None:
    """A probe killed by a container's filter, or refused, is reported like any other result."""
    assert in_child(probe) == expected


def test_a_probe_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hanging probe ends at its limit, and its process with it."""
    monkeypatch.setattr("supervisor.doctor.probes.PROBE_TIMEOUT_S", 0.05)

    def hang() -> Observed:
        signal.pause()
        return Observed()

    assert in_child(hang) == Observed(errno.ETIME)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
