"""What native code in a worker tries against the warden; each attack beside a twin that works where it is granted."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from supervisor.audit.log import AuditLog

if TYPE_CHECKING:
    from conftest import Stage

    from ipc.audit.event import AuditRecord
    from supervisor.audit.log import Entry

BENEATH = "fd = openat2(root, path, os.O_RDONLY)\nresult = os.read(fd, 99).decode() if fd >= 0 else fd"


@pytest.mark.parametrize("kind", ["absolute", "relative", "nested"])
def test_symbolic_links_out_are_judged_on_their_target(stage: Stage, tree: Path, kind: str) -> None:
    """A link in a granted directory to a secret outside gives nothing, by any way of opening; a link inside works."""
    target = {"absolute": tree / "secret/key", "relative": "../secret/key", "nested": "hop/key"}[kind]
    (tree / "in/hop").symlink_to("../secret")
    (tree / "in/link").symlink_to(target)
    (tree / "in/good").symlink_to("sub/c.txt")
    actor = stage.actor(("read", f"{tree}/in/**"), mounts=(str(tree / "in"), "/"))
    root = actor.root(tree / "in")
    assert actor.run(BENEATH, root=root, path=b"good") == "gamma"
    assert actor.read(tree / "in/good") == "gamma"
    assert actor.run(BENEATH, root=root, path=b"link") == "EXDEV"
    assert actor.read(tree / "in/link") == "EACCES"
    codes = {code for _, code in stage.denied(tree / "secret/key")}
    assert codes == {"A1203", "A1204"}


def test_a_link_that_is_swapped_in_a_loop_never_gives_the_secret(stage: Stage, tree: Path) -> None:
    """While another process swaps a name between a granted file and a link to a secret, reads give one or nothing."""
    actor = stage.actor(("read", f"{tree}/in/**"))
    swapped = tree / "in/swapped"
    done = threading.Event()

    def swap() -> None:
        while not done.is_set():
            for target in ("a.txt", "../secret/key"):
                new = tree / "in/.new"
                new.symlink_to(target)
                new.rename(swapped)

    swapper = threading.Thread(target=swap)
    (swapped).symlink_to("a.txt")
    swapper.start()
    seen: dict[str, int] = {}
    until_s = time.monotonic() + 60
    try:
        source = """
seen = {}
for _ in range(400):
    try:
        fd = os.open(p, os.O_RDONLY)
        text = os.read(fd, 99).decode()
        os.close(fd)
    except OSError as error:
        text = errno.errorcode[error.errno]
    seen[text] = seen.get(text, 0) + 1
result = seen
"""
        # On a busy machine the one or the other may not get to run while the other does.
        while not ("alpha" in seen and "EACCES" in seen) and time.monotonic() < until_s:
            found = actor.run(source, p=str(swapped))
            assert isinstance(found, dict)
            seen |= found
    finally:
        done.set()
        swapper.join()
    assert set(seen) <= {"alpha", "EACCES", "ENOENT", "EAGAIN"}
    assert seen.get("alpha"), "the control never read the granted file"
    assert seen.get("EACCES"), "the swap never happened"


def test_climbing_out_by_dot_dot(stage: Stage, tree: Path) -> None:
    """`..` beyond the descriptor is refused; passing through what isn't granted does not tell whether it exists."""
    actor = stage.actor(("read", f"{tree}/in/**"), mounts=(str(tree / "in"), str(tree)))
    root, outer = actor.root(tree / "in"), actor.root(tree)
    assert actor.run(BENEATH, root=root, path=b"sub/../a.txt") == "alpha"
    assert actor.run(BENEATH, root=root, path=b"../secret/key") == "EXDEV"
    assert actor.run(BENEATH, root=root, path=b"sub/../../secret/key") == "EXDEV"
    assert actor.run(BENEATH, root=outer, path=b"secret/../in/a.txt") == "EACCES"
    assert actor.run(BENEATH, root=outer, path=b"absent/../in/a.txt") == "EACCES"
    assert actor.run("result = openat2(fd, p, 0, 0, 0)", fd=root, p=b"../secret/key") == "EXDEV"


