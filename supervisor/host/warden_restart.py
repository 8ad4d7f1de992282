"""What follows when a run's warden has died: another one, or the run's end. Pure; `warden_recovery` carries it out."""

from __future__ import annotations

from collections.abc import Sequence

from ipc.struct import Struct
from supervisor.fleet.deaths import too_many_words
from supervisor.run.machine import Phase

READY_WITHIN_NS = 5 * 10**9
"""How long another warden may take until it answers; meanwhile each file call of the worker waits."""

UNANSWERED = (
    "the warden ended while it held a call of this worker: whether that was performed can't be known, "
    "and nobody will ever answer it"
)
ANSWERED_WRONG = (
    "the warden was killed or stopped while it handed a descriptor to this worker, which got a wrong number instead"
)
NOT_GONE = "the warden ended its channel and could not be killed"
OUT_OF_REACH = (
    "the warden ended; without user namespaces this kernel (Yama) lets no other process read this worker's calls"
)
NOT_READY = "the warden ended, and the one in its place did not answer in time"


class WardenLoss(Struct, frozen=True):
    """What is known when a warden's channel has closed.

    `gone`: its process is, with every thread. `call_unanswered`: it had received a call of this worker and not answered
    it (its listener is writable). `handing_over`: its mark (`ipc.hand_over`) is set. `in_reach`: another process of
    ours may read what this worker's calls point to.
    """

    phase: Phase
    gone: bool
    call_unanswered: bool
    handing_over: bool
    in_reach: bool


class Replace(Struct, frozen=True):
    """Start another warden, and have it answer this worker."""


class EndRun(Struct, frozen=True):
    """The worker can't go on: end it and its run, and say why."""

    reason: str


class LetEnd(Struct, frozen=True):
    """The worker is through, or being ended: nobody's answer is needed."""


AfterLoss = Replace | EndRun | LetEnd


def decide_after_loss(loss: WardenLoss, deaths_ns: Sequence[int], now_ns: int) -> AfterLoss:
    """Return what is to be done; `deaths_ns` are the monotonic times of this host's lost wardens, this one included."""
    if loss.phase in (Phase.ENDING, Phase.ENDED):
        return LetEnd()
    if loss.call_unanswered:
        return EndRun(UNANSWERED)
    if loss.handing_over and loss.phase is not Phase.RUNNING:
        # A sealed worker's filter ends it by itself if the number was wrong, and it may well have been the right one.
        return EndRun(ANSWERED_WRONG)
    if not loss.gone:
        # While a thread of it may live, another one would answer beside it.
        return EndRun(NOT_GONE)
    if not loss.in_reach:
        return EndRun(OUT_OF_REACH)
    too_many = too_many_words("warden", deaths_ns, now_ns)
    return EndRun(too_many) if too_many else Replace()
