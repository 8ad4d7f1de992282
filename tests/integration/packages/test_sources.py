"""Packages from real sources: one package is the same whether it comes from a directory, an archive or a repository."""

from __future__ import annotations

import http.server
import os
import signal
import socket
import ssl
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from archives import MANIFEST, WASM, entry, package, packed
from repositories import ENVIRONMENT, Repository

from ipc.errors import ConfigError
from supervisor.host.identity import actor
from supervisor.packages import fetch_git
from supervisor.packages.contents import PackageError
from supervisor.packages.fetch import fetch
from supervisor.packages.provenance import Fetched
from supervisor.packages.reader_process import SourceUnavailableError
from supervisor.packages.source import parse_source

BACKEND = "/usr/lib/git-core/git-http-backend"
SIGNATURES = b"signatures, whatever they are\n"


class Place:
    """A directory of a test's own, in which each fetch gets a destination."""

    def __init__(self, path: Path) -> None:
        """Use a directory that others may pass through."""
        self.path = path
        self.fetched = 0

    def get(self, source: str) -> Fetched:
        """Fetch a package, and see that its directory holds exactly that."""
        self.fetched += 1
        destination = self.path / f"fetched-{self.fetched}"
        destination.mkdir()
        fetched = fetch(parse_source(source), str(destination))
        assert sorted(_files(destination)) == sorted(each.path for each in fetched.contents.files)
        return fetched


def _files(directory: Path) -> list[str]:
    return [str(path.relative_to(directory)) for path in directory.rglob("*") if not path.is_dir()]


@pytest.fixture
def place(short_dir: Path) -> Place:
    """A place for this test."""
    return Place(short_dir)


@pytest.fixture
def component(short_dir: Path) -> Path:
    """A component directory, with what belongs to no package beside its files."""
    directory = short_dir / "component"
    for name, data in {
        "Component.toml": MANIFEST,
        "thing.wasm": WASM,
        "assets/empty": b"",
        "assets/ä": bytes(300_000),
        "Component.sig": SIGNATURES,
        ".airssys/state": b"",
    }.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(data)
    return directory


@pytest.fixture
def repository(component: Path, short_dir: Path) -> Repository:
    """A repository with that package at its top, as `old` and as `main`, and beneath `sub/thing` in `main`."""
    made = Repository(short_dir / "repository.git")

    def tree(directory: Path, *more: tuple[str, bytes, str]) -> str:
        entries = [*more]
        for path in directory.iterdir():
            if path.name == ".airssys":
                continue
            kind = ("40000", path.name.encode(), tree(path)) if path.is_dir() else None
            entries.append(kind or ("100755", path.name.encode(), made.blob(path.read_bytes())))
        return made.tree(*sorted(entries, key=lambda each: each[1] + b"/" * (each[0] == "40000")))

    old = made.commit(tree(component))
    made.git("update-ref", "refs/heads/side/old", old)
    made.git("tag", "v1", old)
    made.git("tag", "-a", "-m", "x", "v2", old)
    inner = made.tree(("40000", b"thing", tree(component)))
    middle = made.commit(tree(component), old)
    made.commit(tree(component, ("40000", b"sub", inner)), middle)
    return made


def test_one_package_from_everywhere(component: Path, repository: Repository, place: Place, short_dir: Path) -> None:
    """Directory, archives of two makers and repository give the same contents and signatures."""
    by_tar = short_dir / "by-tar.tgz"
    with tarfile.open(by_tar, "w:gz") as archive:
        archive.add(component, "thing-1.0", filter=lambda each: None if ".airssys" in each.name else each)
    sources = (str(component), str(by_tar), f"{repository.source}@v1", f"{repository.source}#sub/thing")
    fetched = [place.get(source) for source in sources]
    moved = short_dir / "ré po%41.git"
    repository.path.rename(moved)
    fetched.append(place.get(f"git+file://{moved}@v1"))
    assert fetched[-1].provenance.url == f"file://{short_dir}/r%C3%A9%20po%2541.git"
    assert len({each.contents.digest for each in fetched}) == 1
    assert {each.signatures for each in fetched} == {SIGNATURES}
    assert [each.provenance.kind for each in fetched] == ["directory", "archive", "git", "git", "git"]
    assert {each.provenance.fetched_by for each in fetched} == {actor()}


