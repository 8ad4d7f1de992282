"""Signatures in OpenSSH's format, made without OpenSSH: also such as ssh-keygen never makes."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from functools import cache

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from ipc.struct import Struct
from supervisor.packages.contents import Contents, PackageFile, contents_of
from supervisor.signing.wire import string

NAMESPACE = "airssys-package"
APPLICATION = b"ssh:"
EMPTY = hashlib.sha256(b"").hexdigest()
_CURVES: dict[int, tuple[ec.EllipticCurve, hashes.HashAlgorithm]] = {
    256: (ec.SECP256R1(), hashes.SHA256()),
    384: (ec.SECP384R1(), hashes.SHA384()),
    521: (ec.SECP521R1(), hashes.SHA512()),
}
KINDS = (
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "ssh-rsa",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
)


class Signer(Struct, frozen=True):
    """A key that can sign: its public bytes, and what makes the signature's bytes over others."""

    kind: str
    blob: bytes
    sign: Callable[[bytes], bytes]
    private: bytes = b""
    """As OpenSSH keeps it in a file; empty for hardware keys."""

    @property
    def line(self) -> str:
        """Its line, as in a `.pub`."""
        return f"{self.kind} {base64.b64encode(self.blob).decode()}"


def mpint(number: int) -> bytes:
    """A positive number in SSH's form."""
    return string(number.to_bytes(number.bit_length() // 8 + 1, "big"))


def ed25519_signer() -> Signer:
    """A new key of the usual kind."""
    key = ed25519.Ed25519PrivateKey.generate()
    point = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    kind = "ssh-ed25519"
    blob = string(kind.encode()) + string(point)
    return Signer(kind, blob, lambda data: string(kind.encode()) + string(key.sign(data)), _private(key))


def ecdsa_signer(bits: int) -> Signer:
    """A new key on a curve of NIST's."""
    curve, digest = _CURVES[bits]
    key = ec.generate_private_key(curve)
    kind = f"ecdsa-sha2-nistp{bits}"
    blob = string(kind.encode()) + string(f"nistp{bits}".encode()) + string(_point(key))
    return Signer(
        kind,
        blob,
        lambda data: string(kind.encode()) + string(dss(key.sign(data, ec.ECDSA(digest)))),
        _private(key),
    )


def rsa_signer(bits: int = 2048, exponent: int = 65537, algorithm: str = "rsa-sha2-512") -> Signer:
    """A new RSA key, which signs by one of its algorithms."""
    key = rsa.generate_private_key(exponent, bits)
    numbers = key.public_key().public_numbers()
    digest = {"rsa-sha2-512": hashes.SHA512(), "rsa-sha2-256": hashes.SHA256(), "ssh-rsa": hashes.SHA1()}[algorithm]
    blob = string(b"ssh-rsa") + mpint(numbers.e) + mpint(numbers.n)
    return Signer(
        "ssh-rsa",
        blob,
        lambda data: string(algorithm.encode()) + string(key.sign(data, padding.PKCS1v15(), digest)),
        _private(key),
    )


def hardware_signer(kind: str, flags: int = 1) -> Signer:
    """What stands for a key in hardware: the form is the same, and the touch is claimed by the flags."""
    state = bytes([flags]) + (7).to_bytes(4, "big")

    def told(data: bytes) -> bytes:
        return hashlib.sha256(APPLICATION).digest() + state + hashlib.sha256(data).digest()

    if kind.startswith("sk-ssh-ed25519"):
        key = ed25519.Ed25519PrivateKey.generate()
        public = string(key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))
        signed: Callable[[bytes], bytes] = lambda data: key.sign(told(data))  # noqa: E731
    else:
        other = ec.generate_private_key(ec.SECP256R1())
        public = string(b"nistp256") + string(_point(other))
        signed = lambda data: dss(other.sign(told(data), ec.ECDSA(hashes.SHA256())))  # noqa: E731
    blob = string(kind.encode()) + public + string(APPLICATION)
    return Signer(kind, blob, lambda data: string(kind.encode()) + string(signed(data)) + state)


@cache
def signer(kind: str) -> Signer:
    """A key of this kind, the same for all tests of a session."""
    if kind == "ssh-ed25519":
        return ed25519_signer()
    if kind == "ssh-rsa":
        return rsa_signer()
    return hardware_signer(kind) if kind.startswith("sk-") else ecdsa_signer(int(kind[-3:]))


def dss(encoded: bytes) -> bytes:
    """A signature of ECDSA's in SSH's form."""
    return b"".join(map(mpint, decode_dss_signature(encoded)))


def _point(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def _private(key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())


def armor(blob: bytes, width: int = 70) -> bytes:
    """A block of armored text around a signature's bytes."""
    encoded = base64.b64encode(blob)
    lines = [encoded[start : start + width] for start in range(0, len(encoded), width)]
    return b"\n".join([b"-----BEGIN SSH SIGNATURE-----", *lines, b"-----END SSH SIGNATURE-----", b""])


def blob_of(block: bytes) -> bytes:
    """What is in a block of armored text."""
    return base64.b64decode(b"".join(block.split(b"\n")[1:-2]))


def signed_bytes(message: bytes, namespace: str = NAMESPACE, hash_name: str = "sha512", reserved: bytes = b"") -> bytes:
    """What a key signs in place of a message."""
    digest = hashlib.new(hash_name, message).digest()
    return b"SSHSIG" + b"".join(map(string, (namespace.encode(), reserved, hash_name.encode(), digest)))


def sshsig(
    key: Signer,
    message: bytes,
    namespace: str = NAMESPACE,
    *,
    hash_name: str = "sha512",
    reserved: bytes = b"",
    version: int = 1,
    change: Callable[[bytes], bytes] = lambda signature: signature,
) -> bytes:
    """The armored signature of a message; `change` is made to the key's own signature."""
    signature = change(key.sign(signed_bytes(message, namespace, hash_name, reserved)))
    parts = (key.blob, namespace.encode(), reserved, hash_name.encode(), signature)
    return armor(b"SSHSIG" + version.to_bytes(4, "big") + b"".join(map(string, parts)))


def package(*paths: str) -> Contents:
    """The contents of a package of empty files."""
    return contents_of(PackageFile(path, 0, EMPTY) for path in ("Component.toml", *paths))
