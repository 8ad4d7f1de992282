"""Runs a command as another kernel, or the rules of another host, would let it run.

    python -I elsewhere.py SIMULATION COMMAND...

Everything is real where this kernel can be made to do it to the command alone: system call filters around it, a
listener that is there already, capabilities that are dropped, a user namespace in which no other can be made, files
mounted in a mount namespace. What a filter can't answer (it can only refuse) a tracer does (`tracer.py`): the version
of Landlock, and Yama's rule of who may look into whom.
"""

from __future__ import annotations

import errno
import os
import struct
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from tracer import Call, run_traced, word_at  # an isolated Python doesn't look beside its script

from ipc import codec
from ipc import libc as ipc_libc
from ipc.struct import Struct
from ipc.syscalls import AUDIT_ARCH, machine
from worker import libc
from worker.filter_compiler import Condition, FilterData, Rule, compile_filter, resolve

_CLONE_NEWUSER = 0x1000_0000
_NEW_LISTENER = 1 << 3
_RET_TRACE, _RET_ERRNO, _RET_ALLOW, _RET_NOTIFY = 0x7FF0_0000, 0x0005_0000, 0x7FFF_0000, 0x7FC0_0000
_LANDLOCK = ("landlock_create_ruleset", "landlock_restrict_self")
_READS_OTHERS = ("process_vm_readv", "process_vm_writev", "pidfd_getfd")
_PR_SET_PTRACER = 0x5961_6D61
_CAP_SYS_PTRACE = 19
_LANDLOCK_BITS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
"""Landlock ABI → how many file rights it knows (linux/landlock.h)."""


class Refusal(Struct, frozen=True):
    """A call that answers an errno when `conditions` hold: (argument, operator, value, mask or None)."""

    call: str
    errno: int
    conditions: tuple[tuple[int, str, int, int | None], ...] = ()


class Simulation(Struct, frozen=True):
    """What is different there. The defaults change nothing."""

    refusals: tuple[Refusal, ...] = ()
    first_unknown_call: int = 0
    """System calls from this number on don't exist yet (unified numbers, the same on every architecture)."""
    landlock_abi: int = 0
    yama: int = 0
    listener_taken: bool = False
    no_more_user_namespaces: bool = False
    capabilities: tuple[int, ...] | None = None
    files: tuple[tuple[str, str], ...] = ()
    """(name, content): the files that there are in /proc/sys/kernel, and no others."""


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("<HBBI", code, if_true, if_false, value)


def _by_number(answers: dict[int, int], from_number: tuple[int, int] | None = None) -> bytes:
    """Return a filter that answers calls by number alone; `from_number` is (first, answer)."""
    load, jump_equal, jump_greater_or_equal, give = 0x20, 0x15, 0x35, 0x06
    program = [
        _instruction(load, 4),
        _instruction(jump_equal, AUDIT_ARCH[machine()], 1, 0),
        _instruction(give, _RET_ALLOW),
        _instruction(load, 0),
    ]
    for number, answer in answers.items():
        program += [_instruction(jump_equal, number, 0, 1), _instruction(give, answer)]
    if from_number is not None:
        program += [_instruction(jump_greater_or_equal, from_number[0], 0, 1), _instruction(give, from_number[1])]
    return b"".join([*program, _instruction(give, _RET_ALLOW)])


class Rules:
    """What the tracer answers."""

    def __init__(self, simulation: Simulation) -> None:
        """Begin with nobody having named anybody."""
        self._landlock_abi = simulation.landlock_abi
        self._yama = simulation.yama
        self._may_look: dict[int, int] = {}
        calls = (*_LANDLOCK, *_READS_OTHERS, "prctl")
        self._names = {resolve(call, machine()): call for call in calls}

    def numbers(self) -> tuple[int, ...]:
        """Return the calls that have to stop."""
        wanted = (*(_LANDLOCK if self._landlock_abi else ()), *((*_READS_OTHERS, "prctl") if self._yama else ()))
        return tuple(number for number, name in self._names.items() if name in wanted)

    def answer(self, call: Call) -> int | None:
        """Answer as the other kernel would."""
        name = self._names[call.number]
        if name in _LANDLOCK:
            return self._landlock(name, call)
        if name == "prctl":
            return self._name_tracer(call)
        return None if self._may(call, name) else -errno.EPERM

    def _landlock(self, name: str, call: Call) -> int | None:
        if name == "landlock_restrict_self":
            return -errno.EINVAL if call.arguments[1] else None
        address, size_bytes, flags = call.arguments[:3]
        if flags:
            return self._landlock_abi if flags == 1 else -errno.EINVAL
        known_bytes = 8 if self._landlock_abi < 4 else 16 if self._landlock_abi < 6 else 24
        if size_bytes > known_bytes:
            return -errno.E2BIG
        asked = word_at(call.tid, address)
        return -errno.EINVAL if asked >> _LANDLOCK_BITS[self._landlock_abi] else None

    def _name_tracer(self, call: Call) -> int | None:
        if call.arguments[0] != _PR_SET_PTRACER:
            return None
        self._may_look[_group(call.tid)] = call.arguments[1]
        return 0

    def _may(self, call: Call, name: str) -> bool:
        """Yama's rule (Documentation/admin-guide/LSM/Yama.rst) for what needs PTRACE_MODE_ATTACH to another process."""
        caller = _group(call.tid)
        if self._yama >= 3:
            return False
        try:
            target = _group(_pid_of(caller, call.arguments[0]) if name == "pidfd_getfd" else call.arguments[0])
        except PermissionError:
            # Not ours to see whose pidfd it is: who was named by anybody may.
            return self._yama == 1 and caller in self._may_look.values()
        if _has_capability(caller, target):
            return True
        return self._yama == 1 and (caller in _ancestors(target) or self._may_look.get(target) == caller)


