"""Many patterns at once: a check costs the same with ten patterns and with ten thousand."""

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from ipc.policy.matcher import Answer, Matcher
from ipc.policy.patterns import Pattern, Separator, split_resource
from ipc.policy.trie import NOTHING, Reach, Trie

__all__ = ["NOTHING", "PatternIndex", "Reach"]


class PatternIndex:
    """An immutable set of patterns, all of one separator, each with a payload that says which it was.

    The order in which the patterns were given changes no answer: they are put in the order of their texts first.
    """

    __slots__ = ("_entries", "_matcher", "_separator", "_trie", "count")

    def __init__(self, patterns: Iterable[tuple[Pattern, int]]) -> None:
        """Take the patterns; raises ValueError if they differ in their separators."""
        entries = sorted(patterns, key=lambda entry: (entry[0].text, entry[0].form.value, entry[1]))
        separators = {pattern.separator for pattern, _ in entries}
        if len(separators) > 1:
            raise ValueError(f"patterns of one index share one separator, got {sorted(separators)}")
        self._separator: Separator = entries[0][0].separator if entries else "/"
        self._entries: Final = tuple((pattern.tokens, pattern.form, payload) for pattern, payload in entries)
        self.count = len(entries)
        self._trie = Trie(self._entries)
        self._matcher: Matcher[int] | None = None

    def __bool__(self) -> bool:
        """Whether it holds any pattern."""
        return self.count > 0

    def matches(self, resource: str) -> tuple[int, ...]:
        """The payloads of all patterns that cover this normalised resource, in ascending order."""
        return self.matches_segments(split_resource(resource, self._separator))

    def matches_segments(self, segments: Sequence[str]) -> tuple[int, ...]:
        """As `matches`, for a resource that was split already."""
        return self._trie.matches(segments)

    def first(self, segments: Sequence[str]) -> int:
        """The payload of one pattern that covers the resource, NOTHING (-1) if none does."""
        if self._matcher is None:
            self._matcher = Matcher(self._entries)
        payload = self._matcher.first(segments)
        return NOTHING if payload is None else payload

    def reach(self, segments: Sequence[str]) -> Reach:
        """What the patterns can still say of anything beneath this directory."""
        return self._trie.reach(segments)

    def nearest(self, segments: Sequence[str]) -> int:
        """The payload of a pattern that shares the longest beginning with the resource, NOTHING without patterns."""
        return self._trie.nearest(segments)

    def answering(self, answers: Sequence[Answer]) -> Callable[[Sequence[str]], Answer | None]:
        """What finds `answers[payload]` of one pattern that covers a resource, or None: as `first`, a step shorter."""
        return Matcher([(tokens, form, answers[payload]) for tokens, form, payload in self._entries]).first
