"""The filters as compiled: each program is run by a small BPF interpreter, for both architectures, call by call."""

import struct

import pytest

from ipc import syscalls
from worker.filter_compiler import (
    EMPTY_PATH_SENTINEL,
    IO_THREAD_SENTINEL,
    SELF_PID_SENTINEL,
    Condition,
    FilterData,
    Program,
    compile_filter,
    load,
    resolve,
)

ALLOW, NOTIFY, KILL, ERRNO = 0x7FFF0000, 0x7FC00000, 0x80000000, 0x00050000
OF_A_FILE = (
    *("statx", "newfstatat", "openat", "openat2", "mkdirat", "unlinkat", "readlinkat", "renameat2", "linkat"),
    *("faccessat", "faccessat2", "utimensat", "getdents64", "fcntl", "lseek", "pread64", "pwrite64"),
)
"""What the engine does to a file or directory that it was given, next."""
ARCHITECTURES = ("x86_64", "aarch64")
THREAD_FLAGS = 0x3D0F00
SENTINELS = (SELF_PID_SENTINEL, IO_THREAD_SENTINEL, EMPTY_PATH_SENTINEL)
ENOSYS, ENOTTY, ENODEV, EACCES, ENOMEM, EINVAL, ENOTCONN, EPERM = 38, 25, 19, 13, 12, 22, 107, 1


def simulate(instructions: bytes, arch: int, number: int, arguments: tuple[int, ...] = ()) -> int:
    """Interpret classic BPF over a struct seccomp_data, as the kernel's seccomp does (filter.rst)."""
    padded = (*arguments, *(0,) * (6 - len(arguments)))
    data = struct.pack("<iIQ6Q", number, arch, 0, *(value & (1 << 64) - 1 for value in padded))
    program = [struct.unpack_from("<HBBI", instructions, offset) for offset in range(0, len(instructions), 8)]
    accumulator = 0
    at = 0
    while True:
        code, jump_true, jump_false, value = program[at]
        at += 1
        match code:
            case 0x20:  # BPF_LD | BPF_W | BPF_ABS
                (accumulator,) = struct.unpack_from("<I", data, value)
            case 0x54:  # BPF_ALU | BPF_AND | BPF_K
                accumulator &= value
            case 0x05:  # BPF_JMP | BPF_JA
                at += value
            case 0x15:  # BPF_JMP | BPF_JEQ | BPF_K
                at += jump_true if accumulator == value else jump_false
            case 0x25:  # BPF_JMP | BPF_JGT | BPF_K
                at += jump_true if accumulator > value else jump_false
            case 0x35:  # BPF_JMP | BPF_JGE | BPF_K
                at += jump_true if accumulator >= value else jump_false
            case 0x06:  # BPF_RET | BPF_K
                return int(value)
            case _:
                raise AssertionError(f"instruction {code:#x} isn't interpreted here")


def ask(
    name: str, architecture: str, call: str, *arguments: int, pid: int = 1, empty_path: int = 0, io_thread: int = 0
) -> int:
    """Return what a filter of ours answers to a call."""
    program = compile_filter(load(name), architecture).bound(pid, empty_path, io_thread)
    return simulate(program, syscalls.AUDIT_ARCH[architecture], resolve(call, architecture), arguments)


