"""How the status of a supervisor reads: rows of a table for a person, stable keys for a program. Pure."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from ipc.policy.quota import QuotaLevel, amount_words
from supervisor.config.units import UNLIMITED, when
from supervisor.control.messages import ComponentStatus, ProviderStatus, QuotaStatus, SupervisorStatus
from supervisor.fleet.lifecycle import Phase
from supervisor.terminal import visible

_MEMORY: Final = "MEMORY".ljust(len("61.4k/256M"))
"""As wide as most of what stands below it, so that the table stays where it is while the numbers change."""
HEADINGS: Final = ("NAME", "PHASE", "HEALTH", "VERSION", "SINCE", _MEMORY, "DENIED", "")
QUOTA_HEADINGS: Final = ("NAME", "QUOTA", "USAGE", "", "STATUS", "PEAK")
COLOURS: Final[dict[str, str]] = {Phase.FAILED: "31", Phase.RECONNECTING: "33", Phase.RUNNING: "32"}
"""A phase → the colour in which it is shown (an SGR number)."""
DIGEST_SHOWN: Final = 8
_SAYS_HEALTH: Final = (Phase.RUNNING, Phase.RECONNECTING)


def status_row(status: ComponentStatus, now_ns: int) -> tuple[str, ...]:
    """Return the row of one component."""
    # A command is never asked.
    health = visible(status.health) if status.kind == "actor" and status.phase in _SAYS_HEALTH else ""
    since = duration_words((now_ns - status.since_ns) / 1e9) if status.since_ns else ""
    memory = ""
    if status.pid or status.memory_bytes:
        memory = f"{size_words(status.memory_bytes)}/{size_words(status.memory_limit_bytes)}"
    denied = str(status.denied) if status.denied else ""
    dev = "DEV MODE" if status.trust == "dev" else ""
    said = "; ".join(part for part in (dev, visible(status.ended), visible(status.change)) if part)
    return status.name, status.phase, health, version_words(status), since, memory, denied, said


def version_words(status: ComponentStatus) -> str:
    """Return its version, and how its package's digest begins where it has one."""
    return visible(f"{status.version} {status.package[:DIGEST_SHOWN]}".rstrip())


def quota_row(status: QuotaStatus) -> tuple[str, ...]:
    """Return the row of one quota of one component."""
    level = quota_level(status)
    share = "" if level.limit is None else f"{level.percent} %"
    peak = "" if level.peak is None else amount_words(level.peak, level.unit)
    return status.component, f"{status.quota} {status.part}".rstrip(), level.words, share, level.status, peak


def table_lines(rows: Sequence[tuple[str, ...]], headings: tuple[str, ...] = HEADINGS, columns: int = 0) -> list[str]:
    """Return a table with its headings, each column as wide as its widest cell.

    Where it is wider than so many `columns` (0: there is no terminal), what its last one says stands beneath each row.
    """
    cells = [headings, *rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headings))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    if not columns or max(map(len, lines)) <= columns:
        return lines
    narrower = table_lines([row[:-1] for row in rows], headings[:-1])
    last = headings[-1].lower()
    beneath = ["", *(f"\n    {last} {row[-1]}" if last else f"\n    {row[-1]}" for row in rows)]
    return [line + (more if row[-1] else "") for line, more, row in zip(narrower, beneath, cells, strict=True)]


def size_words(size_bytes: int) -> str:
    """Say a size in at most five characters."""
    for unit_bytes, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if size_bytes >= unit_bytes:
            return f"{size_bytes / unit_bytes:.3g}{unit}"
    return f"{size_bytes}B"


def duration_words(seconds: float) -> str:
    """Say how long something takes already, in its two largest units."""
    whole = max(0, int(seconds))
    for unit_s, unit, smaller_s, smaller in ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if whole >= unit_s:
            return f"{whole // unit_s}{unit}{whole % unit_s // smaller_s}{smaller}"
    return f"{whole}s"


