"""Many patterns at once: a check costs the same with ten patterns and with ten thousand.

A trie over segments. Literal segments are dictionary edges; segments with wildcards are found by their literal prefix
or suffix, so that ten thousand of them in one directory are no list to walk; `**` is a state that stays active.
Matching follows a set of active nodes, so no pattern can make it exponential.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from ipc.policy.patterns import Form, Pattern, SegmentGlob, Separator, Token, matches_tokens, split_resource

NOTHING: Final = -1


class _Node:
    """One place in the trie: what is accepted here, and where the next segment leads."""

    __slots__ = (
        "beneath",
        "crossing",
        "crossing_only",
        "final_only",
        "globs",
        "here",
        "literals",
        "loops",
        "only",
        "plain",
        "sample",
        "tree",
    )

    def __init__(self) -> None:
        self.literals: dict[str, _Node] = {}
        self.globs: _GlobEdges | None = None
        self.crossing: _Node | None = None
        self.here: tuple[int, ...] = ()
        self.tree: tuple[int, ...] = ()
        self.beneath: tuple[int, ...] = ()
        self.sample: int = NOTHING
        """The first pattern that passes through here: what a denial names as nearest."""
        self.loops = False
        """Whether this is the state behind a `**`, which consumes any number of segments."""
        self.final_only = False
        """Whether, behind a `**`, only the last segment of a resource can lead on to an acceptance."""
        self.crossing_only = False
        """Whether nothing leaves it but a `**` that is `final_only`."""
        self.only: _Tail | None = None
        """If a single pattern passes through here: the rest of it, so that matching needs no further node."""
        self.plain = True
        """Whether only literal edges leave it, so that matching can follow it without a set of nodes."""


_GlobEdge = tuple[bool, int, str, SegmentGlob, _Node]
"""Whether it is only prefix*suffix; its least length; the end that is not looked up; the segment; where it leads."""


_Tail = tuple[tuple[Token, ...], Form, int]
"""What is left of a pattern behind a node, its form, and its payload."""


class _GlobEdges:
    """The wildcard segments that leave one node, found by literal prefix or suffix, whichever is longer."""

    __slots__ = ("by_prefix", "by_suffix", "everything", "nodes")

    def __init__(self) -> None:
        self.nodes: dict[str, tuple[SegmentGlob, _Node]] = {}
        self.by_prefix: list[tuple[int, dict[str, tuple[_GlobEdge, ...]]]] = []
        self.by_suffix: list[tuple[int, dict[str, tuple[_GlobEdge, ...]]]] = []
        self.everything: list[tuple[SegmentGlob, _Node]] = []

    def freeze(self) -> None:
        prefixes: dict[int, dict[str, list[_GlobEdge]]] = {}
        suffixes: dict[int, dict[str, list[_GlobEdge]]] = {}
        for glob, node in self.nodes.values():
            least = len(glob.prefix) + len(glob.suffix)
            if least == 0:
                self.everything.append((glob, node))
            elif len(glob.prefix) >= len(glob.suffix):
                edge = (glob.single_star, least, glob.suffix, glob, node)
                prefixes.setdefault(len(glob.prefix), {}).setdefault(glob.prefix, []).append(edge)
            else:
                edge = (glob.single_star, least, glob.prefix, glob, node)
                suffixes.setdefault(len(glob.suffix), {}).setdefault(glob.suffix, []).append(edge)
        self.by_prefix = _by_length(prefixes)
        self.by_suffix = _by_length(suffixes)

    def step(self, segment: str) -> list[_Node]:
        """The nodes that this segment leads to."""
        found: list[_Node] = []
        for length, edges in self.by_prefix:
            candidates = edges.get(segment[:length])
            if candidates is not None:
                for single_star, least, suffix, glob, node in candidates:
                    if single_star:
                        if len(segment) >= least and segment.endswith(suffix):
                            found.append(node)
                    elif glob.matches(segment):
                        found.append(node)
        for length, edges in self.by_suffix:
            candidates = edges.get(segment[-length:])
            if candidates is not None:
                for single_star, least, prefix, glob, node in candidates:
                    if single_star:
                        if len(segment) >= least and segment.startswith(prefix):
                            found.append(node)
                    elif glob.matches(segment):
                        found.append(node)
        for glob, node in self.everything:
            if glob.matches(segment):
                found.append(node)
        return found


def _by_length(ends: dict[int, dict[str, list[_GlobEdge]]]) -> list[tuple[int, dict[str, tuple[_GlobEdge, ...]]]]:
    return [(length, {end: tuple(edges) for end, edges in ends[length].items()}) for length in sorted(ends)]


@dataclass(frozen=True, slots=True)
class Reach:
    """What is known of a set of patterns after the segments of a directory were consumed.

    Two directories with equal reaches are told apart by none of the patterns, whatever lies beneath them.
    """

    everything: bool
    """Whether all that lies beneath is matched."""
    active: frozenset[int]
    """The identities of the patterns' states from which something beneath can still match; empty if everything is."""

    def __bool__(self) -> bool:
        """Whether something beneath (or the directory itself) can match."""
        return self.everything or bool(self.active)


