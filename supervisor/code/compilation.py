"""Getting from a wasm file to a sealed, hashed artifact: from the cache, or through a confined compiler process.

The supervisor never parses the bytes. It copies them into a sealed memory file (so that what was hashed is what is
compiled), lets a compiler process write into one descriptor, seals that, hashes it, and records the hash.
"""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import signal
import stat
import time
from collections.abc import Callable

from ipc import memory_file
from ipc.errors import ConfigError, ConfinementError, PeerProtocolError
from ipc.messages import (
    Compiled,
    CompileFailed,
    ConfinementPlan,
    Ended,
    EngineSettings,
    Spawned,
    StartFailed,
    WorkerLimits,
    WorkerPlan,
)
from ipc.struct import Struct
from supervisor.code.artifacts import MAX_ARTIFACT_BYTES, ArtifactCache, ArtifactRecord, cache_key, wasmtime_version
from supervisor.config.units import format_size
from supervisor.host.launch import Launched, launch_compiler
from supervisor.host.zygote import Zygote
from supervisor.run.verdict import ended_by_cpu_limit, missing_layer
from supervisor.terminal import visible

MAX_WASM_BYTES = 512 * 1024 * 1024
PROGRESS_AFTER_S = 1.0
_HINTS = (
    ("failed to parse", "it is damaged, or was cut short: fetch or build it again"),
    ("Invalid input WebAssembly", "it is not valid WebAssembly, whoever made it: wasm-tools validate FILE"),
)
"""What wasmtime says of a program → what can be done."""
_CAUSE_NUMBER = re.compile(r"^\d+: ")
_ELF_MAGIC = b"\x7fELF"


class CompileLimits(Struct, frozen=True):
    """What one compilation may use."""

    timeout_s: float = 600.0
    memory_bytes: int = 8 << 30
    cpu_s: int = 1_200


