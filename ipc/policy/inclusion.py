"""Whether everything that one pattern covers is covered by another, and every grant by a set of others.

The answers are proofs: True means that it was shown for every resource, False that it wasn't (it may hold all the
same). Whoever asks whether something got wider takes False for yes.

A segment that holds `UNKNOWN` stands for text that is not known yet (a parameter's value), which may be any number of
segments: it is covered by the very same segment and by what covers anything.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Final

from ipc.policy.capability import LIST, READ, Grant, implied_listing, parse_grant_pattern
from ipc.policy.endpoints import EndpointPattern
from ipc.policy.index import PatternIndex
from ipc.policy.patterns import Form, Pattern, PatternError, SegmentGlob, Token
from ipc.struct import replace

UNKNOWN: Final = "\ue000"
"""Marks a segment whose text isn't known; a private-use character, which the pattern language gives no meaning."""

COMPARISONS_MAX: Final = 200_000
"""Of two patterns with each other, in one set: what a manifest makes us compare beyond that counts as not proven."""

_FEW: Final = 16
_WILDCARD: Final = re.compile(r"\*|\?|\[(?P<not>!?)(?P<first>.)[^\]]*\]", re.DOTALL)
_OTHERWISE_UNUSED: Final = "\ue001"
"""In place of what may be any character: no honest pattern names this one."""
_SECRET: Final = "secrets.env"  # noqa: S105 - the name of an action


def pattern_includes(outer: Pattern, inner: Pattern) -> bool:
    """Whether it is proven that `outer` covers all that `inner` covers."""
    if outer.separator != inner.separator:
        return False
    least = _least_segments(inner)
    inner_end, outer_end = len(inner.tokens), len(outer.tokens)
    # A place (i, j) claims: what the rest of `inner` from i covers, the rest of `outer` from j covers too. Each step
    # leads to a claim from which this one follows, so reaching one that is true proves the first.
    pending, seen = [(0, 0)], {(0, 0)}
    while pending:
        i, j = pending.pop()
        if j == outer_end:
            if outer.form is Form.TREE or (outer.form is Form.BENEATH and least[i] > 0):
                return True
            if outer.form is inner.form is Form.EXACT and i == inner_end:
                return True
            continue
        wanted = outer.tokens[j]
        following = []
        if wanted is None:
            following.append((i, j + 1))
            if i < inner_end:
                following.append((i + 1, j))
        elif i < inner_end and _token_includes(wanted, inner.tokens[i]):
            following.append((i + 1, j + 1))
        for place in following:
            if place not in seen:
                seen.add(place)
                pending.append(place)
    return False


def _least_segments(pattern: Pattern) -> list[int]:
    """How many segments the rest of the pattern from each place on matches at least."""
    counts = [1 if pattern.form is Form.BENEATH else 0]
    for token in reversed(pattern.tokens):
        counts.append(counts[-1] + (token is not None and not _is_unknown(token)))
    return counts[::-1]


def _is_unknown(token: Token) -> bool:
    return UNKNOWN in (token.text if isinstance(token, SegmentGlob) else token or "")


def _token_includes(outer: str | SegmentGlob, inner: Token) -> bool:
    if inner is None:
        return False
    if _is_unknown(outer) or _is_unknown(inner):
        return outer == inner
    if isinstance(outer, str):
        return outer == inner
    if isinstance(inner, str):
        return outer.matches(inner)
    # What stands before the first wildcard and behind the last never overlaps in a match.
    ends_fit = inner.prefix.startswith(outer.prefix) and inner.suffix.endswith(outer.suffix)
    return outer.text == inner.text or (outer.single_star and ends_fit)


def endpoint_includes(outer: EndpointPattern, inner: EndpointPattern) -> bool:
    """As `pattern_includes`, for endpoints of any method."""
    if outer.port not in (None, inner.port) or not pattern_includes(outer.host, inner.host):
        return False
    if outer.scheme is None:
        return True  # a transport pattern covers every URL there
    if outer.scheme != inner.scheme:
        return False
    return outer.path is None or (inner.path is not None and pattern_includes(outer.path, inner.path))


