"""A package from wherever it is, into a directory of ours: the one way by which one gets onto this machine."""

from __future__ import annotations

import os
import time

from supervisor.host.identity import actor
from supervisor.packages.provenance import Fetched, Provenance
from supervisor.packages.source import ArchiveSource, DirectorySource, GitSource, OciSource, Source, show_source
from supervisor.packages.writing import clear_directory


def fetch(source: Source, destination: str) -> Fetched:
    """Fetch a package into an empty, private directory, which afterwards holds its files and nothing else.

    Each file is durable. Raises ConfigError for what is refused or can't be had; then, and when it is interrupted,
    the directory is empty again.
    """
    fetched_ns, fetched_by = time.time_ns(), actor()
    try:
        return _fetch(source, destination, fetched_ns, fetched_by)
    except BaseException:
        clear_directory(destination)
        raise


def _fetch(source: Source, destination: str, fetched_ns: int, fetched_by: str) -> Fetched:
    match source:
        case DirectorySource():
            from supervisor.packages.fetch_directory import fetch_directory

            return fetch_directory(source, destination, fetched_ns, fetched_by)
        case ArchiveSource():
            from supervisor.packages.archive import unpack_archive

            # First, so that a link that is exchanged meanwhile names no other place than the bytes came from.
            path = os.path.realpath(source.path)
            contents, signatures, sha256 = unpack_archive(path, destination)
            origin = Provenance(
                "archive", path, revision=f"sha256:{sha256}", fetched_ns=fetched_ns, fetched_by=fetched_by
            )
            return Fetched(contents, signatures, origin)
        case GitSource():
            from supervisor.packages.fetch_git import fetch_git

            return fetch_git(source, destination, fetched_ns, fetched_by)
        case OciSource():
            from supervisor.packages.fetch_oci import fetch_oci
            from supervisor.packages.oci_manifest import read_oci_reference

            return fetch_oci(read_oci_reference(show_source(source)), destination, fetched_ns, fetched_by)
