"""A package out of a directory of this machine."""

from __future__ import annotations

import os

from supervisor.packages.directory import copy_directory, read_signatures
from supervisor.packages.provenance import Fetched, Provenance
from supervisor.packages.source import DirectorySource


def fetch_directory(source: DirectorySource, destination: str, fetched_ns: int, fetched_by: str) -> Fetched:
    """Copy a component directory into an empty one; raises ConfigError for what is no package."""
    path = os.path.realpath(source.path)
    contents = copy_directory(path, destination)
    provenance = Provenance("directory", path, fetched_ns=fetched_ns, fetched_by=fetched_by)
    return Fetched(contents, read_signatures(path), provenance)
