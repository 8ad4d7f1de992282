"""Public keys as OpenSSH writes them (`~/.ssh/id_ed25519.pub`), as values. Pure.

A key is its bytes and nothing else: what stands behind it in the file is a note that anybody can write.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from ipc.errors import ConfigError
from ipc.struct import Struct
from supervisor.signing.wire import Wire, WireError
from supervisor.terminal import visible

ED25519: Final = "ssh-ed25519"
RSA: Final = "ssh-rsa"
SK_ED25519: Final = "sk-ssh-ed25519@openssh.com"
SK_ECDSA: Final = "sk-ecdsa-sha2-nistp256@openssh.com"
ECDSA_BITS: Final[Mapping[str, int]] = MappingProxyType({f"ecdsa-sha2-nistp{bits}": bits for bits in (256, 384, 521)})
"""Kind → bits of its curve."""
RSA_MIN_BITS: Final = 2_048
RSA_MAX_BITS: Final = 16_384
TEXT_MAX_CHARACTERS: Final = 16_384
_EXPONENT_MAX_BITS: Final = 64
_PRIME: Final = 2**255 - 19
_SMALL_ORDER: Final = frozenset(
    (
        0,
        1,
        _PRIME - 1,
        0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826,
        0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7,
    )
)
"""The points of edwards25519 whose order divides 8 (RFC 7748 §4.1's cofactor): to them anybody can sign anything."""
_SUPPORTED: Final = "ed25519, ecdsa (nistp256, nistp384, nistp521), rsa from 2048 bits on, and hardware keys"


class UnsupportedKeyError(ConfigError):
    """A public key of a kind, or with numbers, that nothing here verifies with."""


class PublicKey(Struct, frozen=True):
    """A key that can verify. Two are the same if their bytes are: comments mean nothing.

    `kind` is the name by which OpenSSH knows it, `blob` its bytes in SSH's wire format. Made by `public_key` and
    `read_public_key` only, which check it.
    """

    kind: str
    blob: bytes

    @property
    def fingerprint(self) -> str:
        """Return `SHA256:` and the digest, as ssh-keygen prints it."""
        return "SHA256:" + base64.b64encode(hashlib.sha256(self.blob).digest()).decode().rstrip("=")

    @property
    def text(self) -> str:
        """Return the key as it stands in a file, without a comment."""
        return f"{self.kind} {base64.b64encode(self.blob).decode()}"


def read_public_key(text: str) -> PublicKey:
    """Return the key of a line such as `ssh-ed25519 AAAA… comment`.

    Raises ConfigError for what is none, UnsupportedKeyError among them for what isn't supported.
    """
    line = text.strip()
    if line.startswith("-----BEGIN ") and "PRIVATE KEY" in line.partition("\n")[0]:
        raise ConfigError("this is a private key", hint="its public half, with .pub behind its name, is meant")
    if len(line) > TEXT_MAX_CHARACTERS or "\n" in line or "\r" in line:
        raise ConfigError("no public key: it isn't one line", hint="such as: ssh-ed25519 AAAA… comment")
    kind, encoded = [*line.split(None, 2), "", ""][:2]
    try:
        blob = base64.b64decode(encoded.encode("ascii"), validate=True)
    except (UnicodeEncodeError, binascii.Error):
        blob = b""
    if not blob or base64.b64encode(blob).decode() != encoded:
        raise ConfigError("no public key", hint="such as: ssh-ed25519 AAAA… comment")
    key = public_key(blob)
    if key.kind != kind:
        raise ConfigError(f"a key of the kind {key.kind}, which is called {visible(kind[:40])}")
    return key


def public_key(blob: bytes) -> PublicKey:
    """Return the key that these bytes are; raises as `read_public_key`, and for what is too weak."""
    wire = Wire(blob)
    try:
        kind = wire.text()
        if kind not in _CHECKS:
            raise _unsupported(kind)
        _CHECKS[kind](wire, kind)
        wire.end()
    except WireError as error:
        raise ConfigError(f"a public key is damaged: {error}") from None
    return PublicKey(kind, blob)


def _unsupported(kind: str) -> UnsupportedKeyError:
    if kind.endswith(("-cert-v01@openssh.com", "-cert-v00@openssh.com")):
        return UnsupportedKeyError("certificates are not supported", hint="name the key that the certificate is for")
    return UnsupportedKeyError(
        f"keys of the kind {visible(kind[:60])} are not supported", hint=f"what is: {_SUPPORTED}"
    )


def _check_ed25519(wire: Wire, _kind: str) -> None:
    point = wire.string()
    if len(point) != 32:
        raise WireError("it has another length")
    y = int.from_bytes(point, "little") & (2**255 - 1)
    if y >= _PRIME or y in _SMALL_ORDER:
        raise UnsupportedKeyError("to this key anybody could sign", hint="ssh-keygen -t ed25519 makes one")


def _check_point(wire: Wire, bits: int) -> None:
    if wire.text() != f"nistp{bits}":
        raise WireError("it names another curve")
    point = wire.string()
    if len(point) != 1 + 2 * ((bits + 7) // 8) or point[0] != 4:
        raise WireError("its point has another form")


def _check_ecdsa(wire: Wire, kind: str) -> None:
    _check_point(wire, ECDSA_BITS[kind])


def _check_rsa(wire: Wire, _kind: str) -> None:
    exponent, modulus = wire.positive(), wire.positive()
    bits = modulus.bit_length()
    if not RSA_MIN_BITS <= bits <= RSA_MAX_BITS:
        raise UnsupportedKeyError(
            f"an RSA key of {bits} bits is not taken", hint=f"from {RSA_MIN_BITS} to {RSA_MAX_BITS}; or ed25519"
        )
    if exponent < 3 or exponent % 2 == 0 or exponent.bit_length() > _EXPONENT_MAX_BITS or modulus % 2 == 0:
        raise UnsupportedKeyError("this RSA key is none: its numbers can't be a key's")


def _check_sk_ed25519(wire: Wire, kind: str) -> None:
    _check_ed25519(wire, kind)
    wire.text()  # the application: part of what is signed


def _check_sk_ecdsa(wire: Wire, _kind: str) -> None:
    _check_point(wire, 256)
    wire.text()


_CHECKS: Final[Mapping[str, Callable[[Wire, str], None]]] = MappingProxyType(
    {
        ED25519: _check_ed25519,
        **dict.fromkeys(ECDSA_BITS, _check_ecdsa),
        RSA: _check_rsa,
        SK_ED25519: _check_sk_ed25519,
        SK_ECDSA: _check_sk_ecdsa,
    }
)
"""Kind → what reads the rest of such a key's bytes, and raises where they are none."""
