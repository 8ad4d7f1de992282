"""The judgements of `airssys doctor`: what each observation means, on the kernels that are in the field."""

from __future__ import annotations

import errno
import tomllib
from pathlib import Path

import pytest

from ipc.struct import replace
from supervisor.doctor.features import (
    FEATURES,
    LANDLOCK_ABIS,
    WASMTIME_BOUNDS,
    Finding,
    Host,
    Observed,
    judge_apparmor,
    judge_cgroup,
    judge_kernel,
    judge_landlock,
    judge_namespaces,
    judge_notification,
    judge_user_namespaces,
    judge_wasmtime,
    judge_yama,
    ready,
    version_tuple,
)
from supervisor.doctor.probes import PROBES

USER = Host(uid=1000, release="6.1.0-18-amd64")
ROOT = replace(USER, uid=0)
IN_DOCKER = replace(USER, container="docker")


@pytest.mark.parametrize(
    ("release", "state"),
    [
        ("5.10.0", "not"),
        ("5.12.19", "not"),
        ("5.13", "partial"),
        ("5.18.19", "partial"),
        ("5.19", "found"),
        ("6.1.0-18-amd64", "found"),
        ("10.0-rc1", "found"),
        ("x", "not"),
    ],
)
def test_kernel_release(release: str, state: str) -> None:
    """A release is compared by its numbers, not as text, with the first that has everything required."""
    assert judge_kernel(Observed(), replace(USER, release=release)).state == state


@pytest.mark.parametrize(
    ("text", "expected"),
    [("6.18.44-fc-v657", (6, 18, 44)), ("50.0.1", (50, 0, 1)), ("51.0.0rc1", (51, 0, 0)), ("", ())],
)
def test_version_tuple(text: str, expected: tuple[int, ...]) -> None:
    """Only the leading numbers count."""
    assert version_tuple(text) == expected


@pytest.mark.parametrize(
    ("abi", "state", "missing"),
    [
        (1, "partial", 6),
        (2, "partial", 5),
        (3, "partial", 4),
        (4, "partial", 3),
        (5, "partial", 2),
        (6, "found", 0),
        (9, "found", 0),
    ],
)
def test_landlock_names_the_missing_rights(abi: int, state: str, missing: int) -> None:
    """Each ABI below the newest is partial, and names exactly what later ones added."""
    finding = judge_landlock(Observed(number=abi), USER)
    assert (finding.state, len(finding.missing)) == (state, missing)
    assert set(finding.missing) == {right for later, rights in LANDLOCK_ABIS.items() if later > abi for right in rights}
    assert all(right in finding.detail for right in finding.missing)


def test_landlock_of_debian_12_lacks_truncation() -> None:
    """ABI 2, which Debian 12 ships, can't forbid truncation."""
    assert "truncation" in judge_landlock(Observed(number=2), USER).missing


def test_landlock_off_at_boot_and_landlock_filtered_have_different_cures() -> None:
    """A kernel started without it needs a boot parameter, a container needs another profile."""
    at_boot = judge_landlock(Observed(errno.EOPNOTSUPP), USER)
    filtered = judge_landlock(Observed(errno.ENOSYS), IN_DOCKER)
    assert at_boot.state == filtered.state == "not"
    assert "lsm=landlock" in at_boot.mend
    assert "seccomp=unconfined" in filtered.mend


@pytest.mark.parametrize(
    ("names", "state"),
    [
        ((), "found"),
        (("sync wake-up",), "partial"),
        (("WAIT_KILLABLE_RECV", "sync wake-up"), "partial"),
        (("ADDFD",), "not"),
        (("ADDFD", "sync wake-up"), "not"),
    ],
)
def test_notification_needs_descriptors_to_be_injected(names: tuple[str, ...], state: str) -> None:
    """Without WAIT_KILLABLE_RECV a stopped worker's call may be made twice, which is no way out: runs say partial."""
    assert judge_notification(Observed(names=names), USER).state == state


