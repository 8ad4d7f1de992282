"""Whether a signature of SSH's holds: the one module that uses a library of cryptography.

The forms are those of RFC 8332 (RSA), RFC 5656 §3.1.2 (ECDSA), RFC 8709 §6 (Ed25519) and OpenSSH's PROTOCOL.u2f (keys
in hardware). The library is imported when there is something to verify: it costs 15 ms.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from supervisor.signing.keys import ECDSA_BITS, ED25519, RSA, SK_ECDSA, SK_ED25519, PublicKey
from supervisor.signing.wire import Wire, WireError
from supervisor.terminal import visible

if TYPE_CHECKING:
    from cryptography.hazmat.primitives import hashes

OTHER_BYTES: Final = "it was made over other bytes, or by another key"
_RSA_ALGORITHMS: Final = ("rsa-sha2-256", "rsa-sha2-512")
"""What an RSA key may sign by; never `ssh-rsa`, which is SHA-1."""
_USER_PRESENT: Final = 0x01


def why_not(key: PublicKey, signature: bytes, signed: bytes) -> str:
    """Return why a signature (in SSH's wire format) does not hold for what was signed; empty where it does."""
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

    try:
        algorithm, rest = _algorithm(signature)
        if algorithm not in (_RSA_ALGORITHMS if key.kind == RSA else (key.kind,)):
            return f"a key of the kind {key.kind} doesn't sign by {visible(algorithm[:60])}"
        if key.kind in (SK_ED25519, SK_ECDSA):
            return _verify_in_hardware(key, rest, signed)
        if key.kind == ED25519:
            _verify_ed25519(_after_kind(key).string(), _only_string(rest), signed)
        elif key.kind in ECDSA_BITS:
            _verify_ecdsa(_point(key), ECDSA_BITS[key.kind], _only_string(rest), signed)
        else:
            _verify_rsa(key, algorithm, _only_string(rest), signed)
    except WireError as error:
        return f"it is damaged: {error}"
    except (InvalidSignature, ValueError, UnsupportedAlgorithm):
        return OTHER_BYTES
    return ""


def _algorithm(signature: bytes) -> tuple[str, Wire]:
    wire = Wire(signature)
    return wire.text(), wire


def _only_string(wire: Wire) -> bytes:
    found = wire.string()
    wire.end()
    return found


def _after_kind(key: PublicKey) -> Wire:
    wire = Wire(key.blob)
    wire.text()
    return wire


def _point(key: PublicKey) -> bytes:
    wire = _after_kind(key)
    wire.text()  # the curve, which the kind names
    return wire.string()


def _verify_ed25519(point: bytes, signature: bytes, signed: bytes) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    # Length, and that S is below the group's order (RFC 8032 §5.1.7), are the library's to check.
    Ed25519PublicKey.from_public_bytes(point).verify(signature, signed)


def _verify_ecdsa(point: bytes, bits: int, signature: bytes, signed: bytes) -> None:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

    curve: ec.EllipticCurve
    digest: hashes.HashAlgorithm
    curve, digest = {
        256: (ec.SECP256R1(), hashes.SHA256()),
        384: (ec.SECP384R1(), hashes.SHA384()),
        521: (ec.SECP521R1(), hashes.SHA512()),
    }[bits]
    wire = Wire(signature)
    r, s = wire.positive(), wire.positive()
    wire.end()
    public = ec.EllipticCurvePublicKey.from_encoded_point(curve, point)
    public.verify(encode_dss_signature(r, s), signed, ec.ECDSA(digest))


def _verify_rsa(key: PublicKey, algorithm: str, signature: bytes, signed: bytes) -> None:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding, rsa

    wire = _after_kind(key)
    exponent, modulus = wire.positive(), wire.positive()
    if len(signature) != (modulus.bit_length() + 7) // 8:
        raise WireError("it has another length than its key")
    digest: hashes.HashAlgorithm = hashes.SHA256() if algorithm == "rsa-sha2-256" else hashes.SHA512()
    rsa.RSAPublicNumbers(exponent, modulus).public_key().verify(signature, signed, padding.PKCS1v15(), digest)


def _verify_in_hardware(key: PublicKey, rest: Wire, signed: bytes) -> str:
    """Verify what a FIDO key signed: not the bytes alone, but with its application, its flags and its counter."""
    signature, state = rest.string(), rest.take(5)
    rest.end()
    if not state[0] & _USER_PRESENT:
        return "its hardware key signed without being touched"
    wire = _after_kind(key)
    if key.kind == SK_ECDSA:
        wire.text()
    point, application = wire.string(), wire.string()
    told = hashlib.sha256(application).digest() + state + hashlib.sha256(signed).digest()
    if key.kind == SK_ED25519:
        _verify_ed25519(point, signature, told)
    else:
        _verify_ecdsa(point, 256, signature, told)
    return ""
