"""Sealed memory files: after the seal nothing changes them; without it everything does (the control)."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import mmap
import os
from collections.abc import Callable, Iterator

import pytest

from ipc import memory_file
from ipc.errors import LocalProtocolError

DATA = b"machine code " * 1_000


def _write(descriptor: int) -> None:
    os.pwrite(descriptor, b"X", 0)


def _append(descriptor: int) -> None:
    os.lseek(descriptor, 0, os.SEEK_END)
    os.write(descriptor, b"X")


def _shorten(descriptor: int) -> None:
    os.ftruncate(descriptor, 1)


def _lengthen(descriptor: int) -> None:
    os.ftruncate(descriptor, len(DATA) + 4096)


def _empty_by_opening(descriptor: int) -> None:
    os.close(os.open(f"/proc/self/fd/{descriptor}", os.O_RDWR | os.O_TRUNC))


def _map_and_write(descriptor: int) -> None:
    with mmap.mmap(descriptor, len(DATA), flags=mmap.MAP_SHARED, prot=mmap.PROT_READ | mmap.PROT_WRITE) as view:
        view[0:1] = b"X"


def _write_through_another_opening(descriptor: int) -> None:
    other = os.open(f"/proc/self/fd/{descriptor}", os.O_RDWR)
    try:
        os.pwrite(other, b"X", 0)
    finally:
        os.close(other)


def _punch_a_hole(descriptor: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long)
    if libc.fallocate(descriptor, 0x02 | 0x01, 0, 4096):  # PUNCH_HOLE | KEEP_SIZE
        raise OSError(ctypes.get_errno(), "fallocate")


def _unseal_by_sealing_otherwise(descriptor: int) -> None:
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, 0x10)  # F_SEAL_FUTURE_WRITE: any further seal


CHANGES = [
    _write,
    _append,
    _shorten,
    _lengthen,
    _empty_by_opening,
    _map_and_write,
    _write_through_another_opening,
    _punch_a_hole,
    _unseal_by_sealing_otherwise,
]


@pytest.fixture
def source() -> Iterator[int]:
    """An ordinary open file with the data in it."""
    descriptor = os.memfd_create("source")
    os.write(descriptor, DATA)
    yield descriptor
    os.close(descriptor)


@contextlib.contextmanager
def _closing(descriptor: int) -> Iterator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("change", CHANGES)
def test_a_sealed_file_can_not_be_changed(change: Callable[[int], None]) -> None:
    """Each way to change a file fails on a sealed one, even for its maker, and the bytes stay."""
    with _closing(memory_file.from_bytes("x", DATA)) as sealed:
        with pytest.raises(OSError, match=r"\[Errno (1|16)\]|fallocate"):
            change(sealed)
        assert memory_file.read_all(sealed) == DATA


@pytest.mark.parametrize("change", CHANGES)
def test_an_unsealed_file_can_be_changed(change: Callable[[int], None]) -> None:
    """The control: the same ways work where no seal is."""
    with _closing(os.memfd_create("x", os.MFD_ALLOW_SEALING)) as unsealed:
        os.write(unsealed, DATA)
        change(unsealed)
        if change is not _unseal_by_sealing_otherwise:
            assert memory_file.read_all(unsealed) != DATA


def test_a_sealed_file_can_be_mapped_to_read() -> None:
    """Reading and private mapping are what a worker needs, and go on working."""
    with (
        _closing(memory_file.from_bytes("x", DATA)) as sealed,
        mmap.mmap(sealed, len(DATA), flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE) as view,
    ):
        view[0:1] = b"X"
        assert memory_file.read_all(sealed) == DATA


def test_a_copy_is_independent_of_its_source(source: int) -> None:
    """What happens to the source after the copy, the copy doesn't see, and its hash is that of what was copied."""
    with _closing(memory_file.from_file("x", source, len(DATA))) as sealed:
        os.pwrite(source, b"XXXX", 0)
        assert memory_file.read_all(sealed) == DATA
        assert memory_file.sha256(sealed) == hashlib.sha256(DATA).hexdigest()
        with pytest.raises(PermissionError):
            os.pwrite(sealed, b"X", 0)


def test_the_bound_of_a_copy_is_exact(source: int) -> None:
    """A file of exactly the bound is copied, one byte more is refused, and nothing stays open."""
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(ValueError, match=f"larger than {len(DATA) - 1} bytes"):
        memory_file.from_file("x", source, len(DATA) - 1)
    with _closing(memory_file.from_file("x", source, len(DATA))) as sealed:
        assert os.fstat(sealed).st_size == len(DATA)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("data", [b"", b"x", DATA])
def test_hash_and_content(data: bytes) -> None:
    """The hash is that of the content, also of no content."""
    with _closing(memory_file.from_bytes("x", data)) as sealed:
        assert memory_file.sha256(sealed) == hashlib.sha256(data).hexdigest()
        assert memory_file.read_all(sealed) == data


def test_it_closes_on_exec() -> None:
    """A sealed file isn't inherited by what we exec."""
    with _closing(memory_file.from_bytes("x", b"")) as sealed:
        assert not os.get_inheritable(sealed)


@pytest.mark.parametrize("sealed", [True, False])
def test_what_came_along_is_taken_whole_or_not_at_all(sealed: bool) -> None:
    """It is read from its start, wherever it was left, closed, and refused where it is longer than agreed."""
    descriptor = memory_file.from_bytes("x", b"12345", sealed)
    os.lseek(descriptor, 3, os.SEEK_SET)
    assert memory_file.take(descriptor, 5) == b"12345"
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
    with pytest.raises(LocalProtocolError):
        memory_file.take(memory_file.from_bytes("x", b"12345", sealed), 4)
