"""A package out of a registry: each byte is compared with the digest that its manifest, or whoever asked, has named."""

from __future__ import annotations

import contextlib
import hashlib
import io
from collections.abc import Iterator

from supervisor.packages.contents import MANIFEST_FILE, PackageError
from supervisor.packages.oci_manifest import Blob, OciReference, manifest_of_bare, read_artifact
from supervisor.packages.oci_registry import OciRegistry
from supervisor.packages.provenance import Fetched, Provenance
from supervisor.packages.writing import PackageWriter
from supervisor.terminal import visible


def fetch_oci(reference: OciReference, destination: str, fetched_ns: int, fetched_by: str) -> Fetched:
    """Fetch an artifact into an empty private directory; raises RegistryError, and PackageError for what is refused.

    An artifact without a manifest of ours is given one that asks for nothing.
    """
    writer = PackageWriter(destination)
    with OciRegistry(reference) as registry:
        data = registry.manifest()
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        if reference.digest and digest != reference.digest:
            raise PackageError(
                f"{visible(str(reference))}: the registry sent another manifest ({digest})",
                hint="it isn't what was asked for: nothing of it is used",
            )
        artifact = read_artifact(data)
        for blob in (*artifact.blobs, *([] if artifact.signatures is None else [artifact.signatures])):
            _write(writer, blob, registry)
        if artifact.layout == "wasm":
            made = manifest_of_bare(reference)
            writer.write(MANIFEST_FILE, len(made), io.BytesIO(made).read)
    contents, signatures = writer.finish(lift=False)
    provenance = Provenance("oci", reference.name, digest, fetched_ns=fetched_ns, fetched_by=fetched_by)
    return Fetched(contents, signatures, provenance)


def _write(writer: PackageWriter, blob: Blob, registry: OciRegistry) -> None:
    """Write a blob's bytes, exactly as many as its manifest says there are; raises PackageError unless they are it."""
    with contextlib.closing(registry.blob(blob.digest, blob.size_bytes)) as chunks:
        stream = _Stream(chunks, blob)
        sha256 = writer.write(blob.path, blob.size_bytes, stream.read)
        if f"sha256:{sha256}" != blob.digest:
            raise _another(blob)
        stream.end()


class _Stream:
    """A blob's bytes, as many as are asked for."""

    def __init__(self, chunks: Iterator[bytes], blob: Blob) -> None:
        self._chunks = chunks
        self._blob = blob
        self._rest = memoryview(b"")

    def read(self, size: int) -> bytes:
        """Return the next bytes, so many or fewer; raises PackageError where there are none."""
        if not self._rest:
            self._rest = memoryview(next(self._chunks, b""))
        if not self._rest:
            raise _another(self._blob)
        taken, self._rest = self._rest[:size], self._rest[size:]
        return bytes(taken)

    def end(self) -> None:
        """Raise PackageError where more follows."""
        if self._rest or any(self._chunks):
            raise PackageError(f"{visible(self._blob.path)}: the registry sends more than its manifest says")


def _another(blob: Blob) -> PackageError:
    return PackageError(
        f"{visible(blob.path)}: what the registry sent isn't what its manifest names ({blob.digest})",
        hint="it was damaged or exchanged on the way: nothing of it is used",
    )
