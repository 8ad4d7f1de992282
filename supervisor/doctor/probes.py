"""Probes of the kernel for `airssys doctor`: each runs in a forked child, so that nothing of the caller changes.

A probe returns an `Observed`; `supervisor.doctor.features` judges it. Constants are those of the kernel's uapi headers
(linux/seccomp.h, linux/landlock.h, linux/openat2.h, linux/sched.h, linux/prctl.h).
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import select
import signal
import struct
from collections.abc import Callable

import ipc.libc
from supervisor.doctor import libc
from supervisor.doctor.features import FEATURES, Finding, Host, Observed

PROBE_TIMEOUT_S = 5.0

_FLAG_TSYNC = 1 << 0
_FLAG_NEW_LISTENER = 1 << 3
_FLAG_TSYNC_ESRCH = 1 << 4
_FLAG_WAIT_KILLABLE_RECV = 1 << 5
_NOTIF_ADDFD = 0x40182103  # SECCOMP_IOW(3, struct seccomp_notif_addfd), 24 bytes
_SYNC_WAKE_UP = 1
_LANDLOCK_ACCESS_FS_ABI_1 = (1 << 13) - 1
_NAMESPACES = {
    "pid": ipc.libc.CLONE_NEWPID,
    "net": ipc.libc.CLONE_NEWNET,
    "mount": ipc.libc.CLONE_NEWNS,
    "ipc": ipc.libc.CLONE_NEWIPC,
    "uts": ipc.libc.CLONE_NEWUTS,
}


def in_child(probe: Callable[[], Observed]) -> Observed:
    """Run a probe in a forked child and return what it saw; ETIME when it hangs, ECHILD when it dies.

    The caller must have one thread only, as a command line has.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reader)
            try:
                observed = probe()
            except OSError as error:
                observed = Observed(error.errno or errno.EIO, text=str(error.filename or ""))
            os.write(writer, json.dumps([observed.errno, observed.number, observed.text, observed.names]).encode())
        finally:
            os._exit(0)
    os.close(writer)
    try:
        if not select.select([reader], [], [], PROBE_TIMEOUT_S)[0]:
            return Observed(errno.ETIME)
        data = os.read(reader, 65536)
    finally:
        os.close(reader)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    if not data:
        return Observed(errno.ECHILD)
    number, value, text, names = json.loads(data)
    return Observed(number, value, text, tuple(names))


def _no_new_privs() -> Observed:
    ipc.libc.prctl(ipc.libc.PR_SET_NO_NEW_PRIVS, 1)
    return Observed()


def _seccomp() -> Observed:
    _no_new_privs()
    libc.allow_everything_filter(_FLAG_TSYNC)
    return Observed()


def _seccomp_notify() -> Observed:
    _no_new_privs()
    missing = []
    flags = _FLAG_NEW_LISTENER | _FLAG_TSYNC | _FLAG_TSYNC_ESRCH
    try:
        listener = libc.allow_everything_filter(flags | _FLAG_WAIT_KILLABLE_RECV)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        listener = libc.allow_everything_filter(flags)
        missing.append("WAIT_KILLABLE_RECV")
    # No call is waiting, so a kernel that knows the request answers that there is none with this id (ENOENT).
    try:
        fcntl.ioctl(listener, _NOTIF_ADDFD, struct.pack("=QIIII", 1, 0, 0, 0, os.O_CLOEXEC))
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.EINPROGRESS):
            missing.append("ADDFD")
    try:
        libc.set_notification_flags(listener, _SYNC_WAKE_UP)
    except OSError:
        missing.append("sync wake-up")
    return Observed(names=tuple(missing))


def _landlock() -> Observed:
    abi = libc.landlock_abi()
    _no_new_privs()
    libc.landlock_forbid(_LANDLOCK_ACCESS_FS_ABI_1)
    try:
        os.close(os.open("/", os.O_RDONLY | os.O_DIRECTORY))
    except PermissionError:
        return Observed(number=abi)
    return Observed(errno.ENOTRECOVERABLE, text="a ruleset that forbids everything forbade nothing")


