"""What a kernel and machine must and should offer: the table behind `airssys doctor`, and its judgements.

Pure: `supervisor.doctor.probes` observes, this module judges what was observed. A feature is *found*, *partial*
(usable, the missing parts named) or *not* there; a finding that isn't *found* says what that costs and gives one
command to mend it.
"""

from __future__ import annotations

import errno as errno_names
import os
import re
from collections.abc import Callable
from typing import Literal

from ipc.struct import Struct

State = Literal["found", "partial", "not"]


class Observed(Struct, frozen=True):
    """What one probe saw: the errno of the call that decided (0: it worked), and what else it learnt."""

    errno: int = 0
    number: int = 0
    text: str = ""
    names: tuple[str, ...] = ()


class Host(Struct, frozen=True):
    """What the judgements need to know of the machine and of who asks."""

    uid: int
    release: str
    container: str = ""
    max_user_namespaces: int | None = None
    unprivileged_userns_clone: int | None = None
    apparmor_restricts_userns: int | None = None
    ptrace_scope: int | None = None
    filtered: bool = False
    """Whether this process's own system calls are filtered already (`Seccomp` in /proc/self/status)."""


class Finding(Struct, frozen=True):
    """A judgement: the state, what was found in words, the missing parts, a command to mend it ("" if none can)."""

    state: State
    detail: str
    missing: tuple[str, ...] = ()
    mend: str = ""


class Feature(Struct, frozen=True):
    """One row of the table. Without a required feature no component is started."""

    name: str
    title: str
    required: bool
    cost: str
    judge: Callable[[Observed, Host], Finding]


MINIMUM_KERNEL = (5, 13)
"""The first release with Landlock, the newest thing that is required."""
FULL_KERNEL = (5, 19)
"""The first release with SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV: before it a call may be notified twice."""

LANDLOCK_ABIS = {
    2: ("renaming and linking across directories",),
    3: ("truncation",),
    4: ("TCP bind and connect",),
    5: ("ioctl on devices",),
    6: ("abstract unix sockets", "signals to other processes"),
}
"""What each Landlock ABI added to what a ruleset can forbid (Documentation/userspace-api/landlock.rst)."""

WASMTIME_BOUNDS = ((50, 0, 1), (51,))
"""The same bounds as in pyproject.toml: at least the first, below the second; a test compares them."""

_YAMA_MEND = "sudo sysctl -w kernel.yama.ptrace_scope=1"
_YAMA_REBOOT = "echo kernel.yama.ptrace_scope=1 | sudo tee /etc/sysctl.d/99-ptrace.conf && sudo reboot"
_OUTSIDE = "systemd-run --user --pty airssys ...  # outside of what filters this process's system calls"
_UPGRADE = "sudo apt-get install --only-upgrade linux-image-amd64  # or your distribution's newest kernel"


def errno_text(number: int) -> str:
    """Return an errno as people know it, such as "EPERM (Operation not permitted)"."""
    return f"{errno_names.errorcode.get(number, str(number))} ({os.strerror(number)})"


def version_tuple(text: str) -> tuple[int, ...]:
    """Return the leading numbers of a version or kernel release: "6.1.0-18-amd64" → (6, 1, 0)."""
    match = re.match(r"\d+(?:\.\d+)*", text)
    return tuple(int(part) for part in match.group(0).split(".")) if match else ()


def _works(what: str, since: tuple[int, ...] = ()) -> Callable[[Observed, Host], Finding]:
    """Judge a probe that only works or fails; `since` is the first release that has it."""

    def judge(observed: Observed, host: Host) -> Finding:
        if not observed.errno:
            return Finding("found", observed.text or what)
        mend = _blocked_mend(observed.errno, host, since)
        return Finding("not", f"{what} failed with {errno_text(observed.errno)}", mend=mend)

    return judge


