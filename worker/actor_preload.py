"""What the zygote of a host that runs actors holds ready beside `worker.zygote_preload`: ZeroMQ, and their filter."""

from __future__ import annotations

import ctypes
import gc
from typing import Final

import zmq

from ipc import codec, messages
from worker import actor, seccomp, writable_code

_JOB = messages.WorkerJob(
    "example",
    "component",
    (),
    (),
    (),
    messages.WorkerLimits(1, 1),
    messages.ActorJob("name", "instance", "ipc:///", b"k", b"k", b"k", b"{}", b""),
)


_CALLBACK: Final = ctypes.CFUNCTYPE(None)
_CALLBACKS_MAX: Final = 256
"""Two for each function of the host's interfaces, and some."""


def _nothing() -> None:
    """Do what no one asks for."""


def _warm_up() -> None:
    """Touch once what is built lazily. No context is made: those never cross a fork."""
    for example in (_JOB, messages.Stop()):
        codec.unpack_tagged((type(example),), codec.pack_tagged(example))
    seccomp.compile_for_actors()
    zmq.curve_public(zmq.curve_keypair()[1])  # libsodium finds out about the processor
    assert actor.LIFECYCLE
    # Made and dropped: their room stays, where it can be told of, so that no page is made for those of an actor.
    room = [_CALLBACK(_nothing) for _ in range(_CALLBACKS_MAX)]
    room.clear()
    writable_code.note()
    gc.freeze()
    gc.enable()


_warm_up()