def _status(pid: int, field: str) -> str:
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{field}:"):
            return line.split()[1]
    raise KeyError(field)


def _group(tid: int) -> int:
    return int(_status(tid, "Tgid"))


def _pid_of(caller: int, pidfd: int) -> int:
    for line in Path(f"/proc/{caller}/fdinfo/{pidfd}").read_text(encoding="ascii").splitlines():
        if line.startswith("Pid:"):
            return int(line.split()[1])
    raise KeyError(pidfd)


def _ancestors(pid: int) -> list[int]:
    found = []
    while pid > 1:
        pid = int(_status(pid, "PPid"))
        found.append(pid)
    return found


def _has_capability(caller: int, target: int) -> bool:
    """Whether the caller has CAP_SYS_PTRACE over the target: in the same user namespace, or in ours, which is above."""
    if not int(_status(caller, "CapEff"), 16) >> _CAP_SYS_PTRACE & 1:
        return False
    return os.readlink(f"/proc/{caller}/ns/user") in (
        os.readlink(f"/proc/{target}/ns/user"),
        os.readlink("/proc/self/ns/user"),
    )


def _mount_files(files: tuple[tuple[str, str], ...]) -> None:
    """Show exactly `files` in a directory of /proc/sys, in a mount namespace of our own."""
    if os.geteuid() != 0:
        _own_user_namespace()
    ipc_libc.unshare(libc.CLONE_NEWNS)
    libc.mount(None, b"/", None, libc.MS_REC | libc.MS_PRIVATE)
    libc.mount(b"none", b"/proc/sys/kernel", b"tmpfs", 0)
    for name, content in files:
        path = Path("/proc/sys/kernel", name)
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)


def _own_user_namespace() -> None:
    """Enter a user namespace in which everybody whom we may map is who they are (user_namespaces(7))."""
    uid, gid = os.geteuid(), os.getegid()
    everybody = "0 0 4294967295"
    go, gone = os.pipe()
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        os.close(gone)
        os.read(go, 1)
        for name, own in (("uid_map", uid), ("gid_map", gid)):
            if uid:
                Path(f"/proc/{parent}/setgroups").write_text("deny")
            Path(f"/proc/{parent}/{name}").write_text(f"{own} {own} 1" if uid else everybody)
        os._exit(0)
    ipc_libc.unshare(_CLONE_NEWUSER)
    os.close(gone)
    if os.waitpid(child, 0)[1]:
        raise OSError("the map of the user namespace can't be written")


def _become_there(simulation: Simulation) -> None:
    """Make this process one of that host; what it executes inherits all of it."""
    if simulation.files:
        _mount_files(simulation.files)
    if simulation.no_more_user_namespaces:
        _own_user_namespace()
        Path("/proc/sys/user/max_user_namespaces").write_text("0")
    if simulation.capabilities is not None:
        _keep_only(simulation.capabilities)
    libc.prctl(libc.PR_SET_NO_NEW_PRIVS, 1)
    if simulation.refusals:
        rules = tuple(
            Rule(r.call, "errno", r.errno, tuple(Condition(*c) for c in r.conditions), (machine(),), "missing there")
            for r in simulation.refusals
        )
        libc.set_filter(0, compile_filter(FilterData("elsewhere", "allow", 0, rules), machine()).instructions)
    unknown = (simulation.first_unknown_call, _RET_ERRNO | errno.ENOSYS) if simulation.first_unknown_call else None
    stopping = dict.fromkeys(Rules(simulation).numbers(), _RET_TRACE)
    if stopping or unknown:
        libc.set_filter(0, _by_number(stopping, unknown))
    if simulation.listener_taken:
        # A listener for a call that nobody makes, kept open over execve(2).
        listener = libc.set_filter(_NEW_LISTENER, _by_number({resolve("acct", machine()): _RET_NOTIFY}))
        os.set_inheritable(listener, True)


def _keep_only(capabilities: tuple[int, ...]) -> None:
    kept = sum(1 << capability for capability in capabilities)
    for capability in range(64):
        if not kept >> capability & 1:
            try:
                libc.prctl(libc.PR_CAPBSET_DROP, capability)
            except OSError:
                break
    if os.geteuid() == 0:
        ipc_libc.set_capabilities(kept & ipc_libc.permitted_capabilities())


def main(packed: str, command: list[str]) -> int:
    """Run the command there; returns its exit code."""
    data = bytes.fromhex(packed)
    simulation = codec.unpack(Simulation, data, len(data))
    rules = Rules(simulation)

    def become() -> None:
        _become_there(simulation)
        os.execv(command[0], command)

    if rules.numbers():
        return run_traced(become, rules.answer)
    become()
    return 127


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
