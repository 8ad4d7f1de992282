"""What `airssys trust check` is asked about: a directory, an archive, a repository, as if it had been fetched."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Sequence

from ipc.errors import ConfigError
from ipc.policy.patterns import literal_pattern_text
from ipc.struct import Struct
from supervisor.packages.provenance import Provenance
from supervisor.terminal import visible
from supervisor.trust.decide import TrustDecision, decide_trust
from supervisor.trust.git_url import GitUrl, parse_git_url
from supervisor.trust.host_name import UnclearNameError
from supervisor.trust.judge import judge_directory
from supervisor.trust.local import exposures_of
from supervisor.trust.sources import GitSource, LocalSource, TrustSource
from supervisor.usage_error import UsageError


class TrustAnswer(Struct, frozen=True):
    """The decision, what it was made on, and what else was found."""

    decision: TrustDecision
    provenance: Provenance
    digest: str = ""
    signers: tuple[str, ...] = ()
    """Fingerprints of the keys whose signatures hold."""
    facts: tuple[str, ...] = ()

    @property
    def to_trust(self) -> str:
        """Return the key and value of the narrowest entry that would cover it; "" where none is lacking or would do."""
        nearest = self.decision.nearest
        exposed = isinstance(nearest, LocalSource) and nearest.miss(self.provenance.url) is None
        if self.decision.source is not None or exposed:
            return ""
        if self.provenance.kind == "oci":
            return f'oci = "{self.provenance.url}"'
        if self.provenance.kind == "git":
            url = _parsed(self.provenance)
            return f'git = "{url.text}"' if url is not None else ""
        pattern = literal_pattern_text(self.provenance.url)
        return f"local = {json.dumps(pattern, ensure_ascii=False)}" if pattern.isprintable() else ""


def check_target(target: str, branch: str | None, sources: Sequence[TrustSource]) -> TrustAnswer:
    """Return whether a target would be trusted; raises ConfigError where there is nothing of that name."""
    remote = remote_provenance(target, branch)
    if remote is not None:
        exposed = exposures_of(remote)
        decision = decide_trust(remote, (), sources, now_s=int(time.time()), exposed=exposed)
        facts = _read_as(remote)
        if branch is None and isinstance(decision.nearest, GitSource) and decision.nearest.branch:
            facts.append("asked about no branch; --branch B says which would be fetched")
        if decision.source is None:
            facts.append("signatures are looked at when it is fetched")
        return TrustAnswer(decision, remote, facts=tuple(facts))
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
    exposed = exposures_of(provenance)
    decision = decide_trust(provenance, (), sources, now_s=int(time.time()), exposed=exposed)
    return TrustAnswer(decision, provenance, facts=("judged by its path; its signatures are looked at on installing",))


def remote_provenance(text: str, branch: str | None) -> Provenance | None:
    """Return the origin that fetching this URL would have; None for what is a path. Pure but for whether it exists.

    Of `git+SCHEME://…@REV#subdir` and `oci://HOST/NAME:TAG` what only says which revision is left away.
    """
    if text.startswith("oci://"):
        from supervisor.packages.oci_manifest import read_oci_reference

        return Provenance("oci", read_oci_reference(text).name)
    if text.startswith("git+"):
        url, _, subdirectory = text.partition("#")
        before, slash, last = url.rpartition("/")
        last = last.partition("@")[0] if before.partition("://")[2] else last
        return Provenance("git", f"{before}{slash}{last}", branch=branch or "", subdirectory=subdirectory)
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
    if judged.contents is not None:
        facts.append(f"package {judged.contents.digest}")
        facts.extend(f"signed by {key.fingerprint} ({key.kind})" for key in judged.signers)
        facts.extend(judged.notes)
    digest = judged.contents.digest if judged.contents is not None else ""
    fingerprints = tuple(key.fingerprint for key in judged.signers)
    return TrustAnswer(judged.decision, judged.provenance, digest, fingerprints, tuple(facts))
