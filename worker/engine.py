"""The WebAssembly engine: one configuration for compiler and runner, loading, imports, WASI, and how a guest ended.

wasmtime's own WASI runs unmodified; what it asks of the kernel is decided elsewhere (DESIGN: the warden). `wasi:http` is not offered.
"""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass, field

import wasmtime
import wasmtime.component
from wasmtime import _ffi as ffi

from ipc.messages import EngineSettings, Finished, WorkerJob, WorkerLimits

MODULE = "module"
COMPONENT = "component"
_NEVER = 1 << 62
_MAX_MESSAGE_CHARACTERS = 4_000
_MAX_BACKTRACE_LINES = 24
_LIMIT_OF_TRAP = {wasmtime.TrapCode.INTERRUPT: "timeout", wasmtime.TrapCode.OUT_OF_FUEL: "fuel"}
_LIMIT_OF_ERROR = (
    ("memory minimum size", "memory"),
    ("exceeds memory limits", "memory"),
    ("memory count too high", "memories"),
    ("table minimum size", "tables"),
    ("exceeds table limits", "tables"),
    ("table count too high", "tables"),
    ("instance count too high", "instances"),
    ("Cannot allocate memory", "memory"),
)
"""What wasmtime's limiter says when instantiation meets a bound (crates/wasmtime/src/runtime/limits.rs) → the bound."""

WASI_P2_VERSIONS = "0.2."
WASI_P2_INTERFACES = frozenset(
    f"wasi:{name}"
    for name in [
        "cli/environment",
        "cli/exit",
        "cli/stdin",
        "cli/stdout",
        "cli/stderr",
        "cli/terminal-input",
        "cli/terminal-output",
        "cli/terminal-stdin",
        "cli/terminal-stdout",
        "cli/terminal-stderr",
        "clocks/monotonic-clock",
        "clocks/wall-clock",
        "filesystem/types",
        "filesystem/preopens",
        "io/error",
        "io/poll",
        "io/streams",
        "random/random",
        "random/insecure",
        "random/insecure-seed",
        "sockets/tcp",
        "sockets/tcp-create-socket",
        "sockets/udp",
        "sockets/udp-create-socket",
        "sockets/network",
        "sockets/instance-network",
        "sockets/ip-name-lookup",
    ]
)
"""What `Linker.add_wasip2` provides, in every version 0.2.x: the C API can't be asked for a component linker's contents."""


class ProgramError(Exception):
    """The program can't be run here: what it needs isn't there. Nothing of it has run."""


def new_engine(settings: EngineSettings, parallel_compilation: bool = False) -> wasmtime.Engine:
    """Make an engine; artifacts load only where the settings are those they were compiled with."""
    config = wasmtime.Config()
    config.epoch_interruption = settings.epoch
    config.consume_fuel = settings.fuel
    config.parallel_compilation = parallel_compilation
    return wasmtime.Engine(config)


@dataclass(slots=True)
class Runner:
    """An engine with WASI linked for one kind of program; made in the zygote, used by the workers forked from it."""

    engine: wasmtime.Engine
    modules: wasmtime.Linker
    components: wasmtime.component.Linker

    @classmethod
    def new(cls, settings: EngineSettings) -> Runner:
        """Make the engine and link WASI preview 1 and 2."""
        engine = new_engine(settings)
        modules = wasmtime.Linker(engine)
        modules.define_wasi()
        components = wasmtime.component.Linker(engine)
        components.add_wasip2()
        return cls(engine, modules, components)


