"""How a component's state reads: what each kind of it says in the table and under stable keys."""

from __future__ import annotations

import pytest

from ipc.struct import replace
from supervisor.control.messages import ComponentStatus, ProviderStatus, QuotaStatus
from supervisor.control.status_view import (
    component_details,
    component_json,
    provider_json,
    provider_line,
    quota_row,
    status_row,
    table_lines,
)

ONE = ComponentStatus(
    name="one",
    version="1.0.0",
    kind="actor",
    phase="running",
    instance="one-1a2b",
    directory="/srv/one",
    health="degraded",
    pid=7,
    since_ns=10**9,
    memory_bytes=2 * 10**6,
    memory_limit_bytes=256 * 10**6,
    allowed=3,
    denied=1,
    outcome="",
    exit_code=0,
    code="",
    ended="",
    trust="unknown",
    approval="asked",
    package="0a1b2c3d4e5f",
    change="1.1.0 failed",
)


@pytest.mark.parametrize(
    ("changes", "health"),
    [
        ({}, "degraded"),
        ({"health": "unknown"}, "unknown"),
        ({"phase": "reconnecting"}, "degraded"),
        ({"phase": "starting"}, ""),
        ({"phase": "failed"}, ""),
        ({"kind": "command", "health": "unknown"}, ""),
    ],
)
def test_the_table_shows_what_an_actor_says_of_its_health(changes: dict[str, str], health: str) -> None:
    """While it is up; of a command, which is never asked, nothing."""
    row = status_row(replace(ONE, **changes), 4 * 10**9)  # type: ignore[arg-type]
    assert dict(zip(("name", "phase", "health"), row, strict=False)) == {
        "name": "one",
        "phase": changes.get("phase", "running"),
        "health": health,
    }
    assert component_json(replace(ONE, **changes))["health"] == changes.get("health", "degraded")  # type: ignore[arg-type]


def test_the_table_has_a_column_for_each_thing() -> None:
    """Headings and cells stand below each other, and a component in detail has its health too."""
    assert table_lines([status_row(ONE, 4 * 10**9)]) == [
        "NAME  PHASE    HEALTH    VERSION         SINCE  MEMORY      DENIED",
        "one   running  degraded  1.0.0 0a1b2c3d  3s     2M/256M     1       1.1.0 failed",
    ]
    assert "  health     degraded" in component_details(ONE)


def test_it_says_by_which_approval_until_when_and_in_which_roles() -> None:
    """For a person in a line each where there is something to say; for a program always."""
    assert not [line for line in component_details(ONE) if "until" in line or "roles" in line]
    assert component_json(ONE)["roles"] == []
    assert component_json(ONE)["approved_until"] is None
    limited = replace(ONE, approval="approval 4", approved_until_s=1_800_000_000, roles=("reporter", "keeper"))
    assert "  approval   approval 4, until 2027-01-15T08:00:00Z" in component_details(limited)
    assert "  roles      reporter, keeper" in component_details(limited)
    assert component_json(limited)["approved_until"] == 1_800_000_000
    assert component_json(limited)["roles"] == ["reporter", "keeper"]


def test_what_is_too_wide_goes_on_beneath() -> None:
    """On a narrow terminal the last column stands below its row, by its name; a wide one, and none, leave the table."""
    rows, headings = [("one", "directory /srv/one"), ("two", "")], ("NAME", "FROM")
    whole = ["NAME  FROM", "one   directory /srv/one", "two"]
    assert table_lines(rows, headings) == table_lines(rows, headings, 24) == whole
    assert table_lines(rows, headings, 23) == ["NAME", "one\n    from directory /srv/one", "two"]


def test_a_provider_reads_as_one_line() -> None:
    """Its state, what was asked of it, and why a process of it died last; what isn't known is left out."""
    one = ProviderStatus("sql", ("orders",), "m:f", "ready", (7,), 3, 1, 1, 2, "")
    assert provider_line(one) == "provider sql (orders): ready, 3 calls (1 with an error), 1 under way, 2 waiting"
    away = replace(one, state="failing", pids=(), calls=-1, failed=-1, busy=-1, waiting=-1, reason="no module \x1b[2J")
    assert provider_line(away) == "provider sql (orders): failing; last it ended because: no module \\x1b[2J"
    assert provider_json(away)["calls"] is None
    assert provider_json(one) == {
        "name": "sql",
        "capabilities": ["orders"],
        "program": "m:f",
        "state": "ready",
        "pids": [7],
        "calls": 3,
        "failed": 1,
        "busy": 1,
        "waiting": 2,
        "reason": None,
    }


def test_a_quota_has_a_row() -> None:
    """Whose, which, how much of how much, how many percent, the status, and the peak where one is watched."""
    level = QuotaStatus("counter", "memory", 200 * 10**6, 256 * 10**6, "bytes", peak=250 * 10**6)
    assert quota_row(level) == ("counter", "memory", "200 MB of 256 MB", "78 %", "ok", "250 MB")
    files = QuotaStatus("counter", "storage", 0, None, "bytes", "files")
    assert quota_row(files)[1:4] == ("storage files", "0 B of unlimited", "")
