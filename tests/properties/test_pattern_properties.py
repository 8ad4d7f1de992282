"""Patterns: agreement with an independent matcher, with the index, and no dependence on order or spelling."""

from typing import get_args

from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from wcmatch import glob as wcglob

from ipc.policy.capability import normalise_path
from ipc.policy.index import NOTHING, PatternIndex
from ipc.policy.patterns import (
    Malformed,
    PatternError,
    Separator,
    is_too_broad,
    literal_pattern_text,
    parse_pattern,
    split_resource,
)

# A small alphabet makes collisions, and so matches, likely.
segments = st.text("ab.-", min_size=1, max_size=4).filter(lambda text: text not in (".", ".."))
paths = st.lists(segments, min_size=1, max_size=5).map(lambda parts: "/" + "/".join(parts))
glob_pieces = st.sampled_from(["*", "?", "[ab]", "[!a]", "[a-b]", "a", "b", ".", "-", "ab"])


@st.composite
def glob_segments(draw: st.DrawFn) -> str:
    """One segment with or without wildcards, never with two stars in a row."""
    pieces = draw(st.lists(glob_pieces, min_size=1, max_size=4))
    text = "".join(pieces)
    while "**" in text:
        text = text.replace("**", "*")
    assume(text not in (".", ".."))
    return text


@st.composite
def patterns(draw: st.DrawFn) -> str:
    """A well-formed path pattern of any form."""
    parts = draw(st.lists(st.one_of(segments, glob_segments(), st.just("**")), min_size=1, max_size=5))
    return "/" + "/".join(parts) + draw(st.sampled_from(["", "", "/", "/**"]))


def _parses(text: str) -> bool:
    try:
        parse_pattern(text)
    except PatternError:
        return False
    return True


anything = st.text(max_size=40) | st.text("/ab*?[]!-.$~{}\0", max_size=20)


@settings(max_examples=250, deadline=None)
@given(pattern=patterns(), path=paths)
@example(pattern="/a/**/b", path="/a/b")
@example(pattern="/*/b", path="/.a/b")
def test_agreement_with_wcmatch(pattern: str, path: str) -> None:
    """Where the languages coincide (all but `dir/` and a `**` at the end), wcmatch gives the same answer."""
    parsed = parse_pattern(pattern)
    assume(not pattern.endswith(("/", "**")))
    flags = wcglob.GLOBSTAR | wcglob.DOTGLOB | wcglob.FORCEUNIX | wcglob.CASE
    # A set followed by a dot is read by wcmatch as a name that may not be `.` or `..`; no normal path holds those.
    assert parsed.matches(path) is wcglob.globmatch(path, pattern, flags=flags)


@settings(max_examples=300, deadline=None)
@given(pattern=patterns(), path=paths)
def test_the_forms_at_the_end(pattern: str, path: str) -> None:
    """`P/` is P or anything beneath it, `P/**` is anything beneath it and not P alone."""
    assume(not pattern.endswith(("/", "**")))
    exact, tree, beneath = (parse_pattern(pattern + end) for end in ("", "/", "/**"))
    parents = [path[:at] for at in range(1, len(path)) if path[at] == "/"]
    below = any(exact.matches(parent) for parent in parents)
    assert beneath.matches(path) is below
    assert tree.matches(path) is (below or exact.matches(path))


@settings(max_examples=300, deadline=None)
@given(texts=st.lists(patterns(), min_size=1, max_size=8), path=paths)
def test_the_index_answers_as_the_patterns_do(texts: list[str], path: str) -> None:
    """An index finds exactly the patterns that match one by one, and its quick answer is one of them."""
    parsed = [parse_pattern(text) for text in texts]
    index = PatternIndex((pattern, number) for number, pattern in enumerate(parsed))
    expected = tuple(number for number, pattern in enumerate(parsed) if pattern.matches(path))
    assert index.matches(path) == expected
    found = index.first(split_resource(path, "/"))
    assert found in expected if expected else found == NOTHING


@settings(max_examples=200, deadline=None)
@given(texts=st.lists(patterns(), min_size=1, max_size=8, unique=True), path=paths, order=st.randoms())
def test_the_order_of_patterns_never_matters(texts: list[str], path: str, order: object) -> None:
    """Shuffled patterns give the same matches, the same first match and the same nearest pattern."""
    shuffled = list(texts)
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    answers = []
    for given_texts in (texts, shuffled):
        index = PatternIndex((parse_pattern(text), texts.index(text)) for text in given_texts)
        split = split_resource(path, "/")
        answers.append((index.matches(path), index.first(split), index.nearest(split)))
    assert answers[0] == answers[1]


@settings(max_examples=300, deadline=None)
@given(texts=st.lists(patterns(), min_size=1, max_size=6), directory=paths, tail=paths)
def test_reach_is_never_false_for_what_matches(texts: list[str], directory: str, tail: str) -> None:
    """Whatever matches beneath a directory, the directory is reached; whatever is wholly covered, matches."""
    index = PatternIndex((parse_pattern(text), number) for number, text in enumerate(texts))
    reach = index.reach(split_resource(directory, "/"))
    if index.matches(directory + tail):
        assert reach
    if reach.everything:
        assert index.matches(directory + tail)


@settings(max_examples=250, deadline=None)
@given(text=anything)
def test_any_text_parses_or_is_explained(text: str) -> None:
    """No text makes the parser fail in any other way than by a position within the text and a reason."""
    for separator in get_args(Separator):
        problem = None
        try:
            assert parse_pattern(text, separator).text == text
        except PatternError as error:
            problem = error
        assert problem is None or (0 <= problem.position <= len(text) and problem.reason)
        is_too_broad(text, separator)


@settings(max_examples=250, deadline=None)
@given(raw=anything | st.builds(lambda path, end: path + end, paths, st.sampled_from(["", "/", "//", "/.", "/.."])))
def test_normalising_twice_changes_nothing(raw: str) -> None:
    """A normal form is its own normal form, and differs from the raw name by at most a slash at the end."""
    found = normalise_path(raw)
    if not isinstance(found, Malformed):
        assert normalise_path(found) == found
        assert raw in (found, found + "/")


@settings(max_examples=300, deadline=None)
@given(text=patterns(), path=paths, noise=st.sampled_from(["/", "/.", "/..", "//", "/x/..", "/./x"]))
def test_a_grant_never_widens_under_normalisation(text: str, path: str, noise: str) -> None:
    """A name that normalises at all is matched exactly as its normal form is; noise is refused, not followed."""
    raw = path + noise
    found = normalise_path(raw)
    if isinstance(found, Malformed):
        assert noise != "/"
    else:
        assert found == path
        assert parse_pattern(text).matches(found) is parse_pattern(text).matches(path)


@settings(max_examples=300, deadline=None)
@given(
    path=st.text(st.characters(blacklist_categories=["Cs", "Cc", "Cf", "Zl", "Zp"]), min_size=1, max_size=12),
    other=paths,
)
def test_a_literal_pattern_matches_only_itself(path: str, other: str) -> None:
    """Any printable normal path has a pattern that matches it, and nothing else."""
    found = normalise_path("/" + path.strip("/"))
    assume(not isinstance(found, Malformed) and found != "/")
    assert isinstance(found, str)
    # U+FFF9 and the like are in no category above, and refused.
    assume(_parses(literal_pattern_text(found)))
    pattern = parse_pattern(literal_pattern_text(found))
    assert pattern.matches(found)
    assert pattern.matches(other) is (other == found)
