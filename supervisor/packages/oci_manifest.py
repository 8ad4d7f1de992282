"""What a registry says of an artifact: its reference, its manifest, the blobs that a package is made of. Pure.

Two layouts are read. Ours has a layer for each file of a package, its path as the title; any client of registries can
pull it. The ecosystem's has one layer, a component without a manifest of ours. Sources: OCI image specification 1.1
("manifest.md", "descriptor.md"), OCI distribution specification 1.1 ("Pull"), the CNCF's wasm OCI artifact layout.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
from collections.abc import Mapping, Sequence
from typing import Final, Literal
from urllib.parse import urlsplit

from ipc.struct import Struct
from supervisor.packages.contents import (
    FILES_MAX,
    MANIFEST_FILE,
    SIGNATURE_FILE,
    SIGNATURES_MAX_BYTES,
    Contents,
    PackageError,
    refuse_paths,
    refuse_size,
    why_not_path,
)
from supervisor.terminal import visible

MANIFEST_TYPE: Final = "application/vnd.oci.image.manifest.v1+json"
PACKAGE_TYPE: Final = "application/vnd.airssys.package.v1"
TOML_TYPE: Final = "application/vnd.airssys.component.v1+toml"
SIGNATURE_TYPE: Final = "application/vnd.airssys.signature.v1"
WASM_TYPE: Final = "application/wasm"
OTHER_TYPE: Final = "application/octet-stream"
EMPTY_TYPE: Final = "application/vnd.oci.empty.v1+json"
EMPTY: Final = b"{}"
WASM_CONFIG_TYPES: Final = frozenset({"application/vnd.wasm.config.v0+json", "application/vnd.wasm.config.v1+json"})
_INDEX_TYPES: Final = frozenset(
    {
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    }
)
TITLE: Final = "org.opencontainers.image.title"
SCHEME: Final = "oci://"
MANIFEST_MAX_BYTES: Final = 4 << 20
"""The specification has registries take at least so much, and some take more."""
BARE_WASM: Final = "component.wasm"
"""What the one file of the ecosystem's layout is called beside the manifest that is made for it."""
_SIZE_MAX: Final = 2**53
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_NAME: Final = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
_TAG: Final = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
_LABEL: Final = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_HOST: Final = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-f:]+\])(?::[1-9][0-9]{{0,4}})?")
_LOOPBACK: Final = re.compile(r"(?:localhost|127(?:\.[0-9]{1,3}){3}|\[::1\])(?::[0-9]+)?")
_VERSION: Final = re.compile(r"v?((?:0|[1-9][0-9]*)\.(?:0|[1-9][0-9]*)\.(?:0|[1-9][0-9]*)(?:-[0-9A-Za-z.-]+)?)")


class OciReference(Struct, frozen=True):
    """An artifact in a registry: by its tag, or by its manifest's digest (`sha256:…`), which wins over a tag."""

    registry: str
    repository: str
    tag: str = ""
    digest: str = ""

    @property
    def name(self) -> str:
        """Return `HOST/NAME`, without what says which version."""
        return f"{self.registry}/{self.repository}"

    @property
    def is_loopback(self) -> bool:
        """Whether it is a registry on this machine, which may be spoken to without TLS."""
        return _LOOPBACK.fullmatch(self.registry) is not None

    def __str__(self) -> str:
        """Return the reference as it is written."""
        tag = f":{self.tag}" if self.tag else ""
        return f"{SCHEME}{self.name}{tag}" + (f"@{self.digest}" if self.digest else "")


