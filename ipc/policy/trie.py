"""A set of patterns as a trie over segments, walked by sets of active nodes: any pattern, and every question.

Literal segments are dictionary edges, segments with wildcards are `GlobEdges`, and `**` is a state that stays active.
Because a set of nodes is followed, no pattern can make it exponential. The one question that is asked all the time,
for a single pattern that covers a resource, has a quicker way: `ipc.policy.matcher`.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from ipc.policy.edges import GlobEdges
from ipc.policy.patterns import Form, SegmentGlob, Token
from ipc.struct import Struct

NOTHING: Final = -1

Tail = tuple[tuple[Token, ...], Form, int]
"""The tokens of a pattern, or those that are left of it; its form; its payload."""


class _Node:
    """One place in the trie: what is accepted here, and where the next segment leads."""

    __slots__ = (
        "beneath",
        "crossing",
        "final_only",
        "glob_nodes",
        "globs",
        "here",
        "literals",
        "loops",
        "sample",
        "tree",
    )

    def __init__(self) -> None:
        self.literals: dict[str, _Node] = {}
        self.glob_nodes: dict[str, tuple[SegmentGlob, _Node]] = {}
        self.globs: GlobEdges[_Node] | None = None
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


class Reach(Struct, frozen=True):
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


class Trie:
    """An immutable set of patterns; where several fit, those given first come first."""

    __slots__ = ("_count", "_root")

    def __init__(self, tails: Sequence[Tail]) -> None:
        """Build it from the tokens, form and payload of each pattern."""
        self._count = len(tails)
        self._root = _Node()
        for tokens, form, payload in tails:
            _insert(self._root, tokens, form, payload)
        _freeze(self._root)

    def matches(self, segments: Sequence[str]) -> tuple[int, ...]:
        """The payloads of all patterns that cover this resource, in ascending order."""
        found: set[int] = set(self._root.tree)
        active = _entered(self._root)
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
        """The payload of one pattern that covers the resource, NOTHING (-1) if none does."""
        if self._root.tree:
            return self._root.tree[0]
        active = _entered(self._root)
        last = len(segments) - 1
        for index, segment in enumerate(segments):
            for node in active:
                if node.beneath:
                    return node.beneath[0]
            active = _step(active, segment, index == last)
            if not active:
                return NOTHING
            for node in active:
                if node.tree:
                    return node.tree[0]
        for node in active:
            if node.here:
                return node.here[0]
        return NOTHING

    def reach(self, segments: Sequence[str]) -> Reach:
        """What the patterns can still say of anything beneath this directory."""
        if self._root.tree:
            return Reach(True, frozenset())
        if not self._count:
            return Reach(False, frozenset())
        active = _entered(self._root)
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


def _insert(root: _Node, tokens: tuple[Token, ...], form: Form, payload: int) -> None:
    node = root
    if node.sample == NOTHING:
        node.sample = payload
    for token in tokens:
        node = _edge(node, token)
        if node.sample == NOTHING:
            node.sample = payload
    if form is Form.EXACT:
        node.here += (payload,)
    elif form is Form.TREE:
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
    return node.glob_nodes.setdefault(token.text, (token, _Node()))[1]


def _children(node: _Node) -> Iterator[_Node]:
    yield from node.literals.values()
    for _, following in node.glob_nodes.values():
        yield following


def _freeze(root: _Node) -> None:
    pending = [root]
    while pending:
        node = pending.pop()
        if node.glob_nodes:
            node.globs = GlobEdges(list(node.glob_nodes.values()))
        following = list(_children(node))
        node.final_only = node.loops and all(_ends_here(child) for child in following)
        pending += following
        if node.crossing is not None:
            pending.append(node.crossing)


def _ends_here(node: _Node) -> bool:
    return bool(node.here) and not (node.tree or node.beneath or node.crossing or node.literals or node.glob_nodes)


def _entered(root: _Node) -> list[_Node]:
    """The root, and the state behind a `**` that may stand for no segment at all."""
    return [root] if root.crossing is None else [root, root.crossing]


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
