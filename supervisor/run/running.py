"""Running one request on a host: compile or fetch, fork, attach, run, report. The prose of `airssys run`."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from ipc import codec
from ipc.audit.event import AuditEvent, about
from ipc.errors import ConfigError
from ipc.hand_over import make_mark
from ipc.messages import ActorJob, PreparePolicy, WorkerJob
from ipc.policy.decision import compile_policy
from ipc.policy.quotas import Quotas
from ipc.struct import Struct, replace
from supervisor.audit.policy_archive import keep_policy
from supervisor.code.artifacts import ArtifactCache
from supervisor.code.compilation import Artifact, CompileLimits, Program, obtain
from supervisor.event_loop import EventLoop
from supervisor.fleet.output_log import STDERR, STDOUT, OutputLog
from supervisor.host.host import Host, new_worker_id
from supervisor.host.source import KEY as HOST_KEY
from supervisor.host.source import HostSource
from supervisor.host.verify import Expected
from supervisor.host.warden_recovery import Recovery
from supervisor.host.workers import Worker
from supervisor.run.begun_run import BegunRun
from supervisor.run.loop import RunLoop
from supervisor.run.quotas import RunQuotas
from supervisor.run.report import DecisionTally, RunReport
from supervisor.run.request import RunRequest
from supervisor.run.socket_imports import is_habit, opening_sockets
from supervisor.run.streams import GuestStreams, InputStream, OutputStream, terminal_filter
from supervisor.run.verdict import Facts
from supervisor.run.warden import RunWarden
from supervisor.run.worker import RunWorker
from supervisor.terminal import TerminalLine, visible

if TYPE_CHECKING:
    from supervisor.run.questions import Questions


_IMPORTS_SHOWN_MAX = 16


class ProgramChangedError(ConfigError):
    """A program isn't the one that somebody has said yes to, or that was installed."""


class RunStreams(Struct, frozen=True):
    """Where the guest's streams go. None as a target captures into memory; None as the source is an empty input.

    A log takes both outputs in place of the targets, no faster than its pace.
    """

    stdin: int | None
    stdout: int | None
    stderr: int | None
    raw: bool = False
    log: OutputLog | None = None
    line: TerminalLine | None = None
    """Of the terminal that lines of ours go to."""


def run_request(
    host: Host,
    request: RunRequest,
    streams: RunStreams,
    compile_limits: CompileLimits,
    on_progress: Callable[[float], None],
    on_denials: Callable[[DecisionTally], None],
    terminal: int = -1,
) -> RunReport:
    """Run one program to its end, with questions on `terminal`; raises ConfigError or CompileError before the start."""
    artifact = obtain_artifact(host, request, compile_limits, on_progress)
    try:
        if request.call is not None and artifact.record.wasm_kind != "component":
            # Before a worker is made: one that refuses at once may be gone before the warden has looked into it.
            raise ConfigError(
                f"{visible(request.wasm_path)}: is a core module, whose functions have no WIT types",
                hint="make a component of it first: wasm-tools component new",
            )
        return _run(host, request, streams, artifact, on_denials, terminal)
    finally:
        os.close(artifact.descriptor)


def obtain_artifact(
    host: Host, request: RunRequest, compile_limits: CompileLimits, on_progress: Callable[[float], None]
) -> Artifact:
    """Return the compiled code of a request; its descriptor is the caller's. Raises ConfigError or CompileError."""
    with contextlib.closing(open_program(request)) as program:
        return compile_request(host, request, program, compile_limits, on_progress, host.interrupted)


def open_program(request: RunRequest) -> Program:
    """Return the sealed bytes of a request's program; raises ConfigError where they aren't those that were granted."""
    program = Program.open(request.wasm_path)
    if request.context.component_digest not in ("", program.sha256):
        program.close()
        raise ProgramChangedError(
            f"{visible(request.wasm_path)}: changed after it was granted what it asks; run it again"
        )
    return program


def compile_request(
    host: Host,
    request: RunRequest,
    program: Program,
    compile_limits: CompileLimits,
    on_progress: Callable[[float], None],
    interrupted: Callable[[], bool],
) -> Artifact:
    """Return the compiled code of a request's program, which stays the caller's. Raises CompileError."""
    cache = ArtifactCache(os.path.join(host.options.state_directory, "cache"))
    with host.compiler_confinement() as plan:
        return obtain(
            program, request.engine, cache, host.zygote, plan, host.origin, compile_limits, on_progress, interrupted
        )