class CompileError(ConfigError):
    """The bytes can't be compiled, or not within the limits; `limit` names the one that ended it."""

    def __init__(self, message: str, limit: str = "", *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.limit = limit


class Program(Struct):
    """Sealed bytes of one wasm file, with their hash. Owns its descriptor."""

    path: str
    descriptor: int
    sha256: str

    @classmethod
    def open(cls, path: str) -> Program:
        """Copy the file into a sealed one; raises ConfigError for what isn't a plain wasm binary."""
        try:
            source = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise ConfigError(f"{visible(path)}: {os.strerror(error.errno or 0)}") from None
        try:
            if not stat.S_ISREG(os.fstat(source).st_mode):
                raise ConfigError(f"{visible(path)}: not a regular file")
            head = os.pread(source, 8, 0)
            if head.startswith(_ELF_MAGIC):
                raise ConfigError(
                    f"{visible(path)}: is precompiled native code; only WebAssembly that is compiled here is ever run",
                    hint="give the .wasm it was made from",
                )
            if not head.startswith(b"\0asm"):
                raise ConfigError(f"{visible(path)}: is not a WebAssembly binary", hint=_not_wasm_hint(path, head))
            try:
                descriptor = memory_file.from_file("wasm", source, MAX_WASM_BYTES)
            except ValueError as error:
                raise ConfigError(f"{visible(path)}: {error}") from None
        finally:
            os.close(source)
        return cls(path, descriptor, memory_file.sha256(descriptor))

    def close(self) -> None:
        """Close the sealed copy."""
        os.close(self.descriptor)


def _not_wasm_hint(path: str, head: bytes) -> str:
    if path.endswith(".toml"):
        return "a component is named by the directory that holds its Component.toml"
    if path.endswith(".wat") or head.lstrip().startswith((b"(", b";;")):
        return "text format (.wat) must be translated first: wasm-tools parse x.wat -o x.wasm"
    return "it is empty" if not head else "one begins with the bytes 00 61 73 6d; look at it with: file FILE"


class Artifact(Struct, frozen=True):
    """Compiled code, ready to be handed to a worker. `descriptor` is sealed and belongs to the caller."""

    record: ArtifactRecord
    descriptor: int
    from_cache: bool
    compile_s: float = 0.0
    discarded: str = ""
    """Why what the cache had was not used, where it had been changed."""


def obtain(
    program: Program,
    engine: EngineSettings,
    cache: ArtifactCache,
    zygote: Zygote,
    confinement: ConfinementPlan,
    origin: str,
    limits: CompileLimits,
    on_progress: Callable[[float], None],
    interrupted: Callable[[], bool],
) -> Artifact:
    """Return the artifact of `program`, compiled now if the cache doesn't have it; raises CompileError."""
    version = wasmtime_version()
    key = cache_key(program.sha256, version, engine)
    found = cache.lookup(key)
    if found is not None:
        record, descriptor = found
        if (record.wasm_sha256, record.wasmtime_version) == (program.sha256, version):
            return Artifact(record, descriptor, from_cache=True)
        # A whole entry that was moved under another's name: what it says of itself doesn't fit.
        os.close(descriptor)
        cache.discard(key)
        cache.discarded = "the artifact in the cache is another program's"
    started = time.monotonic()
    output = os.memfd_create("artifact", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        compiled = _compile(program, output, engine, zygote, confinement, origin, limits, on_progress, interrupted)
        sealed = memory_file.from_file("artifact", output, MAX_ARTIFACT_BYTES)
    finally:
        os.close(output)
    size_bytes = os.fstat(sealed).st_size
    if size_bytes != compiled.artifact_bytes or size_bytes == 0:
        os.close(sealed)
        raise CompileError(
            f"{visible(program.path)}: the compiler said {compiled.artifact_bytes} bytes, {size_bytes} came"
        )
    record = ArtifactRecord(
        program.sha256,
        version,
        memory_file.sha256(sealed),
        size_bytes,
        compiled.wasm_kind,
        compiled.imports,
        compiled.exports,
        compiled.functions,
    )
    with contextlib.suppress(OSError):  # a full disk, say: then it is compiled again the next time
        cache.store(key, record, sealed)
    return Artifact(record, sealed, from_cache=False, compile_s=time.monotonic() - started, discarded=cache.discarded)


def _compile(
    program: Program,
    output: int,
    engine: EngineSettings,
    zygote: Zygote,
    confinement: ConfinementPlan,
    origin: str,
    limits: CompileLimits,
    on_progress: Callable[[float], None],
    interrupted: Callable[[], bool],
) -> Compiled:
    bounds = WorkerLimits(
        memory_bytes=limits.memory_bytes,
        output_bytes=0,
        cpu_s=limits.cpu_s,
        file_size_bytes=MAX_ARTIFACT_BYTES,
    )
    plan = WorkerPlan("compile", engine, confinement, origin, bounds)
    launched = launch_compiler(zygote, plan, program.descriptor, output)
    try:
        return _await_compiler(launched, program, limits, on_progress, interrupted)
    finally:
        launched.close()


class _Hearing(Struct):
    """What keeper and compiler have said so far."""

    launched: Launched
    compiled: Compiled | None = None
    ended: Ended | None = None
    failure: str | None = None
    pidfd: int = -1

    def hear_keeper(self) -> None:
        """Take one message of the keeper."""
        message, _ = self.launched.keeper.receive((Spawned, Ended))
        if isinstance(message, Spawned):
            with contextlib.suppress(ProcessLookupError):  # it has ended and been reaped: its keeper's next word
                self.pidfd = os.pidfd_open(message.pid)
        elif isinstance(message, Ended):
            self.ended = message

    def hear_compiler(self, timeout_s: float | None = None) -> bool:
        """Take one message of the compiler; return False when it has nothing more to say."""
        try:
            message, _ = self.launched.worker.receive((Compiled, CompileFailed, StartFailed), timeout_s)
        except (EOFError, OSError):
            return False
        match message:
            case Compiled():
                self.compiled = message
            case CompileFailed(text):
                self.failure = in_one_line(text)
            case StartFailed(_, layer, call, number, text) if layer:
                words = visible(f"{missing_layer(message)}, for compiling")
                raise ConfinementError(layer, call, number, text, words=words)
            case StartFailed(_, _, call, _, text):
                self.failure = f"the compiler could not start ({call}): {visible(text)}"
        return True


def in_one_line(text: str) -> str:
    """Return what a compiler says of a failure, its causes behind it, as one harmless line."""
    lines = [_CAUSE_NUMBER.sub("", line.strip()) for line in text.splitlines()]
    return visible(": ".join(line.removesuffix(":") for line in lines if line and line != "Caused by:"))


def _await_compiler(
    launched: Launched,
    program: Program,
    limits: CompileLimits,
    on_progress: Callable[[float], None],
    interrupted: Callable[[], bool],
) -> Compiled:
    name = visible(os.path.basename(program.path))
    started = time.monotonic()
    hearing = _Hearing(launched)
    try:
        with selectors.PollSelector() as selector:
            selector.register(launched.keeper.fileno(), selectors.EVENT_READ, "keeper")
            selector.register(launched.worker.fileno(), selectors.EVENT_READ, "worker")
            while hearing.ended is None:
                for key, _ in selector.select(PROGRESS_AFTER_S / 4):
                    if key.data == "keeper":
                        hearing.hear_keeper()
                    elif not hearing.hear_compiler():
                        selector.unregister(launched.worker.fileno())
                elapsed_s = time.monotonic() - started
                if elapsed_s > PROGRESS_AFTER_S:
                    on_progress(elapsed_s)
                if interrupted():
                    raise KeyboardInterrupt
                if elapsed_s > limits.timeout_s:
                    raise CompileError(
                        f"{name}: compiling took longer than {limits.timeout_s:g} s and was ended", "timeout"
                    )
        # What it said just before it ended may lie behind the keeper's word.
        while hearing.hear_compiler(0.0):
            pass
    except (EOFError, OSError):
        raise CompileError(f"{name}: the compiler's keeper was killed from outside") from None
    except PeerProtocolError as error:
        raise CompileError(f"{name}: the compiler broke the protocol: {error}") from None
    finally:
        # Closing the lifeline ends the compiler; the pidfd makes sure of it now.
        if hearing.pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(hearing.pidfd, signal.SIGKILL)
            os.close(hearing.pidfd)
    if hearing.failure is not None:
        hint = next((hint for words, hint in _HINTS if words in hearing.failure), None)
        raise CompileError(f"{name}: {hearing.failure}", hint=hint)
    if hearing.compiled is None or hearing.ended.wait_status != 0:
        raise CompileError(f"{name}: {_words(hearing.ended, limits)}", _limit_name(hearing.ended, limits))
    return hearing.compiled


def _limit_name(ended: Ended, limits: CompileLimits) -> str:
    if not os.WIFSIGNALED(ended.wait_status):
        return ""
    return "cpu" if ended_by_cpu_limit(ended, os.WTERMSIG(ended.wait_status), limits.cpu_s) else "memory"


def _words(ended: Ended, limits: CompileLimits) -> str:
    match _limit_name(ended, limits):
        case "cpu":
            return f"compiling used more than {limits.cpu_s} s of CPU time and was ended"
        case "memory":
            number = os.WTERMSIG(ended.wait_status)
            size = format_size(limits.memory_bytes)
            return f"the compiler died ({signal.Signals(number).name}); most likely its {size} of memory"
    return "the compiler ended without a result"
