"""Running one request on a host: compile or fetch, fork, attach, run, report. The prose of `airssys run`."""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from ipc import codec
from ipc.audit.event import AuditEvent
from ipc.errors import ConfigError
from ipc.hand_over import make_mark
from ipc.messages import PreparePolicy, WorkerJob
from ipc.policy.decision import compile_policy
from ipc.policy.quota import QuotaLevel
from ipc.struct import Struct, replace
from supervisor.artifacts import ArtifactCache
from supervisor.compilation import Artifact, CompileLimits, Program, obtain
from supervisor.host import Host, new_worker_id
from supervisor.policy_archive import keep_policy
from supervisor.run_loop import RunLoop
from supervisor.run_report import DecisionTally, RunReport
from supervisor.run_request import RunRequest
from supervisor.run_warden import RunWarden
from supervisor.run_worker import RunWorker
from supervisor.streams import GuestStreams, InputStream, OutputStream, terminal_filter
from supervisor.terminal import TerminalLine, visible
from supervisor.verdict import Facts, Verdict, decide_verdict
from supervisor.verify import Expected
from supervisor.warden_recovery import Recovery
from supervisor.workers import Worker

if TYPE_CHECKING:
    from supervisor.questions import Questions


_WASI_SOCKETS = ("wasi:sockets/tcp", "wasi:sockets/udp", "wasi:sockets/ip-name-lookup")
"""What of it opens sockets or looks up names; the rest gives handles and types only."""
_IMPORTS_SHOWN_MAX = 16


class RunStreams(Struct, frozen=True):
    """Where the guest's streams go. None as a target captures into memory; None as the source is an empty input."""

    stdin: int | None
    stdout: int | None
    stderr: int | None
    raw: bool = False
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
    cache = ArtifactCache(os.path.join(host.options.state_directory, "cache"))
    program = Program.open(request.wasm_path)
    try:
        if request.granted_sha256 not in ("", program.sha256):
            raise ConfigError(f"{visible(request.wasm_path)}: changed after it was granted what it asks; run it again")
        with host.compiler_confinement() as plan:
            artifact = obtain(
                program,
                request.engine,
                cache,
                host.zygote,
                plan,
                host.origin,
                compile_limits,
                on_progress,
                host.interrupted,
            )
    finally:
        program.close()
    try:
        return _run(host, request, streams, artifact, on_denials, terminal)
    finally:
        os.close(artifact.descriptor)


def _run(
    host: Host,
    request: RunRequest,
    streams: RunStreams,
    artifact: Artifact,
    on_denials: Callable[[DecisionTally], None],
    terminal: int,
) -> RunReport:
    instance = new_worker_id(request.component)
    digest = request.document.digest()
    base = AuditEvent(
        event="",
        component=request.component,
        instance=instance,
        component_digest=artifact.record.wasm_sha256,
        trust=request.trust,
        policy=digest,
        approval=request.approval,
    )
    policy = PreparePolicy(
        document=codec.pack_map(request.document.to_wire()),
        component=request.component,
        instance=instance,
        component_digest=artifact.record.wasm_sha256,
        trust=request.trust,
        policy_digest=digest,
        mounts=request.mounts,
        ask=request.ask,
        learn=request.learn,
        storage=request.storage_bounds(),
    )
    host.ensure_warden()
    prepared = _prepare(host, request, artifact, policy)
    # Before any record names it; while the warden gets ready, this costs nothing.
    keep_policy(host.options.audit_directory, request.document, digest)
    tally = DecisionTally(instance)
    if request.learn:
        from supervisor.usage import Uses

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
    )
    started = time.monotonic()
    recovery = Recovery(host.supply, policy, instance, artifact.descriptor, base, host.record)
    worker = host.workers.take(request.kind, request.engine)
    try:
        questions = _questions(host, request, base, terminal) if request.ask else None
        timeout_ns = request.limits.timeout_ns
        loop = _loop(
            host,
            job,
            timeout_ns,
            questions,
            worker,
            prepared,
            recovery,
            artifact,
            streams,
            base,
            tally,
            on_denials,
        )
        facts = loop.run()
    finally:
        worker.release()
    host.writer.flush()
    while host.records:
        tally.note(host.records.popleft())
    on_denials(tally)
    verdict = decide_verdict(facts)
    duration_s = time.monotonic() - started
    peak = _peak_memory_bytes(loop, facts)
    host.record(_ended_event(base, verdict, facts, duration_s, peak))
    return RunReport(
        verdict=verdict,
        duration_s=duration_s,
        peak_memory_bytes=peak,
        tally=tally,
        confinement=loop.worker.layers,
        audit_log=host.options.audit_directory,
        stdout=bytes(loop.streams.stdout.captured),
        stderr=bytes(loop.streams.stderr.captured),
        notes=loop.warden.notes + recovery.notes(),
        warden_restarts=recovery.restarts,
        storage=_storage_level(loop, request),
        output_lost=_output_lost(loop.streams),
    )


