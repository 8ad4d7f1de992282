"""Which `[[approvals.rules]]` a component meets, and what the strictest of them takes. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Final

from ipc.policy.access import action_covers
from ipc.policy.capability import FILE_ACTIONS, Grant, is_endpoint_action, parse_grant_pattern
from ipc.policy.endpoints import EndpointPattern
from ipc.policy.patterns import Form, Pattern
from ipc.struct import Struct
from supervisor.config.approval_settings import ApprovalRule
from supervisor.config.host_policy import ResolvedQuota
from supervisor.config.units import counted

DEFAULT_EXPIRES_S: Final = 7 * 86_400
"""How long a request waits for its answer where no rule says less."""
AFTER_REVIEW_S: Final = 86_400
"""How long it waits at least once its review time is over."""
_QUOTAS: Final = (
    "storage_bytes",
    "message_rate_per_s",
    "network_bandwidth_bytes_per_s",
    "cpu_time_ns_per_s",
    "memory_bytes",
)
_DEEP_NAMES: Final = 3


class Needed(Struct, frozen=True):
    """What an approval takes: so many people, so long a review, and until when; `rules` says which rules want it."""

    approvers: int = 1
    review_s: int = 0
    expires_s: int = DEFAULT_EXPIRES_S
    rules: tuple[str, ...] = ()


def needed(rules: Sequence[ApprovalRule], grants: Sequence[Grant], quota: ResolvedQuota) -> Needed | None:
    """Return what the strictest of all matching rules takes, of each kind; None where none matches."""
    matching = [(rule, found) for rule in rules if (found := _matching(rule, grants, quota)) is not None]
    if not matching:
        return None
    expiries = [rule.expires_ns // 10**9 for rule, _ in matching if rule.expires_ns is not None]
    # Up, so that less than a second is no less.
    review_s = max(-(-rule.review_ns // 10**9) for rule, _ in matching)
    # One rule's long review and another's short expiry would be a request that nobody can approve.
    least_s = review_s + AFTER_REVIEW_S if review_s else 1
    return Needed(
        approvers=max(rule.approvers for rule, _ in matching),
        review_s=review_s,
        expires_s=max(least_s, min(expiries, default=DEFAULT_EXPIRES_S)),
        rules=tuple(_words(rule, found) for rule, found in matching),
    )


def _matching(rule: ApprovalRule, grants: Sequence[Grant], quota: ResolvedQuota) -> str | None:
    """Return which action meets the rule, None where nothing does: every condition that is written has to hold."""
    if not _is_over(rule, quota):
        return None
    for grant in grants:
        if any(action_covers(family, grant.action) for family in rule.when) and (not rule.broad or is_broad(grant)):
            return grant.action
    return None


def _is_over(rule: ApprovalRule, quota: ResolvedQuota) -> bool:
    """Whether it has more than one of the amounts that the rule names, if it names any."""
    stated = [(name, amount) for name in _QUOTAS if (amount := getattr(rule.over, name)) is not None]
    return not stated or any(getattr(quota, name) > amount for name, amount in stated)


def _words(rule: ApprovalRule, action: str) -> str:
    broad = " (a broad pattern)" if rule.broad else ""
    return f"{rule.source}: {action}{broad} takes {counted(rule.approvers, 'approver')}"


def is_broad(grant: Grant) -> bool:
    """Whether a pattern covers more than a person can oversee.

    Of files: a tree, or what a `**` covers, with fewer than three names before the first wildcard. Of endpoints: a
    wildcard in the host's name, or any port. Of names and keys: a wildcard in the first segment.
    """
    if grant.action == "secrets.env" or grant.action.startswith("custom."):
        return False
    # By its name it is the component's own.
    if grant.pattern_text.startswith("${"):
        return False
    pattern = parse_grant_pattern(grant.action, grant.pattern_text)
    if isinstance(pattern, EndpointPattern):
        return is_endpoint_action(grant.action) and (pattern.port is None or not _is_literal(pattern.host))
    literal = len(list(takewhile(lambda token: isinstance(token, str), pattern.tokens)))
    if grant.action in FILE_ACTIONS:
        return (pattern.form is not Form.EXACT or None in pattern.tokens) and literal < _DEEP_NAMES
    return literal == 0


def _is_literal(pattern: Pattern) -> bool:
    return pattern.form is Form.EXACT and all(isinstance(token, str) for token in pattern.tokens)
