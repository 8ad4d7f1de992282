"""Where the engine keeps its empty path, so that asking about an open descriptor needs no warden.

wasmtime asks about each file that it opened by `statx(fd, "", AT_EMPTY_PATH, …)`. With an empty path that is fstat(2),
which a worker may make by itself; with any other it is a look at a name, which the warden decides. A filter can't read
the path, but it can compare its address: the constant in the engine's read-only data. Once its page is sealed
(mseal(2), Linux 6.10) nothing in the process, native code included, can put anything else at that address, so the
address stands for the empty path. Without it every file that is opened costs a second call of the warden.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import select
import threading
from typing import Final

from ipc.errors import ConfinementError
from ipc.syscalls import machine
from ipc.warden.notify import Listener
from worker import engine_api as api
from worker import libc
from worker.filter_compiler import FilterData, Rule, compile_filter

_TIMEOUT_MS: Final = 2_000
_CALLS_MAX: Final = 8
_WATCH: Final = FilterData("watch", "allow", 0, (Rule("statx", "notify", 0, (), (machine(),), "to see its path"),))


def seal(engine: int) -> int:
    """Find the engine's empty path, seal the page that it is in, and return its address; 0 where that can't be done.

    For the zygote: one short-lived thread gets a filter of its own, and every process forked afterwards has the seal.
    """
    try:
        address = _watch_it_ask(engine)
        if not address or not _is_constant(address):
            return 0
        page = address & ~(mmap.PAGESIZE - 1)
        libc.mseal(page, mmap.PAGESIZE)
    except (OSError, ConfinementError):
        return 0
    # Once more, now that nothing can change it any more.
    return address if ctypes.string_at(address, 1) == b"\0" else 0


def _watch_it_ask(engine: int) -> int:
    """Return the address of the path with which the engine asks about a file that it has just opened."""
    program = compile_filter(_WATCH, machine()).instructions
    listeners: list[int] = []
    ready = threading.Event()

    def ask() -> None:
        try:
            libc.prctl(libc.PR_SET_NO_NEW_PRIVS, 1)
            listeners.append(libc.set_filter(libc.SECCOMP_FILTER_FLAG_NEW_LISTENER, program))
        except OSError:
            return
        finally:
            ready.set()
        try:
            api.made(api.module_deserialize_file, engine, os.devnull.encode())
        except api.EngineError:
            return  # no artifact, as expected

    thread = threading.Thread(target=ask)
    thread.start()
    ready.wait()
    address = _answer(Listener(listeners[0], bytearray(1))) if listeners else 0
    thread.join()
    return address


def _answer(listener: Listener) -> int:
    """Note the path of the first call, and let every call fail, until the thread has ended."""
    address = 0
    poller = select.poll()
    poller.register(listener.descriptor, select.POLLIN)
    try:
        for _ in range(_CALLS_MAX):
            ready = poller.poll(_TIMEOUT_MS)
            if not ready or not ready[0][1] & select.POLLIN:
                break
            call = listener.receive()
            if call is not None:
                address = address or call.a1
                # What the engine's library expects of a kernel that has statx(2): it probes with bad addresses.
                listener.answer(call, -errno.EFAULT)
    finally:
        listener.close()
    return address


def _is_constant(address: int) -> bool:
    """Whether the address is in read-only data of the engine's library, and holds an empty text."""
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
        for line in maps:
            span, rights, _, _, _, *path = line.rstrip("\n").split(maxsplit=5)
            start, _, end = span.partition("-")
            if int(start, 16) <= address < int(end, 16):
                library = os.path.realpath(api.LIBRARY)
                return rights == "r--p" and path == [library] and ctypes.string_at(address, 1) == b"\0"
    return False