def test_renaming_a_directory_does_not_relabel_it(stage: Stage, tree: Path) -> None:
    """`secret` can't become `pub/x` where pub is readable; a directory moves where no rule tells the places apart."""
    (tree / "d/pub").mkdir(parents=True)
    (tree / "d/secret").mkdir()
    (tree / "d/plain").mkdir()
    (tree / "d/secret/key").write_text("the key")
    for path in (tree / "d").rglob("*"):
        os.chown(path, stage.uid, -1)
    os.chown(tree / "d", stage.uid, -1)
    actor = stage.actor(("write", f"{tree}/d/**"), ("read", f"{tree}/d/pub/**"))
    d = str(tree / "d")
    assert actor.run("os.rename(d + '/plain', d + '/other')", d=d) is None
    assert actor.run("os.rename(d + '/secret', d + '/pub/x')", d=d) == "EXDEV"
    assert (tree / "d/secret/key").exists()
    assert stage.denied(tree / "d/secret") == [("filesystem.write", "A1206")]


@pytest.mark.parametrize("call", ["rename", "link"])
def test_a_new_name_does_not_widen_the_rights_on_a_file(stage: Stage, tree: Path, call: str) -> None:
    """A write-only file can't be renamed or linked to a readable name; between equal names both work."""
    actor = stage.actor(("write", f"{tree}/out/**"), ("write", f"{tree}/in/**"), ("read", f"{tree}/in/**"))
    out, into = str(tree / "out"), str(tree / "in")
    assert actor.run(f"os.{call}(o + '/old.txt', i + '/got.txt')", o=out, i=into) == "EACCES"
    assert stage.denied(tree / "out/old.txt") == [("filesystem.read", "A1211")]
    assert actor.run(f"os.{call}(i + '/a.txt', i + '/got.txt')", i=into) is None
    assert actor.read(tree / "in/got.txt") == "alpha"
    assert actor.run(f"os.{call}(o + '/old.txt', o + '/new.txt')", o=out) is None


def test_read_only_does_not_truncate_or_create(stage: Stage, tree: Path) -> None:
    """O_TRUNC, O_CREAT and truncate(2) need the right to write, whatever the access mode says."""
    actor = stage.actor(("read", f"{tree}/in/**"), ("write", f"{tree}/out/**"))
    assert actor.open(tree / "in/a.txt", os.O_RDONLY | os.O_TRUNC) == "EACCES"
    assert actor.open(tree / "in/new", os.O_RDONLY | os.O_CREAT) == "EACCES"
    assert actor.run("os.truncate(p, 0)", p=str(tree / "in/a.txt")) == "EACCES"
    assert (tree / "in/a.txt").read_text() == "alpha"
    assert not (tree / "in/new").exists()
    assert isinstance(actor.open(tree / "out/old.txt", os.O_WRONLY | os.O_TRUNC), int)
    assert (tree / "out/old.txt").read_text() == ""


def test_a_stat_does_not_become_a_read(stage: Stage, tree: Path) -> None:
    """With write alone O_PATH gives a descriptor that can be stat'ed, and neither read, mapped nor reopened."""
    actor = stage.actor(("write", f"{tree}/out/**"), ("read", f"{tree}/in/**"))
    source = """
fd = openat2(-100, p, os.O_PATH, 0, 0)
result = [os.fstat(fd).st_size]
for attempt in (lambda: os.read(fd, 1), lambda: mmap.mmap(fd, 3, prot=mmap.PROT_READ),
                lambda: os.open(f"/proc/self/fd/{fd}", os.O_RDONLY)):
    try:
        attempt()
        result.append("worked")
    except OSError as error:
        result.append(errno.errorcode[error.errno])
"""
    result = actor.run(source, p=os.fsencode(tree / "out/old.txt"))
    assert result == [3, "EBADF", "EACCES", "EACCES"]
    assert actor.read(tree / "in/a.txt") == "alpha"


def test_an_unlinked_object_has_no_rule(stage: Stage, tree: Path) -> None:
    """After its file or directory is unlinked, nothing is decided by the name that it had."""
    actor = stage.actor(("read", f"{tree}/out/**"), ("write", f"{tree}/out/**"))
    source = """
os.mkdir(d)
fd = os.open(d, os.O_RDONLY)
before = sys_call("openat", fd, b"f", os.O_CREAT | os.O_WRONLY, 0o600)
os.unlink(d + "/f")
try:
    os.utime(before, (1, 1))
    times = "worked"
except OSError as error:
    times = errno.errorcode[error.errno]
os.rmdir(d)
after = sys_call("openat", fd, b"f", os.O_CREAT | os.O_WRONLY, 0o600)
result = [before >= 0, times, after]
"""
    assert actor.run(source, d=str(tree / "out/d")) == [True, "EACCES", -2]