class PatternIndex:
    """An immutable set of patterns, all of one separator, each with a payload that says which it was.

    The order in which the patterns were given changes no answer: they are put in the order of their texts first.
    """

    __slots__ = ("_root", "_separator", "count")

    def __init__(self, patterns: Iterable[tuple[Pattern, int]]) -> None:
        """Build the trie; raises ValueError if the patterns differ in their separators."""
        entries = sorted(patterns, key=lambda entry: (entry[0].text, entry[0].form.value, entry[1]))
        separators = {pattern.separator for pattern, _ in entries}
        if len(separators) > 1:
            raise ValueError(f"patterns of one index share one separator, got {sorted(separators)}")
        self._separator: Separator = entries[0][0].separator if entries else "/"
        self.count = len(entries)
        self._root = _Node()
        for pattern, payload in entries:
            _insert(self._root, pattern, payload)
        _freeze(self._root)
        _cut_short(self._root, entries)

    def __bool__(self) -> bool:
        """Whether it holds any pattern."""
        return self.count > 0

    def matches(self, resource: str) -> tuple[int, ...]:
        """The payloads of all patterns that cover this normalised resource, in ascending order."""
        return self.matches_segments(split_resource(resource, self._separator))

    def matches_segments(self, segments: Sequence[str]) -> tuple[int, ...]:
        """As `matches`, for a resource that was split already."""
        found: set[int] = set(self._root.tree)
        active = _entered([self._root])
        for index, segment in enumerate(segments):
            for node in active:
                found.update(node.beneath)
            active = _step(active, segment, index == len(segments) - 1)
            if not active:
                return tuple(sorted(found))
            for node in active:
                found.update(node.tree)
        for node in active:
            found.update(node.here)
        return tuple(sorted(found))

    def first(self, segments: Sequence[str]) -> int:
        """The payload of one pattern that covers the resource, NOTHING (-1) if none does; the hot path.

        Follows a single node for as long as there is only one, which is nearly always to the end. With thousands of
        patterns the time goes into memory that is in no cache, so it touches as few objects as it can.
        """
        node = self._root
        for index, segment in enumerate(segments):
            if node.only is not None:
                return _first_of_tail(node.only, segments, index)
            if node.tree:
                return node.tree[0]
            if node.beneath:
                return node.beneath[0]
            following = node.literals.get(segment)
            if not node.plain:
                if node.crossing is not None:
                    if not node.crossing_only:
                        return _first_of_many([node, node.crossing], segments, index)
                    # Only the last segment matters behind this `**`, and it leads nowhere further.
                    return _accepted_here(node.crossing, segments[-1])
                if node.globs is not None:
                    nodes = node.globs.step(segment)
                    if nodes:
                        if following is not None or len(nodes) > 1:
                            return _first_of_many([node], segments, index)
                        following = nodes[0]
            if following is None:
                return NOTHING
            node = following
        if node.tree:
            return node.tree[0]
        return node.here[0] if node.here else NOTHING

    def reach(self, segments: Sequence[str]) -> Reach:
        """What the patterns can still say of anything beneath this directory."""
        if self._root.tree:
            return Reach(True, frozenset())
        if not self.count:
            return Reach(False, frozenset())
        active = _entered([self._root])
        for segment in segments:
            if any(node.beneath for node in active):
                return Reach(True, frozenset())
            active = _step(active, segment, False)
            if any(node.tree for node in active):
                return Reach(True, frozenset())
        if any(node.beneath for node in active):
            return Reach(True, frozenset())
        # A node that only accepts the directory itself says nothing of what lies beneath it.
        return Reach(False, frozenset(id(node) for node in active))

    def nearest(self, segments: Sequence[str]) -> int:
        """The payload of a pattern that shares the longest beginning with the resource, NOTHING without patterns."""
        node = self._root
        for segment in segments:
            following = node.literals.get(segment)
            if following is None:
                nodes = node.globs.step(segment) if node.globs is not None else None
                if not nodes:
                    break
                following = nodes[0]
            node = following
        return node.sample