def read_oci_reference(text: str) -> OciReference:
    """Return what `oci://HOST/NAME[:TAG][@sha256:…]` names; raises PackageError. Without either the tag is `latest`."""
    rest = text.removeprefix(SCHEME)
    rest, at, digest = rest.partition("@")
    registry, _, rest = rest.partition("/")
    repository, colon, tag = rest.partition(":")
    if at and not _DIGEST.fullmatch(digest):
        raise _bad_reference(text, "the digest is no sha256:… of 64 hexadecimal digits")
    if not _is_host(registry) or not ("." in registry or ":" in registry or registry == "localhost"):
        raise _bad_reference(text, "it begins with no registry's host, in lower case and with its dots or port")
    if len(repository) > 255 or not _NAME.fullmatch(repository):
        raise _bad_reference(text, "the name is not in the form of registries (lower case, separated by / . _ -)")
    if colon and not _TAG.fullmatch(tag):
        raise _bad_reference(text, "the tag holds what no tag may hold")
    return OciReference(registry, repository, tag if tag or digest else "latest", digest)


def _is_host(text: str) -> bool:
    """Whether it is a host, with or without a port; one of numbers is an address, and never looked up."""
    if not _HOST.fullmatch(text):
        return False
    try:
        parts = urlsplit(f"//{text}")
        host = parts.hostname or ""
        if ":" in host or not host.strip("0123456789."):
            ipaddress.ip_address(host)
        return (parts.port or 1) < 1 << 16
    except ValueError:
        return False


def _bad_reference(text: str, why: str) -> PackageError:
    return PackageError(f"{visible(text[:200])}: {why}", hint=f"the form is {SCHEME}HOST/NAME:TAG or …@sha256:DIGEST")


class Blob(Struct, frozen=True):
    """One blob of an artifact: `sha256:…` and size as its manifest has them, and as which file of the package."""

    path: str
    digest: str
    size_bytes: int


class Artifact(Struct, frozen=True):
    """What a manifest says. `wasm` is one without a manifest of ours: its one blob is the component."""

    layout: Literal["package", "wasm"]
    blobs: tuple[Blob, ...]
    signatures: Blob | None = None


def read_artifact(data: bytes) -> Artifact:
    """Return what an image manifest describes; raises PackageError for all that is no component."""
    manifest = _object(data)
    if manifest.get("schemaVersion") != 2:
        raise PackageError("the registry's answer is no image manifest of schema version 2")
    kind = manifest.get("mediaType", MANIFEST_TYPE)
    if kind in _INDEX_TYPES or "manifests" in manifest:
        raise PackageError(
            "this is an index of several artifacts",
            hint="name one of them by its digest: oci://HOST/NAME@sha256:…",
        )
    config = manifest.get("config")
    layers = manifest.get("layers")
    if kind != MANIFEST_TYPE or not isinstance(config, dict) or not isinstance(layers, list):
        raise PackageError("the registry's answer is no image manifest")
    if len(layers) > FILES_MAX:
        raise PackageError(f"more than {FILES_MAX} layers")
    config_type = config.get("mediaType")
    if manifest.get("artifactType") == PACKAGE_TYPE:
        return _package(layers)
    if config_type in WASM_CONFIG_TYPES:
        return _bare(layers)
    shown = visible(str(manifest.get("artifactType") or config_type)[:100])
    raise PackageError(
        f"an artifact of another kind ({shown})",
        hint="a component is a package that `airssys publish` pushed, or a wasm OCI artifact",
    )


def _package(layers: Sequence[object]) -> Artifact:
    blobs = []
    signatures = None
    for layer in layers:
        blob, media_type = _blob(layer)
        if media_type == SIGNATURE_TYPE and blob.path == SIGNATURE_FILE and signatures is None:
            if blob.size_bytes > SIGNATURES_MAX_BYTES:
                raise PackageError(f"{SIGNATURE_FILE} is larger than {SIGNATURES_MAX_BYTES >> 20} MiB")
            signatures = blob
            continue
        why = why_not_path(blob.path)
        if why:
            raise PackageError(f"{visible(blob.path[:200])}: {why}")
        blobs.append(blob)
    refuse_paths([blob.path for blob in blobs])
    refuse_size(sum(blob.size_bytes for blob in blobs))
    if all(blob.path != MANIFEST_FILE for blob in blobs):
        raise PackageError(f"no {MANIFEST_FILE} in it")
    return Artifact("package", tuple(blobs), signatures)


