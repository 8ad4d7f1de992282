"""What `airssys trust check` is asked about: as if it had been fetched, and nothing is."""

from __future__ import annotations

from pathlib import Path

import pytest
from signed import ed25519_signer, sshsig

from ipc.errors import ConfigError
from supervisor.packages.directory import read_directory
from supervisor.packages.installed import Installed
from supervisor.packages.provenance import Provenance
from supervisor.signing.keys import read_public_key
from supervisor.trust.sources import KeySource, LocalSource, TrustSource, git_source, oci_source
from supervisor.trust.target import check_installed, check_target, remote_provenance

SOURCES: tuple[TrustSource, ...] = (
    git_source(0, "a:1", "https://git.example.com/plugins/*", "main"),
    git_source(1, "a:2", "ssh://git@git.example.com/plugins/*"),
    oci_source(2, "a:3", "registry.example.com/plugins/*"),
)


@pytest.mark.parametrize(
    ("target", "kind", "url"),
    [
        ("https://git.example.com/plugins/csv", "git", "https://git.example.com/plugins/csv"),
        ("git+https://git.example.com/plugins/csv@v1#sub", "git", "https://git.example.com/plugins/csv"),
        ("git+https://git.example.com/plugins/csv@feature/x", "git", "https://git.example.com/plugins/csv"),
        ("git@git.example.com:plugins/csv@feature/x#sub", "git", "git@git.example.com:plugins/csv"),
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
    assert trick.to_trust == 'git = "https://evil.com/plugins/csv"\nbranch = "main"'
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
    unwritten = check_target(str(archive), None, ())
    assert unwritten.to_trust == ""
    assert any("no entry for its place would do" in fact for fact in unwritten.facts)
    archive.chmod(0o644)
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


def test_a_signature_is_trusted_by_its_key(tmp_path: Path) -> None:
    """By the first that holds and isn't written yet; wherever it lies. A key that is revoked lacks no entry."""
    alice, bob = ed25519_signer(), ed25519_signer()
    (tmp_path / "Component.toml").write_text("schema = 1\n")
    tmp_path.chmod(0o777)
    statement = read_directory(str(tmp_path)).statement
    (tmp_path / "Component.sig").write_bytes(sshsig(alice, statement + b"x") + sshsig(bob, statement))
    own = str(tmp_path)
    answer = check_target(own, None, ())
    key = read_public_key(bob.line)
    assert [each.fingerprint for each in answer.signers] == [key.fingerprint]
    assert answer.to_trust == f'signing_key = "{key.text}"'
    assert check_target(own, None, (KeySource(0, "a:1", key),)).decision.level == "trusted"
    revoked = check_target(own, None, (KeySource(0, "a:1", key, revoked=True),))
    assert revoked.to_trust == ""
    tmp_path.chmod(0o755)
    (tmp_path / "Component.toml").chmod(0o644)
    assert check_target(own, None, (KeySource(0, "a:1", key, revoked=True),)).to_trust == f'local = "{tmp_path}"'


KEY = read_public_key(ed25519_signer().line)


@pytest.mark.parametrize(
    ("provenance", "signers", "exposed", "expected"),
    [
        (Provenance("git", "https://h.example/csv", branch="main"), (), None, 'git = "https://h.example/csv"\nbranch'),
        (Provenance("git", "https://h.example/csv"), (KEY.text,), None, f'signing_key = "{KEY.text}"'),
        (Provenance("git", "https://h.example/csv", branch="-x"), (), None, ""),
        (Provenance("oci", "h.example/csv"), (), None, 'oci = "h.example/csv"'),
        (Provenance("directory", "/srv/csv"), (), (), 'local = "/srv/csv"'),
        (Provenance("directory", "/srv/c*v"), (), (), 'local = "/srv/c[*]v"'),
        (Provenance("directory", "/srv/csv"), (), (("/srv/csv", "can be written by others"),), ""),
        (Provenance("directory", "/srv/csv"), (), None, ""),
    ],
)
def test_what_is_installed_is_judged_by_what_was_recorded(
    provenance: Provenance,
    signers: tuple[str, ...],
    exposed: tuple[tuple[str, str], ...] | None,
    expected: str,
) -> None:
    """And what would trust it is the narrowest entry that really would: it was tried."""
    installed = Installed(
        *("csv", "acme", "1.0.0", "ab" * 32, "csv.wasm", provenance, "SOURCE"), signers=signers, exposed=exposed
    )
    answer = check_installed(installed, ())
    assert answer.decision.level == "unknown"
    assert answer.to_trust.startswith(expected) if expected else not answer.to_trust
    assert answer.facts[0] == "csv@acme 1.0.0, installed from SOURCE"
    assert answer.digest == "ab" * 32
