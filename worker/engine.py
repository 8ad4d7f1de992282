"""The WebAssembly engine: one configuration for compiler and runner, loading, imports, WASI, and how a guest ended.

wasmtime's own WASI runs unmodified; what it asks of the kernel is decided by the warden. `wasi:http` is not offered.
"""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Callable

from ipc.messages import EngineSettings, Finished, WorkerJob, WorkerLimits
from ipc.struct import Struct
from worker import engine_api as api
from worker.memories import LinearMemories

MODULE = "module"
COMPONENT = "component"
_NEVER = 1 << 62
_MAX_MESSAGE_CHARACTERS = 4_000
_MAX_LINES = 16
_MAX_NAME_CHARACTERS = 200
_MAX_NAMES_CHARACTERS = 12_000
_LIMIT_OF_TRAP = {api.TRAP_INTERRUPT: "timeout", api.TRAP_OUT_OF_FUEL: "fuel"}
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
_TRAP_WORDS = (
    "wasm trap:",
    "wasm backtrace:",
    "out of bounds of memory",
    "not aligned",
    "out of range",
    "discriminant",
    "utf-8",
    "realloc return",
    "unknown handle",
)
"""What it says of a trap, and of a value of the guest's that is none: for the canonical ABI a trap too, for wasmtime an
error without a code (crates/wasmtime/src/runtime/component/func/)."""

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
"""What the engine provides of preview 2, in every version 0.2.x: a component linker can't be asked what it holds."""


class ProgramError(Exception):
    """The program can't be run here: what it needs isn't there. Nothing of it has run."""


def new_engine(settings: EngineSettings, memories: LinearMemories | None) -> int:
    """Make an engine; artifacts load only where the settings are those they were compiled with.

    A runner keeps its guest's memories in `memories`; the compiler has none, and compiles in parallel.
    """
    config = api.config_new()
    api.config_epoch_interruption(config, settings.epoch)
    api.config_consume_fuel(config, settings.fuel)
    api.config_parallel_compilation(config, memories is None)
    # Copy-on-write images exist only for memories of the engine's own (ADR: one sum over all memories).
    api.config_memory_init_cow(config, False)
    if memories is not None:
        memories.install(config)
    engine: int = api.engine_new(config)
    return engine


class Runner(Struct):
    """An engine with WASI linked for both kinds of program; made in the zygote, used by the workers forked from it."""

    engine: int
    memories: LinearMemories
    modules: int
    components: int

    @classmethod
    def new(cls, settings: EngineSettings) -> Runner:
        """Make the engine and link WASI preview 1 and 2."""
        memories = LinearMemories()
        engine = new_engine(settings, memories)
        modules = api.linker_new(engine)
        api.check(api.linker_define_wasi(modules))
        components = api.component_linker_new(engine)
        api.check(api.component_linker_add_wasip2(components))
        return cls(engine, memories, modules, components)

    def interrupt(self) -> None:
        """End what runs, when it next looks: its epoch is over."""
        api.engine_increment_epoch(self.engine)


