"""The WebAssembly engine: one configuration for compiler and runner, loading, imports, WASI, and how a guest ended.

wasmtime's own WASI runs unmodified; what it asks of the kernel is decided by the warden. `wasi:http` is not offered.
"""

from __future__ import annotations

import ctypes
import os
import re

import wasmtime
import wasmtime.component
from wasmtime import _ffi as ffi

from ipc.messages import EngineSettings, Finished, WorkerJob, WorkerLimits
from ipc.struct import Struct
from worker.memories import LinearMemories

MODULE = "module"
COMPONENT = "component"
_NEVER = 1 << 62
_MAX_MESSAGE_CHARACTERS = 4_000
_MAX_LINES = 16
_MAX_NAME_CHARACTERS = 200
_MAX_NAMES_CHARACTERS = 12_000
_LIMIT_OF_TRAP = {wasmtime.TrapCode.INTERRUPT: "timeout", wasmtime.TrapCode.OUT_OF_FUEL: "fuel"}
_LIMIT_OF_WORDS = (
    ("wasm trap: interrupt", "timeout"),
    ("all fuel consumed", "fuel"),
    ("memory count too high", "memories"),
    ("table minimum size", "tables"),
    ("exceeds table limits", "tables"),
    ("table count too high", "tables"),
    ("instance count too high", "instances"),
)
"""What wasmtime says when a bound is met (crates/wasmtime/src/runtime/limits.rs) → the bound."""

WASI_P2_VERSIONS = "0.2."
_WASI_P2_PACKAGES = {
    "cli": (
        "environment exit stdin stdout stderr "
        "terminal-input terminal-output terminal-stdin terminal-stdout terminal-stderr"
    ),
    "clocks": "monotonic-clock wall-clock",
    "filesystem": "types preopens",
    "io": "error poll streams",
    "random": "random insecure insecure-seed",
    "sockets": "tcp tcp-create-socket udp udp-create-socket network instance-network ip-name-lookup",
}
WASI_P2_INTERFACES = frozenset(
    f"wasi:{package}/{interface}" for package, names in _WASI_P2_PACKAGES.items() for interface in names.split()
)
"""What `Linker.add_wasip2` provides, in every version 0.2.x: a component linker can't be asked what it holds."""


class ProgramError(Exception):
    """The program can't be run here: what it needs isn't there. Nothing of it has run."""


def new_engine(settings: EngineSettings, memories: LinearMemories | None) -> wasmtime.Engine:
    """Make an engine; artifacts load only where the settings are those they were compiled with.

    A runner keeps its guest's memories in `memories`; the compiler has none, and compiles in parallel.
    """
    config = wasmtime.Config()
    config.epoch_interruption = settings.epoch
    config.consume_fuel = settings.fuel
    config.parallel_compilation = memories is None
    # Copy-on-write images exist only for memories of the engine's own (ADR: one sum over all memories).
    ffi.wasmtime_config_memory_init_cow_set(config.ptr(), False)
    if memories is not None:
        memories.install(config)
    return wasmtime.Engine(config)


class Runner(Struct):
    """An engine with WASI linked for one kind of program; made in the zygote, used by the workers forked from it."""

    engine: wasmtime.Engine
    memories: LinearMemories
    modules: wasmtime.Linker
    components: wasmtime.component.Linker

    @classmethod
    def new(cls, settings: EngineSettings) -> Runner:
        """Make the engine and link WASI preview 1 and 2."""
        memories = LinearMemories()
        engine = new_engine(settings, memories)
        modules = wasmtime.Linker(engine)
        modules.define_wasi()
        components = wasmtime.component.Linker(engine)
        components.add_wasip2()
        return cls(engine, memories, modules, components)


