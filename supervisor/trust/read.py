"""`[[trust.sources]]` of airssys.toml → values; what is wrong is noted with file, line and key. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from ipc.errors import ConfigError
from ipc.policy.access import AclEntry
from ipc.policy.patterns import PatternError, parse_pattern
from supervisor.config.toml_reader import Section
from supervisor.manifest import checks
from supervisor.manifest.checks import TextForm
from supervisor.trust.host_name import UnclearNameError
from supervisor.trust.sources import (
    FORMS,
    KeySource,
    LocalSource,
    SourceForm,
    TrustSource,
    git_source,
    oci_source,
    writing_patterns,
)

if TYPE_CHECKING:
    from supervisor.signing.keys import PublicKey

_OF_FORM: Final[dict[SourceForm, tuple[str, ...]]] = {
    "git": ("branch",),
    "signing_key": ("identity", "valid_after", "valid_before", "revoked"),
    "local": (),
    "oci": (),
}
"""Form → the keys that say more of it."""
_TIME: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?:T[0-9]{2}:[0-9]{2}:[0-9]{2}Z)?")
# What git-check-ref-format(1) allows of a branch, and nothing that could be taken for an option or a range.
check_branch: Final = TextForm(
    re.compile(r"(?!refs/)(?!.*(?:\.\.|//|@\{|\.lock(?:/|$)|/\.|\./|[/.]$))[A-Za-z0-9_][A-Za-z0-9_./+@=-]*"),
    'a branch\'s name such as "main"',
    255,
)


def read_trust(section: Section) -> tuple[TrustSource, ...]:
    """Return every entry that is right, in the order in which they are asked."""
    found = []
    for index, inner in enumerate(section.array_of_sections("sources")):
        source = _read(inner, index)
        inner.finish()
        if source is not None:
            found.append(source)
    return tuple(found)


def trust_denials(sources: tuple[TrustSource, ...]) -> tuple[AclEntry, ...]:
    """Return the rules that keep components from writing where trusted ones come from."""
    return tuple(
        AclEntry("*", "filesystem.write", pattern, "deny", f"{source.origin}, trusted components come from there")
        for source in sources
        for pattern in writing_patterns(source)
    )


def _read(section: Section, index: int) -> TrustSource | None:
    before = len(section.document.problems)
    git = section.text("git", _check_git)
    branch = section.text("branch", check_branch)
    key_text = section.text("signing_key", check_key)
    identity = section.text("identity", checks.check_one_line)
    after = section.text("valid_after", check_time)
    until = section.text("valid_before", check_time)
    revoked = section.boolean("revoked", default=False)
    local = section.text("local", _check_local)
    oci = section.text("oci", _check_oci)
    form = _form(section)
    if form is None or len(section.document.problems) > before:
        return None
    origin = str(section.document.source.origin((*section.path, form)))
    if form == "git":
        return git_source(index, origin, git, branch)
    if form == "oci":
        return oci_source(index, origin, oci)
    if form == "local":
        return LocalSource(index, origin, local)
    after_s, until_s = seconds_of(after), seconds_of(until)
    if after_s is not None and until_s is not None and after_s >= until_s:
        section.problem("valid_before", "a time after valid_after", f'"{until}"')
        return None
    return KeySource(index, origin, public_key(key_text), identity, after_s, until_s, revoked)


def _form(section: Section) -> SourceForm | None:
    """Return which of the forms is written; None, and a problem, unless it is exactly one with keys of its own."""
    written = [form for form in FORMS if form in section]
    if len(written) != 1:
        section.problem(None, f"one of {', '.join(FORMS)}", " and ".join(written) or "none of them")
        return None
    for form, keys in _OF_FORM.items():
        for key in keys:
            if form != written[0] and key in section:
                section.problem(key, f"{key} only beside {form}", f"it beside {written[0]}")
    return written[0]


def _check_git(text: str) -> str | None:
    try:
        git_source(0, "", text)
    except UnclearNameError as error:
        return f'a pattern of git URLs such as "https://git.example.com/plugins/*" ({error.reason})'
    return None


def _check_oci(text: str) -> str | None:
    try:
        oci_source(0, "", text)
    except UnclearNameError as error:
        return f'a pattern of repositories such as "registry.example.com/plugins/*" ({error.reason})'
    return None


def _check_local(text: str) -> str | None:
    try:
        parse_pattern(text)
    except PatternError as error:
        return f'a pattern of absolute paths such as "/srv/components/*" ({error.reason})'
    return None


def check_key(text: str) -> str | None:
    """Return what is wanted instead of this public key, None where it is one."""
    try:
        public_key(text)
    except ConfigError as error:
        return f"a public key as in ~/.ssh/id_ed25519.pub ({error.message})"
    return None


def public_key(text: str) -> PublicKey:
    """Return the key of a line; raises ConfigError."""
    from supervisor.signing.keys import read_public_key

    return read_public_key(text)


def check_time(text: str) -> str | None:
    """Return what is wanted instead of this time, None where it is one."""
    try:
        if _TIME.fullmatch(text):
            seconds_of(text)
            return None
    except ValueError:
        pass
    return 'a day or a time of UTC, such as "2027-01-31" or "2027-01-31T12:00:00Z"'


def seconds_of(text: str) -> int | None:
    """Return a time as seconds of UTC, a day as its beginning; None for "". Raises ValueError."""
    if not text:
        return None
    return int(datetime.fromisoformat(text.removesuffix("Z")).replace(tzinfo=UTC).timestamp())
