"""Which signatures of a package hold, and by which keys. Whose keys these are is for others to say. Pure."""

from __future__ import annotations

from ipc.struct import Struct
from supervisor.packages.contents import Contents
from supervisor.signing.keys import PublicKey
from supervisor.signing.sshsig import Signature, Unreadable, read_signatures, verify


class Judged(Struct, frozen=True):
    """One signature of a package; `why_not` is empty where it holds for exactly these contents."""

    signature: Signature | Unreadable
    why_not: str

    @property
    def key(self) -> PublicKey | None:
        """Return the key by which it says that it was made; None where it can't be read."""
        return self.signature.key if isinstance(self.signature, Signature) else None


def judge_signatures(contents: Contents, signatures: bytes) -> tuple[Judged, ...]:
    """Return every signature of a `Component.sig` with whether it holds, in order.

    Raises ConfigError where the file is larger, or holds more, than any that is read (`sshsig`).
    """
    statement = contents.statement
    return tuple(
        Judged(each, verify(each, statement) if isinstance(each, Signature) else each.why)
        for each in read_signatures(signatures)
    )


def verified_signers(contents: Contents, signatures: bytes) -> tuple[PublicKey, ...]:
    """Return the keys of the signatures that hold, each once, in order; raises ConfigError as `judge_signatures`."""
    judged = judge_signatures(contents, signatures)
    return tuple(dict.fromkeys(each.key for each in judged if each.key is not None and not each.why_not))
