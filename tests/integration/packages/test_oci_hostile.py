"""A registry that is an enemy: it wants credentials that aren't its own, never ends, or is asked by way of somebody."""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import http.server
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ipc.errors import ConfigError
from supervisor.packages import oci_registry
from supervisor.packages.contents import PackageError
from supervisor.packages.fetch_oci import fetch_oci
from supervisor.packages.oci_manifest import read_oci_reference
from supervisor.packages.oci_registry import OciRegistry, RegistryError
from supervisor.packages.publish_oci import publish_oci

pytestmark = pytest.mark.any_user

Answer = Callable[[http.server.BaseHTTPRequestHandler], None]
DIGEST = "sha256:" + "0" * 64
SECRET = base64.b64encode(b"alice:secret").decode()


class _Host(http.server.BaseHTTPRequestHandler):
    """Does what it was told to for a method and a path; keeps what was asked of it."""

    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        server = self.server
        length = int(self.headers.get("Content-Length") or 0)
        self.rfile.read(length)
        path = self.path.partition("?")[0]
        server.asked.append((self.command, path, self.headers.get("Authorization")))  # type: ignore[attr-defined]
        answer = server.answers.get(f"{self.command} {path}", say(404))  # type: ignore[attr-defined]
        with contextlib.suppress(OSError):
            answer(self)

    do_GET = do_HEAD = do_POST = do_PUT = _answer  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def say(status: int, body: bytes = b"", **headers: str) -> Answer:
    """Answer this."""

    def answer(host: http.server.BaseHTTPRequestHandler) -> None:
        host.send_response(status)
        for name, value in headers.items():
            host.send_header(name.replace("_", "-"), value)
        host.send_header("Content-Length", str(len(body)))
        host.end_headers()
        host.wfile.write(body)

    return answer


@pytest.fixture
def hosts(tmp_path: Path, monkeypatch) -> Iterator[Callable[..., tuple[str, list]]]:
    """Start hosts; `HOME` is one in which somebody is logged in at all of them."""
    servers: list[http.server.ThreadingHTTPServer] = []
    (tmp_path / ".docker").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))

    def start(answers: dict[str, Answer], login: bool = True) -> tuple[str, list]:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Host)
        server.daemon_threads = False  # so that closing it waits for what it answers
        server.answers, server.asked = {"GET /v2/": say(200)} | answers, []  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        servers.append(server)
        host = f"127.0.0.1:{server.server_address[1]}"
        if login:
            auths = {f"127.0.0.1:{one.server_address[1]}": {"auth": SECRET} for one in servers}
            (tmp_path / ".docker" / "config.json").write_text(json.dumps({"auths": auths}))
        return host, server.asked  # type: ignore[attr-defined]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def _registry(host: str) -> OciRegistry:
    return OciRegistry(read_oci_reference(f"oci://{host}/a:1"))


def _asks(realm: str) -> Answer:
    return say(401, Www_Authenticate=f'Bearer realm="{realm}",service="s"')


def _once(first: Answer, then: Answer) -> Answer:
    answers = iter((first,))
    return lambda host: next(answers, then)(host)


def test_credentials_go_to_the_registry_and_to_its_realm_only(hosts, tmp_path: Path) -> None:
    """A token is got with them, and used; the place that an upload is sent to gets the bytes, and neither of both."""
    elsewhere, seen = hosts({"PUT /put": say(201)})
    tokens, told = hosts({"GET /token": say(200, b'{"token":"T"}')})
    start = _once(_asks(f"http://{tokens}/token"), say(202, Location=f"http://{elsewhere}/put"))
    host, asked = hosts({"POST /v2/a/blobs/uploads/": start})
    (tmp_path / "blob").write_bytes(b"x")
    with _registry(host) as registry:
        registry.upload(str(tmp_path / "blob"), DIGEST, 1)
    assert told == [("GET", "/token", f"Basic {SECRET}")]
    assert asked[-1] == ("POST", "/v2/a/blobs/uploads/", "Bearer T")
    assert seen == [("PUT", "/put", None)]


