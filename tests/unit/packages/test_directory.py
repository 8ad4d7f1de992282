"""Reading and copying component directories: real files, and everything that is none refused by name."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from ipc.errors import ConfigError
from supervisor.packages import directory
from supervisor.packages.contents import SIGNATURES_MAX_BYTES, PackageError
from supervisor.packages.directory import copy_directory, read_directory, read_signatures


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A small package."""
    directory = tmp_path / "source"
    (directory / "assets" / "deep").mkdir(parents=True)
    (directory / "Component.toml").write_text("schema = 1\n")
    (directory / "a.wasm").write_bytes(b"\0asm")
    (directory / "assets" / "deep" / "word list").write_text("x")
    return directory


def test_what_is_copied_is_what_was_read(source: Path, tmp_path: Path) -> None:
    """The copy states the same, and has plain modes whatever the source's were."""
    (source / "a.wasm").chmod(0o4755)
    (tmp_path / "copy").mkdir()
    copied = copy_directory(str(source), str(tmp_path / "copy"))
    assert copied == read_directory(str(source)) == read_directory(str(tmp_path / "copy"))
    assert [each.path for each in copied.files] == ["Component.toml", "a.wasm", "assets/deep/word list"]
    assert stat.S_IMODE((tmp_path / "copy" / "a.wasm").stat().st_mode) & 0o7111 == 0


def test_where_it_lies_makes_no_difference(source: Path) -> None:
    """What belongs to a repository, to a supervisor or to a signature is no part of the package."""
    before = read_directory(str(source)).digest
    for name in (".git", ".airssys"):
        (source / name).mkdir()
        (source / name / "x").write_text("x")
    (source / "Component.sig").write_text("x")
    os.utime(source / "a.wasm", (0, 0))
    assert read_directory(str(source)).digest == before
    (source / "a.wasm").write_bytes(b"\0asn")
    assert read_directory(str(source)).digest != before


def _link(path: Path) -> None:
    path.symlink_to("Component.toml")


def _link_to_directory(path: Path) -> None:
    path.symlink_to("assets")


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        directory = os.open(path.parent, os.O_RDONLY)
        listener.bind(f"/proc/self/fd/{directory}/{path.name}")
        os.close(directory)


@pytest.mark.parametrize("make", [_link, _link_to_directory, _fifo, _socket])
def test_what_is_no_file_is_refused(source: Path, make) -> None:
    """Links, pipes and sockets are named and never followed, opened or waited for."""
    make(source / "assets" / "odd")
    with pytest.raises(PackageError, match=r"assets/odd: (a symbolic link|no regular file)"):
        read_directory(str(source))


def test_a_name_that_is_no_text_is_refused(source: Path) -> None:
    """A name that isn't UTF-8 can't be stated."""
    with open(os.fsencode(source) + b"/\xff", "wb"):
        pass
    with pytest.raises(PackageError, match="not UTF-8"):
        read_directory(str(source))


def test_no_directory_is_an_error_of_the_user(tmp_path: Path) -> None:
    """One line that names it."""
    with pytest.raises(ConfigError, match=r"missing: no such file or directory"):
        read_directory(str(tmp_path / "missing"))


def test_the_directory_itself_may_be_a_link(source: Path, tmp_path: Path) -> None:
    """Who names a link to a directory means the directory."""
    (tmp_path / "link").symlink_to(source)
    assert read_directory(str(tmp_path / "link")) == read_directory(str(source))


def test_no_descriptor_stays_open(source: Path) -> None:
    """Also where reading ends in the middle."""
    before = os.listdir("/proc/self/fd")
    _link(source / "assets" / "odd")
    with pytest.raises(PackageError):
        read_directory(str(source))
    assert os.listdir("/proc/self/fd") == before


def test_signatures_are_read_with_care(source: Path) -> None:
    """None there, a file, a link, a pipe and one that is too large: bytes, or an error that names the file."""
    assert read_signatures(str(source)) == b""
    signatures = source / "Component.sig"
    signatures.write_bytes(b"x" * SIGNATURES_MAX_BYTES)
    assert len(read_signatures(str(source))) == SIGNATURES_MAX_BYTES
    signatures.write_bytes(b"x" * (SIGNATURES_MAX_BYTES + 1))
    with pytest.raises(PackageError, match=r"Component\.sig: larger"):
        read_signatures(str(source))
    for make in (_link, _fifo):
        signatures.unlink()
        make(signatures)
        with pytest.raises(PackageError, match=r"Component\.sig"):
            read_signatures(str(source))


def _remove(path: Path) -> None:
    path.unlink()


def _to_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _to_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/passwd")


@pytest.mark.parametrize("swap", [_remove, _to_fifo, _to_link])
def test_what_is_swapped_between_two_looks(source: Path, tmp_path: Path, monkeypatch, swap) -> None:
    """Gone, a pipe, a link: told by its name in a line, with no descriptor left; unswapped it is read."""
    before, look = len(os.listdir("/proc/self/fd")), os.stat
    assert read_directory(str(source)).file("a.wasm") is not None

    def look_and_swap(name, *args, **options):
        found = look(name, *args, **options)
        if name == "a.wasm":
            swap(source / name)
        return found

    monkeypatch.setattr(os, "stat", look_and_swap)
    (tmp_path / "copy").mkdir()
    with pytest.raises(PackageError, match=r"a\.wasm: "):
        copy_directory(str(source), str(tmp_path / "copy"))
    assert len(os.listdir("/proc/self/fd")) == before


def test_many_directories_beside_each_other_are_not_open_at_once(source: Path) -> None:
    """Those that wait are names: as many descriptors are open as it is deep."""
    for number in range(64):
        (source / "assets" / f"{number}").mkdir()
        (source / "assets" / f"{number}" / "x").write_text("x")
    before = len(os.listdir("/proc/self/fd"))
    opened = []
    for found in directory._walk(str(source)):
        opened.append(len(os.listdir("/proc/self/fd")) - before)
        os.close(found.descriptor)
    assert len(opened) == 67
    assert max(opened) == 4


def test_entries_have_a_bound_wherever_they_are(source: Path, monkeypatch) -> None:
    """Six are in it: as many as there may be; one more isn't taken, in no directory."""
    (source / "empty").mkdir()
    monkeypatch.setattr(directory, "_ENTRIES_MAX", 6)
    assert len(read_directory(str(source)).files) == 3
    for place in (".", "assets/deep", "empty"):
        (source / place / "more").write_text("")
        with pytest.raises(PackageError, match="more than 6 files and directories"):
            read_directory(str(source))
        (source / place / "more").unlink()
    (source / "Component.sig").mkdir()
    with pytest.raises(PackageError, match="no regular file"):
        read_signatures(str(source))
