"""`Component.sig` on disk: written whole or not at all, and never through a link."""

from __future__ import annotations

import fcntl
import os
import signal
import stat
from pathlib import Path

import pytest

from ipc.errors import ConfigError
from supervisor.packages.contents import SIGNATURE_FILE, PackageError
from supervisor.packages.directory import read_directory, read_signatures
from supervisor.signing.signature_file import NotWrittenError, remove_leftovers, write_signature_file


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package of a manifest alone."""
    (tmp_path / "Component.toml").write_text("schema = 1\n")
    return tmp_path


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """Whatever the umask, everybody may read it; nothing else is left in the directory."""
    assert read_signatures(str(tmp_path)) == b""
    before = os.umask(0o077)
    try:
        for data in (b"first", b"second" * 1000):
            write_signature_file(str(tmp_path), data)
            assert read_signatures(str(tmp_path)) == data
    finally:
        os.umask(before)
    assert os.listdir(tmp_path) == [SIGNATURE_FILE]
    assert stat.S_IMODE((tmp_path / SIGNATURE_FILE).stat().st_mode) == 0o644


def test_no_link_is_followed(tmp_path: Path) -> None:
    """A link that stands in its place is not read; and what is written replaces it, and leaves its target alone."""
    (tmp_path / "package").mkdir()
    secret = tmp_path / "secret"
    secret.write_text("secret")
    (tmp_path / "package" / SIGNATURE_FILE).symlink_to(secret)
    with pytest.raises(PackageError, match="symbolic links"):
        read_signatures(str(tmp_path / "package"))
    write_signature_file(str(tmp_path / "package"), b"x")
    assert secret.read_text() == "secret"
    assert read_signatures(str(tmp_path / "package")) == b"x"


def test_a_hard_link_is_not_written_through(tmp_path: Path) -> None:
    """Another name of somebody's file keeps what it has."""
    (tmp_path / "package").mkdir()
    (tmp_path / "other").write_text("other")
    os.link(tmp_path / "other", tmp_path / "package" / SIGNATURE_FILE)
    write_signature_file(str(tmp_path / "package"), b"x")
    assert (tmp_path / "other").read_text() == "other"


def test_what_can_not_be_written_leaves_nothing(tmp_path: Path) -> None:
    """A directory in its place, or one that is gone, is told; no half file stays."""
    (tmp_path / SIGNATURE_FILE).mkdir()
    with pytest.raises(NotWrittenError, match="directory") as raised:
        write_signature_file(str(tmp_path), b"x")
    assert raised.value.exit_code == 73
    assert os.listdir(tmp_path) == [SIGNATURE_FILE]
    with pytest.raises(ConfigError, match="no such file"):
        write_signature_file(str(tmp_path / "gone"), b"x")


def _killed_at(step: str, package: Path) -> None:
    """Sign in a process that is killed at this system call."""
    pid = os.fork()
    if not pid:
        try:
            setattr(os, step, lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
            write_signature_file(str(package), b"new")
        finally:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL


@pytest.mark.parametrize("before", [b"", b"old"])
@pytest.mark.parametrize("step", ["fchmod", "fsync", "link", "rename"])
def test_who_is_killed_leaves_one_or_the_other(package: Path, step: str, before: bytes) -> None:
    """The old signatures or the new ones, whole; and the package is what it was once it is signed again."""
    if before:
        write_signature_file(str(package), before)
    digest = read_directory(str(package)).digest
    if step == "rename" and not before:
        write_signature_file(str(package), b"new")  # it needs no other name, and nothing is renamed
        assert remove_leftovers(str(package)) == ()
    else:
        _killed_at(step, package)
        left = remove_leftovers(str(package))
        assert len(left) == (1 if step == "rename" else 0)
    assert read_signatures(str(package)) in (before, b"new")
    assert read_directory(str(package)).digest == digest


def test_what_looks_like_a_leftover_is_part_of_the_package(package: Path) -> None:
    """No name is overlooked: a file that is called like one changes the package, and voids what was signed."""
    digest = read_directory(str(package)).digest
    (package / f".{SIGNATURE_FILE}.{'ab' * 8}").write_bytes(b"unsigned")
    assert read_directory(str(package)).digest != digest
    assert remove_leftovers(str(package)) == (f".{SIGNATURE_FILE}.{'ab' * 8}",)
    assert read_directory(str(package)).digest == digest


def test_only_what_is_left_is_removed(package: Path) -> None:
    """Not a link, a directory, a name of another form, what lies deeper; and nothing while somebody signs."""
    name = f".{SIGNATURE_FILE}.{'ab' * 8}"
    (package / "deeper" / name).parent.mkdir()
    (package / "deeper" / name).touch()
    for other in (f".{SIGNATURE_FILE}.ab", f"{name}0", f".{SIGNATURE_FILE}.{'AB' * 8}", name[1:]):
        (package / other).touch()
    (package / f".{SIGNATURE_FILE}.{'cd' * 8}").symlink_to("deeper")
    (package / f".{SIGNATURE_FILE}.{'ef' * 8}").mkdir()
    assert remove_leftovers(str(package)) == ()
    (package / name).touch()
    held = os.open(package, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert remove_leftovers(str(package)) == ()
        write_signature_file(str(package), b"x")  # who signs waits for nobody
    finally:
        os.close(held)
    assert remove_leftovers(str(package)) == (name,)


def test_a_file_system_that_knows_no_nameless_files(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is written under another name, and put in its place."""
    monkeypatch.setattr(os, "O_TMPFILE", os.O_DIRECTORY | os.O_WRONLY)
    for data in (b"first", b"second"):
        write_signature_file(str(package), data)
        assert read_signatures(str(package)) == data
    assert remove_leftovers(str(package)) == ()
