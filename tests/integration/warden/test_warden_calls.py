"""What an honest program does through the warden works as it does natively, within its grants."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Stage

PTRACE, NICE = 19, 23


def test_reads_what_is_granted_and_nothing_else(stage: Stage, tree: Path) -> None:
    """A read grant opens its files for reading; a file beside it is refused, and the refusal is on record."""
    actor = stage.actor(("read", f"{tree}/in/**"))
    assert actor.read(tree / "in/a.txt") == "alpha"
    assert actor.read(tree / "secret/key") == "EACCES"
    assert actor.open(tree / "in/a.txt", os.O_RDWR) == "EACCES"
    assert stage.denied(tree / "secret/key") == [("filesystem.read", "A1203")]


def test_openat2_beneath_a_root_as_wasmtime_opens(stage: Stage, tree: Path) -> None:
    """Paths relative to a mount's descriptor resolve beneath it, through subdirectories and `..` that stay inside."""
    actor = stage.actor(("read", f"{tree}/in/**"), mounts=(str(tree / "in"),))
    root = actor.root(tree / "in")
    source = "fd = openat2(root, path, os.O_RDONLY)\nresult = os.read(fd, 99).decode() if fd >= 0 else fd"
    assert actor.run(source, root=root, path=b"sub/c.txt") == "gamma"
    assert actor.run(source, root=root, path=b"sub/../a.txt") == "alpha"
    assert actor.run(source, root=root, path=b"missing") == "ENOENT"
    assert actor.run(source, root=root, path=b"../secret/key") == "EXDEV"


def test_creates_appends_and_truncates_with_write(stage: Stage, tree: Path) -> None:
    """With a write grant a file is made with its mode under the umask, owned by run_as, appended, truncated."""
    actor = stage.actor(("write", f"{tree}/out/**"))
    new = tree / "out/new.txt"
    assert actor.write(new, "one") == 3
    assert actor.write(new, "two", os.O_WRONLY | os.O_APPEND) == 3
    assert new.read_text() == "onetwo"
    status = new.stat()
    assert (status.st_uid, status.st_mode & 0o7777) == (stage.uid, 0o644)
    assert actor.write(new, "x", os.O_WRONLY | os.O_TRUNC) == 1
    assert new.read_text() == "x"
    assert actor.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL) == "EEXIST"
    assert actor.read(new) == "EACCES"
    assert actor.run("os.truncate(path, 0)", path=str(new)) is None
    assert new.read_text() == ""


def test_makes_moves_and_removes_names(stage: Stage, tree: Path) -> None:
    """mkdir, rename, link, relative symlink, unlink and rmdir beneath a write grant do what they say."""
    actor = stage.actor(("read", f"{tree}/out/**"), ("write", f"{tree}/out/**"))
    out = str(tree / "out")
    source = """
os.mkdir(out + "/d")
os.rename(out + "/old.txt", out + "/d/new.txt")
os.link(out + "/d/new.txt", out + "/hard")
os.symlink("d/new.txt", out + "/soft")
result = [os.readlink(out + "/soft"), open(out + "/soft").read(), os.lstat(out + "/soft").st_size]
os.unlink(out + "/soft")
os.unlink(out + "/hard")
os.unlink(out + "/d/new.txt")
os.rmdir(out + "/d")
"""
    assert actor.run(source, out=out) == ["d/new.txt", "old", 9]
    assert list((tree / "out").iterdir()) == []


def test_directories_beneath_one_grant_are_renamed(stage: Stage, tree: Path) -> None:
    """Where no rule tells the subtrees apart a directory is renamed as a whole."""
    actor = stage.actor(("write", f"{tree}/out/**"))
    (tree / "out/d").mkdir()
    os.chown(tree / "out/d", stage.uid, -1)
    assert actor.run("os.rename(out + '/d', out + '/e')", out=str(tree / "out")) is None
    assert (tree / "out/e").is_dir()


