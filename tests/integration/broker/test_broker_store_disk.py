"""Full and failing disks under the store, and a process that is killed: a failure is said, a wrong answer is not."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ipc.struct import Struct

GUARD_S = 60.0
HEAD = """
import ctypes, json, os, struct, sys, threading
from ipc.broker import messages as m
from ipc.broker.events import Store as Order
from ipc.broker.store import Store
class Rights:
    def decide(self, action, resource):
        raise NotImplementedError
def ask(store, *calls, name="one"):
    return store.execute([(Order(n, name, call, None, Rights()), None) for n, call in enumerate(calls)])
"""


class Disk(Struct):
    """A small file system in a mount namespace of its own, and Python in there."""

    holder: int
    directory: Path

    def run(self, code: str) -> list[object]:
        """Run code in there; returns what it printed as JSON."""
        pid = self.holder
        enter = ["nsenter", f"--mount=/proc/{pid}/ns/mnt"]
        if os.geteuid():
            enter = ["nsenter", f"--target={pid}", "--user", "--mount", "--preserve-credentials"]
        command = [*enter, sys.executable, "-I", "-c", HEAD + code, str(self.directory)]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=GUARD_S, check=False)
        assert ran.returncode == 0, ran.stderr
        said = json.loads(ran.stdout)
        assert isinstance(said, list)
        return said


@pytest.fixture
def disk(tmp_path: Path, small_disk: Callable[[Path, str], int]) -> Disk:
    """A file system of 64 MiB (tmpfs)."""
    return Disk(small_disk(tmp_path, "size=64m,mode=777"), tmp_path)


FULL = """
directory = sys.argv[1]
store = Store(directory)
kept = {}
refused = 0
for number in range(600):
    (small, large) = ask(store, m.Set(1, f"s{number}", b"s"), m.Set(1, f"l{number}", bytes(100_000)))
    for key, value, result in ((f"s{number}", b"s", small), (f"l{number}", bytes(100_000), large)):
        if result.failure:
            refused += 1
        else:
            kept[key] = value
failures = ask(store, m.Set(1, "more", bytes(300_000)))[0].failure
wrong = [key for key, value in kept.items() if ask(store, m.Get(1, key))[0].value != value]
counted = store.account("one").usage_bytes == sum(len(k) + len(v) + 64 for k, v in kept.items())
deleted = [ask(store, m.Delete(1, key))[0] for key in list(kept) if key[0] == "l"]
room = sum(1 for result in deleted if not result.failure)
for key, result in zip([k for k in kept if k[0] == "l"], deleted):
    if not result.failure:
        del kept[key]
again = ask(store, m.Set(1, "again", bytes(100_000)))[0].failure
kept["again"] = bytes(100_000)
store.close()
store = Store(directory)
wrong += [key for key, value in kept.items() if ask(store, m.Get(1, key))[0].value != value]
counted = counted and store.account("one").usage_bytes == sum(len(k) + len(v) + 64 for k, v in kept.items())
print(json.dumps([refused, failures, wrong, counted, room > 0, again, store.broken]))
"""


def test_a_full_disk_fails_what_does_not_fit_in(disk: Disk) -> None:
    """What was acknowledged is there, what failed is not, the account is exact; with room again it goes on."""
    refused, failure, wrong, counted, deleted, again, broken = disk.run(FULL)
    assert isinstance(refused, int)
    assert refused > 50
    assert "full" in str(failure)
    assert (wrong, counted, deleted, again, broken) == ([], True, True, "", "")


FAILING_SYNC = """
libc = ctypes.CDLL(None, use_errno=True)
NUMBERS = {"x86_64": (74, 75, 317), "aarch64": (82, 83, 277)}[os.uname().machine]
def load(instructions):
    "Load a filter into every thread: seccomp(2), SECCOMP_FILTER_FLAG_TSYNC."
    code = b"".join(struct.pack("HBBI", *each) for each in instructions)
    buffer = ctypes.create_string_buffer(code)
    program = struct.pack("HxxxxxxP", len(instructions), ctypes.addressof(buffer))
    assert libc.prctl(38, 1, 0, 0, 0) == 0
    assert libc.syscall(ctypes.c_long(NUMBERS[2]), ctypes.c_long(1), ctypes.c_long(1), program) == 0
store = Store(sys.argv[1])
first = ask(store, m.Set(1, "k", b"kept"))[0].failure
load([(32, 0, 0, 0), (21, 1, 0, NUMBERS[0]), (21, 0, 1, NUMBERS[1]), (6, 0, 0, 0x00050005), (6, 0, 0, 0x7FFF0000)])
results = ask(store, m.Set(1, "k", b"lost"), m.Set(1, "l", b"lost"))
results += ask(store, m.Get(1, "k")) + ask(store, m.Set(1, "m", b"")) + ask(store, m.Exists(1, "k"))
print(json.dumps([first, [result.failure for result in results], [repr(result.value) for result in results]]))
"""


def test_after_a_failed_sync_nothing_is_answered(tmp_path: Path) -> None:
    """fdatasync answers EIO: the write fails, and so does everything after it; no value is given that may not be so."""
    command = [sys.executable, "-I", "-c", HEAD + FAILING_SYNC, str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=GUARD_S, check=False)
    first, failures, values = json.loads(ran.stdout)
    assert first == ""
    assert len(failures) == 5
    assert all("can't be trusted" in failure for failure in failures)
    assert set(values) == {"None"}


WRITER = """
store = Store(sys.argv[1])
value = ask(store, m.Get(1, "n"))[0].value
number = int(value or b"0")
rows = [ask(store, m.Get(1, f"k{n}"))[0].value for n in range(5)]
assert value is None or rows == [value] * 5, (value, rows)
os.write(1, b"open %d\\n" % number)
while True:
    number += 1
    written = b"%d" % number
    results = ask(store, m.Set(1, "n", written), *[m.Set(1, f"k{n}", written) for n in range(5)])
    assert not any(result.failure for result in results)
    os.write(1, b"%d\\n" % number)
"""


@pytest.mark.any_user
def test_kill_9_in_a_loop_loses_nothing_and_tears_nothing(tmp_path: Path) -> None:
    """Forty kills of a process that writes: the last that it told is there or a later one, and batches are whole."""
    chosen = random.Random(7)
    last = 0
    for _ in range(40):
        command = [sys.executable, "-I", "-c", HEAD + WRITER, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            opened = writer.stdout.readline().split()
            assert opened[0] == b"open", "it could not be opened, or a batch was torn"
            assert int(opened[1]) >= last
            until_s = time.monotonic() + chosen.random() * 0.1
            while time.monotonic() < until_s:
                last = int(writer.stdout.readline())
            writer.kill()
            for line in writer.stdout:
                if line.endswith(b"\n"):
                    last = int(line)
    assert last > 40