def test_a_token_that_has_run_out_is_replaced(hosts) -> None:
    """One that is refused isn't sent again, but asked for anew, once."""
    good = ["T1"]

    def blob(host: http.server.BaseHTTPRequestHandler) -> None:
        is_taken = host.headers.get("Authorization") == f"Bearer {good[0]}"
        (say(200, b"x") if is_taken else _asks(f"http://{host.headers['Host']}/token"))(host)

    def token(host: http.server.BaseHTTPRequestHandler) -> None:
        say(200, json.dumps({"token": good[0] or "T3"}).encode())(host)

    host, asked = hosts({"GET /token": token, f"GET /v2/a/blobs/{DIGEST}": blob})
    with _registry(host) as registry:
        assert list(registry.blob(DIGEST, 1)) == [b"x"]
        good[0] = "T2"
        assert list(registry.blob(DIGEST, 1)) == [b"x"]
        good[0] = ""
        with pytest.raises(RegistryError, match="who asks"):
            list(registry.blob(DIGEST, 1))
    assert [path for _, path, _ in asked].count("/token") == 3


def test_who_keeps_a_blob_may_not_ask_who_we_are(hosts) -> None:
    """A question from there isn't answered; the same one from the registry itself is."""
    thief, stolen = hosts({"GET /token": say(200, b'{"token":"T"}')})
    store, _ = hosts({"GET /blob": _asks(f"http://{thief}/token")})
    blob = f"GET /v2/a/blobs/{DIGEST}"
    host, _ = hosts({blob: say(307, Location=f"http://{store}/blob")})
    with _registry(host) as registry, pytest.raises(RegistryError):
        list(registry.blob(DIGEST, 1))
    assert stolen == []
    host, _ = hosts({blob: _once(_asks(f"http://{thief}/token"), say(200, b"x"))})
    with _registry(host) as registry:
        assert list(registry.blob(DIGEST, 1)) == [b"x"]
    assert stolen == [("GET", "/token", f"Basic {SECRET}")]


def test_credentials_of_other_kinds_are_nobodys(hosts, tmp_path: Path, monkeypatch) -> None:
    """Neither a netrc file's nor those of ORAS's environment: only what `docker login` has kept for this registry."""
    (tmp_path / ".netrc").write_text("default login alice password secret\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("ORAS_USER", "alice")
    monkeypatch.setenv("ORAS_PASS", "secret")
    questions = {"GET /v2/": say(401, Www_Authenticate="Basic realm=r")}
    questions["GET /v2/a/manifests/1"] = say(401, Www_Authenticate="Basic realm=r")
    host, asked = hosts(questions, login=False)
    with _registry(host) as registry, pytest.raises(RegistryError, match="who asks"):
        registry.manifest()
    assert {authorization for _, _, authorization in asked} == {None}
    host, asked = hosts(questions)
    with _registry(host) as registry, pytest.raises(RegistryError, match="who asks"):
        registry.manifest()
    assert asked[-1][2] == f"Basic {SECRET}"


def test_one_on_this_machine_is_not_asked_by_way_of_a_proxy(hosts, monkeypatch) -> None:
    """It is spoken to without TLS because nothing leaves this machine; https goes where the environment says."""
    proxy, asked = hosts({})
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, f"http://{proxy}")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    host, _ = hosts({"GET /v2/a/manifests/1": say(200, b"{}")})
    with _registry(host) as registry:
        assert registry.manifest() == b"{}"
    assert asked == []
    with _registry("registry.example.com") as registry, pytest.raises(RegistryError):
        registry.manifest()
    assert registry._session.trust_env


# ---- what never ends


def _endless(head: bytes, more: bytes, sent: list[int], pause_s: float = 0.0) -> Answer:
    """Send a head, and more until nobody takes it; `sent` counts how often."""

    def answer(host: http.server.BaseHTTPRequestHandler) -> None:
        host.close_connection = True
        host.wfile.write(head)
        while sent[0] < 2_000:
            host.wfile.write(more)
            sent[0] += 1
            time.sleep(pause_s)  # the attack itself, and no waiting for somebody

    return answer


