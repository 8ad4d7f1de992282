"""What stands behind `airssys run`: started processes and the audit writer, bound together and ended together.

Start-up order is chosen for time: the zygote (the slowest, it imports the engine) and the warden were started before
this module was imported (`supervisor.host.processes`); while both import, this process opens the audit log and reads
the component. `wait_ready` is where it waits for the warden.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator

import ipc
from ipc.audit.errors import AuditLogError
from ipc.audit.event import AuditEvent, AuditRecord
from ipc.errors import ConfigError
from ipc.messages import AuditBudget, ConfinementPlan, WardenSetup
from ipc.struct import Struct, field
from supervisor.audit.log import AuditLog
from supervisor.audit.retention import AuditRetention
from supervisor.audit.writer import AuditWriter
from supervisor.config.settings import REQUIRED_LAYERS
from supervisor.host import session_directories
from supervisor.host.identity import Identity, worker_uid
from supervisor.host.processes import Processes
from supervisor.host.warden_client import START_TIMEOUT_S, WardenClient, WardenStartError
from supervisor.host.warden_mail import WardenMail
from supervisor.host.warden_recovery import WardenSupply
from supervisor.host.workers import Workers
from supervisor.host.zygote import Zygote

TMP_PREFIX = "tmp."
"""With a dot, which no component's name has: its `${data}` lies beside, and what has this prefix is swept."""
DESCRIPTORS_NEEDED = 64
"""Of this process, for one run: with 52 a component was compiled and run, with 50 not."""


class HostOptions(Struct, frozen=True):
    """Where the host keeps its things, and how strictly it confines."""

    state_directory: str
    run_directory: str
    audit_directory: str
    data_directory: str
    run_as: Identity
    retention: AuditRetention = AuditRetention()
    audit_budget: AuditBudget = AuditBudget()
    required_layers: tuple[str, ...] = REQUIRED_LAYERS
    layers_off: tuple[str, ...] = ()
    namespaces: bool = True


class Host(Struct):
    """The running processes. Use as a context manager: nothing is left behind."""

    options: HostOptions
    zygote: Zygote
    workers: Workers
    session_directory: str
    tmp_directory: str
    writer: AuditWriter
    mail: WardenMail | None
    supply: WardenSupply
    origin: str
    signals: socket.socket
    records: deque[AuditRecord] = field(default_factory=deque)
    records_ready: tuple[int, int] = (-1, -1)
    started: bool = False
    _cleanup: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    _last: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def __enter__(self) -> Host:
        return self

    def __exit__(self, *_: object) -> None:
        with self._last:
            self._cleanup.close()

    def at_end(self, close: Callable[[], object]) -> None:
        """Have something closed when everything else here has ended."""
        self._last.callback(close)

    def record(self, event: AuditEvent) -> None:
        """Have an event of the supervisor's own made durable; raises AuditError when it can't be."""
        self.writer.local_durable(event)

    @property
    def warden(self) -> WardenClient | None:
        """The warden there is now; None where a test runs without one."""
        return None if self.mail is None else self.mail.warden

    def ensure_warden(self) -> None:
        """Start another warden where an earlier run has lost the one there was; raises ConfinementError."""
        if self.mail is None or self.supply.is_alive():
            return
        # Those that run hear of it first: they may have another one started.
        self.mail.see_end()
        if not self.supply.is_alive():
            self.mail.warden = self.supply.start()

    def wait_ready(self) -> None:
        """Wait until the warden is what it must be; raises ConfinementError or AuditError when it can't be."""
        warden = self.warden
        if warden is not None and not warden.is_ready:
            until_s = time.monotonic() + START_TIMEOUT_S
            # It doesn't start unless its start is recorded: where the log is what's wrong, that is what has to be said.
            while not select.select([warden.channel], [], [], 0.05)[0] and time.monotonic() < until_s:
                if self.writer.trouble is not None:
                    raise self.writer.trouble
            try:
                warden.wait_ready(max(0.0, until_s - time.monotonic()))
            except WardenStartError as error:
                if self.writer.trouble is not None:
                    raise self.writer.trouble from None
                raise self.supply.explain(error) from None
        self.started = True

    def own_paths(self) -> tuple[str, ...]:
        """Return the host's own directories, which no component may touch whatever it is granted."""
        options = self.options
        return (options.state_directory, options.run_directory, options.audit_directory)

    def audit_lost(self) -> bool:
        """Whether the log can't be written any more by this process: a failed fsync, or a damaged log."""
        trouble = self.writer.trouble
        return trouble is not None and trouble.fatal

    def interrupted(self) -> bool:
        """Whether SIGINT, SIGTERM or SIGHUP has come; it stays in the queue for the run loop."""
        try:
            return bool(self.signals.recv(1, socket.MSG_PEEK))
        except BlockingIOError:
            return False

    def compiler_confinement(self) -> contextlib.AbstractContextManager[ConfinementPlan]:
        """Return the layers of a compiler: it has no listener and needs none, since it names no file."""
        return _confinement(self.options, self.zygote, (), None)


