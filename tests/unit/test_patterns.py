"""The pattern language: what matches, what does not, and what is no pattern."""

import pytest

from ipc.policy.capability import Grant, normalise_path
from ipc.policy.index import NOTHING, PatternIndex
from ipc.policy.patterns import (
    CROSSING_MAX,
    PATTERN_MAX_CHARS,
    Malformed,
    PatternError,
    Separator,
    is_too_broad,
    literal_pattern_text,
    parse_pattern,
    split_resource,
    with_any_for_refused,
)

NFC = "/d/caf\u00e9"
NFD = "/d/cafe\u0301"

MATCHES: list[tuple[str, str, bool]] = [
    # A bare path is that object.
    ("/a/b", "/a/b", True),
    ("/a/b", "/a/b/c", False),
    ("/a/b", "/a", False),
    ("/a/b", "/a/bc", False),
    ("/a/b", "/A/b", False),
    # A tree is the object and all beneath.
    ("/a/b/", "/a/b", True),
    ("/a/b/", "/a/b/c", True),
    ("/a/b/", "/a/b/c/d", True),
    ("/a/b/", "/a/bc", False),
    ("/a/b/", "/a", False),
    ("/", "/", True),
    ("/", "/x/y", True),
    # ** at the end is all beneath, without the object.
    ("/a/**", "/a", False),
    ("/a/**", "/a/b", True),
    ("/a/**", "/a/b/c", True),
    ("/a/**", "/ab", False),
    ("/a/**/", "/a", False),
    ("/a/**/", "/a/b", True),
    ("/**", "/", False),
    ("/**", "/x", True),
    # ** in the middle is any number of segments.
    ("/a/**/z", "/a/z", True),
    ("/a/**/z", "/a/b/z", True),
    ("/a/**/z", "/a/b/c/z", True),
    ("/a/**/z", "/a/b/c", False),
    ("/a/**/z", "/a/z/b", False),
    ("/a/**/z/", "/a/b/z/c", True),
    ("/a/**/**/z", "/a/z", True),
    ("/**/.git/hooks/", "/p/.git/hooks/pre-commit", True),
    ("/**/.git/hooks/", "/.git/hooks", True),
    ("/**/.git/hooks/", "/p/.git/x/hooks", False),
    ("/a/**/b/**/c", "/a/b/c", True),
    ("/a/**/b/**/c", "/a/x/b/y/b/z/c", True),
    ("/a/**/b/**/c", "/a/x/c", False),
    # * stays within a segment, and matches names that begin with a dot.
    ("/a/*", "/a/b", True),
    ("/a/*", "/a/.hidden", True),
    ("/a/*", "/a", False),
    ("/a/*", "/a/b/c", False),
    ("/a/*.log", "/a/x.log", True),
    ("/a/*.log", "/a/.log", True),
    ("/a/*.log", "/a/x.log.gz", False),
    ("/a/*.log", "/a/b/x.log", False),
    ("/a/*/c", "/a/b/c", True),
    ("/a/*/c", "/a/b/b/c", False),
    ("/a/*/c", "/a/c", False),
    ("/a/x*y", "/a/xy", True),
    ("/a/x*y", "/a/x12y", True),
    ("/a/x*x", "/a/x", False),
    ("/a/*b*", "/a/abc", True),
    ("/a/*b*", "/a/ac", False),
    ("/a/*a*b*c", "/a/1a2b3c", True),
    ("/a/*a*b*c", "/a/1b2a3c", False),
    ("/a/*ab*ab", "/a/ab", False),
    ("/a/*ab*ab", "/a/abab", True),
    ("/a/*/", "/a/b/c", True),
    ("/a/*/", "/a", False),
    # ? is one character, whatever it is but a separator.
    ("/a/?", "/a/b", True),
    ("/a/?", "/a/bc", False),
    ("/a/?", "/a", False),
    ("/a?b", "/a/b", False),
    ("/a/?", "/a/\u00e9", True),
    ("/a/?", "/a/\U0001f600", True),
    ("/a/?", "/a/\udcff", True),
    ("/a/*?", "/a/x", True),
    # Sets.
    ("/a/[abc]", "/a/b", True),
    ("/a/[abc]", "/a/d", False),
    ("/a/[a-c]x", "/a/bx", True),
    ("/a/[a-c]x", "/a/dx", False),
    ("/a/[!a-c]", "/a/d", True),
    ("/a/[!a-c]", "/a/a", False),
    ("/a[!x]b", "/a/b", False),
    ("/a/[]]", "/a/]", True),
    ("/a/[!]]", "/a/x", True),
    ("/a/[!]]", "/a/]", False),
    ("/a/[a-]", "/a/-", True),
    ("/a/[-a]", "/a/-", True),
    ("/a/[*]", "/a/*", True),
    ("/a/[*]", "/a/x", False),
    ("/a/[?]", "/a/?", True),
    ("/a/[[]", "/a/[", True),
    ("/a/[.]x", "/a/.x", True),
    ("/a/[\\d]", "/a/d", True),
    ("/a/[\\d]", "/a/7", False),
    ("/a/*[0-9].txt", "/a/log7.txt", True),
    # What means something elsewhere means nothing here.
    ("/a/{b,c}", "/a/b", False),
    ("/a/{b,c}", "/a/{b,c}", True),
    ("/a/\\*", "/a/*", False),
    ("/a/\\*", "/a/\\b", True),
    ("/a/b+", "/a/bb", False),
    ("/a/(b)", "/a/(b)", True),
    ("/a/b.c", "/a/bxc", False),
    ("/a/^b$", "/a/^b$", True),
    ("/a/~", "/a/~", True),
    # Code points, not appearances.
    (NFC, NFC, True),
    (NFC, NFD, False),
    (NFD, NFC, False),
    ("/d/*", NFD, True),
    ("/d/\u0130", "/d/i", False),
    ("/d/x.", "/d/x", False),
    ("/d/x", "/d/x.", False),
    ("/d/x ", "/d/x", False),
    # Names may hold what patterns may not.
    ("/d/*", "/d/new\nline", True),
    ("/d/*", "/d/bad\udcffbyte", True),
    ("/d/**", "/d/\x1b[31m/x", True),
    ("/d/a*c", "/d/a\nc", True),
]


