"""Attacks on the rules about files: other names for what is forbidden, more room than was granted."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Steps, World

CREATE = os.O_WRONLY | os.O_CREAT
GIB = 1 << 30


def _aliased(tree: Path, link: str, name: str) -> Steps:
    parent = (Path("v") / name).parent
    return [
        ("link", "symlink", "s:v", f"s:{tree}/out/{link}"),
        ("mkdir", "mkdir", f"s:{tree}/out/v", 0o755),
        ("parent", "mkdir", f"s:{tree}/out/{parent}", 0o755),
        ("file", "openat", -100, f"s:{tree}/out/v/{name}", CREATE, 0o755),
    ]


@pytest.mark.parametrize(
    ("link", "name"),
    [(".vscode", "tasks.json"), (".cargo", "config.toml"), ("tool.git", "hooks/post-checkout"), (".config", "i3/x")],
)
def test_a_link_gives_a_file_no_forbidden_name(sealed: World, bare: World, tree: Path, link: str, name: str) -> None:
    """With a write grant, a harmless file and a symbolic link can't add up to a file that starts programs."""
    ran = sealed.probe(_aliased(tree, link, name), "--write", f"{tree}/out/**")
    assert ran.results["file"] >= 0, "the file itself is harmless and granted"
    assert ran.results["link"] == -errno.EACCES
    assert ("filesystem.write", "A1101") in ran.denied(tree / "out" / link)
    assert not (tree / "out" / link / name).exists()
    ran = sealed.probe([("link", "symlink", "s:v", f"s:{tree}/out/current")], "--write", f"{tree}/out/**")
    assert ran.results["link"] == 0
    assert (tree / "out/current" / name).exists(), "a link with another name leads there"
    bare.probe([("link", "symlink", f"s:{tree}/out/v", f"s:{tree}/out/{link}")])
    assert (tree / "out" / link / name).exists(), "without the layers the link is made"


def test_renaming_a_link_gives_no_forbidden_name(sealed: World, tree: Path) -> None:
    """A link that is made under a harmless name can't be renamed to the other; to a harmless one it can."""
    steps: Steps = [
        ("link", "symlink", "s:v", f"s:{tree}/out/one"),
        ("bad", "rename", f"s:{tree}/out/one", f"s:{tree}/out/.vscode"),
        ("good", "rename", f"s:{tree}/out/one", f"s:{tree}/out/two"),
    ]
    results = sealed.probe(steps, "--write", f"{tree}/out/**").results
    assert (results["link"], results["bad"], results["good"]) == (0, -errno.EACCES, 0)
    assert os.readlink(tree / "out/two") == "v"


def test_a_directory_with_hooks_takes_no_forbidden_name(sealed: World, tree: Path) -> None:
    """A directory that holds what would be hooks can't be renamed to a repository; to a harmless name it can."""
    steps: Steps = [
        ("mkdir", "mkdir", f"s:{tree}/out/v", 0o755),
        ("hooks", "mkdir", f"s:{tree}/out/v/hooks", 0o755),
        ("bad", "rename", f"s:{tree}/out/v", f"s:{tree}/out/tool.git"),
        ("good", "rename", f"s:{tree}/out/v", f"s:{tree}/out/w"),
    ]
    results = sealed.probe(steps, "--write", f"{tree}/out/**").results
    assert (results["hooks"], results["bad"], results["good"]) == (0, -errno.EXDEV, 0)


@pytest.mark.parametrize("mode", [0, 1], ids=["grown", "kept"])
def test_space_is_not_reserved(sealed: World, bare: World, tree: Path, mode: int) -> None:
    """No program reserves space (the engine answers ENOTSUP by itself): from a worker fallocate ends it.

    FALLOC_FL_KEEP_SIZE (1) would reserve blocks that RLIMIT_FSIZE doesn't count.
    """
    steps: Steps = [
        ("file", "openat", -100, f"s:{tree}/out/big", CREATE, 0o666),
        ("reserve", "fallocate", "r:file", mode, 0, 1 << 20),
        ("after", "getpid"),
    ]
    ran = sealed.probe(steps, "--write", f"{tree}/out/**")
    assert set(ran.results) == {"file"}
    assert ran.ending == ("refused", "A1701")
    (tree / "out/big").unlink()
    (tree / "out/big").touch(0o666)
    (tree / "out/big").chmod(0o666)
    control = bare.probe([("file", "openat", -100, f"s:{tree}/out/big", os.O_WRONLY, 0), *steps[1:]])
    assert control.results["reserve"] == 0
    assert (tree / "out/big").stat().st_blocks > 0
