"""`[[approvals.signers]]` and `[host] name`, as they are read; and patterns of hosts."""

from __future__ import annotations

import os

import pytest
from signed import ed25519_signer

from ipc.struct import replace
from supervisor.approvals.host_names import check_host_name, check_host_pattern, covers_host
from supervisor.approvals.signers import host_name, user_of
from supervisor.config.settings import HostDirectories, Settings, SettingsError
from supervisor.config.settings_reader import read_settings
from supervisor.config.toml_source import parse_toml

ONE, TWO = ed25519_signer().line, ed25519_signer().line


def _read(text: str) -> Settings:
    return read_settings(
        [parse_toml(f"schema = 1\n{text}".encode(), "t.toml")], HostDirectories("/s", "/d", "/r", "/l")
    )


def _entry(key: str, identity: str, more: str = "") -> str:
    return f'[[approvals.signers]]\nkey = "{key}"\nidentity = "{identity}"\n{more}\n'


def _rule(signer: str) -> str:
    return f'[[approvals.automatic]]\nchange = "same-or-narrower"\nsigner = "{signer}"\n'


def test_rules_that_approve_are_read() -> None:
    """With where they are written; none, where none is."""
    (rule,) = _read(_entry(ONE, "alice") + _rule("alice")).approval_automatic
    assert (rule.signer, rule.source) == ("alice", "t.toml:7")
    assert _read("").approval_automatic == ()


def test_signers_are_read() -> None:
    """All that can be said of one, and where it isn't said."""
    more = 'uid = 1001\nvalid_after = "2026-01-01"\nvalid_before = "2027-01-01T12:00:00Z"\nrevoked = true'
    one, two = _read(_entry(f"{ONE} a comment", "alice", more) + _entry(TWO, "bob")).approval_signers
    assert (one.key.text, one.identity, one.uid, one.revoked) == (ONE, "alice", 1001, True)
    assert (one.valid_after_s, one.valid_before_s) == (1_767_225_600, 1_798_804_800)
    assert (two.index, two.uid, two.valid_before_s, two.revoked) == (1, None, None, False)
    assert _read("").approval_signers == ()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (_entry("ssh-ed25519 AAAA", "alice"), "a public key"),
        (_entry(ONE, ""), "identity"),
        ('[[approvals.signers]]\nkey = "' + ONE + '"\n', "identity"),
        ('[[approvals.signers]]\nidentity = "alice"\n', "key"),
        (_entry(ONE, "alice", "uid = 0"), "uid"),
        (_entry(ONE, "alice", 'valid_after = "tomorrow"'), "valid_after"),
        (_entry(ONE, "alice", 'valid_after = "2027-01-01"\nvalid_before = "2026-01-01"'), "valid_before"),
        (_entry(ONE, "alice") + _entry(f"{ONE} other", "bob"), "each key once"),
        (_entry(ONE, "alice", "uid = 1") + _entry(TWO, "alice", "uid = 2"), "the same user"),
        (_entry(ONE, "alice", "user = 1"), "unknown key"),
        ('[host]\nname = "Web 1"', "name"),
        (_entry(ONE, "alice") + _rule("bob"), "an identity of"),
        (_rule("alice"), "an identity of"),
        (_entry(ONE, "alice") + _rule("alice").replace("same", "any"), "same-or-narrower"),
    ],
)
def test_what_is_wrong_is_told(text: str, words: str) -> None:
    """With its key."""
    with pytest.raises(SettingsError, match=words):
        _read(text)


def test_who_a_signer_is_here() -> None:
    """By what is written of any of their keys, else by a user of that name, else nobody."""
    signers = _read(_entry(ONE, "alice", "uid = 1001") + _entry(TWO, "alice")).approval_signers
    assert [user_of(each, signers) for each in signers] == [1001, 1001]
    alone = replace(signers[1], identity="root")
    assert user_of(alone, [alone]) == 0
    nobody = replace(alone, identity="alice@example.com")
    assert user_of(nobody, [nobody]) is None


def test_what_this_host_is_called() -> None:
    """As it is written, else as the kernel says."""
    assert host_name(_read('[host]\nname = "web-1.example.com"')) == "web-1.example.com"
    assert host_name(_read("")) == os.uname().nodename.lower()


@pytest.mark.parametrize(
    ("pattern", "name", "covered"),
    [
        ("web-1", "web-1", True),
        ("web-*", "web-1", True),
        ("web-*", "web-", False),
        ("web-*", "web-1.example.com", False),
        ("web-*.example.com", "web-1.example.com", True),
        ("*", "web-1", True),
        ("*", "a.b", False),
        ("*.b", "a.b", True),
        ("web-1", "web-12", False),
        ("eb-1", "web-1", False),
        ("web.1", "web-1", False),
        ("*", "", False),
        ("*", "Web", False),
        ("*", "a\n", False),
        ("a*b*c", "a-b-c", True),
        ("a*b*c", "abc", True),
        ("a*a", "a", False),
        ("a*b*b", "axb", False),
        ("*a" * 120, "a" * 60 + "b", False),
        ("*.*", "a.b", True),
    ],
)
def test_patterns_of_hosts(pattern: str, name: str, covered: bool) -> None:
    """A star stands for what has no dot."""
    assert covers_host(pattern, name) is covered


def test_names_and_patterns() -> None:
    """What is one, and what isn't."""
    assert not any(check_host_name(each) for each in ("a", "web-1", "a_b", "a.b-c.d1"))
    assert all(check_host_name(each) for each in ("", "A", "a..b", "-a", "a-", ".a", "a.", "a*", "a b", "ä", "a" * 254))
    assert not any(check_host_pattern(each) for each in ("*", "web-*", "*.example.com", "a*b"))
    assert all(check_host_pattern(each) for each in ("", "**", "a**", "a..b", "a b", "A*", "[a]", "a\n"))