def test_pipes_sockets_and_devices_are_not_opened(stage: Stage, tree: Path) -> None:
    """A named pipe, a socket and a device in a granted directory are refused at once, and hold nobody up."""
    os.mkfifo(tree / "in/pipe")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tree / "in/sock"))
    actor = stage.actor(("read", f"{tree}/in/**"), ("write", f"{tree}/in/**"))
    names = ["pipe", "sock"]
    if os.geteuid() == 0:
        os.mknod(tree / "in/null", 0o020666, os.makedev(1, 3))
        names.append("null")
    try:
        for name in names:
            assert actor.open(tree / "in" / name) == "EACCES"
            assert actor.open(tree / "in" / name, os.O_WRONLY) == "EACCES"
            assert actor.open(tree / "in" / name, os.O_PATH) == "EACCES"
            assert {code for _, code in stage.denied(tree / "in" / name)} == {"A1205"}
        assert actor.run("result = names(os.open(p, os.O_RDONLY))", p=str(tree / "in")) == ["a.txt", "b.csv", "sub"]
    finally:
        listener.close()


@pytest.mark.parametrize("path", ["/proc/self/mem", "/proc/self/environ", "/proc/1/root", "/proc/self/fd", "/dev/mem"])
def test_processes_and_devices_are_out_of_reach_whatever_is_granted(stage: Stage, tree: Path, path: str) -> None:
    """Even with everything granted, the warden's own and others' /proc, and devices, are refused; a file is not."""
    actor = stage.actor(("read", "/**"), ("write", "/**"), ("list", "/**"))
    assert actor.open(path) == "EACCES"
    assert actor.run("result = names(os.open('/proc', os.O_RDONLY))") in ("EACCES", [], ["errno 13"])
    assert actor.read(tree / "in/a.txt") == "alpha"


def test_magic_links_are_not_followed(stage: Stage, tree: Path) -> None:
    """A link to /proc/self/fd/N, which would name one of the warden's own descriptors, leads nowhere."""
    for number in range(3, 12):
        (tree / f"in/{number}").symlink_to(f"/proc/self/fd/{number}")
    actor = stage.actor(("read", "/**"), ("list", "/**"))
    for number in range(3, 12):
        assert actor.open(tree / f"in/{number}") in ("EACCES", "ELOOP", "ENOENT", "EXDEV")
    assert actor.read(tree / "in/a.txt") == "alpha"


def test_listings_do_not_tell_hidden_names(stage: Stage, tree: Path) -> None:
    """By no buffer size and no seek does a listing return a name that the pattern does not cover."""
    for number in range(100):
        (tree / f"in/hidden-{number:03}-{'x' * (number % 40)}").touch()
        (tree / f"in/shown-{number:03}.txt").touch()
    actor = stage.actor(("read", f"{tree}/in/*.txt"))
    source = """
fd = os.open(p, os.O_RDONLY | os.O_DIRECTORY)
seen = set()
for size in (24, 40, 48, 64, 100, 280, 1000, 4096, 65536):
    os.lseek(fd, 0, 0)
    whole = []
    while True:
        part, count = listing(fd, size)
        if count <= 0:
            break
        whole += part
        os.lseek(fd, os.lseek(fd, 0, 1), 0)
    seen.update(whole)
    complete = len([n for n in whole if n.endswith(".txt")])
result = [sorted(n for n in seen if not n.endswith(".txt")), complete]
"""
    assert actor.run(source, p=str(tree / "in")) == [[".", ".."], 101]


def test_an_uncovered_name_answers_alike_whether_it_exists(stage: Stage, tree: Path) -> None:
    """For each call an existing and a missing uncovered name get the same errno; so do a file and a directory."""
    (tree / "secret/dir").mkdir()
    actor = stage.actor(("read", f"{tree}/in/**/*.txt"), ("write", f"{tree}/out/**"))
    attempts = [
        "result = sys_call('openat', -100, p, os.O_RDONLY, 0)",
        "result = sys_call('openat', -100, p, os.O_RDWR, 0)",
        "result = sys_call('openat', -100, p, os.O_RDONLY | os.O_DIRECTORY, 0)",
        "result = sys_call('openat', -100, p, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)",
        "result = openat2(-100, p, os.O_PATH, 0, 0)",
        "os.stat(p)",
        "os.lstat(p)",
        "os.readlink(p)",
        "os.unlink(p)",
        "os.mkdir(p)",
        "os.rmdir(p)",
        "os.truncate(p, 0)",
        "os.utime(p)",
        "os.rename(p, p + b'2')",
        "os.symlink('x', p)",
    ]
    for attempt in attempts:
        for names in (("secret/key", "secret/none", "secret/dir", "secret/none/deep"), ("in/b.csv", "in/none.csv")):
            answers = {actor.run(attempt, p=os.fsencode(tree / name)) for name in names}
            assert len(answers) == 1, (attempt, answers)
            assert answers <= {"EACCES", "ENOENT"}, attempt
    assert actor.run("result = os.stat(p).st_size", p=str(tree / "in/a.txt")) == 5


