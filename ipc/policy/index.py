"""Many patterns at once: a check costs the same with ten patterns and with ten thousand.

A trie over segments. Literal segments are dictionary edges; segments with wildcards are found by their literal prefix
or suffix, so that ten thousand of them in one directory are no list to walk; `**` is a state that stays active.
Matching follows a set of active nodes, so no pattern can make it exponential.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from ipc.policy.patterns import Form, Pattern, SegmentGlob, Separator, Token, split_resource

NOTHING: Final = -1


class _Node:
    """One place in the trie: what is accepted here, and where the next segment leads."""

    __slots__ = ("beneath", "crossing", "final_only", "globs", "here", "literals", "loops", "plain", "sample", "tree")

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
        self.plain = True
        """Whether only literal edges leave it, so that matching can follow it without a set of nodes."""


class _GlobEdges:
    """The wildcard segments that leave one node, found by literal prefix or suffix, whichever is longer."""

    __slots__ = ("by_prefix", "by_suffix", "everything", "nodes")

    def __init__(self) -> None:
        self.nodes: dict[str, tuple[SegmentGlob, _Node]] = {}
        self.by_prefix: list[tuple[int, dict[str, list[tuple[SegmentGlob, _Node]]]]] = []
        self.by_suffix: list[tuple[int, dict[str, list[tuple[SegmentGlob, _Node]]]]] = []
        self.everything: list[tuple[SegmentGlob, _Node]] = []

    def freeze(self) -> None:
        prefixes: dict[int, dict[str, list[tuple[SegmentGlob, _Node]]]] = {}
        suffixes: dict[int, dict[str, list[tuple[SegmentGlob, _Node]]]] = {}
        for edge in self.nodes.values():
            glob = edge[0]
            if not glob.prefix and not glob.suffix:
                self.everything.append(edge)
            elif len(glob.prefix) >= len(glob.suffix):
                prefixes.setdefault(len(glob.prefix), {}).setdefault(glob.prefix, []).append(edge)
            else:
                suffixes.setdefault(len(glob.suffix), {}).setdefault(glob.suffix, []).append(edge)
        self.by_prefix = sorted(prefixes.items(), key=lambda item: item[0])
        self.by_suffix = sorted(suffixes.items(), key=lambda item: item[0])

    def step(self, segment: str) -> list[_Node]:
        """The nodes that this segment leads to."""
        found: list[_Node] = []
        for length, edges in self.by_prefix:
            for glob, node in edges.get(segment[:length], ()):
                if glob.matches(segment):
                    found.append(node)
        for length, edges in self.by_suffix:
            for glob, node in edges.get(segment[-length:], ()):
                if glob.matches(segment):
                    found.append(node)
        for glob, node in self.everything:
            if glob.matches(segment):
                found.append(node)
        return found


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
        """The payload of one pattern that covers the resource, NOTHING (-1) if none does; the hot path."""
        node = self._root
        if node.tree:
            return node.tree[0]
        index = 0
        count = len(segments)
        while node.plain:
            if index == count:
                return node.here[0] if node.here else NOTHING
            if node.beneath:
                return node.beneath[0]
            following = node.literals.get(segments[index])
            if following is None:
                return NOTHING
            node = following
            if node.tree:
                return node.tree[0]
            index += 1
        return _first_of_many(_entered([node]), segments, index)

    def reach(self, segments: Sequence[str]) -> Reach:
        """What the patterns can still say of anything beneath this directory."""
        if self._root.tree:
            return Reach(True, frozenset())
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
        active = _entered([self._root])
        sample = self._root.sample
        for segment in segments:
            active = _step(active, segment, False)
            if not active:
                return sample
            sample = active[0].sample
        return sample


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
        node.final_only = node.loops and all(
            child.here and not (child.tree or child.beneath or child.crossing or child.literals or child.globs)
            for child in following
        )
        pending += following
        if node.crossing is not None:
            pending.append(node.crossing)


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