def _blocked_mend(errno: int, host: Host, since: tuple[int, ...] = ()) -> str:
    """Name who refuses a call: an old kernel, a container's own filter as a rule, or another filter around us."""
    if since and version_tuple(host.release)[:2] < since:
        return _UPGRADE
    if host.container:
        return f"{_engine(host)} run --security-opt seccomp=unconfined ...  # this container filters system calls"
    if host.filtered:
        return _OUTSIDE
    return _UPGRADE if errno in (errno_names.ENOSYS, errno_names.EINVAL) else ""


def _reaches(what: str, since: tuple[int, ...]) -> Callable[[Observed, Host], Finding]:
    """Judge a call by which the warden looks into a worker: it needs a right, which a container may give."""

    def judge(observed: Observed, host: Host) -> Finding:
        if not observed.errno:
            return Finding("found", what)
        detail = f"{what} failed with {errno_text(observed.errno)}"
        if observed.text:
            detail += f": {observed.text}"
        if (host.ptrace_scope or 0) >= 2:
            return Finding("not", detail, mend=_YAMA_MEND if host.ptrace_scope == 2 else _YAMA_REBOOT)
        if host.container and observed.errno == errno_names.EPERM:
            return Finding("not", detail, mend=f"{_engine(host)} run --cap-add SYS_PTRACE ...")
        return Finding("not", detail, mend=_blocked_mend(observed.errno, host, since))

    return judge


def _engine(host: Host) -> str:
    return "podman" if host.container == "podman" else "docker"


def judge_kernel(_observed: Observed, host: Host) -> Finding:
    """Judge the release: older kernels lack a required call, so nothing else needs to be explained first."""
    release = version_tuple(host.release)[:2]
    if release >= FULL_KERNEL:
        return Finding("found", host.release)
    if release >= MINIMUM_KERNEL:
        return Finding("partial", f"{host.release}, without WAIT_KILLABLE_RECV (Linux 5.19)", mend=_UPGRADE)
    return Finding("not", f"{host.release}; at least {MINIMUM_KERNEL[0]}.{MINIMUM_KERNEL[1]} is needed", mend=_UPGRADE)


def judge_notification(observed: Observed, host: Host) -> Finding:
    """Judge user notification: `names` are the parts that are missing; only injecting descriptors is indispensable."""
    if observed.errno == errno_names.EBUSY:
        detail = "another program listens to this process's system calls already, and the kernel allows one"
        return Finding("not", detail, mend=_blocked_mend(observed.errno, host) or _OUTSIDE)
    if observed.errno:
        return _works("seccomp user notification", (5, 9))(observed, host)
    needed = tuple(name for name in observed.names if name not in _DISPENSABLE)
    if needed:
        return Finding("not", f"without {', '.join(needed)}", observed.names, _UPGRADE)
    if observed.names:
        words = ", ".join(f"{name} (Linux {_DISPENSABLE[name]})" for name in observed.names)
        return Finding("partial", f"without {words}", observed.names, _UPGRADE)
    return Finding("found", "ADDFD, WAIT_KILLABLE_RECV, synchronous wake-up")


_DISPENSABLE = {"WAIT_KILLABLE_RECV": "5.19", "sync wake-up": "6.6"}


def judge_landlock(observed: Observed, host: Host) -> Finding:
    """Judge Landlock by its ABI (`number`): what a newer one adds is held by seccomp alone here."""
    if observed.errno == errno_names.EOPNOTSUPP:
        order = "lsm=landlock,lockdown,yama,integrity,apparmor,bpf"
        grub = f"""sudo sed -i 's/^GRUB_CMDLINE_LINUX="/&{order} /' /etc/default/grub"""
        mend = f"{grub} && sudo update-grub && sudo reboot"
        return Finding("not", "built into this kernel, but not switched on at boot (lsm=)", mend=mend)
    if observed.errno:
        return Finding(
            "not", f"landlock failed with {errno_text(observed.errno)}", mend=_blocked_mend(observed.errno, host)
        )
    missing = tuple(right for abi, rights in LANDLOCK_ABIS.items() if abi > observed.number for right in rights)
    if missing:
        return Finding("partial", f"ABI {observed.number}, without: {', '.join(missing)}", missing, _UPGRADE)
    return Finding("found", f"ABI {observed.number}")


