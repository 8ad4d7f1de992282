"""What `airssys trust check` is asked about: as if it had been fetched, and nothing is."""

from __future__ import annotations

from pathlib import Path

import pytest

from ipc.errors import ConfigError
from supervisor.trust.sources import LocalSource, TrustSource, git_source, oci_source
from supervisor.trust.target import check_target, remote_provenance

SOURCES: tuple[TrustSource, ...] = (
    git_source(0, "a:1", "https://git.example.com/plugins/*", "main"),
    git_source(1, "a:2", "ssh://git@git.example.com/plugins/*"),
    oci_source(2, "a:3", "registry.example.com/plugins/*"),
)


@pytest.mark.parametrize(
    ("target", "kind", "url"),
    [
        ("https://git.example.com/plugins/csv", "git", "https://git.example.com/plugins/csv"),
        ("git+https://git.example.com/plugins/csv@v1#sub", "git", "git+https://git.example.com/plugins/csv"),
        ("git+https://git@git.example.com/plugins/csv", "git", "git+https://git@git.example.com/plugins/csv"),
        ("git+https://git.example.com@evil.com", "git", "git+https://git.example.com@evil.com"),
        ("git@git.example.com:plugins/csv", "git", "git@git.example.com:plugins/csv"),
        ("http://git.example.com/plugins/csv", "git", "http://git.example.com/plugins/csv"),
        ("ext::sh -c x", "git", "ext::sh -c x"),
        ("oci://registry.example.com/plugins/csv:1.0", "oci", "registry.example.com/plugins/csv"),
        (f"oci://registry.example.com/plugins/csv@sha256:{'0' * 64}", "oci", "registry.example.com/plugins/csv"),
    ],
)
def test_a_url_is_what_fetching_it_would_record(target: str, kind: str, url: str) -> None:
    """Revision, subdirectory, tag and digest say which version, and not from where."""
    provenance = remote_provenance(target, None)
    assert provenance is not None
    assert (provenance.kind, provenance.url) == (kind, url)


def test_a_path_is_no_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is there by that name is a path, also with a colon in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a:b").mkdir()
    for target in (".", "./x", "/srv/x", "a:b", "csv"):
        assert remote_provenance(target, None) is None


def test_the_answers() -> None:
    """Trusted, with the branch that an entry wants; not trusted, with what is really asked."""
    trusted = check_target("https://git.example.com/plugins/csv", "main", SOURCES)
    assert trusted.decision.source == SOURCES[0]
    branchless = check_target("https://git.example.com/plugins/csv", None, SOURCES)
    assert branchless.decision.level == "unknown"
    assert "branch main" in branchless.decision.reason
    trick = check_target("https://git.example.com@evil.com/plugins/csv", "main", SOURCES)
    assert trick.decision.level == "unknown"
    assert "read as https://evil.com/plugins/csv" in trick.facts
    assert trick.to_trust == 'git = "https://evil.com/plugins/csv"'
    assert trusted.to_trust == ""
    plain = check_target("http://git.example.com/plugins/csv", "main", SOURCES)
    assert "not authenticated" in plain.decision.reason
    assert plain.to_trust == ""
    assert check_target("oci://h.example/a:1", None, SOURCES).to_trust == 'oci = "h.example/a"'
    assert check_target("oci://registry.example.com/plugins/csv", None, SOURCES).decision.source == SOURCES[2]


def test_an_archive_is_judged_by_its_path(tmp_path: Path) -> None:
    """Its real path, and who could have exchanged it."""
    archive = tmp_path / "csv.tar.gz"
    archive.write_bytes(b"x")
    archive.chmod(0o644)
    source = LocalSource(0, "a:1", f"{tmp_path.resolve()}/*.tar.gz")
    assert check_target(str(archive), None, (source,)).decision.source == source
    (tmp_path / "link").symlink_to(archive)
    assert check_target(str(tmp_path / "link"), None, (source,)).decision.source == source
    archive.chmod(0o666)
    exposed = check_target(str(archive), None, (source,))
    assert (exposed.decision.level, exposed.to_trust) == ("unknown", "")
    assert check_target(str(archive), None, ()).to_trust == f'local = "{archive.resolve()}"'


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    """Nothing of that name, no kind of thing that can be installed, a branch of a directory."""
    with pytest.raises(ConfigError, match="nothing of this name"):
        check_target(str(tmp_path / "x"), None, SOURCES)
    with pytest.raises(ConfigError, match="neither a directory nor an archive"):
        check_target("/dev/null", None, SOURCES)
    with pytest.raises(ConfigError, match="--branch"):
        check_target(str(tmp_path), "main", SOURCES)
    with pytest.raises(ConfigError, match="registry"):
        check_target("oci://x", None, SOURCES)
