"""Another warden in the place of one that has died, for workers that were in no call; the others are ended and named.

While no warden lives, the supervisor's duplicate of a worker's listener is what makes the worker's calls wait instead
of failing with ENOSYS. It is only asked for its state by poll(2), here: writable means that a call was received and not
answered, and such a call is never handed out again (seccomp_unotify(2); docs/adr/0010). Nothing is received through it.
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Callable

from ipc.audit.event import AuditEvent
from ipc.errors import AuditError, ConfinementError
from ipc.hand_over import is_marked
from ipc.messages import (
    Attached,
    ConfinementPlan,
    LayerReport,
    NewPolicy,
    PreparePolicy,
    WardenReady,
    WardenSetup,
)
from ipc.struct import replace
from ipc.syscalls import machine, names_by_number
from supervisor.fleet.deaths import recent_deaths
from supervisor.host.processes import Processes
from supervisor.host.warden_client import WardenClient, WardenStartError
from supervisor.host.warden_restart import (
    READY_WITHIN_NS,
    EndRun,
    LetEnd,
    Replace,
    WardenLoss,
    decide_after_loss,
)
from supervisor.run.machine import Phase
from supervisor.run.verdict import signal_name

_END_WITHIN_S = 1.0
"""How long a warden whose channel has closed may take to be gone, where its end is to be told."""
_YAMA = "/proc/sys/kernel/yama/ptrace_scope"


def has_unanswered_call(listener: int) -> bool:
    """Whether a call was received through another descriptor of this listener and is not answered (EPOLLOUT).

    EPOLLERR, a state that could not be looked at, counts as one.
    """
    poller = select.poll()
    poller.register(listener, select.POLLOUT)
    return any(events & (select.POLLOUT | select.POLLERR) for _, events in poller.poll(0))


def calls_in_hand(pid: int) -> tuple[str, ...]:
    """Return the names of the mediated calls that threads of `pid` are in, as far as /proc tells (proc(5), syscall)."""
    names = names_by_number(machine())
    found: list[str] = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{thread}/syscall", encoding="ascii") as source:
                number = source.read().split(maxsplit=1)[0]
                if number.isdecimal() and int(number) in names:
                    found.append(names[int(number)][1])
    return tuple(sorted(found))


def warden_is_in_reach(plan: ConfinementPlan) -> bool:
    """Whether a warden that the worker has not named may read it: by its capability, or as Yama doesn't forbid it."""
    if plan.namespaces or plan.uid is not None:
        return True
    try:
        with open(_YAMA, encoding="ascii") as source:
            return source.read().strip() == "0"
    except OSError:
        return True


