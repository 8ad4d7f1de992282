"""References and manifests of registries: one way to read each, and nothing that means two things."""

from __future__ import annotations

import hashlib
import json
import socket
import tomllib

import pytest

from supervisor.packages.contents import Contents, PackageError, PackageFile, contents_of
from supervisor.packages.oci_manifest import (
    MANIFEST_MAX_BYTES,
    PACKAGE_TYPE,
    SIGNATURE_TYPE,
    TITLE,
    Artifact,
    OciReference,
    manifest_for,
    manifest_of_bare,
    read_artifact,
    read_oci_reference,
)
from supervisor.packages.oci_reach import why_not_followed

EMPTY = hashlib.sha256(b"").hexdigest()
DIGEST = f"sha256:{EMPTY}"


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("oci://registry.example.com/a", OciReference("registry.example.com", "a", "latest")),
        ("oci://registry.example.com/a/b-c:1.0", OciReference("registry.example.com", "a/b-c", "1.0")),
        ("oci://localhost/a:t", OciReference("localhost", "a", "t")),
        ("oci://127.0.0.1:5000/a:t", OciReference("127.0.0.1:5000", "a", "t")),
        ("oci://[::1]:5000/a:t", OciReference("[::1]:5000", "a", "t")),
        (f"oci://r.example/a@{DIGEST}", OciReference("r.example", "a", "", DIGEST)),
        (f"oci://r.example/a:t@{DIGEST}", OciReference("r.example", "a", "t", DIGEST)),
    ],
)
def test_references(text: str, reference: OciReference) -> None:
    """A host, a name, a tag or a digest; written back it reads the same."""
    assert read_oci_reference(text) == reference
    assert read_oci_reference(str(reference)) == reference


@pytest.mark.parametrize(
    "text",
    [
        "oci://",
        "oci://registry.example.com",
        "oci://registry.example.com/",
        "oci://a/b",
        "oci://user@registry.example.com/a",
        "oci://user:secret@registry.example.com/a:t",
        "oci://Registry.example.com/a",
        "oci://registry.example.com/A",
        "oci://registry.example.com/a/../b",
        "oci://registry.example.com/a//b",
        "oci://registry.example.com/a:",
        "oci://registry.example.com/a:-x",
        "oci://registry.example.com/a:t@sha256:00",
        f"oci://registry.example.com/a@sha512:{EMPTY}",
        f"oci://registry.example.com/a@sha256:{EMPTY.upper()}",
        "oci://registry.example.com/a?x=1",
        "oci://registry.example.com/a#x",
        "oci://registry.example.com:0/a",
        "oci://registry.example.com:65536/a",
        "oci://127.999.1.1/a",
        "oci://127.1/a",
        "oci://[1:2]/a",
        "oci://[::1]x/a",
        "oci://registry.example.com:5000",
        "oci://reg\u0456stry.example.com/a",
        "oci://registry.example.com/a\n",
        "oci://registry.example.com./a",
        "oci://-x.example.com/a",
    ],
)
def test_what_is_no_reference(text: str) -> None:
    """Credentials, other spellings, paths and look-alikes are refused in one line, which shows the form."""
    with pytest.raises(PackageError) as caught:
        read_oci_reference(text)
    assert "oci://HOST/NAME:TAG" in (caught.value.hint or "")


def _package() -> Contents:
    return contents_of(PackageFile(path, 0, EMPTY) for path in ("Component.toml", "a.wasm", "assets/x"))


def test_what_is_published_is_what_is_read() -> None:
    """The manifest of a package reads as its files, and its signatures beside them; the same bytes each time."""
    read = read_artifact(manifest_for(_package(), b"signed"))
    assert read.layout == "package"
    assert [(blob.path, blob.digest, blob.size_bytes) for blob in read.blobs] == [
        (each.path, f"sha256:{each.sha256}", each.size_bytes) for each in _package().files
    ]
    assert read.signatures is not None
    assert read.signatures.digest == f"sha256:{hashlib.sha256(b'signed').hexdigest()}"
    assert manifest_for(_package(), b"signed") == manifest_for(_package(), b"signed")
    assert read_artifact(manifest_for(_package(), b"")).signatures is None


