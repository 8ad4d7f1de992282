"""Which rules a component meets, and that the strictest of all of them counts."""

from __future__ import annotations

import pytest

from ipc.policy.capability import Grant
from supervisor.approvals.rules import AFTER_REVIEW_S, DEFAULT_EXPIRES_S, is_broad, needed
from supervisor.config.approval_settings import ApprovalRule
from supervisor.config.host_policy import ResolvedQuota
from supervisor.config.quota import Quota

DAY_NS = 86_400 * 10**9
QUOTA = ResolvedQuota(10**8, 1000, 10**7, 10**9, 256 * 10**6)
READ = Grant("filesystem.read", "/srv/logs/app/*.log", "")
WRITE = Grant("filesystem.write", "/srv/out/**", "")
CUSTOM = Grant("custom.payments.refund", "**", "")


def _rule(*when: str, approvers: int = 1, **more: object) -> ApprovalRule:
    return ApprovalRule(when, approvers, source=f"airssys.toml:{approvers}", **more)  # type: ignore[arg-type]


def test_without_a_matching_rule_nothing_is_needed() -> None:
    """No rule, or rules about something else."""
    assert needed((), (READ,), QUOTA) is None
    assert needed((_rule("network.*"),), (READ, WRITE), QUOTA) is None
    assert needed((_rule("*"),), (), QUOTA) is None


@pytest.mark.parametrize("when", ["filesystem.write", "filesystem.*", "*"])
def test_a_rule_names_an_action_or_a_family(when: str) -> None:
    """One grant that it covers is enough."""
    found = needed((_rule(when, approvers=2),), (READ, WRITE), QUOTA)
    assert found is not None
    assert found.approvers == 2
    assert found.rules[0].startswith("airssys.toml:2: filesystem.")


def test_the_strictest_of_all_matching_rules_counts() -> None:
    """The most people, the longest review, the shortest wait, each from whichever rule says it."""
    rules = (
        _rule("filesystem.*", approvers=3, expires_ns=9 * DAY_NS),
        _rule("custom.*", review_ns=DAY_NS, expires_ns=3 * DAY_NS),
        _rule("network.*", approvers=9, review_ns=30 * DAY_NS),
    )
    found = needed(rules, (READ, CUSTOM), QUOTA)
    assert found is not None
    assert (found.approvers, found.review_s, found.expires_s, len(found.rules)) == (3, 86_400, 3 * 86_400, 2)


def test_what_no_rule_says_is_a_week_for_an_answer() -> None:
    """And a rule's own word counts also where it is more; a long review leaves a day for the answer."""
    assert needed((_rule("*"),), (READ,), QUOTA).expires_s == DEFAULT_EXPIRES_S  # type: ignore[union-attr]
    longer = needed((_rule("*", expires_ns=30 * DAY_NS),), (READ,), QUOTA)
    assert longer is not None
    assert longer.expires_s == 30 * 86_400
    rules = (_rule("*", review_ns=10 * DAY_NS), _rule("*", expires_ns=DAY_NS))
    found = needed(rules, (READ,), QUOTA)
    assert found is not None
    assert found.expires_s == 10 * 86_400 + AFTER_REVIEW_S


@pytest.mark.parametrize(("memory_bytes", "matches"), [(10**8, True), (256 * 10**6, False), (10**9, False)])
def test_a_rule_may_be_about_size(memory_bytes: int, matches: bool) -> None:
    """Only who may have more than it names meets it."""
    rule = _rule("*", over=Quota(memory_bytes=memory_bytes))
    assert (needed((rule,), (READ,), QUOTA) is not None) is matches


def test_one_size_of_several_is_enough() -> None:
    """A rule that names several sizes is met by who is over any of them."""
    rule = _rule("*", over=Quota(memory_bytes=10**9, storage_bytes=10**6))
    assert needed((rule,), (READ,), QUOTA) is not None


@pytest.mark.parametrize(
    ("action", "pattern", "broad"),
    [
        ("filesystem.read", "/srv/**", True),
        ("filesystem.read", "/home/alice/", True),
        ("filesystem.read", "/srv/a/**/*.log", True),
        ("filesystem.read", "/srv/logs/app/", False),
        ("filesystem.read", "/srv/*.log", False),
        ("filesystem.read", "/etc/hosts", False),
        ("filesystem.write", "${tmp}/**", False),
        ("network.connect", "*.example.com:443", True),
        ("network.connect", "api.example.com:*", True),
        ("network.connect", "https://api.example.com", False),
        ("network.listen", "127.0.0.1:8080", False),
        ("messaging.publish", "**", True),
        ("messaging.publish", "*.errors", True),
        ("messaging.send", "report-writer", False),
        ("storage.read", "summaries:*", False),
        ("secrets.env", "TOKEN", False),
        ("custom.payments.refund", "**", False),
    ],
)
def test_what_counts_as_broad(action: str, pattern: str, broad: bool) -> None:
    """More than a person can oversee; what is the component's own is not."""
    assert is_broad(Grant(action, pattern, "")) is broad


def test_a_rule_about_broad_patterns_leaves_the_others_alone() -> None:
    """The action and the breadth have to be one grant's."""
    rule = _rule("filesystem.write", broad=True)
    narrow_write, broad_read = (
        Grant("filesystem.write", "/srv/out/a/b.json", ""),
        Grant("filesystem.read", "/srv/**", ""),
    )
    assert needed((rule,), (narrow_write, broad_read), QUOTA) is None
    assert needed((rule,), (WRITE,), QUOTA) is not None
