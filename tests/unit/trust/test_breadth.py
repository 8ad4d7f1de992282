"""Patterns that trust more people than was meant are warned about, each in words; others aren't."""

from __future__ import annotations

import pytest

from supervisor.trust.breadth import breadth_warning
from supervisor.trust.sources import LocalSource, TrustSource, git_source, oci_source


def _source(form: str, pattern: str) -> TrustSource:
    if form == "local":
        return LocalSource(0, "airssys.toml:2", pattern)
    return (git_source if form == "git" else oci_source)(0, "airssys.toml:2", pattern)


@pytest.mark.parametrize(
    ("form", "pattern"),
    [
        ("git", "https://github.com/*"),
        ("git", "https://github.com/**"),
        ("git", "https://github.com/*/plugins"),
        ("git", "https://github.com/acme*/plugins"),
        ("git", "ssh://git@github.com/**/csv"),
        ("git", "https://*/**"),
        ("git", "https://*.com/plugins/csv"),
        ("git", "https://*.co.uk/plugins/csv"),
        ("git", "https://git.*/plugins/csv"),
        ("git", "https://git.*.com/plugins/csv"),
        ("git", "file:///**"),
        ("git", "file:///tmp/*"),
        ("oci", "docker.io/*"),
        ("oci", "docker.io/**"),
        ("oci", "*/plugins"),
        ("local", "/**"),
        ("local", "/"),
        ("local", "/*/*"),
        ("local", "/home/**"),
        ("local", "/tmp/*"),
        ("local", "/home/*/components/*"),
    ],
)
def test_too_broad(form: str, pattern: str) -> None:
    """Whoever may have an account, a name or a file there would be trusted."""
    assert breadth_warning(_source(form, pattern)).startswith("too broad: ")


@pytest.mark.parametrize("host", ["localhost:5000", "127.0.0.1:5000", "[::1]:5000"])
def test_a_registry_on_this_machine_is_not_authenticated(host: str) -> None:
    """It is spoken to without TLS: whoever listens there is believed."""
    assert breadth_warning(_source("oci", f"{host}/plugins/*")).startswith("not authenticated: ")


@pytest.mark.parametrize(
    ("form", "pattern"),
    [
        ("git", "https://git.example.com/plugins/*"),
        ("git", "https://github.com/acme/*"),
        ("git", "https://*.example.com/plugins/*"),
        ("git", "https://*.example.co.uk/plugins/*"),
        ("git", "file:///srv/git/*"),
        ("oci", "registry.example.com/plugins/*"),
        ("local", "/srv/components/**"),
        ("local", "/tmp/mine/*"),
        ("local", "/home/me/components/*"),
    ],
)
def test_narrow_enough(form: str, pattern: str) -> None:
    """What names somebody in particular is nobody's mistake."""
    assert breadth_warning(_source(form, pattern)) == ""