@pytest.mark.parametrize("name", ["confine", "actor"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_call_of_the_warden_is_notified(architecture: str, name: str) -> None:
    """No call that the warden decides is answered by filter 1 itself."""
    program = compile_filter(load(name), architecture).bound(1)
    for number in syscalls.names_by_number(architecture):
        assert simulate(program, syscalls.AUDIT_ARCH[architecture], number) == NOTIFY, number


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(
    "call",
    [
        "execve",
        "execveat",
        "ptrace",
        "bpf",
        "mount",
        "umount2",
        "io_uring_setup",
        "keyctl",
        "add_key",
        "unshare",
        "setns",
        "pivot_root",
        "process_vm_readv",
        "process_vm_writev",
        "pidfd_getfd",
        "pidfd_open",
        "memfd_create",
        "pipe2",
        "perf_event_open",
        "userfaultfd",
        "kill",
        "tkill",
        "rt_sigqueueinfo",
        "setuid",
        "setresuid",
        "capset",
        "personality",
        "bind",
        "listen",
        "accept4",
        "sendto",
        "recvmsg",
        "socketpair",
        "shmget",
        "msgget",
        "semget",
        "mq_open",
        "open_by_handle_at",
        "name_to_handle_at",
        "kcmp",
        "prlimit64",
        "setpriority",
        "sched_setscheduler",
        "timer_create",
    ],
)
def test_violations_are_notified(architecture: str, call: str) -> None:
    """Calls that no worker makes go to the warden, which ends the worker; they are never answered by the filter."""
    arguments = (1, 0, 1) if call == "prlimit64" else ()
    assert ask("confine", architecture, call, *arguments) == NOTIFY


EMPTY = 0x7F12_3456_79F3


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((3, EMPTY, 0x1000, 0xFFF, 1), ALLOW),
        ((3, EMPTY, 0xF_0000_1000, 0xFFF, 1), ALLOW),  # the flags are an int
        ((3, EMPTY + 1, 0x1000, 0xFFF, 1), NOTIFY),
        ((0xFFFF_FF9C, EMPTY, 0x1000, 0xFFF, 1), NOTIFY),  # AT_FDCWD
        ((0xFFFF_FFFF_FFFF_FF9C, EMPTY, 0x1000, 0xFFF, 1), NOTIFY),
        ((3, EMPTY ^ 1 << 40, 0x1000, 0xFFF, 1), NOTIFY),
        ((3, EMPTY & 0xFFFF_FFFF, 0x1000, 0xFFF, 1), NOTIFY),
        ((3, EMPTY, 0, 0xFFF, 1), NOTIFY),
        ((3, EMPTY, 0x1100, 0xFFF, 1), NOTIFY),  # AT_SYMLINK_NOFOLLOW beside it: not what the engine asks
        ((3, 0, 0x1000, 0xFFF, 1), NOTIFY),
    ],
)
def test_only_the_one_empty_path_is_asked_about_without_the_warden(
    architecture: str, arguments: tuple[int, ...], expected: int
) -> None:
    """statx(2) goes by only with exactly AT_EMPTY_PATH and exactly the sealed address."""
    assert ask("confine", architecture, "statx", *arguments, empty_path=EMPTY) == expected


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("address", [0, EMPTY, EMPTY_PATH_SENTINEL & (1 << 47) - 1, (1 << 47) - 1, (1 << 56) - 1])
def test_without_a_sealed_page_no_path_is_let_by(architecture: str, address: int) -> None:
    """Where the empty path isn't sealed (before Linux 6.10) the warden is asked about every address there can be."""
    assert ask("confine", architecture, "statx", 3, address, 0x1000, 0xFFF, 1) == NOTIFY
    assert EMPTY_PATH_SENTINEL >> 56, "the address that stands for it is none that a process can have"


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(
    ("call", "arguments", "expected"),
    [
        ("read", (0,), ALLOW),
        ("clone", (THREAD_FLAGS,), ALLOW),
        ("clone", (17,), NOTIFY),  # SIGCHLD: a fork
        ("clone", (THREAD_FLAGS | 0x10000000,), NOTIFY),  # a new user namespace beside
        ("clone", (THREAD_FLAGS & ~0x10000,), NOTIFY),  # without CLONE_THREAD
        ("clone3", (), ERRNO | ENOSYS),
        ("fcntl", (3, 1), NOTIFY),  # F_GETFD
        ("fcntl", (3, 3), ALLOW),
        ("fcntl", (3, 4, 0x800), NOTIFY),  # F_SETFL
        ("fcntl", (3, 4, 0x2000), NOTIFY),  # O_ASYNC
        ("fcntl", (3, 8), NOTIFY),  # F_SETOWN
        ("fcntl", (3, 10), NOTIFY),  # F_SETSIG
        ("fcntl", (3, 1024), NOTIFY),  # F_SETLEASE
        ("fcntl", (3, 1026), NOTIFY),  # F_NOTIFY
        ("fcntl", (3, 1030), NOTIFY),  # F_DUPFD_CLOEXEC: the warden duplicates
        ("fcntl", (3, 1033), NOTIFY),  # F_ADD_SEALS
        ("fcntl", (3, 6), NOTIFY),  # F_SETLK
        ("ioctl", (1, 0x5401), ERRNO | ENOTTY),
        ("ioctl", (1, 0x802C542A), ERRNO | ENOTTY),  # TCGETS2
        ("ioctl", (1, 0x5412), NOTIFY),  # TIOCSTI
        ("ioctl", (1, 0x40086602), NOTIFY),  # FS_IOC_SETFLAGS
        ("mmap", (0, 4096, 3, 0x22), ALLOW),
        ("mmap", (0, 4096, 5, 0x2), ALLOW),  # code, until filter 2
        ("mmap", (0, 4096, 3, 0x21), NOTIFY),  # anonymous and shared
        ("mmap", (0, 4096, 1, 0x1), NOTIFY),  # shared
        ("mmap", (0, 4096, 3, 0x122), NOTIFY),  # MAP_GROWSDOWN
        ("mmap", (0, 4096, 3, 0x40022), NOTIFY),  # MAP_HUGETLB
        ("fallocate", (3, 0, 0, 4096), NOTIFY),
        ("pwritev2", (3, 0, 0, 0, 0, 0x10), ALLOW),  # RWF_APPEND
        ("pwritev2", (3, 0, 0, 0, 0, 0), NOTIFY),
        ("pwritev2", (3, 0, 0, 0, 0, 0x30), NOTIFY),  # RWF_NOAPPEND
        ("madvise", (0, 4096, 4), ALLOW),
        ("madvise", (0, 4096, 8), NOTIFY),  # MADV_FREE
        ("madvise", (0, 4096, 102), ERRNO | EINVAL),  # MADV_GUARD_INSTALL
        ("madvise", (0, 4096, 12), NOTIFY),  # MADV_MERGEABLE
        ("clock_gettime", (3,), ALLOW),
        ("clock_gettime", (-6 & 0xFFFF_FFFF,), NOTIFY),  # the processor time of another process
        ("clock_getres", (-6 & 0xFFFF_FFFF,), NOTIFY),
        ("futex", (0, 129), ALLOW),
        ("futex", (0, 137 | 256), ALLOW),  # WAIT_BITSET, private, by the wall clock
        ("futex", (0, 1), NOTIFY),  # not private
        ("futex", (0, 9), NOTIFY),
        ("futex", (0, 6), NOTIFY),  # FUTEX_LOCK_PI
        ("futex", (0, 12), NOTIFY),  # FUTEX_CMP_REQUEUE_PI
        ("tgkill", (4242, 1, 6), ALLOW),
        ("tgkill", (1, 1, 9), NOTIFY),
        ("prctl", (15,), ALLOW),
        ("prctl", (4, 1), NOTIFY),  # PR_SET_DUMPABLE
        ("prctl", (1, 0), NOTIFY),  # PR_SET_PDEATHSIG
        ("prctl", (0x59616D61,), NOTIFY),  # PR_SET_PTRACER
        ("prlimit64", (0, 3, 0, 1), ALLOW),
        ("prlimit64", (0, 3, 1, 0), ALLOW),  # its own limits, until filter 2
        ("prlimit64", (7, 3, 0, 1), NOTIFY),
        ("sendmsg", (3,), ALLOW),  # the listener, until filter 2
        ("sendmsg", (4,), NOTIFY),
        ("recvmsg", (3,), ALLOW),  # the job, until filter 2
        ("recvmsg", (4,), NOTIFY),
        ("seccomp", (1, 1), ALLOW),  # filter 2, until it is there
        ("seccomp", (1, 9), NOTIFY),  # a listener of its own
        ("socket", (1, 1), NOTIFY),
    ],
)
def test_arguments_decide(architecture: str, call: str, arguments: tuple[int, ...], expected: int) -> None:
    """Calls that are fine in one form and dangerous in another are told apart by their arguments."""
    assert ask("confine", architecture, call, *arguments, pid=4242) == expected


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(
    ("call", "arguments", "expected"),
    [
        ("sendto", (9, 0, 5, 0, 0, 0), ALLOW),
        ("sendto", (9, 0, 5, 0, 0x1000, 110), NOTIFY),  # an address
        ("sendto", (9, 0, 5, 0, 1 << 32, 0), NOTIFY),
        ("sendto", (9, 0, 5, 1, 0, 0), NOTIFY),  # MSG_OOB
        ("recvfrom", (9, 0, 5, 0, 0, 0), ALLOW),
        ("recvfrom", (9, 0, 5, 2, 0, 0), NOTIFY),  # MSG_PEEK
        ("recvfrom", (9, 0, 5, 0, 0x1000, 0x2000), NOTIFY),
        ("getsockopt", (9, 1, 4), ALLOW),
        ("getsockopt", (9, 1, 17), NOTIFY),  # SO_PEERCRED
        ("getsockopt", (9, 6, 4), NOTIFY),  # of TCP
        ("setsockopt", (9, 1, 9), NOTIFY),
        ("getpeername", (9,), ERRNO | ENOTCONN),
        ("getsockname", (9,), ERRNO | ENOTCONN),
        ("fcntl", (9, 4, 0x802), ALLOW),
        ("fcntl", (9, 4, 0x2802), NOTIFY),  # O_ASYNC
        ("fcntl", (9, 4, 2), NOTIFY),
        ("fcntl", (9, 8, 1), NOTIFY),  # F_SETOWN
        ("fcntl", (9, 1030, 0), NOTIFY),  # F_DUPFD_CLOEXEC: the warden's
        ("sched_setscheduler", (0, 0, 0), ALLOW),
        ("sched_setscheduler", (0, 1, 0), NOTIFY),  # SCHED_FIFO
        ("sched_setscheduler", (0, 1 << 30, 0), NOTIFY),  # SCHED_RESET_ON_FORK
        ("mlock", (0, 4096), ERRNO | EPERM),
        ("madvise", (0, 4096, 16), ERRNO | EINVAL),
        ("madvise", (0, 4096, 4), ALLOW),
        ("sendmsg", (9,), NOTIFY),
        ("bind", (9,), NOTIFY),
        ("socket", (1, 0x80001, 0), NOTIFY),
        ("connect", (9,), NOTIFY),
        ("execve", (), NOTIFY),
    ],
)
def test_an_actor_may_keep_a_connection(
    architecture: str, call: str, arguments: tuple[int, ...], expected: int
) -> None:
    """What a ZeroMQ client does with a connected socket, argument by argument, and nothing beside."""
    assert ask("actor", architecture, call, *arguments) == expected


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_commands_get_nothing_of_what_actors_have(architecture: str) -> None:
    """Each call that the actors' filter adds is notified by the commands' in that very form."""
    commands, actors = load("confine").rules, load("actor").rules
    assert actors[: len(commands)] == commands
    added = [rule for rule in actors[len(commands) :] if architecture in rule.architectures]
    assert added
    for rule in added:
        arguments = [0] * 6
        for condition in rule.conditions:
            arguments[condition.argument] = condition.value
        assert ask("confine", architecture, rule.call, *arguments) == NOTIFY, rule


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(
    ("call", "arguments", "expected"),
    [
        ("mmap", (0, 4096, 5, 2), KILL),
        ("mmap", (0, 4096, 3, 0x22), ALLOW),
        ("mmap", (0, 4096, 1, 2), ERRNO | ENODEV),  # of a file: holds it unseen
        ("mmap", (0, 4096, 1, 1), ALLOW),  # shared: filter 1 ends the worker
        ("mprotect", (0, 4096, 7), KILL),
        ("mprotect", (0, 4096, 3), ALLOW),
        ("mprotect", (0, 4096, 1), ERRNO | ENOMEM),  # hides filled pages from RLIMIT_DATA
        ("mprotect", (0, 4096, 0), ERRNO | ENOMEM),
        ("mremap", (0, 4096, 8192, 1), ERRNO | ENOMEM),
        ("mremap", (0, 4096, 8192, 3), ALLOW),  # MREMAP_FIXED: filter 1 ends the worker
        ("pkey_mprotect", (0, 4096, 4), KILL),
        ("seccomp", (1, 1), KILL),
        ("sendmsg", (3,), KILL),
        ("recvmsg", (3,), KILL),
        ("read", (0,), ALLOW),
        ("close", (0,), ALLOW),
        *((call, (number, 1, 4), KILL) for call in OF_A_FILE for number in (0, 1 << 32)),
        *((call, (4, 1, 4), ALLOW) for call in OF_A_FILE),
        *((call, (4, 1, 0), KILL) for call in ("renameat2", "linkat")),
        ("symlinkat", (1, 0, 1), KILL),
        ("symlinkat", (1, 4, 1), ALLOW),
        ("prlimit64", (0, 3, 0, 1), ALLOW),
        ("prlimit64", (0, 3, 1, 0), KILL),
    ],
)
def test_the_seal(architecture: str, call: str, arguments: tuple[int, ...], expected: int) -> None:
    """Filter 2 takes executable memory, further filters and descriptor passing away, and nothing else."""
    assert ask("seal", architecture, call, *arguments) == expected


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(
    ("call", "arguments", "expected"),
    [
        ("openat", (), ERRNO | EACCES),
        ("socket", (), KILL),
        ("execve", (), KILL),
        ("clone", (17,), KILL),
        ("clone", (THREAD_FLAGS,), ALLOW),
        ("write", (6,), ALLOW),
        ("sendmsg", (3,), KILL),
        ("unlinkat", (), KILL),
        ("mmap", (0, 4096, 3, 0x22), ALLOW),
        ("mmap", (0, 4096, 1, 1), KILL),  # shared
        ("mmap", (0, 4096, 3, 0x21), KILL),
        ("mremap", (0, 4096, 8192, 1), ALLOW),
        ("mremap", (0, 4096, 8192, 3), KILL),  # MREMAP_FIXED
        ("futex", (0, 129), ALLOW),
        ("futex", (0, 1), KILL),  # not private
        ("futex", (0, 6), KILL),  # FUTEX_LOCK_PI
        ("tgkill", (1, 1, 6), ALLOW),
        ("tgkill", (2, 2, 6), KILL),
        ("ioctl", (2, 0x5401), KILL),
        ("statx", (), KILL),
    ],
)
def test_the_compiler(architecture: str, call: str, arguments: tuple[int, ...], expected: int) -> None:
    """The compiler's filter has no listener: it names no file and kills what isn't listed."""
    assert ask("compile", architecture, call, *arguments) == expected


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(
    ("call", "arguments", "expected"),
    [
        ("read", (7,), ALLOW),
        ("write", (7,), ALLOW),
        ("mmap", (0, 4096, 3, 0x22), ALLOW),
        ("mmap", (0, 4096, 5, 0x22), KILL),  # executable
        ("mmap", (0, 4096, 3, 0x21), KILL),  # shared
        ("mprotect", (0, 4096, 1), ALLOW),
        ("mprotect", (0, 4096, 4), KILL),
        ("mremap", (0, 4096, 8192, 1), ALLOW),
        ("mremap", (0, 4096, 8192, 3), KILL),  # MREMAP_FIXED
        ("futex", (0, 129), ALLOW),
        ("futex", (0, 6), KILL),  # FUTEX_LOCK_PI
        ("exit_group", (), ALLOW),
        *((call, (), KILL) for call in ("openat", "openat2", "socket", "execve", "clone", "clone3", "kill", "ptrace")),
        *((call, (), KILL) for call in ("prctl", "seccomp", "sendmsg", "dup", "fcntl", "ioctl", "unlinkat", "bpf")),
    ],
)
def test_who_reads_an_archive(architecture: str, call: str, arguments: tuple[int, ...], expected: int) -> None:
    """Two pipes and memory: everything else kills."""
    assert ask("unpack", architecture, call, *arguments) == expected


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(
    ("call", "arguments", "expected"),
    [
        ("sched_setaffinity", (0, 8, 0x1000), ALLOW),
        ("sched_setaffinity", (4343, 8, 0x1000), ALLOW),
        ("sched_setaffinity", (4343 | 1 << 32, 8, 0x1000), ALLOW),  # a pid_t is an int
        ("sched_setaffinity", (4242, 8, 0x1000), KILL),
        ("sched_setaffinity", (4344, 8, 0x1000), KILL),
        ("sched_setaffinity", (1, 8, 0x1000), KILL),
        ("sched_setaffinity", (-1 & (1 << 32) - 1, 8, 0x1000), KILL),
        ("sched_setaffinity", (IO_THREAD_SENTINEL, 8, 0x1000), KILL),
        ("sched_getaffinity", (0, 8, 0x1000), ALLOW),
        ("sched_setscheduler", (0, 5, 0), KILL),  # SCHED_IDLE
        ("sched_setattr", (0,), KILL),
        ("setpriority", (0, 0, 0), KILL),
        ("getdents64", (3,), ERRNO | EACCES),
    ],
)
def test_the_broker_chooses_processors_for_two_threads_only(
    architecture: str, call: str, arguments: tuple[int, ...], expected: int
) -> None:
    """For the calling one and the one through which its messages come and go."""
    assert ask("broker", architecture, call, *arguments, pid=4242, io_thread=4343) == expected


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_where_that_thread_is_not_known_it_chooses_for_itself_only(architecture: str) -> None:
    """The number that stands for it is no thread's."""
    assert ask("broker", architecture, "sched_setaffinity", 0, 8, 0x1000) == ALLOW
    assert ask("broker", architecture, "sched_setaffinity", 4343, 8, 0x1000) == KILL
    assert IO_THREAD_SENTINEL > 1 << 22, "PID_MAX_LIMIT of include/linux/threads.h"


