"""Whose keys these are: OpenSSH's allowed signers file, read as ssh-keygen reads it, and lists of revoked keys."""

from __future__ import annotations

import time

import pytest
import signed

from ipc.errors import ConfigError
from supervisor.signing.allowed_signers import (
    AllowedSigner,
    find_signer,
    parse_time,
    read_allowed_signers,
    read_revoked_keys,
)
from supervisor.signing.keys import read_public_key

LINE = signed.signer("ssh-ed25519").line
OTHER = signed.signer("ecdsa-sha2-nistp256").line
KEY = read_public_key(LINE)
NOW_S = 1_700_000_000  # 2023-11-14 22:13:20 UTC
NAMESPACE = "airssys-package"
CERTIFICATE = "ssh-ed25519-cert-v01@openssh.com AAAAIHNzaC1lZDI1NTE5LWNlcnQtdjAxQG9wZW5zc2guY29t"


def _read(text: str) -> tuple[AllowedSigner, ...]:
    return read_allowed_signers(text.encode(), "team").signers


def _why_not(text: str, now_s: int = NOW_S) -> str:
    signer, why = find_signer(_read(text), KEY, NAMESPACE, now_s)
    assert (signer is None) is bool(why)
    return why


def test_a_file_is_read() -> None:
    """Comments and empty lines say nothing; blanks and tabs stand between the fields; a comment follows the key."""
    text = f"# team\n\n  \t\nalice@example.com {LINE} a comment\r\nbob@x,carol@x\t{OTHER}"
    first, second = _read(text)
    assert (first.line, first.identities, first.key) == (4, "alice@example.com", KEY)
    assert (second.line, second.identities, second.namespaces) == (5, "bob@x,carol@x", None)
    assert find_signer([first, second], KEY, NAMESPACE, NOW_S) == (first, "")


def test_options_are_read() -> None:
    """In any case, in any order, with quotes within quotes; names with blanks are quoted."""
    (found,) = _read(
        f'"Alice A" VALID-BEFORE="20240101Z",namespaces="file,\\"x\\",airssys-*",valid-after="202301010000Z" {LINE}'
    )
    assert found.identities == "Alice A"
    assert found.namespaces == 'file,"x",airssys-*'
    assert (found.valid_after_s, found.valid_before_s) == (1672531200, 1704067200)
    assert find_signer([found], KEY, NAMESPACE, NOW_S) == (found, "")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ('namespaces="git,file"', "listed for git,file only"),
        ('namespaces=""', "listed for  only"),
        ('namespaces="*,!airssys-*"', "only"),
        ('namespaces="airssys.package"', "only"),
        (f'namespaces="{"*" * 40}x"', "only"),  # steps by the length, not by the number of ways to read it
        ('namespaces="[a]irssys-package"', "only"),
        ('valid-after="20231114221321Z"', "valid from 2023-11-14 22:13:21 UTC on"),
        ('valid-before="20231114221319Z"', "was valid until 2023-11-14 22:13:19 UTC"),
        ('valid-before="20300101",namespaces="git"', "listed for git"),
    ],
)
def test_a_listed_key_that_does_not_count(options: str, why: str) -> None:
    """For something else, not yet, or no more; the line and the identity are said."""
    said = _why_not(f"alice@x {options} {LINE}")
    assert why in said
    assert said.startswith("line 1 (alice@x): ")


@pytest.mark.parametrize(
    "options",
    [
        'namespaces="airssys-package"',
        'namespaces="git,airssys-pack*"',
        'namespaces="airssys?package"',
        f'namespaces="{"*" * 40}"',
        'valid-after="20231114221320Z"',
        'valid-before="20231114221320Z"',
        'valid-before="20231114221320utc"',
    ],
)
def test_a_listed_key_that_counts(options: str) -> None:
    """The controls: the same options, such that they hold; both ends of a time are within it."""
    assert _why_not(f"alice@x {options} {LINE}") == ""


def test_the_first_line_that_holds_counts() -> None:
    """A key that is listed twice counts by the line that holds; a key that isn't listed doesn't."""
    text = f'old@x valid-before="20200101" {LINE}\nnew@x {LINE}\nother@x {OTHER}'
    signer, _ = find_signer(_read(text), KEY, NAMESPACE, NOW_S)
    assert signer is not None
    assert signer.identities == "new@x"
    assert _why_not(f"other@x {OTHER} {LINE}") == "its key isn't listed"