class Coverage:
    """What a set of grants covers, to be asked whether another grant gives anything that they don't."""

    __slots__ = ("_endpoints", "_listings", "_patterns", "_walked", "_written")

    def __init__(self, grants: Iterable[Grant]) -> None:
        """Take the grants; one whose pattern can't be parsed covers nothing but its own text."""
        self._written: dict[tuple[str, str], list[tuple[str, ...]]] = {}
        self._patterns: dict[str, _Patterns] = {}
        self._endpoints: dict[str, list[tuple[EndpointPattern, tuple[str, ...]]]] = {}
        self._listings, self._walked = _Patterns(), _Patterns()
        for grant in grants:
            self._written.setdefault((grant.action, grant.pattern_text), []).append(grant.methods)
            try:
                pattern = parse_grant_pattern(grant.action, grant.pattern_text)
            except PatternError:
                continue
            if isinstance(pattern, EndpointPattern):
                self._endpoints.setdefault(grant.action, []).append((pattern, grant.methods))
                continue
            self._patterns.setdefault(grant.action, _Patterns()).add(pattern)
            listing = implied_listing(pattern) if grant.action in (READ, LIST) else None
            if listing is not None:
                (self._walked if None in pattern.tokens else self._listings).add(listing)

    def covers(self, grant: Grant) -> bool:
        """Whether it is proven that these grants allow all that this one would."""
        written = self._written.get((grant.action, grant.pattern_text), ())
        if any(_methods_include(methods, grant.methods) for methods in written):
            return True
        if grant.action == _SECRET:
            return False
        try:
            pattern = parse_grant_pattern(grant.action, grant.pattern_text)
        except PatternError:
            return False
        if isinstance(pattern, EndpointPattern):
            return any(
                endpoint_includes(outer, pattern)
                and _methods_include(methods, grant.methods)
                # A transport pattern with methods covers nothing: what goes over it can't be held to them.
                and not (outer.scheme is None and methods)
                for outer, methods in self._endpoints.get(grant.action, ())
            )
        own = self._patterns.get(grant.action, _NONE)
        if grant.action not in (READ, LIST):
            return own.include(pattern)
        # Reading and listing imply the listing of directories, which has to be covered as well.
        lists = (self._patterns.get(LIST, _NONE), self._listings)
        if not (own.include(pattern) if grant.action == READ else _any_includes(lists, pattern)):
            return False
        listing = implied_listing(pattern)
        if listing is None:
            return True
        # What lies behind a `**` is listed only where it is known to be a directory: less than a listing that isn't.
        return _any_includes((*lists, self._walked) if None in pattern.tokens else lists, listing)


class _Patterns:
    """A set of patterns, of which only those are compared that cover one resource that the other pattern covers."""

    __slots__ = ("_index", "_left", "_patterns")

    def __init__(self) -> None:
        self._patterns: list[Pattern] = []
        self._index: PatternIndex | None = None
        self._left = COMPARISONS_MAX

    def add(self, pattern: Pattern) -> None:
        self._patterns.append(pattern)
        self._index = None

    def include(self, pattern: Pattern) -> bool:
        """Whether one of them includes the pattern, or one its object and another what lies beneath."""
        if self._one_includes(pattern):
            return True
        return pattern.form is Form.TREE and all(
            self._one_includes(replace(pattern, form=form)) for form in (Form.EXACT, Form.BENEATH)
        )

    def _one_includes(self, pattern: Pattern) -> bool:
        for outer in self._candidates(pattern):
            self._left -= 1
            if self._left < 0:
                return False
            if pattern_includes(outer, pattern):
                return True
        return False

    def _candidates(self, pattern: Pattern) -> Iterable[Pattern]:
        sample = _sample(pattern) if len(self._patterns) > _FEW else None
        if sample is None:
            return self._patterns
        if self._index is None:
            self._index = PatternIndex((each, number) for number, each in enumerate(self._patterns))
        return (self._patterns[number] for number in self._index.matches_segments(sample))


def _sample(pattern: Pattern) -> list[str] | None:
    """The segments of something that the pattern covers; None where none was found."""
    segments: list[str] = []
    for token in pattern.tokens:
        if isinstance(token, SegmentGlob):
            name = _WILDCARD.sub(_one_character, token.text) or _OTHERWISE_UNUSED
            if not token.matches(name):
                return None
            segments.append(name)
        elif token is not None:
            segments.append(token)
    return [*segments, _OTHERWISE_UNUSED] if pattern.form is Form.BENEATH else segments


def _one_character(wildcard: re.Match[str]) -> str:
    if wildcard[0] == "*":
        return ""
    return wildcard["first"] if wildcard["first"] and not wildcard["not"] else _OTHERWISE_UNUSED


_NONE: Final = _Patterns()


def _any_includes(sets: Sequence[_Patterns], pattern: Pattern) -> bool:
    return any(patterns.include(pattern) for patterns in sets)


def _methods_include(outer: tuple[str, ...], inner: tuple[str, ...]) -> bool:
    """Whether a limit to methods (none: all of them) lets all of another's through."""
    return not outer or (bool(inner) and set(inner) <= set(outer))