@pytest.mark.parametrize("name", ["confine", "actor", "seal", "compile", "unpack", "broker"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_foreign_abis_are_killed(name: str, architecture: str) -> None:
    """A call of i386, arm or x32 kills the process, whatever its number."""
    program = compile_filter(load(name), architecture).bound(1)
    for arch in (0x40000003, 0x40000028, 0xC0000015):
        assert simulate(program, arch, 0) == KILL
    if architecture == "x86_64":
        for number in (0x40000000, 0x40000000 + 59, 0x40000000 + 520):
            assert simulate(program, syscalls.AUDIT_ARCH["x86_64"], number) == KILL


def _expected(data: FilterData, architecture: str, call: str, arguments: list[int]) -> int:
    """What the data says of a call: the first rule whose conditions all hold, else the default (the oracle)."""
    answers = {"allow": ALLOW, "notify": NOTIFY, "kill": KILL}
    for rule in data.rules:
        if rule.call == call and architecture in rule.architectures:
            compared = [
                arguments[c.argument] & c.mask == c.value
                if c.mask is not None
                else {"==": int.__eq__, "!=": int.__ne__}[c.operator](arguments[c.argument], c.value)
                for c in rule.conditions
            ]
            if all(compared):
                return answers.get(rule.action, ERRNO | rule.errno)
    return answers[data.default]


def _interesting(conditions: list[Condition]) -> list[int]:
    """Values at and beside what conditions compare with: each bit of a mask, and one above 32 bits."""
    values = {0, 1}
    for condition in conditions:
        values |= {condition.value, condition.value ^ 1, condition.value | 1 << 32}
        mask = condition.mask or 0
        values |= {condition.value ^ 1 << n for n in range(64) if mask >> n & 1}
    return sorted(values)


@pytest.mark.parametrize("name", ["confine", "actor", "seal", "compile", "unpack", "broker"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_compiled_filter_answers_as_its_data_says(name: str, architecture: str) -> None:
    """For every call with rules on arguments, each argument outside of them gets what the data says, bit by bit."""
    data = load(name)
    program = compile_filter(data, architecture).instructions
    tried = 0
    for call in {rule.call for rule in data.rules if architecture in rule.architectures}:
        rules = [r for r in data.rules if r.call == call and architecture in r.architectures]
        # A thread's comparison is compiled to 32 bits, and sentinels stand for values that aren't known here.
        conditions = [c for r in rules for c in r.conditions if c.value not in SENTINELS]
        bases = [{c.argument: c.value for c in rule.conditions} for rule in rules]
        for base in bases:
            for argument in {c.argument for c in conditions}:
                for value in _interesting([c for c in conditions if c.argument == argument]):
                    arguments = [(base | {argument: value}).get(n, 0) for n in range(6)]
                    number = resolve(call, architecture)
                    answer = simulate(program, syscalls.AUDIT_ARCH[architecture], number, tuple(arguments))
                    assert answer == _expected(data, architecture, call, arguments), (call, arguments)
                    tried += 1
    assert tried > 10


def test_only_the_own_pid_is_patched_in() -> None:
    """The sentinel is in the compiled program, and nowhere any more once a pid has taken its place."""
    program = compile_filter(load("confine"), "x86_64")
    sentinel = struct.pack("<I", SELF_PID_SENTINEL)
    assert sentinel in program.instructions
    assert sentinel not in program.bound(77)
    assert isinstance(program, Program)


@pytest.mark.parametrize("name", ["confine", "actor", "seal", "compile", "unpack"])
def test_every_rule_has_a_reason(name: str) -> None:
    """Each entry of the filter data says why it is there."""
    for rule in load(name).rules:
        assert len(rule.why) > 10, rule


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_numbers_agree_with_libseccomp(architecture: str) -> None:
    """The table that worker and warden share has the numbers that libseccomp has."""
    for number, (_, call) in syscalls.names_by_number(architecture).items():
        found = resolve(call, architecture)
        # -1: a call that is newer than this libseccomp.
        assert found in (number, -1), call
