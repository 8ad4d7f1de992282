"""Many patterns at once: whatever way the index files them, it answers as the patterns do one by one."""

import random

import pytest

from ipc.policy.index import NOTHING, PatternIndex
from ipc.policy.patterns import parse_pattern, split_resource


def _check(texts: list[str], paths: list[str]) -> int:
    """Compare the index with the patterns one by one; how many paths were covered."""
    parsed = [parse_pattern(text) for text in texts]
    index = PatternIndex((pattern, number) for number, pattern in enumerate(parsed))
    name = index.answering(texts)
    covered = 0
    for path in paths:
        segments = split_resource(path, "/")
        expected = tuple(number for number, pattern in enumerate(parsed) if pattern.matches(path))
        assert index.matches(path) == expected, path
        found = index.first(segments)
        assert found in expected if expected else found == NOTHING, path
        assert name(segments) == (None if found == NOTHING else texts[found]), path
        covered += bool(expected)
    return covered


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("size", [2, 20, 80])
def test_globs_side_by_side(seed: int, size: int) -> None:
    """Globs of one directory that share prefixes, suffixes, inner texts, all of them or none of them."""
    choose = random.Random(f"{seed} {size}")
    pieces = choose.sample(["*", "?", "[ab]", "[!c]", "a", "b", "ab", "-", "c", "*-", "-*", "a*"], 5)
    segments = {"".join(choose.choice(pieces) for _ in range(choose.randint(1, 6))) for _ in range(size)}
    ends = ["", "", "", "/", "/**", "/b", "/*", "/**/c"] if seed % 2 else [""]
    texts = [f"/d/{segment}{choose.choice(ends)}" for segment in sorted(segments) if "**" not in segment]
    names = ["".join(choose.choice("abc-") for _ in range(choose.randint(1, 7))) for _ in range(60)]
    _check([*texts, "/d/a"], [f"/d/{name}{choose.choice(['', '/b', '/b/c'])}" for name in names])


@pytest.mark.parametrize(
    "pattern", ["/d/file-{}-*.csv", "/d/*-{}.csv", "/d/*-{}-*.csv", "/d/{}/", "/d/{}/**/*.csv", "/**/*-{}.csv"]
)
def test_hundreds_of_patterns_of_one_kind(pattern: str) -> None:
    """Each of a hundred alike patterns is found by what it covers, and nothing else is."""
    numbers = range(0, 3000, 30)
    example = pattern.replace("**", "x/y").replace("*", "a")
    paths = [example.format(number).rstrip("/") for number in range(0, 3000, 15)]
    assert _check([pattern.format(number) for number in numbers], paths) == 100


@pytest.mark.parametrize("segment", ["a", "*", "?", "a*"])
def test_patterns_as_deep_as_paths_can_be(segment: str) -> None:
    """Two patterns that part after a thousand segments are told apart, and don't exhaust the interpreter's stack."""
    deep = "/" + "/".join([segment] * 1000)
    path = "/" + "/".join(["a"] * 1000)
    texts = [f"{deep}/x", f"{deep}/y/", f"{deep}/**/z", "/" + "/".join([segment] * 60)]
    assert _check(texts, [f"{path}/x", f"{path}/y/z", f"{path}/q/z", path, path[:120], path[:118]]) == 4
