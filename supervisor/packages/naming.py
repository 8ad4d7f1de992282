"""Whether a package may have the name that it asks for. Pure.

A package says what it is called; that is a request. The host's rules go by the name, so a name stays with the source
that had it first, and with the version that it has come to, unless a person says otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ipc.struct import Struct
from supervisor.packages.installed import ComponentName, Installed, is_same_source, source_words, version_key
from supervisor.terminal import visible
from supervisor.trust.installed import judge_installed

if TYPE_CHECKING:
    from supervisor.trust.sources import LocalSource


class Permitted(Struct, frozen=True):
    """What a person has said may happen though it isn't the rule, and who vouches for what: keys, and places."""

    replace_source: bool = False
    allow_downgrade: bool = False
    revoked: frozenset[str] = frozenset()
    """Keys that vouch for nothing any more."""
    upgrades: tuple[LocalSource, ...] | None = None
    """Where a person has named both the component and where its next version is: the host's trusted places, of which
    one that covers both is one source. None where only a package says what it is called.
    """


class InstallRefusal(Struct, frozen=True):
    """Why a package may not have a name: in a line, and what would let it."""

    code: str
    reason: str
    hint: str


def _is_same_origin(one: Installed, other: Installed, permitted: Permitted) -> bool:
    """Whether they came from one place, or somebody has signed both."""
    signed_both = set(one.signers).intersection(other.signers).difference(permitted.revoked)
    return (
        is_same_source(one.provenance, other.provenance)
        or bool(signed_both)
        or any(_lies_in(one, each) and _lies_in(other, each) for each in permitted.upgrades or ())
    )


def _lies_in(installed: Installed, place: LocalSource) -> bool:
    """Whether it came from a trusted place of this machine in which nobody else could have put it."""
    return judge_installed(installed, (place,), now_s=0).source is not None


def _how_to_replace(name: ComponentName, permitted: Permitted) -> str:
    if permitted.upgrades is not None:
        return "if it is to come from there from now on: --replace-source; one key that has signed both says so, too"
    return f"if it is its next version: airssys upgrade {name.text} SOURCE; what the host says of a name holds for it"


def decide_install(
    new: Installed,
    active: Installed | None,
    under_its_name: Sequence[Installed],
    permitted: Permitted,
) -> InstallRefusal | None:
    """Return why `new` may not have its name; None where it may.

    `active` is what that name, instance and all, means now. Where it means nothing yet, it is measured by what is
    active `under_its_name`, in any instance: what the host says of a name holds for each of its instances.
    Who signed both vouches for it, unless that key is revoked.
    """
    known = (active,) if active is not None else tuple(under_its_name)
    is_known = not known or any(_is_same_origin(each, new, permitted) for each in known)
    if not (is_known or permitted.replace_source):
        there, here = (visible(source_words(side.provenance)) for side in (known[0], new))
        return InstallRefusal(
            "A3102",
            f"{known[0].called.text} {known[0].version} is from another source, {there}; this is from {here}",
            _how_to_replace(known[0].called, permitted),
        )
    older = active is not None and version_key(new.version) < version_key(active.version)
    if older and active is not None and not permitted.allow_downgrade:
        return InstallRefusal(
            "A3103",
            f"{new.called.text} {new.version} is older than {active.version}, which is active",
            f"to a version that was installed before: airssys rollback {new.called.text}; "
            "to install an older one: --allow-downgrade",
        )
    return None
