"""Each layer alone against native code, as if WebAssembly had been escaped.

With all layers off an attack works; with the one that is there for it, it doesn't. The attacker is a process of its own
that puts on the product's layers by the product's code and then attacks.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = str(Path(__file__).parents[3])
LAYERS = ("landlock", "seccomp", "namespaces", "rlimits")
ATTACKER = """
import sys, os, json
sys.path.insert(0, {root!r})
import array, ctypes, errno, mmap, signal, socket
from ipc.messages import ConfinementPlan, WorkerLimits
from worker import confine, libc, seccomp
seccomp.compile_all()
C = ctypes.CDLL(None, use_errno=True)
C.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
victim = int(sys.argv[2])
off, uid = json.loads(sys.argv[1])
plan = ConfinementPlan((), tuple(off), uid, uid, "namespaces" not in off)
attacks = {{
    "read": lambda: os.read(os.open("/etc/passwd", os.O_RDONLY), 4) and "done",
    "list": lambda: os.listdir("/etc") and "done",
    "socket": lambda: socket.socket().close() or "done",
    "fork": lambda: os.waitpid(os.posix_spawn("/bin/true", ["true"], {{}}), 0)[1] or "done",
    "signal": lambda: os.kill(victim, 0) or "done",
    "memory": lambda: mmap.mmap(-1, 1 << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) and "done",
    "memfd": lambda: os.memfd_create("x") and "done",
    "code": lambda: code(),
}}
def code():
    page = libc.reserve(4096)
    if C.mprotect(page, 4096, 7):
        raise OSError(ctypes.get_errno(), "mprotect")
    return "done"
os.dup2(1, 9)
limits = WorkerLimits(64 << 20, 1, memories=1)
confinement = confine.put_on_layers(plan, os.pidfd_open(os.getppid()), False)
confinement.bound(limits, 1 << 20)
if "seccomp" not in off:
    listener = confine.confine_with_listener(confinement)
    seccomp.seal()
    if sys.argv[3] not in ("code",):
        # Nobody answers: with its listener gone, a notified call answers ENOSYS (seccomp_unotify(2)).
        os.close(listener)
try:
    result = attacks[sys.argv[3]]()
except OSError as error:
    result = errno.errorcode.get(error.errno, "?")
except OverflowError:
    result = "?"
os.write(9, str(result).encode())
os._exit(0)
"""


def attack(name: str, *, off: tuple[str, ...]) -> str:
    """Run one attack behind the layers that aren't off; returns "done", an errno's name, or the signal."""
    uid = 2_000_000_077 if os.getuid() == 0 else None
    victim = subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, user=uid if uid else None)
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-c", ATTACKER.format(root=ROOT), json.dumps([off, uid]), str(victim.pid), name],
            capture_output=True,
            timeout=60,
        )
    finally:
        assert victim.stdin is not None
        victim.stdin.close()
        victim.wait()
    if done.returncode < 0:
        return signal.Signals(-done.returncode).name
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


@pytest.mark.parametrize("name", ["read", "list", "socket", "fork", "signal", "memory", "memfd", "code"])
def test_without_layers_the_attack_works(name: str) -> None:
    """The positive control: with every layer off each attack does what it wants."""
    assert attack(name, off=LAYERS) == "done"


@pytest.mark.parametrize(
    ("layer", "name", "ends"),
    [
        ("landlock", "read", "EACCES"),
        ("landlock", "list", "EACCES"),
        ("landlock", "fork", "EACCES"),
        ("landlock", "signal", "EPERM"),
        ("seccomp", "read", "ENOSYS"),
        ("seccomp", "list", "ENOSYS"),
        ("seccomp", "socket", "ENOSYS"),
        ("seccomp", "fork", "ENOSYS"),
        ("seccomp", "signal", "ENOSYS"),
        ("seccomp", "memfd", "ENOSYS"),
        ("seccomp", "code", "SIGSYS"),
        ("rlimits", "memory", "ENOMEM"),
    ],
)
def test_one_layer_alone_holds(layer: str, name: str, ends: str) -> None:
    """Each layer stops by itself what it is there to stop."""
    assert attack(name, off=tuple(other for other in LAYERS if other != layer)) == ends


@pytest.mark.needs_root
@pytest.mark.parametrize(("name", "ends"), [("read", "ENOENT"), ("fork", "ENOENT")])
def test_namespaces_alone_hold(name: str, ends: str) -> None:
    """In an empty root there is nothing to open or to execute."""
    assert attack(name, off=("landlock", "seccomp", "rlimits")) == ends


@pytest.mark.needs_root
@pytest.mark.parametrize("name", ["read", "list", "socket", "fork", "signal", "memory", "memfd", "code"])
def test_all_layers_together_hold(name: str) -> None:
    """With every layer on no attack works."""
    assert attack(name, off=()) != "done"
