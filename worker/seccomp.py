"""The seccomp layer (seccomp(2)): two stacked filters, compiled in the zygote, loaded by raw system call.

Filter 1 is the whole allow-list; a call that it doesn't name goes to the warden. Filter 2 is stacked on it once
everything is loaded.
A kernel that lacks a flag gets the next weaker set, and the report says what that loses.
"""

from __future__ import annotations

import errno
import os

from ipc.errors import ConfinementError
from ipc.messages import LayerReport
from ipc.struct import Struct, replace
from ipc.syscalls import machine
from worker import libc
from worker.filter_compiler import Program, compile_filter, load

LAYER = "seccomp"
_FULL = libc.SECCOMP_FILTER_FLAG_TSYNC | libc.SECCOMP_FILTER_FLAG_NEW_LISTENER | libc.SECCOMP_FILTER_FLAG_TSYNC_ESRCH
_ATTEMPTS = (
    (_FULL | libc.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, ""),
    (_FULL, "no WAIT_KILLABLE_RECV (Linux 5.19): a stopped worker's call may be performed twice"),
    (
        libc.SECCOMP_FILTER_FLAG_NEW_LISTENER,
        "no TSYNC with a listener (Linux 5.7): the filter is on the one thread",
    ),
)


class Programs(Struct, frozen=True):
    """The compiled filters of one architecture, and the address of the engine's empty path; 0 if it isn't sealed."""

    confining: Program
    sealing: Program
    compiling: Program
    confining_actor: Program | None = None
    empty_path: int = 0


_programs: Programs | None = None


def compile_all() -> Programs:
    """Compile the filters for this machine; the zygote does this once, each worker inherits the result."""
    global _programs
    if _programs is None:
        try:
            architecture = machine()
        except KeyError as error:
            raise ConfinementError(LAYER, "uname", 0, f"no filters for architecture {error}") from error
        confining, sealing, compiling = (
            compile_filter(load(name), architecture) for name in ("confine", "seal", "compile")
        )
        _programs = Programs(confining, sealing, compiling)
    return _programs


def compile_for_actors() -> Program:
    """Compile filter 1 of actors, once: in the zygote of a host that has some, or in the worker."""
    global _programs
    programs = compile_all()
    if programs.confining_actor is None:
        programs = _programs = replace(programs, confining_actor=compile_filter(load("actor"), machine()))
    assert programs.confining_actor is not None
    return programs.confining_actor


def note_empty_path(address: int) -> None:
    """Let workers ask about open descriptors by themselves, by that one address (`worker.empty_path`)."""
    global _programs
    _programs = replace(compile_all(), empty_path=address)


def confine(actor: bool = False) -> tuple[int, LayerReport]:
    """Load filter 1; returns its listener, for the warden. From here on no call that isn't listed is made.

    An `actor`'s lets by what a connection to the broker needs, too.
    """
    programs = compile_all()
    chosen = compile_for_actors() if actor else programs.confining
    program = chosen.bound(os.getpid(), programs.empty_path)
    for flags, loses in _ATTEMPTS:
        try:
            listener = libc.set_filter(flags, program)
        except OSError as error:
            if error.errno == errno.EINVAL:
                continue
            return -1, _unavailable(error)
        return listener, LayerReport(LAYER, "partial" if loses else "enforced", loses)
    return -1, LayerReport(LAYER, "unavailable", "no user notification in this kernel (Linux 5.0)")


def seal() -> LayerReport:
    """Stack filter 2: no new executable memory, no further filter, no descriptor passing. Every thread at once."""
    return _load("seal", compile_all().sealing)


def confine_compiler() -> LayerReport:
    """Load the compiler's one filter, which has no listener: it names no file."""
    return _load("compile", compile_all().compiling)


def compile_broker() -> Program:
    """Compile the broker's one filter, which nobody else needs, while its file is in reach."""
    return _compile("broker")


def confine_broker(program: Program, io_thread: int) -> LayerReport:
    """Load it, for all threads that there are: with `io_thread`, whose processors may be chosen, 0 where none may."""
    return _load("broker", program, io_thread)


def compile_unpacker() -> Program:
    """Compile the one filter of who reads an archive, while its file is in reach."""
    return _compile("unpack")


def confine_unpacker(program: Program) -> LayerReport:
    """Load it."""
    return _load("unpack", program)


def _compile(name: str) -> Program:
    try:
        return compile_filter(load(name), machine())
    except KeyError as error:
        raise ConfinementError(LAYER, "uname", 0, f"no filters for architecture {error}") from error


def _load(name: str, program: Program, io_thread: int = 0) -> LayerReport:
    layer = "sealed" if name == "seal" else LAYER
    try:
        # A positive result names a thread that couldn't be filtered with the others.
        if libc.set_filter(libc.SECCOMP_FILTER_FLAG_TSYNC, program.bound(os.getpid(), io_thread=io_thread)):
            raise ConfinementError(layer, "seccomp", 0, "a thread has another filter")
    except OSError as error:
        if layer == LAYER:
            return _unavailable(error)
        raise ConfinementError(layer, "seccomp", error.errno or 0) from error
    return LayerReport(layer, "enforced")


def _unavailable(error: OSError) -> LayerReport:
    if error.errno == errno.EBUSY:
        return LayerReport(LAYER, "unavailable", "another program listens to this process's system calls already")
    if error.errno in (errno.ENOSYS, errno.EACCES, errno.EPERM):
        return LayerReport(LAYER, "unavailable", f"seccomp: {os.strerror(error.errno)}")
    raise ConfinementError(LAYER, "seccomp", error.errno or 0) from error
