"""What `--write-manifest` takes from a run beside the patterns: mounts, the place of the file, the disk."""

import os
from pathlib import Path

import pytest

from ipc.errors import ConfigError
from supervisor.cli.run_manifest import LocalDisk, _needed_mounts, _told, check_manifest_place

MOUNTS = (
    ("/", "/"),
    ("/srv", "/srv"),
    ("/opt", "/opt"),
    ("/srv/p/in", "/srv/p/in"),
    ("/d", "/srv/data"),
    (".", "/srv/p"),
)
HERE = (".", "/srv/p")


@pytest.mark.parametrize(
    ("used", "named", "expected"),
    [
        ([], (), [HERE]),
        (["/srv/p/in/a"], (), [HERE]),
        (["/srv/p/in/a"], ("/srv/p/in/a",), [("/srv", "/srv"), HERE]),
        (["/srv/p/in/a"], ("--from=/srv/p/in",), [("/srv", "/srv"), HERE]),
        (["/srv/p/in/a"], ("/srvx/p/in/a",), [HERE]),
        (["/srv/other"], (), [("/srv", "/srv"), HERE]),
        (["/opt/x", "/srv/p/a"], (), [("/opt", "/opt"), HERE]),
        (["/srv/data/x"], (), [("/srv", "/srv"), ("/d", "/srv/data"), HERE]),
    ],
)
def test_mounts_are_written_where_a_name_needs_them(
    used: list[str], named: tuple[str, ...], expected: list[tuple[str, str]]
) -> None:
    """What is used in the working directory by relative names needs only `.`, which comes last."""
    mounts, unnamed = _needed_mounts(MOUNTS, used, named)
    assert list(mounts) == expected
    assert unnamed == []


@pytest.mark.parametrize(
    ("guest", "name"),
    [("/d", "/d"), ("d", "/d"), ("./d", "/d"), ("d/", "/d"), ("../d", None), ("a/../d", None), ("/a\nb", None)],
)
def test_a_name_that_no_manifest_can_give_is_told(guest: str, name: str | None) -> None:
    """Relative names are written as what they mean; what can't be written is named in a note."""
    mounts, unnamed = _needed_mounts(((guest, "/srv/data"), HERE), ["/srv/data/x"], ())
    assert list(mounts) == ([(name, "/srv/data"), HERE] if name else [HERE])
    assert unnamed == ([] if name else [guest])


def test_a_mount_is_needed_by_its_real_directory(tmp_path: Path) -> None:
    """What is used beneath a link such as /lib is recorded by its real name, and the link is what was mounted."""
    real = tmp_path / "usr-lib"
    real.mkdir()
    link = tmp_path / "lib"
    link.symlink_to(real)
    mounts, _ = _needed_mounts(((str(link), str(link)), HERE), [f"{real}/x"], ())
    assert list(mounts) == [(str(link), str(link)), HERE]


def test_the_place_of_the_file_is_checked_before_anything_runs(tmp_path: Path) -> None:
    """It must be new, writable, beside or above the program, and where a component can be."""
    (tmp_path / "deep").mkdir()
    program = tmp_path / "deep" / "prog.wasm"
    program.touch()
    check_manifest_place(str(tmp_path / "Component.toml"), str(program))
    check_manifest_place(str(tmp_path / "deep" / "Component.toml"), str(program))
    (tmp_path / "there").touch()
    (tmp_path / "other").mkdir()
    (tmp_path / "[x]").mkdir()
    (tmp_path / "[x]" / "prog.wasm").touch()
    (tmp_path / "two\nlines.wasm").touch()
    os.symlink("nowhere", tmp_path / "link")
    for path, wasm, words in (
        ("there", program, "it exists"),
        ("link", program, "it exists"),
        ("missing/x", program, "missing is no directory"),
        ("other/x", program, "beside|beneath"),
        ("[x]/x", tmp_path / "[x]" / "prog.wasm", "no component can be in"),
        ("x", tmp_path / "two\nlines.wasm", "name"),
    ):
        with pytest.raises(ConfigError, match=words):
            check_manifest_place(str(tmp_path / path), str(wasm))


def test_the_local_disk_tells_kinds_and_names(tmp_path: Path) -> None:
    """Files, directories, links and what isn't there; names that aren't text; what can't be listed."""
    (tmp_path / "d").mkdir()
    (tmp_path / "f").touch()
    (tmp_path / "l").symlink_to("f")
    raw = os.fsdecode(bytes(tmp_path) + b"/\xff")
    Path(raw).touch()
    disk = LocalDisk()
    kinds = {name: disk.kind(f"{tmp_path}/{name}") for name in ("d", "f", "l", "none", "\udcff", "a\0b")}
    assert kinds == {
        "d": "directory",
        "f": "file",
        "l": "other",
        "none": "missing",
        "\udcff": "file",
        "a\0b": "missing",
    }
    assert sorted(disk.names(str(tmp_path)) or ()) == ["d", "f", "l", "\udcff"]
    assert disk.names(f"{tmp_path}/f") is None
    assert disk.names(f"{tmp_path}/none") is None


def test_what_was_written_is_told_with_what_is_to_be_done() -> None:
    """One is one, and a file that is too large to be read again is told as such."""
    assert _told("C.toml", 1, 1, 300).startswith("wrote C.toml: 1 pattern for 1 thing used; review it")
    assert "2 patterns for 9 things" in _told("C.toml", 2, 9, 300)
    assert "larger than a manifest may be (256 KiB)" in _told("C.toml", 9_000, 9_000, 300_000)
