"""What whoever wrote an entry should know: links, components' data, keys that count for nothing."""

from __future__ import annotations

from pathlib import Path

from supervisor.config.settings import HostDirectories, Settings
from supervisor.signing.keys import read_public_key
from supervisor.trust.sources import KeySource, LocalSource, TrustSource, git_source
from supervisor.trust.warnings import source_warnings

KEY = read_public_key("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBog0BgK8OeQlo29bEgWXHvOD06Z7Lhci9DshhmUyaEx")
NOW_S = 1_800_000_000


def _warnings(*sources: TrustSource, data: str = "/var/lib/airssys-data") -> tuple[str, ...]:
    """Return what is said of the first of these entries."""
    settings = Settings(HostDirectories("/s", data, "/r", "/l"), trust_sources=sources)
    return source_warnings(sources[0], settings, NOW_S)


def test_a_path_that_is_a_link_trusts_nothing(tmp_path: Path) -> None:
    """Real paths are compared: the entry has to name one."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (warning,) = _warnings(LocalSource(0, "a:1", f"{tmp_path}/link/*"))
    assert f"is really {(tmp_path / 'real').resolve()}" in warning
    assert _warnings(LocalSource(0, "a:1", f"{tmp_path.resolve()}/real/*")) == ()


def test_components_data_in_a_trusted_place(tmp_path: Path) -> None:
    """No component writes in a trusted place, its own data neither; whichever way the pattern says so."""
    data = tmp_path.resolve() / "data"
    for pattern in (f"{data.parent}/**", f"{data.parent}/", f"{data}/*", f"{data.parent}/*", str(data.parent)):
        (warning,) = _warnings(LocalSource(0, "a:1", pattern), data=str(data))
        assert "can't write their own data" in warning
    assert _warnings(LocalSource(0, "a:1", f"{data.parent}/components/**"), data=str(data)) == ()
    (warning,) = _warnings(git_source(0, "a:1", f"file://{data.parent}/**"), data=str(data))
    assert "can't write their own data" in warning


def test_a_key_that_counts_for_nothing() -> None:
    """Expired, not valid yet, or revoked by another entry; a revocation itself is as it should be."""
    assert _warnings(KeySource(0, "a:1", KEY)) == ()
    assert "has expired" in _warnings(KeySource(0, "a:1", KEY, valid_before_s=NOW_S))[0]
    assert "isn't valid yet" in _warnings(KeySource(0, "a:1", KEY, valid_after_s=NOW_S + 1))[0]
    revoked = KeySource(1, "z.toml:3", KEY, revoked=True)
    assert "z.toml:3 revokes the key" in _warnings(KeySource(0, "a:1", KEY), revoked)[0]
    assert _warnings(revoked, KeySource(0, "a:1", KEY)) == ()
