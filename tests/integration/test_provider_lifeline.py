"""What a provider has started ends with the supervisor, also where that is killed and nobody is left to end it."""

from __future__ import annotations

import os
import select
import subprocess
import sys

import pytest

CODE = """
import os, subprocess, sys, time
from ipc.provider import lifeline
supervisor = os.pidfd_open(int(sys.argv[1]))
lifeline.hold(supervisor)
os.close(supervisor)
try:
    os.wait()
except ChildProcessError:
    print("no child", flush=True)
child = subprocess.Popen(["sleep", "1000"])
print(child.pid, flush=True)
time.sleep(1000)
"""
GUARD_MS = 30_000


def has_ended(pidfd: int) -> bool:
    """Whether a process ends before long."""
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    return bool(poller.poll(GUARD_MS))


@pytest.mark.any_user
def test_a_providers_children_end_with_the_supervisor() -> None:
    """The provider itself has no child that it didn't start, and nothing but its end closes what it prints to."""
    with (
        subprocess.Popen(["sleep", "1000"]) as supervisor,
        subprocess.Popen(
            [sys.executable, "-I", "-c", CODE, str(supervisor.pid)], stdout=subprocess.PIPE, start_new_session=True
        ) as provider,
    ):
        try:
            assert provider.stdout is not None
            assert provider.stdout.readline() == b"no child\n"
            child = os.pidfd_open(int(provider.stdout.readline()))
            try:
                supervisor.kill()
                assert has_ended(child)
                assert provider.wait(GUARD_MS / 1000) == -9
                assert provider.stdout.read() == b""
            finally:
                os.close(child)
        finally:
            supervisor.kill()
            provider.kill()
