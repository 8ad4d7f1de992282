"""Native code in a sealed worker: ways to other processes, to more memory, to privilege.

A call that no program needs ends the worker, and the audit log names it (A1701). The control of each is the same call
where no layer is on: there it works, or at least reaches the kernel's own checks.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from ipc.syscalls import machine

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Steps, World, Worlds

SIGCHLD = 17
THREAD = 0x3D0F00
OTHERS = str(os.getpid())
"""A process that isn't the worker: this one."""

WORKS: dict[str, Steps] = {
    "clone as fork": [("x", "fork:clone", SIGCHLD)],
    "clone as vfork": [("x", "fork:clone", 0x4100 | SIGCHLD)],
    "clone, a thread's flags and one more": [("x", "fork:clone", THREAD | 0x8000_0000)],
    "clone, a thread's flags in the low half": [("x", "fork:clone", THREAD | 1 << 32)],
    "clone, a parent's sibling": [("x", "fork:clone", 0x8000 | SIGCHLD)],
    "kill itself": [("me", "getpid"), ("x", "kill", "r:me", 0)],
    "tkill": [("me", "gettid"), ("x", "tkill", "r:me", 0)],
    "kill everybody": [("x", "kill", -1, 0)],
    "pidfd_open": [("me", "getpid"), ("x", "pidfd_open", "r:me", 0)],
    "ptrace: traced by the parent": [("x", "ptrace", 0)],
    "process_vm_readv": [
        ("me", "getpid"),
        ("buffer", "write", 1, "m:b:8", 0),
        ("x", "process_vm_readv", "r:me", "v:b", 1, "v:b", 1, 0),
    ],
    "process_vm_writev": [
        ("me", "getpid"),
        ("buffer", "write", 1, "m:b:8", 0),
        ("x", "process_vm_writev", "r:me", "v:b", 1, "v:b", 1, 0),
    ],
    "F_SETOWN: whom a signal goes to": [("me", "getpid"), ("x", "fcntl", 1, 8, "r:me")],
    "F_SETSIG: which signal": [("x", "fcntl", 1, 10, 9)],
    "F_SETFL with O_ASYNC": [("x", "fcntl", 1, 4, 0x2000)],
    "a futex that isn't private": [("x", "futex", "b:4", 1, 1, 0, 0, 0)],
    "F_SETPIPE_SZ": [("x", "fcntl", 1, 1031, 1 << 20)],
    "F_DUPFD": [("x", "fcntl", 1, 0, 60)],
    "F_SETOWN with rubbish above 32 bits": [("me", "getpid"), ("x", "fcntl", 1, 8 | 1 << 32, "r:me")],
    "prctl: dumpable": [("x", "prctl", 4, 1)],
    "prctl: no parent's death signal": [("x", "prctl", 1, 0)],
    "prctl: speculation": [("x", "prctl", 52, 0)],
    "memory: a memfd": [("x", "memfd_create", "s:m", 0)],
    "memory: anonymous and shared": [("x", "mmap", 0, 1 << 20, 3, 0x21, -1, 0)],
    "memory: a stack that grows down": [("x", "mmap", 0, 1 << 20, 3, 0x122, -1, 0)],
    "memory: System V": [("x", "shmget", 0, 1 << 20, 0o600)],
    "memory: pipe buffers": [("x", "pipe2", "b:8", 0)],
    "more descriptors: dup": [("x", "dup", 0)],
    "more descriptors: socketpair": [("x", "socketpair", 1, 1, 0, "b:8")],
    "chdir": [("x", "chdir", "s:/")],
    "getppid": [("x", "getppid")],
    "timer_create": [("x", "timer_create", 1, 0, "b:8")],
    "timerfd_create": [("x", "timerfd_create", 1, 0)],
    "inotify_init1": [("x", "inotify_init1", 0)],
    "personality": [("x", "personality", 0xFFFF_FFFF)],
    "umask": [("x", "umask", 0)],
    "landlock_create_ruleset": [("x", "landlock_create_ruleset", 0, 0, 1)],
}
"""What works in a worker whose layers are all off."""
if machine() == "x86_64":
    WORKS["fork"] = [("x", "fork:fork")]
    WORKS["vfork"] = [("x", "fork:vfork")]

