"""`[[trust.sources]]`: every form is read, what is wrong is told with file, line and key, drop-in files add up."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from supervisor.config.settings import HostDirectories, Settings, SettingsError, settings_not_enforced
from supervisor.config.settings_reader import read_settings
from supervisor.config.settings_view import effective_settings
from supervisor.config.toml_source import parse_toml
from supervisor.trust.sources import GitSource, KeySource, LocalSource, OciSource

DIRECTORIES = HostDirectories("/s", "/d", "/r", "/l")
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBog0BgK8OeQlo29bEgWXHvOD06Z7Lhci9DshhmUyaEx"
OTHER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB119oYygkWuK1IHPF14qlWMctinhgPEyIFUOrGC1iRm"

EVERY = f"""[[trust.sources]]
git = "https://git.example.com/plugins/*"
branch = "main"
[[trust.sources]]
signing_key = "{KEY} alice@laptop"
identity = "alice@example.com"
valid_after = "2026-01-01"
valid_before = "2027-01-01T12:00:00Z"
[[trust.sources]]
local = "/srv/components/**"
[[trust.sources]]
oci = "registry.example.com/plugins/*"
[[trust.sources]]
signing_key = "{OTHER}"
revoked = true
"""


def settings_of(*texts: str) -> Settings:
    """Read the texts as `0.toml`, `1.toml`, …, later over earlier."""
    sources = [parse_toml(("schema = 1\n" + text).encode(), f"{number}.toml") for number, text in enumerate(texts)]
    return read_settings(sources, DIRECTORIES)


def test_every_form_is_read() -> None:
    """Each entry knows which it is, what it says, and where it was written."""
    git, key, local, oci, revoked = settings_of(EVERY).trust_sources
    assert isinstance(git, GitSource)
    assert (git.index, git.origin, git.pattern, git.branch) == (
        0,
        "0.toml:3",
        "https://git.example.com/plugins/*",
        "main",
    )
    assert isinstance(key, KeySource)
    assert (key.index, key.identity, key.valid_after_s, key.valid_before_s) == (
        1,
        "alice@example.com",
        1_767_225_600,
        1_798_804_800,
    )
    assert key.key.text == KEY
    assert key.name.startswith("signing_key SHA256:")
    assert isinstance(local, LocalSource)
    assert (local.name, local.origin) == ("local /srv/components/**", "0.toml:11")
    assert isinstance(oci, OciSource)
    assert oci.name == "oci registry.example.com/plugins/*"
    assert isinstance(revoked, KeySource)
    assert revoked.revoked


def test_drop_in_files_add_up() -> None:
    """A later file adds entries and takes none away: a revocation can't vanish."""
    first = f'[[trust.sources]]\nsigning_key = "{KEY}"\nrevoked = true\n'
    second = '[[trust.sources]]\nlocal = "/srv/a"\n'
    sources = settings_of(first, second).trust_sources
    assert [(source.form, source.origin) for source in sources] == [("signing_key", "0.toml:3"), ("local", "1.toml:3")]
    assert [source.index for source in sources] == [0, 1]


def test_it_is_enforced_and_shown() -> None:
    """No form is among what nothing enforces, and `config show` has each key with its origin."""
    settings = settings_of(EVERY)
    assert settings_not_enforced(settings) == ()
    shown = {each.key: (each.value, each.origin) for each in effective_settings(settings, {}, 1000, None)}
    assert shown["trust.sources[0].branch"] == ("main", "0.toml:4")
    assert shown["trust.sources[1].valid_after"] == ("2026-01-01", "0.toml:8")
    assert shown["trust.sources[1].valid_before"] == ("2027-01-01T12:00:00Z", "0.toml:9")
    assert shown["trust.sources[3].oci"] == ("registry.example.com/plugins/*", "0.toml:13")
    assert shown["trust.sources[4].revoked"] == (True, "0.toml:16")


def test_nothing_written_trusts_nothing() -> None:
    """Without entries there are none, and no rule follows."""
    for text in ("", "[trust]\n", "[trust]\nsources = []\n"):
        settings = settings_of(text)
        assert (settings.trust_sources, settings.acl_in_force) == ((), ())


