"""The outside check: what the kernel shows is compared with what the job says, field by field."""

import pytest

from ipc.messages import ConfinementPlan, WorkerLimits
from ipc.struct import replace
from supervisor.host.verify import RUNTIME_SLACK_BYTES, Expected, Observed, data_bound_bytes, judge, moving_bytes

EXPECTED = Expected(
    seccomp_filters=2, no_new_privs=True, uid=2_000_000_001, gid=2_000_000_001, own_namespaces=True, max_descriptors=28
)
STATUS = {
    "Seccomp": "2",
    "Seccomp_filters": "2",
    "NoNewPrivs": "1",
    "CapInh": "0000000000000000",
    "CapPrm": "0000000000000000",
    "CapEff": "0000000000000000",
    "CapBnd": "0000000000000000",
    "CapAmb": "0000000000000000",
    "Uid": "2000000001\t2000000001\t2000000001\t2000000001",
    "Gid": "2000000001\t2000000001\t2000000001\t2000000001",
    "VmData": "   10240 kB",
}
NAMES = ("net", "ipc", "mnt", "uts", "pid")
GOOD = Observed(
    status=STATUS,
    namespaces={name: f"{name}:[2]" for name in NAMES},
    own_namespaces={name: f"{name}:[1]" for name in NAMES},
    descriptors=("pipe:[1]", "pipe:[2]", "pipe:[3]", "socket:[4]"),
)


def test_a_sealed_worker_passes() -> None:
    """Nothing is wrong with a worker that is as it should be."""
    reports, problems = judge(GOOD, EXPECTED)
    assert problems == ()
    assert reports[0].status == "enforced"


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("Seccomp", "0", "Seccomp is 0"),
        ("Seccomp_filters", "1", "1 seccomp filters"),
        ("NoNewPrivs", "0", "NoNewPrivs is 0"),
        ("CapEff", "0000000000080000", "CapEff"),
        ("CapPrm", "0000000000080000", "CapPrm"),
        ("CapBnd", "000001ffffffffff", "CapBnd"),
        ("CapAmb", "0000000000000001", "CapAmb"),
        ("Uid", "2000000001\t2000000001\t0\t2000000001", "Uid"),
        ("Gid", "0\t0\t0\t0", "Gid"),
    ],
)
def test_each_field_counts(field: str, value: str, named: str) -> None:
    """A single field that is off is a problem that names it."""
    reports, problems = judge(replace(GOOD, status={**STATUS, field: value}), EXPECTED)
    assert len(problems) == 1
    assert named in problems[0]
    assert reports[0].status == "failed"


@pytest.mark.parametrize("name", NAMES)
def test_a_shared_namespace_is_a_problem(name: str) -> None:
    """A worker in one of the supervisor's namespaces isn't isolated."""
    shared = replace(GOOD, namespaces={**GOOD.namespaces, name: GOOD.own_namespaces[name]})
    _, problems = judge(shared, EXPECTED)
    assert problems == (f"it shares the {name} namespace with the supervisor",)


def test_what_can_not_be_seen_is_said() -> None:
    """A supervisor that may not look says so: partial, not enforced."""
    blind = replace(GOOD, descriptors=None, namespaces={**GOOD.namespaces, "net": None})
    reports, problems = judge(blind, EXPECTED)
    assert problems == ()
    assert reports[0].status == "partial"
    assert "net, descriptors" in reports[0].detail


@pytest.mark.parametrize("held", ["/dev/tty", "/dev/null", "anon_inode:[pidfd]"])
def test_descriptors_beyond_the_list(held: str) -> None:
    """A device or another process's pidfd among the descriptors is a problem."""
    assert GOOD.descriptors is not None
    _, problems = judge(replace(GOOD, descriptors=(*GOOD.descriptors, held)), EXPECTED)
    assert problems == (f"it holds {held}",)


def test_too_many_descriptors() -> None:
    """More descriptors than streams, channel, roots and the engine explain are a problem."""
    _, problems = judge(replace(GOOD, descriptors=("pipe:[1]",) * 29), EXPECTED)
    assert len(problems) == 1


def test_layers_that_are_off_are_not_expected() -> None:
    """Expectations follow the job's plan."""
    expected = Expected.of(ConfinementPlan((), off=("seccomp", "namespaces"), uid=5, gid=6), mounts=2)
    assert (expected.seccomp_filters, expected.own_namespaces, expected.uid, expected.gid) == (0, False, 5, 6)


def test_the_memory_bound() -> None:
    """The final RLIMIT_DATA is what is in use, the guest's memory, and the documented slack."""
    assert data_bound_bytes(STATUS, WorkerLimits(64 << 20, 1)) == (10 << 20) + (64 << 20) + RUNTIME_SLACK_BYTES


def test_moving_a_message_takes_memory() -> None:
    """Nothing for a command; for an actor what the engine's values take at most, which jumps at powers of two."""
    assert moving_bytes(0) == 0
    assert 48 * 3 * 10**6 < moving_bytes(10**6) < 200 * 10**6
    assert moving_bytes(2**20 + 1) > moving_bytes(2**20) + 48 * 2**20
    status = {"VmData": "1000 kB"}
    plain = WorkerLimits(10, 10)
    actor = replace(plain, payload_bytes=1000)
    assert data_bound_bytes(status, actor) - data_bound_bytes(status, plain) == moving_bytes(1000)