def _note_sockets(host: Host, base: AuditEvent, imports: tuple[str, ...]) -> None:
    """Put on record that it can ask for sockets: the engine refuses each call by itself, where no record is made."""
    sockets = [name for name in imports if name.startswith(_WASI_SOCKETS)]
    if sockets:
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
    from supervisor.questions import Questions

    keep = functools.partial(keep_policy, host.options.audit_directory)
    return Questions(terminal, request.document, base, host.record, keep)


def _loop(
    host: Host,
    job: WorkerJob,
    timeout_ns: int | None,
    questions: Questions | None,
    worker: Worker,
    prepared: bool,
    recovery: Recovery,
    artifact: Artifact,
    streams: RunStreams,
    base: AuditEvent,
    tally: DecisionTally,
    on_denials: Callable[[DecisionTally], None],
) -> RunLoop:
    plan = worker.plan.confinement
    return RunLoop(
        worker=RunWorker(job, plan, worker.launched, artifact.descriptor, Expected.of(plan, len(job.mounts))),
        warden=RunWarden(job.worker_id, host.mail, prepared, recovery, make_mark()),
        streams=_guest_streams(streams, worker, job.limits.output_bytes),
        base_event=base,
        record_durable=host.record,
        records=host.records,
        records_ready=host.records_ready[0],
        audit_lost=host.audit_lost,
        tally=tally,
        on_fresh_denials=on_denials,
        signals=host.signals.fileno(),
        facts=Facts(job.limits),
        timeout_ns=timeout_ns,
        questions=questions,
    )


def _guest_streams(streams: RunStreams, worker: Worker, limit_bytes: int) -> GuestStreams:
    stdin = InputStream(streams.stdin, worker.stdin)
    if streams.stdin is None:
        stdin.finish()
    stdout, stderr = (
        OutputStream(source, None) if target is None else _shown(source, target, streams)
        for source, target in ((worker.stdout, streams.stdout), (worker.stderr, streams.stderr))
    )
    return GuestStreams(stdin, stdout, stderr, limit_bytes)


def _shown(source: int, target: int, streams: RunStreams) -> OutputStream:
    line = streams.line if streams.line is not None and streams.line.is_of(target) else None
    return OutputStream(source, target, terminal_filter(target, streams.raw), line)


def _peak_memory_bytes(loop: RunLoop, facts: Facts) -> int:
    # What the worker says is a claim: it counts only where the kernel's word is missing.
    return facts.ended.max_rss_bytes if facts.ended is not None else loop.worker.claimed_peak_bytes


def _output_lost(streams: GuestStreams) -> str:
    for name, stream in (("output", streams.stdout), ("error", streams.stderr)):
        if stream.lost_errno:
            return f"its standard {name} can't be written: {os.strerror(stream.lost_errno)}"
    return ""


def _storage_level(loop: RunLoop, request: RunRequest) -> QuotaLevel | None:
    """Return how full its storage quota was at the end; None where nothing was counted."""
    limit = request.limits.storage_bytes
    return (
        None
        if limit is None or loop.warden.storage_bytes is None
        else QuotaLevel("storage", loop.warden.storage_bytes, limit)
    )


def _ended_event(base: AuditEvent, verdict: Verdict, facts: Facts, duration_s: float, peak: int) -> AuditEvent:
    detail: dict[str, object] = {
        "outcome": verdict.outcome,
        "exit_code": verdict.exit_code,
        "duration_ms": round(duration_s * 1000),
        "peak_memory_bytes": peak,
    }
    if facts.ended is not None:
        detail["cpu_ms"] = (facts.ended.user_cpu_ns + facts.ended.system_cpu_ns) // 10**6
    quota = None
    if verdict.limit is not None:
        limit = verdict.limit
        quota = {"name": limit.name, "limit": limit.limit, "usage": limit.usage, "unit": limit.unit}
    event = "worker_limit_reached" if verdict.limit is not None else "worker_ended"
    return replace(
        base, event=event, decision="info", code=verdict.code, reason=verdict.message, quota=quota, detail=detail
    )