def supervisor_lines(status: SupervisorStatus, found_by: str) -> list[str]:
    """Return what is said of the supervisor itself, the one that was asked first of all."""
    up = duration_words((time.time_ns() - status.started_ns) / 1e9)
    lines = [f"supervisor {visible(status.socket)} ({found_by}), pid {status.pid}, up {up}, files as {status.run_as}"]
    if status.stopping:
        lines.append("it is ending")
    if status.trouble:
        lines.append(f"nothing is allowed at the moment: {visible(status.trouble)}")
    return lines


def component_details(status: ComponentStatus) -> list[str]:
    """Return what there is to say of one component besides its row."""
    facts = {
        "version": status.version,
        "package": status.package,
        "kind": status.kind,
        "directory": status.directory,
        "instance": status.instance,
        "pid": str(status.pid) if status.pid else "",
        "trust": status.trust,
        "approval": status.approval + (f", until {when(status.approved_until_s)}" if status.approved_until_s else ""),
        "roles": ", ".join(status.roles),
        "health": status.health if status.kind == "actor" else "",
        "decisions": f"{status.allowed} allowed, {status.denied} denied",
    }
    return [f"  {key:<10} {visible(value)}" for key, value in facts.items() if value]


def component_json(status: ComponentStatus) -> dict[str, object]:
    """Return a component under stable keys; null where there is nothing to say."""
    return {
        "name": status.name,
        "version": status.version,
        "package": status.package or None,
        "change": status.change or None,
        "kind": status.kind or None,
        "phase": status.phase,
        "instance": status.instance or None,
        "directory": status.directory,
        "trust": status.trust,
        "approval": status.approval,
        "approved_until": status.approved_until_s,
        "roles": list(status.roles),
        "health": status.health,
        "pid": status.pid or None,
        "since": status.since_ns / 1e9 if status.since_ns else None,
        "memory_bytes": status.memory_bytes,
        "memory_limit_bytes": status.memory_limit_bytes,
        "decisions": {"allowed": status.allowed, "denied": status.denied},
        "outcome": status.outcome or None,
        "exit_code": status.exit_code if status.outcome else None,
        "code": status.code or None,
        "ended": status.ended or None,
    }


def supervisor_json(status: SupervisorStatus, found_by: str) -> dict[str, object]:
    """Return the supervisor under stable keys."""
    return {
        "socket": status.socket,
        "found_by": found_by,
        "pid": status.pid,
        "version": status.version,
        "state_directory": status.state_directory,
        "started": status.started_ns / 1e9,
        "run_as": status.run_as,
        "stopping": status.stopping,
        "trouble": status.trouble or None,
    }


def provider_line(status: ProviderStatus) -> str:
    """Return what is said of one provider."""
    counts = ""
    if status.calls >= 0:
        failed = f" ({status.failed} with an error)" if status.failed else ""
        counts = f", {status.calls} call{'s' * (status.calls != 1)}{failed}"
        counts += f", {status.busy} under way" if status.busy else ""
        counts += f", {status.waiting} waiting" if status.waiting else ""
    why = f"; last it ended because: {visible(status.reason)}" if status.reason else ""
    return f"provider {status.name} ({', '.join(status.capabilities)}): {status.state}{counts}{why}"


def provider_json(status: ProviderStatus) -> dict[str, object]:
    """Return a provider under stable keys; null where it isn't known at the moment."""
    known = status.calls >= 0
    return {
        "name": status.name,
        "capabilities": list(status.capabilities),
        "program": status.program,
        "state": status.state,
        "pids": list(status.pids),
        "calls": status.calls if known else None,
        "failed": status.failed if known else None,
        "busy": status.busy if known else None,
        "waiting": status.waiting if known else None,
        "reason": status.reason or None,
    }


def quota_level(status: QuotaStatus) -> QuotaLevel:
    """Return a quota as a level, with its status and its words."""
    unlimited = status.limit is None or status.limit >= UNLIMITED
    return QuotaLevel(status.quota, status.usage, None if unlimited else status.limit, status.unit, status.peak)
