"""File attacks by raw system calls from inside a sealed worker, with every layer on and with each one off in turn.

The engine's own file layer isn't in between: there are only the warden, Landlock and the empty root. With seccomp off
there is no warden either, and the other two hold alone.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Steps, World, Worlds

AT, RDONLY, WRONLY, RDWR, CREAT, TRUNC, PATH = -100, 0, 1, 2, 0o100, 0o1000, 0o10000000
AT_EMPTY_PATH = 0x1000
WITH_WARDEN = ("sealed", "without landlock", "without namespaces", "without rlimits")
GRANTS_LOST = {-errno.EACCES, -errno.EPERM, -errno.ENOENT, -errno.EBADF, -errno.EXDEV, -errno.EROFS, -errno.EINVAL}


def every_call(tree: Path) -> Steps:
    """One of every kind of file call, in an order in which all of them work for a process that nothing confines."""
    return [
        ("passwd", "openat", AT, "s:/etc/passwd", RDONLY),
        ("open", "openat", AT, f"s:{tree}/in/a.txt", RDONLY),
        ("handle", "openat", AT, f"s:{tree}/in/a.txt", PATH),
        ("openat2", "openat2", AT, f"s:{tree}/in/a.txt", "b:24", 24),
        ("directory", "openat", AT, f"s:{tree}/in", 0o200000),
        ("list", "getdents64", "r:directory", "b:512", 512),
        ("stat", "newfstatat", AT, f"s:{tree}/in/a.txt", "b:256", 0),
        ("statx", "statx", AT, f"s:{tree}/in/a.txt", 0, 0x7FF, "b:256"),
        ("access", "faccessat", AT, f"s:{tree}/in/a.txt", 4),
        ("link to", "readlinkat", AT, f"s:{tree}/in/to", "b:64", 64),
        ("truncate", "truncate", f"s:{tree}/out/old.txt", 1),
        ("write", "openat", AT, f"s:{tree}/out/old.txt", WRONLY | TRUNC),
        ("create", "openat", AT, f"s:{tree}/out/mine", RDWR | CREAT, 0o600),
        ("mode", "fchmod", "r:create", 0o644),
        ("owner", "fchown", "r:create", -1, -1),
        ("times", "utimensat", AT, f"s:{tree}/out/mine", 0, 0),
        ("attribute", "fsetxattr", "r:create", "s:user.x", "s:y", 1, 0),
        ("lock", "flock", "r:create", 1),
        ("mkdir", "mkdirat", AT, f"s:{tree}/out/d", 0o700),
        ("rename", "renameat2", AT, f"s:{tree}/out/old.txt", AT, f"s:{tree}/out/new", 0),
        ("link", "linkat", AT, f"s:{tree}/in/a.txt", AT, f"s:{tree}/out/l", 0),
        ("symlink", "symlinkat", "s:a.txt", AT, f"s:{tree}/out/s"),
        ("unlink", "unlinkat", AT, f"s:{tree}/out/l", 0),
        ("rmdir", "unlinkat", AT, f"s:{tree}/out/d", 0x200),
        ("self", "openat", AT, "s:/proc/self/cmdline", RDONLY),
        ("null", "openat", AT, "s:/dev/null", RDWR),
    ]


LABELS = [label.replace(" ", "_") for label, *_ in every_call(Path("/"))]


def _steps(tree: Path) -> Steps:
    return [(label.replace(" ", "_"), *rest) for label, *rest in every_call(tree)]


def _snapshot(tree: Path) -> dict[str, object]:
    return {str(p): (p.lstat().st_ino, p.lstat().st_mtime_ns, p.lstat().st_mode) for p in (tree, *tree.rglob("*"))}


@pytest.mark.parametrize("name", [*WITH_WARDEN, "without seccomp"])
def test_without_a_grant_every_file_call_fails(worlds: Worlds, tree: Path, name: str) -> None:
    """With all layers on and with any one off, no kind of file call gives anything or leaves a trace."""
    (tree / "in/to").symlink_to("a.txt")
    before = _snapshot(tree)
    ran = worlds[name].probe(_steps(tree))
    assert ran.report.verdict.outcome == "exited", ran.report.verdict
    assert list(ran.results) == LABELS
    assert {label: result for label, result in ran.results.items() if result not in GRANTS_LOST} == {}
    assert _snapshot(tree) == before
    if name in WITH_WARDEN:
        assert ("filesystem.read", "A1201") in ran.denied(tree / "in/a.txt")
        assert ran.denied("/etc/passwd")


def test_the_same_calls_work_where_no_layer_is_on(bare: World, tree: Path) -> None:
    """The control of the test above: with all layers off at once, every one of these calls succeeds."""
    (tree / "in/to").symlink_to("a.txt")
    results = bare.probe(_steps(tree)).results
    assert {label: os.strerror(-result) for label, result in results.items() if result < 0} == {}
    assert list(results) == LABELS


def on_granted(tree: Path, flags: int) -> Steps:
    """Open the granted file, then try to get more out of the descriptor than was granted."""
    path = f"s:{tree}/in/a.txt"
    return [
        ("open", "openat", AT, path, flags),
        ("read", "read", "r:open", "b:16", 16),
        ("pread", "pread64", "r:open", "b:16", 16, 0),
        ("map", "mmap", 0, 4096, 1, 2, "r:open", 0),
        ("write", "write", "r:open", "s:X", 1),
        ("pwrite", "pwrite64", "r:open", "s:X", 1, 0),
        ("ftruncate", "ftruncate", "r:open", 0),
        ("mode", "fchmod", "r:open", 0o777),
        ("owner", "fchown", "r:open", -1, -1),
        ("times", "utimensat", "r:open", 0, 0, 0),
        ("attribute", "fsetxattr", "r:open", "s:user.x", "s:y", 1, 0),
        ("lock", "flock", "r:open", 2),
        ("empty_path", "openat", "r:open", "s:", RDWR),
        ("name_it", "linkat", "r:open", "s:", AT, f"s:{tree}/out/l", AT_EMPTY_PATH),
        ("again", "openat", AT, "s:/proc/self/fd/5", RDWR),
        ("trunc", "openat", AT, path, RDONLY | TRUNC),
        ("creat", "openat", AT, f"s:{tree}/in/new", RDONLY | CREAT, 0o600),
        ("tmpfile", "openat", AT, f"s:{tree}/in", WRONLY | 0o20200000, 0o600),
    ]


@pytest.mark.parametrize("name", WITH_WARDEN)
def test_a_descriptor_for_reading_only_reads(worlds: Worlds, tree: Path, name: str) -> None:
    """With read alone: reading and mapping work, nothing else that can be done to an open file does."""
    before = _snapshot(tree)
    results = worlds[name].probe(on_granted(tree, RDONLY), "--read", tree / "in").results
    worked = {label for label, result in results.items() if result >= 0}
    assert worked == {"open", "read", "pread"}
    assert results["read"] == 5
    assert _snapshot(tree) == before


@pytest.mark.parametrize("name", WITH_WARDEN)
def test_a_descriptor_for_a_stat_gives_no_byte(worlds: Worlds, tree: Path, name: str) -> None:
    """With list alone a path handle can be had (a stat needs one) and neither read, mapped, written nor reopened."""
    before = _snapshot(tree)
    results = worlds[name].probe(on_granted(tree, PATH), "--list", tree / "in").results
    assert results["open"] >= 0
    assert {label for label, result in results.items() if result >= 0} <= {"open"}
    assert _snapshot(tree) == before


def test_what_a_descriptor_may_is_the_grants_doing(sealed: World, tree: Path) -> None:
    """The control of the two tests above: with read and write granted, the same calls read, write and truncate."""
    results = sealed.probe(on_granted(tree, RDWR), "--read", tree / "in", "--write", tree / "in").results
    worked = {label for label, result in results.items() if result >= 0}
    assert {"open", "read", "write", "pwrite", "ftruncate", "trunc", "creat"} <= worked


@pytest.mark.parametrize("name", WITH_WARDEN)
def test_names_are_not_seen_beyond_the_pattern(
    worlds: Worlds, tree: Path, own: Callable[[Path], None], name: str
) -> None:
    """Raw listings, by small buffers and after seeking anywhere, hold the granted names and no others."""
    for n in range(30):
        (tree / f"in/hidden-{n}").write_text("x")
        (tree / f"in/seen-{n}.json").write_text("x")
    own(tree / "in")
    steps: list[tuple[str, str | int, *tuple[int | str, ...]]] = [("directory", "openat", AT, f"s:{tree}/in", 0o200000)]
    for n, (length, place) in enumerate([(64, 0), (64, 1), (96, 2), (4096, 0), (4096, 1 << 40), (200, -1), (8192, 0)]):
        if place >= 0:
            steps.append((f"seek{n}", "lseek", "r:directory", place, 0))
        steps.append((f"list{n}", "getdents64", "r:directory", f"m:names{n}:{length}", length))
        steps.append((f"show{n}", "write", 1, f"m:names{n}:{length}", length))
    ran = worlds[name].probe(steps, "--read", f"{tree}/in/*.json")
    assert b"seen-" in ran.report.stdout
    for hidden in (b"hidden", b"a.txt", b"sub"):
        assert hidden not in ran.report.stdout
    control = worlds["bare"].probe(steps)
    assert b"hidden-" in control.report.stdout


@pytest.mark.parametrize("name", WITH_WARDEN)
def test_a_directory_handle_is_no_way_out(worlds: Worlds, tree: Path, name: str) -> None:
    """From a granted directory `..`, absolute names, magic links and openat2 without flags lead to nothing else."""
    steps = [
        ("directory", "openat", AT, f"s:{tree}/in", 0o200000),
        ("good", "openat", "r:directory", "s:a.txt", RDONLY),
        ("inside", "openat", "r:directory", "s:sub/../a.txt", RDONLY),
        ("dotdot", "openat", "r:directory", "s:../secret/key", RDONLY),
        ("absolute", "openat", "r:directory", f"s:{tree}/secret/key", RDONLY),
        ("openat2", "openat2", "r:directory", "s:../secret/key", "b:24", 24),
        ("magic", "openat", "r:directory", f"s:/proc/self/root{tree}/secret/key", RDONLY),
        ("parent", "openat", "r:directory", "s:..", PATH),
        ("from_parent", "openat", "r:parent", "s:secret/key", RDONLY),
        ("stdin", "openat", 0, "s:../../etc/passwd", RDONLY),
        ("no_descriptor", "openat", 999, f"s:{tree}/secret/key", RDONLY),
    ]
    results = worlds[name].probe(steps, "--read", tree / "in").results
    assert results.pop("directory") >= 0
    assert results.pop("good") >= 0
    assert results.pop("inside") >= 0
    results.pop("parent")  # a handle on the way to a grant may be had; it gives nothing, as `from_parent` shows
    assert {label: result for label, result in results.items() if result >= 0} == {}
    control = worlds["bare"].probe(steps).results
    assert {
        label for label in ("dotdot", "absolute", "openat2", "from_parent", "no_descriptor") if control[label] < 0
    } == set()
