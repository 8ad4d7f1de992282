"""The programs of a fleet compiled side by side, each in a confined process of its own, while the fleet's loop turns.

A thread waits for one compiler at a time; what has come of it is handed over to the loop's own thread.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from supervisor.code.compilation import Artifact, CompileLimits, Program
from supervisor.event_loop import READ, Interest
from supervisor.fleet.lifecycle import Event
from supervisor.fleet.member import Member
from supervisor.host.host import Host
from supervisor.run.running import compile_request, open_program

KEY: Final = "compiling"
AT_ONCE: Final = min(8, len(os.sched_getaffinity(0)))
"""Each may need gigabytes, and uses several processors where it can."""
LONG_NS: Final = 1_000_000_000
"""What takes longer is told."""


class Compilations:
    """A source of the loop until everything is compiled, or something can't be; then nothing more is begun."""

    def __init__(
        self,
        host: Host,
        members: Sequence[Member],
        limits: CompileLimits,
        happen: Callable[[Member, Event], None],
        tell_long: Callable[[Member], None],
    ) -> None:
        """Compile what `members` run; `happen` and `tell_long` are called in the loop's thread."""
        self._host = host
        self._members = members
        self._limits = limits
        self._happen = happen
        self._tell_long = tell_long
        self._waiting = deque(members)
        self._results: deque[tuple[Member, Artifact | BaseException | None] | None] = deque()
        """What the threads say: a member begins (None), this has come of it; or that there is one thread less."""
        self._ready = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._cancelled = threading.Event()
        self._same_bytes: dict[str, threading.Lock] = {}
        self._failures: dict[str, BaseException] = {}
        self._long_ns: dict[str, int] = {}
        """When what is being compiled has taken long, and that isn't told yet."""
        self._threads = [
            threading.Thread(target=self._work, name=f"compiling-{number}", daemon=True)
            for number in range(min(AT_ONCE, len(members)))
        ]
        self._working = len(self._threads)
        self.artifacts: dict[str, Artifact] = {}
        """What has come of it, by component; descriptors are closed with this, unless they are taken."""

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def cancel(self) -> None:
        """Begin nothing more, and end what is under way."""
        self._cancelled.set()

    @property
    def is_over(self) -> bool:
        """Whether nothing is under way any more, and everything that was said is heard."""
        return not self._working

    @property
    def failure(self) -> BaseException | None:
        """Why not everything could be compiled: of several reasons that of the component that was named first."""
        return next((self._failures[member.name] for member in self._members if member.name in self._failures), None)

    def close(self) -> None:
        """End what is under way, and let go of what nobody took."""
        self.cancel()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()
        for said in self._results:
            if said is not None and isinstance(said[1], Artifact):
                os.close(said[1].descriptor)
        for artifact in self.artifacts.values():
            os.close(artifact.descriptor)
        os.close(self._ready)

    # -- as a source ---------------------------------------------------------------------------------------------------

    def interests(self) -> Iterator[Interest]:
        """Yield what to wait for: word of a thread."""
        yield Interest(self._ready, READ, self._read)

    def next_ns(self) -> int:
        """Return when something has taken long."""
        return min(self._long_ns.values(), default=0)

    def tick(self, now_ns: int) -> None:
        """Tell of what has taken long by now."""
        for member in self._members:
            if self._long_ns.get(member.name, now_ns + 1) <= now_ns:
                del self._long_ns[member.name]
                self._tell_long(member)

    def _read(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._ready)
        while self._results:
            said = self._results.popleft()
            if said is None:
                self._working -= 1
                continue
            member, result = said
            if result is None:
                self._long_ns[member.name] = time.monotonic_ns() + LONG_NS
                self._happen(member, Event.COMPILES)
                continue
            self._long_ns.pop(member.name, None)
            if isinstance(result, Artifact):
                self.artifacts[member.name] = result
                self._happen(member, Event.COMPILED)
            elif not self._cancelled.is_set() or not isinstance(result, KeyboardInterrupt):
                self._failures[member.name] = result
                self.cancel()

    # -- in the threads ------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        while not self._cancelled.is_set():
            try:
                member = self._waiting.popleft()
            except IndexError:
                break
            self._say((member, None))
            try:
                self._say((member, self._compile(member)))
            except BaseException as error:  # the loop's thread raises it
                self._say((member, error))
        self._say(None)

    def _compile(self, member: Member) -> Artifact:
        request = member.plan.request
        with contextlib.closing(open_program(request)) as program, self._alone_with(program):
            return compile_request(
                self._host, request, program, self._limits, lambda _elapsed_s: None, self._cancelled.is_set
            )

    def _alone_with(self, program: Program) -> threading.Lock:
        """Return the lock of these bytes: what several components have in common is compiled once."""
        return self._same_bytes.setdefault(program.sha256, threading.Lock())

    def _say(self, said: tuple[Member, Artifact | BaseException | None] | None) -> None:
        self._results.append(said)
        os.eventfd_write(self._ready, 1)