@pytest.mark.parametrize(
    ("host", "command"),
    [
        (replace(USER, max_user_namespaces=0), "user.max_user_namespaces"),
        (replace(USER, unprivileged_userns_clone=0), "kernel.unprivileged_userns_clone"),
        (replace(USER, apparmor_restricts_userns=1), "kernel.apparmor_restrict_unprivileged_userns"),
        (IN_DOCKER, "seccomp=unconfined"),
    ],
)
def test_user_namespaces_name_who_refuses(host: Host, command: str) -> None:
    """Each of the ways to switch user namespaces off has its own cure."""
    finding = judge_user_namespaces(Observed(errno.EPERM, text="unshare"), host)
    assert finding.state == "not"
    assert command in finding.mend


def test_sysctls_for_ordinary_users_are_not_blamed_for_root() -> None:
    """A setting that doesn't bind root isn't offered to root as the cure."""
    host = replace(ROOT, unprivileged_userns_clone=0, apparmor_restricts_userns=1)
    assert judge_user_namespaces(Observed(errno.EPERM), host).mend == ""


def test_namespaces_are_partial_when_some_can_be_made() -> None:
    """The missing ones are named; none at all is "not"."""
    some = judge_namespaces(Observed(errno.EPERM, names=("pid",)), USER)
    none = judge_namespaces(Observed(errno.EPERM, names=("pid", "net", "mount", "ipc", "uts")), USER)
    assert (some.state, some.missing, none.state) == ("partial", ("pid",), "not")


def test_another_listener_is_named() -> None:
    """The kernel allows one listener; whoever has it first is to be left, not the kernel to be upgraded."""
    finding = judge_notification(Observed(errno.EBUSY), replace(USER, filtered=True))
    assert finding.state == "not"
    assert "another program" in finding.detail
    assert finding.mend.startswith("systemd-run")
    assert "seccomp=unconfined" in judge_notification(Observed(errno.EBUSY), IN_DOCKER).mend


JUDGES = {feature.name: feature.judge for feature in FEATURES}


@pytest.mark.parametrize("name", ["pidfd-getfd", "process-vm"])
@pytest.mark.parametrize(
    ("host", "mend"),
    [
        (IN_DOCKER, "docker run --cap-add SYS_PTRACE"),
        (replace(USER, ptrace_scope=2), "sysctl -w kernel.yama.ptrace_scope=1"),
        (replace(USER, ptrace_scope=3), "reboot"),
        (replace(USER, filtered=True), "systemd-run"),
    ],
)
def test_who_stands_between_warden_and_worker_has_a_cure(name: str, host: Host, mend: str) -> None:
    """A container gives a capability, Yama a sysctl or a reboot, a filter is left: the least that helps."""
    finding = JUDGES[name](Observed(errno.EPERM), host)
    assert finding.state == "not"
    assert mend in finding.mend


@pytest.mark.parametrize(("release", "mend"), [("6.1.0-18-amd64", "linux-image"), ("6.12", "seccomp=unconfined")])
def test_a_call_that_is_newer_than_the_kernel_is_not_the_containers_fault(release: str, mend: str) -> None:
    """mseal came with Linux 6.10: before, even a container is told to have another kernel."""
    finding = JUDGES["mseal"](Observed(errno.ENOSYS), replace(IN_DOCKER, release=release))
    assert mend in finding.mend


def test_yama_2_without_a_capability_stops_everything() -> None:
    """Scope 2 asks for a capability, which an ordinary user's warden only has in a user namespace."""
    finding = judge_yama(Observed(errno.EPERM, 2), USER)
    assert (finding.state, finding.mend) == ("not", "sudo sysctl -w kernel.yama.ptrace_scope=1")


