"""Turns the filter data of `worker/filters/*.json` into BPF, for this or another architecture, through libseccomp.

Only the compiling is libseccomp's (seccomp_export_bpf(3)): the program is loaded by `worker.seccomp`, because
libseccomp 2.5.4 can't set WAIT_KILLABLE_RECV. Runs once per zygote; a worker inherits the compiled programs.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import json
import os
import struct
from typing import Final

from ipc.errors import ConfinementError
from ipc.struct import Struct

SELF_PID_SENTINEL: Final = 0x7E57_AB1E
"""Stands for the worker's own pid in a compiled program, until `Program.bound` puts the real one in."""
IO_THREAD_SENTINEL: Final = 0x7E57_AB22
"""Stands for the thread in which the broker's messages come and go; no thread has so high a number."""
EMPTY_PATH_SENTINEL: Final = 0x7E57_AB20_7E57_AB1F
"""Stands for the address of the engine's empty path; no address that a process can have, so it matches no call."""

_SENTINELS: Final = {"self": SELF_PID_SENTINEL, "io thread": IO_THREAD_SENTINEL, "empty path": EMPTY_PATH_SENTINEL}

_ACTIONS: Final = {"allow": 0x7FFF_0000, "notify": 0x7FC0_0000, "kill": 0x8000_0000}
_ERRNO_ACTION: Final = 0x0005_0000
_COMPARE: Final = {"!=": 1, "<": 2, "<=": 3, "==": 4, ">=": 5, ">": 6}
_MASKED_EQUAL: Final = 7
_LOW_32_BITS: Final = 0xFFFF_FFFF
_ARCHITECTURES: Final = {"x86_64": 0xC000_003E, "aarch64": 0xC000_00B7}

# seccomp.h: enum scmp_filter_attr
_ATTR_ACT_BADARCH: Final = 2
_ATTR_CTL_NNP: Final = 3
_ATTR_CTL_OPTIMIZE: Final = 8
_ARCH_NATIVE: Final = 0


class _Comparison(ctypes.Structure):
    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("datum_a", ctypes.c_uint64),
        ("datum_b", ctypes.c_uint64),
    )


class Condition(Struct, frozen=True):
    """One comparison of one argument. With a `mask`, the masked argument is compared for equality."""

    argument: int
    operator: str
    value: int
    mask: int | None = None


class Rule(Struct, frozen=True):
    """What happens to one system call when all conditions hold; `why` is for the reader.

    `unseen` says why no program of ours is seen to need it ("another libc"); "" where some are.
    """

    call: str
    action: str
    errno: int
    conditions: tuple[Condition, ...]
    architectures: tuple[str, ...]
    why: str
    unseen: str = ""


class FilterData(Struct, frozen=True):
    """One filter as written: `default` is what happens to a call that no rule names."""

    name: str
    default: str
    default_errno: int
    rules: tuple[Rule, ...]


class Program(Struct, frozen=True):
    """A compiled filter: 8-byte BPF instructions (struct sock_filter)."""

    instructions: bytes

    def bound(self, pid: int, empty_path: int = 0, io_thread: int = 0) -> bytes:
        """Return the instructions with the process's own pid, and what else is known, in the sentinels' places."""
        words = struct.Struct("<HBBI")
        real = {SELF_PID_SENTINEL: pid}
        if io_thread:
            real[IO_THREAD_SENTINEL] = io_thread
        if empty_path:
            for shift in (0, 32):
                real[EMPTY_PATH_SENTINEL >> shift & _LOW_32_BITS] = empty_path >> shift & _LOW_32_BITS
        patched = bytearray(self.instructions)
        for offset in range(0, len(patched), words.size):
            code, jump_true, jump_false, value = words.unpack_from(patched, offset)
            if value in real:
                words.pack_into(patched, offset, code, jump_true, jump_false, real[value])
        return bytes(patched)


def _number(value: object) -> int:
    if value in _SENTINELS:
        return _SENTINELS[str(value)]
    return int(value, 0) if isinstance(value, str) else int(str(value))


def _condition(data: dict[str, object]) -> Condition:
    mask = data.get("mask")
    return Condition(
        _number(data["arg"]),
        str(data.get("op", "==")),
        _number(data["value"]),
        None if mask is None else _number(mask),
    )


@functools.cache
def load(name: str) -> FilterData:
    """Read `worker/filters/NAME.json`, what it extends in front; anything that isn't understood is an error."""
    # Not importlib.resources: it brings zipfile, tempfile and more into every worker's memory.
    with open(os.path.join(os.path.dirname(__file__), "filters", f"{name}.json"), encoding="utf-8") as source:
        data = json.load(source)
    default, default_errno = _action(data["default"])
    rules = []
    for group in data["rules"]:
        action, number = _action(group.get("action", "allow"))
        conditions = tuple(_condition(condition) for condition in group.get("when", ()))
        architectures = tuple(group.get("only", _ARCHITECTURES))
        why, unseen = str(group["why"]), str(group.get("unseen", ""))
        for call in group["calls"]:
            rules.append(Rule(call, action, number, conditions, architectures, why, unseen))
    if "extends" in data:
        return FilterData(name, default, default_errno, (*load(data["extends"]).rules, *rules))
    return FilterData(name, default, default_errno, tuple(rules))


