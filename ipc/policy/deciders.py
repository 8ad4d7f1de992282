"""From the raw name of a resource to a decision, for each kind of action: files, names, network endpoints."""

from collections.abc import Sequence
from typing import Final, Protocol

from ipc.policy.capability import ABNORMAL_SEGMENTS, normalise_name, path_segments, separator_of
from ipc.policy.endpoints import Endpoint, parse_endpoint
from ipc.policy.forbidden import ForbiddenPaths, Refusal, fold_segments
from ipc.policy.patterns import Malformed, split_resource
from ipc.policy.rules import DEFAULT_RULE, ActionRules, Allow, Decision, Deny, PathRules

CACHED_DECISIONS_MAX: Final = 4096
"""Decisions kept of each action of a policy."""
CACHED_RESOURCE_MAX_CHARS: Final = 512
"""Longer resources are decided anew each time, so that a component can't fill memory with names."""

_WRITE: Final = "filesystem.write"
_LIST: Final = "filesystem.list"


class Decider(Protocol):
    """What decides one action on any resource, and remembers."""

    seen: dict[str, Decision]

    def decide(self, resource: str) -> Decision:
        """Decide anew."""


class FileDecider:
    """Decides one file action: the forbidden paths first, then the rules."""

    __slots__ = ("_forbidden", "_hints", "_implied", "_rules", "_writing", "seen")

    def __init__(self, action: str, rules: PathRules, forbidden: ForbiddenPaths, implied_list: PathRules) -> None:
        """Take the rules of the action, and those of listings that reading implies."""
        self.seen: dict[str, Decision] = {}
        self._rules = rules
        self._forbidden = forbidden
        self._writing = action == _WRITE
        self._implied = implied_list if action == _LIST else None
        self._hints = forbidden.hints(self._writing)

    def decide(self, resource: str) -> Decision:
        """The hot path of the product: each line here is paid for by every new name."""
        # Nearly every name is short ASCII in normal form, and holds no segment that any forbidden path has.
        if (
            len(resource) > CACHED_RESOURCE_MAX_CHARS
            or not resource.isascii()
            or "\0" in resource
            or resource[:1] != "/"
        ):
            return self._decide_unusual(resource)
        segments = resource[1:].split("/")
        lower = resource.lower()  # of ASCII, the same as folding its case
        folded = segments if lower == resource else lower[1:].split("/")
        if not self._hints.isdisjoint(folded):
            if not ABNORMAL_SEGMENTS.isdisjoint(segments):
                return self._decide_unusual(resource)
            refusal = self._forbidden.find(resource, segments, folded, self._writing)
            if refusal is not None:
                return _forbidden(refusal)
        if self._implied is None:
            return self._rules.decide(segments)
        return self._decide_listing(segments)

    def _decide_unusual(self, resource: str) -> Decision:
        segments = path_segments(resource)
        if isinstance(segments, Malformed):
            return _malformed(segments)
        path = resource if resource[-1] != "/" or resource == "/" else resource[:-1]
        refusal = self._forbidden.find(path, segments, fold_segments(segments, path), self._writing)
        if refusal is not None:
            return _forbidden(refusal)
        return self._decide_listing(segments)

    def _decide_listing(self, segments: Sequence[str]) -> Decision:
        decision = self._rules.decide(segments)
        if self._implied is None or isinstance(decision, Allow):
            return decision
        return later(decision, self._implied.decide(segments))


class NameDecider:
    """Decides one action on topics, names or storage keys."""

    __slots__ = ("_rules", "_separator", "seen")

    def __init__(self, action: str, rules: PathRules) -> None:
        """Take the rules of the action."""
        self.seen: dict[str, Decision] = {}
        self._rules = rules
        self._separator = separator_of(action)

    def decide(self, resource: str) -> Decision:
        """The decision of the rules, if the name is well formed."""
        name = normalise_name(resource, self._separator)
        if isinstance(name, Malformed):
            return _malformed(name)
        return self._rules.decide(split_resource(name, self._separator))


class EndpointDecider:
    """Decides one action on network endpoints."""

    __slots__ = ("_rules", "seen")

    def __init__(self, rules: ActionRules[Endpoint]) -> None:
        """Take the rules of the action."""
        self.seen: dict[str, Decision] = {}
        self._rules = rules

    def decide(self, resource: str) -> Decision:
        """The decision of the rules, if the endpoint is well formed."""
        endpoint = parse_endpoint(resource)
        return _malformed(endpoint) if isinstance(endpoint, Malformed) else self._rules.decide(endpoint)


def no_grant(action: str) -> Deny:
    """The denial of an action of which the component has no grant at all, whatever the resource."""
    return Deny("A1201", f"the component has no grant for {action}", DEFAULT_RULE)


def later(one: Deny, other: Decision) -> Decision:
    """The allowance, or the denial that came furthest: no grant, not covered, refused by the host."""
    return other if isinstance(other, Allow) or other.code > one.code else one


def _malformed(problem: Malformed) -> Deny:
    return Deny("A1207", f"the name is malformed: {problem.reason}", "names are in their one normal form")


def _forbidden(refusal: Refusal) -> Deny:
    return Deny("A1102" if refusal.guarded else "A1101", refusal.reason, refusal.rule)
