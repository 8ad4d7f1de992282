"""What was heard, seen or has become due, as an event of the run's machine and what it adds to the facts. Pure."""

from __future__ import annotations

import os
import signal

from ipc.messages import (
    Attached,
    Confined,
    Ended,
    EndWorker,
    Finished,
    Sealed,
    Spawned,
    StartFailed,
    StorageExceeded,
    WorkerLimits,
)
from ipc.struct import Struct, replace
from supervisor.host.warden_restart import ANSWERED_WRONG
from supervisor.run import watch
from supervisor.run.machine import Event, Phase
from supervisor.run.verdict import LIMIT_CODES, Facts, LimitReached

FromWorker = Confined | Sealed | Finished | StartFailed


class Happened(Struct, frozen=True):
    """An event, and all facts that are known with it."""

    event: Event
    facts: Facts


def keeper_said(message: Spawned | Ended | None, facts: Facts) -> Happened:
    """Take the word of a worker's keeper, which is what counts of a worker's end; None when it is gone."""
    match message:
        case Spawned():
            return Happened(Event.SPAWNED, facts)
        case Ended():
            return Happened(Event.ENDED, replace(facts, ended=message))
        case None:
            return Happened(Event.KEEPER_LOST, facts)


def worker_said(message: FromWorker, facts: Facts, said_go: bool) -> Happened:
    """Take a message of the worker's. Whether it comes in its turn is the machine's business."""
    match message:
        case Confined():
            return Happened(Event.CONFINED, facts)
        case Sealed():
            return Happened(Event.SEALED, facts)
        case StartFailed() if said_go:
            # Only who speaks for a component that ran could have an interest in saying that it never did.
            return protocol_broken(facts, "start_failed came after the start; the run was ended")
        case StartFailed():
            return Happened(Event.START_FAILED, replace(facts, start_failed=message))
        case Finished():
            return Happened(Event.FINISHED, replace(facts, finished=message))


def warden_said(message: Attached | EndWorker | StorageExceeded, facts: Facts) -> Happened:
    """Take what moves a run of what its warden says."""
    match message:
        case Attached():
            return Happened(Event.ATTACHED, facts)
        case StorageExceeded(_, limit, usage):
            return limit_reached(facts, "storage", limit, usage, "bytes")
        case EndWorker(_, "A3004", reason):
            return Happened(Event.WARDEN_ORDERED_END, replace(facts, unrecorded=reason))
        case EndWorker(_, code, reason):
            return Happened(Event.WARDEN_ORDERED_END, replace(facts, refused_code=code, refused_reason=reason))


def warden_lost(phase: Phase, facts: Facts, reason: str) -> Happened:
    """The warden is gone for good; a run that is ending anyway has its reason already."""
    if not facts.broken and phase is not Phase.ENDING:
        facts = replace(facts, broken=reason)
    return Happened(Event.WARDEN_LOST, facts)


def hand_over_broke_off(facts: Facts) -> Facts:
    """Say why its filter ended a worker whose warden was killed or stopped in that moment: its number was wrong."""
    ended = facts.ended
    if ended is None or not os.WIFSIGNALED(ended.wait_status) or os.WTERMSIG(ended.wait_status) != signal.SIGSYS:
        return facts
    return replace(facts, broken=facts.broken or ANSWERED_WRONG)


def protocol_broken(facts: Facts, reason: str) -> Happened:
    """One of the processes didn't keep to what was agreed, or can't any more."""
    return Happened(Event.PROTOCOL_BROKEN, replace(facts, broken=reason))


def unrecorded(facts: Facts, reason: str) -> Happened:
    """What is not on record may not go on."""
    return Happened(Event.PROTOCOL_BROKEN, replace(facts, unrecorded=reason))


def no_record(error: Exception) -> str:
    """Say why a run ends of which something could not be put on record."""
    return f"no audit record, no action: {error}"


def not_as_confined(facts: Facts, problems: tuple[str, ...]) -> Happened:
    """From outside, a sealed worker doesn't look as it should."""
    refused = replace(facts, refused_code="A3002", refused_reason="; ".join(problems))
    return Happened(Event.WARDEN_ORDERED_END, refused)


def quit_at_question(facts: Facts) -> Happened:
    """The person who was asked has ended the run."""
    return Happened(
        Event.LIMIT_REACHED, replace(facts, refused_code="A1212", refused_reason="ended by you, at a question")
    )


def interrupted(facts: Facts, number: int, why: str = "") -> Happened:
    """A signal has come; the first one is the one that counts."""
    if not facts.interrupted_by:
        facts = replace(facts, interrupted_by=number, interrupted_for=why)
    return Happened(Event.INTERRUPTED, facts)


def limit_reached(facts: Facts, name: str, limit: int, usage: int, unit: str) -> Happened:
    """A limit is reached that ends the run."""
    reached = LimitReached(name, LIMIT_CODES[name], limit, usage, unit)
    return Happened(Event.LIMIT_REACHED, replace(facts, limit_reached=reached))


def deadline_passed(phase: Phase, facts: Facts, used_ns: int, timeout_ns: int | None, killed: bool) -> Happened:
    """What was due by now has not happened; `used_ns` is how long the guest has run."""
    if phase is Phase.RUNNING and timeout_ns is not None:
        return limit_reached(facts, "timeout", timeout_ns, used_ns, "ns")
    if phase is not Phase.ENDING:
        return protocol_broken(facts, f"it hung while {phase}")
    if killed:
        # A process in an uninterruptible wait can't be reaped: end without it instead of hanging with it.
        return Happened(Event.KEEPER_LOST, facts)
    if not facts.broken:
        facts = replace(facts, broken="its process didn't end after its guest had, and was killed")
    return Happened(Event.LIMIT_REACHED, facts)


def seen_leaderless(facts: Facts) -> Happened:
    """A worker's threads go on without its leader: no word of its end would come."""
    return Happened(Event.LIMIT_REACHED, replace(facts, killed_for="leader thread exited while others ran"))


def seen_holding(facts: Facts, usage: watch.Usage, memory_bound_bytes: int, limits: WorkerLimits) -> Happened | None:
    """Judge what a running worker was seen to hold; None when its limits explain it."""
    if usage.memory_bytes > memory_bound_bytes:
        return limit_reached(facts, "memory", limits.memory_bytes, usage.memory_bytes, "bytes")
    if usage.threads > watch.MAX_THREADS:
        refused = replace(facts, refused_code="A1706", refused_reason=f"it has {usage.threads} threads")
        return Happened(Event.LIMIT_REACHED, refused)
    return None
