"""Who ends what a provider has started, should the supervisor end without a word: a process that does nothing else.

The kernel's own signal for that (prctl(2), PR_SET_PDEATHSIG) reaches the provider, and no child of it.
"""

from __future__ import annotations

import os
import select
import signal


def hold(supervisor: int) -> None:
    """Have this process group killed when the process of the pidfd `supervisor` ends; raises OSError.

    The group must be this process's own. Who watches is a member of it, so it ends with the others, and no child of
    this process: the program that this becomes may wait for all of its children.
    """
    between = os.fork()
    if between:
        os.waitpid(between, 0)
        return
    try:
        if not os.fork():
            _watch(supervisor)
    finally:
        os._exit(0)


def _watch(supervisor: int) -> None:
    # The provider's socket and its log end when it does.
    os.closerange(0, supervisor)
    os.closerange(supervisor + 1, os.sysconf("SC_OPEN_MAX"))
    poller = select.poll()
    poller.register(supervisor, select.POLLIN)
    poller.poll()
    os.killpg(0, signal.SIGKILL)
