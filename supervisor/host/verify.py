"""Looking at a sealed worker from outside, by /proc/PID (proc(5)), and the last bound before it may go.

What a worker says of its confinement is a claim; this is what the kernel says.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Mapping, Sequence

from ipc.messages import ConfinementPlan, LayerReport, WorkerLimits
from ipc.struct import Struct, replace
from supervisor.run import watch

RUNTIME_SLACK_BYTES = 64 << 20
"""Private memory beside the guest's own: the engine's tables and stacks, its runtime threads, buffers of host calls."""
MAX_DESCRIPTORS_BESIDE_MOUNTS = 24
"""A sealed worker holds its three streams, its channel, two handles a mount, and the engine's own event descriptors."""
_NAMESPACES = ("net", "ipc", "mnt", "uts", "pid")
_CAPABILITIES = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
_KIB = 1024


class Expected(Struct, frozen=True):
    """What the outside must show."""

    seccomp_filters: int
    no_new_privs: bool
    uid: int
    gid: int
    own_namespaces: bool
    max_descriptors: int

    @classmethod
    def of(cls, plan: ConfinementPlan, mounts: int) -> Expected:
        """Derive it from the plan: what was switched off or could not be had is not expected."""
        return cls(
            seccomp_filters=0 if "seccomp" in plan.off else 2,
            no_new_privs=True,
            uid=os.getuid() if plan.uid is None else plan.uid,
            gid=os.getgid() if plan.gid is None else plan.gid,
            own_namespaces=plan.namespaces and "namespaces" not in plan.off,
            max_descriptors=MAX_DESCRIPTORS_BESIDE_MOUNTS + 2 * mounts,
        )

    def after(self, layers: Sequence[LayerReport]) -> Expected:
        """Return what to expect of a worker that could not have namespaces; it says so before it has seen a component.

        Where they are required it has not come this far.
        """
        if any(report.layer == "namespaces" and report.status == "unavailable" for report in layers):
            return replace(self, own_namespaces=False)
        return self


class Observed(Struct, frozen=True):
    """What the outside does show. None where this user may not look."""

    status: Mapping[str, str]
    namespaces: Mapping[str, str | None]
    own_namespaces: Mapping[str, str]
    descriptors: tuple[str, ...] | None


def verify(pid: int, expected: Expected) -> tuple[tuple[LayerReport, ...], tuple[str, ...]]:
    """Compare what the kernel shows of `pid` with what is expected; returns what was seen and what is wrong."""
    return judge(observe(pid), expected)


class Look(Struct, frozen=True):
    """What was seen of a sealed worker, what is wrong with it, and what it may hold from now on.

    `memory_bytes` is counted as in `watch.read_usage`, and so is what it holds now, `own_memory_bytes`; both are 0 for
    one with problems, which may not go.
    """

    reports: tuple[LayerReport, ...]
    problems: tuple[str, ...]
    memory_bytes: int = 0
    own_memory_bytes: int = 0


def verify_and_bound(pid: int, expected: Expected, limits: WorkerLimits) -> Look:
    """Verify, then bound the worker's private memory to what it uses now, plus the guest's, plus slack (prlimit(2))."""
    try:
        observed = observe(pid)
    except OSError as error:
        return Look((), (f"can't look at the worker: {os.strerror(error.errno or 0)}",))
    reports, problems = judge(observed, expected)
    if problems:
        return Look(reports, problems)
    bound_bytes = data_bound_bytes(observed.status, limits)
    try:
        resource.prlimit(pid, resource.RLIMIT_DATA, (bound_bytes, bound_bytes))
    except PermissionError:
        # Root of a container without CAP_SYS_RESOURCE, and no user namespace: the worker's own, looser bound stays.
        bound = LayerReport("memory_bound", "partial", "needs CAP_SYS_RESOURCE; the loading bound stays")
    except OSError as error:
        return Look(reports, (f"can't bound the worker's memory: {os.strerror(error.errno or 0)}",))
    else:
        bound = LayerReport("memory_bound", "enforced", f"RLIMIT_DATA {bound_bytes} bytes")
    # From the same look: until its go the worker only waits.
    own_bytes = watch.usage_of(observed.status).memory_bytes
    return Look((*reports, bound), (), bound_bytes + watch.UNCOUNTED_BYTES, own_bytes)


def data_bound_bytes(status: Mapping[str, str], limits: WorkerLimits) -> int:
    """Return the final RLIMIT_DATA: in use at the seal + the guest's memory + RUNTIME_SLACK_BYTES, + its messages'."""
    in_use_bytes = int(status["VmData"].split()[0]) * _KIB
    return in_use_bytes + limits.memory_bytes + RUNTIME_SLACK_BYTES + moving_bytes(limits.payload_bytes)


