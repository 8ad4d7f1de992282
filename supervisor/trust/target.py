"""What `airssys trust check` is asked about: what is installed, or what could be, as if it had been fetched."""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ipc.errors import ConfigError
from ipc.policy.patterns import literal_pattern_text
from ipc.struct import Struct, replace
from supervisor.packages import source as source_forms
from supervisor.packages.provenance import Provenance
from supervisor.packages.source import names_repository, parse_source
from supervisor.terminal import visible
from supervisor.trust.decide import Exposure, TrustDecision, decide_trust
from supervisor.trust.git_url import GitUrl, parse_git_url
from supervisor.trust.host_name import UnclearNameError
from supervisor.trust.installed import recorded
from supervisor.trust.judge import judge_directory
from supervisor.trust.local import exposures_of
from supervisor.trust.oci_name import parse_oci_name
from supervisor.trust.read import check_branch
from supervisor.trust.sources import (
    GitSource,
    KeySource,
    LocalSource,
    TrustSource,
    git_source,
    oci_source,
    written_keys,
)
from supervisor.usage_error import UsageError

if TYPE_CHECKING:
    from supervisor.packages.installed import Installed
    from supervisor.signing.keys import PublicKey


class TrustAnswer(Struct, frozen=True):
    """The decision, what it was made on, and what else was found."""

    decision: TrustDecision
    provenance: Provenance
    digest: str = ""
    signers: tuple[PublicKey, ...] = ()
    """The keys whose signatures hold."""
    facts: tuple[str, ...] = ()
    to_trust: str = ""
    """Lines of the narrowest entry that would cover it; "" where none is lacking, or none would do."""


def _answered(
    provenance: Provenance,
    signers: tuple[PublicKey, ...],
    sources: Sequence[TrustSource],
    exposed: Sequence[Exposure] | None,
    facts: Sequence[str],
    digest: str = "",
) -> TrustAnswer:
    now_s = int(time.time())
    decision = decide_trust(provenance, signers, sources, now_s=now_s, exposed=exposed)
    to_trust = "" if decision.source is not None else _narrowest(provenance, signers, sources, exposed, now_s)
    if decision.source is None and not to_trust and exposed and exposed[0].path not in decision.reason:
        facts = [*facts, f"no entry for its place would do: {exposed[0].path} {exposed[0].why}"]
    return TrustAnswer(decision, provenance, digest, signers, tuple(facts), to_trust)


def _narrowest(
    provenance: Provenance,
    signers: Sequence[PublicKey],
    sources: Sequence[TrustSource],
    exposed: Sequence[Exposure] | None,
    now_s: int,
) -> str:
    """Return the lines of an entry, tried beside those that are there: a key that has signed it, else its place.

    A key that is written already lacks no entry, whatever is the matter with it.
    """
    written = {source.key.blob for source in sources if isinstance(source, KeySource)}
    candidates: list[TrustSource] = [KeySource(len(sources), "", key) for key in signers if key.blob not in written]
    with contextlib.suppress(UnclearNameError):
        candidates += _place(provenance, len(sources))
    for source in candidates:
        found = decide_trust(provenance, signers, (*sources, source), now_s=now_s, exposed=exposed)
        if found.source == source:
            return "\n".join(
                f"{key} = {json.dumps(value, ensure_ascii=False)}"
                for key, value in written_keys(source).items()
                if isinstance(value, str) and value
            )
    return ""


def _place(provenance: Provenance, index: int) -> list[TrustSource]:
    """Return the entry for exactly the place that something came from, if there is one; raises UnclearNameError."""
    branch = provenance.branch
    if (provenance.kind in ("git", "oci") and "*" in provenance.url) or (branch and check_branch(branch) is not None):
        return []  # there is no way to write exactly that
    if provenance.kind == "git":
        return [git_source(index, "", parse_git_url(provenance.url).text, branch)]
    if provenance.kind == "oci":
        return [oci_source(index, "", parse_oci_name(provenance.url).text)]
    pattern = literal_pattern_text(provenance.url)
    return [LocalSource(index, "", pattern)] if pattern.isprintable() else []