@contextlib.contextmanager
def _confinement(
    options: HostOptions, zygote: Zygote, layers_off: tuple[str, ...], ptracer_pid: int | None
) -> Iterator[ConfinementPlan]:
    """Yield the layers of one worker, with a uid of its own held for as long as it lives when we are root."""
    required = options.required_layers
    namespaces = options.namespaces and (os.getuid() == 0 or zygote.user_namespace is not None)
    if os.getuid() != 0:
        yield ConfinementPlan(required, layers_off, None, None, namespaces, ptracer_pid)
        return
    with worker_uid(options.run_directory) as uid:
        yield ConfinementPlan(required, layers_off, uid, uid, namespaces, ptracer_pid)


def open_host(
    options: HostOptions,
    processes: Processes | None = None,
    on_trouble: Callable[[AuditLogError | None], None] | None = None,
    ahead: str | None = "run",
) -> Host:
    """Bind `processes` (by default new ones) to an audit log and directories; on any failure nothing is left running.

    Closing the host ends the processes first: the audit writer must outlive the warden, whose last counts it takes.
    A worker of the kind `ahead` is made before one is asked for.
    `on_trouble` is called, from another thread, when a started host can't write its log, and with None when it can.
    """
    _require_descriptors()
    with contextlib.ExitStack() as stack:
        if processes is None:
            processes = stack.enter_context(Processes(options.namespaces, options.layers_off))
        own = (options.state_directory, options.run_directory, options.audit_directory, options.data_directory)
        for directory in own:
            _own_directory(directory)
        warden = None if processes.warden is None else WardenClient(processes.warden)
        origin = os.path.dirname(os.path.dirname(os.path.abspath(str(ipc.__file__))))
        workers = Workers(
            processes.zygote,
            origin,
            lambda: _confinement(options, processes.zygote, options.layers_off, processes.warden_pid),
        )
        if ahead is not None:
            workers.start_ahead(ahead)
        stack.callback(workers.close)
        signals = _signal_socket(stack)
        with needed_for_records():
            session = _session_directory(options, stack)
            tmp = _tmp_directory(options, stack)
        # Made before the writer, so that it is closed after it: the writer's thread writes to it until it ends.
        records_ready = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        for descriptor in records_ready:
            stack.callback(os.close, descriptor)

        def wake(_: object = None) -> None:
            with contextlib.suppress(BlockingIOError):
                os.write(records_ready[1], b"r")

        log = AuditLog(options.audit_directory, retention=options.retention)
        # The warden connects as its own uid: the socket is its property, and its directory may only be passed through.
        endpoint = os.path.join(session, "audit.sock")
        owner = options.run_as.uid if os.getuid() == 0 else None
        writer = AuditWriter(log, endpoint, socket_owner_uid=owner, on_fatal=wake)
        stack.callback(writer.close)
        writer.start()
        scratch = os.path.join(session, "scratch")
        host = Host(
            options,
            processes.zygote,
            workers,
            session,
            tmp,
            writer,
            None if warden is None else WardenMail(warden),
            WardenSupply(processes, lambda: _warden_setup(options, writer, scratch)),
            origin,
            signals,
            records_ready=records_ready,
        )

        def keep(record: AuditRecord) -> None:
            host.records.append(record)
            wake()

        def tell(trouble: AuditLogError | None) -> None:
            if host.started and on_trouble is not None:
                on_trouble(trouble)

        writer.on_trouble = tell
        writer.subscribe(keep)
        if warden is not None:
            _private_directory(scratch, options.run_as)
            stack.callback(session_directories.remove, scratch)
            warden.set_up(_warden_setup(options, writer, scratch))
        stack.callback(processes.close)
        stack.callback(workers.close)
        host._cleanup = stack.pop_all()
        return host


