"""Public keys: what is one, what isn't, and that two are the same by their bytes alone."""

from __future__ import annotations

import base64
import hashlib

import pytest
import signed
from signed import mpint

from ipc.errors import ConfigError
from supervisor.signing.keys import _SMALL_ORDER, public_key, read_public_key
from supervisor.signing.wire import string


@pytest.mark.parametrize("kind", signed.KINDS)
def test_a_key_is_read_as_it_is_written(kind: str) -> None:
    """Its kind, its bytes, its text and its fingerprint, whatever blanks stand around."""
    line = signed.signer(kind).line
    key = read_public_key(f"  {line}\n")
    assert (key.kind, key.blob, key.text) == (kind, signed.signer(kind).blob, line)
    digest = base64.b64encode(hashlib.sha256(key.blob).digest()).decode()
    assert key.fingerprint == f"SHA256:{digest.rstrip('=')}"


def test_comments_mean_nothing() -> None:
    """The same bytes with another comment are the same key; another key with the same comment is another."""
    line, other = signed.signer("ssh-ed25519").line, signed.ed25519_signer().line
    assert read_public_key(f"{line} alice@example.com") == read_public_key(f"{line} mallory")
    assert len({read_public_key(f"{line} alice@example.com"), read_public_key(line)}) == 1
    assert read_public_key(f"{line} alice@example.com") != read_public_key(f"{other} alice@example.com")


_GOOD = signed.signer("ssh-ed25519")
_POINT = _GOOD.blob[-32:]


def _rsa(exponent: int, modulus: int) -> bytes:
    return string(b"ssh-rsa") + mpint(exponent) + mpint(modulus)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no public key"),
        ("ssh-ed25519", "no public key"),
        ("ssh-ed25519 AAAA", "damaged"),
        (_GOOD.line.split()[1], "no public key"),
        (_GOOD.line[:-1], "no public key"),
        (_GOOD.line.replace("AAAA", "AA\u0410A"), "no public key"),
        (f"cert-authority {_GOOD.line}", "no public key"),
        (f"{_GOOD.line}\n{_GOOD.line}", "one line"),
        ("x" * 100_000, "one line"),
        (f"ssh-rsa {_GOOD.line.split()[1]}", "of the kind ssh-ed25519, which is called ssh-rsa"),
        (_GOOD.private.decode(), "private key"),
    ],
)
def test_what_is_no_line_of_a_key(text: str, why: str) -> None:
    """Each is refused in words; half a line, another alphabet, options in front, a private key."""
    with pytest.raises(ConfigError, match=why):
        read_public_key(text)


@pytest.mark.parametrize(
    ("blob", "why"),
    [
        (b"", "ends too early"),
        (_GOOD.blob + b"\0", "more bytes"),
        (_GOOD.blob[:-1], "ends too early"),
        (string(b"ssh-ed25519") + string(_POINT + b"\0"), "another length"),
        (string(b"ssh-ed25519\xff") + string(_POINT), "ASCII"),
        (string(b"ssh-dss") + string(b""), "ssh-dss are not supported"),
        (string(b"ssh-ed25519-cert-v01@openssh.com") + string(b""), "certificates are not supported"),
        (string(b"webauthn-sk-ecdsa-sha2-nistp256@openssh.com"), "not supported"),
        (string(b"x\x1b[2J") + string(b""), r"x\\x1b\[2J are not supported"),
        (string(b"ecdsa-sha2-nistp256") + string(b"nistp384") + string(b"\4" * 65), "another curve"),
        (string(b"ecdsa-sha2-nistp256") + string(b"nistp256") + string(b"\4" * 64), "another form"),
        (string(b"ecdsa-sha2-nistp256") + string(b"nistp256") + string(b"\2" * 33), "another form"),
        (_rsa(65537, 2**1023 + 1), "1024 bits"),
        (_rsa(65537, 2**16384 + 1), "16385 bits"),
        (_rsa(1, 2**2047 + 1), "can't be a key's"),
        (_rsa(65536, 2**2047 + 1), "can't be a key's"),
        (_rsa(2**64 + 1, 2**2047 + 1), "can't be a key's"),
        (_rsa(65537, 2**2047), "can't be a key's"),
        (string(b"ssh-rsa") + string(b"\0\0\x01\0\x01") + mpint(2**2047 + 1), "another form"),
        (string(b"ssh-rsa") + string(b"") + mpint(2**2047 + 1), "another form"),
        (string(b"ssh-rsa") + string(b"\xff\xff") + mpint(2**2047 + 1), "another form"),
        (string(b"ssh-rsa") + mpint(65537) + (2**31).to_bytes(4, "big"), "ends too early"),
    ],
)
def test_what_is_no_key(blob: bytes, why: str) -> None:
    """Other kinds, too short ones, damaged ones, and each second spelling of a good one."""
    with pytest.raises(ConfigError, match=why):
        public_key(blob)


def test_rsa_keys_have_a_least_length() -> None:
    """The control of those above: the same form, long enough."""
    assert public_key(_rsa(65537, 2**2047 + 1)).kind == "ssh-rsa"


def test_keys_to_which_anybody_can_sign_are_none() -> None:
    """Each point of small order, in each spelling, is refused; the list is complete."""
    prime = 2**255 - 19
    d = -121665 * pow(121666, -1, prime) % prime

    def is_eighth(y: int) -> bool:
        """Whether doubling a point with this y three times gives the neutral element, by its y alone."""
        for _ in range(3):
            square = y * y % prime
            x_square = (square - 1) * pow(d * square + 1, -1, prime) % prime
            y = (square + x_square) * pow(1 - d * x_square * square, -1, prime) % prime
        return y == 1

    assert all(is_eighth(y) for y in _SMALL_ORDER)
    assert not is_eighth(int.from_bytes(_POINT, "little") & (2**255 - 1))
    # y = 1, y = -1, two with y = 0, four of order eight, which share two: these are all eight.
    assert len(_SMALL_ORDER) == 5
    spellings = [*_SMALL_ORDER, prime, prime + 1, 2**255 - 1]
    for y in [*spellings, *(y + 2**255 for y in spellings)]:
        with pytest.raises(ConfigError, match="anybody could sign"):
            public_key(string(b"ssh-ed25519") + string(y.to_bytes(32, "little")))
