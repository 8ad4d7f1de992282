"""What a run reports: values for `--json` and `--report`, gathered from the audit records of that run.

Every refusal shown to a person is read from the audit log's own records, not from a second account of events.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ipc.audit.text import unescape
from ipc.messages import LayerReport
from ipc.policy.quota import QuotaLevel
from ipc.struct import Struct, field
from supervisor.run.verdict import Verdict

if TYPE_CHECKING:
    from supervisor.run.usage import Uses

MAX_DENIALS = 1_000
_USES = ("file_access", "file_used")


class Denial(Struct):
    """One distinct refusal, with how often it happened."""

    action: str
    resource: str
    code: str
    reason: str
    rule: str
    nearest: str
    seq: int
    count: int = 0

    def to_json(self) -> dict[str, object]:
        """Return the stable keys of `denials[]`."""
        return {
            "action": self.action,
            "resource": self.resource,
            "code": self.code,
            "reason": self.reason,
            "rule": self.rule,
            "nearest": self.nearest or None,
            "count": self.count,
        }


class DecisionTally(Struct):
    """Counts the decisions of one instance from its audit records, folded ones with their exact count.

    `uses` is kept where a manifest is to be written from them.
    """

    instance: str
    allowed: int = 0
    denied: int = 0
    denials: dict[tuple[str, str, str], Denial] = field(default_factory=dict)
    fresh: list[Denial] = field(default_factory=list)
    uses: Uses | None = None

    def note(self, record: Mapping[str, object]) -> None:
        """Take one stamped record; records of others are ignored."""
        if record.get("instance") != self.instance or not record.get("action"):
            return
        if self.uses is not None and record.get("event") in _USES:
            detail = record.get("detail")
            call, to = (detail.get("call"), detail.get("to")) if isinstance(detail, Mapping) else ("", "")
            action, resource, rule = (str(record.get(key) or "") for key in ("action", "resource", "rule"))
            self.uses.note(action, unescape(resource), str(call), rule)
            if isinstance(to, str) and to:
                self.uses.renamed(unescape(resource), unescape(to))
        counted = record.get("count")
        count = counted if isinstance(counted, int) else 1
        if record.get("decision") == "allowed":
            self.allowed += count
        elif record.get("decision") == "denied":
            self.denied += count
            self._deny(record, count)

    def _deny(self, record: Mapping[str, object], count: int) -> None:
        def text(key: str) -> str:
            value = record.get(key)
            return value if isinstance(value, str) else ""

        key = (text("action"), text("resource"), text("code"))
        denial = self.denials.get(key)
        if denial is None:
            if len(self.denials) >= MAX_DENIALS:
                return
            detail = record.get("detail")
            nearest = detail.get("nearest") if isinstance(detail, Mapping) else None
            seq = record.get("seq")
            denial = Denial(
                *key,
                text("reason"),
                text("rule"),
                nearest if isinstance(nearest, str) else "",
                seq if isinstance(seq, int) else 0,
            )
            self.denials[key] = denial
            self.fresh.append(denial)
        denial.count += count


class CpuUse(Struct, frozen=True):
    """What a run computed, what its component may a second (None: without bound), and how long it was held for that."""

    used_ns: int
    quota_ns_per_s: int | None
    held_ns: int


class RunReport(Struct, frozen=True):
    """Everything that is known of a finished run."""

    verdict: Verdict
    duration_s: float
    peak_memory_bytes: int
    tally: DecisionTally
    confinement: tuple[LayerReport, ...]
    audit_log: str
    stdout: bytes = b""
    stderr: bytes = b""
    notes: tuple[str, ...] = ()
    warden_restarts: int = 0
    storage: QuotaLevel | None = None
    cpu: CpuUse | None = None
    output_lost: str = ""
    """Which output could not be written to where it was to go, and why; a reader that went away is none."""

    def to_json(self) -> dict[str, object]:
        """Return the document of `--json` and `--report` (stable keys)."""
        limit = self.verdict.limit
        document: dict[str, object] = {
            "exit_code": self.verdict.exit_code,
            "outcome": self.verdict.outcome,
            "message": self.verdict.message,
            "code": self.verdict.code or None,
            "duration_s": round(self.duration_s, 6),
            "peak_memory_bytes": self.peak_memory_bytes,
            "storage": None
            if self.storage is None
            else {
                "used_bytes": self.storage.usage,
                "limit_bytes": self.storage.limit,
                "status": self.storage.status,
            },
            "cpu": None
            if self.cpu is None
            else {
                "used_ns": self.cpu.used_ns,
                "quota_ns_per_s": self.cpu.quota_ns_per_s,
                "held_ns": self.cpu.held_ns,
            },
            "decisions": {"allowed": self.tally.allowed, "denied": self.tally.denied},
            "denials": [denial.to_json() for denial in self.tally.denials.values()],
            "limit": None
            if limit is None
            else {
                "name": limit.name,
                "code": limit.code,
                "limit": limit.limit,
                "usage": limit.usage,
                "unit": limit.unit,
            },
            "confinement": [
                {"layer": layer.layer, "status": layer.status, "detail": layer.detail} for layer in self.confinement
            ],
            "audit_log": self.audit_log,
            "warden_restarts": self.warden_restarts,
            "notes": list(self.notes),
        }
        document.update(_stream("stdout", self.stdout))
        document.update(_stream("stderr", self.stderr))
        return document


def _stream(name: str, data: bytes) -> dict[str, object]:
    try:
        return {name: data.decode()}
    except UnicodeDecodeError:
        return {name: data.decode(errors="replace"), f"{name}_base64": base64.b64encode(data).decode()}
