"""Packages by ssh, from OpenSSH's own server on loopback: who answers is known, or nothing is fetched."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from ssh_host import USER, SshHost

AIRSSYS = Path(sys.executable).with_name("airssys")


@pytest.fixture(scope="module")
def server() -> Iterator[SshHost]:
    """The server, whose user's repository has a package as `v1` and `main`, and beneath `sub` in `with-sub`."""
    place = Path(tempfile.mkdtemp(prefix="at-", dir="/tmp"))
    place.chmod(0o755)
    try:
        host = SshHost(place)
        try:
            made = host.repository
            made.git("tag", "v1", made.commit(made.package()))
            made.commit(made.tree(("40000", b"sub", made.package())), branch="with-sub")
            yield host
        finally:
            host.close()
    finally:
        shutil.rmtree(place)


@pytest.fixture
def host(server: SshHost) -> SshHost:
    """The same for each test, whose user begins with a key of theirs and knowing the server by its key."""
    server.forget()
    server.know_host()
    server.have_key()
    return server


@pytest.fixture
def source(host: SshHost) -> str:
    """The repository's address."""
    return f"git+ssh://{host.address}{host.home}/repository.git"


def refused(answer: dict[str, object]) -> str:
    """Return what was said and what to do; it is nobody's mistake (69)."""
    assert answer["code"] == 69, answer
    return f"{answer['error']} | {answer['hint']}"


def test_a_repository_over_ssh(host: SshHost, source: str, short_dir: Path) -> None:
    """By ssh:// and as forges show it, a tag, a branch and a directory: the commit and the address are on record."""
    by_tag = host.fetch(f"{source}@v1", short_dir / "a")
    assert by_tag["url"] == source.removeprefix("git+")
    assert by_tag["revision"] == host.repository.git("rev-parse", "v1")
    assert by_tag["files"] == ["Component.toml", "thing.wasm"]
    inner = host.fetch(f"{source}@with-sub#sub", short_dir / "b")
    assert (inner["branch"], inner["sub"], inner["files"]) == ("with-sub", "sub", by_tag["files"])
    (host.ssh / "config").write_text(f"Host forge\nHostName 127.0.0.1\nPort {host.port}\n")
    like_scp = host.fetch(f"{USER}@forge:repository.git@with-sub#sub", short_dir / "c")
    assert like_scp == inner | {"url": f"{USER}@forge:repository.git"}


def test_it_is_installed_from_there(host: SshHost, source: str, airssys) -> None:
    """The whole command: fetched, compiled, entered, with its origin in the list."""
    done = host.run(AIRSSYS, "install", f"{source}@main", "--json", as_user=False, **airssys.environment)
    assert done.returncode == 0, done.stderr
    listed = airssys("list", "--json").json()["installed"][0]
    assert listed["provenance"]["url"] == source.removeprefix("git+")
    assert listed["provenance"]["revision"] == host.repository.git("rev-parse", "main")


@pytest.mark.parametrize("known", ["nobody", "another"])
def test_who_answers_has_to_be_known(known: str, host: SshHost, source: str, short_dir: Path) -> None:
    """An unknown host and one with another key are refused without a question; by its own key it is believed."""
    if known == "nobody":
        (host.ssh / "known_hosts").unlink()
    else:
        host.know_host("other_key")
    before = sorted(path.name for path in host.ssh.iterdir())
    said = refused(host.fetch(source, short_dir / "a"))
    assert {"nobody": "isn't known here", "another": "stand in between"}[known] in said
    assert "ssh HOST" in said or "ssh-keygen -R HOST" in said
    assert sorted(path.name for path in host.ssh.iterdir()) == before
    host.know_host()
    assert host.fetch(source, short_dir / "b")["files"]


def test_only_a_key_that_the_host_knows(host: SshHost, source: str, short_dir: Path, deadline) -> None:
    """Without a key and with another it is refused; the agent's is used as that of a file is."""
    for attempt, key in enumerate(("", "other_key")):
        (host.ssh / "id_ed25519").unlink(missing_ok=True)
        if key:
            host.have_key(key)
        said = refused(host.fetch(source, short_dir / f"{attempt}"))
        assert "Permission denied (publickey)" in said
        assert "ssh-add" in said
    socket = host.place / "agent"
    agent = host.begin("ssh-agent", "-D", "-a", socket)
    try:
        deadline.until(socket.exists, "the agent listens")
        loaded = host.run("ssh-add", "-q", host.key, SSH_AUTH_SOCK=str(socket))
        assert loaded.returncode == 0, loaded.stderr
        assert host.fetch(source, short_dir / "agent-s", SSH_AUTH_SOCK=str(socket))["files"]
    finally:
        agent.terminate()
        agent.wait()
        socket.unlink(missing_ok=True)


def test_an_option_in_place_of_a_host(host: SshHost, short_dir: Path) -> None:
    """Neither a host, a user, a port nor a path is an option to ssh, should one get past us. To ssh itself, it is."""
    witness = host.place / "witness"
    option = f"-oProxyCommand=touch {witness}"
    addresses = (
        f"ssh://{option}/x",
        f"ssh://{option}@127.0.0.1/x",
        f"ssh://127.0.0.1:{option}/x",
        f"git@{option}:x",
        f"ssh://{host.address}/--upload-pack=touch {witness}",
    )
    for number, address in enumerate(addresses):
        assert host.fetch(f"={address}", short_dir / f"{number}")["code"] in (65, 69)
        assert not witness.exists(), address
    host.run("ssh", option, "127.0.0.1")
    assert witness.exists()
    witness.unlink()


def test_a_host_that_answers_something_else(host: SshHost, source: str, short_dir: Path) -> None:
    """A path that is no repository is named as that; nothing that the host prints reaches a terminal as it is."""
    said = refused(host.fetch(source.replace("repository.git", "nothing"), short_dir / "a"))
    assert "does not appear to be a git repository" in said
    (host.home / "evil").write_text("#!/bin/sh\nprintf 'fatal: \\033[2J\\033]0;x\\007\\n' >&2; exit 1\n")
    keys = (host.ssh / "authorized_keys").read_text()
    (host.ssh / "authorized_keys").write_text(f'command="sh {host.home}/evil" {keys}')
    try:
        assert "\x1b" not in refused(host.fetch(source, short_dir / "b"))
    finally:
        (host.ssh / "authorized_keys").write_text(keys)
    assert host.fetch(source, short_dir / "c")["files"]