REACHES: dict[str, tuple[str | int, ...]] = {
    "kill another": ("kill", OTHERS, 0),
    "tgkill another": ("tgkill", OTHERS, OTHERS, 0),
    "rt_sigqueueinfo": ("rt_sigqueueinfo", OTHERS, 0, "b:128"),
    "rt_tgsigqueueinfo": ("rt_tgsigqueueinfo", OTHERS, OTHERS, 0, "b:128"),
    "pidfd_send_signal": ("pidfd_send_signal", 0, 0, 0, 0),
    "pidfd_getfd": ("pidfd_getfd", 0, 0, 0),
    "ptrace: read another": ("ptrace", 3, OTHERS, 0, "b:8"),
    "process_vm_readv of another": ("process_vm_readv", OTHERS, "b:16", 1, "b:16", 1, 0),
    "process_madvise": ("process_madvise", 0, 0, 0, 0, 0),
    "kcmp": ("kcmp", OTHERS, OTHERS, 0, 0, 0),
    "prctl: anybody may trace": ("prctl", 0x59616D61, -1),
    "prlimit another": ("prlimit64", OTHERS, 7, 0, 0),
    "F_SETOWN_EX": ("fcntl", 1, 15, "b:8"),
    "F_SETLEASE": ("fcntl", 1, 1024, 0),
    "F_NOTIFY": ("fcntl", 1, 1026, 1),
    "F_SETLK": ("fcntl", 1, 6, "b:32"),
    "F_OFD_SETLK": ("fcntl", 1, 37, "b:32"),
    "ioctl FIOSETOWN": ("ioctl", 0, 0x8901, "b:8"),
    "ioctl FIOASYNC": ("ioctl", 0, 0x5452, "b:8"),
    "ioctl TIOCSTI": ("ioctl", 0, 0x5412, "b:8"),
    "ioctl TIOCLINUX": ("ioctl", 0, 0x541C, "b:8"),
    "ioctl FS_IOC_SETFLAGS": ("ioctl", 0, 0x40086602, "b:8"),
    "ioctl FICLONE": ("ioctl", 0, 0x40049409, 0),
    "memory: huge pages": ("mmap", 0, 2 << 20, 3, 0x40022, -1, 0),
    "memory: shared file": ("mmap", 0, 4096, 1, 1, 0, 0),
    "memory: mremap elsewhere": ("mremap", 0, 4096, 4096, 3, 0),
    "memory: madvise remove": ("madvise", 0, 4096, 9),
    "memory: madvise poison": ("madvise", 0, 4096, 100),
    "memory: remap_file_pages": ("remap_file_pages", 0, 4096, 0, 0, 0),
    "memory: mlockall": ("mlockall", 1),
    "memory: userfaultfd": ("userfaultfd", 0),
    "memory: secret": ("memfd_secret", 0),
    "memory: shmat": ("shmat", 0, 0, 0),
    "io_uring_setup": ("io_uring_setup", 1, "b:120"),
    "io_uring_enter": ("io_uring_enter", 0, 1, 0, 0, 0),
    "io_uring_register": ("io_uring_register", 0, 0, 0, 0),
    "bpf": ("bpf", 0, "b:128", 128),
    "perf_event_open": ("perf_event_open", "b:128", 0, -1, -1, 0),
    "keyctl": ("keyctl", 0, -3, 0),
    "add_key": ("add_key", "s:user", "s:k", "s:v", 1, -3),
    "request_key": ("request_key", "s:user", "s:k", 0, -3),
    "mount": ("mount", 0, "s:/", "s:tmpfs", 0, 0),
    "fsopen": ("fsopen", "s:tmpfs", 0),
    "open_tree": ("open_tree", -100, "s:/", 0),
    "move_mount": ("move_mount", -1, "s:", -1, "s:", 0),
    "umount2": ("umount2", "s:/nothing", 0),
    "pivot_root": ("pivot_root", "s:/nothing", "s:/nothing"),
    "chroot": ("chroot", "s:/nothing"),
    "unshare": ("unshare", 0x1000_0000),
    "setns": ("setns", 0, 0),
    "setuid": ("setuid", 0),
    "setresgid": ("setresgid", 0, 0, 0),
    "setgroups": ("setgroups", 0, 0),
    "capset": ("capset", 0, 0),
    "sethostname": ("sethostname", "s:h", 1),
    "init_module": ("init_module", 0, 0, 0),
    "finit_module": ("finit_module", -1, 0, 0),
    "kexec_load": ("kexec_load", 0, 0, 0, 0),
    "reboot": ("reboot", 0, 0, 0, 0),
    "syslog": ("syslog", 10, 0, 0),
    "open_by_handle_at": ("open_by_handle_at", -1, "b:16", 0),
    "name_to_handle_at": ("name_to_handle_at", -100, "s:/", "b:16", "b:8", 0),
    "fanotify_init": ("fanotify_init", 0, 0),
    "swapon": ("swapon", "s:/nothing", 0),
    "acct": ("acct", "s:/nothing"),
    "quotactl": ("quotactl", 0, 0, 0, 0),
    "splice": ("splice", -1, 0, -1, 0, 0, 0),
    "vmsplice": ("vmsplice", -1, 0, 0, 0),
    "tee": ("tee", -1, -1, 0, 0),
    "sendfile": ("sendfile", -1, -1, 0, 0),
    "copy_file_range": ("copy_file_range", -1, 0, -1, 0, 0, 0),
    "mknodat": ("mknodat", -100, "s:/nothing/x", 0o10666, 0),
    "fchdir": ("fchdir", -1),
    "setpgid": ("setpgid", -1, 0),
    "setpriority": ("setpriority", 9, 0, 0),
    "sched_setscheduler": ("sched_setscheduler", -1, 0, 0),
    "sched_setaffinity": ("sched_setaffinity", -1, 0, 0),
    "setitimer": ("setitimer", 9, 0, 0),
    "signalfd4": ("signalfd4", -1, 0, 0, 0),
    "wait4": ("wait4", -1, 0, 1, 0),
    "sendto": ("sendto", 1, "b:8", 8, 0, 0, 0),
    "recvfrom": ("recvfrom", 0, "b:8", 8, 0, 0, 0),
    "bind": ("bind", 0, 0, 0),
    "listen": ("listen", 0, 0),
    "accept4": ("accept4", 0, 0, 0, 0),
    "getsockopt": ("getsockopt", 0, 1, 1, 0, 0),
    "setsockopt": ("setsockopt", 0, 1, 1, 0, 0),
}
"""What reaches the kernel's own checks in a worker whose layers are all off."""
if machine() == "x86_64":
    REACHES |= {
        "modify_ldt": ("modify_ldt", 0, 0, 0),
        "arch_prctl": ("arch_prctl", 0x1004, "b:8"),
        "iopl": ("iopl", 9),
        "ioperm": ("ioperm", 0, 1, 1),
        "uselib": ("uselib", "s:/nothing"),
        "mknod": ("mknod", "s:/nothing/x", 0o10666, 0),
    }
