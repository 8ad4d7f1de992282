"""Objects and threads that are no longer what their name or number says: moved, replaced, reused."""

from __future__ import annotations

import mmap
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from supervisor.audit.log import AuditLog
from supervisor.host.namespaces import Spawned, spawn

if TYPE_CHECKING:
    from conftest import Stage

    from ipc.audit.event import AuditRecord
    from supervisor.audit.log import Entry

LAST_PID = Path("/proc/sys/kernel/ns_last_pid")
ADDRESS = 0x2000_0000_0000
"""Where both processes have a page: nothing else is mapped there."""
VICTIM = f"""
import ctypes, mmap, os, sys
c = ctypes.CDLL(None)
c.mmap.restype = ctypes.c_void_p
c.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
page = c.mmap({ADDRESS}, {mmap.PAGESIZE}, 3, 0x100022, -1, 0)
ctypes.memset(page, 0x41, {mmap.PAGESIZE})
os.setgroups([])
os.setresgid(UID, UID, UID)
os.setresuid(UID, UID, UID)
os.write(OUT, b"ready")
os.read(IN, 1)
os.write(OUT, ctypes.string_at(page, {mmap.PAGESIZE}))
"""


def test_a_held_directory_is_judged_where_it_is_now(stage: Stage, tree: Path) -> None:
    """A handle on a granted directory gives nothing once that was moved to where nothing is granted."""
    actor = stage.actor(("read", f"{tree}/in/**"), ("write", f"{tree}/in/**"), mounts=(str(tree / "in"),))
    handle = actor.root(tree / "in/sub")
    beneath = "result = sys_call('openat', fd, b'c.txt', 0, 0)"
    assert isinstance(actor.run(beneath, fd=handle), int)
    (tree / "in/sub").rename(tree / "secret/sub")
    assert actor.run(beneath, fd=handle) == "EACCES"
    assert actor.run("result = sys_call('mkdirat', fd, b'new', 0o700)", fd=handle) == "EACCES"
    assert actor.run("result = names(fd)", fd=handle) == ["errno 13"]
    assert actor.open(tree / "in/sub/c.txt") == "ENOENT"
    assert stage.denied(tree / "secret/sub/c.txt") == [("filesystem.read", "A1203")]
    (tree / "secret/sub").rename(tree / "in/sub")
    assert isinstance(actor.run(beneath, fd=handle), int), "where it was it is as before"


def test_a_name_gives_what_stands_there_now(stage: Stage, tree: Path) -> None:
    """A replaced file is read as replaced, a descriptor stays with the old one, and has no way to the new."""
    actor = stage.actor(("read", f"{tree}/in/**"))
    held = actor.open(tree / "in/a.txt")
    new = tree / "in/.new"
    new.write_text("replaced")
    new.rename(tree / "in/a.txt")
    assert actor.read(tree / "in/a.txt") == "replaced"
    assert actor.run("result = os.read(fd, 99).decode()", fd=held) == "alpha"
    assert actor.run("os.utime(fd, (1, 1))", fd=held) == "EACCES"
    (tree / "in/a.txt").unlink()
    (tree / "in/a.txt").symlink_to(tree / "secret/key")
    assert actor.read(tree / "in/a.txt") == "EACCES"


def test_a_directory_is_not_what_lies_beneath_it(stage: Stage, tree: Path) -> None:
    """`dir/**` is everything beneath and not the directory: it isn't removed, moved or replaced; with `dir/` it is."""
    (tree / "out/d").mkdir()
    (tree / "out/other").mkdir()
    for name in ("d", "other"):
        os.chown(tree / "out" / name, stage.uid, -1)
    d, other = str(tree / "out/d"), str(tree / "out/other")
    actor = stage.actor(("write", f"{d}/**"), ("write", f"{other}/"))
    assert actor.run("os.mkdir(d + '/x'); os.rmdir(d + '/x')", d=d) is None
    assert actor.run("os.rmdir(d)", d=d) == "EACCES"
    assert actor.run("os.rename(d, o + '/d')", d=d, o=other) == "EACCES"
    assert actor.run("os.rename(o, d)", d=d, o=other) == "EACCES"
    assert actor.run("os.utime(d, (1, 1))", d=d) == "EACCES"
    whole = stage.actor(("write", f"{d}/"))
    assert whole.run("os.utime(d, (1, 1))", d=d) is None
    assert whole.run("os.rmdir(d)", d=d) is None
    assert not (tree / "out/d").exists()


def with_pid(pid: int, stage: Stage, uid: int) -> tuple[Spawned, int, int] | None:
    """Start a victim with this number, within the warden's reach; None when somebody else got the number."""
    ours, out = os.pipe()
    into, go = os.pipe()
    code = VICTIM.replace("UID", str(uid)).replace("OUT", str(out)).replace("IN", str(into))
    LAST_PID.write_text(str(pid - 1))
    victim = spawn((sys.executable, "-I", "-c", code), pass_descriptors=(out, into), join=stage.namespace)
    os.close(out)
    os.close(into)
    if victim.pid == pid:
        assert os.read(ours, 16) == b"ready"
        return victim, ours, go
    end(victim, ours, go)
    return None


def end(victim: Spawned, *descriptors: int) -> None:
    """End a victim."""
    victim.send_signal(signal.SIGKILL)
    assert victim.wait(10)
    victim.close()
    for descriptor in descriptors:
        os.close(descriptor)


@pytest.mark.needs_root
def test_a_result_is_not_written_to_who_got_the_callers_number(
    stage: Stage, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller of a stat dies meanwhile, and another process gets its number: its memory stays as it was."""
    held, go_on = threading.Event(), threading.Event()
    append = AuditLog.append

    def hold(log: AuditLog, entries: Sequence[Entry]) -> tuple[AuditRecord, ...]:
        if any(event.resource == f"{tree}/in/a.txt" for event, _ in entries):
            held.set()
            assert go_on.wait(20)
        return append(log, entries)

    monkeypatch.setattr(AuditLog, "append", hold)
    actor = stage.actor(("read", f"{tree}/in/**"))
    pid, path = actor.process.pid, os.fsencode(tree / "in/a.txt")
    actor.start(f"sys_call('newfstatat', -100, {path!r}, ctypes.c_void_p({ADDRESS}), 0)")
    assert held.wait(20)
    actor.process.send_signal(signal.SIGKILL)
    assert actor.process.wait(10)
    started = None
    for _ in range(50):
        started = started or with_pid(pid, stage, 2_000_000_000)
    assert started is not None, "somebody else kept the number"
    victim, ours, go = started
    go_on.set()
    assert stage.detach(actor).calls == 1
    os.write(go, b"g")
    after = os.read(ours, mmap.PAGESIZE)
    end(victim, ours, go)
    assert after == b"A" * mmap.PAGESIZE
    # The twin: a caller that lives gets its result at the same address.
    alive = stage.actor(("read", f"{tree}/in/**"))
    source = f"""
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
at = libc.mmap({ADDRESS}, 4096, 3, 0x100022, -1, 0)
sys_call('newfstatat', -100, p, ctypes.c_void_p(at), 0)
result = ctypes.string_at(at, 144).count(0) < 144
"""
    assert alive.run(source, p=path) is True
