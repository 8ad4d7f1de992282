"""Removing what a component left behind, whatever it left."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from supervisor.host.clearing import remove_tree

LEVELS = 3000


def nest(top: Path, levels: int) -> None:
    """Make a directory in a directory in a directory; far longer than a path may be."""
    held = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    for level in range(levels):
        os.mkdir("d", dir_fd=held)
        with open(f"/proc/self/fd/{held}/f", "w") as file:
            file.write(str(level))
        inner = os.open("d", os.O_RDONLY | os.O_DIRECTORY, dir_fd=held)
        os.close(held)
        held = inner
    os.close(held)


def test_the_deepest_nest_is_removed(short_dir: Path) -> None:
    """Three thousand levels: a recursion would end at a thousand, a path at four thousand characters."""
    nest(short_dir, LEVELS)
    top = short_dir.with_name(f"{short_dir.name}-x")
    top.mkdir()
    os.rename(short_dir / "d", top / "d")
    remove_tree(str(top))
    assert not top.exists()


def test_links_are_removed_and_not_followed(short_dir: Path) -> None:
    """What a symbolic link leads to stays as it was, and so does what has another name elsewhere."""
    kept, top = short_dir / "kept", short_dir / "top"
    (top / "d").mkdir(parents=True)
    kept.mkdir()
    (kept / "file").write_text("kept")
    (top / "to-file").symlink_to(kept / "file")
    (top / "d/to-directory").symlink_to(kept)
    os.link(kept / "file", top / "d/again")
    remove_tree(str(top))
    assert not top.exists()
    assert (kept / "file").read_text() == "kept"


@pytest.mark.parametrize("mode", [0, 0o300, 0o500])
def test_what_its_owner_may_not_enter_is_removed(short_dir: Path, mode: int) -> None:
    """A directory without the rights to list, pass through or write it."""
    top = short_dir / "top"
    (top / "a/b").mkdir(parents=True)
    (top / "a/b/file").write_text("x")
    (top / "a/b").chmod(mode)
    (top / "a").chmod(mode)
    remove_tree(str(top))
    assert not top.exists()


def test_what_is_not_there_is_no_error(short_dir: Path) -> None:
    """Nothing to remove, or a name that is no directory: nothing happens."""
    (short_dir / "file").write_text("x")
    remove_tree(str(short_dir / "nothing"))
    remove_tree(str(short_dir / "file"))
    assert (short_dir / "file").read_text() == "x"
