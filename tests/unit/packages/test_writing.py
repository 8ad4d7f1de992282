"""A package that comes as a stream is written beneath one directory, name by name, or not at all."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from supervisor.packages.contents import (
    MANIFEST_FILE,
    SIGNATURE_FILE,
    SIGNATURES_MAX_BYTES,
    TOTAL_MAX_BYTES,
    Contents,
    PackageError,
)
from supervisor.packages.directory import read_directory
from supervisor.packages.writing import ENTRIES_MAX, PackageWriter, clear_directory


def write(destination: Path, files: dict[str, bytes], directories: tuple[str, ...] = ()) -> tuple[Contents, bytes]:
    """Write these files, in this order."""
    writer = PackageWriter(str(destination))
    for path in directories:
        writer.note_directory(path)
    for path, data in files.items():
        writer.write(path, len(data), io.BytesIO(data).read)
    return writer.finish()


def test_what_is_written_is_what_is_there(tmp_path: Path) -> None:
    """The contents that are named are those of the directory, which others can't write."""
    contents, signatures = write(tmp_path, {MANIFEST_FILE: b"x", "a/b/c": b"", "a/d": bytes(3_000_000)}, ("a", "e"))
    assert contents == read_directory(str(tmp_path))
    assert signatures == b""
    assert not (tmp_path / "e").exists()
    assert (tmp_path / "a/d").stat().st_mode & 0o7022 == 0


def test_signatures_are_taken_out(tmp_path: Path) -> None:
    """They are no part of the package, and no file of the directory; one elsewhere in it is a file like any other."""
    contents, signatures = write(tmp_path, {MANIFEST_FILE: b"x", SIGNATURE_FILE: b"sig", f"a/{SIGNATURE_FILE}": b"y"})
    assert signatures == b"sig"
    assert sorted(os.listdir(tmp_path)) == [MANIFEST_FILE, "a"]
    assert contents == read_directory(str(tmp_path))


def test_too_many_signatures_are_refused(tmp_path: Path) -> None:
    """They are read whole, so they are bounded."""
    with pytest.raises(PackageError, match="larger than 1 MiB"):
        write(tmp_path, {MANIFEST_FILE: b"x", SIGNATURE_FILE: bytes(SIGNATURES_MAX_BYTES + 1)})


def test_one_directory_that_holds_everything_is_the_package(tmp_path: Path) -> None:
    """The same package comes of it as without; also where it holds a directory of its own name."""
    files = {MANIFEST_FILE: b"x", "a/b": b"y", "top/top/c": b"z"}
    plain, _ = write(_made(tmp_path / "plain"), files)
    lifted, signatures = write(
        _made(tmp_path / "lifted"),
        {f"top/{path}": data for path, data in files.items()} | {f"top/{SIGNATURE_FILE}": b"sig"},
        ("top", "top/a"),
    )
    assert lifted == plain == read_directory(str(tmp_path / "lifted"))
    assert signatures == b"sig"


def _made(directory: Path) -> Path:
    directory.mkdir()
    return directory


@pytest.mark.parametrize(
    ("paths", "directories"),
    [
        (("top/Component.toml", "other"), ()),
        (("top/Component.toml",), ("other",)),
        (("top/a/Component.toml",), ()),
        (("a/Component.toml", "b/Component.toml"), ()),
        (("A/Component.toml", "a/x"), ()),
    ],
)
def test_more_than_one_directory_is_no_package(
    paths: tuple[str, ...], directories: tuple[str, ...], tmp_path: Path
) -> None:
    """Where it isn't plain which directory is meant, none is."""
    with pytest.raises(PackageError, match=r"no Component.toml in it|the same name as"):
        write(tmp_path, dict.fromkeys(paths, b""), directories)


