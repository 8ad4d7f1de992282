"""Who else could put something where a package lies: real directories with real owners and modes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ipc.errors import ConfigError
from supervisor.trust.local import exposed_archive, exposed_files, open_place


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
    assert _exposed(place) == [which]
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
    assert _exposed(place) == [which]
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
    beneath = [each for each in exposed_archive(str(archive)) if each.path.startswith(str(place.parent))]
    assert beneath == []
    archive.chmod(0o664)
    place.chmod(0o777)
    beneath = [each for each in exposed_archive(str(archive)) if each.path.startswith(str(place.parent))]
    assert [each.path for each in beneath] == [str(place), str(archive)]
