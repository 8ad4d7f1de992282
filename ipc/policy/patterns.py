"""The pattern language: parsing, and matching one pattern against one resource.

A pattern is a sequence of segments between separators (`/` in paths, `.` in topics and names, `:` in storage keys):

- `*` is any number of characters of one segment, and a segment that is only `*` is any one segment. Names that begin
  with a dot are no exception: `*` matches `.hidden`.
- `?` is one character (one code point, also one undecodable byte); `[abc]`, `[a-z]`, `[!a]` are one character of a set.
  `]` directly after `[` or `[!` is literal, and so is `-` at either end. There is no escape character: `[*]` is a star.
- `**` is a whole segment of its own and crosses separators: in the middle it stands for any number of segments, none
  included (`/a/**/b` matches `/a/b`); at the end for one or more (`/a/**` is everything beneath `/a`, not `/a` itself).
- In paths, `dir/` is `dir` itself and everything beneath, and a path without a slash at its end is exactly that object.

Comparison is by code point: case matters, and the NFC and NFD forms of a name are two names, as they are for Linux.
No regular expression here can backtrack beyond linear time: `*` runs are atomic (as in CPython's `fnmatch`).
"""

import re
import sys
from collections.abc import Iterator, Sequence
from enum import Enum
from functools import lru_cache
from typing import Final, Literal

from ipc.errors import ConfigError
from ipc.struct import Struct

Separator = Literal["/", ".", ":"]

PATTERN_MAX_CHARS: Final = 4096
"""Longest pattern accepted, in characters; Linux's PATH_MAX."""
CROSSING_MAX: Final = 8
"""Most `**` segments in one pattern: bounds the work of one check, whatever a manifest says."""

# What a terminal or a reviewer's eye may be deceived with: C0, DEL, C1, line and paragraph separators, bidi controls
# (Trojan Source, CVE-2021-42574), zero-width and byte-order marks.
_DECEPTIVE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]")
# Surrogates other than those by which os.fsdecode represents undecodable bytes (PEP 383) are no text at all.
_NOT_TEXT: Final = re.compile("[\ud800-\udc7f\udd00-\udfff]")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_KINDS: Final = (
    *(("\0", "\x1f"), ("\x7f", "\x9f"), ("\u061c", "\u061c"), ("\u200b", "\u200f"), ("\u2028", "\u202e")),
    *(("\u2060", "\u2069"), ("\ufeff", "\ufeff"), ("\ufff9", "\ufffb"), ("\ud800", "\udfff")),
)
"""The runs of characters of which these are made, each between two that a pattern may hold."""
_MAGIC: Final = re.compile(r"[*?\[]")
_SET_OF_ONE: Final = re.compile(r"\[[^!]\]")
_SET: Final = re.compile(r"\[!?.[^\]]*\]")
_SET_OR_WILDCARD: Final = re.compile(rf"{_SET.pattern}|[*?]")


@lru_cache(maxsize=16_384)
def _compiled(expression: str) -> re.Pattern[str]:
    """Compile when first met, so that ten thousand patterns cost nothing to load."""
    return re.compile(expression, re.DOTALL)


class PatternError(ConfigError, ValueError):
    """A pattern is malformed; `position` is the index of the character at fault, in code points from 0."""

    def __init__(self, text: str, position: int, reason: str) -> None:
        """Keep the parts, for a message that can point at the character."""
        self.text = text
        self.position = position
        self.reason = reason
        super().__init__(f"pattern {text!r}, at character {position}: {reason}")


class Form(Enum):
    """Which resources a pattern covers, relative to what its segments match."""

    EXACT = "exact"
    TREE = "tree"
    """The object itself and everything beneath it (`dir/`)."""
    BENEATH = "beneath"
    """Everything beneath, not the object itself (`dir/**`)."""


class SegmentGlob(Struct, frozen=True):
    """One segment with wildcards: matches a segment, never a separator."""

    text: str
    prefix: str
    """The literal characters before the first wildcard."""
    suffix: str
    """The literal characters after the last one."""
    between: tuple[str, ...]
    """The literal characters between one wildcard and the next."""
    only_stars: bool
    """Whether all its wildcards are `*`, so that no regular expression is needed."""
    single_star: bool
    """Whether it is only `prefix*suffix`."""
    expression: str
    """The regular expression, to be matched in full."""

    @property
    def inner(self) -> str:
        """The longest run of literal characters between the first wildcard and the last."""
        return max(self.between, key=len, default="")

    def matches(self, segment: str) -> bool:
        """Whether it matches this whole, non-empty segment."""
        if not self.only_stars:
            return _compiled(self.expression).fullmatch(segment) is not None
        at, end = len(self.prefix), len(segment) - len(self.suffix)
        if not segment or at > end or not segment.startswith(self.prefix) or not segment.endswith(self.suffix):
            return False
        # Taking the earliest place for each literal text loses no match.
        for text in self.between:
            at = segment.find(text, at, end)
            if at < 0:
                return False
            at += len(text)
        return True

    def names_something(self) -> bool:
        """Whether it holds a literal character, outside sets of more than one member."""
        return _SET.sub("", _SET_OF_ONE.sub("x", self.text)).strip("*?") != ""


