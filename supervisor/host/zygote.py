"""The zygote: multiprocess's forkserver, started by us: isolated, in the outer user namespace, the engine preloaded.

It holds no context, no key and no descriptor of the user's. Its own children are the keepers, which don't die with it.
What travels to it is pickled by this process; nothing is ever unpickled here.
"""

from __future__ import annotations

import contextlib
import io
import os
import select
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ipc.errors import ConfigError, ConfinementError, LocalProtocolError
from ipc.imports import import_hollow, import_without
from supervisor.host.namespaces import Spawned, isolated_python, spawn

if TYPE_CHECKING:
    from multiprocess.context import ForkServerProcess

    from ipc.launch import ByName

PRELOAD = ("worker.zygote_preload",)
ACTOR_PRELOAD = ("worker.zygote_preload", "worker.actor_preload")
"""Of a host that runs actors: ZeroMQ and what speaks to the broker cost memory that commands have no use for."""
_DYING_S = 0.1
"""How much longer than its socket a killed process may take to be gone."""
_MAIN = """\
import sys
import _datetime
from ipc.imports import import_hollow
sys.modules["dill"] = None
sys.modules["datetime"] = _datetime
with import_hollow("tempfile"), import_hollow("subprocess", _args_from_interpreter_flags=None):
    from multiprocess.forkserver import main
import {preload}
main({listener}, {alive}, [])
"""
"""multiprocess imports dill, when it is there, to pickle more than pickle can: 50 ms and 5 MB that nothing here needs;
and tempfile, for listeners with names that it chooses: 3 ms and half a megabyte, with all that it imports in turn; and
subprocess, for programs that it starts. datetime is the interpreter's own module without its twin in Python, which
would be loaded to be replaced. Whatever is loaded here is in the memory of each worker.
The preload is imported here and not by `main`, which would pass over an ImportError in silence."""


def _load_multiprocess() -> None:
    """Import multiprocess without dill and tempfile; whoever wants them in this process later still gets them."""
    with import_without("dill"), import_hollow("tempfile"):
        import multiprocess.context
        import multiprocess.forkserver
        import multiprocess.popen_forkserver  # noqa: F401


class Keeper:
    """A keeper process as multiprocess sees it: its pid, and a descriptor that becomes readable when it has ended."""

    __slots__ = ("pid", "sentinel")

    def __init__(self, pid: int, sentinel: int) -> None:
        """Own the sentinel."""
        self.pid = pid
        self.sentinel = sentinel

    def wait_gone(self, timeout_s: float) -> bool:
        """Wait until it has ended; False when the time was over first."""
        poller = select.poll()
        poller.register(self.sentinel, select.POLLIN)
        return bool(poller.poll(timeout_s * 1000))

    def close(self) -> None:
        """Close the sentinel; ends nothing."""
        if self.sentinel >= 0:
            os.close(self.sentinel)
            self.sentinel = -1


class Forking:
    """A process that was asked for. Owns its descriptor until `finish`, which hands it to the keeper."""

    __slots__ = ("_on_forked", "_status")

    def __init__(self, status: int, on_forked: Callable[[], None]) -> None:
        """Own the descriptor on which multiprocess says which process it is, and later how it ended."""
        self._status = status
        self._on_forked = on_forked

    def is_ready(self, timeout_s: float) -> bool:
        """Wait until `finish` won't; False when the time was over first."""
        if self._status < 0:
            return True
        poller = select.poll()
        poller.register(self._status, select.POLLIN)
        return bool(poller.poll(timeout_s * 1000))

    def finish(self) -> Keeper:
        """Wait until it has been forked; raises OSError or EOFError when the zygote died before. Once."""
        from multiprocess import forkserver

        try:
            keeper = Keeper(int(forkserver.read_signed(self._status)), self._status)
        except BaseException:
            self.close()
            raise
        self._status = -1
        self._on_forked()
        return keeper

    def close(self) -> None:
        """Want nothing of it any more."""
        if self._status >= 0:
            os.close(self._status)
            self._status = -1