@dataclass(slots=True)
class Program:
    """Loaded code with its store: everything that can be done before the guest's first instruction."""

    runner: Runner
    limits: WorkerLimits
    store: wasmtime.Store
    module: wasmtime.Module | None = None
    component: wasmtime.component.Component | None = None
    run_export: str = ""
    timed_out: bool = field(default=False)

    @classmethod
    def load(cls, runner: Runner, job: WorkerJob, artifact: str | bytes) -> Program:
        """Load the artifact, by path or from memory; raises ProgramError for imports that nothing provides."""
        program = cls(runner, job.limits, wasmtime.Store(runner.engine))
        program.store.set_limits(
            memory_size=job.limits.memory_bytes,
            table_elements=job.limits.table_elements,
            instances=job.limits.instances,
            tables=job.limits.tables,
            memories=job.limits.memories,
        )
        if job.engine.epoch:
            program.store.set_epoch_deadline(1 if job.limits.timeout_ns is not None else _NEVER)
        if job.engine.fuel:
            program.store.set_fuel(job.limits.fuel if job.limits.fuel is not None else _NEVER)
        if job.wasm_kind == COMPONENT:
            kind = wasmtime.component.Component
            program.component = (
                kind.deserialize_file(runner.engine, artifact)
                if isinstance(artifact, str)
                else kind.deserialize(runner.engine, artifact)
            )
            program._check_component(program.component)
        else:
            program.module = (
                wasmtime.Module.deserialize_file(runner.engine, artifact)
                if isinstance(artifact, str)
                else wasmtime.Module.deserialize(runner.engine, artifact)
            )
            program._check_module(program.module)
        return program

    def _check_module(self, module: wasmtime.Module) -> None:
        missing = []
        for needed in module.imports:
            try:
                self.runner.modules.get(self.store, needed.module, needed.name or "")
            except Exception:  # the binding raises its own error or a KeyError, by version
                missing.append(f"{needed.module}.{needed.name}")
        _refuse_missing(missing)
        if not any(export.name == "_start" for export in module.exports):
            raise ProgramError("it has no `_start`: a library, not a command")

    def _check_component(self, component: wasmtime.component.Component) -> None:
        kind = component.type
        _refuse_missing([name for name in kind.imports(self.runner.engine) if not provided(name)])
        for name in kind.exports(self.runner.engine):
            if name.startswith("wasi:cli/run@" + WASI_P2_VERSIONS):
                self.run_export = name
                return
        raise ProgramError("it has no `wasi:cli/run` of a version 0.2: not a command")

    def set_wasi(self, job: WorkerJob, native: bool = False) -> None:
        """Give the guest its arguments, environment, streams and preopened roots; each root is opened now.

        With `native` (no warden: only when the seccomp layer is off, in tests) a root that can't be opened is left out.
        """
        config = wasmtime.WasiConfig()
        config.argv = list(job.arguments)
        config.env = [list(pair) for pair in job.environment]
        config.inherit_stdin()
        config.inherit_stdout()
        config.inherit_stderr()
        for guest, host in job.mounts:
            # The binding's own preopen_dir encodes strictly as UTF-8; a host path is bytes.
            opened = ffi.wasi_config_preopen_dir(
                config.ptr(), ctypes.c_char_p(os.fsencode(host)), ctypes.c_char_p(guest.encode()), True
            )
            if not opened and not native:
                raise ProgramError(f"the root {host!r} (mounted as {guest!r}) can't be opened")
        self.store.set_wasi(config)

    def run(self) -> Finished:
        """Instantiate and run the guest to its end; whatever it does becomes a value."""
        try:
            exit_code = self._run_component() if self.component is not None else self._run_module()
        except wasmtime.ExitTrap as ended:
            return self._finished("exited", ended.code & 0xFF)
        except wasmtime.Trap as trap:
            return self._trapped(trap)
        except (wasmtime.WasmtimeError, RuntimeError) as error:
            return self._failed(error)
        return self._finished("exited", exit_code)

    def _run_module(self) -> int:
        assert self.module is not None
        instance = self.runner.modules.instantiate(self.store, self.module)
        start = instance.exports(self.store)["_start"]
        assert isinstance(start, wasmtime.Func)
        start(self.store)
        return 0

    def _run_component(self) -> int:
        assert self.component is not None
        instance = self.runner.components.instantiate(self.store, self.component)
        interface = instance.get_export_index(self.store, self.run_export)
        assert interface is not None
        index = instance.get_export_index(self.store, "run", interface)
        assert index is not None
        run = instance.get_func(self.store, index)
        assert run is not None
        result = run(self.store)
        # result<_, _>: the binding gives None for ok and a value that says so for err.
        return 0 if _is_ok(result) else 1

    def _trapped(self, trap: wasmtime.Trap) -> Finished:
        limit = _LIMIT_OF_TRAP.get(trap.trap_code) if trap.trap_code is not None else None
        if limit is not None:
            return self._finished("limit", 75, _trim(str(trap)), limit)
        return self._finished("trapped", 134, _trim(str(trap)))

    def _failed(self, error: Exception) -> Finished:
        text = str(error)
        for words, limit in (("interrupt", "timeout"), ("all fuel consumed", "fuel")):
            if f"wasm trap: {words}" in text:
                return self._finished("limit", 75, _trim(text), limit)
        if "wasm trap:" in text or "wasm backtrace:" in text:
            return self._finished("trapped", 134, _trim(text))
        for words, limit in _LIMIT_OF_ERROR:
            if words in text:
                return self._finished("limit", 75, _trim(text), limit)
        return self._finished("host_error", 70, _trim(text))

    def _finished(self, outcome: str, exit_code: int, message: str = "", limit: str = "") -> Finished:
        fuel_used = 0
        if self.limits.fuel is not None:
            fuel_used = self.limits.fuel - self.store.get_fuel()
        usage = {"fuel": fuel_used, "timeout": self.limits.timeout_ns or 0}.get(limit, 0)
        return Finished(outcome, exit_code, message, limit, usage, 0, fuel_used)


def provided(name: str) -> bool:
    """Return whether an import of a component is one that WASI preview 2 satisfies."""
    interface, _, version = name.partition("@")
    return interface in WASI_P2_INTERFACES and version.startswith(WASI_P2_VERSIONS)


def _refuse_missing(missing: list[str]) -> None:
    if missing:
        raise ProgramError("it imports what nothing here provides: " + ", ".join(sorted(missing)))


def _is_ok(result: object) -> bool:
    if result is None:
        return True
    tag = getattr(result, "tag", None)
    return tag == "ok"


def _trim(text: str) -> str:
    lines = text.splitlines()
    if len(lines) > _MAX_BACKTRACE_LINES:
        left_out = len(lines) - _MAX_BACKTRACE_LINES
        lines = [*lines[:_MAX_BACKTRACE_LINES], f"    … {left_out} more lines"]
    return "\n".join(lines)[:_MAX_MESSAGE_CHARACTERS]