Token = str | SegmentGlob | None
"""A literal segment, a segment with wildcards, or None for `**`."""


class Pattern(Struct, frozen=True):
    """A parsed pattern; equal texts with equal separators are equal patterns."""

    text: str
    separator: Separator
    tokens: tuple[Token, ...]
    form: Form

    def matches(self, resource: str) -> bool:
        """Whether it covers this normalised resource (the reference; `PatternIndex` is the fast way)."""
        return matches_tokens(self.tokens, self.form, split_resource(resource, self.separator))


class Malformed(Struct, frozen=True):
    """A resource whose name is not in its one normal form; it is refused (A1207), never repaired."""

    reason: str


def split_resource(resource: str, separator: Separator) -> list[str]:
    """The segments of a normalised resource; a path's leading slash is not a segment, and `/` has none."""
    if separator == "/":
        return resource[1:].split("/") if len(resource) > 1 else []
    return resource.split(separator)


def parse_pattern(text: str, separator: Separator = "/") -> Pattern:
    """Parse a pattern; raises PatternError, which names the position and the reason."""
    _check_characters(text)
    form = Form.EXACT
    body, offset = text, 0
    if separator == "/":
        if not text.startswith("/"):
            raise PatternError(text, 0, "a path pattern must be absolute (begin with /)")
        body, offset = text[1:], 1
        if not body:
            return Pattern(text, separator, (), Form.TREE)
        if body.endswith("/"):
            body = body[:-1]
            form = Form.TREE
    tokens: list[Token] = []
    crossings = 0
    for segment, position in _segments(body, offset, separator):
        token = _parse_segment(text, segment, position, separator)
        if token is not None:
            tokens.append(token)
        elif not tokens or tokens[-1] is not None:  # **/** says no more than **
            tokens.append(None)
            crossings += 1
            if crossings > CROSSING_MAX:
                raise PatternError(text, position, f"more than {CROSSING_MAX} segments are **")
    if tokens[-1] is None:
        tokens.pop()
        form = Form.BENEATH
    return Pattern(text, separator, tuple(tokens), form)


def is_too_broad(text: str, separator: Separator = "/") -> bool:
    """Whether a pattern names nothing: no segment of it holds a literal character (`/`, `/**`, `/*/*`, `*:*`, `*`).

    A malformed pattern is not too broad, it is an error of its own.
    """
    try:
        pattern = parse_pattern(text, separator)
    except PatternError:
        return text.strip("*/.:") == "" and "*" in text
    return not any(
        isinstance(token, str) or (isinstance(token, SegmentGlob) and token.names_something())
        for token in pattern.tokens
    )


def literal_pattern_text(resource: str) -> str:
    """The pattern that matches exactly this resource, whatever characters its name holds."""
    return _MAGIC.sub(lambda found: f"[{found[0]}]", resource).replace("${", "[$]{")


def with_any_for_refused(pattern: str, undecodable: bool = False) -> str:
    """A pattern text in which what no pattern may hold stands for any one character of its kind.

    Any resource can be named so, and no name that holds letters, digits and the like instead is named with it: `?`
    would let `/home/me/\\x01\\x01\\x01\\x01` stand for any name of four letters. With `undecodable` the bytes that are
    not UTF-8, which a pattern may hold and a file of text may not, are written so too.
    """
    pattern = _DECEPTIVE.sub(lambda found: _any_of_its_kind(found[0]), pattern)
    return (_SURROGATE if undecodable else _NOT_TEXT).sub(lambda found: _any_of_its_kind(found[0]), pattern)


def _any_of_its_kind(character: str) -> str:
    """The set that holds the refused characters around this one, and C0: its ends may themselves be in a pattern."""
    first, last = next((first, last) for first, last in _KINDS if first <= character <= last)
    below = f" -{chr(ord(first) - 1)}" if first > " " else ""
    above = f"{chr(max(ord(last) + 1, ord(' ')))}-\U0010ffff"
    return f"[!{below}{above}]"


def has_wildcards(text: str) -> bool:
    """Whether the text holds any character that a pattern gives a meaning."""
    return _MAGIC.search(text) is not None


