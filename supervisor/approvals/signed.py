"""A signed yes: a statement with a signature of OpenSSH's behind it, and what it is worth on a host. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from ipc.errors import ConfigError
from ipc.struct import Struct
from supervisor.approvals.machine import Refusal
from supervisor.approvals.narrowing import why_wider
from supervisor.approvals.request import Request, Signed, Voted
from supervisor.approvals.statement import Statement, read_statement, within_terms
from supervisor.signing.sshsig import Signature, read_signatures, verify

if TYPE_CHECKING:
    from supervisor.config.approval_settings import Signer

NAMESPACE: Final = "airssys-approval"
"""What a signature of a yes says that it is for; one of a package, or of anything else, is none."""
CLOCKS_APART_S: Final = 3_600
"""How far the clocks of a signer's machine and of a host may be apart."""
FILE_MAX_BYTES: Final = 224 * 1024
_BEGIN: Final = b"\n-----BEGIN SSH SIGNATURE-----\n"


class SignedStatement(Struct, frozen=True):
    """A statement, and a signature of which nothing is known yet."""

    statement: Statement
    signature: Signature

    @property
    def id(self) -> str:
        """Return what no other signed yes has: the hash of the key and of what it signed, in hexadecimal."""
        return hashlib.sha256(self.signature.key.blob + self.statement.encoded).hexdigest()

    @property
    def encoded(self) -> bytes:
        """Return it as a file."""
        return self.statement.encoded + self.signature.block


class Voter(Struct, frozen=True):
    """Whose signed yes it is on this host, and which user of it; None for nobody here."""

    signer: Signer
    uid: int | None


def read_signed(data: bytes) -> SignedStatement:
    """Return what a file holds; raises ConfigError for anything but one statement with one signature behind it."""
    hint = "as `airssys approvals sign` has written it"
    if len(data) > FILE_MAX_BYTES:
        raise ConfigError(f"this is no signed approval: more than {FILE_MAX_BYTES >> 10} KiB", hint=hint)
    at = data.find(_BEGIN)
    if at < 0:
        raise ConfigError("this is no signed approval: there is no signature in it", hint=hint)
    statement = read_statement(data[: at + 1])
    found = read_signatures(data[at + 1 :])
    if len(found) != 1:
        raise ConfigError("this is no signed approval: it has more than one signature", hint=hint)
    signature = found[0]
    if not isinstance(signature, Signature):
        raise ConfigError(f"its signature can't be read: {signature.why}", hint=hint)
    return SignedStatement(statement, signature)


def why_not_signed(signed: SignedStatement) -> str:
    """Return why the signature doesn't hold for the statement; empty where it does."""
    return verify(signed.signature, signed.statement.encoded, NAMESPACE)


def signer_of(signed: SignedStatement, signers: Sequence[Signer], host: str, now_s: int) -> Signer | Refusal:
    """Return who says it, or why it counts for nothing on this host at this time."""
    statement, key = signed.statement, signed.signature.key
    why = why_not_signed(signed)
    if why:
        return Refusal(f"its signature doesn't hold: {why}")
    signer = next((each for each in signers if each.key == key), None)
    if signer is None:
        return Refusal(f"nobody here has the key {key.fingerprint}: see [[approvals.signers]] in airssys.toml")
    state = signer.state(now_s)
    if state:
        return Refusal(f"{state}: {key.fingerprint} ({signer.identity})")
    if not statement.covers_host(host):
        return Refusal(f"it is for {', '.join(statement.hosts)}, and this host is called {host}")
    if statement.signed_s > now_s + CLOCKS_APART_S:
        return Refusal("it was signed in the time to come: compare the clocks")
    if now_s >= statement.import_before_s:
        return Refusal("the time in which it could be imported is over")
    if statement.expires_s is not None and now_s >= statement.expires_s:
        return Refusal("it has expired")
    return signer


def vote_of(
    signed: SignedStatement, voter: Voter, request: Request, now_s: int, needs: int, brought_by: int
) -> Voted | Refusal:
    """Return the yes to a request that a signed one is, or why it is none."""
    statement = signed.statement
    granted = within_terms(statement.granted, request.subject.asked)
    if granted is None or statement.subject.key != request.subject.key:
        return Refusal("it was signed for something else")
    # Whoever has signed more than others have left of it has said yes to what is left, too.
    widens = why_wider(granted, request.granted)
    return Voted(
        at_s=now_s,
        uid=voter.uid,
        seen=statement.reviewed,
        needs=needs,
        granted=granted if widens else None,
        once=statement.once,
        reason=statement.reason,
        until_s=statement.expires_s,
        signed=Signed(
            key=signed.signature.key.fingerprint,
            identity=voter.signer.identity,
            subject=statement.subject.key,
            id=signed.id,
            import_before_s=statement.import_before_s,
            brought_by=brought_by,
        ),
    )


def difference(statement: Statement, request: Request) -> str:
    """Return how a request of the same component is something else than what was signed; empty for the same."""
    signed, asked = statement.subject, request.subject
    if signed.key == asked.key:
        return ""
    if signed.package != asked.package:
        return f"its package is {asked.package[:12]}, and {signed.package[:12]} was signed"
    return "it asks for another set of capabilities here (other parameters make another set)"
