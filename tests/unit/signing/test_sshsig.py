"""Signatures in OpenSSH's format: what holds, and each way in which one doesn't."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest
import signed
from signed import armor, blob_of, ed25519_signer, hardware_signer, package, signer, sshsig

from ipc.errors import ConfigError
from supervisor.packages.contents import SIGNATURES_MAX_BYTES
from supervisor.signing.keys import public_key
from supervisor.signing.package_signatures import judge_signatures, verified_signers
from supervisor.signing.sshsig import SIGNATURES_MAX, Signature, Unreadable, read_signatures, verify
from supervisor.signing.wire import string

PACKAGE = package("a.wasm")
STATEMENT = PACKAGE.statement
GOOD = signer("ssh-ed25519")
ORDER = 2**252 + 27742317777372353535851937790883648493


def why_not(block: bytes) -> str:
    """Why the only signature of a file does not hold for the package."""
    (judged,) = judge_signatures(PACKAGE, block)
    assert bool(judged.why_not) is (verified_signers(PACKAGE, block) == ())
    return judged.why_not


@pytest.mark.parametrize("hash_name", ["sha256", "sha512"])
@pytest.mark.parametrize("kind", signed.KINDS)
def test_a_signature_holds(kind: str, hash_name: str) -> None:
    """Each kind of key, with both digests; for these bytes and no other."""
    block = sshsig(signer(kind), STATEMENT, hash_name=hash_name)
    assert verified_signers(PACKAGE, block) == (public_key(signer(kind).blob),)
    assert "over other bytes" in judge_signatures(package("b.wasm"), block)[0].why_not


def test_rsa_signs_by_sha2_only() -> None:
    """Both algorithms of RFC 8332 hold; SHA-1 doesn't, though the key is the same."""
    assert why_not(sshsig(signed.rsa_signer(algorithm="rsa-sha2-256"), STATEMENT)) == ""
    assert "doesn't sign by ssh-rsa" in why_not(sshsig(signed.rsa_signer(algorithm="ssh-rsa"), STATEMENT))


@pytest.mark.parametrize("namespace", ["git", "file", "", "airssys-packag", "airssys-package\0", "\x1b[2J"])
def test_a_signature_for_something_else_is_none(namespace: str) -> None:
    """Whoever signed a commit or a file has said nothing about a package; what it was for is said harmlessly."""
    why = why_not(sshsig(GOOD, STATEMENT, namespace))
    assert "not for 'airssys-package'" in why
    assert why.isprintable()


def test_the_namespace_is_signed_too() -> None:
    """A signature for git with our namespace written over it does not hold."""
    parts = (GOOD.blob, signed.NAMESPACE.encode(), b"", b"sha512", GOOD.sign(signed.signed_bytes(STATEMENT, "git")))
    assert "other bytes" in why_not(armor(b"SSHSIG\0\0\0\1" + b"".join(map(string, parts))))


def _shifted(signature: bytes) -> bytes:
    s = int.from_bytes(signature[-32:], "little") + ORDER
    return signature[:-32] + s.to_bytes(32, "little")


def _inside(change: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    """Return what changes the last string of a signature: the bytes behind its algorithm."""

    def changed(signature: bytes) -> bytes:
        length = 4 + int.from_bytes(signature[:4], "big")
        return signature[:length] + string(change(signature[length + 4 :]))

    return changed


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("ssh-ed25519", _shifted),
        ("ssh-ed25519", _inside(lambda each: each + b"\0")),
        ("ssh-ed25519", _inside(lambda each: each[:-1])),
        ("ssh-ed25519", _inside(lambda _: b"")),
        ("ssh-ed25519", lambda each: each + b"\0"),
        ("ssh-ed25519", lambda each: each.replace(b"ssh-ed25519", b"ssh-ed25518")),
        ("ecdsa-sha2-nistp256", _inside(lambda each: string(b"\0" + each[4 : 4 + each[3]]) + each[4 + each[3] :])),
        ("ecdsa-sha2-nistp256", _inside(lambda each: each + b"\0")),
        ("ecdsa-sha2-nistp256", _inside(lambda each: string(b"") + each[4 + each[3] :])),
        ("ecdsa-sha2-nistp256", _inside(lambda _: string(b"\1") + string(b"\1"))),
        ("ecdsa-sha2-nistp256", lambda each: each.replace(b"nistp256", b"nistp384")),
        ("ssh-rsa", _inside(lambda each: b"\0" + each)),
        ("ssh-rsa", _inside(lambda each: each[1:])),
        ("ssh-rsa", lambda each: each.replace(b"rsa-sha2-512", b"rsa-sha2-256")),
        ("sk-ssh-ed25519@openssh.com", lambda each: each[:-1] + b"\x08"),
        ("sk-ssh-ed25519@openssh.com", lambda each: each[:-1]),
        ("sk-ecdsa-sha2-nistp256@openssh.com", lambda each: each + b"\0"),
    ],
)
def test_a_signature_has_one_form(kind: str, change: Callable[[bytes], bytes]) -> None:
    """Numbers above the order, longer spellings, bytes behind the end, another algorithm's name; unchanged it holds."""
    assert why_not(sshsig(signer(kind), STATEMENT, change=change))
    assert why_not(sshsig(signer(kind), STATEMENT)) == ""


def test_a_hardware_key_was_touched() -> None:
    """A signature that says itself that nobody was there is none."""
    for kind in signed.KINDS[-2:]:
        assert "without being touched" in why_not(sshsig(hardware_signer(kind, flags=0), STATEMENT))
        assert why_not(sshsig(hardware_signer(kind, flags=5), STATEMENT)) == ""


