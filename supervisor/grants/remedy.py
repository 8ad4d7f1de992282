"""What would have allowed what was refused, in a sentence for the person who may change it. Pure."""

from __future__ import annotations

import json

from ipc.codes import CODES
from ipc.policy.capability import FILE_ACTIONS
from ipc.policy.patterns import literal_pattern_text
from ipc.policy.rules import NOT_GRANTED
from supervisor.report import shell_quoted


def what_would_allow(code: str, action: str, resource: str, rule: str, identity: str) -> str:
    """Return the remedy for a refusal of `identity`; the advice of the code's page where there is no better one."""
    place, _, verb = action.rpartition(".")
    if code in NOT_GRANTED and action in FILE_ACTIONS:
        pattern = json.dumps(literal_pattern_text(resource), ensure_ascii=False)
        return f"[capabilities.filesystem] {verb} = [{pattern}] in Component.toml, or --{verb} {shell_quoted(resource)}"
    if code in NOT_GRANTED and place.startswith("custom."):
        return f'"{verb}" in actions of [capabilities.{place}] in Component.toml'
    if code in NOT_GRANTED and place:
        return f"[capabilities.{place}] {verb} in Component.toml"
    if code == "A1102":
        lifted = json.dumps(resource, ensure_ascii=False)
        return f'[components."{identity}"] lift_guarded = [{lifted}] in airssys.toml, beside a grant that covers it'
    if code == "A1301":
        return f"without this entry of the host it would go on to the roles: {rule}"
    if code == "A1302":
        return f'an [[acl]] entry in airssys.toml: effect = "allow", who = "{identity}", action = "{action}"'
    if code == "A1401":
        return f"a role of {identity} in airssys.toml with the permission {action}:{literal_pattern_text(resource)}"
    page = CODES.get(code)
    return page.advice if page is not None else ""