def _enter_user_namespace() -> None:
    """Enter a user namespace of our own, in which we are mapped to ourselves: user_namespaces(7)."""
    uid, gid = os.geteuid(), os.getegid()
    ipc.libc.unshare(ipc.libc.CLONE_NEWUSER)
    for name, content in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        descriptor = os.open(f"/proc/self/{name}", os.O_WRONLY)
        os.write(descriptor, content.encode())
        os.close(descriptor)


def _user_namespaces() -> Observed:
    _enter_user_namespace()
    # AppArmor's restriction lets the namespace be made, and takes the capabilities inside it away.
    ipc.libc.unshare(ipc.libc.CLONE_NEWNET)
    return Observed()


def _namespaces() -> Observed:
    if os.geteuid() != 0:
        try:
            _enter_user_namespace()
        except OSError as error:
            return Observed(error.errno or errno.EIO, names=tuple(_NAMESPACES))
    missing = []
    last = 0
    for name, flag in _NAMESPACES.items():
        try:
            ipc.libc.unshare(flag)
        except OSError as error:
            missing.append(name)
            last = error.errno or errno.EIO
    return Observed(last, names=tuple(missing))


def _openat2() -> Observed:
    root = os.open("/", os.O_PATH)
    ipc.libc.openat2(root, b".", os.O_PATH, 0, ipc.libc.RESOLVE_BENEATH | ipc.libc.RESOLVE_NO_MAGICLINKS)
    return Observed()


def _with_a_worker(look: Callable[[int], Observed]) -> Observed:
    """Call `look` with the pid of a child that waits, from where the warden stands, and end the child.

    That is inside a user namespace with the worker, where there is one; else root's warden needs CAP_SYS_PTRACE for a
    worker of another uid, and an ordinary user's has none.
    """
    try:
        _enter_user_namespace()
    except OSError:
        may_trace = ipc.libc.permitted_capabilities() >> ipc.libc.CAP_SYS_PTRACE & 1
        if os.geteuid() == 0 and not may_trace:
            return Observed(errno.EPERM, text="root without CAP_SYS_PTRACE, and no user namespaces")
    pid = os.fork()
    if pid == 0:
        signal.pause()
        os._exit(0)
    try:
        return look(pid)
    except OSError as error:
        return Observed(error.errno or errno.EIO)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _pidfd_getfd() -> Observed:
    descriptor = os.open("/", os.O_PATH)

    def look(pid: int) -> Observed:
        ipc.libc.pidfd_getfd(os.pidfd_open(pid), descriptor)
        return Observed()

    return _with_a_worker(look)


def _process_vm_readv() -> Observed:
    content = b"what the child's memory holds"
    there = ipc.libc.Buffer(len(content))
    there.view[:] = content

    def look(pid: int) -> Observed:
        remote = ipc.libc.RemoteMemory(len(content))
        count = remote.read(pid, there.address, len(content))  # a forked child has it at the same address
        return Observed() if bytes(remote.buffer.view[:count]) == content else Observed(errno.EIO)

    return _with_a_worker(look)


