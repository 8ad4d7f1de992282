"""Many segments with wildcards side by side, found by hashing what is literal in them.

Each glob is filed under the literal text that the fewest others share: its prefix, its suffix, or, if thousands share
both (`*-17-*`), the longest literal text within. So ten thousand of them in one directory are no list to walk. Only
globs without any literal text of their own (`*`, `?`, `[0-9]*`) are tried one after the other.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Final, Generic, Optional, TypeVar

from ipc.policy.patterns import SegmentGlob

Target = TypeVar("Target")

_FEW: Final = 4
"""Globs that may share one literal text before it is worth looking for a better one."""

Edge = tuple[str, SegmentGlob | None, Target, Optional["Edge[Target]"]]
"""Of a glob that is only `prefix*suffix`: the end that was not looked up, and None; else the glob. Then where it leads,
and the next edge that is filed under the same text."""

Filed = list[tuple[int, dict[str, Edge[Target]]]]
"""Edges by literal text, for each length of such texts; the length that most globs have comes first."""


class GlobEdges(Generic[Target]):
    """The wildcard segments that leave one place, each leading to a target."""

    __slots__ = ("by_inner", "by_prefix", "by_suffix", "others")

    def __init__(self, globs: Sequence[tuple[SegmentGlob, Target]]) -> None:
        """File the globs, whose texts differ; where several match, those given first are found first."""
        prefixes = Counter(glob.prefix for glob, _ in globs)
        suffixes = Counter(glob.suffix for glob, _ in globs)
        inners = Counter(glob.inner for glob, _ in globs)
        by_prefix: list[tuple[SegmentGlob, Target]] = []
        by_suffix: list[tuple[SegmentGlob, Target]] = []
        by_inner: list[tuple[SegmentGlob, Target]] = []
        self.others: list[tuple[SegmentGlob, Target]] = []
        for glob, target in globs:
            ends = [
                (count if count > _FEW else 0, -len(text), kind)
                for text, count, kind in (
                    (glob.prefix, prefixes[glob.prefix], by_prefix),
                    (glob.suffix, suffixes[glob.suffix], by_suffix),
                )
                if text
            ]
            shared, _, best = min(ends, key=lambda end: end[:2], default=(len(globs), 0, self.others))
            if glob.inner and shared and (not ends or inners[glob.inner] < shared):
                best = by_inner
            best.append((glob, target))
        self.by_prefix = _file(by_prefix, lambda glob: glob.prefix, lambda glob: glob.suffix)
        self.by_suffix = _file(by_suffix, lambda glob: glob.suffix, lambda glob: glob.prefix)
        self.by_inner = [
            (length, _common_lead(edges), edges) for length, edges in _file(by_inner, lambda glob: glob.inner, None)
        ]
        """With what all the texts of that length begin, so that the places to look at can be found by it."""

    def step(self, segment: str) -> list[Target]:
        """Where this segment leads to."""
        found: list[Target] = []
        edge: Edge[Target] | None
        for length, edges in self.by_prefix:
            edge = edges.get(segment[:length])
            while edge is not None:
                end, glob, target, edge = edge
                if segment.endswith(end, length) if glob is None else glob.matches(segment):
                    found.append(target)
        for length, edges in self.by_suffix:
            edge = edges.get(segment[-length:])
            while edge is not None:
                end, glob, target, edge = edge
                if segment.startswith(end, 0, -length) if glob is None else glob.matches(segment):
                    found.append(target)
        if self.by_inner or self.others:
            found.extend(self.step_slowly(segment))
        return found

    def step_slowly(self, segment: str) -> Iterator[Target]:
        """Where this segment leads to by globs that neither their prefix nor their suffix finds; each only once."""
        edge: Edge[Target] | None
        for length, lead, edges in self.by_inner:
            at = segment.find(lead)
            while 0 <= at <= len(segment) - length:
                text = segment[at : at + length]
                edge = edges.get(text)
                if edge is not None and segment.find(text) < at:  # found before
                    edge = None
                while edge is not None:
                    _, glob, target, edge = edge
                    if glob is not None and glob.matches(segment):
                        yield target
                at = segment.find(lead, at + 1)
        for glob, target in self.others:
            if glob.matches(segment):
                yield target


def _common_lead(texts: Collection[str]) -> str:
    """With what all of them begin."""
    least, most = min(texts), max(texts)
    same = next((at for at, pair in enumerate(zip(least, most, strict=False)) if pair[0] != pair[1]), len(least))
    return least[:same]


def _file(
    globs: Sequence[tuple[SegmentGlob, Target]],
    key: Callable[[SegmentGlob], str],
    other_end: Callable[[SegmentGlob], str] | None,
) -> Filed[Target]:
    lengths: dict[int, dict[str, Edge[Target]]] = {}
    for glob, target in reversed(globs):
        edges = lengths.setdefault(len(key(glob)), {})
        following = edges.get(key(glob))
        if other_end is not None and glob.single_star:
            edges[key(glob)] = (other_end(glob), None, target, following)
        else:
            edges[key(glob)] = ("", glob, target, following)
    return sorted(lengths.items(), key=lambda filed: (-len(filed[1]), filed[0]))
