"""OpenSSH's signature format (PROTOCOL.sshsig): blocks of armored text, each a signature of a message by a key. Pure.

Stricter than ssh-keygen where a second spelling would mean the same: what it writes itself is taken, and nothing else.
"""

from __future__ import annotations

import binascii
import hashlib
from collections.abc import Iterator
from typing import Final

from ipc.errors import ConfigError
from ipc.struct import Struct
from supervisor.packages.contents import SIGNATURES_MAX_BYTES
from supervisor.signing.keys import PublicKey, public_key
from supervisor.signing.primitives import why_not
from supervisor.signing.wire import Wire, WireError, string
from supervisor.terminal import visible

PACKAGE_NAMESPACE: Final = "airssys-package"
"""What a signature of a package says that it is for; one that was made for anything else is none of ours."""
SIGNATURES_MAX: Final = 64
_BLOCK_MAX_BYTES: Final = 16 * 1024
_BEGIN: Final = b"-----BEGIN SSH SIGNATURE-----"
_END: Final = b"-----END SSH SIGNATURE-----"
_MAGIC: Final = b"SSHSIG"
_VERSION: Final = 1
_HASHES: Final = ("sha256", "sha512")


class Signature(Struct, frozen=True):
    """One signature as it was read, before anything about it is known to be true."""

    key: PublicKey
    namespace: str
    hash_name: str
    blob: bytes
    """The signature itself, in SSH's wire format."""
    block: bytes
    """The armored text that it was read from, with the newline at its end."""


class Unreadable(Struct, frozen=True):
    """Text that stands where a signature should, and is none that can be verified here; `why` says so in words."""

    why: str
    block: bytes


def read_signatures(data: bytes) -> tuple[Signature | Unreadable, ...]:
    """Return what a file of signatures holds, in order: a damaged one never hides another.

    Raises ConfigError for a file of more than SIGNATURES_MAX_BYTES, or of more than SIGNATURES_MAX signatures.
    """
    if len(data) > SIGNATURES_MAX_BYTES:
        raise ConfigError(f"a file of signatures of more than {SIGNATURES_MAX_BYTES >> 20} MiB is not read")
    found: list[Signature | Unreadable] = []
    for block in _blocks(data):
        if len(found) == SIGNATURES_MAX:
            raise ConfigError(f"a file of more than {SIGNATURES_MAX} signatures is not read")
        found.append(_read_block(block))
    return tuple(found)


def verify(signature: Signature, message: bytes, namespace: str = PACKAGE_NAMESPACE) -> str:
    """Return why a signature does not hold for a message; empty where it does."""
    if signature.namespace != namespace:
        return f"it was made for {visible(repr(signature.namespace[:60]))}, not for {namespace!r}"
    return why_not(signature.key, signature.blob, _signed(namespace, signature.hash_name, message))


def _signed(namespace: str, hash_name: str, message: bytes) -> bytes:
    """Return the bytes that the key signs in place of the message (PROTOCOL.sshsig §3)."""
    digest = hashlib.new(hash_name, message).digest()
    return _MAGIC + b"".join(map(string, (namespace.encode(), b"", hash_name.encode(), digest)))


def _blocks(data: bytes) -> Iterator[bytes]:
    """Yield each block, and each run of other lines that aren't empty; a block without an end ends at the next."""
    block: list[bytes] = []
    inside = False
    # A beginning is one wherever it stands: what was cut off in the midst of a line takes nothing with it.
    for line in data.replace(_BEGIN, b"\n" + _BEGIN).split(b"\n"):
        if block and (line == _BEGIN or (not inside and not line.strip())):
            yield _joined(block)
            block = []
        inside = inside or line == _BEGIN
        if inside or line.strip():
            block.append(line)
        if inside and line == _END:
            yield _joined(block)
            block, inside = [], False
    if block:
        yield _joined(block)


def _joined(lines: list[bytes]) -> bytes:
    return b"\n".join(lines).rstrip(b"\n") + b"\n"


def _read_block(block: bytes) -> Signature | Unreadable:
    try:
        return _read_blob(_dearmored(block), block)
    except WireError as error:
        return Unreadable(f"it is damaged: {error}", block)
    except ConfigError as error:  # of the key
        return Unreadable(error.message, block)


def _dearmored(block: bytes) -> bytes:
    if len(block) > _BLOCK_MAX_BYTES:
        raise WireError(f"larger than {_BLOCK_MAX_BYTES >> 10} KiB")
    first, *lines = block.removesuffix(b"\n").split(b"\n")
    if first != _BEGIN:
        raise WireError("text that is no signature")
    if not lines or lines.pop() != _END:
        raise WireError("it has no end")
    encoded = b"".join(lines)
    try:
        blob = binascii.a2b_base64(encoded, strict_mode=True)
    except binascii.Error:
        blob = b""
    if not all(lines) or not blob or binascii.b2a_base64(blob, newline=False) != encoded:
        raise WireError("no base64 in its one form")
    return blob


def _read_blob(blob: bytes, block: bytes) -> Signature:
    wire = Wire(blob)
    if wire.take(len(_MAGIC)) != _MAGIC:
        raise WireError("it isn't in OpenSSH's format")
    version = wire.uint32()
    if version != _VERSION:
        raise WireError(f"its format has version {version}, which is not supported")
    key = public_key(wire.string())
    namespace, reserved, hash_name, signature = wire.text(), wire.string(), wire.text(), wire.string()
    wire.end()
    if reserved:
        raise WireError("a field in it that has no meaning yet isn't empty")
    if hash_name not in _HASHES:
        raise WireError(f"the digest {visible(hash_name[:60])} is not supported")
    return Signature(key, namespace, hash_name, signature, block)