def _first_of_tail(tail: _Tail, segments: Sequence[str], index: int) -> int:
    """The payload of the one pattern that is left, if the rest of it matches the segments from `index` on."""
    tokens, form, payload = tail
    count = len(segments)
    at = index
    for token in tokens:
        if token is None:
            rest = tokens[at - index :]
            if len(rest) == 2 and form is Form.EXACT:
                # Any number of segments, and then one.
                last = rest[1]
                assert last is not None
                if at == count:
                    return NOTHING
                matched = last == segments[-1] if isinstance(last, str) else last.matches(segments[-1])
                return payload if matched else NOTHING
            return payload if matches_tokens(rest, form, segments[at:]) else NOTHING
        if at == count or not (token == segments[at] if isinstance(token, str) else token.matches(segments[at])):
            return NOTHING
        at += 1
    if form is Form.TREE or (at == count if form is Form.EXACT else at < count):
        return payload
    return NOTHING


def _accepted_here(node: _Node, segment: str) -> int:
    following = node.literals.get(segment)
    if following is not None:
        return following.here[0]
    if node.globs is not None:
        for found in node.globs.step(segment):
            return found.here[0]
    return NOTHING


def _insert(root: _Node, pattern: Pattern, payload: int) -> None:
    node = root
    if node.sample == NOTHING:
        node.sample = payload
    for token in pattern.tokens:
        node = _edge(node, token)
        if node.sample == NOTHING:
            node.sample = payload
    if pattern.form is Form.EXACT:
        node.here += (payload,)
    elif pattern.form is Form.TREE:
        node.tree += (payload,)
    else:
        node.beneath += (payload,)


def _edge(node: _Node, token: Token) -> _Node:
    if token is None:
        if node.crossing is None:
            node.crossing = _Node()
            node.crossing.loops = True
        return node.crossing
    if isinstance(token, str):
        following = node.literals.get(token)
        if following is None:
            following = node.literals[token] = _Node()
        return following
    if node.globs is None:
        node.globs = _GlobEdges()
    return node.globs.nodes.setdefault(token.text, (token, _Node()))[1]


def _children(node: _Node) -> Iterator[_Node]:
    yield from node.literals.values()
    if node.globs is not None:
        for _, following in node.globs.nodes.values():
            yield following


def _freeze(root: _Node) -> None:
    pending = [root]
    while pending:
        node = pending.pop()
        if node.globs is not None:
            node.globs.freeze()
        node.plain = node.globs is None and node.crossing is None and not node.loops
        following = list(_children(node))
        node.final_only = node.loops and all(_ends_here(child) for child in following)
        pending += following
        if node.crossing is not None:
            pending.append(node.crossing)
            crossing = node.crossing
            node.crossing_only = (
                not following and crossing.crossing is None and all(_ends_here(child) for child in _children(crossing))
            )


def _cut_short(root: _Node, entries: Sequence[tuple[Pattern, int]]) -> None:
    """Give the first node that a pattern has for itself the rest of that pattern."""
    passing: dict[_Node, int] = {}
    for pattern, _ in entries:
        for node in _nodes_of(root, pattern):
            passing[node] = passing.get(node, 0) + 1
    for pattern, payload in entries:
        for depth, node in enumerate(_nodes_of(root, pattern)):
            if passing[node] == 1:
                if not node.loops:
                    node.only = (pattern.tokens[depth:], pattern.form, payload)
                break


def _nodes_of(root: _Node, pattern: Pattern) -> Iterator[_Node]:
    node = root
    yield node
    for token in pattern.tokens:
        node = _edge(node, token)
        yield node


def _ends_here(node: _Node) -> bool:
    return bool(node.here) and not (node.tree or node.beneath or node.crossing or node.literals or node.globs)


def _entered(nodes: list[_Node]) -> list[_Node]:
    """The nodes, and the states behind a `**` that may stand for no segment at all."""
    crossings = [node.crossing for node in nodes if node.crossing is not None]
    return nodes + crossings if crossings else nodes


def _step(active: list[_Node], segment: str, final: bool) -> list[_Node]:
    following: list[_Node] = []
    crossings: list[_Node] = []
    for node in active:
        if node.loops:
            crossings.append(node)
            if node.final_only and not final:
                continue
        child = node.literals.get(segment)
        if child is not None:
            following.append(child)
        if node.globs is not None:
            following += node.globs.step(segment)
    # Each node has one parent, so a node is met twice only if it is the state behind a `**`.
    for node in following:
        if node.crossing is not None and node.crossing not in crossings:
            crossings.append(node.crossing)
    return following + crossings if crossings else following


def _first_of_many(active: list[_Node], segments: Sequence[str], index: int) -> int:
    last = len(segments) - 1
    while index <= last:
        for node in active:
            if node.beneath:
                return node.beneath[0]
        active = _step(active, segments[index], index == last)
        if not active:
            return NOTHING
        for node in active:
            if node.tree:
                return node.tree[0]
        index += 1
    for node in active:
        if node.here:
            return node.here[0]
    return NOTHING
