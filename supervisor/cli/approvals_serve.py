"""`airssys approvals serve`: a control socket for approvers who can't open the state, where no `airssys up` has one."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence

from ipc.audit.event import SUPERVISOR, AuditEvent
from ipc.audit.folding import Folder
from ipc.errors import AuditError
from supervisor.approvals.desk import ApprovalDesk
from supervisor.approvals.service import ApprovalService
from supervisor.approvals.settling import RunsWatch
from supervisor.approvals.store import ApprovalStore
from supervisor.audit.log import AuditLog
from supervisor.config.places import audit_directory
from supervisor.config.settings import Settings
from supervisor.control.desk import REFUSED_CODE
from supervisor.control.messages import DecideApproval, ReadApprovals, Request, ShutDown
from supervisor.control.roles import Peer, read_roles
from supervisor.control.serving import SOCKET_NAME, Client, Control, bind_control_socket
from supervisor.event_loop import READ, EventLoop, Interest
from supervisor.fleet.state_lock import only_one
from supervisor.report import shell_quoted

_WAIT_S = 0.2
_RUNS = "runs"
_ENDS_FIRST = "end this with airssys down, then start components with airssys up"
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def serve(settings: Settings, state: str, say: Callable[[str], object]) -> int:
    """Answer until a signal comes or an admin ends it; return the exit code."""
    roles = read_roles(settings.control, os.getuid())
    with contextlib.ExitStack() as stack:
        stack.enter_context(only_one(state))
        log = AuditLog(audit_directory(state, settings), retention=settings.audit)
        stack.callback(log.close)

        def record(event: AuditEvent) -> None:
            log.append([(event.within_bounds(), SUPERVISOR)])

        store = ApprovalStore(state, log.directory, record, wait_s=_WAIT_S)
        loop = EventLoop()
        runs = RunsWatch(store.directory, log.directory, lambda: loop.touch(_RUNS))
        stack.callback(runs.close)
        loop.add(_RUNS, runs)
        service = ApprovalService(store, settings, roles, runs.look, tells=False)
        desk = _Desk(ApprovalDesk(service, runs), record)
        loop.add("signals", stack.enter_context(_Signals(desk)))
        control = Control(bind_control_socket(state, roles), roles, desk, loop, time.monotonic_ns)
        stack.callback(_unlink, os.path.join(state, SOCKET_NAME))
        stack.callback(control.close)
        control.start()
        path = os.path.join(state, SOCKET_NAME)
        say(f"answering for approvals at {path}; Ctrl-C ends it")
        named = settings.control.approvers
        others = f"others ask it by: airssys approvals list --socket {shell_quoted(path)}"
        say(others if named else "nobody but you may answer: name people in [control] approvers of airssys.toml")
        while not desk.ended or control.has_unsent:
            loop.turn()
            desk.turn()
        desk.finish()
    return 0


class _Desk:
    """Answers what is asked of approvals, and ends when an admin says so."""

    def __init__(self, approvals: ApprovalDesk, record: Callable[[AuditEvent], None]) -> None:
        self._approvals = approvals
        self._record = record
        self._folder = Folder()
        self.ended = False

    def answer(self, request: Request, descriptors: Sequence[int], client: Client) -> None:
        match request:
            case ReadApprovals() | DecideApproval():
                self._approvals.answer(request, descriptors, client)
            case ShutDown():
                self.ended = True
                client.done()
            case _:
                client.not_done("unavailable", "only approvals are answered here", _ENDS_FIRST)

    def forget(self, client: Client) -> None:
        """Nobody waits for an answer any more."""
        self._approvals.forget(client)

    def turn(self) -> None:
        """Tell those who wait for the end of what runs."""
        self._approvals.turn()

    def refused(self, what: str, peer: Peer) -> None:
        event = AuditEvent(
            "control_refused",
            action=f"control.{what}",
            decision="denied",
            code=REFUSED_CODE,
            reason=f"not permitted to uid {peer.uid} by [control]",
            actor=f"uid {peer.uid}",
        )
        self._tell(self._folder.note(event, time.monotonic_ns()))

    def finish(self) -> None:
        """Close what was counted."""
        self._approvals.finish()
        self._tell(self._folder.flush())

    def _tell(self, events: Sequence[AuditEvent]) -> None:
        # Nothing depends on it: what was refused stays refused.
        with contextlib.suppress(AuditError):
            for event in events:
                self._record(event)


class _Signals:
    """The signals that end it, as a source of the loop: none of them comes in the middle of a step."""

    def __init__(self, desk: _Desk) -> None:
        self._desk = desk
        self._reader, self._writer = socket.socketpair()
        for each in (self._reader, self._writer):
            each.setblocking(False)

    def __enter__(self) -> _Signals:
        self._before_fd = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self._before = {number: signal.signal(number, lambda *_: None) for number in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._before_fd)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._reader.close()
        self._writer.close()

    def interests(self) -> Iterator[Interest]:
        yield Interest(self._reader.fileno(), READ, self._end)

    def next_ns(self) -> int:
        return 0

    def tick(self, now_ns: int) -> None:
        """Nothing is ever due."""

    def _end(self) -> None:
        self._reader.recv(16)
        self._desk.ended = True


def _unlink(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