@pytest.mark.parametrize(
    ("entry", "line", "key", "words"),
    [
        ("", 2, "trust.sources[0]", "one of git, signing_key, local, oci, got none of them"),
        ('branch = "main"', 2, "trust.sources[0]", "none of them"),
        ('git = "https://h.example/a/*"\nlocal = "/a"', 2, "trust.sources[0]", "git and local"),
        ('local = "/a"\nbranch = "main"', 4, "trust.sources[0].branch", "branch only beside git, got it beside local"),
        ('git = "https://h.example/a/*"\nrevoked = true', 4, "trust.sources[0].revoked", "only beside signing_key"),
        ('oci = "h.example/a/*"\nvalid_after = "2026-01-01"', 4, "trust.sources[0].valid_after", "only beside"),
        ('git = "http://h.example/a/*"', 3, "trust.sources[0].git", "http:// is not authenticated"),
        ('git = "https://h.example/a/*"\nbranch = "-x"', 4, "trust.sources[0].branch", "a branch's name"),
        ('git = "https://h.example/a/*"\nbranch = "refs/heads/x"', 4, "trust.sources[0].branch", "a branch's name"),
        ('git = "https://h.example/a/*"\nbranch = "a..b"', 4, "trust.sources[0].branch", "a branch's name"),
        ("git = 3", 3, "trust.sources[0].git", "a string, got the integer 3"),
        ('local = "components/*"', 3, "trust.sources[0].local", "absolute"),
        ('local = ""', 3, "trust.sources[0].local", "absolute paths"),
        ('local = "/srv/../x"', 3, "trust.sources[0].local", "absolute paths"),
        ('oci = "docker.io"', 3, "trust.sources[0].oci", "HOST/NAME"),
        ('signing_key = "alice"', 3, "trust.sources[0].signing_key", "a public key"),
        ('signing_key = "-----BEGIN OPENSSH PRIVATE KEY-----"', 3, "trust.sources[0].signing_key", "private key"),
        (f'signing_key = "{KEY}"\nvalid_after = "soon"', 4, "trust.sources[0].valid_after", "a day or a time of UTC"),
        (f'signing_key = "{KEY}"\nvalid_after = "2026-02-30"', 4, "trust.sources[0].valid_after", "a day or a time"),
        (f'signing_key = "{KEY}"\nvalid_after = 2026-01-01', 4, "trust.sources[0].valid_after", "a date or time"),
        (
            f'signing_key = "{KEY}"\nvalid_after = "2027-01-01"\nvalid_before = "2026-01-01"',
            5,
            "trust.sources[0].valid_before",
            "a time after valid_after",
        ),
        ('locale = "/a"', 3, "trust.sources[0].locale", 'did you mean "local"?'),
    ],
)
def test_what_is_wrong_is_told_with_its_place(entry: str, line: int, key: str, words: str) -> None:
    """One problem names file, line and key, what was expected and what is there."""
    with pytest.raises(SettingsError) as refused:
        settings_of(f"[[trust.sources]]\n{entry}\n")
    told = [problem for problem in refused.value.problems if problem.key == key]
    assert told, refused.value
    assert (told[0].file, told[0].line) == ("0.toml", line)
    assert words in str(refused.value)


def test_what_the_key_is_is_not_repeated() -> None:
    """A private key that was written by mistake is in no message."""
    secret = "b3BlbnNzaC1rZXktdjEAAAAABG5vbmU"
    with pytest.raises(SettingsError) as refused:
        settings_of(f"[[trust.sources]]\nsigning_key = '''-----BEGIN OPENSSH PRIVATE KEY-----\n{secret}\n'''\n")
    assert secret not in str(refused.value)


def test_no_component_writes_where_trusted_ones_come_from() -> None:
    """What a local entry, or one of repositories on this machine, covers is denied to every component for writing."""
    text = "".join(
        f"[[trust.sources]]\n{entry}\n"
        for entry in (
            'local = "/srv/components/**"',
            'local = "/srv/one"',
            'local = "/srv/*/set"',
            'git = "file:///srv/git/*"',
            'git = "https://git.example.com/a/*"',
        )
    )
    settings = settings_of(text)
    assert {(entry.identity, entry.action, entry.effect) for entry in settings.acl_in_force} == {
        ("*", "filesystem.write", "deny")
    }
    assert [entry.resource for entry in settings.acl_in_force] == [
        *("/srv/components/**", "/srv/one/", "/srv/*/set/", "/srv/git/*/", "/srv/git/*.git/")
    ]
    assert "0.toml:3" in settings.acl_in_force[0].source
    assert settings.acl == ()


def test_nothing_of_it_is_imported_where_nothing_is_trusted(tmp_path: Path) -> None:
    """Most hosts trust nothing unasked, and their start-up pays nothing for it, nor for approvals or what is installed;
    a key alone verifies nothing yet."""
    program = (
        "import sys; from supervisor.config.settings_files import load_settings; import supervisor.cli.run_component; "
        "load_settings(sys.argv[1], {}, 0); "
        "print(sorted({'.'.join(name.split('.')[:2]) for name in sys.modules "
        "if name.startswith(('supervisor.trust', 'supervisor.signing', 'cryptography', 'sqlite3'"
        ", 'supervisor.approvals.store', 'supervisor.approvals.asking', 'supervisor.packages.store'))}))"
    )
    tmp_path.chmod(0o755)
    found = []
    for text in ('[quota.maxima]\nmemory = "1GB"\n', f'[[trust.sources]]\nsigning_key = "{KEY}"\n'):
        config = tmp_path / "airssys.toml"
        config.write_text("schema = 1\n" + text)
        config.chmod(0o644)
        done = subprocess.run([sys.executable, "-I", "-c", program, config], capture_output=True, text=True, check=True)
        found.append(done.stdout.strip())
    assert found[0] == "[]"
    assert "cryptography" not in found[1]
    assert "supervisor.trust" in found[1]
