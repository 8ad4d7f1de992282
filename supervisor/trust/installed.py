"""Whether what is installed is trusted: by what was recorded of its origin, and by today's sources and clock. Pure.

Its signatures were verified when it was installed, over the bytes that its digest names; whose keys they are, and until
when that counts, is asked anew each time.
"""

from __future__ import annotations

from collections.abc import Sequence

from supervisor.packages.installed import EXPOSED_MAX, Installed
from supervisor.packages.provenance import Provenance
from supervisor.signing.keys import PublicKey, read_public_key
from supervisor.trust.decide import Exposure, TrustDecision, decide_trust
from supervisor.trust.sources import KeySource, TrustSource


def judge_installed(installed: Installed, sources: Sequence[TrustSource], now_s: int) -> TrustDecision:
    """Decide on an installed package; `now_s` is UTC, in seconds."""
    signers, exposed = recorded(installed)
    return decide_trust(installed.provenance, signers, sources, now_s=now_s, exposed=exposed)


def recorded(installed: Installed) -> tuple[tuple[PublicKey, ...], tuple[Exposure, ...] | None]:
    """Return the keys whose signatures held, and who else could have exchanged it, when it was installed."""
    signers = tuple(read_public_key(each) for each in installed.signers)
    return signers, None if installed.exposed is None else tuple(Exposure(*each) for each in installed.exposed)


def recorded_exposures(
    provenance: Provenance, exposed: Sequence[Exposure] | None
) -> tuple[tuple[str, str], ...] | None:
    """Return what is recorded of who else could have exchanged a package where it came from.

    Of very many the first, and that there are more: of the whole place, so that no entry overlooks it.
    """
    if exposed is None:
        return None
    found = tuple((each.path, each.why) for each in exposed[:EXPOSED_MAX])
    return (
        found if len(exposed) <= EXPOSED_MAX else (*found, (provenance.url, "is written to by others in many places"))
    )


def revoked_keys(sources: Sequence[TrustSource]) -> frozenset[str]:
    """Return the keys that vouch for nothing any more, as OpenSSH writes them."""
    return frozenset(each.key.text for each in sources if isinstance(each, KeySource) and each.revoked)