NOT_IN_EVERY_KERNEL = {
    "iopl",
    "ioperm",
    "memory: secret",
    "kexec_load",
    "swapon",
    "acct",
    "quotactl",
    "uselib",
    "init_module",
    "finit_module",
}


@pytest.mark.parametrize("name", WORKS)
def test_a_call_that_works_elsewhere_ends_the_worker(sealed: World, bare: World, name: str) -> None:
    """It works where no layer is on; in a sealed worker it is the last call, and the log names it."""
    steps = WORKS[name]
    done = bare.probe(steps).results
    assert done.get("x", -1) >= 0, f"the control failed: {done}"
    sealed.assert_ends(steps)


@pytest.fixture(scope="module")
def reached(worlds: Worlds) -> dict[str, int]:
    """What every call of REACHES answers in the world whose layers are all off."""
    labels = {name: f"x{n}" for n, name in enumerate(REACHES)}
    steps = [(labels[name], *call) for name, call in REACHES.items()]
    results = worlds["bare"].probe(steps).results
    return {name: results[label] for name, label in labels.items() if label in results}


@pytest.mark.parametrize("name", REACHES)
def test_a_call_that_no_program_makes_ends_the_worker(sealed: World, reached: dict[str, int], name: str) -> None:
    """It reaches the kernel where no layer is on; in a sealed worker it is the last call, and the log names it."""
    control = reached[name]
    assert control != -errno.ENOSYS or name in NOT_IN_EVERY_KERNEL
    sealed.assert_ends([("x", *REACHES[name])])


@pytest.mark.parametrize(
    "call", [("execve", "s:/bin/true", 0, 0), ("execveat", -100, "s:/bin/true", 0, 0, 0)], ids=["execve", "execveat"]
)
def test_executing_a_program_ends_the_worker(sealed: World, bare: World, call: tuple[str | int, ...]) -> None:
    """Where no layer is on the worker becomes /bin/true; in a sealed worker the call is the last."""
    ran = bare.probe([("x", *call), ("after", "getpid")])
    assert ran.results == {}
    assert "status 0" in ran.report.verdict.message
    sealed.assert_ends([("x", *call)])


def test_clone3_is_not_there(sealed: World, bare: World) -> None:
    """Its flags lie behind a pointer that no filter can read: it answers ENOSYS, where it forks without layers."""
    arguments = bytes(32) + SIGCHLD.to_bytes(8, "little") + bytes(48)
    steps = [("x", "fork:clone3", f"x:{arguments.hex()}", len(arguments)), ("after", "getpid")]
    assert bare.probe(steps).results["x"] > 0
    ran = sealed.probe(steps)
    assert ran.results == {"x": -errno.ENOSYS, "after": 1}


