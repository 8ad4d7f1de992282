"""The rules for one action, compiled: the component's grants, then the host's ACL, then its roles."""

from collections.abc import Callable, Sequence
from typing import Final, Generic, Protocol, TypeVar

from ipc.errors import ConfigError
from ipc.policy.access import AclEntry
from ipc.policy.capability import Grant, implied_listing, parse_grant_pattern, separator_of
from ipc.policy.endpoints import Endpoint, EndpointPattern
from ipc.policy.index import NOTHING, PatternIndex
from ipc.policy.patterns import Form, Pattern, PatternError
from ipc.struct import Struct

DEFAULT_RULE: Final = "nothing is allowed by default"
"""The rule that a denial names when no grant speaks of the resource."""
NOT_GRANTED: Final = ("A1201", "A1203")
"""The codes of what is refused because no grant covers it, and for nothing else: a grant would allow it."""
PARTLY_LISTED: Final = "only the names that lead to what is granted"
"""The rule by which a directory is listed in part, where no grant lists it."""
EVERY_RESOURCE: Final = ("*", "**")
"""Resource patterns that, alone in a host's rule, mean every resource of its actions."""

_EVERY_HOST: Final = Pattern("**", ".", (), Form.TREE)
_EVERY_ENDPOINT: Final = EndpointPattern("**", None, _EVERY_HOST, None, None)


class Allow(Struct, frozen=True):
    """The action may be done; `rule` names the grant that says so."""

    rule: str


class Deny(Struct, frozen=True):
    """The action is refused.

    `code` is an entry of `ipc.codes`, `reason` a sentence for a person, `rule` what refused, and `nearest` the grant
    that came nearest, if there is any of this kind.
    """

    code: str
    reason: str
    rule: str
    nearest: str | None = None


Decision = Allow | Deny
Key = TypeVar("Key", contravariant=True)
Answer = TypeVar("Answer")


class Index(Protocol[Key]):
    """What finds one of many patterns for a resource in its split form."""

    count: int

    def first(self, key: Key) -> int:
        """The payload of a pattern that covers it, or NOTHING."""

    def answering(self, answers: Sequence[Answer]) -> Callable[[Key], Answer | None]:
        """What finds `answers[payload]` of a pattern that covers it, or None."""

    def nearest(self, key: Key) -> int:
        """The payload of the pattern that comes nearest, or NOTHING."""


class EndpointIndex:
    """Endpoint patterns by host; those whose host has wildcards are a list."""

    __slots__ = ("_by_host", "_others", "_sample", "count")

    def __init__(self, patterns: Sequence[tuple[EndpointPattern, tuple[str, ...], int]]) -> None:
        """Take patterns, the HTTP methods they are limited to, and payloads."""
        self._by_host: dict[str, list[tuple[EndpointPattern, tuple[str, ...], int]]] = {}
        self._others: list[tuple[EndpointPattern, tuple[str, ...], int]] = []
        ordered = sorted(patterns, key=lambda entry: (entry[0].text, entry[1], entry[2]))
        for entry in ordered:
            host = entry[0].literal_host
            (self._others if host is None else self._by_host.setdefault(host, [])).append(entry)
        self._sample = ordered[0][2] if ordered else NOTHING
        self.count = len(ordered)

    def first(self, key: Endpoint) -> int:
        """The payload of a pattern that covers the endpoint, or NOTHING."""
        for entries in (self._by_host.get(key.host, ()), self._others):
            for pattern, methods, payload in entries:
                if pattern.matches(key, methods):
                    return payload
        return NOTHING

    def answering(self, answers: Sequence[Answer]) -> Callable[[Endpoint], Answer | None]:
        """What finds `answers[payload]` of a pattern that covers the endpoint, or None."""
        return lambda key: None if (number := self.first(key)) == NOTHING else answers[number]

    def nearest(self, key: Endpoint) -> int:
        """The payload of a pattern with the same host, else of any, or NOTHING."""
        same_host = self._by_host.get(key.host)
        return same_host[0][2] if same_host else self._sample