def _layer(**fields: object) -> dict[str, object]:
    title = fields.pop("title", "Component.toml")
    layer = {"mediaType": "application/octet-stream", "digest": DIGEST, "size": 0, "annotations": {TITLE: title}}
    return layer | fields


def _manifest(layers: object, **fields: object) -> bytes:
    document = {
        "schemaVersion": 2,
        "artifactType": PACKAGE_TYPE,
        "config": {"mediaType": "application/vnd.oci.empty.v1+json"},
        "layers": layers,
    }
    return json.dumps(document | fields).encode()


def test_a_plain_manifest_is_read() -> None:
    """The positive control of what follows: the same without a trick is taken."""
    assert len(read_artifact(_manifest([_layer(), _layer(title="a.wasm")])).blobs) == 2


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "no manifest"),
        (b"[]", "no manifest"),
        (b"{" * 100_000, "no manifest"),
        (b'{"a":1,"a":2}', "no manifest"),
        (b" " * (MANIFEST_MAX_BYTES + 1), "larger"),
        (_manifest([_layer()], schemaVersion=1), "schema version 2"),
        (_manifest([_layer()], mediaType="application/vnd.oci.image.index.v1+json"), "index"),
        (_manifest([_layer()], mediaType="application/vnd.docker.distribution.manifest.list.v2+json"), "index"),
        (_manifest([_layer()], manifests=[]), "index"),
        (_manifest([_layer()], mediaType="application/vnd.docker.distribution.manifest.v2+json"), "no image manifest"),
        (_manifest("layers"), "no image manifest"),
        (_manifest([_layer()], config=None), "no image manifest"),
        (_manifest([_layer()], artifactType="application/x\x1b[2J"), r"another kind \(application/x\\x1b"),
        (_manifest([]), r"no Component\.toml"),
        (_manifest([1]), "no descriptor"),
        (_manifest([_layer(urls=["https://elsewhere.example/"])]), "outside of the registry"),
        (_manifest([_layer(digest="sha512:" + "0" * 128)]), "no sha256"),
        (_manifest([_layer(digest=f"sha256:{EMPTY.upper()}")]), "no sha256"),
        (_manifest([_layer(size=-1)]), "size"),
        (_manifest([_layer(size=True)]), "size"),
        (_manifest([_layer(size=1.0)]), "size"),
        (_manifest([_layer(size=2**60)]), "size"),
        (_manifest([_layer(), _layer(title="a", size=3 * 2**30)]), "larger"),
        (_manifest([_layer(), _layer(title="../x")]), "plain path"),
        (_manifest([_layer(), _layer(title="/etc/x")]), "plain path"),
        (_manifest([_layer(), _layer(title="a\x00b")]), "characters"),
        (_manifest([_layer(), _layer(title="Component.toml")]), "the same name"),
        (_manifest([_layer(), _layer(title="component.TOML")]), "the same name"),
        (_manifest([_layer(), _layer(title=1)]), "plain path"),
        (_manifest([_layer(), _layer(title="Component.sig")]), "no part"),
        (_manifest([_layer(), _layer(title="Component.sig", mediaType=SIGNATURE_TYPE, size=2**21)]), "larger"),
        (_manifest([_layer()] * 10_001), "layers"),
    ],
)
def test_what_is_no_component(data: bytes, why: str) -> None:
    """Each is refused by name."""
    with pytest.raises(PackageError, match=why):
        read_artifact(data)


def _bare(*layers: dict[str, object]) -> Artifact:
    config = {"mediaType": "application/vnd.wasm.config.v0+json"}
    return read_artifact(_manifest(list(layers), config=config, artifactType=None))