@pytest.mark.parametrize(("pattern", "resource", "expected"), MATCHES)
def test_match(pattern: str, resource: str, expected: bool) -> None:
    """A pattern matches what the table says, alone and in an index."""
    parsed = parse_pattern(pattern)
    assert parsed.matches(resource) is expected
    index = PatternIndex([(parsed, 7)])
    assert index.matches(resource) == ((7,) if expected else ())
    assert index.first(split_resource(resource, "/")) == (7 if expected else NOTHING)


OTHER_SEPARATORS: list[tuple[str, Separator, str, bool]] = [
    ("summary.*", ".", "summary.daily", True),
    ("summary.*", ".", "summary.daily.eu", False),
    ("summary.*", ".", "summary", False),
    ("summary.**", ".", "summary.daily.eu", True),
    ("**.error", ".", "a.b.error", True),
    ("**.error", ".", "error", True),
    ("report-*", ".", "report-writer", True),
    ("report-*", ".", "reporter", False),
    ("summaries:*", ":", "summaries:2024", True),
    ("summaries:*", ":", "summaries:2024:05", False),
    ("summaries:**", ":", "summaries:2024:05", True),
    ("summaries:*", ":", "summaries:a/b.c", True),
    ("**", ".", "anything.at.all", True),
]


@pytest.mark.parametrize(("pattern", "separator", "resource", "expected"), OTHER_SEPARATORS)
def test_match_with_other_separators(pattern: str, separator: Separator, resource: str, expected: bool) -> None:
    """Topics, names and keys have the same language with another separator."""
    parsed = parse_pattern(pattern, separator)
    assert parsed.matches(resource) is expected
    assert bool(PatternIndex([(parsed, 0)]).matches(resource)) is expected


