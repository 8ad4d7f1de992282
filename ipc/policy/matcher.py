"""The hot path: one pattern of many that covers a resource, for the price of a few dictionary look-ups.

With thousands of patterns the time goes into memory that is in no cache of the processor. So the structure is made of
as few objects as can be, each of them small: a place that only literal segments leave is a plain dictionary; the first
place that a pattern has for itself ends the walk with a pair, the test of what is left of the pattern (shared by all
patterns with the same rest) and the answer; only where wildcards or several patterns meet is there a `_Fork`.

Every place here has a fixed depth, so the tests and forks know theirs and nobody has to count.
"""

from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeVar, Union

from ipc.policy.edges import Edge, GlobEdges
from ipc.policy.patterns import Form, SegmentGlob, Token, matches_tokens
from ipc.policy.trie import NOTHING, Tail, Trie

Answer = TypeVar("Answer")
Test = Callable[[Sequence[str]], bool]

_DEPTH_MAX: Final = 48
"""Places deeper than this are left to the trie, because forks are followed by recursion."""

_Rest = tuple[tuple[Token, ...], Form, Answer]
_Place = Union[dict[str, "_Place[Answer]"], tuple[Test | None, Answer], "_Fork[Answer]", "_Leaves[Answer]"]


class Matcher(Generic[Answer]):
    """An immutable set of patterns, each with the answer that it gives; where several fit, one of them is found.

    Which one that is depends on the patterns and on the order in which they are given, on nothing else.
    """

    __slots__ = ("_start",)

    def __init__(self, patterns: Sequence[tuple[tuple[Token, ...], Form, Answer]]) -> None:
        """Build it from the tokens, form and answer of each pattern."""
        self._start: _Place[Answer] = _Builder[Answer]().place(patterns, 0) if patterns else {}

    def first(self, segments: Sequence[str]) -> Answer | None:
        """The answer of a pattern that covers the resource, None if none does."""
        place: _Place[Answer] | None = self._start
        if isinstance(place, dict):
            for segment in segments:
                place = place.get(segment)
                if not isinstance(place, dict):
                    break
        if isinstance(place, tuple):
            test, answer = place
            return answer if test is None or test(segments) else None
        return None if place is None or isinstance(place, dict) else place.first(segments)


class _Fork(Generic[Answer]):
    """A place that several patterns share and that more than literal segments leave, or where some are accepted."""

    __slots__ = ("_answers", "_beneath", "_depth", "_final_globs", "_finals", "_globs", "_here", "_literals", "_rest")

    def __init__(self, rests: Sequence[_Rest[Answer]], depth: int, builder: "_Builder[Answer]") -> None:
        self._depth = depth
        self._here: Answer | None = None
        self._beneath: Answer | None = None
        literals: dict[str, list[_Rest[Answer]]] = {}
        globs: dict[str, tuple[SegmentGlob, list[_Rest[Answer]]]] = {}
        self._finals: dict[str, tuple[None, Answer]] = {}
        final_globs: dict[str, tuple[SegmentGlob, tuple[None, Answer]]] = {}
        self._answers: list[Answer] = []
        tails: list[Tail] = []
        for tokens, form, answer in rests:
            token = tokens[0] if tokens and depth < _DEPTH_MAX else None
            if not tokens:
                if form is not Form.BENEATH and self._here is None:
                    self._here = answer
                if form is not Form.EXACT and self._beneath is None:
                    self._beneath = answer
            elif isinstance(token, str):
                literals.setdefault(token, []).append((tokens[1:], form, answer))
            elif token is not None:
                globs.setdefault(token.text, (token, []))[1].append((tokens[1:], form, answer))
            elif tokens[0] is None and len(tokens) == 2 and form is Form.EXACT and tokens[1] is not None:
                # Any number of segments, and then one: only the last segment of a resource matters.
                if isinstance(tokens[1], str):
                    self._finals.setdefault(tokens[1], (None, answer))
                else:
                    final_globs.setdefault(tokens[1].text, (tokens[1], (None, answer)))
            else:
                tails.append((tokens, form, len(tails)))
                self._answers.append(answer)
        self._literals = {text: builder.place(behind, depth + 1) for text, behind in literals.items()}
        self._globs = _globs([(glob, builder.place(behind, depth + 1)) for glob, behind in globs.values()], depth + 1)
        self._final_globs = _globs(list(final_globs.values()), depth + 1)
        self._rest = Trie(tails) if tails else None

    def first(self, segments: Sequence[str]) -> Answer | None:
        """As `Matcher.first`, for a resource whose first segments lead here."""
        depth = self._depth
        if len(segments) == depth:
            return self._here
        if self._beneath is not None:
            return self._beneath
        segment = segments[depth]
        if self._literals:
            place = self._literals.get(segment)
            if place is not None and (answer := _follow(place, segments, depth + 1)) is not None:
                return answer
        if self._globs is not None and (answer := self._globs.first(segment, segments)) is not None:
            return answer
        if self._finals and (final := self._finals.get(segments[-1])) is not None:
            return final[1]
        if self._final_globs is not None:
            answer = self._final_globs.first(segments[-1], segments)
            if answer is not None:
                return answer
        if self._rest is not None and (number := self._rest.first(segments[depth:])) != NOTHING:
            return self._answers[number]
        return None


