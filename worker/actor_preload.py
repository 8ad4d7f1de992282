"""What the zygote of a host that runs actors holds ready beside `worker.zygote_preload`: ZeroMQ, and their filter."""

from __future__ import annotations

import gc

import zmq

from ipc import codec, messages
from worker import actor, seccomp

_JOB = messages.WorkerJob(
    "example",
    "component",
    (),
    (),
    (),
    messages.WorkerLimits(1, 1),
    messages.ActorJob("name", "instance", "ipc:///", b"k", b"k", b"k", b"{}", b""),
)


def _warm_up() -> None:
    """Touch once what is built lazily. No context is made: those never cross a fork."""
    for example in (_JOB, messages.Stop()):
        codec.unpack_tagged((type(example),), codec.pack_tagged(example))
    seccomp.compile_for_actors()
    zmq.curve_public(zmq.curve_keypair()[1])  # libsodium finds out about the processor
    assert actor.LIFECYCLE
    gc.freeze()
    gc.enable()


_warm_up()