def judge_user_namespaces(observed: Observed, host: Host) -> Finding:
    """Judge user namespaces for this user: `text` names the step that failed (AppArmor fails a later one)."""
    if not observed.errno:
        return Finding("found", "usable by root" if host.uid == 0 else "usable by this user")
    detail = f"{observed.text or 'unshare'} failed with {errno_text(observed.errno)}"
    if host.max_user_namespaces == 0:
        return Finding(
            "not", f"{detail}: user.max_user_namespaces is 0", mend="sudo sysctl -w user.max_user_namespaces=15000"
        )
    if host.unprivileged_userns_clone == 0 and host.uid != 0:
        return Finding(
            "not",
            f"{detail}: kernel.unprivileged_userns_clone is 0",
            mend="sudo sysctl -w kernel.unprivileged_userns_clone=1",
        )
    if host.apparmor_restricts_userns and host.uid != 0:
        return Finding(
            "not",
            f"{detail}: AppArmor restricts them",
            mend="sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        )
    return Finding("not", detail, mend=_blocked_mend(observed.errno, host))


def judge_namespaces(observed: Observed, host: Host) -> Finding:
    """Judge the other namespaces: `names` can't be made, for an ordinary user inside a user namespace."""
    if not observed.names:
        return Finding("found", "pid, net, mount, ipc, uts")
    state: State = "not" if len(observed.names) == 5 else "partial"
    return Finding(state, f"without: {', '.join(observed.names)}", observed.names, _blocked_mend(observed.errno, host))


def judge_yama(observed: Observed, _host: Host) -> Finding:
    """Judge kernel.yama.ptrace_scope (`number`, -1: no Yama): how far the warden may look into a worker.

    `errno` is set where scope 2 asks for a capability that the warden can't have.
    """
    match observed.number:
        case -1:
            return Finding("found", "no Yama on this kernel: nothing restricted")
        case 0:
            return Finding("found", "ptrace_scope 0: nothing restricted")
        case 1:
            return Finding("found", "ptrace_scope 1: workers name the warden")
        case 2 if observed.errno:
            return Finding("not", "ptrace_scope 2: needs root or user namespaces, and there are none", mend=_YAMA_MEND)
        case 2:
            return Finding("partial", "ptrace_scope 2: needs root or user namespaces", ("other wardens",), _YAMA_MEND)
        case _:
            scope = f"ptrace_scope {observed.number}"
            return Finding("not", f"{scope}: no process may look into another, until the next boot", mend=_YAMA_REBOOT)


def judge_apparmor(observed: Observed, host: Host) -> Finding:
    """Judge Ubuntu's restriction of user namespaces by AppArmor (`number` is the setting, -1: there is none)."""
    if observed.number != 1:
        return Finding("found", "user namespaces are not restricted by AppArmor")
    if host.uid == 0:
        return Finding("found", "restricts user namespaces of ordinary users, not root's")
    mend = "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
    return Finding("partial", "restricts user namespaces of this user", ("user namespaces",), mend)


def judge_cgroup(observed: Observed, _host: Host) -> Finding:
    """Judge cgroup v2 delegation: `text` is the group's directory, `names` the controllers that are missing in it."""
    mend = "systemd-run --user --scope -p Delegate=yes airssys run ...  # as root: leave --user out"
    if observed.errno:
        return Finding("not", observed.text or "no cgroup v2 hierarchy", mend=mend)
    if observed.names:
        state: State = "not" if {"cpu", "memory"} <= set(observed.names) else "partial"
        return Finding(state, f"{observed.text}: without {', '.join(observed.names)}", observed.names, mend)
    return Finding("found", f"{observed.text}: cpu and memory delegated")


def judge_libseccomp(observed: Observed, _host: Host) -> Finding:
    """Judge libseccomp, which builds the filters (`text` is its version)."""
    if observed.errno:
        return Finding("not", "libseccomp.so.2 can't be loaded", mend="sudo apt-get install libseccomp2")
    return Finding("found", observed.text)


def judge_wasmtime(observed: Observed, _host: Host) -> Finding:
    """Judge the installed wasmtime by its metadata (`text`; "" when it isn't installed): it is not imported here."""
    low, high = WASMTIME_BOUNDS
    bounds = f">={'.'.join(map(str, low))},<{'.'.join(map(str, high))}"
    mend = f"python -m pip install 'wasmtime{bounds}'"
    if not observed.text:
        return Finding("not", "not installed", mend=mend)
    if low <= version_tuple(observed.text) < high:
        return Finding("found", observed.text)
    return Finding("not", f"{observed.text}, which this version was not tested with ({bounds})", mend=mend)


def judge_container(_observed: Observed, host: Host) -> Finding:
    """Say whether this is a container, since that is where unexpected refusals come from; never a fault by itself."""
    return Finding("found", f"inside a container ({host.container})" if host.container else "not in a container")


_NOTHING_STARTS = "no component can be started"

FEATURES: tuple[Feature, ...] = (
    Feature("kernel", "Linux release", True, _NOTHING_STARTS, judge_kernel),
    Feature("container", "container", False, "", judge_container),
    Feature("no-new-privs", "no_new_privs", True, _NOTHING_STARTS, _works("PR_SET_NO_NEW_PRIVS")),
    Feature("seccomp", "seccomp filters", True, _NOTHING_STARTS, _works("seccomp filter")),
    Feature(
        "seccomp-notify",
        "seccomp user notification",
        True,
        "no file call can be decided outside the worker; without WAIT_KILLABLE_RECV a call of a worker that is stopped "
        "meanwhile may be made twice, without the wake-up each call costs some microseconds more",
        judge_notification,
    ),
    Feature(
        "landlock",
        "Landlock",
        True,
        "one of the two layers against file access; what an older ABI lacks is held by seccomp alone",
        judge_landlock,
    ),
    Feature(
        "user-namespaces",
        "user namespaces",
        False,
        "an ordinary user's workers see the host's network, processes and mounts, and are not hidden from each other; "
        "root's warden may look into every process, not only into workers",
        judge_user_namespaces,
    ),
    Feature(
        "namespaces",
        "other namespaces",
        False,
        "workers share the named namespaces with the host; seccomp and Landlock still refuse the calls",
        judge_namespaces,
    ),
    Feature("openat2", "openat2", True, "paths can't be opened beneath a root safely", _works("openat2", (5, 6))),
    Feature(
        "pidfd-getfd",
        "pidfd_getfd",
        True,
        "the warden can't see which directory a call names",
        _reaches("pidfd_getfd", (5, 6)),
    ),
    Feature(
        "process-vm",
        "process_vm_readv",
        True,
        "the warden can't read the path a call names",
        _reaches("process_vm_readv", (3, 2)),
    ),
    Feature(
        "memfd-seal",
        "sealed memory files",
        True,
        "compiled code can't be checked on an unchangeable copy",
        _works("memfd_create"),
    ),
    Feature(
        "mseal",
        "sealed mappings",
        False,
        "each file that a component opens costs two calls of the warden",
        _works("mseal", (6, 10)),
    ),
    Feature("yama", "Yama ptrace_scope", True, "the warden can't read the workers' calls", judge_yama),
    Feature(
        "apparmor", "AppArmor on user namespaces", False, "the same as being without user namespaces", judge_apparmor
    ),
    Feature(
        "cgroup-v2",
        "cgroup v2 delegation",
        False,
        "CPU and memory are watched and limited by the supervisor and rlimits, without the kernel's own ceiling",
        judge_cgroup,
    ),
    Feature("libseccomp", "libseccomp", True, "no filter can be built, so " + _NOTHING_STARTS, judge_libseccomp),
    Feature("wasmtime", "wasmtime", True, _NOTHING_STARTS, judge_wasmtime),
)
"""Every feature that `airssys doctor` reports, in the order in which it prints them."""


def ready(findings: dict[str, Finding]) -> bool:
    """Return whether each required feature can be had, wholly or in the part that is needed."""
    return all(findings[feature.name].state != "not" for feature in FEATURES if feature.required)
