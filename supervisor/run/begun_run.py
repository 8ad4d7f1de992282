"""A run under way, and what is made of it when it is over: its report, and the event that puts its end on record."""

from __future__ import annotations

import os
import time

from ipc.audit.event import AuditEvent
from ipc.policy.quota import QuotaLevel
from ipc.struct import Struct, replace
from supervisor.host.warden_recovery import Recovery
from supervisor.host.workers import Worker
from supervisor.run.loop import RunLoop
from supervisor.run.report import CpuUse, DecisionTally, RunReport
from supervisor.run.request import RunRequest
from supervisor.run.streams import GuestStreams
from supervisor.run.verdict import Facts, Verdict, decide_verdict


class BegunRun(Struct):
    """A run under way: its loop, its worker, and what its report is made from."""

    loop: RunLoop
    worker: Worker
    request: RunRequest
    base_event: AuditEvent
    tally: DecisionTally
    recovery: Recovery
    started_s: float
    ended_s: float = 0.0

    def end(self) -> None:
        """Take down that it is over, and let go of everything that it held."""
        self.ended_s = time.monotonic()
        self.loop.conclude()
        self.worker.release()

    def break_off(self) -> None:
        """Let go of everything wherever it is, because of an error of ours; a second time nothing happens."""
        self.loop.close()
        self.worker.release()

    def verdict(self) -> Verdict:
        """Return how it ended."""
        return decide_verdict(self.loop.facts)

    def conclude(self, audit_log: str) -> tuple[RunReport, AuditEvent]:
        """Return the report of a run that has ended, and the event that puts its end on record."""
        loop, facts = self.loop, self.loop.facts
        verdict = self.verdict()
        duration_s = (self.ended_s or time.monotonic()) - self.started_s
        report = RunReport(
            verdict=verdict,
            duration_s=duration_s,
            peak_memory_bytes=_peak_memory_bytes(loop, facts),
            tally=self.tally,
            confinement=loop.worker.layers,
            audit_log=audit_log,
            stdout=bytes(loop.streams.stdout.captured),
            stderr=bytes(loop.streams.stderr.captured),
            notes=loop.warden.notes + self.recovery.notes(),
            warden_restarts=self.recovery.restarts,
            storage=_storage_level(loop, self.request),
            cpu=_cpu_use(loop, facts),
            output_lost=_output_lost(loop.streams),
        )
        return report, _ended_event(self.base_event, verdict, facts, duration_s, report)


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


def _cpu_use(loop: RunLoop, facts: Facts) -> CpuUse:
    """Return what it computed, by the kernel's word, and how long it was held for its quota."""
    used_ns = 0 if facts.ended is None else facts.ended.user_cpu_ns + facts.ended.system_cpu_ns
    quotas = loop.quotas
    return CpuUse(used_ns, quotas.quotas.cpu_time.per_s, quotas.held_ns(time.monotonic_ns()))


def _ended_event(base: AuditEvent, verdict: Verdict, facts: Facts, duration_s: float, report: RunReport) -> AuditEvent:
    detail: dict[str, object] = {
        "outcome": verdict.outcome,
        "exit_code": verdict.exit_code,
        "duration_ms": round(duration_s * 1000),
        "peak_memory_bytes": report.peak_memory_bytes,
    }
    if facts.ended is not None and report.cpu is not None:
        detail["cpu_ms"] = report.cpu.used_ns // 10**6
        if report.cpu.held_ns:
            detail["held_ms"] = report.cpu.held_ns // 10**6
    if facts.open_files is not None:
        detail["open_files"] = dict(facts.open_files)
    quota = None
    if verdict.limit is not None:
        limit = verdict.limit
        quota = {"name": limit.name, "limit": limit.limit, "usage": limit.usage, "unit": limit.unit}
    event = "worker_limit_reached" if verdict.limit is not None else "worker_ended"
    return replace(
        base, event=event, decision="info", code=verdict.code, reason=verdict.message, quota=quota, detail=detail
    )
