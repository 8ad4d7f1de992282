"""A record and the policy of its time: what the policy says, where both disagree, and what would have allowed it."""

from __future__ import annotations

import pytest

from ipc.policy.access import AclEntry, Role
from ipc.policy.capability import Grant
from ipc.policy.decision import Allow
from ipc.policy.document import PolicyDocument
from supervisor.audit.event_view import explain_record

DOCUMENT = PolicyDocument(
    component="demo",
    instance="",
    grants=(Grant("filesystem.read", "/in/**/*.csv", "Component.toml:3"), Grant("filesystem.write", "/", "x")),
    acl=(AclEntry("*", "filesystem.write", "/srv/pii/**", "deny", "airssys.toml:9"),),
)


def record(decision: str = "denied", **fields: object) -> dict[str, object]:
    """A record of the log with some of its keys."""
    return {"seq": 7, "event": "denied", "decision": decision, "policy": "0" * 64, "count": 1, **fields}


def test_a_refusal_names_rule_nearest_grant_and_remedy() -> None:
    """What no grant covers comes with the nearest one and the line that would allow it."""
    view = explain_record(record(action="filesystem.read", resource="/in/[a].txt", code="A1203"), DOCUMENT)
    document = view.to_json()
    assert (document["allowed"], document["code"], document["nearest"]) == (False, "A1203", 'read "/in/**/*.csv"')
    assert 'read = ["/in/[[]a].txt"] in Component.toml' in view.to_allow
    assert "--read '/in/[a].txt'" in view.to_allow
    assert view.notes == ()


def test_an_allowed_action_names_its_grant() -> None:
    """What was allowed is allowed by the kept policy too, and nothing has to be remedied."""
    view = explain_record(record("allowed", action="filesystem.read", resource="/in/x/a.csv"), DOCUMENT)
    assert isinstance(view.decision, Allow)
    assert "Component.toml:3" in view.decision.rule
    assert (view.to_allow, view.notes) == ("", ())


def test_a_listing_of_a_directory_is_judged_as_one() -> None:
    """A directory that a `**` leads through may be listed, as the warden decided it with the directory open."""
    view = explain_record(record("allowed", action="filesystem.list", resource="/in/x"), DOCUMENT)
    assert isinstance(view.decision, Allow)


@pytest.mark.parametrize(
    ("code", "action", "resource", "remedy"),
    [
        ("A1101", "filesystem.write", "/home/a/.ssh/id", "No grant and no option lifts this"),
        ("A1102", "filesystem.write", "/sys/x", 'lift_guarded = ["/sys/x"]'),
        ("A1301", "filesystem.write", "/srv/pii/x", "airssys.toml:9"),
        ("A1201", "network.connect", "example.com:443", "[capabilities.network] connect"),
    ],
)
def test_each_step_has_its_remedy(code: str, action: str, resource: str, remedy: str) -> None:
    """Forbidden, guarded, denied by the host, not granted at all: each says what could be done, or that nothing can."""
    view = explain_record(record(action=action, resource=resource, code=code), DOCUMENT)
    assert view.to_json()["code"] == code
    assert remedy in view.to_allow


def test_roles_and_allow_entries_have_their_remedy() -> None:
    """A host's allow list and a role that permit too little are named with what would do."""
    grants = (Grant("filesystem.read", "/in/", "x"),)
    listed = PolicyDocument("demo", "", grants, acl=(AclEntry("demo", "filesystem.read", "/other/**", "allow"),))
    view = explain_record(record(action="filesystem.read", resource="/in/a", code="A1302"), listed)
    assert 'effect = "allow", who = "demo", action = "filesystem.read"' in view.to_allow
    roles = PolicyDocument("demo", "", grants, roles=(Role("r", ("filesystem.read:/b",)),), assigned_roles=("r",))
    view = explain_record(record(action="filesystem.read", resource="/in/a", code="A1401"), roles)
    assert "filesystem.read:/in/a" in view.to_allow


def test_a_refusal_that_was_not_the_policys_says_so() -> None:
    """What the operating system or an operation's own rule refused is told apart from what no grant covers."""
    view = explain_record(record(action="filesystem.read", resource="/in/a.csv", code="A1601"), DOCUMENT)
    assert isinstance(view.decision, Allow)
    assert "another reason: A1601" in view.notes[0]
    assert view.to_allow != ""


def test_an_object_that_is_forbidden_under_any_name_says_so() -> None:
    """A hard link to a key store has a name that the policy allows: the record's own reason stands."""
    view = explain_record(record(action="filesystem.read", resource="/in/a.csv", code="A1101"), DOCUMENT)
    assert isinstance(view.decision, Allow)
    assert "under any name" in view.notes[0]
    assert "No grant and no option lifts this" in view.to_allow


def test_a_record_that_contradicts_its_policy_is_noticed() -> None:
    """Allowed where the policy refuses, or refused where it allows: both are said."""
    allowed = explain_record(record("allowed", action="filesystem.read", resource="/etc/passwd"), DOCUMENT)
    assert "refuses it now" in allowed.notes[0]
    denied = explain_record(record(action="filesystem.read", resource="/in/a.csv", code="A1203"), DOCUMENT)
    assert "allows it now" in denied.notes[0]


def test_events_that_no_policy_decides() -> None:
    """Starts, system calls and cut names are shown with the record alone."""
    assert "names no policy" in explain_record(record("info", policy=""), None).notes[0]
    violation = record(action="process.system_call", resource="59", code="A1701")
    view = explain_record(violation, DOCUMENT)
    assert view.decision is None
    assert view.to_allow != ""
    cut = record(action="filesystem.read", resource="/x...[cut: 9 bytes, sha256 0]", code="A1203")
    assert "cut" in explain_record(cut, DOCUMENT).notes[0]
