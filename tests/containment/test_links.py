"""Symbolic links that a component makes, so that it, or whoever else follows them, gets out of what was granted."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Steps, World

AT, RDONLY, DIRECTORY = -100, 0, 0o200000
UP = "../../../../../../.."


@pytest.mark.parametrize(
    ("form", "target"),
    [
        ("absolute", "/etc/passwd"),
        ("relative", "../secret/key"),
        ("to the root", UP),
        ("to what is on the way to the grant", ".."),
        ("down and up again", "d/../../secret"),
        ("through a link that is there", "way-out/key"),
    ],
)
def test_a_guest_makes_no_link_out(sealed: World, bare: World, tree: Path, form: str, target: str) -> None:
    """A link that leads out of the grants, by its words or by what is there, isn't made; one that stays is."""
    (tree / "out/way-out").symlink_to("../secret")
    ran = sealed.run("symlink", target, "out/link", flags=["--write", "out"], cwd=tree)
    assert ran.report.verdict.exit_code == 1, form
    assert not (tree / "out/link").is_symlink()
    if form not in ("absolute", "down and up again"):  # which the engine itself refuses
        assert ("filesystem.write", "A1204") in ran.denied()
    twins = ("symlink", "old.txt", "out/link", ",", "symlink", ".", "out/here")
    twin = sealed.run(*twins, flags=["--write", "out"], cwd=tree)
    assert twin.text.count(": ok") == 2, twin.text
    if form != "absolute":  # which preview 1 refuses everywhere
        assert bare.run("symlink", target, "out/made", cwd=tree).report.verdict.exit_code == 0


def test_two_harmless_links_lead_nowhere_together(sealed: World, bare: World, tree: Path) -> None:
    """`root` to the root, and `root/etc/passwd` through it, by native code in either order: the first isn't made."""
    root = ("root", "symlink", f"s:{UP}", f"s:{tree}/out/root")
    below = ("below", "symlink", "s:root/etc/passwd", f"s:{tree}/out/below")
    for steps in ([root, below], [below, root]):
        ran = sealed.probe(steps, "--write", f"{tree}/out/**")
        assert ran.results["root"] == -errno.EACCES
        assert not (tree / "out/below").exists()
        (tree / "out/below").unlink(missing_ok=True)
    assert bare.probe([root, below]).results == {"root": 0, "below": 0}
    assert (tree / "out/below").read_bytes() == Path("/etc/passwd").read_bytes()


def moved(tree: Path, target: str, to: str) -> Steps:
    """Make a link four directories down, and move the directory that it is in."""
    deep = tree / "out/d/d/d/d"
    shutil.rmtree(tree / "out/d", ignore_errors=True)
    deep.mkdir(parents=True)
    for directory in (deep, *deep.parents[:3]):
        directory.chmod(0o777)
    return [
        ("link", "symlink", f"s:{target}", f"s:{deep}/link"),
        ("move", "rename", f"s:{deep}", f"s:{tree}/out/{to}"),
    ]


def test_a_link_is_not_moved_out_with_its_directory(
    sealed: World, bare: World, tree: Path, own: Callable[[Path], None]
) -> None:
    """What `..` means changes with the place: a directory whose links would lead out stays where it is (EXDEV)."""

    def moving(world: World, target: str, to: str) -> tuple[int, int]:
        steps = moved(tree, target, to)
        own(tree)
        results = world.probe(steps, *([] if world is bare else ["--write", f"{tree}/out/"])).results
        return results["link"], results["move"]

    out_of_it = "../../../../secret/key"
    assert moving(sealed, out_of_it, "up") == (0, -errno.EXDEV), "where it is made it leads into the grant"
    assert (tree / "out/d/d/d/d/link").is_symlink()
    assert moving(sealed, out_of_it, "d/d/d/same-depth") == (0, 0)
    assert moving(sealed, "file", "within") == (0, 0)
    assert moving(bare, out_of_it, "up") == (0, 0)
    assert os.path.realpath(tree / "out/up/link") == str(tree.parent.parent / "secret/key")


def test_a_directory_that_hides_its_links_is_not_moved(sealed: World, tree: Path, own: Callable[[Path], None]) -> None:
    """Where the warden may not list a directory, it can't see its links: it stays; one that it may list is moved."""
    for name in ("hidden", "plain"):
        (tree / "out/a" / name).mkdir(parents=True)
    (tree / "out/b").mkdir()
    own(tree)
    (tree / "out/a/hidden").chmod(0o300)
    steps: Steps = [
        (name, "rename", f"s:{tree}/out/a/{name}", f"s:{tree}/out/b/{name}") for name in ("plain", "hidden")
    ]
    results = sealed.probe(steps, "--write", f"{tree}/out/**").results
    assert results == {"plain": 0, "hidden": -errno.EXDEV}


def test_where_a_link_escapes_does_not_tell_that_it_is_there(sealed: World, bare: World, tree: Path) -> None:
    """Where nothing is granted a link that leads out answers like a name that isn't there; elsewhere it is told."""
    for directory in ("secret", "in"):
        (tree / directory / "absolute").symlink_to("/etc/passwd")
        (tree / directory / "up").symlink_to(UP)
        (tree / directory / "dangling").symlink_to("/nothing/here")
    links = ("absolute", "up", "dangling")

    def asking(directory: str) -> Steps:
        return [
            ("root", "openat", AT, f"s:{tree}", DIRECTORY),
            *(
                (f"{call}_{name}", number, "r:root", f"s:{directory}/{name}{below}", *rest)
                for name in (*links, "none")
                for call, number, below, rest in (
                    ("open", "openat", "", (RDONLY,)),
                    ("stat", "newfstatat", "", ("b:256", 0)),
                    ("beneath", "openat", "/x", (RDONLY,)),
                    ("make", "mkdirat", "/x", (0o700,)),
                )
            ),
        ]

    flags = ("--read", f"{tree}/in/", "--dir", tree)
    answers = sealed.probe(asking("secret"), *flags).results
    assert answers.pop("root") >= 0
    assert set(answers.values()) == {-errno.EACCES}
    granted = sealed.probe(asking("in"), *flags).results
    assert granted["open_absolute"] == granted["open_up"] == granted["open_dangling"] == -errno.EXDEV
    assert granted["open_none"] == -errno.ENOENT
    assert bare.probe(asking("secret")).results["open_absolute"] >= 0
    from_wasm = sealed.run("cat", "secret/absolute", ",", "cat", "secret/none", flags=["--read", "in"], cwd=tree)
    assert from_wasm.text == "cat secret/absolute: EACCES\ncat secret/none: EACCES\n"