def _check_characters(text: str) -> None:
    if not text:
        raise PatternError(text, 0, "empty")
    if len(text) > PATTERN_MAX_CHARS:
        raise PatternError(text[:60] + "…", PATTERN_MAX_CHARS, f"longer than {PATTERN_MAX_CHARS} characters")
    if (found := _DECEPTIVE.search(text)) is not None:
        name = "NUL" if found[0] == "\0" else f"control or invisible character U+{ord(found[0]):04X}"
        raise PatternError(text, found.start(), name)
    if (found := _NOT_TEXT.search(text)) is not None:
        raise PatternError(text, found.start(), f"lone surrogate U+{ord(found[0]):04X}")
    if (position := text.find("${")) >= 0:
        raise PatternError(text, position, "unresolved variable (a literal ${ is written [$]{)")


def _segments(body: str, offset: int, separator: Separator) -> Iterator[tuple[str, int]]:
    position = offset
    for segment in body.split(separator):
        yield segment, position
        position += len(segment) + 1


def _parse_segment(text: str, segment: str, position: int, separator: Separator) -> Token:
    if not segment:
        raise PatternError(text, position, f"empty segment (two {separator} in a row, or one at an end)")
    if separator == "/" and segment in (".", ".."):
        raise PatternError(text, position, f"a segment may not be {segment}")
    if segment == "**":
        return None
    if (run := segment.find("**")) >= 0:
        reason = "more than two stars" if "***" in segment else "** must be a whole segment"
        raise PatternError(text, position + run, reason)
    if _MAGIC.search(segment) is None:
        return sys.intern(segment)
    try:
        return _parse_glob(segment)
    except PatternError as error:
        raise PatternError(text, position + error.position, error.reason) from None


@lru_cache(maxsize=4096)
def _parse_glob(segment: str) -> SegmentGlob:
    """Parse a segment with wildcards; equal ones share one value, which keeps it in the processor's cache."""
    found = _MAGIC.search(segment)
    first = found.start() if found is not None else len(segment)
    prefix = sys.intern(segment[:first])
    chunks = [re.escape(prefix)]  # the expression between stars
    suffix: list[str] = []
    index = first
    while index < len(segment):
        character = segment[index]
        if character == "[":
            expression, index = _parse_set(segment, index)
            chunks[-1] += expression
            suffix.clear()
            continue
        if character == "*":
            chunks.append("")
            suffix.clear()
        elif character == "?":
            chunks[-1] += "."
            suffix.clear()
        else:
            chunks[-1] += re.escape(character)
            suffix.append(character)
        index += 1
    if len(chunks) == 1:
        expression = chunks[0]
    else:
        # Every chunk has a fixed length, so taking the earliest place for each but the last loses no match.
        middle = "".join(f"(?>.*?{chunk})" for chunk in chunks[1:-1])
        expression = f"{chunks[0]}{middle}.*{chunks[-1]}"
    tail = sys.intern("".join(suffix))
    between = tuple(_SET_OR_WILDCARD.split(segment)[1:-1])
    only_stars = "?" not in segment and "[" not in segment
    return SegmentGlob(segment, prefix, tail, between, only_stars, only_stars and not between, expression)


def _parse_set(segment: str, start: int) -> tuple[str, int]:
    """Parse `[…]` at `start`; its expression, and the index after the closing bracket."""
    index = start + 1
    negated = segment[index : index + 1] == "!"
    if negated:
        index += 1
    elif segment[index : index + 1] == "^":
        raise PatternError(segment, index, "write [!…] for a negated set")
    close = segment.find("]", index + 1)
    if close < 0:
        raise PatternError(segment, start, "[ is never closed in this segment")
    members = segment[index:close]
    parts: list[str] = []
    at = 0
    while at < len(members):
        low = members[at]
        if members[at + 1 : at + 2] == "-" and at + 2 < len(members):
            high = members[at + 2]
            if high < low:
                raise PatternError(segment, index + at, f"empty range {low}-{high}")
            parts.append(f"{re.escape(low)}-{re.escape(high)}")
            at += 3
        else:
            parts.append(re.escape(low))
            at += 1
    return f"[{'^' if negated else ''}{''.join(parts)}]", close + 1


def matches_tokens(tokens: tuple[Token, ...], form: Form, segments: Sequence[str]) -> bool:
    """Match by sets of positions, so that no pattern takes more than len(tokens) * len(segments) steps."""
    positions = _closure(tokens, {0})
    for segment in segments:
        if len(tokens) in positions and form is not Form.EXACT:
            return True
        following: set[int] = set()
        for position in positions:
            if position == len(tokens):
                continue
            token = tokens[position]
            if token is None:
                following.add(position)
            elif token == segment if isinstance(token, str) else token.matches(segment):
                following.add(position + 1)
        positions = _closure(tokens, following)
    return len(tokens) in positions and form is not Form.BENEATH


def _closure(tokens: tuple[Token, ...], positions: set[int]) -> set[int]:
    return positions | {position + 1 for position in positions if position < len(tokens) and tokens[position] is None}