class _Leaves(Generic[Answer]):
    """A place that only literal segments leave, each for a single pattern, and all those have the same rest."""

    __slots__ = ("_answers", "_depth", "_test")

    def __init__(self, answers: dict[str, Answer], test: Test | None, depth: int) -> None:
        self._answers = answers
        self._test = test
        self._depth = depth

    def first(self, segments: Sequence[str]) -> Answer | None:
        """As `Matcher.first`, for a resource whose first segments lead here."""
        if len(segments) == self._depth or (self._test is not None and not self._test(segments)):
            return None
        return self._answers.get(segments[self._depth])


class _Globs(GlobEdges[_Place[Answer]]):
    """The wildcard segments that leave a place."""

    __slots__ = ("_behind",)

    def __init__(self, globs: Sequence[tuple[SegmentGlob, _Place[Answer]]], behind: int) -> None:
        """File the globs; `behind` is the depth of the places that they lead to."""
        super().__init__(globs)
        self._behind = behind

    def first(self, segment: str, segments: Sequence[str]) -> Answer | None:
        """The answer behind a glob that matches the segment."""
        # The loops of `step`, but for leaving them with the first answer.
        edge: Edge[_Place[Answer]] | None
        for length, edges in self.by_prefix:
            edge = edges.get(segment[:length])
            while edge is not None:
                end, glob, place, edge = edge
                if segment.endswith(end, length) if glob is None else glob.matches(segment):
                    found = _follow(place, segments, self._behind)
                    if found is not None:
                        return found
        for length, edges in self.by_suffix:
            edge = edges.get(segment[-length:])
            while edge is not None:
                end, glob, place, edge = edge
                if segment.startswith(end, 0, -length) if glob is None else glob.matches(segment):
                    found = _follow(place, segments, self._behind)
                    if found is not None:
                        return found
        if self.by_inner or self.others:
            for place in self.step_slowly(segment):
                found = _follow(place, segments, self._behind)
                if found is not None:
                    return found
        return None


class _LikeGlobs(Generic[Answer]):
    """As `_Globs`, all of them `prefix*suffix` with the same prefix or the same suffix, single patterns, one rest."""

    __slots__ = ("_filed", "_prefix", "_suffix", "_test")

    def __init__(self, globs: Sequence[tuple[SegmentGlob, Answer]], test: Test | None) -> None:
        self._test = test
        one = globs[0][0]
        # What all have in common is compared, the other end is looked up.
        self._suffix = one.suffix if all(glob.suffix == one.suffix for glob, _ in globs) else None
        self._prefix = one.prefix if self._suffix is None else ""
        lengths: dict[int, dict[str, Answer]] = {}
        for glob, answer in globs:
            end = glob.suffix if self._suffix is None else glob.prefix
            lengths.setdefault(len(end), {})[end] = answer
        self._filed = sorted(lengths.items(), key=lambda filed: (-len(filed[1]), filed[0]))

    @staticmethod
    def fits(globs: Sequence[SegmentGlob]) -> bool:
        """Whether these can be filed in this way."""
        return all(glob.single_star for glob in globs) and (
            len({glob.suffix for glob in globs}) == 1
            or (len({glob.prefix for glob in globs}) == 1 and all(glob.suffix for glob in globs))
        )

    def first(self, segment: str, segments: Sequence[str]) -> Answer | None:
        """The answer of a glob that matches the segment."""
        if self._test is not None and not self._test(segments):
            return None
        suffix = self._suffix
        if suffix is None:
            prefix = self._prefix
            for length, answers in self._filed:
                answer = answers.get(segment[-length:])
                if answer is not None and segment.startswith(prefix, 0, -length):
                    return answer
            return None
        for length, answers in self._filed:
            answer = answers.get(segment[:length])
            if answer is not None and segment.endswith(suffix, length):
                return answer
        return None


