"""Packages in a real registry (Debian's docker-registry, on loopback), and a registry that lies."""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from supervisor.packages.contents import PackageError
from supervisor.packages.directory import read_directory
from supervisor.packages.fetch_oci import fetch_oci
from supervisor.packages.oci_manifest import OciReference, manifest_for, read_oci_reference
from supervisor.packages.oci_registry import RegistryError
from supervisor.packages.publish_oci import publish_oci

pytestmark = pytest.mark.any_user

CONFIG = """
version: 0.1
log: {{ level: error, accesslog: {{ disabled: true }} }}
storage: {{ filesystem: {{ rootdirectory: {root} }}, delete: {{ enabled: true }} }}
http: {{ addr: "127.0.0.1:{port}" }}
{more}
"""


AIRSSYS = Path(__file__).resolve().parents[3] / ".venv" / "bin" / "airssys"
MANIFEST = """
schema = 1
[component]
name = "a"
version = "1.0.0"
wasm = "a.wasm"
"""


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture
def registry(tmp_path: Path, deadline) -> Iterator[Callable[..., str]]:
    """Start a registry and return its host."""
    started: list[subprocess.Popen[bytes]] = []

    def start(more: str = "") -> str:
        program = shutil.which("docker-registry")
        assert program is not None, "apt-get install docker-registry"
        port = _free_port()
        config = tmp_path / f"registry-{port}.yml"
        config.write_text(CONFIG.format(root=tmp_path / f"blobs-{port}", port=port, more=more))
        with open(tmp_path / "registry.log", "ab") as log:
            started.append(
                subprocess.Popen([program, "serve", config], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            )

        def listens() -> bool:
            with socket.socket() as client:
                return client.connect_ex(("127.0.0.1", port)) == 0

        deadline.until(listens, "the registry listens")
        return f"127.0.0.1:{port}"

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package with a signature beside it."""
    directory = tmp_path / "package"
    (directory / "assets").mkdir(parents=True)
    (directory / "Component.toml").write_text(
        'schema = 1\n[component]\nname = "a"\nversion = "1.0.0"\nwasm = "a.wasm"\n'
    )
    (directory / "a.wasm").write_bytes(b"\0asm\1\0\0\0" + os.urandom(300_000))
    (directory / "assets" / "words").write_text("x")
    (directory / "Component.sig").write_text("signed")
    return directory


def _fetch(reference: str | OciReference, destination: Path):
    destination.mkdir()
    read = read_oci_reference(reference) if isinstance(reference, str) else reference
    return fetch_oci(read, str(destination), 7, "uid 1")


def test_a_package_goes_there_and_back(registry, package: Path, tmp_path: Path) -> None:
    """Published, fetched by tag and by digest: the same package, its signature, and where it came from."""
    host = registry()
    sent: list[str] = []
    published = publish_oci(
        str(package), read_oci_reference(f"oci://{host}/team/a:1.0.0"), lambda name, _: sent.append(name)
    )
    assert sent == ["Component.toml", "a.wasm", "assets/words", "signatures", "config"]
    fetched = _fetch(f"oci://{host}/team/a:1.0.0", tmp_path / "by-tag")
    assert fetched.contents == read_directory(str(package)) == read_directory(str(tmp_path / "by-tag"))
    assert fetched.contents.digest == published.package_digest
    assert fetched.signatures == b"signed"
    origin = fetched.provenance
    assert (origin.kind, origin.url, origin.revision) == ("oci", f"{host}/team/a", published.digest)
    assert (origin.fetched_ns, origin.fetched_by) == (7, "uid 1")
    assert _fetch(f"oci://{host}/team/a@{published.digest}", tmp_path / "by-digest").contents == fetched.contents
    sent.clear()
    again = publish_oci(
        str(package), read_oci_reference(f"oci://{host}/team/a:stable"), lambda name, _: sent.append(name)
    )
    assert (sent, again.digest) == ([], published.digest)


def test_the_command(registry, package: Path, tmp_path: Path) -> None:
    """`airssys publish` says where the package is now; what is no component or no reference ends with 65."""
    host = registry()

    def airssys(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([AIRSSYS, *words], capture_output=True, text=True, check=False)

    done = airssys("publish", str(package), f"oci://{host}/a:1.0.0", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["package_digest"] == read_directory(str(package)).digest
    assert _fetch(f"oci://{host}/a@{document['digest']}", tmp_path / "f").contents.digest == document["package_digest"]
    assert document["digest"] in airssys("publish", str(package), f"oci://{host}/a:1.0.0").stdout
    assert airssys("publish", str(tmp_path), f"oci://{host}/a:1.0.0").returncode == 65
    refused = airssys("publish", str(package), f"oci://{host}/a@{document['digest']}")
    assert (refused.returncode, "under a tag" in refused.stderr) == (65, True)


def test_a_registry_that_wants_to_know_who_asks(registry, package: Path, tmp_path: Path, monkeypatch) -> None:
    """Without credentials it is refused in a line with what to do; with those of `docker login` it works."""
    users = tmp_path / "users"
    users.write_text("u:$2y$05$abcdefghijklmnopqrstuuqwWMzKt5N8p.u2GX5MuH1t19BMWuLOW\n")  # the password is p
    host = registry(f"auth: {{ htpasswd: {{ realm: r, path: {users} }} }}")
    monkeypatch.setenv("HOME", str(tmp_path))
    reference = read_oci_reference(f"oci://{host}/a:1")
    with pytest.raises(RegistryError) as caught:
        publish_oci(str(package), reference, lambda *_: None)
    assert caught.value.hint == f"docker login {host}"
    (tmp_path / ".docker").mkdir()
    auths = {"auths": {host: {"auth": base64.b64encode(b"u:p").decode()}}}
    (tmp_path / ".docker" / "config.json").write_text(json.dumps(auths))
    published = publish_oci(str(package), reference, lambda *_: None)
    assert _fetch(f"oci://{host}/a:1", tmp_path / "f").provenance.revision == published.digest


def test_what_isnt_there_is_told_in_a_line(registry, tmp_path: Path) -> None:
    """An unknown name, a registry that doesn't answer: whom, what, and no traceback."""
    host = registry()
    with pytest.raises(RegistryError, match="no such artifact"):
        _fetch(f"oci://{host}/missing:1", tmp_path / "missing")
    with pytest.raises(RegistryError, match="can't be asked"):
        _fetch(f"oci://127.0.0.1:{_free_port()}/a:1", tmp_path / "nobody")


# ---- a registry that lies


class _Lies(http.server.BaseHTTPRequestHandler):
    """Answers what it was told to."""

    def do_GET(self) -> None:
        status, headers, body = self.server.answers.get(self.path, (404, {}, b""))  # type: ignore[attr-defined]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def lying() -> Iterator[Callable[[dict[str, tuple[int, dict[str, str], bytes]]], str]]:
    """Start a registry that gives these answers, and return its host."""
    servers: list[http.server.ThreadingHTTPServer] = []

    def start(answers: dict[str, tuple[int, dict[str, str], bytes]]) -> str:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Lies)
        server.answers = answers  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        servers.append(server)
        return f"127.0.0.1:{server.server_address[1]}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def _answers(package: Path) -> dict[str, tuple[int, dict[str, str], bytes]]:
    contents = read_directory(str(package))
    manifest = manifest_for(contents, b"")
    answers = {
        f"/v2/a/blobs/sha256:{each.sha256}": (200, {}, (package / each.path).read_bytes()) for each in contents.files
    }
    answers["/v2/"] = (200, {}, b"{}")
    for name in ("1", f"sha256:{hashlib.sha256(manifest).hexdigest()}"):
        answers[f"/v2/a/manifests/{name}"] = (200, {"Content-Type": "application/json"}, manifest)
    return answers


