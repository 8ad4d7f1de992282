"""Finding out what a reviewer is told of a package: looking at its signatures, its origin and its wasm's imports.

Done when a request is filed, and not at a start that is approved already: a program that nobody has compiled yet is
read by a confined process, which takes its time.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from ipc.errors import AirssysError, ConfigError
from ipc.struct import replace
from supervisor.approvals.evidence import FINDINGS_KEPT, IMPORTS_KEPT, TEXT_MAX_CHARS, Evidence, SignatureFound
from supervisor.packages.contents import SIGNATURE_FILE
from supervisor.packages.directory import read_directory, read_signatures
from supervisor.packages.provenance import Provenance

if TYPE_CHECKING:
    from supervisor.config.settings import Settings
    from supervisor.manifest import Manifest
    from supervisor.packages.installed import Installed
    from supervisor.signing.keys import PublicKey
    from supervisor.trust.decide import TrustDecision

_SOMETHING_ELSE: Final = "the directory holds something else by now"


def gather_evidence(
    manifest: Manifest,
    package: str,
    wasm_sha256: str,
    installed: Installed | None,
    settings: Settings,
    state: str,
    interrupted: Callable[[], bool],
) -> Evidence:
    """Return what there is to know of the package with this digest; what can't be found out is said in it.

    `installed` is what the installer has recorded; None for a directory, whose signatures are verified here. Raises
    KeyboardInterrupt once it is `interrupted`.
    """
    found = (
        _of_directory(manifest.directory, package, settings) if installed is None else _recorded(installed, settings)
    )
    return _with_imports(found, manifest, wasm_sha256, state, interrupted)


def _recorded(installed: Installed, settings: Settings) -> Evidence:
    """Return what was found when it was installed: its signatures were verified then, over the bytes of its digest."""
    from supervisor.signing.keys import read_public_key
    from supervisor.trust.installed import judge_installed

    return Evidence(
        installed.provenance,
        _trust_why(judge_installed(installed, settings.trust_sources, int(time.time()))),
        installed.installed_ns,
        installed.installed_by,
        tuple(_signature(read_public_key(each)) for each in installed.signers),
    )


def _of_directory(directory: str, package: str, settings: Settings) -> Evidence:
    from supervisor.signing.package_signatures import judge_signatures
    from supervisor.trust.judge import judge_directory

    real_path = os.path.realpath(directory)
    found = Evidence(Provenance("directory", real_path))
    try:
        contents = read_directory(directory)
        if contents.digest != package:
            return replace(found, signatures_unread=_SOMETHING_ELSE)
        trust = judge_directory(directory, settings.trust_sources)
        if trust.contents is not None and trust.contents.digest != package:
            return replace(found, signatures_unread=_SOMETHING_ELSE)
        found = replace(found, trust_why=_trust_why(trust.decision))
        signatures = read_signatures(directory)
        judged = judge_signatures(contents, signatures) if signatures else ()
    except (ConfigError, OSError) as error:
        why = error.message if isinstance(error, ConfigError) else os.strerror(error.errno or 0).lower()
        return replace(found, signatures_unread=f"{SIGNATURE_FILE}: {why}"[:TEXT_MAX_CHARS])
    return replace(found, signatures=tuple(_signature(each.key, each.why_not) for each in judged))


def _trust_why(decision: TrustDecision) -> str:
    return decision.rule or decision.reason


def _signature(key: PublicKey | None, why_not: str = "") -> SignatureFound:
    why_not = why_not[:TEXT_MAX_CHARS]
    if key is None:
        return SignatureFound("", "", "", why_not or "it can't be read")
    return SignatureFound(key.text, key.kind, key.fingerprint, why_not)


def _with_imports(
    found: Evidence, manifest: Manifest, wasm_sha256: str, state: str, interrupted: Callable[[], bool]
) -> Evidence:
    """Return it with what the program really imports, as a confined process reads it, beside what is declared."""
    from supervisor.code.inspect import inspect_wasm
    from supervisor.manifest.findings import uncovered_imports, unused_requests

    try:
        summary = inspect_wasm(manifest.wasm_path, state, interrupted=interrupted)
    except (AirssysError, OSError) as error:
        return replace(found, imports_unread=str(error)[:TEXT_MAX_CHARS])
    if summary.error or summary.sha256 != wasm_sha256:
        why = summary.error or "it changed while it was read"
        return replace(found, imports_unread=why[:TEXT_MAX_CHARS])
    imports = tuple(dict.fromkeys(summary.imports))
    findings = (*uncovered_imports(imports, manifest), *unused_requests(imports, manifest))
    return replace(
        found,
        imports=tuple(name[:TEXT_MAX_CHARS] for name in imports[:IMPORTS_KEPT]),
        imports_count=len(imports),
        undeclared=tuple(each.message[:TEXT_MAX_CHARS] for each in findings[:FINDINGS_KEPT]),
    )