class WardenSupply:
    """Starts the wardens of one host after its first, and remembers when they died.

    Each worker of a warden hears of its death by itself; it is one death, and one warden that follows.
    """

    __slots__ = ("_buried", "_deaths_ns", "_ending", "_gone", "_new_setup", "_processes", "_successor", "on_started")

    def __init__(self, processes: Processes, new_setup: Callable[[], WardenSetup]) -> None:
        """`new_setup` makes the orders for one warden: each is a producer of the audit stream of its own."""
        self._processes = processes
        self._new_setup = new_setup
        self._deaths_ns: tuple[int, ...] = ()
        self._buried: WardenClient | None = None
        self._gone = False
        self._ending: dict[str, object] = {}
        self._successor: WardenClient | None = None
        self.on_started: Callable[[WardenClient], None] | None = None
        """Told of each warden after the first, when it has its orders."""

    def is_alive(self) -> bool:
        """Whether the warden's process runs."""
        warden = self._processes.warden
        return warden is not None and not warden.process.wait(0)

    def bury(self, lost: WardenClient) -> bool:
        """Note a death, and see that no thread of the warden is left; False when one can't be ended."""
        if lost is self._buried:
            return self._gone
        now_ns = time.monotonic_ns()
        self._deaths_ns = (*recent_deaths(self._deaths_ns, now_ns), now_ns)
        warden = self._processes.warden
        self._gone = warden is None or warden.see_gone()
        self._buried, self._successor = lost, None
        self._ending = {} if warden is None else warden.ending()
        return self._gone

    def ending(self) -> dict[str, object]:
        """Return how the one that was buried last has ended, as details for the log."""
        return self._ending

    def explain(self, failure: WardenStartError) -> WardenStartError:
        """Return the same failure with how the process ended, where it has."""
        warden = self._processes.warden
        if warden is None or not warden.process.wait(_END_WITHIN_S):
            return failure
        ending = warden.ending()
        number, words = ending.get("signal"), str(ending.get("last_words", ""))
        if isinstance(number, int):
            return WardenStartError(f"was killed before it was ready ({signal_name(number)})")
        words = words.removeprefix("ipc.errors.ConfinementError: ") or f"exit status {ending.get('status')}"
        return WardenStartError(f"ended before it was ready: {words}")

    @property
    def deaths_ns(self) -> tuple[int, ...]:
        """When wardens died, on the monotonic clock; old ones are forgotten."""
        return self._deaths_ns

    def follow(self) -> WardenClient:
        """Return the one that stands in the place of the buried one, started at the first call; ConfinementError."""
        if self._successor is None:
            self._successor = self.start()
        return self._successor

    def start(self) -> WardenClient:
        """Start another and tell it who it is; it becomes ready by itself. Raises ConfinementError."""
        client = WardenClient(self._processes.restart_warden())
        # One that is gone already counts as another death.
        client.set_up(self._new_setup())
        if self.on_started is not None:
            self.on_started(client)
        return client


Outcome = WardenClient | EndRun | LetEnd
"""What a death comes to: another warden, started and told of the worker, whose calls wait for it; or no other."""


