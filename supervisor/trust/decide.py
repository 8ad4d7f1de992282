"""Whether a component is trusted, by which entry, and what came nearest if it isn't. Pure and total.

Trust comes from where a package was fetched, as whoever fetched it saw it, and from signatures over its very bytes.
What a package says of itself is not among the arguments.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ipc.struct import Struct
from supervisor.packages.provenance import Provenance
from supervisor.trust.git_url import GitUrl, parse_git_url
from supervisor.trust.host_name import UnclearNameError
from supervisor.trust.level import TrustLevel
from supervisor.trust.oci_name import OciName, parse_oci_name
from supervisor.trust.sources import GitSource, KeySource, LocalSource, Miss, OciSource, TrustSource

if TYPE_CHECKING:
    from supervisor.signing.keys import PublicKey


class Exposure(Struct, frozen=True):
    """A path through which somebody else could have put a package where it lies, or bytes into it; and who."""

    path: str
    why: str


class TrustDecision(Struct, frozen=True):
    """The level, the entry that gave it, and the reason in words."""

    level: TrustLevel
    rule: str
    """The entry: its place among the sources, its form and pattern, file and line; "" where none covers it."""
    reason: str
    source: TrustSource | None = None
    nearest: TrustSource | None = None
    """Of what isn't trusted: the entry that came nearest."""

    @property
    def approval(self) -> str:
        """Return what the audit log says of who said yes."""
        return f"trusted: {self.source.name}" if self.source is not None else ""


def describe_source(source: TrustSource) -> str:
    """Return how an entry is named: which it is, what it says, and where it was written."""
    return f"trust.sources[{source.index}] {source.name} ({source.origin})"


def decide_trust(
    provenance: Provenance | None,
    signers: Sequence[PublicKey],
    sources: Sequence[TrustSource],
    *,
    now_s: int,
    exposed: Sequence[Exposure] | None = None,
) -> TrustDecision:
    """Decide on a package by its origin and its verified signers; the first entry that covers it is the rule.

    `exposed` is what `supervisor.trust.local` found of a path; None where nobody looked, and then no entry of a path on
    this machine (`local`, or `git` with file://) covers anything. What starts in dev mode isn't asked about here
    (`supervisor.grants.dev_mode`): its level is somebody's word, also where an entry would cover it.
    """
    revoked = frozenset(each.key.blob for each in sources if isinstance(each, KeySource) and each.revoked)
    place = _place(provenance)
    nearest: tuple[int, TrustSource, str] | None = None
    for source in sources:
        if isinstance(source, KeySource):
            miss = source.miss(signers, revoked, now_s)
        else:
            miss = _miss(source, place, provenance.branch if provenance is not None else "", exposed)
        if miss is None:
            return TrustDecision("trusted", describe_source(source), f"{source.name} covers it", source)
        if miss.nearness > (nearest[0] if nearest is not None else 0):
            nearest = (miss.nearness, source, miss.why)
    reason = _reason(place, sources, nearest)
    return TrustDecision("unknown", "", reason, None, nearest[1] if nearest else None)


class _Unclear(Struct, frozen=True):
    """An origin that no entry is compared with; says why."""

    why: str


_Place = GitUrl | OciName | str | _Unclear
"""Where a package came from, as entries are compared with it; a text is a real path."""


def _place(provenance: Provenance | None) -> _Place:
    if provenance is None:
        return _Unclear("where it came from isn't known")
    try:
        if provenance.kind == "git":
            return parse_git_url(provenance.url)
        if provenance.kind == "oci":
            return parse_oci_name(provenance.url)
    except UnclearNameError as error:
        return _Unclear(error.reason)
    return provenance.url


def _miss(
    source: GitSource | OciSource | LocalSource, place: _Place, branch: str, exposed: Sequence[Exposure] | None
) -> Miss | None:
    """Return why an entry doesn't cover a place, None where it does."""
    if isinstance(source, GitSource) and isinstance(place, GitUrl):
        return source.miss(place, branch) or (_exposure(source.place, exposed) if source.place is not None else None)
    if isinstance(source, OciSource) and isinstance(place, OciName):
        return source.miss(place)
    if isinstance(source, LocalSource) and isinstance(place, str):
        return source.miss(place) or _exposure(source, exposed)
    return Miss(place.why if isinstance(place, _Unclear) else "it came from elsewhere")


def _exposure(source: LocalSource, exposed: Sequence[Exposure] | None) -> Miss | None:
    if exposed is None:
        return Miss("nobody looked who else could write there", 900)
    found = next((each for each in exposed if source.counts(each.path)), None)
    return None if found is None else Miss(f"{found.path} {found.why}", 900)


def _reason(place: _Place, sources: Sequence[TrustSource], nearest: tuple[int, TrustSource, str] | None) -> str:
    if not sources:
        return "nothing is trusted here: there is no [[trust.sources]] in airssys.toml"
    if nearest is not None:
        return f"no entry covers it; nearest: {describe_source(nearest[1])}, but {nearest[2]}"
    if isinstance(place, _Unclear):
        return f"no entry covers it: {place.why}"
    return "no entry of [[trust.sources]] covers it"