def test_a_manifest_at_the_top_wins(tmp_path: Path) -> None:
    """With one there, a directory with another is a directory with a file."""
    contents, _ = write(tmp_path, {MANIFEST_FILE: b"x", f"top/{MANIFEST_FILE}": b"y"})
    assert [each.path for each in contents.files] == [MANIFEST_FILE, f"top/{MANIFEST_FILE}"]


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("../x", "plain path"),
        ("/etc/x", "plain path"),
        ("a/../../x", "plain path"),
        ("a/./x", "plain path"),
        ("", "plain path"),
        ("x/", "plain path"),
        ("a\0b", "characters"),
        ("a\nb", "characters"),
        ("a\\b", "characters"),
        ("a\udcff", "UTF-8"),
        (".git/hooks/x", "no part"),
        (".airssys/x", "no part"),
        ("x" * 300, "too long"),
        ("/".join("x" * 40), "deep"),
        (MANIFEST_FILE, "the same name"),
        ("component.TOML", "the same name"),
        (f"{MANIFEST_FILE}/x", "the same name"),
        ("B/x", "the same name"),
        ("b", "the same name"),
        ("b/a/x", "the same name"),
    ],
)
def test_a_name_that_is_refused_makes_nothing(path: str, why: str, tmp_path: Path) -> None:
    """Nothing is written outside, and none of these is a package, whatever is beside it."""
    place = _made(tmp_path / "place")
    writer = PackageWriter(str(place))
    for earlier in (MANIFEST_FILE, "b/a"):
        writer.write(earlier, 1, io.BytesIO(b"x").read)
    with pytest.raises(PackageError, match=why):
        _write_and_finish(writer, path)
    assert os.listdir(tmp_path) == ["place"]


def _write_and_finish(writer: PackageWriter, *paths: str, size_bytes: int = 1) -> None:
    for path in paths:
        writer.write(path, size_bytes, io.BytesIO(b"x").read)
    writer.finish()


def test_directories_are_judged_like_files(tmp_path: Path) -> None:
    """A directory whose name no file could have beneath it is refused, though none is made."""
    for path in ("../x", "/x", "a\0b", ".git"):
        with pytest.raises(PackageError):
            PackageWriter(str(tmp_path)).note_directory(path)
    assert os.listdir(tmp_path) == []


def test_a_size_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    """42 TB are refused by the number alone; also together with what came before."""

    writer = PackageWriter(str(tmp_path))
    writer.write("a", 1, io.BytesIO(b"x").read)
    for size_bytes in (42 * 10**12, TOTAL_MAX_BYTES):
        with pytest.raises(PackageError, match="larger than 2 GiB"):
            _write_and_finish(writer, "b", size_bytes=size_bytes)
    assert os.listdir(tmp_path) == ["a"]


def test_entries_are_counted(tmp_path: Path) -> None:
    """Directories of which nothing is made count as well."""
    writer = PackageWriter(str(tmp_path))
    for number in range(ENTRIES_MAX):
        writer.note_directory(f"d{number}")
    with pytest.raises(PackageError, match="entries"):
        writer.note_directory("d")


def test_a_link_that_is_put_there_meanwhile_is_not_followed(tmp_path: Path) -> None:
    """The directory is ours alone; even so nothing is written through a link in it."""
    place, outside = _made(tmp_path / "place"), _made(tmp_path / "outside")
    (place / "a").symlink_to(outside)
    (place / "b").symlink_to(outside / "b")
    for path in ("a/x", "b"):
        with pytest.raises(PackageError):
            write(place, {path: b"x"})
    assert os.listdir(outside) == []


def test_clearing_leaves_the_directory_and_follows_no_link(tmp_path: Path) -> None:
    """Whatever is in it goes; what a link of it names stays."""
    place, outside = _made(tmp_path / "place"), _made(tmp_path / "outside")
    (outside / "kept").write_bytes(b"")
    write(place, {MANIFEST_FILE: b"x", "a/b": b"y"})
    (place / "link").symlink_to(outside)
    clear_directory(str(place))
    assert os.listdir(place) == []
    assert os.listdir(outside) == ["kept"]
