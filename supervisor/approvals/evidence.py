"""What was found out about a package when it was asked for: where it is from, who signed it, what it imports. Pure.

It is kept with the request, so that each reviewer sees the same wherever they are. Whose a key is depends on the host's
settings and on the day, and is said when it is shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from ipc.struct import Struct
from supervisor.config.units import when
from supervisor.packages.provenance import Provenance

if TYPE_CHECKING:
    from supervisor.config.settings import Settings

IMPORTS_KEPT: Final = 200
FINDINGS_KEPT: Final = 30
TEXT_MAX_CHARS: Final = 300
"""Names and notes that came out of a program are cut to this."""


class SignatureFound(Struct, frozen=True):
    """One signature of a package: by which key it says it was made, and why it doesn't hold ("" where it does).

    `key` is the public key as OpenSSH writes it, "" where the signature can't be read.
    """

    key: str
    algorithm: str
    fingerprint: str
    why_not: str = ""


class Evidence(Struct, frozen=True):
    """What the supervisor itself has found; nothing of it is the package's own word, but what its wasm imports."""

    provenance: Provenance
    trust_why: str = ""
    """Which source makes it trusted, or why none does."""
    installed_ns: int = 0
    """UTC, in nanoseconds; 0 where it wasn't installed and lies in a directory."""
    installed_by: str = ""
    signatures: tuple[SignatureFound, ...] = ()
    signatures_unread: str = ""
    """Why they couldn't be looked at."""
    imports: tuple[str, ...] = ()
    imports_count: int = 0
    """How many there are: of very many the first are kept."""
    imports_unread: str = ""
    undeclared: tuple[str, ...] = ()
    """What it imports that it doesn't declare, and what it asks for that it has no use for, in words."""


def evidence_json(evidence: Evidence, settings: Settings, now_s: int) -> dict[str, object]:
    """Return it under the keys of a request's document; whose keys they are is by these settings at this time."""
    return {
        "provenance": {
            **_of_provenance(evidence.provenance),
            "installed_at": _time(evidence.installed_ns),
            "installed_by": evidence.installed_by or None,
        },
        "trust_why": evidence.trust_why or None,
        "signatures": [_of_signature(each, settings, now_s) for each in evidence.signatures],
        "signatures_unread": evidence.signatures_unread or None,
        "imports": list(evidence.imports),
        "imports_count": evidence.imports_count,
        "imports_unread": evidence.imports_unread or None,
        "undeclared": list(evidence.undeclared),
    }


def origin_changes(old: Evidence, new: Evidence) -> list[tuple[str, str | None, str | None]]:
    """Return what is different of where two versions are from, who has signed them and what they import, as words."""
    from supervisor.packages.installed import source_words

    def signers(of: Evidence) -> str:
        return ", ".join(sorted({each.fingerprint for each in of.signatures if not each.why_not})) or "nobody"

    more, less = (
        sorted(set(one.imports) - set(other.imports))
        if max(old.imports_count, new.imports_count) <= IMPORTS_KEPT and not (old.imports_unread or new.imports_unread)
        else []
        for one, other in ((new, old), (old, new))
    )
    sides = [
        ("from", source_words(old.provenance), source_words(new.provenance)),
        ("signed by", signers(old), signers(new)),
        ("imports", ", ".join(less) or None, ", ".join(more) or None),
    ]
    return [(what, before, after) for what, before, after in sides if before != after]


def _of_provenance(provenance: Provenance) -> dict[str, object]:
    return {
        "kind": provenance.kind,
        "url": provenance.url,
        "revision": provenance.revision or None,
        "branch": provenance.branch or None,
        "subdirectory": provenance.subdirectory or None,
        "fetched_at": _time(provenance.fetched_ns),
        "fetched_by": provenance.fetched_by or None,
    }


def _time(moment_ns: int) -> str | None:
    return when(moment_ns // 10**9) if moment_ns else None


def _of_signature(found: SignatureFound, settings: Settings, now_s: int) -> dict[str, object]:
    listed = listings_of(found.key, settings, now_s)
    return {
        "holds": not found.why_not,
        "why": found.why_not or None,
        "algorithm": found.algorithm or None,
        "fingerprint": found.fingerprint or None,
        "key": found.key or None,
        "listed": [{"identity": name or None, "in": where, "state": state or None} for name, where, state in listed],
    }


def listings_of(key: str, settings: Settings, now_s: int) -> Sequence[tuple[str, str, str]]:
    """Return whose a key is by the host's settings: the identity, where that is written, why it counts for nothing."""
    if not key:
        return ()
    from supervisor.trust.sources import KeySource

    sources = [each for each in settings.trust_sources if isinstance(each, KeySource)]
    trusted = [(each.identity, f"trust.sources[{each.index}]", each.state(now_s), each.key) for each in sources]
    signing = [
        (each.identity, f"approvals.signers[{each.index}]", each.state(now_s), each.key)
        for each in settings.approval_signers
    ]
    return [(name, where, state) for name, where, state, own in (*trusted, *signing) if own.text == key]
