"""Going through the motions of a start once, with a program of our own, while a worker waits for its job.

A forked process touches most of the engine's code, the interpreter's objects and the heap for the first time when it
loads its program, and each page is a fault: they were half of what loading took. A worker that waits has the time, and
one that is wanted at once loses none: what it does here it needn't do later.
"""

from __future__ import annotations

import contextlib
import os
from typing import Final

import wasmtime

from ipc.messages import EngineSettings, WorkerJob, WorkerLimits
from worker.engine import MODULE, Program, Runner

_PROGRAM: Final = """
(module
  (import "wasi_snapshot_preview1" "proc_exit" (func (param i32)))
  (memory (export "memory") 1)
  (func (export "_start")))
"""
_JOB: Final = WorkerJob(
    "rehearsal", MODULE, ("rehearsal",), (("name", "value"),), (), WorkerLimits(memory_bytes=1 << 16, output_bytes=0)
)


class Rehearsal:
    """The program of one runner, compiled in the zygote; `perform` is for the workers that are forked from it."""

    def __init__(self, runner: Runner, settings: EngineSettings) -> None:
        """Have it compiled once this process has forked another: no first start waits for the compiler."""
        self._runner = runner
        self._settings = settings
        self._artifact = b""
        self._zygote = os.getpid()
        os.register_at_fork(after_in_parent=self._prepare)

    def _prepare(self) -> None:
        if not self.is_ready and os.getpid() == self._zygote:
            # Without it workers start as well, a little later.
            with contextlib.suppress(wasmtime.WasmtimeError):
                self._artifact = bytes(wasmtime.Module(self._runner.engine, _PROGRAM).serialize())

    @property
    def is_ready(self) -> bool:
        """Whether the program has been compiled, here or where this process was forked."""
        return bool(self._artifact)

    def perform(self) -> None:
        """Load, link and run the program, and leave nothing of it behind but pages that are there."""
        if not self.is_ready:
            return
        program = Program.load(self._runner, self._settings, _JOB, self._artifact)
        program.set_wasi(_JOB)
        program.run()
        program.close()
        self._runner.memories.forget()
