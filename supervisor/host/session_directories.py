"""Directories that live as long as one process of ours: made, held, removed, and swept where their owner was killed.

The owner holds a lock on its directory (flock(2)), which the kernel takes away with the process, however that ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time

_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
SWEPT_AFTER_S = 60.0
"""Younger directories are left alone: one that was made a moment ago may not be locked yet."""


def make(parent: str, prefix: str, stack: contextlib.ExitStack) -> str:
    """Make a directory of our own, which goes with `stack`; those that killed processes left there go now."""
    sweep(parent, prefix, time.time())
    # mkdir(2) fails where a name is taken: nobody else can have made or named it.
    path = os.path.join(parent, prefix + os.urandom(8).hex())
    os.mkdir(path, 0o700)
    stack.callback(remove, path)
    held = os.open(path, _FLAGS)
    stack.callback(os.close, held)
    fcntl.flock(held, fcntl.LOCK_SH | fcntl.LOCK_NB)
    return path


def sweep(parent: str, prefix: str, now_s: float) -> None:
    """Remove the directories of ours beneath `parent` that no process holds any more."""
    for entry in os.scandir(parent):
        if not entry.name.startswith(prefix):
            continue
        with contextlib.suppress(OSError):
            held = os.open(entry.path, _FLAGS)
            try:
                if now_s - os.fstat(held).st_ctime > SWEPT_AFTER_S:
                    fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    remove(entry.path)
            finally:
                os.close(held)


def remove(path: str) -> None:
    """Remove a directory and whatever was left in it."""
    try:
        os.rmdir(path)
    except OSError:
        # Only here, where something was left in it: the import costs more than most runs spend on clearing up.
        from supervisor.host.clearing import remove_tree

        remove_tree(path)