def test_forbidden_objects_have_no_other_name(stage: Stage, tree: Path) -> None:
    """A hard link to a file that belongs to the host is refused though its new name is granted; another link is not."""
    (tree / "state").mkdir()
    (tree / "state/log").write_text("the audit log")
    os.link(tree / "state/log", tree / "in/alias")
    os.link(tree / "in/a.txt", tree / "in/twin")
    actor = stage.actor(("read", f"{tree}/in/**"), host_paths=(str(tree / "state"),))
    assert actor.read(tree / "in/alias") == "EACCES"
    assert stage.denied(tree / "in/alias") == [("filesystem.read", "A1101")]
    assert actor.read(tree / "in/twin") == "alpha"


def test_start_up_files_have_no_other_name_to_write(stage: Stage, tree: Path) -> None:
    """A hard link to a shell's start-up file is read where that is granted and never written; another link is."""
    home = tree / "home"
    home.mkdir()
    home.chmod(0o711)  # not to be listed: what is in it is asked for by name
    (home / ".bashrc").write_text("alias ls=ls")
    os.chown(home / ".bashrc", stage.uid, -1)
    os.link(home / ".bashrc", tree / "out/alias")
    os.link(tree / "out/old.txt", tree / "out/twin")
    grants = (("read", f"{tree}/out/**"), ("write", f"{tree}/out/**"))
    actor = stage.actor(*grants, home_directories=(str(home),))
    assert actor.open(tree / "out/alias", os.O_WRONLY) == "EACCES"
    assert stage.denied(tree / "out/alias") == [("filesystem.write", "A1101")]
    assert actor.run("os.truncate(p, 0)", p=str(tree / "out/alias")) == "EACCES"
    assert actor.read(tree / "out/alias") == "alias ls=ls"
    assert isinstance(actor.open(tree / "out/twin", os.O_WRONLY), int)
    homeless = stage.actor(*grants)
    assert isinstance(homeless.open(tree / "out/alias", os.O_WRONLY), int)


@pytest.mark.needs_root
def test_a_start_up_directory_has_no_other_name_to_write_in(stage: Stage, tree: Path) -> None:
    """In another mount of a directory that shells read at their start nothing is made or removed; elsewhere it is."""
    fish = tree / "home/.config/fish"
    fish.mkdir(parents=True)
    (fish / "old.fish").write_text("x")
    (tree / "out/fish").mkdir()
    for path in (fish, fish / "old.fish"):
        os.chown(path, stage.uid, -1)
    grants = (("read", f"{tree}/out/**"), ("write", f"{tree}/out/**"))
    subprocess.run(["mount", "--bind", str(fish), str(tree / "out/fish")], check=True)
    try:
        actor = stage.actor(*grants, home_directories=(str(tree / "home"),))
        assert actor.write(tree / "out/fish/config.fish", "evil") == "EACCES"
        assert actor.run("os.unlink(p)", p=str(tree / "out/fish/old.fish")) == "EACCES"
        assert actor.run("os.mkdir(p)", p=str(tree / "out/fish/conf.d")) == "EACCES"
        assert actor.read(tree / "out/fish/old.fish") == "x"
        homeless = stage.actor(*grants)
        assert homeless.write(tree / "out/fish/config.fish", "fine") == 4
    finally:
        subprocess.run(["umount", str(tree / "out/fish")], check=True)


