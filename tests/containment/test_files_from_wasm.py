"""File attacks by a WebAssembly program, each beside its granted twin or the same attack where no layer is on."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import World


# ---- no grant at all


@pytest.mark.parametrize(
    "attack",
    [
        ("cat", "in/a.txt"),
        ("cat", "/etc/passwd"),
        ("stat", "in/a.txt"),
        ("ls", "in"),
        ("write", "out/new", "x"),
        ("append", "out/old.txt", "x"),
        ("unlink", "out/old.txt"),
        ("mkdir", "out/d"),
        ("rename", "out/old.txt", "out/new"),
        ("link", "in/a.txt", "out/l"),
        ("symlink", "a.txt", "out/s"),
        ("readlink", "in/to"),
        ("utimes", "out/old.txt", "1"),
        ("trunc", "out/old.txt", "0"),
    ],
    ids=" ".join,
)
def test_without_a_grant_nothing_can_be_done(sealed: World, bare: World, tree: Path, attack: tuple[str, ...]) -> None:
    """Every kind of file call works where no layer is on, and is refused, recorded and without effect here."""
    (tree / "in/to").symlink_to("a.txt")
    before = _snapshot(tree)
    ran = sealed.run(*attack, cwd=tree)
    assert ran.report.verdict.exit_code == 1
    assert "EACCES" in ran.text
    assert ran.report.tally.denied >= 1
    assert ran.report.tally.allowed == 0
    assert ran.denied()
    assert _snapshot(tree) == before
    if attack[0] == "utimes":  # another's file: only its owner may, and a worker owns none
        assert sealed.run(*attack, flags=["--write", "out"], cwd=tree).report.verdict.exit_code == 0
    else:
        assert bare.run(*attack, cwd=tree).report.verdict.exit_code == 0


def _snapshot(tree: Path) -> dict[str, object]:
    return {
        str(path): (path.lstat().st_ino, path.lstat().st_mtime_ns, path.is_file() and path.read_bytes())
        for path in (tree, *tree.rglob("*"))
    }


# ---- out of the granted directory


@pytest.mark.parametrize(
    "name",
    [
        "../secret/key",
        "in/../secret/key",
        "./in/sub/../../secret/./key",
        "in//..//secret/key",
        "{tree}/secret/key",
        "{tree}/in/../secret/key",
        "/proc/self/root{tree}/secret/key",
        "/proc/self/cwd/../secret/key",
        "/proc/1/root{tree}/secret/key",
    ],
)
def test_dot_dot_and_absolute_paths_lead_nowhere(sealed: World, tree: Path, name: str) -> None:
    """The secret stays unread by every spelling of its name; the same spellings of a granted file give that."""
    ran = sealed.run("cat", name.format(tree=tree), flags=["--read", "in"], cwd=tree)
    assert ran.report.verdict.exit_code == 1
    assert "the key" not in ran.text
    if "proc" not in name and not name.startswith(".."):
        assert sealed.run("cat", name.format(tree=tree), flags=["--read", tree], cwd=tree).text == "the key"


@pytest.mark.parametrize("form", ["absolute", "relative", "nested", "chain", "trailing slash", "directory", "parent"])
def test_symbolic_links_out_are_judged_on_their_target(sealed: World, tree: Path, form: str) -> None:
    """A link out of the granted directory gives nothing, whatever its form; with the target granted too it does."""
    links = {  # by form: the link, its target, and what is opened
        "absolute": ("in/link", f"{tree}/secret/key", "in/link"),
        "relative": ("in/link", "../secret/key", "in/link"),
        "nested": ("in/sub/hop", "../../secret", "in/sub/hop/key"),
        "chain": ("in/link", "first", "in/link"),
        "trailing slash": ("in/link", "../secret/", "in/link/key"),
        "directory": ("in/link", "../secret", "in/link/../secret/key"),
        "parent": ("in/link", "..", "in/link/secret/key"),
    }
    link, target, opened = links[form]
    (tree / "in/first").symlink_to("second")
    (tree / "in/second").symlink_to("../secret/key")
    (tree / link).symlink_to(target)
    ran = sealed.run("cat", opened, ",", "stat", opened, flags=["--read", "in"], cwd=tree)
    assert ran.report.verdict.exit_code == 1
    assert "the key" not in ran.text
    assert "ok" not in ran.text
    assert ran.denied()
    granted = sealed.run("cat", opened, flags=["--read", "in", "--read", "secret"], cwd=tree)
    if form == "absolute":
        assert granted.report.verdict.exit_code == 1  # a preview 1 program never follows an absolute link
        assert sealed.run("cat", f"{tree}/secret/key", flags=["--read", "secret"], cwd=tree).text == "the key"
    else:
        assert granted.text == "the key"


def test_a_link_that_is_swapped_in_a_loop_never_gives_the_secret(sealed: World, tree: Path) -> None:
    """While another process swaps a name between a granted file and a link out, reads give the one or nothing."""
    swapped, done, swaps = tree / "in/swapped", threading.Event(), 0
    swapped.write_text("alpha")
    swapped.chmod(0o666)

    def swap() -> None:
        nonlocal swaps
        new = tree / "in/.new"
        while not done.is_set():
            new.symlink_to("../secret/key")
            new.rename(swapped)
            new.symlink_to("a.txt")
            new.rename(swapped)
            swaps += 1

    thread = threading.Thread(target=swap)
    thread.start()
    text, until = "", time.monotonic() + 60
    try:
        commands = [word for _ in range(150) for word in ("cat", "in/swapped", ",")]
        # On a busy machine the one or the other may not get to run while the other does.
        while not ("alpha" in text and "EACCES" in text) and time.monotonic() < until:
            text += sealed.run(*commands, flags=["--read", "in"], cwd=tree).text
    finally:
        done.set()
        thread.join()
    assert "the key" not in text
    assert "alpha" in text, "the control never read the granted file"
    assert "EACCES" in text, "the swap was never seen"
    assert swaps > 0


# ---- from read-only to writable


@pytest.mark.parametrize("how", ["link", "rename"])
def test_a_new_name_does_not_make_a_read_only_file_writable(sealed: World, tree: Path, how: str) -> None:
    """A file that may only be read is neither linked nor moved to where it could be written; a writable one is."""
    flags = ["--read", "in", "--write", "out", "--read", "out"]
    ran = sealed.run(how, "in/a.txt", "out/mine", ",", "overwrite", "out/mine", "X", flags=flags, cwd=tree)
    assert ran.text.count(": ok") == 0
    assert (tree / "in/a.txt").read_text() == "alpha"
    assert not (tree / "out/mine").exists()
    assert ran.denied()
    twin = sealed.run(how, "out/old.txt", "out/mine", ",", "overwrite", "out/mine", "X", flags=flags, cwd=tree)
    assert twin.text.count(": ok") == 2
    assert (tree / "out/mine").read_text() == "Xld"


def test_renaming_a_directory_does_not_bring_it_under_a_wider_grant(sealed: World, tree: Path) -> None:
    """A directory moved to a name whose contents may be read would become readable: EXDEV; between equals it moves."""
    (tree / "d/secret").mkdir(parents=True)
    (tree / "d/secret/key").write_text("the key")
    (tree / "d/pub").mkdir()
    (tree / "d/even").mkdir()
    for path in (tree / "d").rglob("*"):
        path.chmod(0o777)
    _give(tree / "d")
    flags = ["--write", "d/*", "--write", "d/pub/**", "--read", "d/pub/**"]
    ran = sealed.run("rename", "d/secret", "d/pub/x", ",", "cat", "d/pub/x/key", flags=flags, cwd=tree)
    assert "ok" not in ran.text  # EXDEV of the warden; the engine has no word for it and says EIO
    assert "the key" not in ran.text
    assert (tree / "d/secret/key").exists()
    assert ("filesystem.write", "A1206") in ran.denied()
    twin = sealed.run("rename", "d/secret", "d/other", flags=["--write", "d/**"], cwd=tree)
    assert "ok" in twin.text
    assert (tree / "d/other/key").exists()


def _give(root: Path) -> None:
    if os.geteuid() == 0:
        for path in (root, *root.rglob("*")):
            os.chown(path, 65534, 65534, follow_symlinks=False)


@pytest.mark.parametrize(
    "attack",
    [
        ("open", "in/a.txt", "rwt"),
        ("open", "in/a.txt", "wt"),
        ("open", "in/a.txt", "rt"),
        ("open", "in/new", "rc"),
        ("open", "in/new", "rcx"),
        ("open", "in/a.txt", "wa"),
        ("write", "in/a.txt", "X"),
        ("overwrite", "in/a.txt", "X"),
        ("append", "in/a.txt", "X"),
        ("trunc", "in/a.txt", "0"),
        ("trunc", "in/a.txt", "0", "r"),
        ("fallocate", "in/a.txt", "99", "r"),
        ("futimes", "in/a.txt", "1", "r"),
        ("utimes", "in/a.txt", "1"),
        ("unlink", "in/a.txt"),
        ("mkdir", "in/new"),
        ("symlink", "a.txt", "in/new"),
        ("rename", "in/a.txt", "in/new"),
        ("rename", "in/b.csv", "in/a.txt"),
    ],
    ids=" ".join,
)
def test_with_read_alone_nothing_changes(sealed: World, tree: Path, attack: tuple[str, ...]) -> None:
    """TRUNC and CREAT with read, and all else that changes a file, leave everything as it was; with write they work."""
    before = _snapshot(tree)
    ran = sealed.run(*attack, flags=["--read", "in"], cwd=tree)
    assert ran.report.verdict.exit_code == 1, ran.text
    assert _snapshot(tree) == before
    twin = sealed.run(*attack, flags=["--read", "in", "--write", "in"], cwd=tree)
    if attack[-1] != "r":  # the last ones ask for more than their own descriptor allows: refused everywhere
        assert "ok" in twin.text, twin.text
        assert _snapshot(tree) != before or attack[0] == "open"


def test_a_stat_does_not_become_a_read(sealed: World, tree: Path) -> None:
    """Who may write or see names may stat, and what was opened for that yields no byte; with read it does."""
    for flags in (["--write", "in"], ["--list", "in"]):
        commands = ("stat", "in/a.txt", ",", "open", "in/a.txt", "r", "read", ",", "cat", "in/a.txt")
        ran = sealed.run(*commands, flags=flags, cwd=tree)
        assert "stat in/a.txt: ok type=file size=5" in ran.text
        assert "ok 5 bytes" not in ran.text
        assert "alpha" not in ran.text
    assert "read in/a.txt: ok 5 bytes" in sealed.run(*commands, flags=["--read", "in"], cwd=tree).text


# ---- what the kernel shows


KERNEL_FILES = (
    "/proc/version",
    "/proc/mounts",
    "/proc/self/status",
    "/proc/self/cmdline",
    "/proc/thread-self/status",
    "/proc/1/cmdline",
    "/sys/kernel/mm/transparent_hugepage/enabled",
    "/dev/null",
)
"""What everybody may read."""


@pytest.mark.parametrize(
    "path",
    [
        *KERNEL_FILES,
        "/proc/self/environ",
        "/proc/self/maps",
        "/proc/self/mem",
        "/proc/self/fd/0",
        "/proc/self/root/etc/passwd",
        "/proc/self/cwd/airssys.toml",
        "/proc/self/task/1/environ",
        "/proc/1/environ",
        "/dev/fd/0",
        "/dev/stdin",
    ],
)
def test_proc_sys_and_dev_are_closed_even_when_granted(sealed: World, bare: World, path: str) -> None:
    """`/proc/self` and its relatives stay closed with a grant of everything there; where no layer is on they open."""
    flags = [word for directory in ("proc", "sys", "dev") for word in ("--read", f"/{directory}/**")]
    ran = sealed.run("cat", path, ",", "open", path, "r", "read", flags=flags)
    assert ran.report.verdict.exit_code == 1, ran.report.verdict
    assert ": ok" not in ran.text
    assert ran.text.count(path) == 2, "something was printed beside two refusals"
    assert {code for _, code in ran.denied()} & {"A1101", "A1102", "A1203", "A1204", "A1205"}
    if path in KERNEL_FILES:
        assert bare.run("cat", path).report.verdict.exit_code == 0


# ---- listing beyond the pattern


def test_a_listing_shows_only_the_names_that_are_granted(
    sealed: World, bare: World, tree: Path, own: Callable[[Path], None]
) -> None:
    """With one pattern only its names are seen: in one piece, through small buffers, and after seeking back."""
    for n in range(40):
        (tree / f"in/hidden-{n}.csv").write_text("x")
        (tree / f"in/seen-{n}.json").write_text("x")
    own(tree / "in")
    seen = {f"seen-{n}.json" for n in range(40)}
    flags = ["--read", "in/*.json"]
    everything = bare.run("ls", "in", cwd=tree).text.split()
    assert {"hidden-0.csv", "a.txt", "seen-0.json"} <= set(everything)
    assert set(sealed.run("ls", "in", flags=flags, cwd=tree).text.split()) == seen
    for size in (64, 100, 333):
        text = sealed.run("ls-small", "in", str(size), flags=flags, cwd=tree).text
        *names, last = text.splitlines()
        assert "ok" in last, text
        assert set(names) == seen
    again = sealed.run("ls-again", "in", flags=flags, cwd=tree).text
    assert ": ok " in again, again
    tree_text = sealed.run("tree", "in", flags=flags, cwd=tree).text
    assert "hidden" not in tree_text
    assert "sub" not in tree_text


def test_list_alone_gives_names_and_no_content(sealed: World, tree: Path) -> None:
    """`--list` shows what is there, and nothing can be read by it."""
    ran = sealed.run("ls", "in", ",", "cat", "in/a.txt", flags=["--list", "in"], cwd=tree)
    assert ran.text.splitlines()[:3] == ["a.txt", "b.csv", "sub/"]
    assert "cat in/a.txt: EACCES" in ran.text


def test_setting_times_without_the_right_is_refused_and_no_violation(sealed: World, tree: Path) -> None:
    """With names alone granted the engine tries each of its ways to set times: all are refused, and none ends it."""
    before = (tree / "out/old.txt").stat().st_mtime_ns
    ran = sealed.run("utimes", "out/old.txt", "1", flags=["--list", "out"], cwd=tree)
    assert (ran.report.verdict.outcome, ran.report.verdict.exit_code) == ("exited", 1), ran.report.verdict.message
    assert "utimes out/old.txt: E" in ran.text
    assert {action for action, *_ in ran.denied()} <= {"filesystem.read", "filesystem.write"}
    assert (tree / "out/old.txt").stat().st_mtime_ns == before
