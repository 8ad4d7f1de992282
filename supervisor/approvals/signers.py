"""`[[approvals.signers]]` of airssys.toml: whose signed yes counts on this host, and what this host is called."""

from __future__ import annotations

import os
import pwd
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from supervisor.config.approval_settings import Signer
from supervisor.manifest import checks

if TYPE_CHECKING:
    from supervisor.config.settings import Settings
    from supervisor.config.toml_reader import Section

_UID_MAX: Final = 2**32 - 2
_EVER_S: Final = 2**62


def read_signers(sections: Sequence[Section]) -> tuple[Signer, ...]:
    """Return each signer that is right; one key is one person's, and one person is one user."""
    from supervisor.trust.read import check_key, check_time, public_key, seconds_of

    found: list[Signer] = []
    for index, inner in enumerate(sections):
        before = len(inner.document.problems)
        key = inner.text("key", check_key, required=True)
        identity = inner.text("identity", _check_identity, required=True)
        uid = inner.integer("uid", minimum=1, maximum=_UID_MAX)
        after, until = inner.text("valid_after", check_time), inner.text("valid_before", check_time)
        revoked = inner.boolean("revoked", default=False)
        inner.finish()
        if not key or len(inner.document.problems) > before:
            continue
        signer = Signer(index, public_key(key), identity, uid, seconds_of(after), seconds_of(until), revoked)
        if (signer.valid_after_s or 0) >= (signer.valid_before_s or _EVER_S):
            inner.problem("valid_before", "a time after valid_after", f'"{until}"')
        if any(signer.key == other.key for other in found):
            inner.problem("key", "each key once", "one that is named above")
        if len({each.uid for each in (*found, signer) if each.identity == identity and each.uid is not None}) > 1:
            inner.problem("uid", f"the same user wherever {identity} is named", "another one")
        found.append(signer)
    return tuple(found)


def _check_identity(text: str) -> str | None:
    return checks.check_one_line(text) if text else "whose key it is"


def user_of(signer: Signer, signers: Sequence[Signer]) -> int | None:
    """Return which user of this host a signer is: by `uid`, or as the user who has that name; None for nobody here."""
    stated = next((each.uid for each in signers if each.identity == signer.identity and each.uid is not None), None)
    if stated is not None:
        return stated
    try:
        return pwd.getpwnam(signer.identity).pw_uid
    except (KeyError, ValueError):
        return None


def host_name(settings: Settings) -> str:
    """Return what this host is called: `[host] name`, or what the kernel says (uname(2)), in lower case."""
    return settings.host_name or os.uname().nodename.lower()