def _run(
    host: Host,
    request: RunRequest,
    streams: RunStreams,
    artifact: Artifact,
    on_denials: Callable[[DecisionTally], None],
    terminal: int,
) -> RunReport:
    begun = begin_run(host, request, artifact, new_worker_id(request.component), streams, on_denials, terminal)
    try:
        _drive(host, begun.loop, request)
        begun.end()
    except BaseException:
        begun.break_off()
        raise
    host.writer.flush()
    while host.records:
        begun.tally.note(host.records.popleft().to_map())
    on_denials(begun.tally)
    report, ended = begun.conclude(host.options.audit_directory)
    host.record(ended)
    return report


def _drive(host: Host, run: RunLoop, request: RunRequest) -> None:
    """Step one run to its end."""
    loop, key = EventLoop(), run.warden.worker_id

    def interrupt(number: int) -> None:
        run.interrupt(number, _why(request) if number == signal.SIGTERM else "")
        loop.touch(key)

    loop.add(HOST_KEY, HostSource(host, {key: run}, loop, interrupt))
    loop.add(key, run)
    if request.reliance is not None:
        from supervisor.approvals.reliance import ApprovalEnd

        def over(code: str, reason: str) -> None:
            run.end_for(code, reason)
            loop.touch(key)

        loop.add("approval", ApprovalEnd(request.reliance, over))
    run.start(time.monotonic_ns())
    while not run.is_over:
        loop.turn()


def _why(request: RunRequest) -> str:
    """Return why somebody ends this run, where they have said so."""
    if request.reliance is None:
        return ""
    from supervisor.approvals.reliance import lost_words

    return lost_words(request.reliance)


def begin_run(
    host: Host,
    request: RunRequest,
    artifact: Artifact,
    instance: str,
    streams: RunStreams,
    on_denials: Callable[[DecisionTally], None],
    terminal: int = -1,
    actor: ActorJob | None = None,
    quotas: Quotas | None = None,
) -> BegunRun:
    """Have a worker started for `request`, and the warden told of it; its loop is to be stepped from now on.

    `quotas` are the component's from an earlier run of it, None where this is its only one.
    """
    context = request.context.of_program(artifact.record.wasm_sha256)
    base = about(context, "", instance)
    policy = PreparePolicy(
        document=codec.pack_map(request.document.to_wire()),
        instance=instance,
        context=context,
        mounts=request.mounts,
        ask=request.ask,
        learn=request.learn,
        # Only who is one of several is asked for its quotas while it runs.
        storage=request.storage_bounds(told=streams.log is not None),
        broker=actor is not None,
    )
    host.ensure_warden()
    prepared = _prepare(host, request, artifact, policy)
    # Before any record names it; while the warden gets ready, this costs nothing.
    keep_policy(host.options.audit_directory, request.document, context.policy_digest)
    tally = DecisionTally(instance)
    if request.learn:
        from supervisor.run.usage import Uses

        tally.uses = Uses()
    host.wait_ready()
    if artifact.discarded:
        host.writer.local(replace(base, event="artifact_discarded", decision="info", reason=artifact.discarded))
    # Not waited for: the record of its confinement, without which it may not go, is durable after this one.
    host.writer.local(
        replace(
            base,
            event="worker_starting",
            decision="info",
            detail={
                "artifact_sha256": artifact.record.artifact_sha256,
                "cached": artifact.from_cache,
                "wasm_kind": artifact.record.wasm_kind,
                "run_as": host.options.run_as.name,
                **({"imports_all_of": "wasi:sockets"} if is_habit(artifact.record.imports) else {}),
                **context.told_at_start(),
                **_called(request),
            },
        )
    )
    _note_sockets(host, base, artifact.record.imports)
    job = WorkerJob(
        worker_id=instance,
        wasm_kind=artifact.record.wasm_kind,
        arguments=request.arguments,
        environment=request.environment,
        mounts=request.mounts,
        # The inner deadline knows of no questions: with them the outer one, which stops meanwhile, stands alone.
        limits=replace(request.limits, timeout_ns=None) if request.ask else request.limits,
        actor=actor,
        call=request.call,
    )
    started_s = time.monotonic()
    recovery = Recovery(host.supply, policy, instance, artifact.descriptor, base, host.record)
    worker = host.workers.take(request.kind, request.engine)
    quotas = quotas or Quotas(request.quota, time.monotonic_ns())
    try:
        questions = _questions(host, request, base, terminal) if request.ask else None
        loop = _loop(
            host,
            request,
            job,
            questions,
            worker,
            quotas,
            prepared,
            recovery,
            artifact,
            streams,
            base,
            tally,
            on_denials,
        )
    except BaseException:
        worker.release()
        raise
    return BegunRun(loop, worker, request, base, tally, recovery, started_s)