MALFORMED: list[tuple[str, int, str]] = [
    ("", 0, "empty"),
    ("a/b", 0, "absolute"),
    ("./a", 0, "absolute"),
    ("~/a", 0, "absolute"),
    ("//", 1, "empty segment"),
    ("/a//b", 3, "empty segment"),
    ("/a//", 3, "empty segment"),
    ("/a/./b", 3, "may not be ."),
    ("/a/../b", 3, "may not be .."),
    ("/a/..", 3, "may not be .."),
    ("/a\0b", 2, "NUL"),
    ("/a\nb", 2, "U+000A"),
    ("/a\x1b[31m", 2, "U+001B"),
    ("/a\x7f", 2, "U+007F"),
    ("/a\u202eb", 2, "U+202E"),
    ("/a\u200bb", 2, "U+200B"),
    ("/a\ud800", 2, "surrogate"),
    ("/a/[b", 3, "never closed"),
    ("/a/[]", 3, "never closed"),
    ("/a/[b/c]", 3, "never closed"),
    ("/a/[z-a]", 4, "empty range"),
    ("/a/[^b]", 4, "[!"),
    ("/a/***", 3, "more than two"),
    ("/a/b**", 4, "whole segment"),
    ("/a/**b", 3, "whole segment"),
    ("/a/${x}/b", 3, "unresolved"),
    ("/" + "a" * PATTERN_MAX_CHARS, PATTERN_MAX_CHARS, "longer"),
    ("/**/a" * (CROSSING_MAX + 1), 5 * CROSSING_MAX + 1, "more than 8"),
]


@pytest.mark.parametrize(("text", "position", "reason"), MALFORMED)
def test_malformed(text: str, position: int, reason: str) -> None:
    """A malformed pattern is refused with the position of the fault and its reason."""
    with pytest.raises(PatternError) as caught:
        parse_pattern(text)
    assert caught.value.position == position
    assert reason in caught.value.reason
    assert str(position) in str(caught.value)


def test_the_message_of_a_malformed_pattern_is_safe_to_print() -> None:
    """Control characters of a pattern reach no terminal through the error."""
    with pytest.raises(PatternError) as caught:
        parse_pattern("/a\x1b[31m")
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize("text", ["/**", "/", "/*", "/*/**", "/?*", "/**/*", "/[a-z]*/**", "/[!x]*/", "/**/"])
def test_too_broad_paths(text: str) -> None:
    """A pattern without any literal character in it names nothing."""
    assert is_too_broad(text)


@pytest.mark.parametrize("text", ["/a", "/a/**", "/**/*.log", "/*/x", "/[a]*/**", "bad", "/a/[*]"])
def test_not_too_broad_paths(text: str) -> None:
    """A literal character anywhere makes a pattern name something; a malformed one is another matter."""
    assert not is_too_broad(text)


@pytest.mark.parametrize(("text", "separator"), [("*:*", ":"), ("*", ":"), ("**", "."), ("*", "."), ("*.**", ".")])
def test_too_broad_names(text: str, separator: Separator) -> None:
    """The same holds for keys, topics and names."""
    assert is_too_broad(text, separator)


@pytest.mark.parametrize("resource", ["/a/*", "/a/[x]", "/a/?", "/a/${b}", "/a/b"])
def test_a_literal_pattern_matches_its_resource_only(resource: str) -> None:
    """Any resource can be granted by name, whatever characters it holds."""
    pattern = parse_pattern(literal_pattern_text(resource))
    assert pattern.matches(resource)
    assert not pattern.matches("/a/x")


@pytest.mark.parametrize("resource", ["/a/two\nlines", "/a/\x7f", "/a/\u200b[x]", "/\u202e/\ud800", "/a/plain*"])
def test_any_resource_has_a_pattern(resource: str) -> None:
    """What no pattern may hold stands for any one of its kind, and what it may hold only for itself."""
    pattern = parse_pattern(with_any_for_refused(literal_pattern_text(resource)))
    assert pattern.matches(resource)
    assert not pattern.matches(resource + "x")
    assert not pattern.matches(resource.replace("/", "/y", 1))