class Program(Struct):
    """Loaded code with its store: everything that can be done before the guest's first instruction."""

    runner: Runner
    limits: WorkerLimits
    store: int
    context: int
    linked: int | None = None
    component: int | None = None
    run_export: str = ""

    @classmethod
    def load(
        cls,
        runner: Runner,
        settings: EngineSettings,
        job: WorkerJob,
        artifact: str | bytes,
        check: Callable[[int], None] | None = None,
    ) -> Program:
        """Load the artifact, by path or from memory; raises ProgramError for imports that nothing provides.

        `check` looks at a component that isn't a command, and raises what there is to say about it.
        """
        store = api.store_new(runner.engine, None, None)
        program = cls(runner, job.limits, store, api.store_context(store))
        runner.memories.limit_bytes = job.limits.memory_bytes
        bounds = job.limits
        # No size of a memory: that would be a limit per memory, and `memories` keeps the sum.
        api.store_limiter(store, -1, bounds.table_elements, bounds.instances, bounds.tables, bounds.memories)
        if settings.epoch:
            api.context_set_epoch_deadline(program.context, 1 if bounds.timeout_ns is not None else _NEVER)
        if settings.fuel:
            api.check(api.context_set_fuel(program.context, bounds.fuel if bounds.fuel is not None else _NEVER))
        if job.wasm_kind == COMPONENT:
            program.component = (
                api.made(api.component_deserialize_file, runner.engine, artifact.encode())
                if isinstance(artifact, str)
                else api.made(api.component_deserialize, runner.engine, artifact, len(artifact))
            )
            (check or program._check_component)(program.component)
        else:
            module = (
                api.made(api.module_deserialize_file, runner.engine, artifact.encode())
                if isinstance(artifact, str)
                else api.made(api.module_deserialize, runner.engine, artifact, len(artifact))
            )
            program.linked = program._link(module)
            api.module_delete(module)  # what is linked holds it
        return program

    def _link(self, module: int) -> int:
        try:
            linked = api.made(api.linker_instantiate_pre, self.runner.modules, module)
        except api.EngineError as error:
            # It names the first import only. All are looked up one by one just here: each costs a worker pages.
            imports = api.module_imports(module)
            refuse_missing([f"{source}.{name}" for source, name in imports if not self._has(source, name)])
            raise ProgramError(_trim(str(error))) from error
        if "_start" not in api.module_exports(module):
            raise ProgramError("it has no `_start`: a library, not a command")
        return linked

    def _has(self, module: str, name: str) -> bool:
        found, raw_module, raw_name = api.Extern(), module.encode(), name.encode()
        linker = self.runner.modules
        if not api.linker_get(
            linker, self.context, raw_module, len(raw_module), raw_name, len(raw_name), ctypes.byref(found)
        ):
            return False
        api.extern_delete(ctypes.byref(found))
        return True

    def _check_component(self, component: int) -> None:
        refuse_missing([name for name in api.component_imports(self.runner.engine, component) if not provided(name)])
        for name in api.component_exports(self.runner.engine, component):
            if name.startswith("wasi:cli/run@" + WASI_P2_VERSIONS):
                self.run_export = name
                return
        raise ProgramError("it has no `wasi:cli/run` of a version 0.2: not a command")

    def set_wasi(self, job: WorkerJob, native: bool = False) -> None:
        """Give the guest its arguments, environment, streams and preopened roots; each root is opened now.

        With `native` (no warden: only when the seccomp layer is off, in tests) a root that can't be opened is left out.
        """
        config = api.wasi_config_new()
        arguments = list(job.arguments)
        names, values = [name for name, _ in job.environment], [value for _, value in job.environment]
        if not api.wasi_config_set_argv(config, len(arguments), api.texts(arguments)):
            raise ProgramError("its arguments are not Unicode text")
        if not api.wasi_config_set_env(config, len(names), api.texts(names), api.texts(values)):
            raise ProgramError("its environment is not Unicode text")
        api.wasi_config_inherit_stdin(config)
        api.wasi_config_inherit_stdout(config)
        api.wasi_config_inherit_stderr(config)
        for guest, host in job.mounts:
            # A host path is bytes, a guest's is text.
            opened = api.wasi_config_preopen_dir(config, os.fsencode(host), guest.encode(), True)
            if not opened and not native:
                raise ProgramError(
                    f"the root {host!r} (mounted as {guest!r}) can't be opened\n"
                    "a directory that is granted or shown must be there: make it first, or leave it out"
                )
        api.check(api.context_set_wasi(self.context, config))

    def close(self) -> None:
        """Give back the store with its instances and their memories, and the code of a module."""
        api.store_delete(self.store)
        if self.linked is not None:
            api.instance_pre_delete(self.linked)

    def run(self) -> Finished:
        """Instantiate and run the guest to its end; whatever it does becomes a value."""
        return self.finished_by(self._run_component if self.component is not None else self._run_module)

    def finished_by(self, guest: Callable[[], int]) -> Finished:
        """Have the guest do this, which returns its exit code; however that ends becomes a value."""
        try:
            exit_code = guest()
        except api.ExitError as ended:
            return self._exited(ended.code & 0xFF)
        except api.TrapError as trap:
            return self._trapped(trap)
        except api.EngineError as error:
            return self._failed(error)
        return self._exited(exit_code)

    def _run_module(self) -> int:
        instance, start, trap = api.Instance(), api.Extern(), ctypes.c_void_p()
        api.check(
            api.instance_pre_instantiate(self.linked, self.context, ctypes.byref(instance), ctypes.byref(trap)), trap
        )
        found = api.instance_export_get(self.context, ctypes.byref(instance), b"_start", 6, ctypes.byref(start))
        assert found
        if start.kind != api.EXTERN_FUNC:
            raise api.EngineError("its `_start` is not a function")
        api.check(api.func_call(self.context, ctypes.byref(start.of.func), None, 0, None, 0, ctypes.byref(trap)), trap)
        return 0

    def _run_component(self) -> int:
        instance, run, result = api.ComponentInstance(), api.ComponentFunc(), api.ComponentValue()
        linker = self.runner.components
        api.check(api.component_linker_instantiate(linker, self.context, self.component, ctypes.byref(instance)))
        interface = self._export_index(instance, None, self.run_export)
        index = self._export_index(instance, interface, "run")
        if not api.component_instance_get_func(ctypes.byref(instance), self.context, index, ctypes.byref(run)):
            raise api.EngineError("its `run` is not a function")
        api.check(api.component_func_call(ctypes.byref(run), self.context, None, 0, ctypes.byref(result), 1))
        return 0 if result.kind == api.COMPONENT_RESULT and result.of.result.is_ok else 1

    def _export_index(self, instance: api.ComponentInstance, parent: int | None, name: str) -> int:
        raw = name.encode()
        index: int | None = api.component_instance_get_export_index(
            ctypes.byref(instance), self.context, parent, raw, len(raw)
        )
        if not index:
            raise api.EngineError(f"it has no export `{name}`")
        return index

    def _exited(self, exit_code: int) -> Finished:
        if exit_code and self.runner.memories.last_refused:
            message = f"it exited with {exit_code} after its last request for memory was refused"
            return self._finished("limit", 75, message, "memory")
        return self._finished("exited", exit_code)

    def _trapped(self, trap: api.TrapError) -> Finished:
        limit = None if trap.code is None else _LIMIT_OF_TRAP.get(trap.code)
        return self._ended_early(_trim(str(trap)), limit)

    def _failed(self, error: Exception) -> Finished:
        text = str(error)
        for words, limit in _LIMIT_OF_WORDS:
            if words in text:
                return self._ended_early(_trim(text), limit)
        told = any(words in text for words in _TRAP_WORDS)
        if told or isinstance(error, api.CallError) or self.runner.memories.last_refused:
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
        fuel_used = 0 if self.limits.fuel is None else self.limits.fuel - self._fuel_left()
        usage = {
            "fuel": fuel_used,
            "timeout": self.limits.timeout_ns or 0,
            "memory": memories.used_bytes + memories.refused_bytes,
        }.get(limit, 0)
        return Finished(
            outcome, exit_code, message, limit, usage, memories.peak_bytes, fuel_used, memories.refused_bytes
        )

    def _fuel_left(self) -> int:
        left = ctypes.c_uint64()
        api.check(api.context_get_fuel(self.context, ctypes.byref(left)))
        return left.value


def provided(name: str) -> bool:
    """Return whether an import of a component is one that WASI preview 2 satisfies."""
    interface, _, version = name.partition("@")
    return interface in WASI_P2_INTERFACES and version.startswith(WASI_P2_VERSIONS)


def refuse_missing(missing: list[str]) -> None:
    """Raise ProgramError that names them, if there are any."""
    if missing:
        # All of them, up to what a packet holds: the names are the program's to choose.
        names = ", ".join(name[:_MAX_NAME_CHARACTERS] for name in sorted(missing))
        if len(names) > _MAX_NAMES_CHARACTERS:
            names = f"{names[:_MAX_NAMES_CHARACTERS]}… ({len(missing)} in all)"
        raise ProgramError(f"it imports what nothing here provides: {names}")


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
