"""A tracer that answers chosen system calls as another kernel would: ptrace(2), by SECCOMP_RET_TRACE.

A seccomp filter alone can only answer with an error, and only one user notification listener fits into a chain of
filters: the worker's own. A tracer can answer anything, and the worker's filters, which come later, still decide first.
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct
from collections.abc import Callable
from typing import NamedTuple

_C = ctypes.CDLL(None, use_errno=True)
_C.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
_C.ptrace.restype = ctypes.c_long

# linux/ptrace.h
_PEEKDATA, _CONT, _POKEUSER, _DETACH, _GETREGSET, _SETREGSET = 2, 7, 6, 17, 0x4204, 0x4205
_SEIZE, _LISTEN, _GET_SYSCALL_INFO = 0x4206, 0x4208, 0x420E
_FORK, _VFORK, _CLONE, _EXEC, _SECCOMP, _STOP = 1, 2, 3, 4, 7, 128
_OPTIONS = sum(1 << event for event in (_FORK, _VFORK, _CLONE, _EXEC, _SECCOMP)) | 1 << 20  # EXITKILL
_INFO = struct.Struct("<B3xIQQQ6QI4x")
_ORIG_RAX, _RAX = 8 * 15, 8 * 10  # sys/user.h of x86_64
_NT_PRSTATUS, _NT_ARM_SYSTEM_CALL = 1, 0x404
_AARCH64_REGISTERS_BYTES = 34 * 8
_WALL = 0x4000_0000
_FAULTS = (signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGTRAP)
_MAX_FAULTS = 8


class Call(NamedTuple):
    """A system call that has stopped: `rule` is the number that the filter gave its rule."""

    tid: int
    number: int
    arguments: tuple[int, ...]
    rule: int


Answer = Callable[[Call], int | None]
"""What a call returns (an errno negated), or None to let the kernel answer."""


def _ptrace(request: int, tid: int, address: int = 0, data: int = 0) -> None:
    if _C.ptrace(request, tid, address, data) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "ptrace")


def word_at(tid: int, address: int) -> int:
    """Return eight bytes of a stopped thread's memory; 0 where there are none."""
    word: int = _C.ptrace(_PEEKDATA, tid, address, 0)
    return 0 if word == -1 else word & (1 << 64) - 1


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


def _register_set(request: int, tid: int, kind: int, data: ctypes.Array[ctypes.c_char]) -> None:
    vector = _Vector(ctypes.addressof(data), ctypes.sizeof(data))
    _ptrace(request, tid, kind, ctypes.addressof(vector))


def _stopped_call(tid: int) -> Call:
    buffer = ctypes.create_string_buffer(_INFO.size)
    _ptrace(_GET_SYSCALL_INFO, tid, _INFO.size, ctypes.addressof(buffer))  # Linux 5.3
    _, _, _, _, number, *arguments, rule = _INFO.unpack(buffer.raw)
    return Call(tid, number, tuple(arguments), rule)


def _skip(tid: int, result: int) -> None:
    """Have the stopped call not be made, and return `result`."""
    if os.uname().machine == "x86_64":
        _ptrace(_POKEUSER, tid, _ORIG_RAX, -1)
        _ptrace(_POKEUSER, tid, _RAX, result)
        return
    number = ctypes.create_string_buffer(struct.pack("<i", -1), 4)
    _register_set(_SETREGSET, tid, _NT_ARM_SYSTEM_CALL, number)
    registers = ctypes.create_string_buffer(_AARCH64_REGISTERS_BYTES)
    _register_set(_GETREGSET, tid, _NT_PRSTATUS, registers)
    struct.pack_into("<q", registers, 0, result)
    _register_set(_SETREGSET, tid, _NT_PRSTATUS, registers)


def trace(child: int, answer: Answer) -> int:
    """Trace `child`, which waits for it, and all that descends from it, to their ends; returns its wait status."""
    _ptrace(_SEIZE, child, 0, _OPTIONS)
    os.kill(child, signal.SIGCONT)
    ended = 0
    faults: dict[int, int] = {}
    while True:
        try:
            tid, status = os.waitpid(-1, _WALL)
        except ChildProcessError:
            return ended
        if os.WIFSTOPPED(status):
            fault = not status >> 16 and os.WSTOPSIG(status) in _FAULTS
            faults[tid] = faults.get(tid, 0) + 1 if fault else 0
            try:
                _resume(tid, status, answer, faults[tid])
            except ProcessLookupError:
                continue  # killed meanwhile
        elif tid == child:
            ended = status


def _resume(tid: int, status: int, answer: Answer, faults: int) -> None:
    event, number = status >> 16, os.WSTOPSIG(status)
    if event == _STOP and number in (signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU):
        _ptrace(_LISTEN, tid)
        return
    if faults > _MAX_FAULTS:
        # The first process of a namespace isn't killed by its own fault while it is traced: it would fault for ever.
        _ptrace(_DETACH, tid, 0, number)
        return
    if event == _SECCOMP:
        call = _stopped_call(tid)
        result = answer(call)
        if result is not None:
            _skip(tid, result)
    _ptrace(_CONT, tid, 0, 0 if event else number)


def run_traced(become: Callable[[], object], answer: Answer) -> int:
    """Fork a process that calls `become` to execute a program, traced; returns its exit code as a shell does."""
    child = os.fork()
    if child == 0:
        try:
            os.kill(os.getpid(), signal.SIGSTOP)
            become()
        finally:
            os._exit(127)
    os.waitpid(child, os.WUNTRACED)
    code = os.waitstatus_to_exitcode(trace(child, answer))
    return 128 - code if code < 0 else code