class Zygote:
    """One forkserver process. `start` returns before its imports are done; the first fork waits for them."""

    def __init__(self, namespaces: bool = True, actors: bool = False) -> None:
        """With `namespaces`, an outer user namespace is made around it where the kernel allows one.

        With `actors` it also holds ready what an actor needs.
        """
        self._actors = actors
        self._wanted = namespaces
        self._process: Spawned | None = None
        self._alive = -1
        self._door = -1
        self._served = False
        self._lock = threading.Lock()
        self.user_namespace: int | None = None
        """An open descriptor of the outer user namespace, to start the warden in; None where there is none."""
        self.why_no_namespace = "" if namespaces else "switched off"

    @property
    def pid(self) -> int | None:
        """The process, if it was started."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start the process; a user namespace that can't be had is no error but a stated reason."""
        with self._lock:
            self._start()

    def _start(self) -> None:
        listener, self._door = _listen()
        alive_r, self._alive = os.pipe2(os.O_CLOEXEC)
        code = _MAIN.format(
            preload=", ".join(ACTOR_PRELOAD if self._actors else PRELOAD), listener=listener.fileno(), alive=alive_r
        )
        argv = isolated_python(code)
        inherited = (listener.fileno(), alive_r)
        try:
            self._process = self._spawn(argv, inherited)
        finally:
            listener.close()
            os.close(alive_r)

    def _spawn(self, argv: Sequence[str], inherited: Sequence[int]) -> Spawned:
        if self.user_namespace is not None:
            return spawn(argv, inherited, self.user_namespace)
        if self._wanted:
            try:
                process = spawn(argv, inherited, "new")
            except ConfinementError as error:
                self._wanted = False
                self.why_no_namespace = str(error)
            else:
                self.user_namespace = os.open(f"/proc/{process.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
                return process
        return spawn(argv, inherited)

    def begin_fork(self, target: ByName, packed: bytes, descriptors: Sequence[int]) -> Forking:
        """As `fork`, without waiting for it: a zygote that is still importing takes the order when it is ready."""
        with self._lock:
            self._restart_dead()
            try:
                return self._begin(target, packed, descriptors)
            except OSError as error:
                raise self._failed(error) from error

    def fork(self, target: ByName, packed: bytes, descriptors: Sequence[int]) -> Keeper:
        """Have it fork a process that calls `target` with `packed` and holds `descriptors`; restart a dead one."""
        with self._lock:
            process = self._restart_dead()
            try:
                return self._begin(target, packed, descriptors).finish()
            except (OSError, EOFError, RuntimeError) as error:
                if self._served and process.wait(_DYING_S):
                    # It was alive and well before: killed in between, not unable to start.
                    self._end()
                    self._start()
                    return self._begin(target, packed, descriptors).finish()
                raise self._failed(error) from error

    def _note_served(self) -> None:
        self._served = True

    def _restart_dead(self) -> Spawned:
        if self._process is not None and self._process.wait(0):
            self._end()
            self._start()
        if self._process is None:
            raise LocalProtocolError("the zygote was not started")
        return self._process

    def _failed(self, error: Exception) -> ConfinementError:
        # The last line of a traceback says what it was; the name of the class is for us.
        words = "" if self._process is None else self._process.last_words().rpartition("\n")[2]
        words = words.removeprefix("ipc.errors.ConfinementError: ")
        number = getattr(error, "errno", 0) or 0
        return ConfinementError("zygote", "fork", number, words or "it ended while forking")

    def _begin(self, target: ByName, packed: bytes, descriptors: Sequence[int]) -> Forking:
        _load_multiprocess()
        from multiprocess.context import ForkServerProcess

        process = ForkServerProcess(target=target, args=(packed,), name="keeper")
        status_r, data_w = self._request(descriptors)
        try:
            with open(data_w, "wb") as sink:
                sink.write(_pickled(process))
        except BaseException:
            os.close(status_r)
            raise
        return Forking(status_r, self._note_served)

    def _request(self, descriptors: Sequence[int]) -> tuple[int, int]:
        """Ask for a new process: multiprocess's ForkServer.connect_to_new_process, without a resource tracker.

        In the place of the tracker's descriptor and of the one that keeps a forkserver alive the keeper gets /dev/null:
        it needs neither, and must not keep the zygote alive.
        """
        status_r, status_w = os.pipe2(os.O_CLOEXEC)
        data_r, data_w = os.pipe2(os.O_CLOEXEC)
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as client:
                # The name is gone, the socket is not: /proc leads to it through our descriptor, and only us.
                client.connect(f"/proc/self/fd/{self._door}")
                _send_descriptors(client, [data_r, status_w, null, null, *descriptors])
        except BaseException:
            os.close(status_r)
            os.close(data_w)
            raise
        finally:
            for descriptor in (data_r, status_w, null):
                os.close(descriptor)
        return status_r, data_w

    def dismiss(self) -> None:
        """Have the process end, and wait for nothing; `close` waits."""
        with self._lock:
            self._dismiss()

    def _dismiss(self) -> None:
        for descriptor in (self._alive, self._door):
            if descriptor >= 0:
                os.close(descriptor)
        self._alive = self._door = -1
        if self._process is not None:
            # Not by its leave: it has nothing to save, and taking an interpreter with an engine apart costs 20 ms.
            self._process.send_signal(signal.SIGKILL)

    def _end(self) -> None:
        self._dismiss()
        if self._process is not None:
            self._process.wait(None)
            self._process.close()
            self._process = None

    def close(self) -> None:
        """End the process; its keepers go on until their own lifelines end."""
        with self._lock:
            self._end()
            if self.user_namespace is not None:
                os.close(self.user_namespace)
                self.user_namespace = None


def _listen() -> tuple[socket.socket, int]:
    """Return a listening socket that has no name any more, and an O_PATH descriptor to connect to it by."""
    # Not tempfile.mkdtemp, whose import costs more than the whole zygote's start; mkdir(2) fails where a name is taken.
    parent = os.environ.get("TMPDIR") or "/tmp"  # noqa: S108
    directory = os.path.join(parent, f"airssys-{os.urandom(8).hex()}")
    try:
        os.mkdir(directory, 0o700)
    except OSError as error:
        from supervisor.terminal import visible

        raise ConfigError(
            f"the temporary directory {visible(parent)} can't be used: {os.strerror(error.errno or 0)}",
            hint="name another one: TMPDIR=DIR",
        ) from None
    path = os.path.join(directory, "zygote")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        listener.bind(path)
        listener.listen(64)
        return listener, os.open(path, os.O_PATH | os.O_CLOEXEC)
    except BaseException:
        listener.close()
        raise
    finally:
        with contextlib.suppress(OSError):
            os.unlink(path)
        os.rmdir(directory)


def _send_descriptors(client: socket.socket, descriptors: Sequence[int]) -> None:
    from multiprocess import reduction

    reduction.sendfds(client, list(descriptors))


def _pickled(process: ForkServerProcess) -> bytes:
    """Pickle what multiprocess's child reads: preparation data (none: it gets nothing of ours), then the process."""
    import pickle

    from multiprocess.context import set_spawning_popen

    sink = io.BytesIO()
    set_spawning_popen(process)
    try:
        pickle.dump({}, sink)
        pickle.dump(process, sink)
    finally:
        set_spawning_popen(None)
    return sink.getvalue()
