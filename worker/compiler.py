"""The compiler: turns untrusted wasm into native code, once, in a confined process that has nothing else.

It holds the sealed wasm bytes, one output descriptor and the channel. What it says of its output is a claim: the
supervisor measures and hashes the artifact itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from ipc.channel import Channel
from ipc.errors import ConfinementError
from ipc.messages import Compiled, CompileFailed, StartFailed, WorkerPlan
from worker import confine
from worker import engine_api as api
from worker.engine import COMPONENT, MODULE, new_engine
from worker.main import CHANNEL, PARENT_PIDFD

if TYPE_CHECKING:
    from worker.exported import Exported

WASM_BYTES = 5
"""The compiler's descriptors: 0, 1, 2 are /dev/null, then channel and parent's pidfd, this, and the output."""
OUTPUT = 6
_MAX_NAMES_BYTES = 16 * 1024
_MAX_SIGNATURES_BYTES = 24 * 1024
_MAX_NAME_CHARACTERS = 120
_CHUNK_BYTES = 1 << 24
_COMPONENT_HEAD = b"\0asm\x0d\0\x01\0"
_MAX_MESSAGE_CHARACTERS = 4_000


class _ForComponents(NamedTuple):
    """What only a component needs."""

    functions_of: Callable[[int, int], list[Exported]]
    guarded: Callable[[bytes], bytes]


class RefusedInputError(Exception):
    """The bytes aren't a WebAssembly binary that is compiled here; the text says what they are."""


def run_compiler(plan: WorkerPlan, in_pid_namespace: bool) -> int:
    """Live the life of a compiler; returns the exit status of the process."""
    with contextlib.closing(Channel.from_descriptor(CHANNEL)) as channel:
        return _live(plan, channel, in_pid_namespace)


def _live(plan: WorkerPlan, channel: Channel, in_pid_namespace: bool) -> int:
    try:
        engine = new_engine(plan.engine, None)
        assert plan.limits is not None
        for_components = _for_components()
        confinement = confine.put_on_layers(plan.confinement, PARENT_PIDFD, in_pid_namespace)
        confinement.bound(plan.limits, slack_bytes=0)
        confine.confine_without_listener(confinement)
    except ConfinementError as error:
        channel.write(StartFailed("confining", error.layer, error.syscall, error.errno, str(error)))
        return 69
    try:
        channel.write(_compile(engine, for_components))
    except (RefusedInputError, api.EngineError) as error:
        channel.write(CompileFailed(str(error)[:_MAX_MESSAGE_CHARACTERS]))
    except MemoryError:
        channel.write(CompileFailed("the compiler's memory was not enough"))
    except OSError as error:
        channel.write(CompileFailed(f"writing the artifact: {os.strerror(error.errno or 0)}"))
    return 0


def _for_components() -> _ForComponents | None:
    """Return what a component needs, imported now, as nothing is behind the filter; None for a module.

    Not in the zygote, of whose memory each worker has a part.
    """
    if os.pread(WASM_BYTES, 8, 0) != _COMPONENT_HEAD:
        return None
    from worker.exported import functions_of
    from worker.payload_guard import guarded

    return _ForComponents(functions_of, guarded)


def wasm_kind(head: bytes) -> str:
    """Tell a core module from a component by the first eight bytes; raises RefusedInputError for anything else."""
    if head.startswith(b"\x7fELF"):
        raise RefusedInputError("precompiled native code; only WebAssembly that is compiled here is ever run")
    if not head.startswith(b"\0asm"):
        if head.lstrip().startswith((b"(module", b"(component", b"(;", b";;", b"(")):
            raise RefusedInputError("WebAssembly text; translate it first: wasm-tools parse x.wat -o x.wasm")
        raise RefusedInputError("not a WebAssembly binary: it doesn't start with the bytes 00 61 73 6d")
    # Binary format: four bytes of magic, two of version, two of layer (component-model, Binary.md).
    match head[4:8]:
        case b"\x01\0\0\0":
            return MODULE
        case _ if head[:8] == _COMPONENT_HEAD:
            return COMPONENT
    raise RefusedInputError(f"a WebAssembly binary of unknown version {head[4:8].hex()}")


def _compile(engine: int, for_components: _ForComponents | None) -> Compiled:
    size_bytes = os.lseek(WASM_BYTES, 0, os.SEEK_END)  # not fstat: its modern form is a call by path
    kind = wasm_kind(os.pread(WASM_BYTES, 8, 0))
    wasm = os.pread(WASM_BYTES, size_bytes, 0) if size_bytes <= _CHUNK_BYTES else _read_all(size_bytes)
    serialized = api.Bytes()
    functions: list[Exported] = []
    if kind == COMPONENT:
        assert for_components is not None
        component = _new_component(engine, wasm, for_components.guarded(wasm))
        imports = tuple(api.component_imports(engine, component))
        exports = tuple(api.component_exports(engine, component))
        functions = for_components.functions_of(component, engine)
        api.check(api.component_serialize(component, ctypes.byref(serialized)))
    else:
        module = api.made(api.module_new, engine, wasm, len(wasm))
        imports = tuple(f"{source}.{name}" for source, name in api.module_imports(module))
        exports = tuple(api.module_exports(module))
        api.check(api.module_serialize(module, ctypes.byref(serialized)))
    artifact = api.take_bytes(serialized)
    view = memoryview(artifact)
    while view:
        view = view[os.write(OUTPUT, view[:_CHUNK_BYTES]) :]
    return Compiled(kind, len(artifact), _bounded(imports), _bounded(exports), _bounded_functions(functions))


def _new_component(engine: int, wasm: bytes, with_guards: bytes) -> int:
    """Compile a component with its guards, where it has any; without them where they don't fit."""
    if with_guards is not wasm:
        with contextlib.suppress(api.EngineError):
            return api.made(api.component_new, engine, with_guards, len(with_guards))
    return api.made(api.component_new, engine, wasm, len(wasm))


def _read_all(size_bytes: int) -> bytes:
    parts = []
    offset = 0
    while offset < size_bytes:
        part = os.pread(WASM_BYTES, _CHUNK_BYTES, offset)
        if not part:
            break
        parts.append(part)
        offset += len(part)
    return b"".join(parts)


def _bounded(names: tuple[str, ...]) -> tuple[str, ...]:
    # A packet is bounded (ipc.codec.MAX_PACKET_BYTES) and these names are the program's to choose.
    kept: list[str] = []
    left_bytes = _MAX_NAMES_BYTES
    for name in names:
        shown = name[:_MAX_NAME_CHARACTERS]
        left_bytes -= len(shown.encode()) + 5  # msgpack's head of a string
        if left_bytes < 0:
            break
        kept.append(shown)
    return tuple(kept)


def _bounded_functions(functions: list[Exported]) -> tuple[tuple[str, str], ...]:
    kept: list[tuple[str, str]] = []
    left_bytes = _MAX_SIGNATURES_BYTES
    for one in functions:
        # A name that is cut is none that can be called.
        left_bytes -= len(one.full_name.encode()) + len(one.words.encode()) + 11
        if left_bytes < 0:
            break
        kept.append((one.full_name, one.words))
    return tuple(kept)
