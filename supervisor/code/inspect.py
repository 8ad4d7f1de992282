"""What a wasm file is and wants from its host, found out by a confined compiler process, never by this one."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import ipc
from ipc.errors import AirssysError
from ipc.messages import ConfinementPlan, EngineSettings
from ipc.struct import Struct, replace
from supervisor.code.artifacts import ArtifactCache, CacheUnavailableError, cache_key, wasmtime_version
from supervisor.code.compilation import CompileLimits, Program, obtain
from supervisor.config.settings import REQUIRED_LAYERS
from supervisor.config.settings_files import default_directories
from supervisor.host.identity import worker_uid
from supervisor.host.zygote import Zygote
from supervisor.terminal import visible

PATIENCE_S = 2.0
LIFECYCLE = "airssys:core/component-lifecycle@"
"""What the host of an actor calls, and nobody else has to."""


class WasmSummary(Struct, frozen=True):
    """What the compiler reported; `error` says why there is nothing else."""

    kind: str
    imports: tuple[str, ...]
    exports: tuple[str, ...]
    error: str = ""
    sha256: str = ""
    size_bytes: int = 0
    functions: tuple[tuple[str, str], ...] = ()
    """(name, signature in words) of what `airssys call` can call."""

    @property
    def is_actor(self) -> bool:
        """Whether it lives on and takes messages, under `airssys up`."""
        return any(name.startswith(LIFECYCLE) for name in self.exports)


class _How(Struct, frozen=True):
    """With what it is compiled, and who is told that it takes its time."""

    engine: EngineSettings
    limits: CompileLimits
    on_progress: Callable[[float], None]
    interrupted: Callable[[], bool]


def inspect_wasm(
    path: str,
    state: str,
    engine: EngineSettings | None = None,
    limits: CompileLimits | None = None,
    on_progress: Callable[[float], None] | None = None,
    interrupted: Callable[[], bool] = lambda: False,
) -> WasmSummary:
    """Return the kind, imports and exports of a wasm file; compiled code is kept in `state` for the run to come.

    `engine` is what it will be run with; `on_progress` is called while it is compiled, with the seconds so far. Raises
    KeyboardInterrupt once it is `interrupted`.
    """
    how = _How(engine or EngineSettings(), limits or CompileLimits(), on_progress or _Patience(path), interrupted)
    try:
        program = Program.open(path)
    except AirssysError as error:
        return WasmSummary("", (), (), str(error))
    sha256, size_bytes = program.sha256, os.fstat(program.descriptor).st_size
    try:
        summary = _known(program, state, how.engine) or _inspect(program, state, how)
    except CacheUnavailableError:  # a state directory that can't be written: what is found out isn't kept
        import tempfile

        with tempfile.TemporaryDirectory(prefix="airssys-") as scratch:
            summary = _inspect(program, scratch, how)
    finally:
        program.close()
    return replace(summary, sha256=sha256, size_bytes=size_bytes)


def _known(program: Program, state: str, engine: EngineSettings) -> WasmSummary | None:
    """What a compiler said of these bytes before; to know it takes no process."""
    version = wasmtime_version()
    try:
        cache = ArtifactCache(os.path.join(state, "cache"))
    except CacheUnavailableError:
        raise
    except AirssysError:
        return None  # `_inspect` tells
    record = cache.describe(cache_key(program.sha256, version, engine))
    if record is None or (record.wasm_sha256, record.wasmtime_version) != (program.sha256, version):
        return None
    return WasmSummary(record.wasm_kind, record.imports, record.exports, functions=record.functions)


def _inspect(program: Program, state: str, how: _How) -> WasmSummary:
    zygote = Zygote()
    try:
        zygote.start()
        if os.getuid() == 0:
            run = default_directories(os.environ, 0).run  # one for the whole machine, or a run could get the same uid
            os.makedirs(run, mode=0o711, exist_ok=True)
            with worker_uid(run) as uid:
                return _summary(program, state, how, zygote, uid)
        return _summary(program, state, how, zygote, None)
    except AirssysError as error:
        return WasmSummary("", (), (), str(error))
    finally:
        zygote.close()


def _summary(program: Program, state: str, how: _How, zygote: Zygote, uid: int | None) -> WasmSummary:
    plan = ConfinementPlan(REQUIRED_LAYERS, (), uid, uid, uid is not None or zygote.user_namespace is not None)
    origin = os.path.dirname(os.path.dirname(os.path.abspath(str(ipc.__file__))))
    cache = ArtifactCache(os.path.join(state, "cache"))
    artifact = obtain(
        program,
        how.engine,
        cache,
        zygote,
        plan,
        origin,
        how.limits,
        on_progress=how.on_progress,
        interrupted=how.interrupted,
    )
    os.close(artifact.descriptor)
    record = artifact.record
    return WasmSummary(record.wasm_kind, record.imports, record.exports, functions=record.functions)


class _Patience:
    """Says once, when compiling takes its time, what is being waited for."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._said = False

    def __call__(self, elapsed_s: float) -> None:
        if elapsed_s > PATIENCE_S and not self._said:
            self._said = True
            name = visible(os.path.basename(self._path))
            sys.stderr.write(f"airssys: compiling {name}, in a confined process\n")
            sys.stderr.flush()
