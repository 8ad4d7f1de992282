"""Zygote and warden as mere processes, started before the rest of the supervisor is imported.

All three spend their first tenth of a second on imports, so they do it at the same time. That is why this module and
what it imports stay light: no message, no policy, no ZeroMQ. What they are told comes later (`supervisor.host.host`).
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Sequence
from typing import Self

from supervisor.host.namespaces import Spawned, isolated_python, spawn
from supervisor.host.zygote import Zygote

_END_TIMEOUT_S = 2.0


class ServingProcess:
    """A process that waits for its setup on the other end of `endpoint`, a SEQPACKET socket."""

    __slots__ = ("endpoint", "process")

    def __init__(self, endpoint: socket.socket, process: Spawned) -> None:
        """Take over our end of its channel, and the process."""
        self.endpoint = endpoint
        self.process = process

    @classmethod
    def start(cls, code: str, user_namespace: int | None) -> Self:
        """Start `code`, whose `main` gets its end's number; ConfinementError when the namespace can't be entered."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            descriptor = theirs.fileno()
            return cls(ours, spawn(isolated_python(f"{code}\nmain({descriptor})"), (descriptor,), user_namespace))
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()

    def dismiss(self) -> None:
        """Tell it to end, by closing the channel; waits for nothing."""
        self.endpoint.close()

    def see_gone(self) -> bool:
        """Kill it if it still lives and wait until every thread of it has ended; False when one hangs in the kernel."""
        self.process.send_signal(signal.SIGKILL)
        return self.process.wait(_END_TIMEOUT_S)

    def ending(self) -> dict[str, object]:
        """Return how it ended, as details for the log; what is known already, where it hasn't been waited for."""
        status = self.process.wait_status
        detail: dict[str, object] = {"pid": self.process.pid}
        if status is not None:
            detail["signal" if os.WIFSIGNALED(status) else "status"] = abs(os.waitstatus_to_exitcode(status))
        words = self.process.last_words()
        if words:
            detail["last_words"] = words.splitlines()[-1]
        return detail

    def close(self) -> None:
        """Dismiss it and wait; one that doesn't leave is killed."""
        self.dismiss()
        if not self.process.wait(_END_TIMEOUT_S):
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(None)
        self.process.close()


class WardenProcess(ServingProcess):
    """A warden."""

    __slots__ = ()

    @classmethod
    def start_warden(cls, user_namespace: int | None) -> WardenProcess:
        """Start it in the workers' user namespace."""
        return cls.start("from ipc.warden.shell import main", user_namespace)


class BrokerProcess(ServingProcess):
    """A broker."""

    __slots__ = ()

    @classmethod
    def start_broker(cls, user_namespace: int | None) -> BrokerProcess:
        """Start it in the workers' user namespace, where it may have namespaces of its own."""
        return cls.start("from worker.broker import main", user_namespace)


class Processes:
    """The pair. Use as a context manager: whatever happens nothing is left behind."""

    __slots__ = ("warden", "zygote")

    def __init__(self, namespaces: bool, layers_off: Sequence[str], actors: bool = False) -> None:
        """Start both; without the seccomp layer there is nothing for a warden to answer, and none is started.

        With `actors` the zygote holds ready what an actor needs.
        """
        self.zygote = Zygote(namespaces=namespaces, actors=actors)
        self.warden: WardenProcess | None = None
        try:
            self.zygote.start()
            if "seccomp" not in layers_off:
                self.warden = WardenProcess.start_warden(self.zygote.user_namespace)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def warden_pid(self) -> int | None:
        """The warden's process, if there is one."""
        return None if self.warden is None else self.warden.process.pid

    def restart_warden(self) -> WardenProcess:
        """Start another warden, in the place of one that was killed or has ended; raises ConfinementError."""
        previous, self.warden = self.warden, None
        if previous is not None:
            previous.close()
        self.warden = WardenProcess.start_warden(self.zygote.user_namespace)
        return self.warden

    def close(self) -> None:
        """End both at the same time, then wait for both."""
        if self.warden is not None:
            self.warden.dismiss()
        self.zygote.dismiss()
        if self.warden is not None:
            self.warden.close()
            self.warden = None
        self.zygote.close()