def _action(text: str) -> tuple[str, int]:
    if text in _ACTIONS:
        return text, 0
    number = getattr(errno, text)
    return "errno", int(number)


def _action_word(action: str, number: int) -> int:
    return _ERRNO_ACTION | number if action == "errno" else _ACTIONS[action]


class _Library:
    """The few functions of libseccomp that build a program (seccomp.h)."""

    def __init__(self) -> None:
        try:
            library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
        except OSError as error:
            raise ConfinementError("seccomp", "dlopen", 0, f"libseccomp.so.2 is not installed: {error}") from error
        context = ctypes.c_void_p
        self.init = library.seccomp_init
        self.init.argtypes, self.init.restype = (ctypes.c_uint32,), context
        self.release = library.seccomp_release
        self.release.argtypes, self.release.restype = (context,), None
        self.attr_set = library.seccomp_attr_set
        self.attr_set.argtypes, self.attr_set.restype = (context, ctypes.c_int, ctypes.c_uint32), ctypes.c_int
        self.arch_native = library.seccomp_arch_native
        self.arch_native.argtypes, self.arch_native.restype = (), ctypes.c_uint32
        self.arch_add = library.seccomp_arch_add
        self.arch_add.argtypes, self.arch_add.restype = (context, ctypes.c_uint32), ctypes.c_int
        self.arch_remove = library.seccomp_arch_remove
        self.arch_remove.argtypes, self.arch_remove.restype = (context, ctypes.c_uint32), ctypes.c_int
        self.resolve = library.seccomp_syscall_resolve_name_arch
        self.resolve.argtypes, self.resolve.restype = (ctypes.c_uint32, ctypes.c_char_p), ctypes.c_int
        self.rule_add = library.seccomp_rule_add_array
        self.rule_add.argtypes = (context, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.POINTER(_Comparison))
        self.rule_add.restype = ctypes.c_int
        self.export = library.seccomp_export_bpf
        self.export.argtypes, self.export.restype = (context, ctypes.c_int), ctypes.c_int


@functools.cache
def _library() -> _Library:
    return _Library()


def _check(result: int, call: str, detail: str = "") -> None:
    # libseccomp returns negated errnos.
    if result < 0:
        raise ConfinementError("seccomp", call, -result, detail)


def resolve(call: str, architecture: str) -> int:
    """Return a call's number on an architecture; negative where it doesn't exist there."""
    return int(_library().resolve(_ARCHITECTURES[architecture], call.encode()))


def compile_filter(data: FilterData, architecture: str) -> Program:
    """Compile a filter for an architecture; calls of any other ABI (i386 and x32 included) kill the process."""
    library = _library()
    context = library.init(_action_word(data.default, data.default_errno))
    if not context:
        raise ConfinementError("seccomp", "seccomp_init", 0, "this libseccomp or kernel has no user notification")
    try:
        wanted = _ARCHITECTURES[architecture]
        if library.arch_native() != wanted:
            _check(library.arch_add(context, wanted), "seccomp_arch_add")
            _check(library.arch_remove(context, _ARCH_NATIVE), "seccomp_arch_remove")
        _check(library.attr_set(context, _ATTR_ACT_BADARCH, _ACTIONS["kill"]), "seccomp_attr_set", "bad arch")
        _check(library.attr_set(context, _ATTR_CTL_NNP, 0), "seccomp_attr_set", "nnp")
        _check(library.attr_set(context, _ATTR_CTL_OPTIMIZE, 2), "seccomp_attr_set", "binary tree")
        for rule in data.rules:
            if architecture in rule.architectures:
                _add(library, context, rule, architecture)
        return Program(_export(library, context))
    finally:
        library.release(context)


def _add(library: _Library, context: int, rule: Rule, architecture: str) -> None:
    if resolve(rule.call, architecture) < 0:
        raise ConfinementError("seccomp", "seccomp_syscall_resolve_name", 0, f"no {rule.call} on {architecture}")
    # Rules are added by the number of the machine that compiles; libseccomp translates it.
    number = int(library.resolve(library.arch_native(), rule.call.encode()))
    comparisons = (_Comparison * max(1, len(rule.conditions)))()
    for slot, condition in zip(comparisons, rule.conditions, strict=False):
        slot.argument = condition.argument
        if condition.mask is not None:
            slot.operator, slot.datum_a, slot.datum_b = _MASKED_EQUAL, condition.mask, condition.value
        elif condition.value in (SELF_PID_SENTINEL, IO_THREAD_SENTINEL):
            # pid_t has 32 bits; what is above them is not part of the argument.
            slot.operator, slot.datum_a, slot.datum_b = _MASKED_EQUAL, _LOW_32_BITS, condition.value
        else:
            slot.operator, slot.datum_a = _COMPARE[condition.operator], condition.value
    word = _action_word(rule.action, rule.errno)
    _check(library.rule_add(context, word, number, len(rule.conditions), comparisons), "seccomp_rule_add", rule.call)


def _export(library: _Library, context: int) -> bytes:
    descriptor = os.memfd_create("filter", os.MFD_CLOEXEC)
    try:
        _check(library.export(context, descriptor), "seccomp_export_bpf")
        return os.pread(descriptor, os.fstat(descriptor).st_size, 0)
    finally:
        os.close(descriptor)
