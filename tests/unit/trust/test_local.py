"""Who else could put something where a package lies: real directories with real owners and modes."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from ipc.errors import ConfigError
from supervisor.packages.provenance import Provenance
from supervisor.trust.local import exposed_files, exposures_of, open_place


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with a package, which nobody else can write."""
    package = tmp_path / "components" / "csv"
    (package / "data").mkdir(parents=True)
    (package / "a.wasm").write_bytes(b"\0asm")
    (package / "data" / "words").write_text("x")
    for path in (tmp_path / "components", package, package / "data"):
        path.chmod(0o755)
    for path in (package / "a.wasm", package / "data" / "words"):
        path.chmod(0o644)
    return package.resolve()


def _exposed(place: Path) -> list[str]:
    descriptor, exposed = open_place(str(place))
    try:
        found = (*exposed, *exposed_files(descriptor, str(place), ["a.wasm", "data/words"]))
    finally:
        os.close(descriptor)
    top = str(place.parent)
    return [os.path.relpath(each.path, top) for each in found if f"{each.path}/".startswith(f"{top}/")]


def test_what_nobody_else_can_write_is_not_exposed(place: Path) -> None:
    """Directories of 0755 and files of 0644 that are ours."""
    assert _exposed(place) == []


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o1777, 0o757, 0o2775])
@pytest.mark.parametrize("which", [".", "csv", "csv/data"])
def test_a_directory_that_others_can_write(place: Path, mode: int, which: str) -> None:
    """Its group or everybody, with the sticky bit as well: on the way, the package itself, or within it."""
    (place.parent / which).chmod(mode)
    exchanged = ["csv"] if which == "." and not mode & stat.S_ISVTX else []
    assert _exposed(place) == [which, *exchanged]
    (place.parent / which).chmod(0o755)
    assert _exposed(place) == []


@pytest.mark.parametrize("which", ["csv/a.wasm", "csv/data/words"])
def test_a_file_that_others_can_write(place: Path, which: str) -> None:
    """A file's bytes are part of the package."""
    (place.parent / which).chmod(0o666)
    assert _exposed(place) == [which]


@pytest.mark.needs_root
@pytest.mark.parametrize("which", [".", "csv", "csv/a.wasm"])
def test_what_belongs_to_somebody_else(place: Path, which: str) -> None:
    """An owner can always write, whatever the mode says now."""
    os.chown(place.parent / which, 65534, 0)
    assert _exposed(place) == [which, *(["csv"] if which == "." else [])]
    descriptor, exposed = open_place(str(place))
    os.close(descriptor)
    assert any(each.why == "belongs to uid 65534" for each in exposed) == (which != "csv/a.wasm")


def test_a_file_that_is_gone_is_exposed(place: Path) -> None:
    """What can't be looked at any more isn't vouched for."""
    descriptor, _ = open_place(str(place))
    try:
        (place / "a.wasm").unlink()
        exposed = exposed_files(descriptor, str(place), ["a.wasm"])
    finally:
        os.close(descriptor)
    assert [each.path for each in exposed] == [str(place / "a.wasm")]


def test_no_link_is_followed_on_the_way(place: Path) -> None:
    """A path with a link in it isn't a real one: whoever swaps one in gets an error."""
    (place.parent / "link").symlink_to(place)
    (place.parent.parent / "up").symlink_to(place.parent)
    for path in (place.parent / "link", place.parent.parent / "up" / "csv"):
        with pytest.raises(ConfigError):
            open_place(str(path))
    with pytest.raises(ConfigError):
        open_place(str(place / "a.wasm"))


def test_an_archive_is_as_safe_as_its_directory(place: Path) -> None:
    """The file and each directory on the way are looked at."""
    archive = place / "a.tar.gz"
    archive.write_bytes(b"x")
    archive.chmod(0o644)
    origin = Provenance("archive", str(archive))
    assert _beneath(place, origin) == []
    archive.chmod(0o664)
    place.chmod(0o1777)
    assert _beneath(place, origin) == [str(place), str(archive)]


def _beneath(place: Path, origin: Provenance, files: tuple[str, ...] = ()) -> list[str]:
    exposed = exposures_of(origin, files)
    assert exposed is not None
    return [each.path for each in exposed if each.path.startswith(str(place.parent))]


def test_what_lies_where_others_can_rename_is_exposed_itself(place: Path) -> None:
    """However far above, for a directory, an archive and a repository; the sticky bit keeps them from it."""
    archive = place.parent / "a.tar.gz"
    archive.write_bytes(b"x")
    archive.chmod(0o644)
    top = place.parent.parent
    origins = (
        Provenance("directory", str(place)),
        Provenance("archive", str(archive)),
        Provenance("git", f"file://{place}"),
    )
    for mode in (0o777, 0o775):
        top.chmod(mode)
        assert [_beneath(place, origin) for origin in origins] == [[str(place)], [str(archive)], [str(place)]]
    for mode in (0o1777, 0o755):
        top.chmod(mode)
        assert [_beneath(place, origin) for origin in origins] == [[], [], []]


def test_a_repository_of_this_machine_is_as_safe_as_its_references(place: Path) -> None:
    """Bare or not: its directory, what lies at its top, and each reference; through a link it isn't looked at."""
    for url, top in ((f"file://{place}", place), (f"git+file://{place}", place / ".git")):
        origin = Provenance("git", url)
        (top / "refs" / "heads").mkdir(parents=True)
        (top / "reftable").mkdir()
        for path in (top, top / "refs", top / "refs" / "heads", top / "reftable"):
            path.chmod(0o755)
        for path in (top / "HEAD", top / "refs" / "heads" / "main", top / "reftable" / "tables.list"):
            path.write_text("x")
            path.chmod(0o644)
        assert _beneath(place, origin) == []
        references = (top / "refs", top / "refs" / "heads" / "main", top / "reftable" / "tables.list")
        for path in (top / "HEAD", *references):
            mode = path.stat().st_mode
            path.chmod(0o777)
            assert _beneath(place, origin) == [str(path)]
            path.chmod(mode)
    (place.parent / "link").symlink_to(place)
    linked = exposures_of(Provenance("git", f"file://{place.parent}/link"))
    assert [each.path for each in linked or ()] == [f"{place.parent}/link"]
    (place / ".git" / "commondir").write_text("/elsewhere")
    assert _beneath(place, Provenance("git", f"file://{place}")) == [str(place / ".git" / "commondir")]
    (place / ".git" / "commondir").unlink()
    (place / "HEAD").unlink()
    (place / "HEAD").symlink_to("refs/heads/main")
    assert _beneath(place, Provenance("git", f"file://{place}")) == [str(place / "HEAD")]


def test_what_is_elsewhere_or_gone(place: Path) -> None:
    """Of another host nothing is looked at; a path that isn't there is exposed, and so is a file of it."""
    for kind, url in (("git", "https://h.example/x"), ("oci", "h.example/x"), ("git", "file://other/x")):
        assert exposures_of(Provenance(kind, url)) is None
    gone = exposures_of(Provenance("directory", f"{place}/gone"))
    assert [each.path for each in gone or ()] == [f"{place}/gone"]
    directory = Provenance("directory", str(place))
    assert _beneath(place, directory, ("a.wasm", "data/words")) == []
    (place / "a.wasm").chmod(0o666)
    assert _beneath(place, directory, ("a.wasm", "data/words")) == [str(place / "a.wasm")]