def _called(request: RunRequest) -> dict[str, object]:
    """Return what is on record of a call: which function, and nothing of its arguments, which may be secrets."""
    call = request.call
    if call is None:
        return {}
    return {"function": f"{call.interface}#{call.function}" if call.interface else call.function}


def _note_sockets(host: Host, base: AuditEvent, imports: tuple[str, ...]) -> None:
    """Put on record that it can ask for sockets: the engine refuses each call by itself, where no record is made."""
    sockets = list(opening_sockets(imports))
    if sockets and not is_habit(imports):
        reason = "it imports wasi:sockets; the engine itself refuses each socket and look-up, without a record"
        detail = {"imports": sockets[:_IMPORTS_SHOWN_MAX]}
        host.writer.local(replace(base, event="sockets_imported", code="A1702", reason=reason, detail=detail))


def _prepare(host: Host, request: RunRequest, artifact: Artifact, policy: PreparePolicy) -> bool:
    """Have the warden read the policy, which is checked here meanwhile; raises ConfigError when it is wrong."""
    prepared = False
    if host.warden is not None:
        # A warden that is gone is met by the run loop, as the end of its channel.
        with contextlib.suppress(OSError):
            host.warden.prepare(policy.instance, policy, artifact.descriptor)
            prepared = True
    try:
        compile_policy(request.document)
    except ConfigError:
        if host.warden is not None and prepared:
            with contextlib.suppress(OSError):
                host.warden.detach(policy.instance)
        raise
    return prepared


def _questions(host: Host, request: RunRequest, base: AuditEvent, terminal: int) -> Questions:
    from supervisor.run.questions import Questions

    keep = functools.partial(keep_policy, host.options.audit_directory)
    return Questions(terminal, request.document, base, host.record, keep)


def _loop(
    host: Host,
    request: RunRequest,
    job: WorkerJob,
    questions: Questions | None,
    worker: Worker,
    quotas: Quotas,
    prepared: bool,
    recovery: Recovery,
    artifact: Artifact,
    streams: RunStreams,
    base: AuditEvent,
    tally: DecisionTally,
    on_denials: Callable[[DecisionTally], None],
) -> RunLoop:
    plan = worker.plan.confinement
    of_run = RunWorker(job, plan, worker.launched, artifact.descriptor, Expected.of(plan, len(job.mounts)))
    return RunLoop(
        worker=of_run,
        warden=RunWarden(job.worker_id, host.mail, prepared, recovery, make_mark()),
        quotas=RunQuotas(quotas, of_run, base, host.writer.local),
        streams=_guest_streams(streams, worker, job.limits.output_bytes),
        base_event=base,
        record_durable=host.record,
        audit_lost=host.audit_lost,
        tally=tally,
        on_fresh_denials=on_denials,
        facts=Facts(job.limits if job.actor is None else replace(job.limits, timeout_ns=job.actor.call_timeout_ns)),
        # An actor's is that of one call, and kept inside.
        timeout_ns=None if job.actor is not None else request.limits.timeout_ns,
        questions=questions,
        reliance=request.reliance,
    )


def _guest_streams(streams: RunStreams, worker: Worker, limit_bytes: int) -> GuestStreams:
    stdin = InputStream(streams.stdin, worker.stdin)
    if streams.stdin is None:
        stdin.finish()
    if streams.log is not None:
        log = streams.log
        stdout = OutputStream(worker.stdout, None, sink=functools.partial(log.feed, STDOUT))
        stderr = OutputStream(worker.stderr, None, sink=functools.partial(log.feed, STDERR))
        return GuestStreams(stdin, stdout, stderr, limit_bytes, log.pace)
    stdout, stderr = (
        OutputStream(source, None) if target is None else _shown(source, target, streams)
        for source, target in ((worker.stdout, streams.stdout), (worker.stderr, streams.stderr))
    )
    return GuestStreams(stdin, stdout, stderr, limit_bytes)


def _shown(source: int, target: int, streams: RunStreams) -> OutputStream:
    line = streams.line if streams.line is not None and streams.line.is_of(target) else None
    return OutputStream(source, target, terminal_filter(target, streams.raw), line=line)