def test_looks_at_files_by_stat_and_access(stage: Stage, tree: Path) -> None:
    """stat, lstat, statx and access answer for what is granted, with the size and mode of the real object."""
    actor = stage.actor(("read", f"{tree}/in/**"))
    assert actor.run("result = os.stat(p).st_size", p=str(tree / "in/a.txt")) == 5
    assert actor.run("result = os.stat(p).st_size", p=str(tree / "secret/key")) == "EACCES"
    assert actor.run("result = [os.access(p, os.R_OK), os.access(p, os.W_OK)]", p=str(tree / "in/a.txt")) == [
        True,
        False,
    ]
    source = "b = ctypes.create_string_buffer(256)\nr = sys_call('statx', -100, p, 0, 0x7ff, b)\n"
    source += "result = struct.unpack_from('<Q', b.raw, 40)[0] if r == 0 else r"
    assert actor.run(source, p=os.fsencode(tree / "in/a.txt")) == 5
    assert actor.run("fd = os.open(p, 0)\nresult = os.fstat(fd).st_size", p=str(tree / "in/a.txt")) == 5


def test_listing_shows_what_the_pattern_covers(stage: Stage, tree: Path) -> None:
    """A listing holds the names that a pattern covers, with large and with tiny buffers, and again after a rewind."""
    for number in range(200):
        (tree / f"in/hidden-{number}.bin").touch()
    actor = stage.actor(("read", f"{tree}/in/*.txt"), ("list", f"{tree}/in/*.csv"))
    fd = actor.root(tree / "in")
    assert actor.run("result = names(fd)", fd=fd) == ["a.txt", "b.csv"]
    assert actor.run("os.lseek(fd, 0, 0)\nresult = names(fd, 32)", fd=fd) == ["a.txt", "b.csv"]
    assert actor.run("os.lseek(fd, 0, 0)\nresult = names(fd, 24)", fd=fd) in (["errno 22"], ["a.txt", "b.csv"])
    assert actor.run("os.lseek(fd, 0, 0)\nresult = listing(fd, 4)[1]", fd=fd) == "EINVAL"
    assert actor.run("os.lseek(fd, 0, 0)\nresult = sorted(os.listdir(p))", fd=fd, p=str(tree / "in")) == [
        "a.txt",
        "b.csv",
    ]


def test_names_on_the_way_to_a_grant_are_shown(stage: Stage, tree: Path) -> None:
    """A parent of what is granted shows the step that leads there and nothing beside it."""
    actor = stage.actor(("read", f"{tree}/in/sub/**"))
    assert actor.run("result = names(fd)", fd=actor.root(tree)) == ["in"]


def test_what_is_missing_is_told_only_where_it_is_covered(stage: Stage, tree: Path) -> None:
    """A missing name is ENOENT under a grant and EACCES elsewhere, as an existing one would be."""
    actor = stage.actor(("read", f"{tree}/in/**"))
    assert actor.read(tree / "in/none") == "ENOENT"
    assert actor.read(tree / "in/none/deeper") == "ENOENT"
    assert actor.read(tree / "in/a.txt/deeper") == "ENOTDIR"
    assert actor.read(tree / "secret/none") == "EACCES"
    assert actor.read(tree / "secret/key/deeper") == "EACCES"
    assert actor.read("/nonexistent/x") == "EACCES"


def test_a_mount_without_a_grant_is_a_stand_in(stage: Stage, tree: Path) -> None:
    """A root on which nothing is granted opens, is empty, and refusals beneath it name the true path."""
    actor = stage.actor(("read", f"{tree}/in/**"), mounts=(str(tree / "secret"),))
    root = actor.root(tree / "secret")
    assert actor.run("result = os.fstat(fd).st_nlink", fd=root) == 0
    assert actor.run("result = names(fd)", fd=root) == ["errno 13"]
    assert actor.run("result = openat2(fd, b'key', os.O_RDONLY)", fd=root) == "EACCES"
    assert stage.denied(tree / "secret/key") == [("filesystem.read", "A1203")]


def test_the_artifact_is_handed_over_once(stage: Stage) -> None:
    """The worker's compiled code is opened by its name without any grant, read-only, and only once."""
    actor = stage.actor(artifact=b"native code")
    assert actor.read("/.airssys/artifact") == "native code"
    assert actor.read("/.airssys/artifact") == "EACCES"


def test_times_are_set_with_write(stage: Stage, tree: Path) -> None:
    """utimensat by path and futimens by descriptor set times under a write grant, and are refused without."""
    actor = stage.actor(("read", f"{tree}/in/**"), ("write", f"{tree}/out/**"))
    old, read_only = tree / "out/old.txt", tree / "in/a.txt"
    assert actor.run("os.utime(p, (1, 2))", p=str(old)) is None
    assert old.stat().st_mtime == 2
    assert actor.run("fd = os.open(p, os.O_WRONLY)\nos.utime(fd, (3, 4))", p=str(old)) is None
    assert old.stat().st_mtime == 4
    assert actor.run("os.utime(p, (1, 2))", p=str(read_only)) == "EACCES"
    assert actor.run("fd = os.open(p, os.O_RDONLY)\nos.utime(fd, (3, 4))", p=str(read_only)) == "EACCES"
    assert read_only.stat().st_mtime > 4


