"""A stage for workers: a real zygote, a stand-in for the warden that answers only what loading needs, and runs."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import struct
import threading
from collections.abc import Callable, Iterator, Sequence

import pytest
import wasmtime

import ipc
from ipc import libc, memory_file, syscalls
from ipc.messages import (
    ARTIFACT_PATH,
    Compiled,
    CompileFailed,
    Confined,
    ConfinementPlan,
    Ended,
    EngineSettings,
    Finished,
    Go,
    LayerReport,
    Sealed,
    Spawned,
    StartFailed,
    WorkerJob,
    WorkerLimits,
    WorkerPlan,
)
from ipc.struct import Struct, field
from supervisor.host.launch import Launched, launch, launch_compiler
from supervisor.host.verify import Expected, verify_and_bound
from supervisor.host.zygote import Zygote

ORIGIN = os.path.dirname(os.path.dirname(os.path.abspath(str(ipc.__file__))))
TIMEOUT_S = 30.0
REQUIRED = ("rlimits", "no_new_privs", "landlock", "seccomp")
_NOTIFICATION = struct.Struct("<QIIiIQ6Q")
_RESPONSE = struct.Struct("<QqiI")
_ADDFD = struct.Struct("<QIIII")
_RECEIVE, _SEND, _ADD = 0xC0502100, 0xC0182101, 0x40182103
_AT_EMPTY_PATH = 0x1000
ANSWERED_0 = "answered-0"
"""An open of this name returns 0 and gives nothing: what is left of a hand-over that broke off (docs/adr/0013)."""


class StandIn(threading.Thread):
    """Answers a listener: the artifact, directories by absolute path, stats and duplicates; refuses the rest."""

    def __init__(self, listener: int, pid: int, artifact: int) -> None:
        super().__init__(daemon=True)
        self.named: list[tuple[str, str]] = []
        self.forbidden: list[int] = []
        self._listener, self._pid, self._artifact = listener, pid, artifact
        self._calls = syscalls.names_by_number(syscalls.machine())
        self._memory = libc.RemoteMemory(4096)

    def run(self) -> None:
        """Serve until the worker has ended."""
        poller = select.poll()
        poller.register(self._listener, select.POLLIN)
        while True:
            if any(flags & select.POLLHUP for _, flags in poller.poll()):
                return
            buffer = bytearray(_NOTIFICATION.size)
            with contextlib.suppress(OSError):
                fcntl.ioctl(self._listener, _RECEIVE, buffer, True)
                self._answer(*_NOTIFICATION.unpack(buffer))

    def _path(self, tid: int, address: int) -> str:
        text = b""
        while b"\0" not in text:
            count = self._memory.read(tid, address + len(text), 4096 - (address + len(text)) % 4096)
            text += bytes(self._memory.buffer.view[:count])
        return text.split(b"\0")[0].decode()

    def _answer(self, notification: int, tid: int, _flags: int, number: int, _arch: int, _ip: int, *args: int) -> None:
        category, name = self._calls.get(number, ("forbidden", ""))
        if category == "forbidden":
            self.forbidden.append(number)
            os.kill(self._pid, 9)
            return
        if name in ("statx", "newfstatat") and args[1] == 0:
            self._send(notification, -errno.EFAULT)
            return
        if name == "fcntl" and args[1] == fcntl.F_DUPFD_CLOEXEC:
            pidfd = os.pidfd_open(self._pid)
            self._inject(notification, libc.pidfd_getfd(pidfd, args[0] & 0xFFFFFFFF))
            os.close(pidfd)
            return
        path = self._path(tid, args[1]) if name.endswith("at") or name in ("openat2", "statx") else ""
        if name in ("statx", "newfstatat") and path == "":
            self._stat(notification, tid, name, args)
            return
        self.named.append((name, path))
        if path == ANSWERED_0:
            self._send(notification, 0)
        elif name == "openat" and path == ARTIFACT_PATH:
            self._inject(notification, os.open(f"/proc/self/fd/{self._artifact}", os.O_RDONLY))
        elif name == "openat" and os.path.isdir(path):
            self._inject(notification, os.open(path, os.O_RDONLY | os.O_DIRECTORY))
        else:
            self._send(notification, -errno.EACCES)

    def _stat(self, notification: int, tid: int, name: str, args: tuple[int, ...]) -> None:
        pidfd = os.pidfd_open(self._pid)
        descriptor = libc.pidfd_getfd(pidfd, args[0] & 0xFFFFFFFF)
        try:
            buffer = libc.Buffer(256)
            if name == "statx":
                buffer.statx(descriptor, b"", _AT_EMPTY_PATH, args[3] & 0xFFFFFFFF)
            else:
                buffer.fstatat(descriptor, b"", _AT_EMPTY_PATH)
        finally:
            os.close(descriptor)
            os.close(pidfd)
        self._memory.write(tid, args[4 if name == "statx" else 2], buffer, 256 if name == "statx" else 144)
        self._send(notification, 0)

    def _inject(self, notification: int, descriptor: int) -> None:
        try:
            fcntl.ioctl(self._listener, _ADD, _ADDFD.pack(notification, 2, descriptor, 0, os.O_CLOEXEC))
        finally:
            os.close(descriptor)

    def _send(self, notification: int, error: int) -> None:
        fcntl.ioctl(self._listener, _SEND, _RESPONSE.pack(notification, 0, error, 0))


class Outcome(Struct):
    """What one run showed."""

    layers: tuple[LayerReport, ...] = ()
    start_failed: StartFailed | None = None
    problems: tuple[str, ...] = ()
    outside: tuple[LayerReport, ...] = ()
    finished: Finished | None = None
    ended: Ended | None = None
    stdout: bytes = b""
    stderr: bytes = b""
    named: list[tuple[str, str]] = field(default_factory=list)
    forbidden: list[int] = field(default_factory=list)


class Stage(Struct):
    """One zygote and what is run from it."""

    zygote: Zygote
    namespaces: bool

    def plan(self, **changes: object) -> ConfinementPlan:
        """Return the plan that the product would make here."""
        own = 2_000_000_000 if os.getuid() == 0 else None
        fields: dict[str, object] = {
            "required": REQUIRED,
            "uid": own,
            "gid": own,
            "namespaces": self.namespaces,
            "ptracer_pid": os.getpid(),
        }
        return ConfinementPlan(**{**fields, **changes})  # type: ignore[arg-type]

    def compile(
        self, wasm: bytes, settings: EngineSettings | None = None, limits: WorkerLimits | None = None
    ) -> tuple[Compiled | CompileFailed | StartFailed | None, Ended, int]:
        """Compile in the real compiler; the last item is the sealed artifact's descriptor."""
        limits = limits or WorkerLimits(8 << 30, 0, cpu_s=100, file_size_bytes=1 << 30)
        plan = WorkerPlan("compile", settings or EngineSettings(), self.plan(), ORIGIN, limits)
        source = memory_file.from_bytes("wasm", wasm)
        output = os.memfd_create("output", os.MFD_CLOEXEC)
        launched = launch_compiler(self.zygote, plan, source, output)
        message: object = None
        try:
            with contextlib.suppress(EOFError):
                message, _ = launched.worker.receive((Compiled, CompileFailed, StartFailed), TIMEOUT_S)
            ended = self.wait_ended(launched)
            assert message is None or isinstance(message, Compiled | CompileFailed | StartFailed)
            return message, ended, memory_file.from_file("artifact", output, 1 << 30)
        finally:
            launched.close()
            os.close(source)
            os.close(output)

    def run(
        self,
        program: str | bytes,
        arguments: Sequence[str] = ("prog",),
        stdin: bytes = b"",
        limits: WorkerLimits | None = None,
        settings: EngineSettings | None = None,
        on_sealed: Callable[[int, Launched], None] = lambda pid, launched: None,
        **job_fields: object,
    ) -> Outcome:
        """Compile and run a program (text or binary) to its end."""
        settings = settings or EngineSettings()
        wasm = bytes(wasmtime.wat2wasm(program)) if isinstance(program, str) else program
        compiled, _, artifact = self.compile(wasm, settings)
        assert isinstance(compiled, Compiled), compiled
        job = WorkerJob(
            "w",
            compiled.wasm_kind,
            tuple(arguments),
            job_fields.get("environment", ()),  # type: ignore[arg-type]
            job_fields.get("mounts", ()),  # type: ignore[arg-type]
            limits or WorkerLimits(64 << 20, 1 << 20, timeout_ns=20 * 10**9),
        )
        confinement = self.plan(**job_fields.get("plan", {}))  # type: ignore[arg-type]
        try:
            return self._run(WorkerPlan("run", settings, confinement, ORIGIN), job, artifact, stdin, on_sealed)
        finally:
            os.close(artifact)

    def run_job(self, settings: EngineSettings, job: WorkerJob, artifact: int, stdin: bytes) -> Outcome:
        """Run what was compiled before."""
        plan = WorkerPlan("run", settings, self.plan(), ORIGIN)
        return self._run(plan, job, artifact, stdin, lambda pid, launched: None)

    def _run(
        self,
        plan: WorkerPlan,
        job: WorkerJob,
        artifact: int,
        stdin: bytes,
        on_sealed: Callable[[int, Launched], None],
    ) -> Outcome:
        outcome = Outcome()
        pipes = [os.pipe2(os.O_CLOEXEC) for _ in range(3)]
        launched = launch(self.zygote, plan, pipes[0][0], pipes[1][1], pipes[2][1])
        for descriptor in (pipes[0][0], pipes[1][1], pipes[2][1]):
            os.close(descriptor)
        os.write(pipes[0][1], stdin)
        os.close(pipes[0][1])
        try:
            self._drive(launched, plan, job, artifact, outcome, on_sealed)
            outcome.stdout, outcome.stderr = (_read_all(pipes[n][0]) for n in (1, 2))
            outcome.ended = self.wait_ended(launched)
        finally:
            launched.close()
            os.close(pipes[1][0])
            os.close(pipes[2][0])
        return outcome

    @staticmethod
    def wait_ended(launched: Launched) -> Ended:
        """Wait for the keeper's last word."""
        while True:
            message, _ = launched.keeper.receive((Spawned, Ended), TIMEOUT_S)
            if isinstance(message, Ended):
                return message

    def _drive(
        self,
        launched: Launched,
        plan: WorkerPlan,
        job: WorkerJob,
        artifact: int,
        outcome: Outcome,
        on_sealed: Callable[[int, Launched], None],
    ) -> None:
        spawned, _ = launched.keeper.receive((Spawned,), TIMEOUT_S)
        assert isinstance(spawned, Spawned)
        message, listeners = launched.worker.receive((Confined, StartFailed), TIMEOUT_S)
        stand_in = None
        try:
            if isinstance(message, Confined):
                if listeners:
                    stand_in = StandIn(listeners[0], spawned.pid, artifact)
                    stand_in.start()
                launched.load(job, None if listeners else artifact)
                message, _ = launched.worker.receive((Sealed, StartFailed), TIMEOUT_S)
            if isinstance(message, StartFailed):
                outcome.start_failed = message
                return
            assert isinstance(message, Sealed)
            outcome.layers = message.layers
            on_sealed(spawned.pid, launched)
            look = verify_and_bound(spawned.pid, Expected.of(plan.confinement, len(job.mounts)), job.limits)
            outcome.outside, outcome.problems = look.reports, look.problems
            launched.worker.send(Go())
            finished, _ = launched.worker.receive((Finished,), TIMEOUT_S)
            assert isinstance(finished, Finished)
            outcome.finished = finished
        except (EOFError, ConnectionError):
            pass
        finally:
            if stand_in is not None:
                stand_in.join(TIMEOUT_S)
                outcome.named, outcome.forbidden = stand_in.named, stand_in.forbidden
            for listener in listeners:
                os.close(listener)


def _read_all(descriptor: int) -> bytes:
    parts = []
    while part := os.read(descriptor, 65536):
        parts.append(part)
    return b"".join(parts)


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    """Yield a stage with a zygote in its user namespace, as the kernel allows."""
    zygote = Zygote()
    zygote.start()
    try:
        yield Stage(zygote, namespaces=os.getuid() == 0 or zygote.user_namespace is not None)
    finally:
        zygote.close()


@pytest.fixture(scope="module")
def bare_stage() -> Iterator[Stage]:
    """Yield a stage without any namespace."""
    zygote = Zygote(namespaces=False)
    zygote.start()
    try:
        yield Stage(zygote, namespaces=False)
    finally:
        zygote.close()
