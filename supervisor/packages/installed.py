"""What is installed under which name, and whether another package may take that name. Pure.

A package says what it is called; that is a request. The host's rules go by the name, so a name stays with the source
that had it first, and with the version that it has come to, unless a person says otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from ipc.errors import ConfigError
from ipc.struct import Struct
from supervisor.packages.provenance import Provenance
from supervisor.terminal import visible

if TYPE_CHECKING:
    from supervisor.trust.sources import LocalSource

_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,62}")
EXPOSED_MAX: Final = 100
_INSTANCE: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]{0,62}")
MIN_DIGEST_CHARACTERS: Final = 6


class ComponentName(Struct, frozen=True):
    """`NAME` or `NAME@INSTANCE`: what a person types, and what the host's rules are written for."""

    name: str
    instance: str = ""

    @property
    def text(self) -> str:
        """Return it as it is typed."""
        return f"{self.name}@{self.instance}" if self.instance else self.name


class Installed(Struct, frozen=True):
    """One package under one name: what it is, where it came from, who vouches for it, when and by whom."""

    name: str
    instance: str
    version: str
    digest: str
    """Of the package (`Contents.digest`)."""
    program: str
    """The path of its wasm file within the package."""
    provenance: Provenance
    source: str
    """The source as `airssys upgrade` fetches it again."""
    signers: tuple[str, ...] = ()
    """The public keys whose signatures held when it was installed, as OpenSSH writes them."""
    installed_ns: int = 0
    """UTC, in nanoseconds."""
    installed_by: str = ""
    exposed: tuple[tuple[str, str], ...] | None = None
    """Where it came from, each path that others could have written to, and why; None where that isn't this machine."""

    @property
    def called(self) -> ComponentName:
        """Return the name that it is installed under."""
        return ComponentName(self.name, self.instance)


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


class NotANameError(ConfigError):
    """Nothing can be installed under that name."""


def parse_name(text: str) -> ComponentName:
    """Read `NAME[@INSTANCE]`; raises NotANameError for another form."""
    name, at, instance = text.partition("@")
    if not _NAME.fullmatch(name) or (at and not _INSTANCE.fullmatch(instance)):
        raise NotANameError(
            f"{visible(text) or repr(text)}: expected NAME or NAME@INSTANCE",
            hint="a name has lower-case letters, digits and -; a path has a slash: ./DIR",
        )
    return ComponentName(name, instance)


def version_key(version: str) -> tuple[object, ...]:
    """Return what versions are compared by: precedence of semver.org §11; build metadata say nothing."""
    core, _, rest = version.partition("+")[0].partition("-")
    numbers = tuple(int(part) for part in core.split("."))
    # A pre-release comes before its release; numbers before words, fewer parts before more.
    parts = tuple((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in rest.split(".")) if rest else ()
    return (*numbers, 0 if rest else 1, parts)


def is_same_source(one: Provenance, other: Provenance) -> bool:
    """Whether two packages came from one place: revisions and times may differ, branches may not."""
    return (one.kind, one.url, one.branch, one.subdirectory) == (
        other.kind,
        other.url,
        other.branch,
        other.subdirectory,
    )


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
    # Only here: what runs an installed component by its name has no use for it.
    from supervisor.trust.installed import judge_installed

    return judge_installed(installed, (place,), now_s=0).source is not None


def _how_to_replace(name: ComponentName, permitted: Permitted) -> str:
    if permitted.upgrades is not None:
        return "if it is to come from there from now on: --replace-source; one key that has signed both says so, too"
    return f"if it is its next version: airssys upgrade {name.text} SOURCE; what the host says of a name holds for it"


def source_words(provenance: Provenance) -> str:
    """Say where a package came from, without its revision."""
    more = f", branch {provenance.branch}" if provenance.branch else ""
    more += f", in {provenance.subdirectory}" if provenance.subdirectory else ""
    return f"{provenance.kind} {provenance.url}{more}"


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


def choose_version(versions: Sequence[Installed], which: str) -> tuple[Installed, ...]:
    """Return those of one name whose version is `which`, else whose digest begins so."""
    named = tuple(each for each in versions if each.version == which)
    if named or not re.fullmatch(rf"[0-9a-f]{{{MIN_DIGEST_CHARACTERS},64}}", which):
        return named
    return tuple(each for each in versions if each.digest.startswith(which))


def previous(history: Sequence[str], versions: Sequence[Installed]) -> Installed | None:
    """Return what was active before what is: the last other digest of a history that is still installed."""
    there = {each.digest: each for each in versions}
    now = history[-1] if history else ""
    return next((there[digest] for digest in reversed(history) if digest != now and digest in there), None)
