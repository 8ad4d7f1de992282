"""The processes that read what strangers have packed, from their start to their end: archives, and git repositories.

Each tells what it found as a stream (`ipc.package_stream`) and writes no file of the package's: even one that was taken
over by what it reads can do no more than another archive could. Started as `python -I -c "from worker.package_reader
import …"` with a plan and pipes. Everything that is needed is imported before the layers are put on.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import signal
from collections.abc import Mapping
from functools import partial

from ipc import codec, memory_file
from ipc.errors import AirssysError, ConfinementError
from ipc.messages import LayerReport
from ipc.package_stream import (
    DIRECTORY,
    END,
    FILE,
    PLAN_MAX_BYTES,
    REFUSED,
    RepositoryPlan,
    UnpackPlan,
    pack_head,
    pack_piece,
)
from ipc.provider import lifeline
from ipc.warden import identity
from worker import capabilities, landlock, libc, limits, namespaces, seccomp
from worker.tar_reader import ArchiveError, ByteStream, TarReader

EX_DATAERR = 65
EX_UNAVAILABLE = 69
SYSTEM_DIRECTORIES = ("/usr", "/lib", "/lib32", "/lib64", "/bin", "/sbin", "/etc", "/opt", "/nix/store", "/gnu/store")
"""What git, ssh and their libraries are made of; nothing of a user's is beneath them."""
_READ = landlock.READ_FILE | landlock.READ_DIR
_OF_A_FILE = landlock.EXECUTE | landlock.READ_FILE | landlock.WRITE_FILE | landlock.TRUNCATE
_UNPACKER_DESCRIPTORS = 32
_GIT_DESCRIPTORS = 1_024


def unpack(plan_descriptor: int, archive: int, output: int) -> None:
    """Read an archive from one pipe, and tell through the other what is in it."""
    try:
        _close_others(plan_descriptor, archive, output)
        plan = codec.unpack(UnpackPlan, memory_file.take(plan_descriptor, PLAN_MAX_BYTES), PLAN_MAX_BYTES)
        identity.check_origin(identity.__file__)
        confine_unpacker(plan)
        _tell_archive(archive, output, plan)
    except ArchiveError as error:
        _write(output, pack_head(REFUSED, str(error), EX_DATAERR))
    except BrokenPipeError:
        return
    except MemoryError:
        _write(output, pack_head(REFUSED, "reading it takes more memory than a package may need", EX_DATAERR))
    except (AirssysError, OSError) as error:
        _write(output, pack_head(REFUSED, str(error), EX_UNAVAILABLE))


def _tell_archive(archive: int, output: int, plan: UnpackPlan) -> None:
    reader = TarReader(ByteStream(partial(os.read, archive), plan.stream_max_bytes), plan.headers_max)
    while (entry := reader.next_entry()) is not None:
        if entry.is_directory:
            _write(output, pack_head(DIRECTORY, entry.path))
            continue
        _write(output, pack_head(FILE, entry.path, entry.size_bytes))
        for chunk in reader.chunks(entry):
            _write(output, pack_piece(chunk))
    _write(output, pack_head(END))


def read_repository(plan_descriptor: int, output: int) -> None:
    """Fetch one commit with git, and tell what is in it."""
    from worker.git_answers import GitError
    from worker.git_reader import GitReader

    write = partial(_write, output)
    try:
        _close_others(plan_descriptor, output)
        plan = codec.unpack(RepositoryPlan, memory_file.take(plan_descriptor, PLAN_MAX_BYTES), PLAN_MAX_BYTES)
        identity.check_origin(identity.__file__)
        confine_git(plan)
        GitReader(plan).tell(write)
        write(pack_head(END))
    except GitError as error:
        write(pack_head(REFUSED, str(error), error.exit_code))
    except BrokenPipeError:
        return
    except ConfinementError as error:
        said = f"{error}\nfetch it by hand, and name the directory; `airssys doctor` names what is missing here"
        if error.layer == landlock.LAYER and error.errno == errno.EACCES:
            said = "the repository can't be reached\nlet it be read, and the directories that lead to it, too"
        write(pack_head(REFUSED, said, EX_UNAVAILABLE))
    except (AirssysError, OSError) as error:
        write(pack_head(REFUSED, str(error), EX_UNAVAILABLE))


def confine_unpacker(plan: UnpackPlan) -> list[LayerReport]:
    """Put on every layer that this kernel has; raises ConfinementError without the filter of system calls.

    Namespaces and Landlock take away what the filter lets nobody ask for, so they may be missing.
    """
    program = seccomp.compile_unpacker()  # while its file is in reach
    in_use_bytes = limits.data_bytes_in_use()
    layers = [capabilities.forbid_new_privileges(), namespaces.isolate()]
    capabilities.empty_bounding_set()
    layers.append(capabilities.drop_identity(plan.uid, plan.uid))
    layers.append(capabilities.drop_capabilities())
    _end_with(plan.parent_pid)
    layers.append(capabilities.set_dumpable(False, None))
    bounds = {
        resource.RLIMIT_DATA: in_use_bytes + plan.memory_bytes,
        resource.RLIMIT_NOFILE: _UNPACKER_DESCRIPTORS,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CPU: plan.cpu_s,
    }
    layers.append(_bound(bounds))
    layers.append(landlock.enforce())
    filtered = seccomp.confine_unpacker(program)
    if filtered.status == "unavailable":
        raise ConfinementError(seccomp.LAYER, "probe", 0, filtered.detail)
    return [*layers, filtered]


