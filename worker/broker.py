"""The broker's process, from its start to its confinement; then it is `ipc.broker.shell`'s.

It is here because the layers are: `ipc` imports nothing of `worker`. Started as `python -I -c "from worker.broker
import main; main(FD)"` with one end of a channel. Everything that is needed is imported before the layers are put on.
"""

from __future__ import annotations

# What is imported only when it is used for the first time can't be imported any more then.
import encodings.idna  # noqa: F401
import os
import resource
import secrets
import sys
import unicodedata  # noqa: F401
from collections.abc import Callable, Collection
from functools import partial
from typing import Final, NamedTuple

import zmq

from ipc.audit.errors import AuditLogError
from ipc.broker import shell
from ipc.broker.core import Core
from ipc.broker.memory import MemoryWatch
from ipc.broker.one_cpu import OneCpu, open_delays
from ipc.broker.orders import BrokerSetup
from ipc.broker.store import StoreError
from ipc.channel import Channel
from ipc.errors import AirssysError, ConfinementError
from ipc.messages import LayerReport
from ipc.warden.identity import check_never_root, check_origin
from worker import capabilities, landlock, libc, namespaces, seccomp

DESCRIPTORS: Final = 4_096
DESCRIPTORS_PER_WORKER: Final = 4
"""libzmq aborts the process when it may not accept a connection for want of a descriptor: there are many more than can
be used. Each worker has one connection, another while it reconnects."""
ID_BITS: Final = 53
WAITING_PART: Final = 8
"""Twice this part of its memory, at most, is messages that wait; above three fifths somebody is looked for to blame."""
GIVEN_BACK_BYTES: Final = 256 << 10
"""Blocks of this size are given back when they are freed: what large payloads took doesn't stay taken."""
STACK_BYTES: Final = 8 << 20
STORE_RIGHTS: Final = (
    landlock.READ_FILE
    | landlock.WRITE_FILE
    | landlock.READ_DIR
    | landlock.MAKE_REG
    | landlock.REMOVE_FILE
    | landlock.TRUNCATE
)
SOCKET_RIGHTS: Final = landlock.MAKE_SOCK | landlock.REMOVE_FILE


LIBRARY_THREADS: Final = 2
"""With a context of libzmq's come the one that closes sockets and, last, the one through which messages come and go."""


class Confined(NamedTuple):
    """What there is once every layer is on."""

    layers: list[LayerReport]
    context: zmq.Context[zmq.Socket[bytes]]
    io_thread: int
    """Through which that context's messages come and go; 0 where it isn't known."""


def confine(setup: BrokerSetup, off: Collection[str] = ()) -> Confined:
    """Put on every layer that isn't `off`, in the one thread there is; raises ConfinementError for a required one.

    libzmq's own threads are started before the last of them, which all threads get at once: it names one of these.
    """
    layers: list[LayerReport] = []

    def note(report: LayerReport) -> None:
        if report.status == "unavailable" and report.layer in setup.required:
            raise ConfinementError(report.layer, "probe", 0, report.detail)
        layers.append(report)

    def put_on(layer: str, enforce: Callable[[], LayerReport]) -> None:
        note(LayerReport(layer, "off", "switched off") if layer in off else enforce())

    # While /proc and our own files are in reach.
    check_never_root(setup.uid)
    program = seccomp.compile_broker()
    tasks = os.open("/proc/self/task", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    socket_directory = os.path.dirname(setup.socket_path)
    audit_socket = setup.audit_endpoint.removeprefix("ipc://")
    kept = (setup.store_directory, socket_directory, audit_socket)
    note(capabilities.forbid_new_privileges())
    put_on(namespaces.LAYER, lambda: namespaces.isolate(kept))
    capabilities.empty_bounding_set()
    if os.getuid() != setup.uid:
        note(capabilities.drop_identity(setup.uid, setup.gid))
    else:
        note(LayerReport("identity", "enforced", f"uid {setup.uid}, gid {setup.gid}"))
    note(capabilities.drop_capabilities())
    note(capabilities.set_dumpable(False, None))
    put_on("rlimits", lambda: _bound(setup))
    rights = {setup.store_directory: STORE_RIGHTS, socket_directory: SOCKET_RIGHTS}
    put_on(landlock.LAYER, lambda: landlock.enforce(rights))
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    context.socket(zmq.PAIR).close()  # the first one starts them
    threads = os.listdir(tasks)  # in the order in which they were started
    os.close(tasks)
    io_thread = int(threads[-1]) if len(threads) == 1 + LIBRARY_THREADS else 0
    put_on(seccomp.LAYER, lambda: seccomp.confine_broker(program, io_thread))
    return Confined(layers, context, io_thread)


def _bound(setup: BrokerSetup) -> LayerReport:
    descriptors = DESCRIPTORS + DESCRIPTORS_PER_WORKER * setup.workers_max
    bounds = {
        resource.RLIMIT_DATA: setup.memory_bytes,
        resource.RLIMIT_NOFILE: descriptors,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_STACK: STACK_BYTES,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
    }
    for which, bound in bounds.items():
        _, hard = resource.getrlimit(which)
        value = bound if hard == resource.RLIM_INFINITY else min(bound, hard)
        try:
            resource.setrlimit(which, (value, value))
        except (OSError, ValueError) as error:
            raise ConfinementError("rlimits", "setrlimit", getattr(error, "errno", 0) or 0, str(error)) from error
    got = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return LayerReport("rlimits", "enforced", f"data {setup.memory_bytes} bytes, descriptors {got}, core 0")


def main(channel_descriptor: int, new_core: Callable[[BrokerSetup], shell.CoreLike] | None = None) -> None:
    """Run the broker; returns when the supervisor closes the channel, with status 69 when it can't be what it must."""
    channel = Channel.from_descriptor(channel_descriptor)
    os.set_inheritable(channel_descriptor, False)
    try:
        check_origin(shell.__file__)
        setup, _ = channel.receive((BrokerSetup,))
        assert isinstance(setup, BrokerSetup)
        os.umask(0o077)
        os.environ.clear()
        libc.give_back_blocks(GIVEN_BACK_BYTES)
        watch = MemoryWatch(setup.memory_bytes)
        delays = open_delays()
        confined = confine(setup)
        if set(os.getresuid()) != {setup.uid}:
            raise ConfinementError("identity", "getresuid", 0, f"the uids are {os.getresuid()}, not {setup.uid}")
        one_cpu = OneCpu(confined.io_thread, delays)
        shell.serve(channel, setup, confined.layers, confined.context, new_core or _core, watch, one_cpu)
    except (EOFError, ConnectionResetError, BrokenPipeError):
        return
    except (ConfinementError, StoreError, AuditLogError, OSError) as error:
        sys.stderr.write(f"broker: {error}\n")
        raise SystemExit(getattr(error, "exit_code", 69)) from error
    except AirssysError as error:
        sys.stderr.write(f"broker: {error}\n")
        raise SystemExit(error.exit_code) from error


def _core(setup: BrokerSetup) -> shell.CoreLike:
    """Return the core; nobody can guess the ids that it gives."""
    return Core(setup.epoch, partial(secrets.randbits, ID_BITS), setup.memory_bytes // WAITING_PART)
