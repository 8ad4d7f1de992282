"""One record of the audit log beside the policy that was in force: what it decides of the same action. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from ipc.codes import CODES
from ipc.policy.capability import is_action
from ipc.policy.decision import Allow, Decision, compile_policy
from ipc.policy.document import PolicyDocument
from ipc.struct import Struct
from supervisor.grants.remedy import what_would_allow

EVENT_KEYS = (
    "seq",
    "time",
    "event",
    "component",
    "instance",
    "component_digest",
    "trust",
    "action",
    "resource",
    "decision",
    "code",
    "reason",
    "rule",
    "layer",
    "approval",
    "count",
    "detail",
)
_DECIDED_BY_POLICY = ("A1101", "A1102", "A1201", "A1203", "A1207", "A1301", "A1302", "A1401")
_CUT = "...[cut: "


class EventView(Struct, frozen=True):
    """An event and its explanation; `decision` is None where the policy has nothing to say of it."""

    event: Mapping[str, object]
    policy: str
    identity: str
    decision: Decision | None
    to_allow: str
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        """Return all of it under stable keys."""
        decision = self.decision
        refused = None if decision is None or isinstance(decision, Allow) else decision
        return {
            "event": dict(self.event),
            "policy": self.policy or None,
            "identity": self.identity or None,
            "allowed": None if decision is None else isinstance(decision, Allow),
            "rule": None if decision is None else decision.rule,
            "code": None if refused is None else refused.code,
            "reason": None if refused is None else refused.reason,
            "nearest": None if refused is None else refused.nearest,
            "to_allow": self.to_allow or None,
            "notes": list(self.notes),
        }


def text_of(record: Mapping[str, object], key: str) -> str:
    """Return a text of a record, "" where it says nothing."""
    value = record.get(key)
    return value if isinstance(value, str) else ""


def explain_record(record: Mapping[str, object], document: PolicyDocument | None) -> EventView:
    """Judge the record's action by the document that it names; raises ConfigError where that can't be compiled."""
    event = {key: record.get(key) for key in EVENT_KEYS}
    action, resource, code = (text_of(record, key) for key in ("action", "resource", "code"))
    identity = document.identity if document is not None else text_of(record, "component")
    notes: list[str] = []
    decision: Decision | None = None
    if document is None:
        notes.append("this event names no policy: it isn't about what a component may do")
    elif not is_action(action) or not resource:
        notes.append("this event is about no action that a policy decides")
    elif _CUT in resource:
        notes.append("the name was too long for a record and was cut, so the policy can't be asked about it again")
    else:
        decision = _decide(document, action, resource)
        notes += _disagreements(text_of(record, "decision"), code, decision)
    to_allow = ""
    if text_of(record, "decision") == "denied":
        refused = None if decision is None or isinstance(decision, Allow) else decision
        rule = text_of(record, "rule") if refused is None else refused.rule
        to_allow = what_would_allow(code if refused is None else refused.code, action, resource, rule, identity)
    return EventView(event, text_of(record, "policy"), identity, decision, to_allow, tuple(notes))


def _decide(document: PolicyDocument, action: str, resource: str) -> Decision:
    policy = compile_policy(document)
    # What the log calls a listing was asked about a directory that the warden had open.
    return policy.decide_listing(resource) if action == "filesystem.list" else policy.decide(action, resource)


def _disagreements(recorded: str, code: str, decision: Decision) -> list[str]:
    allowed = isinstance(decision, Allow)
    if recorded == "denied" and allowed and code in ("A1101", "A1102"):
        # The warden also knows forbidden objects by device and inode, and guarded ones by their file system.
        return ["the policy allows the name; what lies there is forbidden or guarded under any name"]
    if recorded == "denied" and allowed:
        if code not in _DECIDED_BY_POLICY:
            page = CODES.get(code)
            what = f" ({page.title})" if page is not None else ""
            return [f"the policy allows it; it was refused for another reason: {code}{what}"]
        return ["the kept policy allows it now: the rules are read otherwise by this version than by the one that ran"]
    if recorded in ("allowed", "performed") and not allowed:
        return ["the kept policy refuses it now: the rules are read otherwise by this version, or this machine changed"]
    return []
