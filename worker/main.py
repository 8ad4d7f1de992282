"""One worker, from the fork to the guest's end.

The keeper has forked this process (into a pid namespace of its own) and arranged its descriptors. What follows is
the whole life: confine, hand the listener over, wait for a job, load it under filter 1, seal with filter 2, wait for
go, run, report. Up to the job nothing depends on the program, so a supervisor can have workers made before it needs
them.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from ipc import codec
from ipc.channel import Channel
from ipc.errors import ConfinementError
from ipc.messages import (
    ARTIFACT_PATH,
    PROGRAM,
    Confined,
    EngineSettings,
    Go,
    Load,
    Sealed,
    StartFailed,
    WorkerJob,
    WorkerPlan,
)
from worker import confine, seccomp, writable_code
from worker.deadline import Deadline
from worker.engine import Program, ProgramError, Runner
from worker.rehearsal import Rehearsal

if TYPE_CHECKING:
    from worker.actor import Actor
    from worker.calling import Call
    from worker.probe import Probe

CHANNEL = 3
"""The worker's descriptors: 0, 1, 2 are the guest's streams, this is the channel, the next the parent's pidfd."""
PARENT_PIDFD = 4
ACTOR = "actor"
CALL = "call"
_PROBES = {"probe": False, "actor-probe": True}
"""Kinds of plans for what stands in a guest's place → whether it is behind an actor's filter."""

_CHUNK_BYTES = 1 << 24

_runners: dict[EngineSettings, Runner] = {}
_rehearsals: dict[EngineSettings, Rehearsal] = {}


def rehearse_with(settings: EngineSettings) -> None:
    """Have workers with these settings rehearse while they wait; called in the zygote."""
    _rehearsals[settings] = Rehearsal(runner_for(settings), settings)


def runner_for(settings: EngineSettings) -> Runner:
    """Return the runner for these settings, made once per process; the zygote makes the usual one."""
    runner = _runners.get(settings)
    if runner is None:
        runner = _runners[settings] = Runner.new(settings)
    return runner


def run_worker(plan: WorkerPlan, in_pid_namespace: bool) -> int:
    """Live the life of a worker; returns the exit status of the process."""
    # Closed by hand: a socket that is merely dropped asks for its own name, to warn.
    with contextlib.closing(Channel.from_descriptor(CHANNEL)) as channel:
        return _live(plan, channel, in_pid_namespace)


def _live(plan: WorkerPlan, channel: Channel, in_pid_namespace: bool) -> int:
    stage = "confining"
    try:
        parse_probe = _parse_probe(plan)
        load_actor = _load_actor(plan)
        load_call, result = _load_call(plan)
        runner = runner_for(plan.engine)
        confinement = confine.put_on_layers(plan.confinement, PARENT_PIDFD, in_pid_namespace)
        # From here on nothing is imported, and no file is named but by the engine.
        is_actor = load_actor is not None
        listener = confine.confine_with_listener(confinement, is_actor or _PROBES.get(plan.kind, False), is_actor)
        if listener >= 0:
            channel.send(Confined(tuple(confinement.layers)), (listener,))
            os.close(listener)
        else:
            channel.write(Confined(tuple(confinement.layers)))

        stage = "waiting"
        if plan.engine in _rehearsals:
            _rehearsals[plan.engine].perform()
        _, (job_file, *rest) = channel.receive((Load,))
        job = codec.unpack(WorkerJob, packed := _read_all(job_file), len(packed))

        stage = "loading"
        confinement.bound(job.limits)
        probe = None if parse_probe is None else parse_probe(job.arguments[1])
        artifact = _read_all(rest[0]) if rest else ARTIFACT_PATH
        if (load_actor is None) != (job.actor is None):
            raise ProgramError("it was to be an actor, or not to be one, and its worker is of the other kind")
        if (load_call is None) != (job.call is None):
            raise ProgramError("it was to be called, or not to be, and its worker is of the other kind")
        actor = None if load_actor is None else load_actor(runner, plan.engine, job, artifact, channel)
        call = None if load_call is None else load_call(runner, plan.engine, job, artifact, result)
        if actor is not None:
            program = actor.program
        elif call is not None:
            program = call.program
        else:
            program = Program.load(runner, plan.engine, job, artifact)
        program.set_wasi(job, native=listener < 0)

        stage = "sealing"
        if is_actor:
            writable_code.write_no_more()  # its imports are callbacks, made by now
        if seccomp.LAYER not in plan.confinement.off:
            confinement.note(seccomp.seal())
        channel.write(Sealed(tuple(confinement.layers)))
        channel.read((Go,))
    except ConfinementError as error:
        channel.write(StartFailed(stage, error.layer, error.syscall, error.errno, str(error)))
        return 69
    except ProgramError as error:
        channel.write(StartFailed(stage, "", PROGRAM, 0, str(error)))
        return 65
    except EOFError:
        return 70
    except Exception as error:  # whatever it is, it must be told: nobody reads a traceback here
        channel.write(
            StartFailed(stage, "", "", getattr(error, "errno", 0) or 0, f"{type(error).__name__}: {error}"[:2000])
        )
        return 70

    if actor is not None:
        finished = actor.run()
    else:
        with Deadline(runner.interrupt, job.limits.timeout_ns):
            finished = (probe or call or program).run()
    channel.write(finished)
    return 0


def _load_actor(plan: WorkerPlan) -> type[Actor] | None:
    """Return what loads an actor; imported now, where the zygote is that of a host without any."""
    if plan.kind != ACTOR:
        return None
    from worker.actor import Actor

    if seccomp.LAYER not in plan.confinement.off:
        seccomp.compile_for_actors()
    return Actor


def _load_call(plan: WorkerPlan) -> tuple[type[Call] | None, int]:
    """Return what loads a component for one call, imported now likewise, and where its result goes."""
    if plan.kind != CALL:
        return None, -1
    from worker.calling import Call, divide_streams

    return Call, divide_streams()


def _parse_probe(plan: WorkerPlan) -> Callable[[str], Probe] | None:
    """Return what a worker that is a probe has in the guest's place; imported now, as nothing is after filter 1."""
    if plan.kind not in _PROBES:
        return None
    if _PROBES[plan.kind]:
        seccomp.compile_for_actors()
    from worker.probe import Probe

    return Probe.parse


def _read_all(descriptor: int) -> bytes:
    """Read a sealed file to its end and close it; without fstat(2), whose modern form is a call by path."""
    os.lseek(descriptor, 0, os.SEEK_SET)  # shared with who wrote it
    parts = []
    while part := os.read(descriptor, _CHUNK_BYTES):
        parts.append(part)
    os.close(descriptor)
    return b"".join(parts)


def check_origin(origin: str) -> None:
    """Refuse to go on when our packages were imported from anywhere but `origin`, or Python isn't isolated."""
    if not sys.flags.isolated:
        raise ConfinementError("origin", "check", 0, "this interpreter doesn't run isolated (python -I)")
    for name in ("ipc", "worker"):
        module = sys.modules.get(name)
        found = getattr(module, "__file__", None)
        if found is None or os.path.dirname(os.path.dirname(os.path.abspath(found))) != origin:
            raise ConfinementError("origin", "check", 0, f"package {name} was imported from {found}, not from {origin}")