def moving_bytes(payload_bytes: int) -> int:
    """Return what the worker takes for a moment to handle a message of this size and send as much on (docs/adr/0015).

    The engine has a value of 48 bytes for each byte of a list that it hands over, and of those that it gets, which it
    collects in a list that it doubles and copies. The C API has one of 32, each way; Python the bytes.
    """
    doubled = 1 << (payload_bytes - 1).bit_length() if payload_bytes else 0
    return doubled * (48 + 24) + payload_bytes * (48 + 32 + 10)


def observe(pid: int) -> Observed:
    """Read what the kernel shows of a process."""
    own = {name: os.readlink(f"/proc/self/ns/{name}") for name in _NAMESPACES}
    seen: dict[str, str | None] = {}
    for name in _NAMESPACES:
        try:
            seen[name] = os.readlink(f"/proc/{pid}/ns/{name}")
        except PermissionError:
            seen[name] = None
    return Observed(_status(pid), seen, own, _descriptors(pid))


def _status(pid: int) -> dict[str, str]:
    with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as lines:
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _descriptors(pid: int) -> tuple[str, ...] | None:
    directory = f"/proc/{pid}/fd"
    found = []
    try:
        for name in os.listdir(directory):
            try:
                found.append(os.readlink(f"{directory}/{name}"))
            except FileNotFoundError:
                continue
    except PermissionError:
        return None
    return tuple(found)


def judge(observed: Observed, expected: Expected) -> tuple[tuple[LayerReport, ...], tuple[str, ...]]:
    """Compare; pure. The reports' layers end in `:outside`, so that claim and observation stand side by side."""
    problems = [
        *_seccomp_problems(observed.status, expected),
        *_privilege_problems(observed.status, expected),
        *_namespace_problems(observed, expected),
        *_descriptor_problems(observed.descriptors, expected),
    ]
    status = observed.status
    unseen = [name for name, value in observed.namespaces.items() if value is None]
    if observed.descriptors is None:
        unseen.append("descriptors")
    detail = (
        f"Seccomp {status.get('Seccomp')} ({_filters(status)}), "
        f"NoNewPrivs {status.get('NoNewPrivs')}, CapEff {status.get('CapEff')}, uid {_first(status.get('Uid', '?'))}"
    )
    if unseen:
        detail += f"; not visible to this user: {', '.join(unseen)}"
    state = "failed" if problems else "partial" if unseen else "enforced"
    return (LayerReport("outside_check", state, detail),), tuple(problems)


def _filters(status: Mapping[str, str]) -> str:
    found = status.get("Seccomp_filters", "?")  # Linux 5.9
    return "1 filter" if found == "1" else f"{found} filters"


def _first(value: str) -> str:
    return value.split()[0]


def _seccomp_problems(status: Mapping[str, str], expected: Expected) -> list[str]:
    if not expected.seccomp_filters:
        return []
    problems = []
    if status.get("Seccomp") != "2":
        problems.append(f"Seccomp is {status.get('Seccomp')}, not 2 (filter)")
    found = status.get("Seccomp_filters")  # Linux 5.9
    if found is not None and int(found) < expected.seccomp_filters:
        problems.append(f"{found} seccomp filters, {expected.seccomp_filters} expected")
    return problems


def _privilege_problems(status: Mapping[str, str], expected: Expected) -> list[str]:
    problems = []
    if expected.no_new_privs and status.get("NoNewPrivs") != "1":
        problems.append(f"NoNewPrivs is {status.get('NoNewPrivs')}, not 1")
    for name in _CAPABILITIES:
        value = int(status.get(name, "0"), 16)  # CapAmb: Linux 4.3
        if value and not (name == "CapBnd" and not expected.own_namespaces and expected.uid != 0):
            problems.append(f"{name} is {status.get(name)}, not empty")
    for name, wanted in (("Uid", expected.uid), ("Gid", expected.gid)):
        found = status.get(name, "").split()
        if found != [str(wanted)] * 4:
            problems.append(f"{name} is {' '.join(found)}, not {wanted}")
    return problems


def _namespace_problems(observed: Observed, expected: Expected) -> list[str]:
    if not expected.own_namespaces:
        return []
    return [
        f"it shares the {name} namespace with the supervisor"
        for name, found in observed.namespaces.items()
        if found is not None and found == observed.own_namespaces[name]
    ]


def _descriptor_problems(descriptors: tuple[str, ...] | None, expected: Expected) -> list[str]:
    if descriptors is None:
        return []
    problems = []
    if len(descriptors) > expected.max_descriptors:
        problems.append(f"it holds {len(descriptors)} descriptors, at most {expected.max_descriptors} are explained")
    problems += [f"it holds {name}" for name in descriptors if name.startswith(("/dev/", "anon_inode:[pidfd]"))]
    return problems