@pytest.mark.parametrize(
    ("block", "why"),
    [
        (sshsig(GOOD, STATEMENT, version=2), "version 2"),
        (sshsig(GOOD, STATEMENT, version=0), "version 0"),
        (sshsig(GOOD, STATEMENT, reserved=b"x"), "isn't empty"),
        (sshsig(GOOD, STATEMENT, hash_name="sha1"), "digest sha1"),
        (armor(blob_of(sshsig(GOOD, STATEMENT)) + b"\0"), "more bytes"),
        (armor(blob_of(sshsig(GOOD, STATEMENT))[:-1]), "too early"),
        (armor(b"SSHSIX" + blob_of(sshsig(GOOD, STATEMENT))[6:]), "format"),
        (armor(b"x"), "too early"),
        (sshsig(GOOD, STATEMENT).replace(b"\n", b"\r\n"), "no signature"),
        (sshsig(GOOD, STATEMENT)[:-40], "no end"),
        (sshsig(GOOD, STATEMENT).replace(b"-----END", b"\n-----END"), "base64"),
        (sshsig(GOOD, STATEMENT).replace(b"=\n", b"\n").replace(b"=\n", b"\n"), "base64"),
        (b"-----BEGIN SSH SIGNATURE-----\n-----END SSH SIGNATURE-----\n", "base64"),
        (b"-----BEGIN SSH SIGNATURE-----", "no end"),
        (b"hello\nworld", "text that is no signature"),
        (b"\0\xff" * 1000, "text that is no signature"),
        (armor(b"x" * 20_000), "larger than"),
    ],
)
def test_what_is_no_signature(block: bytes, why: str) -> None:
    """Each is said for what it is."""
    (found,) = read_signatures(block)
    assert isinstance(found, Unreadable)
    assert why in found.why


def test_trailing_bits_of_base64_are_nothing() -> None:
    """The unused bits of the last character are zero: no second text for one signature."""
    block = armor(blob_of(sshsig(hardware_signer(signed.KINDS[-2]), STATEMENT)))
    if b"=\n" not in block:
        block = sshsig(signer("ssh-ed25519"), STATEMENT)
    place = block.index(b"=") - 1
    other = block[:place] + bytes([block[place] + 1]) + block[place + 1 :]
    assert "base64" in why_not(other)


def test_a_damaged_signature_hides_no_other() -> None:
    """Truncated, empty, text, damaged, of another kind: what stands behind and before them holds."""
    first, last = sshsig(GOOD, STATEMENT), sshsig(signer("ecdsa-sha2-nistp256"), STATEMENT)
    for damaged in (first[:100], first[:-40] + b"\n", b"text\n", armor(b"x"), first.replace(b"U1NI", b"U1NJ"), b"\n\n"):
        assert [key.kind for key in verified_signers(PACKAGE, damaged + last)] == ["ecdsa-sha2-nistp256"]
        assert [key.kind for key in verified_signers(PACKAGE, first + damaged + last)] == [
            "ssh-ed25519",
            "ecdsa-sha2-nistp256",
        ]


def test_a_key_counts_once() -> None:
    """However often it signed: two signatures of one person are one person's."""
    block = sshsig(GOOD, STATEMENT)
    again = sshsig(GOOD, STATEMENT, hash_name="sha256")
    assert verified_signers(PACKAGE, block + again + block) == (public_key(GOOD.blob),)
    assert len(judge_signatures(PACKAGE, block + again + block)) == 3


def test_a_block_is_kept_as_it_stood() -> None:
    """What was read can be written again, byte by byte; the width of its lines is the writer's."""
    first, second = sshsig(GOOD, STATEMENT), armor(blob_of(sshsig(GOOD, STATEMENT)), width=76)
    found = read_signatures(first + b"\n" + second)
    assert [each.block for each in found] == [first, second]
    assert read_signatures(first.removesuffix(b"\n"))[0].block == first


def test_there_is_a_bound_to_signatures() -> None:
    """A file of ten thousand, and one of gigabytes, is refused without verifying anything; as many as may be hold."""
    block = sshsig(GOOD, STATEMENT)
    with pytest.raises(ConfigError, match="64 signatures"):
        verified_signers(PACKAGE, block[: len(block)] * (SIGNATURES_MAX + 1))
    with pytest.raises(ConfigError, match="1 MiB"):
        verified_signers(PACKAGE, block * 10_000)
    with pytest.raises(ConfigError, match="64 signatures"):
        verified_signers(PACKAGE, b"x\n\n" * 10_000)
    with pytest.raises(ConfigError, match="1 MiB"):
        read_signatures(bytes(SIGNATURES_MAX_BYTES + 1))
    assert len(judge_signatures(PACKAGE, block * SIGNATURES_MAX)) == SIGNATURES_MAX


def test_a_key_that_is_on_no_curve_verifies_nothing() -> None:
    """A point that satisfies no equation is no error of ours."""
    key = signer("ecdsa-sha2-nistp256")
    off = signed.Signer(key.kind, key.blob[:-1] + bytes([key.blob[-1] ^ 1]), key.sign)
    assert "other bytes" in why_not(sshsig(off, STATEMENT))


def test_another_key_than_it_says() -> None:
    """A signature that names a trusted key and was made by another does not hold."""
    forged = signed.Signer(GOOD.kind, GOOD.blob, ed25519_signer().sign)
    assert "another key" in why_not(sshsig(forged, STATEMENT))


def test_another_namespace_can_be_asked_for() -> None:
    """The same reader serves what else is signed; the namespaces don't mix."""
    (found,) = read_signatures(sshsig(GOOD, b"x", "airssys-other"))
    assert isinstance(found, Signature)
    assert verify(found, b"x", "airssys-other") == ""
    assert verify(found, b"x")
    assert hashlib.new(found.hash_name).digest_size == 64