def test_an_honest_one_is_believed(lying, package: Path, tmp_path: Path) -> None:
    """The positive control: the same server, telling the truth."""
    assert _fetch(f"oci://{lying(_answers(package))}/a:1", tmp_path / "f").contents == read_directory(str(package))


def test_bytes_that_arent_what_the_manifest_names(lying, package: Path, tmp_path: Path) -> None:
    """Other bytes of the same size, fewer, and more than it says."""
    whole = (package / "a.wasm").read_bytes()
    place = f"/v2/a/blobs/sha256:{hashlib.sha256(whole).hexdigest()}"
    for number, body in enumerate((whole[:-1] + bytes([whole[-1] ^ 1]), whole[:-1], whole + b"x", b"")):
        host = lying(_answers(package) | {place: (200, {}, body)})
        with pytest.raises(PackageError, match=r"a\.wasm: "):
            _fetch(f"oci://{host}/a:1", tmp_path / f"f{number}")


def test_another_manifest_than_was_asked_for(lying, package: Path, tmp_path: Path) -> None:
    """Named by its digest, another manifest is refused, though it is a good one."""
    answers = _answers(package)
    asked = "sha256:" + "0" * 64
    host = lying(answers | {f"/v2/a/manifests/{asked}": answers["/v2/a/manifests/1"]})
    with pytest.raises(PackageError, match="another manifest"):
        _fetch(f"oci://{host}/a@{asked}", tmp_path / "f")
    good = next(path.rpartition("/")[2] for path in answers if path.startswith("/v2/a/manifests/sha256"))
    assert _fetch(f"oci://{host}/a@{good}", tmp_path / "g").contents == read_directory(str(package))


def test_sent_somewhere_else(lying, package: Path, tmp_path: Path) -> None:
    """From this machine to another one, or in a circle: refused; to another path of the same host it works."""
    answers = _answers(package)
    manifest = answers["/v2/a/manifests/1"]
    for number, target in enumerate(("http://192.0.2.1/x", "file:///etc/passwd", "/v2/a/manifests/1")):
        host = lying(answers | {"/v2/a/manifests/1": (307, {"Location": target}, b"")})
        with pytest.raises(RegistryError, match="somewhere else"):
            _fetch(f"oci://{host}/a:1", tmp_path / f"f{number}")
    host = lying(answers | {"/v2/a/manifests/1": (307, {"Location": "/elsewhere"}, b""), "/elsewhere": manifest})
    assert _fetch(f"oci://{host}/a:1", tmp_path / "g").contents == read_directory(str(package))


def test_an_endless_manifest_and_one_of_another_kind(lying, package: Path, tmp_path: Path) -> None:
    """What is larger than a manifest is not read on; an index is refused with what to do."""
    host = lying(_answers(package) | {"/v2/a/manifests/1": (200, {}, b" " * (5 << 20))})
    with pytest.raises(RegistryError, match="larger"):
        _fetch(f"oci://{host}/a:1", tmp_path / "f")
    index = json.dumps({"schemaVersion": 2, "manifests": []}).encode()
    host = lying(_answers(package) | {"/v2/a/manifests/1": (200, {}, index)})
    with pytest.raises(PackageError, match="index"):
        _fetch(f"oci://{host}/a:1", tmp_path / "g")