def test_a_look_alike_comment_lists_nobody() -> None:
    """A key whose comment is somebody's key, or name, is still only itself."""
    assert _why_not(f"mallory@x {OTHER} {LINE} alice@example.com") == "its key isn't listed"


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("alice@x", "no identity and key"),
        (f"{LINE}", "no public key"),
        ("alice@x ssh-ed25519", "no public key"),
        ("alice@x ssh-ed25519 AAAA", "no public key"),
        (f'"alice@x {LINE}', "no identity and key"),
        (f'"" {LINE}', "no identity"),
        (f"alice@x namespaces=git {LINE}", "no public key, and no options"),
        (f'alice@x namespaces="git {LINE}', "no public key, and no options"),
        (f'alice@x namespaces="git"{LINE}', "no public key, and no options"),
        (f'alice@x namespaces="git", {LINE}', "no public key, and no options"),
        (f'alice@x namespaces="git",namespaces="file" {LINE}', "twice"),
        (f'alice@x verify-required="x" {LINE}', "unknown option"),
        (f"alice@x verify-required {LINE}", "unknown option"),
        (f"alice@x namespaces {LINE}", 'written as namespaces="…"'),
        (f'alice@x cert-authority="x" {LINE}', "written as cert-authority"),
        (f'alice@x valid-after="2023" {LINE}', "no time"),
        (f'alice@x valid-after="20230230" {LINE}', "no time"),
        (f'alice@x valid-after="19690101Z" {LINE}', "before 1970"),
        (f'alice@x valid-before="20230101+1" {LINE}', "no time"),
        ("alice@x cert-authority nonsense", "no public key"),
        (f"cert-authority {LINE}", "no identity"),
        (f'alice@x valid-before="20230101Z",valid-after="20230101Z" {LINE}', "no later than"),
    ],
)
def test_a_line_that_is_not_understood_is_an_error(line: str, why: str) -> None:
    """It may have narrowed something: told with its number, and nothing else of the file counts."""
    with pytest.raises(ConfigError, match="team, line 2: ") as raised:
        _read(f"# team\n{line}\nbob@x {OTHER}")
    assert why in raised.value.message


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (f"*@x cert-authority {LINE}", "certificates"),
        (f'*@x cert-authority,namespaces="x" {LINE}', "certificates"),
        (f"alice@x {CERTIFICATE}", "certificates"),
        ("alice@x ssh-dss AAAAB3NzaC1kc3MAAAAA", "ssh-dss are not supported"),
    ],
)
def test_a_line_that_is_not_supported_lists_nobody(line: str, why: str) -> None:
    """It is told, and the others count."""
    found = read_allowed_signers(f"{line}\nalice@x {LINE}".encode(), "team")
    assert [each.line for each in found.signers] == [2]
    (note,) = found.passed_over
    assert note.startswith("team, line 1 lists nobody: ")
    assert why in note


@pytest.mark.parametrize("data", [b"\xff", b"x" * (1 << 20) + b"x"])
def test_what_is_no_text_is_no_list(data: bytes) -> None:
    """Bytes that aren't UTF-8, and a file without end."""
    with pytest.raises(ConfigError, match="team: "):
        read_allowed_signers(data, "team")
    with pytest.raises(ConfigError, match="team: "):
        read_revoked_keys(data, "team")


def test_revoked_keys_are_a_list_of_keys() -> None:
    """One a line; a kind that isn't supported is no error there, anything else is, and so is a binary list."""
    text = f"# gone\n{OTHER} left\n\nssh-dss AAAAB3NzaC1kc3MAAAAA\n{LINE} comment"
    assert read_revoked_keys(text.encode(), "gone") == {KEY, read_public_key(OTHER)}
    with pytest.raises(ConfigError, match="gone, line 2"):
        read_revoked_keys(f"{LINE}\nalice@x {OTHER}".encode(), "gone")
    with pytest.raises(ConfigError, match="binary"):
        read_revoked_keys(b"SSHKRL\n\0\0\0\0\1", "gone")


def test_times_without_a_zone_are_local(monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard time of the zone, also in summer: as OpenSSH reads them."""
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    try:
        assert parse_time("20230101Z") - parse_time("20230101") == 3600
        assert parse_time("20230701Z") - parse_time("20230701") == 3600
        assert parse_time("202301010001") - parse_time("20230101") == 60
    finally:
        monkeypatch.undo()
        time.tzset()