@pytest.mark.any_user
def test_what_a_revision_is_resolved_to(repository: Repository, place: Place) -> None:
    """The commit is recorded always, the branch where one was named or stood for HEAD."""
    main, old = (repository.git("rev-parse", name) for name in ("main", "v1"))
    middle = repository.git("rev-parse", "main~1")
    expected = {
        "": (main, "main"),
        "@side/old": (old, "side/old"),
        "@v2": (old, ""),
        f"@{old}": (old, ""),
        f"@{middle}": (middle, ""),
    }
    for suffix, (commit, branch) in expected.items():
        provenance = place.get(f"{repository.source}{suffix}").provenance
        assert (provenance.revision, provenance.branch) == (commit, branch), suffix
        assert provenance.url == f"file://{repository.path}"
        assert provenance.subdirectory == ""
    assert place.get(f"{repository.source}@main#sub/thing").provenance.subdirectory == "sub/thing"


@pytest.mark.any_user
@pytest.mark.parametrize(
    ("suffix", "why"),
    [
        ("@nothing", "no branch or tag nothing"),
        ("@0000000", "no branch or tag 0000000"),
        (f"@{'0' * 40}", "has the commit 000000000000 in its history"),
        ("#nothing", "no directory nothing"),
        ("#thing.wasm", "no directory thing.wasm"),
        ("#sub", "no Component.toml in it"),
    ],
)
def test_what_a_repository_doesnt_have(suffix: str, why: str, repository: Repository, place: Place) -> None:
    """It is said in terms of what was asked for."""
    with pytest.raises(PackageError, match=why):
        place.get(f"{repository.source}{suffix}")
    assert _files(place.path / "fetched-1") == []


@pytest.mark.needs_root
def test_a_repository_of_somebody_elses(repository: Repository, place: Place, short_dir: Path) -> None:
    """Whoever owns it, with a working tree or without: git reads it as an ordinary user, or it is said what lacks."""
    tree = short_dir / "tree"
    subprocess.run(["git", "clone", "-q", repository.path, tree], env=ENVIRONMENT, check=True)
    for directory, names, files in os.walk(short_dir):
        for name in (*names, *files):
            os.chown(os.path.join(directory, name), 12_345, 12_345)
    expected = place.get(f"{repository.source}@main").provenance.revision
    for source in (f"git+file://{tree}@main", f"git+file://{tree}/.git@main"):
        assert place.get(source).provenance.revision == expected
    repository.path.chmod(0o700)
    with pytest.raises(SourceUnavailableError) as closed:
        place.get(repository.source)
    assert "as nobody, not as root" in str(closed.value.hint)


@pytest.mark.any_user
def test_what_isnt_there(place: Place, short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file, a repository, a host, and git itself: the last three are missing, and nobody's mistake (69)."""
    (short_dir / "no-repository").mkdir()
    for source in ("missing.tar.gz", "missing", f"git+file://{short_dir}/missing"):
        with pytest.raises(ConfigError, match="no such") as refused:
            place.get(source)
        assert refused.value.exit_code == 65
    for source in (f"git+file://{short_dir}/no-repository", "git+https://localhost:1/x", "git+ssh://localhost:1/x"):
        with pytest.raises(SourceUnavailableError) as unavailable:
            place.get(source)
        assert unavailable.value.exit_code == 69
    monkeypatch.setattr(fetch_git, "_PLACES", str(short_dir))
    with pytest.raises(SourceUnavailableError, match="git isn't installed") as without:
        place.get(f"git+file://{short_dir}")
    assert without.value.hint == "apt install git"


@pytest.mark.any_user
def test_an_archive_that_is_a_directory(place: Place, short_dir: Path) -> None:
    """The name says archive: it is said how the directory would be named."""
    (short_dir / "x.tar.gz").mkdir()
    with pytest.raises(ConfigError, match="that of an archive") as refused:
        place.get(f"{short_dir}/x.tar.gz")
    assert "x.tar.gz/" in str(refused.value.hint)


def test_an_interrupt_leaves_nothing(short_dir: Path) -> None:
    """Ctrl-C in the middle of an archive: the directory is empty again, and the reader has ended."""
    archive, destination = short_dir / "x.tar.gz", short_dir / "destination"
    archive.write_bytes(packed(package(entry("large", bytes(60 << 20)))))
    destination.mkdir()

    def interrupt() -> None:
        until = time.monotonic() + 30
        while not (destination / "large").exists() and time.monotonic() < until:
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGINT)

    watcher = threading.Thread(target=interrupt)
    watcher.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            fetch(parse_source(str(archive)), str(destination))
    finally:
        watcher.join()
    assert os.listdir(destination) == []