def test_a_thread_is_the_one_clone_that_works(sealed: World) -> None:
    """Exactly the flags of a thread are allowed: the rule that refuses the others is about them, not about clone."""
    ran = sealed.probe([("x", "fork:clone", THREAD), ("after", "getpid")])
    assert ran.results["x"] > 0
    assert ran.results["after"] == 1


def test_a_signal_to_itself_is_the_one_that_works(sealed: World) -> None:
    """tgkill with the worker's own pid is for abort(3); the same call with another pid is a violation (above)."""
    ran = sealed.probe([("me", "getpid"), ("x", "tgkill", "r:me", "r:me", 0)])
    assert ran.results == {"me": 1, "x": 0}


def test_an_unknown_number_ends_the_worker(sealed: World, ordinary: Callable[[Steps], dict[str, int]]) -> None:
    """A call that this kernel doesn't have yet is refused like one that it has."""
    steps = [("x", 5000)]
    assert ordinary(steps) == {"x": -errno.ENOSYS}
    sealed.assert_ends(steps)


needs_x86_64 = pytest.mark.skipif(machine() != "x86_64", reason="foreign ABIs of x86_64")


@needs_x86_64
@pytest.mark.parametrize("number", [20, 2, 11, 102], ids=["getpid", "fork", "execve", "socketcall"])
def test_a_32_bit_call_kills(sealed: World, bare: World, number: int) -> None:
    """`int 0x80` numbers mean other calls (11 is execve, and munmap to a filter that looks at numbers alone)."""
    assert bare.probe([("x", "i386:20")]).results["x"] > 0
    sealed.assert_kills([("x", f"i386:{number}")])


@needs_x86_64
@pytest.mark.parametrize("number", [39, 57, 520], ids=["getpid", "fork", "execve"])
def test_an_x32_call_kills(sealed: World, bare: World, number: int) -> None:
    """The x32 bit in the number is no way around the filter, whether or not this kernel has x32."""
    control = bare.probe([("x", 0x4000_0027), ("same", "getpid")]).results
    assert control["x"] in (control["same"], -errno.ENOSYS)
    sealed.assert_kills([("x", 0x4000_0000 | number)])


MAP_EXEC = {
    "mmap": [("x", "mmap", 0, 4096, 7, 0x22, -1, 0)],
    "mmap, execute only": [("x", "mmap", 0, 4096, 4, 0x22, -1, 0)],
    "mprotect": [("page", "mmap", 0, 4096, 3, 0x22, -1, 0), ("x", "mprotect", "r:page", 4096, 5)],
    "pkey_mprotect": [("page", "mmap", 0, 4096, 3, 0x22, -1, 0), ("x", "pkey_mprotect", "r:page", 4096, 5, -1)],
}


@pytest.mark.parametrize("name", MAP_EXEC)
def test_no_new_executable_memory(sealed: World, bare: World, name: str) -> None:
    """Memory that can be executed is made without layers; after the seal asking for it kills."""
    assert bare.probe(MAP_EXEC[name]).results["x"] >= 0
    sealed.assert_kills(MAP_EXEC[name])


def test_no_executable_mapping_of_a_granted_file(sealed: World, bare: World, tree: object) -> None:
    """A file that may be read is never mapped for execution; mapping it otherwise is refused."""
    path = f"{tree}/in/a.txt"
    opened = ("open", "openat", -100, f"s:{path}", 0)
    mapped = ("x", "mmap", 0, 4096, 5, 2, "r:open", 0)
    assert bare.probe([opened, mapped]).results["x"] > 0
    read_only = sealed.probe([opened, ("x", "mmap", 0, 4096, 1, 2, "r:open", 0)], "--read", path)
    assert read_only.results["x"] == -errno.ENODEV
    sealed.assert_kills([opened, mapped], "--read", path)


@pytest.mark.parametrize(
    "call",
    [
        ("sendmsg", 3, "b:56", 0),
        ("recvmsg", 3, "b:56", 0),
        ("sendmmsg", 3, "b:64", 0, 0),
        ("seccomp", 1, 1, "b:16"),
        ("prlimit64", 0, 7, "x:" + "40" + "00" * 7 + "40" + "00" * 7, 0),
    ],
    ids=["sendmsg", "recvmsg", "sendmmsg", "seccomp", "prlimit64"],
)
def test_what_was_needed_before_the_seal_kills_after_it(
    sealed: World, bare: World, call: tuple[str | int, ...]
) -> None:
    """No descriptor leaves or enters by the channel, no further filter is stacked, no limit of its own set."""
    # In "bare" descriptor 9 stands for the channel, which must not be disturbed.
    control = (call[0], *(9 if argument == 3 else argument for argument in call[1:]))
    assert bare.probe([("x", *control)]).results["x"] != -errno.ENOSYS
    sealed.assert_kills([("x", *call)])
