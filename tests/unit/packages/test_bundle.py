"""A bundle's bytes follow from its package alone, and unpack to it; the control is another reader, Python's own."""

from __future__ import annotations

import io
import os
import tarfile
import zlib
from pathlib import Path

import pytest
from archives import MANIFEST, WASM

from ipc.errors import ConfigError
from supervisor.manifest import load_manifest
from supervisor.packages.archive import unpack_archive
from supervisor.packages.bundle import Bundle, pack
from supervisor.packages.contents import PackageError
from supervisor.packages.directory import read_directory

LONG = f"{'d' * 120}/{'ä' * 60}"
FILES = {"Component.toml": MANIFEST, "thing.wasm": WASM, LONG: b"x", "B": b"1", "a": bytes(1_000)}


def component(directory: Path, files: dict[str, bytes]) -> Path:
    """Make a component directory."""
    for name, data in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(data)
    return directory


def bundle(directory: Path, output: Path) -> Bundle:
    """Pack it."""
    return pack(str(directory), load_manifest(str(directory)), str(output))


def test_the_same_package_gives_the_same_bytes(tmp_path: Path) -> None:
    """Whoever made its files, when, in which order and with which modes; what is no part of it isn't in it."""
    one = component(tmp_path / "one", FILES)
    other = component(tmp_path / "other", dict(reversed(FILES.items())) | {".git/x": b"", ".airssys/y": b""})
    (other / "thing.wasm").chmod(0o755)
    os.utime(other / "a", (0, 0))
    made = [bundle(one, tmp_path / "1.tar.gz"), bundle(other, tmp_path / "2.tar.gz")]
    assert (tmp_path / "1.tar.gz").read_bytes() == (tmp_path / "2.tar.gz").read_bytes()
    assert made[0].digest == made[1].digest == read_directory(str(one)).digest
    assert made[0].size_bytes == (tmp_path / "1.tar.gz").stat().st_size
    assert not made[0].is_signed


def test_what_is_packed_is_unpacked_and_packed_again(tmp_path: Path) -> None:
    """The same contents and signatures come out, and of these the same bytes."""
    made = bundle(component(tmp_path / "one", {**FILES, "Component.sig": b"sig"}), tmp_path / "1.tar.gz")
    destination = tmp_path / "unpacked"
    destination.mkdir()
    contents, signatures, sha256 = unpack_archive(made.path, str(destination))
    assert (contents.digest, signatures, sha256) == (made.digest, b"sig", made.sha256)
    assert made.is_signed
    (destination / "Component.sig").write_bytes(signatures)
    bundle(destination, tmp_path / "2.tar.gz")
    assert (tmp_path / "1.tar.gz").read_bytes() == (tmp_path / "2.tar.gz").read_bytes()


def test_other_programs_read_it(tmp_path: Path) -> None:
    """Regular files of nobody's, from no time, in the order of their names' bytes; gzip's header has no time either."""
    made = bundle(component(tmp_path / "one", FILES), tmp_path / "1.tar.gz")
    data = Path(made.path).read_bytes()
    assert data[:8] == b"\x1f\x8b\x08\0\0\0\0\0"
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        members = archive.getmembers()
        read = {each.name: file.read() for each in members if (file := archive.extractfile(each)) is not None}
    assert read == FILES
    assert [each.name for each in members] == sorted(FILES, key=str.encode)
    assert {(each.mtime, each.uid, each.gid, each.uname, each.mode) for each in members} == {(0, 0, 0, "", 0o644)}
    assert len(zlib.decompress(data, 31)) % tarfile.RECORDSIZE == 0


def test_what_is_no_package_is_not_packed(tmp_path: Path) -> None:
    """A link in it is refused, and no file is begun; without it, it is packed."""
    one = component(tmp_path / "one", FILES)
    (one / "link").symlink_to("/etc/passwd")
    with pytest.raises(PackageError, match="link: a symbolic link"):
        bundle(one, tmp_path / "1.tar.gz")
    assert os.listdir(tmp_path) == ["one"]
    (one / "link").unlink()
    assert bundle(one, tmp_path / "1.tar.gz").files == len(FILES)


def test_a_bundle_is_not_written_into_its_package(tmp_path: Path) -> None:
    """It would be a part of the next one."""
    one = component(tmp_path / "one", FILES)
    for output in (one / "x.tar.gz", one / LONG.partition("/")[0] / "x.tar.gz"):
        with pytest.raises(ConfigError, match="in the package itself"):
            bundle(one, output)


def test_where_a_bundle_cant_be_written(tmp_path: Path) -> None:
    """A directory in its place, and a directory that isn't there; what was there before stays."""
    one = component(tmp_path / "one", FILES)
    (tmp_path / "d").mkdir()
    with pytest.raises(ConfigError, match="a directory"):
        bundle(one, tmp_path / "d")
    with pytest.raises(ConfigError, match="no such file"):
        bundle(one, tmp_path / "missing/x.tar.gz")
    (tmp_path / "x.tar.gz").write_bytes(b"before")
    bundle(one, tmp_path / "x.tar.gz")
    assert (tmp_path / "x.tar.gz").stat().st_size > 100
    assert sorted(os.listdir(tmp_path)) == ["d", "one", "x.tar.gz"]


def test_a_manifest_that_changes_meanwhile_is_noticed(tmp_path: Path) -> None:
    """What was checked is what is packed, or nothing is."""
    one = component(tmp_path / "one", FILES)
    manifest = load_manifest(str(one))
    (one / "Component.toml").write_bytes(MANIFEST + b"# another\n")
    with pytest.raises(PackageError, match="changed while it was read"):
        pack(str(one), manifest, str(tmp_path / "x.tar.gz"))
