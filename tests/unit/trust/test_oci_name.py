"""Repositories of OCI registries: host, port and name, and patterns of them."""

from __future__ import annotations

import pytest

from supervisor.trust.host_name import UnclearNameError
from supervisor.trust.oci_name import parse_oci_name
from supervisor.trust.sources import oci_source

PATTERN = "registry.example.com/plugins/*"


@pytest.mark.parametrize(
    ("pattern", "name", "covered"),
    [
        (PATTERN, "registry.example.com/plugins/csv", True),
        (PATTERN, "Registry.Example.COM./plugins/csv", True),
        (PATTERN, "registry.example.com:443/plugins/csv", True),
        ("registry.example.com/plugins/**", "registry.example.com/plugins/a/b", True),
        ("localhost:5000/**", "localhost:5000/a", True),
        ("*.example.com/plugins/csv", "a.example.com/plugins/csv", True),
        (PATTERN, "registry.example.com/plugins", False),
        (PATTERN, "registry.example.com/plugins/a/b", False),
        (PATTERN, "registry.example.com/plugins-evil/csv", False),
        (PATTERN, "registry.example.com:5000/plugins/csv", False),
        (PATTERN, "registry.example.com.evil.com/plugins/csv", False),
        (PATTERN, "evil.com/registry.example.com/plugins/csv", False),
        ("localhost:5000/**", "localhost/a", False),
        ("*.example.com/plugins/csv", "a.b.example.com/plugins/csv", False),
    ],
)
def test_what_a_pattern_covers(pattern: str, name: str, covered: bool) -> None:
    """Host, port and name are compared one by one; a star stays within one label or part."""
    assert (oci_source(0, "", pattern).miss(parse_oci_name(name)) is None) == covered


@pytest.mark.parametrize(
    "name",
    [
        *("plugins", "registry.example.com", "registry.example.com/", "/plugins/csv", "registry.example.com/Plugins"),
        *("registry.example.com/a:tag", "registry.example.com/a@sha256:00", "registry.example.com/a//b", "h/a/../b"),
        *("http://registry.example.com/a", "user@registry.example.com/a", "h/-a", "h/a-", "h/a__-b", "h/a\n", "h/*"),
        *("h:/a", "h:0/a", "r\u0456gistry.example.com/a", "h/\u0430", "h/a b", "h/a%2fb", "h/a\\b"),
    ],
)
def test_what_is_no_name_of_a_repository_is_refused(name: str) -> None:
    """Tags and digests are no part of a repository's name, nor is anything that a registry wouldn't have."""
    with pytest.raises(UnclearNameError):
        parse_oci_name(name)


@pytest.mark.parametrize("pattern", ["h", "h/", "**/a", "**.example.com/a", "h/a**", "h/..", "h/A*", "h:*/a"])
def test_patterns_that_say_nothing_clear_are_refused(pattern: str) -> None:
    """A pattern has a host of labels and a name in lower case."""
    with pytest.raises(UnclearNameError):
        oci_source(0, "", pattern)
