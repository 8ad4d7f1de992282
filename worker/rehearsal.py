"""Going through the motions of a start once, with a program of our own, while a worker waits for its job.

A forked process touches most of the engine's code, the interpreter's objects and the heap for the first time when it
loads its program, and each page is a fault: they were half of what loading took. A worker that waits has the time, and
one that is wanted at once loses none: what it does here it needn't do later.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from typing import Final

from ipc.messages import EngineSettings, WorkerJob, WorkerLimits
from worker import engine_api as api
from worker import resident
from worker.engine import MODULE, Program, Runner

PROGRAM: Final = bytes.fromhex(
    "0061736d01000000 010802 60017f00 600000"
    "022401 16 776173695f736e617073686f745f7072657669657731 09 70726f635f65786974 0000"
    "03020101 0503010001 071302 06 6d656d6f7279 0200 06 5f7374617274 0001 0a040102000b"
)
"""A `_start` that returns, a memory of one page, and an import of WASI's `proc_exit`, which links the engine's own."""
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
            with contextlib.suppress(api.EngineError):
                serialized = api.Bytes()
                module = api.made(api.module_new, self._runner.engine, PROGRAM, len(PROGRAM))
                api.check(api.module_serialize(module, ctypes.byref(serialized)))
                self._artifact = api.take_bytes(serialized)
                api.module_delete(module)
            # The compiler's code: nobody here needs it again.
            resident.let_go()

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
