"""What is installed under which name, and which version of it. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from ipc.errors import ConfigError
from ipc.naming import identity_text
from ipc.struct import Struct
from supervisor.packages.provenance import Provenance
from supervisor.terminal import visible

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
        return identity_text(self.name, self.instance)


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


def source_words(provenance: Provenance) -> str:
    """Say where a package came from, without its revision."""
    more = f", branch {provenance.branch}" if provenance.branch else ""
    more += f", in {provenance.subdirectory}" if provenance.subdirectory else ""
    return f"{provenance.kind} {provenance.url}{more}"


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


def is_same_source(one: Provenance, other: Provenance) -> bool:
    """Whether two packages came from one place: revisions and times may differ, branches may not."""
    return (one.kind, one.url, one.branch, one.subdirectory) == (
        other.kind,
        other.url,
        other.branch,
        other.subdirectory,
    )
