"""That one process at a time answers for a state directory."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from typing import Final

from ipc.errors import ConfigError
from supervisor.host.host import needed_for_records
from supervisor.terminal import visible

LOCK: Final = "up.lock"


@contextlib.contextmanager
def only_one(state: str) -> Iterator[None]:
    """Hold the state directory's lock; raises ConfigError where a supervisor holds it."""
    with needed_for_records():
        os.makedirs(state, mode=0o700, exist_ok=True)
        held = os.open(os.path.join(state, LOCK), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"a supervisor, or airssys approvals serve, runs already with its state in {visible(state)}",
                hint="look at it with airssys status, end it with airssys down, or name another --state-dir",
            ) from None
        yield
    finally:
        os.close(held)


def is_held(state: str) -> bool:
    """Whether a process answers for a state directory, though it may not say so: stopped, say, or busy for long."""
    try:
        descriptor = os.open(os.path.join(state, LOCK), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