class Program(Struct):
    """Loaded code with its store: everything that can be done before the guest's first instruction."""

    runner: Runner
    limits: WorkerLimits
    store: wasmtime.Store
    linked: wasmtime.InstancePre | None = None
    component: wasmtime.component.Component | None = None
    run_export: str = ""
    timed_out: bool = False

    @classmethod
    def load(cls, runner: Runner, settings: EngineSettings, job: WorkerJob, artifact: str | bytes) -> Program:
        """Load the artifact, by path or from memory; raises ProgramError for imports that nothing provides."""
        program = cls(runner, job.limits, wasmtime.Store(runner.engine))
        runner.memories.limit_bytes = job.limits.memory_bytes
        # No memory_size: that would be a limit per memory, and `memories` keeps the sum.
        program.store.set_limits(
            table_elements=job.limits.table_elements,
            instances=job.limits.instances,
            tables=job.limits.tables,
            memories=job.limits.memories,
        )
        if settings.epoch:
            program.store.set_epoch_deadline(1 if job.limits.timeout_ns is not None else _NEVER)
        if settings.fuel:
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
            module = (
                wasmtime.Module.deserialize_file(runner.engine, artifact)
                if isinstance(artifact, str)
                else wasmtime.Module.deserialize(runner.engine, artifact)
            )
            program.linked = program._link(module)
        return program

    def _link(self, module: wasmtime.Module) -> wasmtime.InstancePre:
        try:
            linked = self.runner.modules.instantiate_pre(module)
        except wasmtime.WasmtimeError as error:
            # It names the first import only. All are looked up one by one just here: each costs a worker pages.
            _refuse_missing([f"{needed.module}.{needed.name}" for needed in module.imports if not self._has(needed)])
            raise ProgramError(_trim(str(error))) from error
        if not any(export.name == "_start" for export in module.exports):
            raise ProgramError("it has no `_start`: a library, not a command")
        return linked

    def _has(self, needed: wasmtime.ImportType) -> bool:
        try:
            self.runner.modules.get(self.store, needed.module, needed.name or "")
        except Exception:  # the binding raises its own error or a KeyError, by version
            return False
        return True

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
                raise ProgramError(
                    f"the root {host!r} (mounted as {guest!r}) can't be opened\n"
                    "a directory that is granted or shown must be there: make it first, or leave it out"
                )
        self.store.set_wasi(config)

    def close(self) -> None:
        """Give back the store and what is in it: instances and their memories."""
        self.store.close()

    def run(self) -> Finished:
        """Instantiate and run the guest to its end; whatever it does becomes a value."""
        try:
            exit_code = self._run_component() if self.component is not None else self._run_module()
        except wasmtime.ExitTrap as ended:
            return self._exited(ended.code & 0xFF)
        except wasmtime.Trap as trap:
            return self._trapped(trap)
        except (wasmtime.WasmtimeError, RuntimeError) as error:
            return self._failed(error)
        return self._exited(exit_code)

    def _run_module(self) -> int:
        assert self.linked is not None
        instance = self.linked.instantiate(self.store)
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

    def _exited(self, exit_code: int) -> Finished:
        if exit_code and self.runner.memories.last_refused:
            message = f"it exited with {exit_code} after its last request for memory was refused"
            return self._finished("limit", 75, message, "memory")
        return self._finished("exited", exit_code)

    def _trapped(self, trap: wasmtime.Trap) -> Finished:
        limit = _LIMIT_OF_TRAP.get(trap.trap_code) if trap.trap_code is not None else None
        return self._ended_early(_trim(str(trap)), limit)

    def _failed(self, error: Exception) -> Finished:
        text = str(error)
        for words, limit in _LIMIT_OF_WORDS:
            if words in text:
                return self._ended_early(_trim(text), limit)
        if "wasm trap:" in text or "wasm backtrace:" in text or self.runner.memories.last_refused:
            return self._ended_early(_trim(text), None)
        return self._finished("host_error", 70, _trim(text))

    def _ended_early(self, message: str, limit: str | None) -> Finished:
        if limit is None and self.runner.memories.last_refused:
            # An allocator whose request was refused usually aborts, and that is a trap.
            limit = "memory"
        if limit is not None:
            return self._finished("limit", 75, message, limit)
        return self._finished("trapped", 134, message)

    def _finished(self, outcome: str, exit_code: int, message: str = "", limit: str = "") -> Finished:
        memories = self.runner.memories
        fuel_used = 0 if self.limits.fuel is None else self.limits.fuel - self.store.get_fuel()
        usage = {
            "fuel": fuel_used,
            "timeout": self.limits.timeout_ns or 0,
            "memory": memories.used_bytes + memories.refused_bytes,
        }.get(limit, 0)
        return Finished(
            outcome, exit_code, message, limit, usage, memories.peak_bytes, fuel_used, memories.refused_bytes
        )


def provided(name: str) -> bool:
    """Return whether an import of a component is one that WASI preview 2 satisfies."""
    interface, _, version = name.partition("@")
    return interface in WASI_P2_INTERFACES and version.startswith(WASI_P2_VERSIONS)


def _refuse_missing(missing: list[str]) -> None:
    if missing:
        # All of them, up to what a packet holds: the names are the program's to choose.
        names = ", ".join(name[:_MAX_NAME_CHARACTERS] for name in sorted(missing))
        if len(names) > _MAX_NAMES_CHARACTERS:
            names = f"{names[:_MAX_NAMES_CHARACTERS]}… ({len(missing)} in all)"
        raise ProgramError(f"it imports what nothing here provides: {names}")


def _is_ok(result: object) -> bool:
    if result is None:
        return True
    tag = getattr(result, "tag", None)
    return tag == "ok"


def _trim(text: str) -> str:
    """Put the cause in front of the backtrace, and bound both."""
    backtrace, found, causes = text.partition("\nCaused by:\n")
    if found:
        text = " / ".join(re.sub(r"^\d+: ", "", line.strip()) for line in causes.strip().splitlines())
        text += "\n" + backtrace.strip()
    lines = text.splitlines()
    if len(lines) > _MAX_LINES:
        lines = [*lines[:_MAX_LINES], f"    … {len(lines) - _MAX_LINES} more lines"]
    return "\n".join(lines)[:_MAX_MESSAGE_CHARACTERS]