def test_the_ecosystems_layout_is_read() -> None:
    """One layer that is a component; two, or one of another kind, are refused."""
    wasm = _layer(mediaType="application/wasm", size=7)
    assert [(blob.path, blob.size_bytes) for blob in _bare(wasm).blobs] == [("component.wasm", 7)]
    with pytest.raises(PackageError, match="2 layers"):
        _bare(wasm, wasm)
    with pytest.raises(PackageError, match="octet-stream"):
        _bare(_layer())


@pytest.mark.parametrize(
    ("reference", "name", "version"),
    [
        ("oci://r.example/team/log-summary:1.2.3", "log-summary", "1.2.3"),
        ("oci://r.example/log.summary_x:v1.2.3-rc.1", "log-summary-x", "1.2.3-rc.1"),
        ("oci://r.example/7zip:latest", "component-7zip", "0.0.0"),
        (f"oci://r.example/{'a' * 62}-b:1", "a" * 62, "0.0.0"),
    ],
)
def test_a_manifest_is_made_for_what_has_none(reference: str, name: str, version: str) -> None:
    """Named by the reference, and asking for nothing."""
    made = tomllib.loads(manifest_of_bare(read_oci_reference(reference)).decode())
    assert made == {"schema": 1, "component": {"name": name, "version": version, "wasm": "component.wasm"}}


@pytest.mark.parametrize(
    ("url", "target", "followed"),
    [
        ("https://r.example/v2/a", "/v2/b", True),
        ("https://r.example/v2/a", "https://r.example/v2/b", True),
        ("https://r.example/v2/a", "https://blobs.example/x", True),
        ("https://r.example/v2/a", "http://r.example/v2/a", False),
        ("https://r.example/v2/a", "https://localhost/x", False),
        ("https://r.example/v2/a", "https://127.0.0.1:8443/x", False),
        ("https://r.example/v2/a", "https://[::1]/x", False),
        ("https://r.example/v2/a", "https://LOCALHOST/x", False),
        ("https://r.example/v2/a", "https://a.localhost./x", False),
        ("https://r.example/v2/a", "https://u:p@127.0.0.1/x", False),
        ("https://r.example/v2/a", "https://127.1/x", False),
        ("https://r.example/v2/a", "https://2130706433/x", False),
        ("https://r.example/v2/a", "https://0x7f.1/x", False),
        ("https://r.example/v2/a", "https://0.0.0.0/x", False),
        ("https://r.example/v2/a", "https://[::ffff:127.0.0.1]/x", False),
        ("https://r.example/v2/a", "https://[fe80::1%25eth0]/x", False),
        ("https://r.example/v2/a", "https://169.254.169.254/latest", False),
        ("https://r.example/v2/a", "file:///etc/passwd", False),
        ("http://127.0.0.1:5000/v2/a", "http://127.0.0.1:5000/v2/b", True),
        ("http://127.0.0.1:5000/v2/a", "http://10.0.0.1/x", False),
    ],
)
def test_where_a_registry_may_send_us(url: str, target: str, followed: bool) -> None:
    """Never from TLS to none, and not from one side of this machine's border to the other."""
    assert (why_not_followed(url, target) == "") is followed


def test_a_name_that_leads_to_this_machine_is_met_where_it_is_connected_to() -> None:
    """Whatever a name says: its address counts, unless it is the registry that the user has named."""
    from urllib3.exceptions import NewConnectionError

    from supervisor.packages.oci_session import Session, _pools

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with Session("https://registry.example.com", 60) as session:
            pool = _pools(session)["http"]("127.0.0.1", port)
            with pytest.raises(NewConnectionError, match="to this one"):
                pool.ConnectionCls("127.0.0.1", port).connect()
        with Session(f"http://127.0.0.1:{port}", 60) as session:
            connection = _pools(session)["http"]("127.0.0.1", port).ConnectionCls("127.0.0.1", port)
            connection.connect()
            connection.close()
