"""How what is installed reads: lines and rows for a person, stable keys for a program. Pure."""

from __future__ import annotations

import time
from typing import Final

from supervisor.packages.installed import Installed, source_words
from supervisor.signing.keys import read_public_key
from supervisor.terminal import visible
from supervisor.trust.decide import TrustDecision

HEADINGS: Final = ("NAME", "VERSION", "ACTIVE", "TRUST", "PACKAGE", "INSTALLED (UTC)", "FROM")
SHORT_DIGEST: Final = 12


def time_words(moment_ns: int) -> str:
    """Say when something was, in UTC to the second."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(moment_ns // 10**9))


def installed_row(installed: Installed, active: bool, trust: TrustDecision) -> tuple[str, ...]:
    """Return the row of one of the installed packages."""
    when = time_words(installed.installed_ns)[: len("2026-11-27 14:00")]
    source = visible(source_words(installed.provenance))
    digest = installed.digest[:SHORT_DIGEST]
    is_active = "active" if active else ""
    return installed.called.text, installed.version, is_active, trust.level, digest, when, source


def installed_lines(installed: Installed, trust: TrustDecision) -> list[str]:
    """Return where it came from, and who vouches for it, in words."""
    provenance = installed.provenance
    who = f" by {installed.installed_by}" if installed.installed_by else ""
    lines = [
        f"installed as {installed.called.text} {time_words(installed.installed_ns)}{who}",
        f"  package {installed.digest}",
        f"  from {source_words(provenance)}",
    ]
    if provenance.revision:
        lines.append(f"  revision {provenance.revision}")
    keys = [read_public_key(signer) for signer in installed.signers]
    lines += [f"  signed by {key.fingerprint} ({key.kind})" for key in keys] or ["  signed by nobody"]
    lines.append(f"  trusted by {trust.rule}" if trust.source is not None else f"  not trusted: {trust.reason}")
    return [visible(line) for line in lines]


def installed_json(installed: Installed, trust: TrustDecision) -> dict[str, object]:
    """Return it under stable keys."""
    provenance = installed.provenance
    return {
        "name": installed.name,
        "instance": installed.instance or None,
        "version": installed.version,
        "package": installed.digest,
        "source": installed.source,
        "provenance": {
            "kind": provenance.kind,
            "url": provenance.url,
            "revision": provenance.revision or None,
            "branch": provenance.branch or None,
            "subdirectory": provenance.subdirectory or None,
            "fetched": time_words(provenance.fetched_ns) if provenance.fetched_ns else None,
            "fetched_by": provenance.fetched_by or None,
        },
        "signers": [{"fingerprint": read_public_key(each).fingerprint, "key": each} for each in installed.signers],
        "trust": trust.level,
        "trust_rule": trust.rule or None,
        "trust_reason": trust.reason,
        "installed": time_words(installed.installed_ns),
        "installed_by": installed.installed_by or None,
    }
