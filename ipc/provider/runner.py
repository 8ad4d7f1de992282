"""The process of one provider: becomes the operator's identity, and then the operator's program.

Started as `python -I -c "…; main(CHANNEL, ERRORS)"` with one end of a stream socket and a pipe, and nothing else. A
command gets the socket as its standard input and output; a Python entry point is called here, once a request.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Final, NoReturn, cast

from ipc import codec, libc
from ipc.errors import AirssysError, ConfinementError, PeerProtocolError
from ipc.messages import Message
from ipc.provider import lifeline
from ipc.provider.launching import LAUNCH_BYTES_MAX, ProviderLaunch
from ipc.provider.library import hold_library, use_library
from ipc.provider.protocol import (
    AROUND_BYTES,
    FAILED,
    HEAD,
    PROTOCOL,
    REASON_MAX,
    SETTINGS_BYTES_MAX,
    TOO_LARGE,
    Answer,
    Ready,
    Request,
    Setup,
    pack_frame,
)
from ipc.provider.refusal import Refusal
from ipc.warden.identity import check_never_root, check_origin

DESCRIPTORS: Final = 1_024
_CANT_BEGIN: Final = 69
Serve = Callable[[Request], bytes]


def main(channel: int, errors: int) -> None:
    """Be a provider until the host closes the channel."""
    gc.enable()
    _close_others(channel, errors)
    try:
        check_origin(__file__)
        launch = codec.unpack(ProviderLaunch, _read_frame(channel, LAUNCH_BYTES_MAX), LAUNCH_BYTES_MAX)
        library = {} if launch.command else hold_library()
        _become(launch)
        use_library(library)
    except EOFError:
        return
    except (AirssysError, OSError) as error:
        _give_up(channel, str(error))
    os.dup2(errors, 2)
    os.close(errors)
    if launch.command:
        _execute(channel, launch)
    # What the function prints goes where its errors go: on the channel it would be garbage.
    os.dup2(2, 1)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr] # it is a file
    os.set_inheritable(channel, False)
    os.environ.update(launch.environment)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        _serve(channel, launch)


def _close_others(*kept: int) -> None:
    """Close what else came along: whoever started the supervisor may have left something open in it."""
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        if descriptor > 2 and descriptor not in kept:
            with contextlib.suppress(OSError):  # that of the listing itself
                os.close(descriptor)


def _become(launch: ProviderLaunch) -> None:
    """Drop to the operator's identity and bounds; raises ConfinementError or OSError where that doesn't work."""
    check_never_root(launch.uid)
    libc.prctl(libc.PR_SET_NO_NEW_PRIVS, 1)
    for which, bound in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_DATA, launch.memory_bytes),
        (resource.RLIMIT_NOFILE, DESCRIPTORS),
    ):
        hard = resource.getrlimit(which)[1]
        value = bound if hard == resource.RLIM_INFINITY else min(bound, hard)
        resource.setrlimit(which, (value, value))
    os.umask(0o077)
    if set(os.getresuid()) != {launch.uid}:
        libc.drop_bounding_set()
        os.setgroups(list(launch.groups))
        os.setresgid(launch.gid, launch.gid, launch.gid)
        os.setresuid(launch.uid, launch.uid, launch.uid)
        libc.set_capabilities(0)
    if set(os.getresuid()) != {launch.uid}:
        raise ConfinementError("identity", "getresuid", 0, f"the uids are {os.getresuid()}, not {launch.uid}")
    # After the change of uid, which clears it (prctl(2)).
    libc.prctl(libc.PR_SET_PDEATHSIG, signal.SIGKILL)
    supervisor = os.pidfd_open(launch.parent_pid)
    if os.getppid() != launch.parent_pid:
        raise ConfinementError("lifeline", "getppid", 0, "the supervisor has ended")
    if os.getpgrp() != os.getpid():
        raise ConfinementError("lifeline", "getpgrp", 0, "it has no process group of its own")
    lifeline.hold(supervisor)
    os.close(supervisor)


def _execute(channel: int, launch: ProviderLaunch) -> NoReturn:
    try:
        os.dup2(channel, 0)
        os.dup2(channel, 1)
        os.set_inheritable(channel, False)
        os.execve(launch.command[0], list(launch.command), launch.environment)  # noqa: S606 # no shell is meant
    except OSError as error:
        _give_up(channel, f"{launch.command[0]}: {os.strerror(error.errno or 0)}")


def _give_up(channel: int, why: str) -> NoReturn:
    with contextlib.suppress(OSError):
        _write(channel, Ready(why[:REASON_MAX]))
    sys.exit(_CANT_BEGIN)


def _serve(channel: int, launch: ProviderLaunch) -> None:
    setup = codec.unpack(Setup, _read_frame(channel, SETTINGS_BYTES_MAX), SETTINGS_BYTES_MAX)
    if setup.protocol != PROTOCOL:
        _give_up(channel, f"protocol {setup.protocol}, this is {PROTOCOL}")
    try:
        serve = _entry_point(launch, setup)
    except Exception as error:
        traceback.print_exc()
        _give_up(channel, f"{launch.module}:{launch.function}: {type(error).__name__}: {error}")
    most_bytes = setup.max_payload_bytes + AROUND_BYTES
    _write(channel, Ready())
    while True:
        request = codec.unpack(Request, _read_frame(channel, most_bytes), most_bytes)
        _write(channel, answer(serve, request))


def _entry_point(launch: ProviderLaunch, setup: Setup) -> Serve:
    """Return what is called: a function as it is; a class is made once, with the settings."""
    if launch.path:
        # Behind the library and our own packages: no file there can stand for one of them.
        sys.path.append(launch.path)
    found: object = importlib.import_module(launch.module)
    for name in launch.function.split("."):
        found = getattr(found, name)
    if isinstance(found, type):
        found = cast(Callable[[dict[str, object]], object], found)(setup.settings)
    if not callable(found):
        raise TypeError("it can't be called")
    return cast(Serve, found)


def answer(serve: Serve, request: Request) -> Answer:
    """Return what a function answers; what it raises is told in its log, and to the component by its type alone."""
    try:
        payload: object = serve(request)
    except Refusal as refusal:
        return Answer(request.call, error=refusal.kind, reason=refusal.reason[:REASON_MAX])
    except Exception as error:
        traceback.print_exc()
        return Answer(request.call, error=FAILED, reason=f"the provider failed ({type(error).__name__})")
    if not isinstance(payload, bytes | bytearray | memoryview):
        print(f"the answer to {request.action} is {type(payload).__name__}, not bytes", file=sys.stderr)  # noqa: T201
        return Answer(request.call, error=FAILED, reason="the provider failed (its answer isn't bytes)")
    if len(payload) > request.max_answer_bytes:
        return Answer(request.call, error=TOO_LARGE, reason=f"the answer has {len(payload)} bytes")
    return Answer(request.call, bytes(payload))


def _read_frame(channel: int, max_bytes: int) -> bytes:
    """Read one frame and not a byte more: what follows is for the program that this process becomes."""
    (size_bytes,) = HEAD.unpack(_read(channel, HEAD.size))
    if size_bytes > max_bytes:
        raise PeerProtocolError(f"a frame of {size_bytes} bytes, at most {max_bytes} are read")
    return _read(channel, size_bytes)


def _read(channel: int, size_bytes: int) -> bytes:
    parts: list[bytes] = []
    while size_bytes:
        part = os.read(channel, min(size_bytes, 1 << 20))
        if not part:
            raise EOFError("the host closed the channel")
        parts.append(part)
        size_bytes -= len(part)
    return b"".join(parts)


def _write(channel: int, message: Message) -> None:
    view = memoryview(pack_frame(message))
    while view:
        view = view[os.write(channel, view) :]
