"""The shell of the storage account on real files, with this process in the worker's place."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ipc.messages import StorageBounds
from ipc.policy.quota import QuotaLevel
from ipc.policy.storage import OBJECT_BYTES
from ipc.warden.storage import Storage
from supervisor.host.clearing import remove_tree

QUOTA = 1_000_000
HELD_MAX = 256


class Told:
    """Keeps what is told."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.levels: list[QuotaLevel] = []

    def crossed(self, level: QuotaLevel) -> None:
        """Keep one level."""
        self.levels.append(level)


@pytest.fixture
def opened() -> Iterator[Callable[[Path], int]]:
    """Opens files for writing, and closes them when the test is over."""
    descriptors: list[int] = []

    def open_(path: Path) -> int:
        descriptors.append(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        return descriptors[-1]

    yield open_
    for descriptor in descriptors:
        os.close(descriptor)


@pytest.fixture
def own() -> Iterator[int]:
    """A pidfd of this process."""
    pidfd = os.pidfd_open(os.getpid())
    yield pidfd
    os.close(pidfd)


@pytest.mark.parametrize("unlinked", [False, True])
@pytest.mark.parametrize("running", [False, True])
def test_a_worker_that_is_taken_over_is_asked_what_it_holds(
    tmp_path: Path, opened: Callable[[Path], int], own: int, running: bool, unlinked: bool
) -> None:
    """What another warden opened for it is found and measured; without looking (the control) it could grow unseen."""
    before = Storage(StorageBounds(QUOTA, (), HELD_MAX, running), Told())
    before.attach(own)
    held = before.level.usage  # the test runner holds unlinked files of its own
    before.finish()
    descriptor = opened(tmp_path / "file")
    os.write(descriptor, b"x" * 1000)
    if unlinked:
        (tmp_path / "file").unlink()
    storage = Storage(StorageBounds(QUOTA, (), HELD_MAX, running), Told())
    storage.attach(own)
    assert storage.level.usage - held == (OBJECT_BYTES if running and unlinked else 0)
    assert bool(storage.due_ns) is running
    os.ftruncate(descriptor, 2 * QUOTA)
    level = storage.measure()
    assert (level is not None) is running
    storage.finish()


def test_calls_in_a_row_do_not_put_a_measurement_off(tmp_path: Path, opened: Callable[[Path], int], own: int) -> None:
    """The next measurement stays due when it was due, whatever is opened meanwhile."""
    storage = Storage(StorageBounds(QUOTA, (), HELD_MAX), Told())
    storage.attach(own)
    due = []
    for n in range(5):
        descriptor = opened(tmp_path / str(n))
        storage.opened(descriptor, str(tmp_path / str(n)), writes=True, created=True)
        due.append(storage.due_ns)
    assert due[0] > 0
    assert set(due) == {due[0]} or due == sorted(due, reverse=True)
    storage.finish()


def test_a_worker_is_not_ended_for_what_others_store(tmp_path: Path, opened: Callable[[Path], int], own: int) -> None:
    """Beyond the quota by somebody else's files it goes on, until what it has open itself grows."""
    told = Told()
    storage = Storage(StorageBounds(QUOTA, (str(tmp_path),), HELD_MAX), told)
    storage.attach(own)
    descriptor = opened(tmp_path / "own")
    storage.opened(descriptor, str(tmp_path / "own"), writes=True, created=True)
    other = Storage(StorageBounds(QUOTA, (str(tmp_path),), HELD_MAX), Told())
    (tmp_path / "other").write_bytes(bytes(2 * QUOTA))
    assert other.finish().status == "exceeded"
    assert storage.measure() is None
    os.write(descriptor, bytes(2 * OBJECT_BYTES))
    assert storage.measure() is None  # it doesn't know of the other's file yet, and grew within its quota
    assert storage.finish().status == "exceeded"
    assert [level.status for level in told.levels] == ["exceeded"]


def test_what_is_nested_too_deep_to_be_named_is_not_free(tmp_path: Path) -> None:
    """Directories that were moved into one another can't be walked: all counts as used, until they are removed."""
    data = tmp_path / "data"
    data.mkdir()
    for top in "ab":
        path = data / top
        for _ in range(12):
            path.mkdir()
            path = path / ("d" * 250)
    deepest = os.path.join(data, "b", *["d" * 250] * 11)
    Path(deepest, "file").write_bytes(bytes(QUOTA // 10))
    assert Storage(StorageBounds(QUOTA, (str(data),), HELD_MAX), Told()).level.status == "ok"
    os.rename(data / "b", os.path.join(data, "a", *["d" * 250] * 11, "b"))
    assert Storage(StorageBounds(QUOTA, (str(data),), HELD_MAX), Told()).level.status == "exceeded"
    remove_tree(str(data / "a"))
    assert Storage(StorageBounds(QUOTA, (str(data),), HELD_MAX), Told()).level.usage == 0


def test_a_walk_follows_no_link(tmp_path: Path) -> None:
    """A link counts as a name; what it leads to doesn't, nor does a link in the directory's own place."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "large").write_bytes(bytes(QUOTA // 2))
    data = tmp_path / "data"
    data.mkdir()
    (data / "link").symlink_to(elsewhere)
    assert Storage(StorageBounds(QUOTA, (str(data),), HELD_MAX), Told()).level.usage == OBJECT_BYTES
    (tmp_path / "instead").symlink_to(elsewhere)
    assert Storage(StorageBounds(QUOTA, (str(tmp_path / "instead"),), HELD_MAX), Told()).level.usage == 0