def check_target(target: str, branch: str | None, sources: Sequence[TrustSource]) -> TrustAnswer:
    """Return whether a target would be trusted; raises ConfigError where there is nothing of that name."""
    remote = remote_provenance(target, branch)
    if remote is not None:
        answer = _answered(remote, (), sources, exposures_of(remote), _read_as(remote))
        decision, facts = answer.decision, list(answer.facts)
        if branch is None and isinstance(decision.nearest, GitSource) and decision.nearest.branch:
            facts.append("asked about no branch; --branch B says which would be fetched")
        if decision.source is None:
            facts.append("signatures are looked at when it is fetched")
        return replace(answer, facts=tuple(facts))
    if branch is not None:
        raise UsageError("--branch is for a git repository's URL", hint="https://…, ssh://…, git@host:path")
    if os.path.isdir(target):
        return _directory(target, sources)
    if not os.path.lexists(target):
        raise ConfigError(
            f"{visible(target) or repr(target)}: there is nothing of this name, and it is no URL",
            hint="name a directory, an archive, https://HOST/PATH, USER@HOST:PATH or oci://HOST/NAME",
        )
    if not os.path.isfile(target):
        raise ConfigError(f"{visible(target)}: neither a directory nor an archive")
    provenance = Provenance("archive", os.path.realpath(target))
    fact = "judged by its path; its signatures are looked at on installing"
    return _answered(provenance, (), sources, exposures_of(provenance), (fact,))


def check_installed(installed: Installed, sources: Sequence[TrustSource]) -> TrustAnswer:
    """Return whether what is installed is trusted today: by where it came from, and who had signed it then."""
    provenance = installed.provenance
    signers, exposed = recorded(installed)
    facts = [f"{installed.called.text} {installed.version}, installed from {installed.source}"]
    facts += _read_as(provenance)
    if provenance.branch:
        facts.append(f"branch {provenance.branch}")
    facts += [f"package {installed.digest}", *(f"signed by {key.fingerprint} ({key.kind})" for key in signers)]
    return _answered(provenance, signers, sources, exposed, facts, installed.digest)


def remote_provenance(text: str, branch: str | None) -> Provenance | None:
    """Return the origin that fetching this URL would have; None for what is a path. Pure but for whether it exists.

    Of `git+SCHEME://…@REV#subdir`, `USER@HOST:PATH@REV#subdir` and `oci://HOST/NAME:TAG` what only says which revision
    is left away.
    """
    if text.startswith("oci://"):
        from supervisor.packages.oci_manifest import read_oci_reference

        return Provenance("oci", read_oci_reference(text).name)
    if names_repository(text):
        with contextlib.suppress(UsageError):
            source = parse_source(text)
            if isinstance(source, source_forms.GitSource):
                return Provenance("git", source.url, branch=branch or "", subdirectory=source.subdirectory)
        return Provenance("git", text, branch=branch or "")
    if "://" in text or (re.match(r"[^/]*:", text) and not os.path.lexists(text)):
        return Provenance("git", text, branch=branch or "")
    return None


def _read_as(provenance: Provenance) -> list[str]:
    """Return what a URL really says, where that may not be what it seems to say."""
    url = _parsed(provenance) if provenance.kind == "git" else None
    return [f"read as {url.text}"] if url is not None and url.text != provenance.url else []


def _parsed(provenance: Provenance) -> GitUrl | None:
    try:
        return parse_git_url(provenance.url)
    except UnclearNameError:
        return None


def _directory(target: str, sources: Sequence[TrustSource]) -> TrustAnswer:
    judged = judge_directory(target, sources, always_read=True)
    facts = []
    if judged.provenance.url != os.path.abspath(target):
        facts.append(f"it is really {judged.provenance.url}")
    if judged.contents is None:
        return TrustAnswer(judged.decision, judged.provenance, facts=tuple(facts))
    facts.append(f"package {judged.contents.digest}")
    facts += [f"signed by {key.fingerprint} ({key.kind})" for key in judged.signers]
    facts += judged.notes
    digest = judged.contents.digest
    return _answered(judged.provenance, judged.signers, sources, judged.exposed, facts, digest)