def test_set_id_bits_are_never_made_nor_their_files_written(stage: Stage, tree: Path) -> None:
    """Created modes lose set-id and sticky bits, chmod is refused in all forms, and a set-id file isn't written."""
    (tree / "out/tool").write_text("x")
    os.chown(tree / "out/tool", stage.uid, -1)
    (tree / "out/tool").chmod(0o4755)
    actor = stage.actor(("read", f"{tree}/out/**"), ("write", f"{tree}/out/**"))
    new = tree / "out/new"
    assert isinstance(actor.open(new, os.O_CREAT | os.O_WRONLY, 0o7755), int)
    assert new.stat().st_mode & 0o7777 == 0o755
    assert actor.run("os.mkdir(p, 0o7777)", p=str(tree / "out/d")) is None
    assert (tree / "out/d").stat().st_mode & 0o7000 == 0
    assert actor.run("os.chmod(p, 0o4755)", p=str(new)) == "EPERM"
    assert actor.run("os.fchmod(os.open(p, os.O_RDONLY), 0o4755)", p=str(new)) == "EPERM"
    assert actor.open(tree / "out/tool", os.O_WRONLY) == "EPERM"
    assert actor.run("os.link(p, p + '2')", p=str(tree / "out/tool")) == "EPERM"
    assert actor.read(tree / "out/tool") == "x"


def test_symbolic_links_that_lead_out_are_not_made(stage: Stage, tree: Path) -> None:
    """A component can't leave a link behind that is absolute or leads where nothing is granted; a good one it can."""
    actor = stage.actor(("write", f"{tree}/out/**"))
    for target in ("/etc/passwd", "../secret/key", "d/../../secret", "../../../../../etc"):
        assert actor.run("os.symlink(t, p)", t=target, p=str(tree / "out/l")) == "EACCES"
    assert actor.run("os.symlink(t, p)", t="old.txt", p=str(tree / "out/l")) is None
    assert os.readlink(tree / "out/l") == "old.txt"


def test_metadata_locks_attributes_and_sockets_are_refused(stage: Stage, tree: Path) -> None:
    """Owners, attributes and locks are no component's to change, by path or descriptor, and there are no sockets."""
    actor = stage.actor(("read", f"{tree}/out/**"), ("write", f"{tree}/out/**"))
    p = str(tree / "out/old.txt")
    assert actor.run("os.chown(p, 1, 1)", p=p) == "EPERM"
    assert actor.run("os.fchown(os.open(p, os.O_RDWR), 1, 1)", p=p) == "EPERM"
    assert actor.run("os.setxattr(p, 'user.x', b'1')", p=p) == "ENOTSUP"
    assert actor.run("os.getxattr(p, 'user.x')", p=p) == "ENOTSUP"
    assert actor.run("result = sys_call('flock', os.open(p, os.O_RDWR), 2)", p=p) == "ENOTSUP"
    assert actor.run("socket.socket(socket.AF_INET)") == "EACCES"
    assert actor.run("socket.socket(socket.AF_UNIX)") == "EACCES"
    assert actor.run("result = os.write(os.open(p, os.O_RDWR), b'x')", p=p) == 1


def test_hostile_arguments_fail_without_harm(stage: Stage, tree: Path) -> None:
    """Bad pointers, endless paths, unknown flags and oversized structures give an errno, and service goes on."""
    actor = stage.actor(("read", f"{tree}/in/**"))
    assert actor.run("result = sys_call('openat', -100, ctypes.c_void_p(8), 0, 0)") == "EFAULT"
    assert actor.run("result = sys_call('openat', -100, b'/' + b'a' * 5000, 0, 0)") == "ENAMETOOLONG"
    assert actor.run("result = sys_call('openat', -100, b'/' + b'a' * 300, 0, 0)") in ("EACCES", "ENAMETOOLONG")
    assert actor.run("result = sys_call('openat', -100, p, 1 << 30, 0)", p=os.fsencode(tree / "in/a.txt")) == "EINVAL"
    assert actor.run("result = sys_call('openat', -100, p, 0o20200000, 0)", p=os.fsencode(tree / "in")) == "ENOTSUP"
    assert actor.run("result = sys_call('openat2', -100, b'/x', b'\\xff' * 24, 24)") in ("EINVAL", "ENOTSUP")
    assert actor.run("result = sys_call('openat2', -100, b'/x', b'\\0' * 24 + b'\\1' * 8, 32)") == "E2BIG"
    assert actor.run("result = sys_call('openat', 999, b'x', 0, 0)") == "EBADF"
    assert actor.run("result = sys_call('openat', -100, b'relative', 0, 0)") == "EACCES"
    assert (
        actor.run("result = sys_call('newfstatat', -100, p, ctypes.c_void_p(8), 0)", p=os.fsencode(tree / "in/a.txt"))
        == "EFAULT"
    )
    assert (
        actor.run("result = sys_call('getdents64', fd, ctypes.c_void_p(8), 4096)", fd=actor.root(tree / "in"))
        == "EFAULT"
    )
    assert actor.read(tree / "in/a.txt") == "alpha"


