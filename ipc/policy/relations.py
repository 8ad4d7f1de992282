"""How two patterns relate: does one cover the other, can both match one resource.

Both answers are safe to act upon and may be modest: `covers` is True only when it is proven, `may_intersect` is False
only when the opposite is proven.
"""

from ipc.policy.endpoints import EndpointPattern
from ipc.policy.patterns import Form, Pattern, SegmentGlob, Token


def covers(wide: Pattern | EndpointPattern, narrow: Pattern | EndpointPattern) -> bool:
    """Whether every resource that `narrow` matches is proven to be matched by `wide`."""
    if isinstance(wide, EndpointPattern) or isinstance(narrow, EndpointPattern):
        return (
            isinstance(wide, EndpointPattern)
            and isinstance(narrow, EndpointPattern)
            and wide.scheme in (None, narrow.scheme)
            and wide.port in (None, narrow.port)
            and covers(wide.host, narrow.host)
            and (wide.path is None or (narrow.path is not None and covers(wide.path, narrow.path)))
        )
    return wide.separator == narrow.separator and _covers(wide.tokens, wide.form, narrow.tokens, narrow.form)


def may_intersect(one: Pattern, other: Pattern) -> bool:
    """Whether some resource may be matched by both; False is a proof that there is none."""
    if one.separator != other.separator:
        return False
    return _intersects(_unrolled(one), _unrolled(other))


def _unrolled(pattern: Pattern) -> tuple[Token, ...]:
    """The tokens with the form spelled out; a tree as everything at or beneath it, beneath loosely as the same."""
    return pattern.tokens if pattern.form is Form.EXACT else (*pattern.tokens, None)


def _covers(wide: tuple[Token, ...], wide_form: Form, narrow: tuple[Token, ...], narrow_form: Form) -> bool:
    """Follow the wide pattern's positions along the narrow one's segments, as if those were a resource."""
    positions = _closure(wide, {0})
    for token in narrow:
        if len(wide) in positions and wide_form is not Form.EXACT and token is not None:
            return True  # one more segment, whatever it is, is beneath
        if token is None:
            # Only what stays where it is whatever comes can be relied upon: a `**` of the wide pattern, or its end.
            positions = _closure(
                wide,
                {at for at in positions if (wide_form is not Form.EXACT if at == len(wide) else wide[at] is None)},
            )
        else:
            following: set[int] = set()
            for at in positions:
                if at == len(wide):
                    continue
                candidate = wide[at]
                if candidate is None:
                    following.add(at)
                elif _segment_covers(candidate, token):
                    following.add(at + 1)
            positions = _closure(wide, following)
        if not positions:
            return False
        if len(wide) in positions and wide_form is Form.TREE:
            return True
    if len(wide) not in positions:
        return False
    return {
        Form.EXACT: wide_form is Form.EXACT,
        Form.BENEATH: wide_form is Form.BENEATH,
        Form.TREE: False,  # a tree's own object needs a tree, which has answered already
    }[narrow_form] or (wide_form is Form.TREE)


def _closure(tokens: tuple[Token, ...], positions: set[int]) -> set[int]:
    return positions | {at + 1 for at in positions if at < len(tokens) and tokens[at] is None}


def _segment_covers(wide: str | SegmentGlob, narrow: str | SegmentGlob) -> bool:
    if isinstance(wide, str):
        return wide == narrow
    if isinstance(narrow, str):
        return wide.matches(narrow)
    if wide.text == narrow.text or wide.text == "*":
        return True
    return wide.single_star and narrow.prefix.startswith(wide.prefix) and narrow.suffix.endswith(wide.suffix)


def _segments_intersect(one: str | SegmentGlob, other: str | SegmentGlob) -> bool:
    if isinstance(one, str):
        return one == other if isinstance(other, str) else other.matches(one)
    if isinstance(other, str):
        return one.matches(other)
    prefixes = one.prefix.startswith(other.prefix) or other.prefix.startswith(one.prefix)
    suffixes = one.suffix.endswith(other.suffix) or other.suffix.endswith(one.suffix)
    return prefixes and suffixes


def _intersects(one: tuple[Token, ...], other: tuple[Token, ...]) -> bool:
    """Bottom up over all pairs of suffixes; a recursion would be as deep as a hostile pattern is long."""
    after = [False] * (len(other) + 1)
    for i in range(len(one), -1, -1):
        row = [False] * (len(other) + 1)
        for j in range(len(other), -1, -1):
            if i == len(one) and j == len(other):
                row[j] = True
                continue
            a = one[i] if i < len(one) else ""
            b = other[j] if j < len(other) else ""
            if a is None:
                row[j] = after[j] or (j < len(other) and row[j + 1])
            if b is None:
                row[j] = row[j] or row[j + 1] or (i < len(one) and after[j])
            if a is not None and b is not None and i < len(one) and j < len(other):
                row[j] = _segments_intersect(a, b) and after[j + 1]
        after = row
    return after[0]
