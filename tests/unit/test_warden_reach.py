"""What the warden makes of a worker that it can't look into: a missing right, or one that has ended meanwhile."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from ipc.errors import ConfinementError
from ipc.warden.reach import check_reach, has_ended, judge

REFUSED = PermissionError(errno.EPERM, "refused")


@pytest.fixture
def child() -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A process that lives until its input ends, and its pidfd."""
    process = subprocess.Popen(
        [sys.executable, "-I", "-c", "input()"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    pidfd = os.pidfd_open(process.pid)
    try:
        yield process, pidfd
    finally:
        os.close(pidfd)
        process.kill()
        process.communicate()


def test_a_refusal_is_a_missing_right_while_the_worker_lives(child: tuple[subprocess.Popen[bytes], int]) -> None:
    """What refuses to be looked into and lives on is out of reach; another error is none of the surroundings."""
    _, pidfd = child
    assert not has_ended(pidfd)
    with pytest.raises(ConfinementError, match="can't look into"):
        judge(pidfd, "pidfd_getfd", REFUSED)
    judge(pidfd, "process_vm_readv", OSError(errno.EFAULT, "nothing is there"))


def test_one_that_has_ended_is_out_of_nobodys_reach(child: tuple[subprocess.Popen[bytes], int]) -> None:
    """A worker that refuses its program ends at once, and a kernel refuses to look into what is ending."""
    process, pidfd = child
    assert process.stdin is not None
    process.stdin.close()
    judge(pidfd, "pidfd_getfd", REFUSED)
    assert has_ended(pidfd)
    check_reach(pidfd)
