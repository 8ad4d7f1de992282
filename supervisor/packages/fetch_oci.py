"""A package out of a registry: each byte is compared with the digest that its manifest, or whoever asked, has named."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from typing import Final

from supervisor.packages.contents import (
    MANIFEST_FILE,
    PackageError,
    PackageFile,
    contents_of,
)
from supervisor.packages.directory import make_directories_durable
from supervisor.packages.oci_manifest import (
    Blob,
    OciReference,
    manifest_of_bare,
    read_artifact,
)
from supervisor.packages.oci_registry import OciRegistry
from supervisor.packages.provenance import Fetched, Provenance
from supervisor.terminal import visible

_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def fetch_oci(reference: OciReference, destination: str, fetched_ns: int, fetched_by: str) -> Fetched:
    """Fetch an artifact into an empty private directory; raises RegistryError, and PackageError for what is refused.

    An artifact without a manifest of ours is given one that asks for nothing.
    """
    with OciRegistry(reference) as registry:
        data = registry.manifest()
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        if reference.digest and digest != reference.digest:
            raise PackageError(
                f"{visible(str(reference))}: the registry sent another manifest ({digest})",
                hint="it isn't what was asked for: nothing of it is used",
            )
        artifact = read_artifact(data)
        files = [_write_blob(registry, blob, destination) for blob in artifact.blobs]
        if artifact.layout == "wasm":
            files.append(_write(os.path.join(destination, MANIFEST_FILE), MANIFEST_FILE, manifest_of_bare(reference)))
        signatures = b"" if artifact.signatures is None else _read_blob(registry, artifact.signatures)
    make_directories_durable(destination)
    provenance = Provenance("oci", reference.name, digest, fetched_ns=fetched_ns, fetched_by=fetched_by)
    return Fetched(contents_of(files), signatures, provenance)


def _write_blob(registry: OciRegistry, blob: Blob, destination: str) -> PackageFile:
    path = os.path.join(destination, blob.path)
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    with open(os.open(path, _NEW, 0o644), "wb") as sink:
        _take(registry, blob, sink.write)
        sink.flush()
        os.fsync(sink.fileno())
    return PackageFile(blob.path, blob.size_bytes, blob.digest.removeprefix("sha256:"))


def _read_blob(registry: OciRegistry, blob: Blob) -> bytes:
    data = bytearray()
    _take(registry, blob, data.extend)
    return bytes(data)


def _take(registry: OciRegistry, blob: Blob, sink: Callable[[bytes], object]) -> None:
    """Hand over a blob's bytes, no more than its manifest says there are; raises PackageError unless they are it."""
    digest = hashlib.sha256()
    size = 0
    for chunk in registry.blob(blob.digest, blob.size_bytes):
        size += len(chunk)
        if size > blob.size_bytes:
            raise PackageError(f"{visible(blob.path)}: the registry sends more than its manifest says")
        digest.update(chunk)
        sink(chunk)
    if size != blob.size_bytes or f"sha256:{digest.hexdigest()}" != blob.digest:
        raise PackageError(
            f"{visible(blob.path)}: what the registry sent isn't what its manifest names ({blob.digest})",
            hint="it was damaged or exchanged on the way: nothing of it is used",
        )


def _write(path: str, name: str, data: bytes) -> PackageFile:
    with open(os.open(path, _NEW, 0o644), "wb") as sink:
        sink.write(data)
        sink.flush()
        os.fsync(sink.fileno())
    return PackageFile(name, len(data), hashlib.sha256(data).hexdigest())