def _bare(layers: Sequence[object]) -> Artifact:
    if len(layers) != 1:
        raise PackageError(
            f"a wasm OCI artifact with {len(layers)} layers", hint="it has one, of type application/wasm"
        )
    blob, media_type = _blob(layers[0])
    if media_type != WASM_TYPE:
        raise PackageError(f"a wasm OCI artifact with a layer of type {visible(media_type[:100])}")
    refuse_size(blob.size_bytes)
    return Artifact("wasm", (Blob(BARE_WASM, blob.digest, blob.size_bytes),))


def _blob(layer: object) -> tuple[Blob, str]:
    """Return a descriptor as a blob, and its media type."""
    if not isinstance(layer, dict):
        raise PackageError("a layer that is no descriptor")
    digest, size, media_type = layer.get("digest"), layer.get("size"), layer.get("mediaType")
    annotations = layer.get("annotations") or {}
    if layer.get("urls"):
        # A foreign layer: whoever wrote the manifest would choose whom this host asks.
        raise PackageError("a layer that lies outside of the registry", hint="publish it with its layers")
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise PackageError("a layer whose digest is no sha256")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= _SIZE_MAX:
        raise PackageError("a layer without a size")
    if not isinstance(media_type, str) or not isinstance(annotations, dict):
        raise PackageError("a layer that is no descriptor")
    title = annotations.get(TITLE, "")
    return Blob(title if isinstance(title, str) else "", digest, size), media_type


def _object(data: bytes) -> Mapping[str, object]:
    if len(data) > MANIFEST_MAX_BYTES:
        raise PackageError(f"a manifest larger than {MANIFEST_MAX_BYTES >> 20} MiB")
    try:
        document = json.loads(data, object_pairs_hook=_once)
    except (ValueError, RecursionError):
        raise PackageError("the registry's answer is no manifest (not JSON, or a key twice)") from None
    if not isinstance(document, dict):
        raise PackageError("the registry's answer is no manifest")
    return document


def _once(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    """Two readers may choose either value of a key that stands twice: such a manifest isn't taken."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError
    return found


def manifest_for(contents: Contents, signatures: bytes) -> bytes:
    """Return the manifest of a package as it is published: the same bytes for the same package and signatures."""
    layers = [_descriptor(each.path, _media_type(each.path), each.sha256, each.size_bytes) for each in contents.files]
    if signatures:
        sha256 = hashlib.sha256(signatures).hexdigest()
        layers.append(_descriptor(SIGNATURE_FILE, SIGNATURE_TYPE, sha256, len(signatures)))
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "artifactType": PACKAGE_TYPE,
        "config": {
            "mediaType": EMPTY_TYPE,
            "digest": f"sha256:{hashlib.sha256(EMPTY).hexdigest()}",
            "size": len(EMPTY),
        },
        "layers": layers,
    }
    return json.dumps(document, separators=(",", ":"), ensure_ascii=True).encode()


def _descriptor(path: str, media_type: str, sha256: str, size_bytes: int) -> dict[str, object]:
    return {"mediaType": media_type, "digest": f"sha256:{sha256}", "size": size_bytes, "annotations": {TITLE: path}}


def _media_type(path: str) -> str:
    if path == MANIFEST_FILE:
        return TOML_TYPE
    return WASM_TYPE if path.endswith(".wasm") else OTHER_TYPE


def manifest_of_bare(reference: OciReference) -> bytes:
    """Return a Component.toml for an artifact that has none: named by the reference, asking for nothing."""
    last = re.sub(r"[^a-z0-9]+", "-", reference.repository.rpartition("/")[2]).strip("-")
    name = last if last[:1].isalpha() else f"component-{last}"
    matched = _VERSION.fullmatch(reference.tag)
    version = matched.group(1) if matched else "0.0.0"
    return (
        f'schema = 1\n\n[component]\nname = "{name[:63].rstrip("-")}"\nversion = "{version}"\nwasm = "{BARE_WASM}"\n'
    ).encode()
