"""Inclusion of patterns: what is proven, what is refuted, and what stays unproven although it holds."""

from __future__ import annotations

import time

import pytest

from ipc.policy.capability import Grant
from ipc.policy.inclusion import UNKNOWN, Coverage, pattern_includes
from ipc.policy.patterns import parse_pattern


@pytest.mark.parametrize(
    ("outer", "inner"),
    [
        ("/a/**", "/a/b"),
        ("/a/", "/a"),
        ("/a/", "/a/**"),
        ("/a/**", "/a/b/"),
        ("/a/**", "/a/*/c"),
        ("/a/**/*.log", "/a/x/**/*.log"),
        ("/a/**/*.log", "/a/b.log"),
        ("/**", "/x"),
        ("/a/*", "/a/[xy]"),
        ("/a/x*", "/a/xy*z"),
        ("/a/**/b/**/c", "/a/1/b/2/**/c"),
        ("/", "/**"),
    ],
)
def test_what_is_included(outer: str, inner: str) -> None:
    """The inner pattern adds nothing to the outer one."""
    assert pattern_includes(parse_pattern(outer), parse_pattern(inner))


@pytest.mark.parametrize(
    ("outer", "inner"),
    [
        ("/a/**", "/a"),
        ("/a/**", "/a/"),
        ("/a/*", "/a/**"),
        ("/a/*.log", "/a/*"),
        ("/a/x*", "/a/[xy]*"),
        ("/a/**/*.log", "/a/**"),
        ("/a", "/a/"),
        ("/a/b", "/a/*"),
        ("/a/**/b", "/a/b/c"),
    ],
)
def test_what_is_not_included(outer: str, inner: str) -> None:
    """The inner pattern covers something that the outer one doesn't."""
    assert not pattern_includes(parse_pattern(outer), parse_pattern(inner))


def test_what_is_not_known_is_covered_by_itself_alone() -> None:
    """A parameter's value may be any number of segments: no star covers it, and everything beneath does."""
    unknown = f"/{UNKNOWN}logs"
    assert pattern_includes(parse_pattern(f"{unknown}/**"), parse_pattern(f"{unknown}/a.log"))
    assert pattern_includes(parse_pattern("/x/"), parse_pattern(f"/x{unknown}/a"))
    assert pattern_includes(parse_pattern("/x/**"), parse_pattern(f"/x{unknown}/a"))
    assert not pattern_includes(parse_pattern("/*/a.log"), parse_pattern(f"{unknown}/a.log"))
    assert not pattern_includes(parse_pattern("/x/**"), parse_pattern(f"/x{unknown}"))
    assert not pattern_includes(parse_pattern(f"/{UNKNOWN}other/**"), parse_pattern(f"{unknown}/a"))
    assert not pattern_includes(parse_pattern(f"/{UNKNOWN}*"), parse_pattern(f"{unknown}x"))


def test_a_tree_is_its_object_and_what_lies_beneath() -> None:
    """`/a/` is covered where one pattern covers `/a` and another everything beneath."""
    both = [Grant("filesystem.write", text, "x") for text in ("/a", "/a/**")]
    assert Coverage(both).covers(Grant("filesystem.write", "/a/", "x"))
    assert not Coverage(both[1:]).covers(Grant("filesystem.write", "/a/", "x"))


def test_a_listing_that_reading_implies_counts() -> None:
    """`read /a/*.csv` also lists `/a`, known to be a directory or not; a pattern behind `**` lists known ones only."""
    wide = Coverage([Grant("filesystem.read", "/**/*.csv", "x")])
    assert not wide.covers(Grant("filesystem.read", "/a/*.csv", "x"))
    assert wide.covers(Grant("filesystem.read", "/a/**/*.csv", "x"))
    assert wide.covers(Grant("filesystem.read", "/a/b.csv", "x"))
    listed = Coverage([Grant("filesystem.read", "/**/*.csv", "x"), Grant("filesystem.list", "/a", "x")])
    assert listed.covers(Grant("filesystem.read", "/a/*.csv", "x"))


def test_methods_limit_what_is_covered() -> None:
    """More methods, or no limit at all, are wider; fewer aren't; a raw connection covers every method."""
    get = Coverage([Grant("network.connect", "https://a.b/**", "x", True, ("GET", "PUT"))])
    assert get.covers(Grant("network.connect", "https://a.b/v1", "x", True, ("GET",)))
    assert not get.covers(Grant("network.connect", "https://a.b/v1", "x"))
    assert not get.covers(Grant("network.connect", "https://a.b/v1", "x", True, ("GET", "POST")))
    raw = Coverage([Grant("network.connect", "a.b:443", "x")])
    assert raw.covers(Grant("network.connect", "https://a.b/v1", "x", True, ("POST",)))
    assert not raw.covers(Grant("network.connect", "http://a.b/v1", "x"))


def test_secrets_are_names_and_not_patterns() -> None:
    """One secret never covers another, whatever its name looks like."""
    one = Coverage([Grant("secrets.env", "TOKEN", "x")])
    assert one.covers(Grant("secrets.env", "TOKEN", "y"))
    assert not one.covers(Grant("secrets.env", "TOKEN_2", "x"))


def test_hostile_patterns_take_no_time() -> None:
    """Two thousand segments with eight crossings on both sides are compared in far less than a second."""
    long = parse_pattern("/" + "/".join(["**" if n % 250 == 1 else "a" for n in range(2000)]))
    started = time.process_time()
    assert pattern_includes(long, long)
    assert not pattern_includes(long, parse_pattern("/b/**"))
    assert time.process_time() - started < 5


def test_one_of_many_is_found_whatever_its_wildcards() -> None:
    """Sets, negated sets, question marks and stars in the inner pattern don't hide the one that includes it."""
    crowd = [Grant("filesystem.write", f"/crowd/{n}/*", "x") for n in range(50)]
    for wide, narrow in (
        ("/in/**", "/in/[ab]x/?/[!c]*"),
        ("/in/*", "/in/[]]"),
        ("/in/a*", "/in/a[[]*"),
        ("/in/[!a]/", "/in/[!a]/b"),
    ):
        wider = Coverage([*crowd, Grant("filesystem.write", wide, "x")])
        assert wider.covers(Grant("filesystem.write", narrow, "x")), narrow
        assert not Coverage(crowd).covers(Grant("filesystem.write", narrow, "x"))


def test_hostile_sets_take_no_time() -> None:
    """Thousands of patterns that all could cover thousands of others: the comparing ends, and proves nothing then."""
    old = Coverage([Grant("filesystem.write", f"/**/a{n}*b/*", "x") for n in range(10_000)])
    started = time.process_time()
    assert old.covers(Grant("filesystem.write", "/x/a7777cb/d", "x"))
    crowd = Coverage([Grant("filesystem.write", f"/**/x/*{'?' * (n % 40)}*/c{n}*", "x") for n in range(5_000)])
    for n in range(2_000):
        crowd.covers(Grant("filesystem.write", f"/x/*/**/{n}", "x"))
    assert not crowd.covers(Grant("filesystem.write", "/y/x/z/d", "x"))
    assert time.process_time() - started < 20
