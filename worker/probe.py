"""Raw system calls from inside a sealed worker, as native code would make them that has escaped from WebAssembly.

This exists to prove confinement: everything is as for a guest (the artifact is loaded, both filters are on, the
supervisor has verified and said go), but in the place of the guest's first instruction a list of calls is made. It has
no power of its own: what it may do is what any code in a sealed worker may do.

A program is lines of tab-separated fields, `LABEL CALL ARGUMENT...`:

- CALL: a system call's number; `fork:N` for one that may return in a new process or thread (which ends there and then),
  `stay:N` for one whose new thread waits for ever; `i386:N` for the 32-bit table by `int 0x80` (x86_64 only);
  `beside:N` for one that another thread makes while the next step is under way;
- ARGUMENT: an integer, `s:TEXT` a C string, `x:HEX` bytes, `b:N` N zero bytes, `m:NAME:N` N zero bytes that later steps
  find under that name, `v:NAME` a `struct iovec` of them, `r:LABEL` the result of an earlier step, `e:path` the address
  of the engine's empty path (`worker.empty_path`), `e:word` the four bytes around it, `e:page` and `e:next` its page
  and the one behind, `e:text` the
  address of executable code, `e:callbacks` the end of what `worker.writable_code` has noted, less 16 bytes.

For each step `LABEL RESULT ERRNO` is printed before the next is made.
"""

from __future__ import annotations

import _thread
import os
from collections.abc import Sequence

from ipc.messages import Finished
from ipc.struct import Struct, field
from worker import raw_calls, seccomp, writable_code

_MAX_ARGUMENTS = 6
_PAGE_BYTES = 4096
I386 = "i386:"
FORK = "fork:"
STAY = "stay:"
BESIDE = "beside:"


class ProbeError(Exception):
    """The program of a probe is malformed."""


class Step(Struct, frozen=True):
    """One call; `arguments` are numbers, or the labels of the steps whose results they are."""

    label: str
    kind: str
    number: int
    arguments: tuple[int | str, ...]


class Probe(Struct):
    """A parsed program: everything it needs exists before the seal, so that nothing is imported or mapped after it."""

    steps: tuple[Step, ...]
    gadgets: raw_calls.Gadgets | None
    _buffers: dict[str, raw_calls.Buffer] = field(default_factory=dict)
    _unnamed: list[raw_calls.Buffer] = field(default_factory=list)
    _beside: list[_thread.LockType] = field(default_factory=list)
    """Of threads that wait for the next step."""

    @classmethod
    def parse(cls, text: str) -> Probe:
        """Parse a program and make its buffers; raises ProbeError."""
        probe = cls((), None)
        steps = []
        for line in filter(None, text.split("\n")):
            label, call, *arguments = line.split("\t")
            kind, colon, number = call.rpartition(":")
            if kind + colon not in ("", FORK, STAY, I386, BESIDE) or len(arguments) > _MAX_ARGUMENTS:
                raise ProbeError(f"step {line!r}")
            parsed = tuple(probe._argument(argument) for argument in arguments)
            steps.append(Step(label, kind + colon, int(number, 0), parsed))
        probe.steps = tuple(steps)
        if any(step.kind not in ("", BESIDE) for step in steps):
            # Machine code, made while that is still allowed: stands for what an attacker finds in the engine's own.
            probe.gadgets = raw_calls.Gadgets()
        return probe

    def _argument(self, text: str) -> int | str:
        kind, colon, value = text.partition(":")
        if not colon:
            return int(kind, 0)
        match kind:
            case "e" if value == "text":
                return raw_calls.code_address()
            case "e" if value == "callbacks":
                return max((start + length for start, length in writable_code.noted()), default=0) - 16
            case "e":
                address = seccomp.compile_all().empty_path
                page = address & ~(_PAGE_BYTES - 1)
                return {"word": address & ~3, "path": address, "page": page, "next": page + _PAGE_BYTES}[value]
            case "s":
                return self._keep(raw_calls.Buffer(os.fsencode(value) + b"\0"))
            case "x":
                return self._keep(raw_calls.Buffer(bytes.fromhex(value)))
            case "b":
                return self._keep(raw_calls.Buffer(bytes(int(value))))
            case "m":
                name, _, length = value.partition(":")
                if name not in self._buffers:
                    self._buffers[name] = raw_calls.Buffer(bytes(int(length)))
                return self._buffers[name].address
            case "v":
                buffer = self._buffers[value]
                vector = buffer.address.to_bytes(8, "little") + buffer.length.to_bytes(8, "little")
                return self._keep(raw_calls.Buffer(vector))
            case "r":
                return value
        raise ProbeError(f"argument {text!r}")

    def _keep(self, buffer: raw_calls.Buffer) -> int:
        self._unnamed.append(buffer)
        return buffer.address

    def run(self) -> Finished:
        """Make every call and print what came of it; returns the end of a guest that exited with 0."""
        results: dict[str, int] = {}
        for step in self.steps:
            arguments = [results[a] if isinstance(a, str) else a for a in step.arguments]
            result, errno = self._call(step, arguments)
            results[step.label] = result
            os.write(1, f"{step.label} {result} {errno}\n".encode())
        return Finished("exited", 0)

    def _call(self, step: Step, arguments: Sequence[int]) -> tuple[int, int]:
        if step.kind == BESIDE:
            self._call_beside(step.number, arguments)
            return 0, 0
        while self._beside:
            # They run once this thread lets the interpreter go: in its call.
            self._beside.pop().release()
        if not step.kind:
            return raw_calls.raw_call(step.number, arguments)
        assert self.gadgets is not None
        if step.kind == I386:
            return self.gadgets.call_i386(step.number, arguments)
        if step.kind == STAY:
            return self.gadgets.call_and_keep_child(step.number, arguments)
        return self.gadgets.call_and_end_child(step.number, arguments)

    def _call_beside(self, number: int, arguments: Sequence[int]) -> None:
        starts = _thread.allocate_lock()
        starts.acquire()

        def call() -> None:
            starts.acquire()
            raw_calls.raw_call(number, arguments)

        _thread.start_new_thread(call, ())
        self._beside.append(starts)
