"""Workers for a host's runs: on demand, or one ahead of it, confined and waiting to be told its job.

Making a worker takes longer than all that follows until its guest's first instruction, and nothing of it depends on the
program. So one is asked for before it is needed; until then it waits under its layers, with nothing of anybody's in it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
from collections.abc import Callable
from contextlib import AbstractContextManager

from ipc.errors import AirssysError
from ipc.messages import ConfinementPlan, EngineSettings, WorkerPlan
from supervisor.host.launch import Launched, launch
from supervisor.host.zygote import Zygote

_GONE_TIMEOUT_S = 0.25
"""How long a worker that was never needed may take to end (its keeper kills it)."""


class Worker:
    """One launched worker, our ends of its streams, and what is held for as long as it lives (a uid of its own)."""

    __slots__ = ("_held", "launched", "plan", "stderr", "stdin", "stdout")

    def __init__(self, zygote: Zygote, plan: WorkerPlan, held: contextlib.ExitStack, ahead: bool) -> None:
        """Launch it; takes `held` over, to be closed with the worker."""
        self._held = held
        self.plan = plan
        ours, theirs = [], []
        try:
            for reads in (False, True, True):
                reader, writer = os.pipe2(os.O_CLOEXEC)
                ours.append(reader if reads else writer)
                theirs.append(writer if reads else reader)
            self.launched: Launched = launch(zygote, plan, theirs[0], theirs[1], theirs[2], ahead)
        except BaseException:
            for descriptor in ours:
                os.close(descriptor)
            held.close()
            raise
        finally:
            for descriptor in theirs:
                os.close(descriptor)
        # Only our ends don't block: the guest's ends behave like any pipe.
        for descriptor in ours:
            fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) | os.O_NONBLOCK)
        self.stdin, self.stdout, self.stderr = ours

    def discard(self) -> None:
        """End a worker that no run has taken over, and see it gone."""
        for descriptor in (self.stdin, self.stdout, self.stderr):
            os.close(descriptor)
        self.launched.abandon()
        # The cut lifeline ends it in any case; a zygote that hangs must not hold us up.
        self.launched.wait_gone(_GONE_TIMEOUT_S)
        self.launched.close()
        self.release()

    def release(self) -> None:
        """Give back what was held for it; its process has ended."""
        self._held.close()


class Workers:
    """Launches the workers of one host."""

    def __init__(
        self,
        zygote: Zygote,
        origin: str,
        confinement: Callable[[], AbstractContextManager[ConfinementPlan]],
    ) -> None:
        """`confinement` gives the layers of one worker, and holds its uid for as long as the context is open."""
        self._zygote = zygote
        self._origin = origin
        self._confinement = confinement
        self._ahead: Worker | None = None

    def start_ahead(self, kind: str = "run") -> None:
        """Have one of this kind made for the usual engine settings, unless there is one; waits for nothing.

        What stands in its way is told to whoever takes one.
        """
        if self._ahead is None:
            with contextlib.suppress(AirssysError):
                self._ahead = self._new(kind, EngineSettings(), ahead=True)

    def wait_ahead(self, timeout_s: float) -> bool:
        """Wait until the one made ahead is confined; False where there is none, or the time was over first."""
        if self._ahead is None or not self._ahead.launched.is_alive():
            return False
        poller = select.poll()
        poller.register(self._ahead.launched.worker.fileno(), select.POLLIN)
        return bool(poller.poll(timeout_s * 1000))

    def take(self, kind: str, engine: EngineSettings) -> Worker:
        """Return a worker that waits for its job, or is about to; the caller runs and then releases it."""
        worker, self._ahead = self._ahead, None
        if worker is not None:
            if (worker.plan.kind, worker.plan.engine) == (kind, engine) and worker.launched.is_alive():
                return worker
            worker.discard()
        return self._new(kind, engine, ahead=False)

    def close(self) -> None:
        """End the one that waits."""
        worker, self._ahead = self._ahead, None
        if worker is not None:
            worker.discard()

    def _new(self, kind: str, engine: EngineSettings, ahead: bool) -> Worker:
        with contextlib.ExitStack() as held:
            confinement = held.enter_context(self._confinement())
            plan = WorkerPlan(kind, engine, confinement, self._origin)
            return Worker(self._zygote, plan, held.pop_all(), ahead)
