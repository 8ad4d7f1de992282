"""From a directory to a decision: its files as they are, its signatures verified, its place looked at."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ipc.errors import ConfigError
from ipc.struct import Struct
from supervisor.packages.contents import SIGNATURE_FILE, Contents
from supervisor.packages.directory import read_directory, read_signatures
from supervisor.packages.provenance import Fetched, Provenance
from supervisor.terminal import visible
from supervisor.trust.decide import Exposure, TrustDecision, decide_trust
from supervisor.trust.local import exposed_files, exposures_of, open_place
from supervisor.trust.sources import KeySource, TrustSource

if TYPE_CHECKING:
    from supervisor.manifest import Manifest
    from supervisor.signing.keys import PublicKey


class JudgedDirectory(Struct, frozen=True):
    """A directory on which trust was decided: the decision, and the very bytes that it is about."""

    decision: TrustDecision
    provenance: Provenance
    contents: Contents | None
    """None where it is no package, or wasn't read since nothing in it could have changed the decision."""
    signers: tuple[PublicKey, ...] = ()
    """The keys of the signatures that hold for exactly these contents."""
    notes: tuple[str, ...] = ()
    """What was wrong with its signatures."""
    exposed: tuple[Exposure, ...] = ()
    """Through what somebody else could have put it there, or bytes into it."""

    @property
    def trusted(self) -> bool:
        """Tell whether an entry covers it."""
        return self.decision.level == "trusted"


def judge_directory(directory: str, sources: Sequence[TrustSource], *, always_read: bool = False) -> JudgedDirectory:
    """Decide on a component directory; it is read through one descriptor, so that what was judged is one thing.

    Where neither its place nor a signature could make it trusted it isn't read, unless `always_read`.
    """
    real_path = os.path.realpath(directory)
    provenance = Provenance("directory", real_path, fetched_ns=time.time_ns())
    descriptor, exposed = open_place(real_path)
    try:
        signatures, notes = _signatures(descriptor, sources, always_read)
        decision = _decide(provenance, (), sources, exposed)
        if not (signatures or decision.source is not None or always_read):
            return JudgedDirectory(decision, provenance, None, notes=notes)
        contents, why_not = _read(descriptor, directory)
        if contents is None:
            nothing = TrustDecision("unknown", "", f"it is no package: {why_not}")
            return JudgedDirectory(nothing, provenance, None)
        files = [file.path for file in contents.files]
        exposed = (*exposed, *exposed_files(descriptor, real_path, files))
    finally:
        os.close(descriptor)
    signers, void = _verify(contents, signatures)
    decision = _decide(provenance, signers, sources, exposed)
    return JudgedDirectory(decision, provenance, contents, signers, (*notes, *void), tuple(exposed))


def judge_fetched(fetched: Fetched, sources: Sequence[TrustSource]) -> TrustDecision:
    """Decide on a package that was just fetched: its origin, its signatures, and who could have exchanged it there."""
    keys = any(isinstance(source, KeySource) for source in sources)
    signers = _verify(fetched.contents, fetched.signatures)[0] if keys else ()
    files = [file.path for file in fetched.contents.files]
    return _decide(fetched.provenance, signers, sources, exposures_of(fetched.provenance, files))


def require_judged(judged: JudgedDirectory, manifest: Manifest) -> str:
    """Return the sha256 of the program that was judged; raises ConfigError unless the manifest is the one judged."""
    contents = judged.contents
    file = contents.file(os.path.basename(manifest.file)) if contents is not None else None
    program = contents.file(manifest.component.wasm) if contents is not None else None
    if file is None or program is None or file.sha256 != manifest.digest:
        raise ConfigError(
            f"{visible(manifest.file)}: changed while it was found out whether it is trusted", hint="run it again"
        )
    return program.sha256


def _decide(
    provenance: Provenance,
    signers: tuple[PublicKey, ...],
    sources: Sequence[TrustSource],
    exposed: Sequence[Exposure] | None,
) -> TrustDecision:
    return decide_trust(provenance, signers, sources, now_s=int(time.time()), exposed=exposed)


def _read(descriptor: int, name: str) -> tuple[Contents | None, str]:
    own = f"/proc/self/fd/{descriptor}"
    try:
        return read_directory(own), ""
    except ConfigError as error:
        return None, error.message.replace(own, visible(name))


def _signatures(descriptor: int, sources: Sequence[TrustSource], always_read: bool) -> tuple[bytes, tuple[str, ...]]:
    """Return a directory's signatures, and what is wrong with their file; b"" where no key is trusted here."""
    if not always_read and not any(isinstance(source, KeySource) for source in sources):
        return b"", ()
    try:
        return read_signatures(f"/proc/self/fd/{descriptor}"), ()
    except ConfigError as error:
        return b"", (error.message,)


def _verify(contents: Contents, signatures: bytes) -> tuple[tuple[PublicKey, ...], tuple[str, ...]]:
    """Return the keys whose signatures hold, and in words which don't: one that is damaged hides no other."""
    if not signatures:
        return (), ()
    from supervisor.signing.package_signatures import judge_signatures

    try:
        judged = judge_signatures(contents, signatures)
    except ConfigError as error:
        return (), (f"{SIGNATURE_FILE}: {error.message}",)
    good = dict.fromkeys(each.key for each in judged if each.key is not None and not each.why_not)
    return tuple(good), tuple(
        f"a signature{f' by {each.key.fingerprint}' if each.key is not None else ''} doesn't count: {each.why_not}"
        for each in judged
        if each.why_not
    )
