"""A package into a registry: a blob for each file, and a manifest that names them. What is there already isn't sent."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable

from ipc.struct import Struct
from supervisor.packages.contents import MANIFEST_FILE, PackageError
from supervisor.packages.directory import copy_directory, read_signatures
from supervisor.packages.oci_manifest import EMPTY, OciReference, manifest_for
from supervisor.packages.oci_registry import OciRegistry
from supervisor.terminal import visible

Progress = Callable[[str, int], object]
"""Called with a file's path and size in bytes before it is sent."""


class Published(Struct, frozen=True):
    """Where it is now: by tag, and by the digest of its manifest."""

    reference: OciReference
    digest: str
    package_digest: str
    sent_bytes: int


def publish_oci(
    directory: str, reference: OciReference, progress: Progress, manifest_sha256: str | None = None
) -> Published:
    """Publish a component directory under a tag, which then names it; raises PackageError and RegistryError.

    A copy is published, so that it can't change between its digest and its being sent. Whoever has looked at its
    manifest before says which one that was.
    """
    if reference.digest or not reference.tag:
        raise PackageError("a package is published under a tag", hint="oci://HOST/NAME:TAG; its digest is told then")
    with tempfile.TemporaryDirectory(prefix="airssys-publish-") as copy, OciRegistry(reference) as registry:
        os.mkdir(os.path.join(copy, "package"))
        contents = copy_directory(directory, os.path.join(copy, "package"))
        if manifest_sha256 not in (None, *(each.sha256 for each in contents.files if each.path == MANIFEST_FILE)):
            raise PackageError(f"{visible(directory)}: it changed while it was read", hint="publish it again")
        signatures = read_signatures(directory)
        sent = 0
        blobs = [
            (os.path.join(copy, "package", each.path), each.path, each.sha256, each.size_bytes)
            for each in contents.files
        ]
        for name, data in (("signatures", signatures), ("config", EMPTY)):
            if data:
                path = os.path.join(copy, name)
                with open(path, "wb") as sink:
                    sink.write(data)
                blobs.append((path, name, hashlib.sha256(data).hexdigest(), len(data)))
        for path, name, sha256, size_bytes in blobs:
            if registry.has_blob(f"sha256:{sha256}"):
                continue
            progress(name, size_bytes)
            registry.upload(path, f"sha256:{sha256}", size_bytes)
            sent += size_bytes
        manifest = manifest_for(contents, signatures)
        registry.put_manifest(manifest)
    return Published(reference, f"sha256:{hashlib.sha256(manifest).hexdigest()}", contents.digest, sent)