def _globs(
    globs: Sequence[tuple[SegmentGlob, _Place[Answer]]], behind: int
) -> _Globs[Answer] | _LikeGlobs[Answer] | None:
    if not globs:
        return None
    leaves = [(glob, place) for glob, place in globs if isinstance(place, tuple)]
    tests = {test for _, (test, _) in leaves}
    if len(leaves) == len(globs) and len(tests) == 1 and _LikeGlobs.fits([glob for glob, _ in globs]):
        return _LikeGlobs([(glob, answer) for glob, (_, answer) in leaves], tests.pop())
    return _Globs(globs, behind)


def _follow(place: _Place[Answer], segments: Sequence[str], depth: int) -> Answer | None:
    found: _Place[Answer] | None = place
    while isinstance(found, dict):
        if depth == len(segments):
            return None
        found = found.get(segments[depth])
        depth += 1
    if isinstance(found, tuple):
        test, answer = found
        return answer if test is None or test(segments) else None
    return None if found is None else found.first(segments)


class _Builder(Generic[Answer]):
    """Makes places, and lets all patterns with the same rest at the same depth share one test."""

    def __init__(self) -> None:
        self._tests: dict[tuple[tuple[Token, ...], Form, int], Test | None] = {}

    def place(self, rests: Sequence[_Rest[Answer]], depth: int) -> _Place[Answer]:
        if len(rests) == 1:
            tokens, form, answer = rests[0]
            key = (tokens, form, depth)
            if key not in self._tests:
                self._tests[key] = _test(tokens, form, depth)
            return self._tests[key], answer
        literals: dict[str, list[_Rest[Answer]]] = {}
        for tokens, form, answer in rests:
            if depth == _DEPTH_MAX or not tokens or not isinstance(tokens[0], str):
                return _Fork(rests, depth, self)
            literals.setdefault(tokens[0], []).append((tokens[1:], form, answer))
        places = {text: self.place(behind, depth + 1) for text, behind in literals.items()}
        leaves = {text: place for text, place in places.items() if isinstance(place, tuple)}
        tests = {test for test, _ in leaves.values()}
        if len(leaves) == len(places) > 1 and len(tests) == 1:
            return _Leaves({text: answer for text, (_, answer) in leaves.items()}, tests.pop(), depth)
        return dict(places)


def _test(tokens: tuple[Token, ...], form: Form, depth: int) -> Test | None:
    """What tells whether a resource, of which so many segments fit, fits the rest of a pattern; None if it always does.

    The frequent rests have a test of their own.
    """
    exact, least = form is Form.EXACT, depth + len(tokens) + (form is Form.BENEATH)
    if not tokens:
        if exact:
            return lambda segments: len(segments) == depth
        return None if form is Form.TREE else lambda segments: len(segments) > depth
    if len(tokens) == 1 and isinstance(tokens[0], str):
        name = tokens[0]
        if exact:
            return lambda segments: len(segments) == least and segments[depth] == name
        return lambda segments: len(segments) >= least and segments[depth] == name
    if len(tokens) == 2 and exact and tokens[0] is None and isinstance(tokens[1], SegmentGlob):
        last = tokens[1]
        if last.single_star and not last.prefix:
            suffix = last.suffix
            return lambda segments: len(segments) > depth and segments[-1].endswith(suffix)
        return lambda segments: len(segments) > depth and last.matches(segments[-1])
    return lambda segments: _fits(tokens, form, segments, depth)


def _fits(tokens: tuple[Token, ...], form: Form, segments: Sequence[str], depth: int) -> bool:
    count = len(segments)
    for at, token in enumerate(tokens, depth):
        if token is None:
            return matches_tokens(tokens[at - depth :], form, segments[at:])
        if at == count or not (token == segments[at] if isinstance(token, str) else token.matches(segments[at])):
            return False
    end = depth + len(tokens)
    return form is Form.TREE or (count == end if form is Form.EXACT else count > end)