@pytest.mark.parametrize(("scope", "state"), [(-1, "found"), (0, "found"), (1, "found"), (2, "partial"), (3, "not")])
def test_yama(scope: int, state: str) -> None:
    """Only scope 3 makes the warden impossible."""
    assert judge_yama(Observed(number=scope), USER).state == state


def test_apparmor_binds_ordinary_users_only() -> None:
    """Ubuntu's restriction is a finding for a user, and none for root."""
    assert judge_apparmor(Observed(number=1), USER).state == "partial"
    assert judge_apparmor(Observed(number=1), ROOT).state == "found"
    assert judge_apparmor(Observed(number=0), USER).state == "found"


@pytest.mark.parametrize(
    ("observed", "state"),
    [
        (Observed(errno.ENOENT), "not"),
        (Observed(text="/sys/fs/cgroup/x", names=("cpu", "memory")), "not"),
        (Observed(text="/sys/fs/cgroup/x", names=("cpu",)), "partial"),
        (Observed(text="/sys/fs/cgroup/x"), "found"),
    ],
)
def test_cgroup(observed: Observed, state: str) -> None:
    """One of the two controllers is partial, a writable directory without both is of no use."""
    assert judge_cgroup(observed, USER).state == state


@pytest.mark.parametrize(
    ("version", "state"),
    [("", "not"), ("49.9.9", "not"), ("50.0.0", "not"), ("50.0.1", "found"), ("50.3", "found"), ("51.0.0", "not")],
)
def test_wasmtime_bounds(version: str, state: str) -> None:
    """Only the versions that pyproject.toml allows are found."""
    assert judge_wasmtime(Observed(text=version), USER).state == state


def test_wasmtime_bounds_are_those_of_the_project() -> None:
    """The judgement and the project's metadata don't drift apart."""
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    requirements: list[str] = tomllib.loads(text)["project"]["dependencies"]
    (requirement,) = (r for r in requirements if r.startswith("wasmtime"))
    low, high = (".".join(map(str, bound)) for bound in WASMTIME_BOUNDS)
    assert requirement == f"wasmtime>={low},<{high}"


def test_every_feature_has_a_probe_and_says_what_its_lack_costs() -> None:
    """The table is complete: a probe for each row, a cost for each row that can be missing."""
    assert [feature.name for feature in FEATURES] == list(PROBES)
    assert all(feature.cost for feature in FEATURES if feature.name != "container")


@pytest.mark.parametrize("errno_", [errno.EPERM, errno.ENOSYS, errno.ECHILD, errno.ETIME])
def test_a_failed_probe_is_never_found(errno_: int) -> None:
    """Whatever way a probe fails in, a feature that is required is then missing (fail closed)."""
    for feature in FEATURES:
        if feature.name in ("kernel", "container", "yama", "apparmor", "wasmtime"):
            continue  # judged by a number or a text, not by a call
        finding = feature.judge(Observed(errno_, names=("pid", "net", "mount", "ipc", "uts")), USER)
        assert finding.state == "not", feature.name
        assert finding.detail, feature.name


def test_ready_needs_every_required_feature_and_no_other() -> None:
    """Each required feature alone decides; partial is enough, and an optional one never matters."""
    found = {feature.name: Finding("found", "") for feature in FEATURES}
    assert ready(found)
    for feature in FEATURES:
        assert ready(found | {feature.name: Finding("partial", "")})
        assert ready(found | {feature.name: Finding("not", "")}) is not feature.required


def test_the_reference_names_each_feature_and_whether_it_is_required() -> None:
    """The table in docs/reference/doctor.md has the rows of FEATURES, in their order."""
    text = (Path(__file__).parents[2] / "docs" / "reference" / "doctor.md").read_text(encoding="utf-8")
    rows = [line.split("|") for line in text.splitlines() if line.startswith("| `")]
    documented = [(cells[1].strip(" `"), cells[2].strip() == "yes") for cells in rows]
    assert documented == [(feature.name, feature.required) for feature in FEATURES]