@pytest.mark.parametrize("where", ["GET /v2/", "GET /v2/a/manifests/1", "GET /token", "question", "redirect"])
def test_an_answer_without_an_end_is_not_read_on(hosts, where: str) -> None:
    """Each answer that is kept in memory ends after some megabytes, a token's and a refusal's as well."""
    sent = [0]
    piece = b"x" * (1 << 20)
    head = b"HTTP/1.1 200 X\r\n\r\n"
    answers = {"GET /v2/a/manifests/1": lambda host: _asks(f"http://{host.headers['Host']}/token")(host)}
    if where == "redirect":
        where, head = "GET /v2/a/manifests/1", b"HTTP/1.1 307 X\r\nLocation: /elsewhere\r\n\r\n"
    elif where == "question":
        where, head = "GET /v2/a/manifests/1", b'HTTP/1.1 401 X\r\nWww-Authenticate: Bearer realm="http://x/"\r\n\r\n'
    host, _ = hosts(answers | {where: _endless(head, piece, sent)})
    with _registry(host) as registry, pytest.raises(RegistryError):
        registry.manifest()
    assert sent[0] < 64


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 X\r\nX", b"HTTP/1.1 200 X\r\nContent-Length: 4000\r\n\r\n"])
def test_an_answer_that_drips_has_an_end(hosts, monkeypatch, head: bytes) -> None:
    """One byte after the other, in its head or in what follows, each in time: a conversation ends nevertheless."""
    monkeypatch.setattr(oci_registry, "TALK_S", 0.4)
    host, _ = hosts({"GET /v2/a/manifests/1": _endless(head, b" ", [0], 0.01)})
    with _registry(host) as registry, pytest.raises(RegistryError, match="longer than anybody waits"):
        registry.manifest()


def test_what_is_compressed_is_not_unpacked(hosts) -> None:
    """A few bytes that stand for very many stay what they are; plain ones are a blob."""
    bomb = gzip.compress(b"0" * (8 << 20))
    host, _ = hosts({f"GET /v2/a/blobs/{DIGEST}": say(200, bomb, Content_Encoding="gzip")})
    with _registry(host) as registry:
        assert b"".join(registry.blob(DIGEST, len(bomb))) == bomb


def test_a_question_is_short(hosts) -> None:
    """One of 60 kB costs the client 20 s of computing: it isn't answered."""
    host, _ = hosts({"GET /v2/a/manifests/1": say(401, Www_Authenticate="A" * 60_000)})
    began_s = time.process_time()
    with _registry(host) as registry, pytest.raises(RegistryError, match="who asks"):
        registry.manifest()
    assert time.process_time() - began_s < 5


def test_what_the_client_trips_over_is_told_in_a_line(hosts, tmp_path: Path) -> None:
    """A token that is no JSON anybody can read, a file of credentials that is damaged."""
    deep = b"[" * 100_000
    answers = {"GET /v2/a/manifests/1": lambda host: _asks(f"http://{host.headers['Host']}/token")(host)}
    host, _ = hosts(answers | {"GET /token": say(200, deep)})
    with pytest.raises(RegistryError, match="who asks"):
        fetch_oci(read_oci_reference(f"oci://{host}/a:1"), str(tmp_path), 0, "")
    (tmp_path / ".docker" / "config.json").write_text("{")
    with pytest.raises(ConfigError, match="can't be used"):
        _registry(host)


def test_the_name_of_this_machine_is_no_part_of_a_name(hosts) -> None:
    """`localhost` without a port is the registry, as everywhere else in a reference."""
    with OciRegistry(read_oci_reference("oci://localhost/a/b:1")) as registry:
        assert registry._container.manifest_url() == "localhost/v2/a/b/manifests/1"


def test_what_was_looked_at_is_what_is_published(hosts, tmp_path: Path) -> None:
    """Another manifest than the one that was checked isn't sent; that one is."""
    package = tmp_path / "package"
    package.mkdir()
    (package / "Component.toml").write_text("x")
    host, asked = hosts({"PUT /v2/a/manifests/1": say(201), **_kept(b"x"), **_kept(b"{}")})
    reference = read_oci_reference(f"oci://{host}/a:1")
    with pytest.raises(PackageError, match="changed while it was read"):
        publish_oci(str(package), reference, lambda *_: None, hashlib.sha256(b"y").hexdigest())
    assert [method for method, *_ in asked] == ["GET"]
    publish_oci(str(package), reference, lambda *_: None, hashlib.sha256(b"x").hexdigest())
    assert asked[-1][:2] == ("PUT", "/v2/a/manifests/1")


def _kept(blob: bytes) -> dict[str, Answer]:
    """Say that it is there already."""
    return {f"HEAD /v2/a/blobs/sha256:{hashlib.sha256(blob).hexdigest()}": say(200)}