class Recovery:
    """What one run needs to outlive its warden. `due_ns` is when a started warden must have answered; 0: none was."""

    __slots__ = (
        "_artifact",
        "_awaited",
        "_base_event",
        "_policy",
        "_record_durable",
        "_since_ns",
        "_supply",
        "_worker_id",
        "due_ns",
        "longest_ns",
        "restarts",
    )

    def __init__(
        self,
        supply: WardenSupply,
        policy: PreparePolicy,
        worker_id: str,
        artifact: int,
        base_event: AuditEvent,
        record_durable: Callable[[AuditEvent], None],
    ) -> None:
        """Bind what a warden is told of this worker; the descriptor stays the caller's."""
        self._supply = supply
        self._policy = policy
        self._worker_id = worker_id
        self._artifact = artifact
        self._base_event = base_event
        self._record_durable = record_durable
        self._since_ns = 0
        self._awaited: type[WardenReady | Attached] | None = None
        self.due_ns = 0
        self.restarts = 0
        self.longest_ns = 0

    def begin(
        self,
        lost: WardenClient,
        phase: Phase,
        plan: ConfinementPlan,
        listener: int,
        mark: int,
        pid: int,
        pidfd: int,
    ) -> Outcome:
        """Decide what follows a warden's death, put it on record and do it; `listener` may be -1: not there yet."""
        lost_ns = time.monotonic_ns()
        was_under_way, self._awaited, self.due_ns = self.under_way, None, 0
        gone = self._supply.bury(lost)
        unanswered = listener >= 0 and has_unanswered_call(listener)
        handing_over = is_marked(mark)
        loss = WardenLoss(phase, gone, unanswered, handing_over, warden_is_in_reach(plan))
        after = decide_after_loss(loss, self._supply.deaths_ns, lost_ns)
        detail: dict[str, object] = {
            **self._supply.ending(),
            "call_unanswered": unanswered,
            "handing_over": handing_over,
        }
        if unanswered:
            detail["calls"] = calls_in_hand(pid)
        outcome: Outcome | None = after if not isinstance(after, Replace) else None
        if outcome is None:
            # Started first: it imports its modules while the disk is waited for. It knows of nobody yet.
            try:
                outcome = self._supply.follow()
            except ConfinementError as error:
                outcome = EndRun(f"the warden ended, and none can be started in its place: {error}")
        try:
            self._put_on_record(outcome, detail)
        except AuditError as error:
            if isinstance(outcome, WardenClient):
                outcome = EndRun(f"no audit record, no action: {error}")
        if isinstance(outcome, WardenClient):
            self._introduce(outcome, phase, listener, mark, pidfd)
            self._since_ns = self._since_ns if was_under_way else lost_ns
            self.due_ns = lost_ns + READY_WITHIN_NS
            self.restarts += 1
        return outcome

    def _put_on_record(self, outcome: Outcome, detail: dict[str, object]) -> None:
        reason = outcome.reason if isinstance(outcome, EndRun) else "the warden ended"
        waits = isinstance(outcome, WardenClient)
        detail["worker"] = "waits for another" if waits else "ended" if isinstance(outcome, EndRun) else "was ending"
        # What it had handed over unacknowledged can't be known: the log says so itself instead of staying silent.
        reason += "; its last counts and records of allowed actions may be missing"
        self._record_durable(
            replace(self._base_event, event="warden_lost", decision="info", reason=reason, detail=detail)
        )

    def _introduce(self, warden: WardenClient, phase: Phase, listener: int, mark: int, pidfd: int) -> None:
        # One that is loading may have its code already: the same sealed bytes a second time are no gain.
        artifact = None if phase is Phase.RUNNING else self._artifact
        attaches = listener >= 0 and phase in (Phase.ATTACHING, Phase.LOADING, Phase.RUNNING)
        self._awaited = Attached if attaches else WardenReady
        # One that dies meanwhile is met as the end of its channel.
        with contextlib.suppress(OSError):
            policy = self._policy
            if policy.storage is not None and phase is Phase.RUNNING:
                policy = replace(policy, storage=replace(policy.storage, running=True))
            warden.prepare(self._worker_id, policy, artifact)
            if attaches:
                warden.attach(self._worker_id, listener, pidfd, mark)

    def learn(self, policy: NewPolicy | None, last: bool) -> None:
        """Take over what a question has come to: by this another warden decides, and asks."""
        if policy is not None:
            context = replace(self._policy.context, policy_digest=policy.policy_digest)
            self._policy = replace(self._policy, document=policy.document, context=context)
        if last:
            self._policy = replace(self._policy, ask=False)

    @property
    def under_way(self) -> bool:
        """Whether a warden was started that does not answer this worker's calls yet."""
        return self._awaited is not None

    def note(self, message: WardenReady | Attached, layers: tuple[LayerReport, ...]) -> None:
        """Take a warden's word that it is there, or answers the worker; AuditError when that can't be recorded."""
        if self._awaited is not type(message):
            return
        took_ns = time.monotonic_ns() - self._since_ns
        self.longest_ns = max(self.longest_ns, took_ns)
        self._awaited = None
        self.due_ns = 0
        detail: dict[str, object] = {
            "restarts": self.restarts,
            "took_ms": round(took_ns / 1e6, 1),
            "layers": [{"layer": r.layer, "status": r.status, "detail": r.detail} for r in layers],
        }
        reason = "another warden answers; no call was lost, those made meanwhile waited"
        self._record_durable(
            replace(self._base_event, event="warden_restarted", decision="info", reason=reason, detail=detail)
        )

    def notes(self) -> tuple[str, ...]:
        """Say for the report what happened."""
        if not self.restarts:
            return ()
        times = "once" if self.restarts == 1 else f"{self.restarts} times"
        took = f" (file calls waited {self.longest_ns / 1e6:.0f} ms at most)" if self.longest_ns else ""
        return (f"the warden ended and was replaced {times}{took}; counts of decisions may be short",)
