"""Files that others use as well: set-id programs, locks and leases that make others wait, shared mappings."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Steps, World

AT, RDONLY, WRONLY, RDWR, CREAT, TRUNC = -100, 0, 1, 2, 0o100, 0o1000
SHARED, PRIVATE, READ_WRITE = 1, 2, 3
NO_LOCK = -errno.EOPNOTSUPP


@pytest.fixture
def tool(tree: Path, own: Callable[[Path], None]) -> Path:
    """A set-id program that the component's file identity owns."""
    path = tree / "out/tool"
    path.write_bytes(b"#!/bin/true")
    own(tree)
    path.chmod(0o4755)
    return path


def test_a_set_id_program_is_not_written(sealed: World, tree: Path, tool: Path) -> None:
    """By no way of opening, mapping, linking or truncating a granted set-id file changes; an ordinary one does."""
    attack: Steps = [
        ("write", "openat", AT, f"s:{tool}", WRONLY),
        ("append", "openat", AT, f"s:{tool}", WRONLY | 0o2000),
        ("truncate_open", "openat", AT, f"s:{tool}", RDONLY | TRUNC),
        ("truncate", "truncate", f"s:{tool}", 0),
        ("link", "linkat", AT, f"s:{tool}", AT, f"s:{tree}/out/other", 0),
        ("times", "utimensat", AT, f"s:{tool}", 0, 0),
        ("mode", "fchmodat", AT, f"s:{tool}", 0o755),
    ]
    flags = ("--read", f"{tree}/out/", "--write", f"{tree}/out/")
    before = (tool.read_bytes(), tool.stat().st_mode)
    assert set(sealed.probe(attack, *flags).results.values()) == {-errno.EPERM}
    from_wasm = sealed.run("overwrite", "out/tool", "X", flags=["--read", "out", "--write", "out"], cwd=tree)
    assert from_wasm.report.verdict.exit_code == 1
    assert (tool.read_bytes(), tool.stat().st_mode) == before
    tool.chmod(0o755)
    twin = sealed.probe(attack, *flags).results
    assert {label for label, result in twin.items() if result < 0} == {"mode"}


def test_a_set_id_program_is_not_written_by_a_shared_mapping(
    sealed: World, bare: World, tree: Path, tool: Path
) -> None:
    """A shared mapping would change it and keep its bits: it ends the worker; a private one isn't to be had either."""
    opened = ("file", "openat", AT, f"s:{tool}", RDONLY)
    mapped = ("x", "mmap", 0, 4096, READ_WRITE, PRIVATE, "r:file", 0)
    private: Steps = [opened, mapped, ("read", "read", "r:file", "b:4", 4)]
    ran = sealed.probe(private, "--read", f"{tree}/out/")
    assert (ran.results["x"], ran.results["read"]) == (-errno.ENODEV, 4)
    shared: Steps = [opened, ("x", "mmap", 0, 4096, 1, SHARED, "r:file", 0), ("after", "getpid")]
    ended = sealed.probe(shared, "--read", f"{tree}/out/")
    assert (ended.ending, "after" in ended.results) == (("refused", "A1701"), False)
    assert tool.read_bytes() == b"#!/bin/true"
    assert bare.probe(shared).results["x"] > 0
    assert bare.probe(private).results["x"] > 0


def test_no_set_id_file_is_made(sealed: World, tree: Path) -> None:
    """Neither at its making nor later a file gets set-id or sticky bits; its other bits it gets."""
    new = tree / "out/new"
    steps: Steps = [
        ("make", "openat", AT, f"s:{new}", RDWR | CREAT, 0o6755),
        ("directory", "mkdir", f"s:{tree}/out/d", 0o7777),
        ("later", "fchmod", "r:make", 0o6755),
        ("by_name", "fchmodat", AT, f"s:{new}", 0o6755),
        ("owner", "fchown", "r:make", 0, 0),
    ]
    results = sealed.probe(steps, "--write", f"{tree}/out/", "--read", f"{tree}/out/").results
    assert (results["make"] >= 0, results["directory"]) == (True, 0)
    assert results["later"] == results["by_name"] == results["owner"] == -errno.EPERM
    assert new.stat().st_mode & 0o7777 == 0o755
    assert (tree / "out/d").stat().st_mode & 0o7000 == 0


@pytest.mark.parametrize(
    ("call", "end"),
    [
        (("flock", "r:file", 2), NO_LOCK),
        (("fcntl", "r:file", 6, "x:0100" + "00" * 30), None),
        (("fcntl", "r:file", 38, "x:0100" + "00" * 30), None),
        (("fcntl", "r:file", 1024, 1), None),
    ],
    ids=["flock", "record lock", "open file description lock", "lease"],
)
def test_nobody_waits_for_a_components_lock(
    sealed: World, bare: World, tree: Path, call: tuple[str | int, ...], end: int | None
) -> None:
    """A lock or lease on a granted file is refused or ends the worker, and who else opens and locks it doesn't wait."""
    path = tree / "out/old.txt"
    steps: Steps = [("file", "openat", AT, f"s:{path}", RDWR), ("x", *call), ("after", "getpid")]
    ran = sealed.probe(steps, "--read", f"{tree}/out/", "--write", f"{tree}/out/")
    assert ran.results.get("x") == end
    assert ran.ending == (("refused", "A1701") if end is None else ("exited", ""))
    with path.open("r+") as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.lockf(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
    control = bare.probe(steps).results["x"]
    # A lease is for a file's owner, and in "bare" a worker owns none: it reaches the kernel's own check.
    assert control == 0 or (call[2] == 1024 and control in (-errno.EACCES, -errno.EAGAIN))
