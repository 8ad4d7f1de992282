"""Where a package came from, as whoever fetched it saw it. Nothing in a package is believed about its own origin."""

from __future__ import annotations

from typing import Literal

from ipc.struct import Struct
from supervisor.packages.contents import Contents

SourceKind = Literal["directory", "archive", "git", "oci"]


class Provenance(Struct, frozen=True):
    """How, from where, which revision, when and by whom. Written by the installer only."""

    kind: SourceKind
    url: str
    """A directory's or an archive's absolute real path; a repository's URL as it was fetched, without a password;
    `HOST/NAME` of a registry."""
    revision: str = ""
    """git: the commit's full id; oci: `sha256:` and the manifest's digest; archive: `sha256:` and the file's."""
    branch: str = ""
    """git: the branch that was fetched, "" where a commit or a tag was named."""
    subdirectory: str = ""
    """git: where in the repository the package lies."""
    fetched_ns: int = 0
    """UTC, in nanoseconds."""
    fetched_by: str = ""
    """As the audit log names a person (`supervisor.host.identity.actor`)."""


class Fetched(Struct, frozen=True):
    """What a source gave: the package's contents as they were written, its signatures as they came, its origin."""

    contents: Contents
    signatures: bytes
    """What its `Component.sig` held, b"" where there was none. Not believed before it is verified."""
    provenance: Provenance