def _memfd_seal() -> Observed:
    descriptor = os.memfd_create("airssys-probe", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(descriptor, b"sealed")
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    try:
        os.pwrite(descriptor, b"X", 0)
    except PermissionError:
        return Observed()
    return Observed(errno.ENOTRECOVERABLE)


def _mseal() -> Observed:
    libc.seal_a_page()
    return Observed()


def read_number(path: str) -> int | None:
    """Return the number that a sysctl file holds, None when there is no such file or it holds something else."""
    try:
        with open(path, encoding="ascii") as file:
            return int(file.read().strip())
    except (OSError, ValueError):
        return None


def _yama() -> Observed:
    scope = read_number("/proc/sys/kernel/yama/ptrace_scope")
    if scope == 2 and os.geteuid() != 0:
        return Observed(_user_namespace_errno(), scope)
    return Observed(number=-1 if scope is None else scope)


def _user_namespace_errno() -> int:
    """Return 0 where this process can have the capabilities of a user namespace of its own, and enters one."""
    try:
        _user_namespaces()
    except OSError as error:
        return error.errno or errno.EIO
    return 0


def _apparmor() -> Observed:
    value = read_number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
    return Observed(number=-1 if value is None else value)


def _cgroup() -> Observed:
    """Look at the process's own cgroup v2 directory: writable, and with which controllers (cgroups(7))."""
    with open("/proc/self/cgroup", encoding="utf-8") as file:
        path = next((line[3:].rstrip("\n") for line in file if line.startswith("0::")), None)
    with open("/proc/self/mounts", encoding="utf-8") as file:
        mount = next((fields[1] for fields in map(str.split, file) if fields[2] == "cgroup2"), None)
    if path is None or mount is None:
        return Observed(errno.ENOENT, text="no cgroup v2 hierarchy is mounted")
    directory = os.path.normpath(mount + path)
    try:
        with open(f"{directory}/cgroup.controllers", encoding="ascii") as file:
            controllers = set(file.read().split())
    except OSError:
        # The root of the hierarchy has this file as well; without it the directory isn't in our view.
        return Observed(errno.ENOENT, text=f"{directory} is not visible")
    if not os.access(directory, os.W_OK, effective_ids=True):
        return Observed(errno.EACCES, text=f"{directory} is not writable by this user")
    return Observed(text=directory, names=tuple(sorted({"cpu", "memory"} - controllers)))


def _libseccomp() -> Observed:
    try:
        return Observed(text=libc.libseccomp_version())
    except (OSError, AttributeError):
        return Observed(errno.ENOENT)


def _wasmtime() -> Observed:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return Observed(text=version("wasmtime"))
    except PackageNotFoundError:
        return Observed()


def detect_container() -> str:
    """Return the name of the container engine we run in, "container" if there is one of unknown name, else ""."""
    if os.path.exists("/run/.containerenv"):
        return "podman"
    if os.path.exists("/.dockerenv"):
        return "docker"
    for path, marker in (("/proc/1/environ", b"container="), ("/run/systemd/container", b"")):
        try:
            with open(path, "rb") as file:
                entries = file.read().split(b"\0")
        except OSError:
            continue
        for entry in entries:
            if entry.startswith(marker):
                return entry[len(marker) :].decode("utf-8", "replace").strip() or "container"
    return ""


def _is_filtered() -> bool:
    """Return whether a seccomp filter is on this process: proc(5)."""
    with open("/proc/self/status", "rb") as lines:
        return any(line.startswith(b"Seccomp:\t2") for line in lines)


PROBES: dict[str, Callable[[], Observed]] = {
    "kernel": Observed,
    "container": Observed,
    "no-new-privs": _no_new_privs,
    "seccomp": _seccomp,
    "seccomp-notify": _seccomp_notify,
    "landlock": _landlock,
    "user-namespaces": _user_namespaces,
    "namespaces": _namespaces,
    "openat2": _openat2,
    "pidfd-getfd": _pidfd_getfd,
    "process-vm": _process_vm_readv,
    "memfd-seal": _memfd_seal,
    "mseal": _mseal,
    "yama": _yama,
    "apparmor": _apparmor,
    "cgroup-v2": _cgroup,
    "libseccomp": _libseccomp,
    "wasmtime": _wasmtime,
}
"""The probe of each feature, by the feature's name."""


def describe_host() -> Host:
    """Return what the judgements need to know of this machine and user."""
    return Host(
        uid=os.geteuid(),
        release=os.uname().release,
        container=detect_container(),
        max_user_namespaces=read_number("/proc/sys/user/max_user_namespaces"),
        unprivileged_userns_clone=read_number("/proc/sys/kernel/unprivileged_userns_clone"),
        apparmor_restricts_userns=read_number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
        ptrace_scope=read_number("/proc/sys/kernel/yama/ptrace_scope"),
        filtered=_is_filtered(),
    )


def probe_all(host: Host) -> dict[str, Finding]:
    """Probe and judge every feature, in the order of the table."""
    return {feature.name: feature.judge(in_child(PROBES[feature.name]), host) for feature in FEATURES}