def confine_git(plan: RepositoryPlan) -> list[LayerReport]:
    """Become the identity of the plan, which reads the system's files and `readable`, and writes to `scratch` only.

    A repository of this machine needs no network: where there can be an empty one, there is. Raises ConfinementError
    without Landlock: there is no other wall between git and its identity's files.
    """
    identity.check_never_root(plan.uid)
    layers = [capabilities.forbid_new_privileges()]
    if plan.transport == "file":
        layers.append(_leave_network())
    opened = _rules(plan)
    capabilities.empty_bounding_set()
    if set(os.getresuid()) != {plan.uid}:
        os.setgroups(list(plan.groups))
        os.setresgid(plan.gid, plan.gid, plan.gid)
        os.setresuid(plan.uid, plan.uid, plan.uid)
    if set(os.getresuid()) != {plan.uid}:
        raise ConfinementError("identity", "getresuid", 0, f"the uids are {os.getresuid()}, not {plan.uid}")
    layers.append(LayerReport("identity", "enforced", f"uid {plan.uid}, gid {plan.gid}"))
    layers.append(capabilities.drop_capabilities())
    _end_with(plan.parent_pid, and_children=True)
    bounds = {
        resource.RLIMIT_DATA: plan.memory_bytes,
        resource.RLIMIT_NOFILE: _GIT_DESCRIPTORS,
        resource.RLIMIT_FSIZE: plan.pack_max_bytes,
        resource.RLIMIT_CPU: plan.cpu_s,
    }
    layers.append(_bound(bounds))
    os.umask(0o077)
    walls = landlock.enforce(opened, network=True)
    if walls.status == "unavailable":
        raise ConfinementError(landlock.LAYER, "probe", 0, words=f"git isn't started without Landlock: {walls.detail}")
    return [*layers, walls]


def _close_others(*kept: int) -> None:
    """Close what else came along: whoever started the supervisor may have left something open in it."""
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        if descriptor > 2 and descriptor not in kept:
            with contextlib.suppress(OSError):  # that of the listing itself
                os.close(descriptor)


def _rules(plan: RepositoryPlan) -> Mapping[str, int]:
    """Return the rights that stay: everything in the scratch directory, reading and starting what the system has."""
    system = [*SYSTEM_DIRECTORIES, os.path.dirname(os.path.realpath(plan.git)), os.path.realpath("/etc/resolv.conf")]
    rights = dict.fromkeys(system, _READ | landlock.EXECUTE) | dict.fromkeys(plan.readable, _READ)
    rights |= {"/dev/null": landlock.READ_FILE | landlock.WRITE_FILE, "/dev/urandom": landlock.READ_FILE}
    kept = {path: each for path, each in rights.items() if os.path.exists(path)}
    kept |= {plan.scratch: landlock.EVERY_FILE_RIGHT & ~landlock.EXECUTE}
    return {path: each if os.path.isdir(path) else each & _OF_A_FILE for path, each in kept.items()}


def _leave_network() -> LayerReport:
    try:
        libc.unshare(libc.CLONE_NEWNET | libc.CLONE_NEWIPC | libc.CLONE_NEWUTS)
    except OSError as error:
        return LayerReport(namespaces.LAYER, "unavailable", f"unshare: {os.strerror(error.errno or 0)}")
    return LayerReport(namespaces.LAYER, "enforced", "net, ipc, uts")


def _end_with(parent_pid: int, and_children: bool = False) -> None:
    """Be killed when the supervisor ends, with what was started. After the change of identity, which undoes it."""
    parent = os.pidfd_open(parent_pid)
    if os.getppid() != parent_pid:
        raise ConfinementError("lifeline", "getppid", 0, "the supervisor has ended")
    capabilities.die_with_parent(parent)
    if and_children:
        if os.getpgrp() != os.getpid():
            raise ConfinementError("lifeline", "getpgrp", 0, "it has no process group of its own")
        lifeline.hold(parent)
    os.close(parent)


def _bound(bounds: Mapping[int, int]) -> LayerReport:
    for which, bound in {resource.RLIMIT_CORE: 0, resource.RLIMIT_MEMLOCK: 0, **bounds}.items():
        hard = resource.getrlimit(which)[1]
        value = bound if hard == resource.RLIM_INFINITY else min(bound, hard)
        try:
            resource.setrlimit(which, (value, value))
        except OSError as error:
            raise ConfinementError(limits.LAYER, "setrlimit", error.errno or 0, f"resource {which}") from error
    # Python ignores it, and would read EFBIG instead: the programs that it starts are to end by it.
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    return LayerReport(limits.LAYER, "enforced")


def _write(output: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(output, view) :]