def test_a_forbidden_call_is_recorded_and_ends_the_worker(stage: Stage, tree: Path) -> None:
    """A system call that no legitimate worker makes is on record by name, and the warden asks for the worker's end."""
    actor = stage.actor(("read", f"{tree}/in/**"), extra_calls=("ptrace",))
    assert actor.read(tree / "in/a.txt") == "alpha"
    actor.start("sys_call('ptrace', 0, 0, 0, 0)")
    ended = stage.wait_end()
    assert (ended.worker_id, ended.code) == (actor.worker_id, "A1701")
    (event,) = stage.events(event="violation")
    assert "ptrace" in str(event["reason"])
    other = stage.actor(("read", f"{tree}/in/**"))
    assert other.read(tree / "in/a.txt") == "alpha"


def test_a_worker_that_dies_in_a_call_disturbs_nobody(stage: Stage, tree: Path) -> None:
    """A worker killed amid its calls is detached with its counts, and another is answered as before."""
    dying, other = stage.actor(("read", f"{tree}/in/**")), stage.actor(("read", f"{tree}/in/**"))
    dying.start(f"while True:\n    os.close(os.open({str(tree / 'in/a.txt')!r}, 0))")
    assert other.read(tree / "in/a.txt") == "alpha"
    assert stage.detach(dying).denied == 0
    assert other.read(tree / "in/a.txt") == "alpha"


def test_a_flood_is_paced_and_then_ended(slow_stage: Stage, tree: Path) -> None:
    """Calls beyond the rate wait; who goes on for seconds is ended with a record, and another worker is not held up."""
    flooding = slow_stage.actor(("read", f"{tree}/in/**"))
    other = slow_stage.actor(("read", f"{tree}/in/**"))
    flooding.start("while True:\n    sys_call('openat', -100, b'/nonexistent', 0, 0)")
    assert other.read(tree / "in/a.txt") == "alpha"
    ended = slow_stage.wait_end()
    assert (ended.worker_id, ended.code) == (flooding.worker_id, "A1704")
    assert [e["code"] for e in slow_stage.events(event="violation")] == ["A1704"]
    assert other.read(tree / "in/a.txt") == "alpha"


def test_without_namespaces_the_rules_are_the_same(plain_stage: Stage, tree: Path) -> None:
    """Where no user namespace can be had, the warden reads and answers all the same."""
    actor = plain_stage.actor(("read", f"{tree}/in/**"))
    assert actor.read(tree / "in/a.txt") == "alpha"
    assert actor.read(tree / "secret/key") == "EACCES"
    assert plain_stage.denied(tree / "secret/key") == [("filesystem.read", "A1203")]


def test_what_was_done_for_a_caller_that_is_gone_is_on_record(
    stage: Stage, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that dies between the decision and the answer leaves a record of what was done and never heard of."""
    actor = stage.actor(("write", f"{tree}/out/**"))
    asked, go_on = threading.Event(), threading.Event()
    append = AuditLog.append

    def slow(log: AuditLog, entries: Sequence[Entry]) -> tuple[AuditRecord, ...]:
        if any(event.resource == f"{tree}/out/made" for event, _ in entries):
            asked.set()
            assert go_on.wait(20)
        return append(log, entries)

    monkeypatch.setattr(AuditLog, "append", slow)
    actor.start(f"os.mkdir({str(tree / 'out/made')!r})")
    assert asked.wait(20)
    assert not (tree / "out/made").exists(), "no record, no action"
    actor.process.send_signal(signal.SIGKILL)
    assert actor.process.wait(10)
    go_on.set()
    detached = stage.detach(actor)
    assert detached.calls == 1
    assert (tree / "out/made").is_dir()
    (told,) = stage.events(event="performed_not_delivered")
    assert (told["action"], told["resource"], told["decision"]) == (
        "filesystem.write",
        f"{tree}/out/made",
        "performed",
    )
    again = stage.actor(("write", f"{tree}/out/**"))
    assert again.run("os.mkdir(p)", p=str(tree / "out/other")) is None
    stage.detach(again)
    assert len(stage.events(event="performed_not_delivered")) == 1