@pytest.mark.parametrize(
    "character", "\0\x1f\x7f\x9f\u061c\u200b\u200f\u2028\u202e\u2060\u2069\ufeff\ufff9\ufffb\ud800"
)
def test_what_no_pattern_may_hold_never_stands_for_letters(character: str) -> None:
    """A name of control or invisible characters is not the name of whatever has as many letters."""
    for text in (with_any_for_refused("/a/" + 3 * character), with_any_for_refused("/a/" + 3 * character, True)):
        pattern = parse_pattern(text)
        assert pattern.matches("/a/" + 3 * character)
        for name in (
            "key",
            ".ab",
            "12 ",
            "~-_",
            "\u00e9\u00fc\u00df",
            "\u65e5\u672c\u8a9e",
            3 * "\U0001f511",
            3 * "\U0010ffff",
        ):
            assert not pattern.matches("/a/" + name), (text, name)


def test_undecodable_bytes_can_be_written_without_them() -> None:
    """For a file of text they stand for any of their kind, and for nothing else."""
    pattern = parse_pattern(with_any_for_refused("/a/b\udcff", undecodable=True))
    assert pattern.text.isprintable() or pattern.text.encode()
    assert pattern.matches("/a/b\udc80")
    assert not pattern.matches("/a/bc")


NORMALISED: list[tuple[str, str | None]] = [
    ("/", "/"),
    ("/a", "/a"),
    ("/a/", "/a"),
    ("/a/b.", "/a/b."),
    ("/a/...", "/a/..."),
    ("/a/.hidden", "/a/.hidden"),
    ("/a/..b", "/a/..b"),
    ("/a b\n", "/a b\n"),
    ("/a/\udcff", "/a/\udcff"),
    (NFC, NFC),
    (NFD, NFD),
    ("", None),
    ("a", None),
    ("a/b", None),
    ("//", None),
    ("//a", None),
    ("/a//b", None),
    ("/a//", None),
    ("/.", None),
    ("/..", None),
    ("/a/.", None),
    ("/a/./b", None),
    ("/a/..", None),
    ("/a/../b", None),
    ("/a/../", None),
    ("/a\0", None),
    ("/a\ud800", None),
    ("/" + "a" * 4094, "/" + "a" * 4094),
    ("/" + "a" * 4095, None),
    ("/" + "\u00e9" * 2047, "/" + "\u00e9" * 2047),
    ("/" + "\u00e9" * 2048, None),
]


@pytest.mark.parametrize(("raw", "expected"), NORMALISED)
def test_normalise_path(raw: str, expected: str | None) -> None:
    """One trailing slash is dropped; everything else that is not normal is refused, not repaired."""
    found = normalise_path(raw)
    if expected is None:
        assert isinstance(found, Malformed)
        assert found.reason
    else:
        assert found == expected


def test_many_wildcards_do_not_explode() -> None:
    """Patterns made to backtrack are matched at once: the step count is bounded, so this returns."""
    stars = parse_pattern("/" + "*a" * 40 + "b")
    assert not stars.matches("/" + "a" * 250)
    crossings = parse_pattern("/" + "**/a/" * CROSSING_MAX + "b")
    index = PatternIndex([(crossings, 0)])
    assert index.matches("/a" * 200) == ()
    assert index.matches("/a" * 200 + "/b") == (0,)


def test_index_answers_as_its_patterns_do_one_by_one() -> None:
    """All patterns of the table in one index match what each matches alone."""
    texts = sorted({pattern for pattern, _, _ in MATCHES})
    parsed = [parse_pattern(text) for text in texts]
    index = PatternIndex((pattern, number) for number, pattern in enumerate(parsed))
    for resource in sorted({resource for _, resource, _ in MATCHES}):
        expected = tuple(number for number, pattern in enumerate(parsed) if pattern.matches(resource))
        assert index.matches(resource) == expected
        found = index.first(split_resource(resource, "/"))
        assert found in expected if expected else found == NOTHING


def test_an_index_takes_one_separator() -> None:
    """Patterns of two grammars can't share an index."""
    with pytest.raises(ValueError, match="one separator"):
        PatternIndex([(parse_pattern("/a"), 0), (parse_pattern("a", "."), 1)])


def test_grant_names_itself() -> None:
    """The rule of a grant names the action, the pattern and where it was written."""
    assert (
        Grant("filesystem.read", "/in/**", "Component.toml").rule == 'grant filesystem.read "/in/**" (Component.toml)'
    )
