"""What the zygote holds ready, once for all workers: everything imported, filters compiled, an engine made.

Imported by multiprocess's forkserver. After filter 1 a worker can't open a file, so whatever it will ever import or
compile must be here.
"""

from __future__ import annotations

import array  # noqa: F401 # socket.send_fds imports it at its first call
import gc
import select  # noqa: F401
import signal
import sys

from ipc import codec, launch, messages  # noqa: F401 # the keeper is named by an `ipc.launch.ByName`
from worker import compiler, empty_path, keeper, main, resident, seccomp, writable_code  # noqa: F401
from worker.filter_compiler import Program

_EXAMPLES: tuple[object, ...] = (
    messages.Load(),
    messages.Go(),
    messages.Confined((messages.LayerReport("layer", "enforced"),)),
    messages.Sealed((messages.LayerReport("layer", "enforced"),)),
    messages.Finished("exited", 0),
    messages.StartFailed("stage", "layer", "call", 0, "message"),
    messages.Spawned(1),
    messages.Ended(0, 0, 0, 0),
    messages.Compiled("module", 0, (), ()),
    messages.CompileFailed("message"),
    messages.WorkerPlan(
        "run", messages.EngineSettings(), messages.ConfinementPlan(()), "/", messages.WorkerLimits(1, 1)
    ),
    messages.WorkerJob(
        "example",
        "module",
        ("argument",),
        (("name", "value"),),
        (("guest", "host"),),
        messages.WorkerLimits(1, 1),
    ),
)


def _warm_up() -> None:
    """Touch once what is built lazily: type hints of the messages, filter programs, the usual engine."""
    settings = messages.EngineSettings()
    programs = seccomp.compile_all()
    assert isinstance(programs.confining, Program)
    runner = main.runner_for(settings)
    main.rehearse_with(settings)
    seccomp.note_empty_path(empty_path.seal(runner.engine))
    # multiprocess ignores SIGINT in the zygote; what is forked from it must not see the terminal's either.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Each attribute that is looked up for the first time takes another's place in the interpreter's cache, and counts
    # both names: with an empty cache it is one page that is written to.
    sys._clear_type_cache()
    for example in _EXAMPLES:
        codec.unpack_tagged((type(example),), codec.pack_tagged(example))
    writable_code.note()
    resident.note_libraries()
    resident.let_go()
    # What is here lives for ever: moved out of the collector's sight, its pages stay shared (gc.freeze).
    gc.freeze()
    gc.enable()


_warm_up()