def _require_descriptors() -> None:
    """Refuse a limit that a run would meet: libzmq ends the whole process where one of its threads does."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if 0 <= most < DESCRIPTORS_NEEDED:
        raise ConfigError(
            f"too many open files: the limit is {most}, and a run needs {DESCRIPTORS_NEEDED}",
            hint="raise the limit: ulimit -n 256",
        )


def _warden_setup(options: HostOptions, writer: AuditWriter, scratch: str) -> WardenSetup:
    keys = writer.new_client_keys("warden")
    identity = options.run_as
    umask = os.umask(0o077)
    os.umask(umask)
    return WardenSetup(
        uid=identity.uid,
        gid=identity.gid,
        groups=identity.groups,
        umask=umask,
        audit_endpoint=writer.endpoint,
        audit_server_key=writer.server_public_key,
        audit_public_key=keys[0],
        audit_secret_key=keys[1],
        scratch_directory=scratch,
        audit_budget=options.audit_budget,
    )


def _session_directory(options: HostOptions, stack: contextlib.ExitStack) -> str:
    session = session_directories.make(options.run_directory, "run-", stack)
    if os.getuid() == 0:
        # Passed through, never listed, by the warden's uid.
        os.chmod(session, 0o711)  # noqa: S103 # the warden passes through; nobody but us lists it
        os.chmod(options.run_directory, 0o711)  # noqa: S103 # likewise
    if len(os.path.join(session, "audit.sock")) > 100:
        raise ConfigError(
            f"{session}: too long for a unix socket (unix(7): 108 bytes)",
            hint="choose a shorter [host] run in airssys.toml, or a shorter --state-dir",
        )
    return session


def _tmp_directory(options: HostOptions, stack: contextlib.ExitStack) -> str:
    """Make `${tmp}`: fresh, removed afterwards, and not beneath the host's own directories, which are forbidden."""
    if os.getuid() == 0:
        os.chmod(options.data_directory, 0o711)  # noqa: S103 # likewise
    path = session_directories.make(options.data_directory, TMP_PREFIX, stack)
    if os.getuid() == 0:
        os.chown(path, options.run_as.uid, options.run_as.gid)
    return os.path.realpath(path)


@contextlib.contextmanager
def needed_for_records() -> Iterator[None]:
    """Tell what an OSError about a directory of the host's own means: nothing could be recorded, so nothing runs."""
    try:
        yield
    except OSError as error:
        reason = "not a directory" if isinstance(error, FileExistsError) else os.strerror(error.errno or 0)
        raise AuditLogError(
            f"{error.filename}: {reason}; nothing runs without a place for its records",
            hint="make it writable, or name another: --state-dir DIR or AIRSSYS_STATE",
        ) from None


def _own_directory(path: str) -> None:
    """Make a directory of the host's own if it isn't there."""
    with needed_for_records():
        os.makedirs(path, mode=0o700, exist_ok=True)


def _private_directory(path: str, owner: Identity) -> None:
    os.mkdir(path, 0o700)
    if os.getuid() == 0:
        os.chown(path, owner.uid, owner.gid)


def _signal_socket(stack: contextlib.ExitStack) -> socket.socket:
    """Return a socket that yields the numbers of SIGINT, SIGTERM and SIGHUP as bytes (signal.set_wakeup_fd)."""
    reader, writer = socket.socketpair()
    reader.setblocking(False)
    writer.setblocking(False)
    previous_fd = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    previous = {
        number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }

    def restore() -> None:
        signal.set_wakeup_fd(previous_fd)
        for number, handler in previous.items():
            signal.signal(number, handler)
        reader.close()
        writer.close()

    stack.callback(restore)
    return reader


def new_worker_id(component: str) -> str:
    """Return a name for one instance; random, so that nothing can be told from it or guessed."""
    return f"{component}-{os.urandom(4).hex()}"
