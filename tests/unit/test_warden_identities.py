"""Forbidden objects under another name: found by listing a home or by asking, by inode, by hard link."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ipc.policy.forbidden import NamedObjects
from ipc.warden import identities
from ipc.warden.identities import ForbiddenIdentities

NAMES = (".ssh", ".netrc", ".config/gh", ".config/app/token", ".config/x", ".config/y/z", ".Config/app/token")
NOTHING = NamedObjects()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with a directory of keys, a file, a nested one, and things that are nobody's business."""
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    (home / ".ssh/id").write_text("key")
    (home / ".netrc").write_text("password")
    (home / ".config/app").mkdir(parents=True)
    (home / ".config/app/token").write_text("token")
    (home / "notes").write_text("mine")
    return home


def found(of: ForbiddenIdentities, path: Path) -> tuple[str, str]:
    """What is known of the object at this path."""
    return of.find(os.lstat(path))


@pytest.mark.parametrize("worth", [1, identities._WORTH_LISTING, 100])
@pytest.mark.parametrize("most", [identities._LISTED_ENTRIES_MAX, 1])
def test_names_in_homes_are_found(home: Path, monkeypatch: pytest.MonkeyPatch, most: int, worth: int) -> None:
    """Whether a directory is listed or, for the number of its names, asked name by name: the same objects are found."""
    monkeypatch.setattr(identities, "_LISTED_ENTRIES_MAX", most)
    monkeypatch.setattr(identities, "_WORTH_LISTING", worth)
    known = ForbiddenIdentities(NamedObjects(homes=(str(home),), in_homes=NAMES), NOTHING)
    for name in (".ssh", ".netrc", ".config/app/token"):
        assert found(known, home / name) == (str(home / name), "")
    assert found(known, home / "notes") == ("", "")
    assert found(known, home) == ("", "")


def test_names_that_differ_in_case_are_looked_at(home: Path) -> None:
    """A listing is compared without regard to case, since the file system may fold it; lstat(2) decides."""
    (home / ".netrc").rename(home / ".NetRC")
    known = ForbiddenIdentities(NamedObjects(homes=(str(home),), in_homes=(".netrc", ".NetRC")), NOTHING)
    assert found(known, home / ".NetRC") == (str(home / ".NetRC"), "")


def test_a_link_on_the_way_is_followed(home: Path) -> None:
    """Names beneath a directory that is a symbolic link are those of where it leads, as lstat(2) takes them."""
    (home / ".config").rename(home / "elsewhere")
    (home / ".config").symlink_to("elsewhere")
    known = ForbiddenIdentities(NamedObjects(homes=(str(home),), in_homes=NAMES), NOTHING)
    assert found(known, home / "elsewhere/app/token") == (str(home / ".config/app/token"), "")


def test_homes_that_are_not_there_are_left_out(home: Path) -> None:
    """A home that doesn't exist, or is a file, holds nothing and is no error."""
    objects = NamedObjects(homes=(str(home / "missing"), str(home / "notes")), in_homes=NAMES)
    assert found(ForbiddenIdentities(objects, NOTHING), home / "notes") == ("", "")


def test_a_hard_link_is_its_object(home: Path, tmp_path: Path) -> None:
    """A second name of a file in a forbidden directory is found, a second name of another file is not."""
    os.link(home / ".ssh/id", tmp_path / "alias")
    os.link(home / "notes", tmp_path / "twin")
    known = ForbiddenIdentities(NamedObjects(paths=(str(home / ".ssh"),)), NOTHING)
    assert found(known, tmp_path / "alias")[0] == str(home / ".ssh/id")
    assert found(known, tmp_path / "twin") == ("", "")


def test_what_is_only_forbidden_to_write_is_told_apart(home: Path, tmp_path: Path) -> None:
    """The second answer is of what may be read and not changed; the system's own trees are not searched for it."""
    os.link(home / ".netrc", tmp_path / "alias")
    system = tmp_path / "usr"
    system.mkdir()
    (system / "tool").write_text("x")
    os.link(system / "tool", tmp_path / "tool")
    writing = NamedObjects(paths=(str(system),), homes=(str(home),), in_homes=(".netrc",))
    known = ForbiddenIdentities(NOTHING, writing)
    assert found(known, tmp_path / "alias") == ("", str(home / ".netrc"))
    assert found(known, system) == ("", str(system))
    assert found(known, tmp_path / "tool") == ("", "")
