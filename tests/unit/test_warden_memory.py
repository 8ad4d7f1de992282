"""Reading the arguments of a call, from this very process: the bytes are the same in one copy and in two."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
from typing import cast

import pytest

from ipc.warden.memory import WorkerMemory
from ipc.warden.notify import Call, CallFails, Listener

PAGE = mmap.PAGESIZE
HOW = bytes(range(1, 25))


class Checked:
    """A listener that counts how often it was asked whether the caller still waits."""

    checks = 0

    def check(self, _call: Call) -> None:
        """The caller always waits."""
        self.checks += 1


class Arena:
    """Three pages; the last one can't be touched."""

    def __init__(self) -> None:
        """Map them."""
        self._map = mmap.mmap(-1, 3 * PAGE)
        self.start = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        libc = ctypes.CDLL(None)
        libc.mprotect.argtypes = [ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int]
        assert libc.mprotect(self.start + 2 * PAGE, PAGE, 0) == 0

    def put(self, offset: int, data: bytes) -> int:
        """Write there; returns the address."""
        self._map[offset : offset + len(data)] = data
        return self.start + offset


@pytest.fixture
def arena() -> Arena:
    """Some memory."""
    return Arena()


@pytest.fixture
def listener() -> Checked:
    """Whom the memory asks."""
    return Checked()


@pytest.fixture
def memory(listener: Checked) -> WorkerMemory:
    """The memory of this process."""
    return WorkerMemory(cast(Listener, listener))


CALL = Call(1, os.getpid(), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("path_at", "how_at"),
    [
        (64, 0),
        (0, 512),
        (PAGE - 3, 0),
        (PAGE + 100, PAGE - 24),
        (2 * PAGE - 9, PAGE),
        (2 * PAGE - 9, 0),
        (100, 2 * PAGE - 24),
    ],
)
def test_path_and_structure_come_together(
    memory: WorkerMemory, listener: Checked, arena: Arena, path_at: int, how_at: int
) -> None:
    """Wherever the two lie, side by side, pages apart, at the edge of what is mapped: both are read as they are."""
    path, how = arena.put(path_at, b"a/b/c.txt\0"[: 9 + (path_at + 10 <= 2 * PAGE)]), arena.put(how_at, HOW)
    if path_at + 9 == 2 * PAGE:
        with pytest.raises(CallFails) as failed:  # no NUL before the end of what is mapped
            memory.read_path_and(CALL, path, how, 24)
        assert failed.value.errno == errno.EFAULT
        return
    assert memory.read_path_and(CALL, path, how, 24) == (b"a/b/c.txt", HOW)
    assert listener.checks


def test_a_long_path_is_read_to_its_end(memory: WorkerMemory, arena: Arena) -> None:
    """A path longer than the first copy, beside its structure."""
    how = arena.put(0, HOW)
    path = arena.put(24, b"x" * 3000 + b"\0")
    assert memory.read_path_and(CALL, path, how, 24) == (b"x" * 3000, HOW)


def test_what_is_not_mapped_is_efault(memory: WorkerMemory, arena: Arena) -> None:
    """A structure that runs into memory that isn't there fails like the call itself would."""
    path = arena.put(PAGE, b"a\0")
    for how in (arena.start + 2 * PAGE - 8, arena.start + 2 * PAGE, 8):
        with pytest.raises(CallFails) as failed:
            memory.read_path_and(CALL, path, how, 24)
        assert failed.value.errno == errno.EFAULT