# -- https, by git's own server program on loopback


class _Backend(http.server.BaseHTTPRequestHandler):
    """git-http-backend(1) as a web server calls it; what lies beneath /moved is elsewhere."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Serve one request."""
        path, _, query = self.path.partition("?")
        if path.startswith("/moved/"):
            self.send_response(301)
            self.send_header("Location", self.path.replace("/moved/", "/", 1))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        server = self.server
        assert isinstance(server, _Server)
        environment = ENVIRONMENT | {
            "GIT_PROJECT_ROOT": str(server.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": self.headers.get("Content-Length", "0"),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
        }
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        done = subprocess.run([BACKEND], input=body, env=environment, capture_output=True, check=False)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        lines = [line.partition(": ") for line in head.decode().split("\r\n")]
        status = next((value for name, _, value in lines if name == "Status"), "200")
        self.send_response(int(status.split()[0]))
        for name, _, value in lines:
            if name not in ("Status", ""):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class _Server(http.server.ThreadingHTTPServer):
    def __init__(self, root: Path, certificate: Path, key: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Backend)
        self.root = root
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self.socket = context.wrap_socket(self.socket, server_side=True)

    def handle_error(self, *_: object) -> None:
        """A client that doesn't trust us is no error of ours."""


@pytest.fixture
def https(short_dir: Path, repository: Repository) -> Iterator[str]:
    """The address of a web server with that repository; its certificate is `short_dir/certificate`."""
    key, certificate = short_dir / "key", short_dir / "certificate"
    options = ("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "2", "-nodes")
    command = ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", *options)
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    certificate.chmod(0o644)
    with _Server(short_dir, certificate, key) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"git+https://localhost:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_a_repository_over_https(
    https: str, repository: Repository, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a certificate that is trusted; a stranger's is refused, and so is an address that points elsewhere."""
    with pytest.raises(SourceUnavailableError, match="certificate"):
        place.get(f"{https}/repository.git")
    monkeypatch.setenv("GIT_SSL_CAINFO", str(place.path / "certificate"))
    fetched = place.get(f"{https}/repository.git@v2")
    assert fetched.provenance.url == f"{https.removeprefix('git+')}/repository.git"
    assert fetched.provenance.revision == repository.git("rev-parse", "v1")
    with pytest.raises(SourceUnavailableError, match="301") as moved:
        place.get(f"{https}/moved/repository.git@v2")
    assert "another address" in str(moved.value.hint)


def test_git_ends_with_whoever_fetches(short_dir: Path) -> None:
    """A server that says nothing, and a supervisor that is killed: neither git nor what it has started lives on."""
    code = "import sys; from supervisor.packages.fetch import *; fetch(parse_source(sys.argv[1]), sys.argv[2])"
    code = f"from supervisor.packages.source import parse_source; {code}"
    with socket.create_server(("127.0.0.1", 0)) as server:
        source = f"git+https://localhost:{server.getsockname()[1]}/x"
        with subprocess.Popen([sys.executable, "-I", "-c", code, source, short_dir]) as supervisor:
            server.settimeout(30)
            connection, _ = server.accept()
            started = psutil.Process(supervisor.pid).children(recursive=True)
            words = [word for process in started for word in process.cmdline() if word.startswith("--git-dir=")]
            scratch = Path(words[0].removeprefix("--git-dir=")).parent
            supervisor.kill()
        _, alive = psutil.wait_procs(started, timeout=30)
        connection.close()
    assert alive == []
    assert scratch.exists()
    os.utime(scratch, (0, 0))
    with pytest.raises(ConfigError):  # the next fetch removes it, whatever becomes of that
        fetch(parse_source(f"git+file://{short_dir}"), str(short_dir))
    assert not scratch.exists()
