"""One component of a fleet: its plan, where it is in its life, its run, and what is kept of it after its end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from ipc.broker.events import Bounds
from ipc.policy.quotas import Quotas
from ipc.struct import Struct
from supervisor.code.compilation import Artifact
from supervisor.event_loop import Interest
from supervisor.fleet.lifecycle import Event, Phase
from supervisor.fleet.output_log import OutputLog
from supervisor.run.begun_run import BegunRun
from supervisor.run.deadlines import is_due
from supervisor.run.machine import Phase as RunPhase
from supervisor.run.report import DecisionTally, RunReport
from supervisor.run.request import RunRequest

COMMAND: Final = "command"
ACTOR: Final = "actor"
UNKNOWN_HEALTH: Final = "unknown"
DIGEST_SHOWN: Final = 12


class ActorPlan(Struct, frozen=True):
    """What an actor is given besides its request: what it may use, its configuration, the time that one call has."""

    bounds: Bounds
    config: bytes
    call_timeout_ns: int | None


class Plan(Struct, frozen=True):
    """What is to be kept up: a request with its compiled code; a command, which runs and ends, or an actor."""

    request: RunRequest
    artifact: Artifact | None
    """None while it isn't compiled: until then it isn't known what it is."""
    directory: str
    description: str
    actor: ActorPlan | None = None

    @property
    def kind(self) -> str:
        """Actor or command; empty where that isn't known yet."""
        if self.artifact is None:
            return ""
        return COMMAND if self.actor is None else ACTOR

    @property
    def name(self) -> str:
        """The component's name, which is its address."""
        return self.request.component

    @property
    def version(self) -> str:
        """Its version."""
        return self.request.context.version

    @property
    def package(self) -> str:
        """The digest of what it was taken from, where that was installed or judged as a package."""
        return self.request.context.package_digest

    @property
    def words(self) -> str:
        """Its version, and how its package's digest begins."""
        digest = self.package[:DIGEST_SHOWN]
        return f"{self.version} ({digest})" if digest else self.version


class Member:
    """Its state, and its run as a source of the event loop; `happen` is called with what the run has come to."""

    __slots__ = (
        "_happen",
        "begun",
        "connected",
        "ended",
        "health",
        "instance",
        "let_go",
        "log",
        "open_files",
        "phase",
        "plan",
        "quotas",
        "report",
        "since_ns",
        "stands_by",
        "stop_due_ns",
        "tally",
        "why_stopped",
    )

    def __init__(self, plan: Plan, log: OutputLog, happen: Callable[[Member, Event], None]) -> None:
        """Be down."""
        self.plan = plan
        self.log = log
        self._happen = happen
        self.phase = Phase.DOWN
        self.instance = ""
        self.quotas = Quotas(plan.request.quota, time.monotonic_ns())
        """What it uses, from one run to the next: none gets a new second's worth by ending."""
        self.begun: BegunRun | None = None
        self.stands_by = False
        """Another one has the component's name, and is sent what is sent to it."""
        self.let_go: Callable[[], object] = _nothing
        """Called once when nothing of it will run any more: what it was held for may be removed."""
        self.tally = DecisionTally("")
        self.report: RunReport | None = None
        self.ended = ""
        """How its last run ended, in words."""
        self.why_stopped = ""
        """Why it was asked to end, where nobody has asked for just that."""
        self.open_files: Mapping[str, int] | None = None
        """What its last run had open by each grant of its approval when it was asked to end."""
        self.health = UNKNOWN_HEALTH
        self.connected = False
        """Whether an actor's session with the broker is ready."""
        self.since_ns = 0
        """Since when it is in its phase, UTC."""
        self.stop_due_ns = 0
        """By when it must have ended, on the monotonic clock; 0: it wasn't asked to."""

    @property
    def name(self) -> str:
        """The component's name."""
        return self.plan.name

    @property
    def pid(self) -> int:
        """The worker's process; 0 where there is none."""
        return 0 if self.begun is None else self.begun.loop.worker.pid

    @property
    def memory_bytes(self) -> int:
        """What counts against its quota, as it was seen last; after its end the most that did."""
        memory = self.quotas.memory
        return memory.peak if self.begun is None else memory.usage

    @property
    def stored_bytes(self) -> int | None:
        """What it stores in files, as it was told last; None where nothing is counted."""
        if self.begun is not None:
            counted = self.plan.request.storage_bounds() is not None
            return self.begun.loop.warden.storage_bytes or 0 if counted else None
        return None if self.report is None or self.report.storage is None else self.report.storage.usage

    def begin(self, instance: str, begun: BegunRun) -> None:
        """Take over a run that was begun."""
        self.instance = instance
        self.begun = begun
        self.tally = begun.tally
        self.report = None
        self.ended = self.why_stopped = ""
        self.open_files = None
        self.health = UNKNOWN_HEALTH
        self.connected = False
        self.stop_due_ns = 0

    # -- as a source ---------------------------------------------------------------------------------------------------

    def interests(self) -> Iterator[Interest]:
        """Yield what its run waits for."""
        return iter(()) if self.begun is None else self.begun.loop.interests()

    def next_ns(self) -> int:
        """Return when something of it is due."""
        run_ns = 0 if self.begun is None else self.begun.loop.next_ns()
        return min((ns for ns in (run_ns, self.stop_due_ns) if ns), default=0)

    def tick(self, now_ns: int) -> None:
        """Step its run, and tell what that has come to."""
        begun = self.begun
        if begun is None:
            return
        begun.loop.tick(now_ns)
        if begun.loop.is_over:
            begun.end()
            self.connected = False
            verdict = begun.verdict()
            well = verdict.outcome == "exited" and verdict.exit_code == 0
            self._happen(self, Event.ENDED_WELL if well else Event.ENDED_BADLY)
            return
        if self.phase is Phase.STARTING and self._is_ready(begun):
            self._happen(self, Event.READY)
        if is_due(self.stop_due_ns, now_ns):
            self.stop_due_ns = 0
            self._happen(self, Event.STOP_OVERDUE)

    def _is_ready(self, begun: BegunRun) -> bool:
        # An actor is ready when the broker hears it; a command as soon as it runs.
        return begun.loop.phase is RunPhase.RUNNING and (self.connected or self.plan.kind == COMMAND)

    def moved(self, phase: Phase) -> None:
        """Note that it is in another phase."""
        if phase is not self.phase:
            self.phase = phase
            self.since_ns = time.time_ns()


def _nothing() -> None:
    pass