@pytest.mark.needs_root
def test_what_the_identity_may_not_do_no_grant_can(stage: Stage, tree: Path) -> None:
    """A file that run_as can't read is refused by the operating system, and the record says so."""
    private = tree / "in/root-only"
    private.write_text("x")
    private.chmod(0o600)
    os.chown(private, 0, 0)
    actor = stage.actor(("read", f"{tree}/in/**"))
    assert actor.read(private) == "EACCES"
    assert stage.denied(private) == [("filesystem.read", "A1601")]
    assert "as uid 65534" in str(stage.events(resource=str(private), decision="denied")[0]["reason"])


def test_names_that_are_no_text_work(stage: Stage, tree: Path) -> None:
    """A file name that is not UTF-8 is created and read like any other; a listing leaves it out: WASI has no word."""
    actor = stage.actor(("read", f"{tree}/out/**"), ("write", f"{tree}/out/**"))
    name = os.fsencode(tree / "out") + b"/caf\xe9"
    source = "fd = os.open(p, os.O_RDWR | os.O_CREAT)\nresult = [os.write(fd, b'x'), names(os.open(d, os.O_RDONLY))]"
    assert actor.run(source, p=name, d=str(tree / "out")) == [1, ["old.txt"]]
    assert os.path.exists(name)


def test_two_actors_are_answered_side_by_side(stage: Stage, tree: Path) -> None:
    """Each worker has its own policy; both make calls at the same time and get their own answers."""
    one, two = stage.actor(("read", f"{tree}/in/**")), stage.actor(("read", f"{tree}/secret/**"))
    loop = "result = sum(open(p).read() == want for _ in range(100))"
    for actor, path, want in ((one, tree / "in/a.txt", "alpha"), (two, tree / "secret/key", "the key")):
        actor.start(f"p = {str(path)!r}\nwant = {want!r}\n{loop}")
    for actor in (one, two):
        assert b'"result": 100' in actor.channel.recv(65536)


def test_counts_are_exact_when_a_worker_is_detached(stage: Stage, tree: Path) -> None:
    """Twenty reads and thirty refusals of one kind leave records whose counts add up to that."""
    actor = stage.actor(("read", f"{tree}/in/**"))
    for _ in range(20):
        assert actor.read(tree / "in/a.txt") == "alpha"
    for _ in range(30):
        assert actor.open(tree / "secret/key") == "EACCES"
    detached = stage.detach(actor)
    assert detached.denied == 30
    denied = stage.events(decision="denied", resource=str(tree / "secret/key"))
    assert sum(int(str(e.get("count", 1))) for e in denied) == 30
    opened = stage.events(decision="allowed", resource=str(tree / "in/a.txt"), action="filesystem.read")
    assert sum(int(str(e.get("count", 1))) for e in opened if "openat" in str(e["detail"])) == 20


def _assert_is_humble(stage: Stage, most: int) -> None:
    """Seen from outside, in all threads: no uid is 0, and no capability but these."""
    for task in Path(f"/proc/{stage.process.pid}/task").iterdir():
        status = dict(line.split(":\t", 1) for line in (task / "status").read_text().splitlines() if ":\t" in line)
        assert set(status["Uid"].split()) == {str(stage.uid)}
        assert int(status["CapEff"], 16) | int(status["CapPrm"], 16) in (0, most)
        assert int(status["CapInh"], 16) | int(status["CapAmb"], 16) == 0
        assert status["NoNewPrivs"].strip() == "1"


def test_the_warden_is_not_root_and_has_no_capability_that_it_does_not_need(stage: Stage) -> None:
    """CAP_SYS_PTRACE over its own namespace, and root's CAP_SYS_NICE there too: its workers have other uids."""
    _assert_is_humble(stage, 1 << PTRACE | (1 << NICE if os.geteuid() == 0 else 0))


def test_outside_of_a_namespace_the_warden_has_at_most_one_capability(plain_stage: Stage) -> None:
    """CAP_SYS_NICE over the whole machine would be more than its work is worth."""
    _assert_is_humble(plain_stage, 1 << PTRACE)