class ActionRules(Generic[Key]):
    """Grants, ACL and roles for one action, in the order in which they are asked."""

    __slots__ = (
        "_action",
        "_allow",
        "_denials",
        "_find_denial",
        "_find_grant",
        "_granted",
        "_grants",
        "_not_listed",
        "_not_permitted",
        "_permitted",
    )

    def __init__(
        self,
        action: str,
        grants: tuple[Index[Key], Sequence[Grant]],
        deny: tuple[Index[Key], Sequence[AclEntry]],
        allow: Index[Key] | None,
        permitted: Index[Key] | None,
        roles: Sequence[str],
        suffix: str = "",
    ) -> None:
        """Take the compiled indexes; `allow` and `permitted` are None where that step does not apply."""
        self._action = action
        self._grants = grants[0]
        self._granted = tuple(grants[1])
        self._find_grant = grants[0].answering([Allow(grant.rule + suffix) for grant in grants[1]])
        self._denials: dict[int, Deny] = {}
        self._find_denial = None
        if deny[1]:
            reason = "the host's access control list denies it"
            self._find_denial = deny[0].answering([Deny("A1301", reason, entry.rule) for entry in deny[1]])
        self._allow = allow
        reason = "none of the host's allow entries for this component covers it"
        self._not_listed = Deny("A1302", reason, f"acl allow entries for {action}")
        self._permitted = permitted
        reason = "none of the component's roles permits it"
        self._not_permitted = Deny("A1401", reason, f"roles {', '.join(sorted(roles))}")

    def decide(self, key: Key) -> Decision:
        """Grants first, then the ACL (a denial wins over any allowance), then the roles."""
        granted = self._find_grant(key)
        if granted is None:
            return self._not_granted(key)
        if self._find_denial is not None and (denied := self._find_denial(key)) is not None:
            return denied
        if self._allow is not None and self._allow.first(key) == NOTHING:
            return self._not_listed
        if self._permitted is not None and self._permitted.first(key) == NOTHING:
            return self._not_permitted
        return granted

    def permits(self, key: Key) -> bool:
        """Whether `decide` allows it; without saying why not."""
        return (
            self._find_grant(key) is not None
            and (self._find_denial is None or self._find_denial(key) is None)
            and (self._allow is None or self._allow.first(key) != NOTHING)
            and (self._permitted is None or self._permitted.first(key) != NOTHING)
        )

    def _not_granted(self, key: Key) -> Deny:
        nearest = self._grants.nearest(key)
        denial = self._denials.get(nearest)
        if denial is None:
            denial = self._denials[nearest] = self._denial(nearest)
        return denial

    def _denial(self, nearest: int) -> Deny:
        if nearest == NOTHING:
            return Deny("A1201", f"the component has no grant for {self._action}", DEFAULT_RULE)
        grant = self._granted[nearest]
        return Deny(
            "A1203", "no grant covers it", DEFAULT_RULE, f'{grant.action.partition(".")[2]} "{grant.pattern_text}"'
        )


class PathRules(ActionRules[Sequence[str]]):
    """Rules over tries, of which can also be asked what they say of everything beneath a place."""

    __slots__ = ("_indexes",)

    def __init__(
        self,
        action: str,
        grants: tuple[PatternIndex, Sequence[Grant]],
        deny: tuple[PatternIndex, Sequence[AclEntry]],
        allow: PatternIndex | None,
        permitted: PatternIndex | None,
        roles: Sequence[str],
        suffix: str = "",
    ) -> None:
        """As the base class, with tries for indexes."""
        super().__init__(action, grants, deny, allow, permitted, roles, suffix)
        self._indexes = (grants[0], deny[0], allow, permitted)

    def reaches(self, segments: Sequence[str]) -> bool:
        """Whether something at or beneath this place could be allowed."""
        grants, deny, allow, permitted = self._indexes
        return (
            bool(grants.reach(segments))
            and not deny.reach(segments).everything
            and (allow is None or bool(allow.reach(segments)))
            and (permitted is None or bool(permitted.reach(segments)))
        )

    def signature(self, segments: Sequence[str]) -> tuple[object, ...]:
        """A value that is equal for two places only if these rules tell nothing apart beneath them."""
        return tuple(None if index is None else index.reach(segments) for index in self._indexes)


def host_pattern(action: str, resource: str, rule: str) -> Pattern | EndpointPattern | None:
    """Parse the resource of a host's rule for this action; None for every endpoint; raises ConfigError."""
    if resource in EVERY_RESOURCE:
        return None if action.startswith("network.") else Pattern(resource, separator_of(action), (), Form.TREE)
    try:
        return parse_grant_pattern(action, resource)
    except PatternError as error:
        raise ConfigError(f"{rule}: {error}") from None


def path_index(
    action: str,
    patterns: Sequence[tuple[str, str]],
    also: Sequence[tuple[str, str]] = (),
    walked: bool = False,
) -> PatternIndex:
    """The index of (resource, rule) pairs; of those in `also`, which are for reading, the listings that they imply.

    `walked` includes the patterns that go on after a `**`, whose listings are only for known directories.
    """
    entries: list[tuple[Pattern, int]] = []
    for number, (resource, rule) in enumerate(patterns):
        parsed = host_pattern(action, resource, rule)
        assert isinstance(parsed, Pattern)
        entries.append((parsed, number))
    for resource, rule in also:
        parsed = host_pattern(action, resource, rule)
        assert isinstance(parsed, Pattern)
        implied = implied_listing(parsed)
        if implied is not None and (walked or None not in parsed.tokens):
            entries.append((implied, len(entries)))
    return PatternIndex(entries)


def endpoint_index(
    action: str, patterns: Sequence[tuple[str, str]], methods: Sequence[tuple[str, ...]] = ()
) -> EndpointIndex:
    """The index of (resource, rule) pairs of endpoints."""
    entries: list[tuple[EndpointPattern, tuple[str, ...], int]] = []
    for number, (resource, rule) in enumerate(patterns):
        parsed = host_pattern(action, resource, rule)
        limited = methods[number] if methods else ()
        if parsed is None:
            entries.append((_EVERY_ENDPOINT, limited, number))
        else:
            assert isinstance(parsed, EndpointPattern)
            entries.append((parsed, limited, number))
    return EndpointIndex(entries)
