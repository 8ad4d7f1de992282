"""Who answers `airssys approvals`: the store itself, by its owner's hand, or the supervisor whose it is."""

from __future__ import annotations

import argparse
import json
import os
import time
from typing import Final, Protocol

from ipc import memory_file
from ipc.audit.event import SUPERVISOR, AuditEvent
from ipc.errors import ConfigError
from supervisor.approvals.losing import OUTCOME_KEYS
from supervisor.approvals.service import ApprovalService, Document
from supervisor.approvals.settling import RunsWatch
from supervisor.approvals.store import ApprovalStore
from supervisor.audit.log import AuditLog
from supervisor.config import places
from supervisor.config.settings import Settings
from supervisor.config.settings_files import load_settings
from supervisor.control.client import (
    SOCKET_NAME,
    Address,
    BusyThereError,
    ControlClient,
    NobodyAnswersError,
    find_socket,
)
from supervisor.control.messages import ApprovalDocument, DecideApproval, ReadApprovals, Request
from supervisor.control.roles import Peer, own_roles
from supervisor.report import shell_quoted

_DOCUMENT_MAX_BYTES: Final = 16 << 20
_SETTLED: Final = ("approve", "narrow", "revoke", "import", "reject", "request")
"""What may take something away from who runs, or is waited for by a version that is to run."""
_PATIENCE_S: Final = 5.0
"""How long a supervisor is asked again that has the approvals open at the moment."""


class Desk(Protocol):
    """Who answers: the store itself, or the supervisor whose it is; `place` says where that is."""

    place: str

    def listed(self, closed: bool) -> Document:
        """Return what there is."""

    def shown(self, number: int) -> Document:
        """Return one in full."""

    def decided(self, decision: DecideApproval, narrow: bytes) -> Document:
        """Have a decision carried out."""


class NotSettledError(ConfigError):
    """It is decided; but whether somebody still has what was taken away isn't known."""

    exit_code = 75  # EX_TEMPFAIL


class _Local:
    """The store itself: its owner asks."""

    def __init__(self, settings: Settings, state: str) -> None:
        self._audit_directory = places.audit_directory(state, settings)
        self._retention = settings.audit
        store = ApprovalStore(state, self._audit_directory, self._record)
        self.place = f"in {state}" if os.path.isdir(state) else f"there is no {state}"
        self._runs = RunsWatch(store.directory, self._audit_directory)
        self._service = ApprovalService(store, settings, own_roles(settings.control), self._runs.look)
        self._state = state

    def _record(self, event: AuditEvent) -> None:
        # Opened where there is something to record: looking makes no log.
        log = AuditLog(self._audit_directory, retention=self._retention)
        try:
            log.append([(event.within_bounds(), SUPERVISOR)])
        finally:
            log.close()

    def listed(self, closed: bool) -> Document:
        document = self._service.listed(closed)
        self._runs.settle()
        return document

    def shown(self, number: int) -> Document:
        document = self._service.shown(number)
        self._runs.settle()
        return document

    def decided(self, decision: DecideApproval, narrow: bytes) -> Document:
        peer = Peer(os.getpid(), os.getuid(), frozenset((os.getgid(), *os.getgroups())))
        document = self._service.decide(peer, decision, narrow)
        if decision.what not in _SETTLED or "request" not in document:
            return document
        settle = DecideApproval("settle", int(str(document["request"])))
        # A supervisor that runs with this state ends what relies on it, and all else; without one that is ours to do.
        remote = _Remote(Address(os.path.join(self._state, SOCKET_NAME), "the state directory", trusted=True))
        until_s = time.monotonic() + _PATIENCE_S
        while True:
            try:
                settled = remote.decided(settle, b"")
            except BusyThereError:
                if time.monotonic() >= until_s:
                    raise
                time.sleep(0.05)
            except NobodyAnswersError:
                # Only here: it brings the host along.
                from supervisor.fleet.state_lock import is_held

                if not is_held(self._state):
                    return {**document, **self._runs.settle().to_json()}
                if time.monotonic() >= until_s:
                    self._runs.settle()
                    raise self._unsettled(document) from None
                time.sleep(0.05)
            else:
                return {**document, **{key: settled[key] for key in OUTCOME_KEYS if key in settled}}

    def _unsettled(self, document: Document) -> NotSettledError:
        from supervisor.fleet.state_lock import LOCK

        lock = shell_quoted(os.path.join(self._state, LOCK))
        return NotSettledError(
            f"request {document['request']} is {document['state']}, on record; but the supervisor there doesn't "
            "answer, and what it runs goes on as it was until it does",
            hint=f"see who it is: fuser -v {lock}; have it go on (kill -CONT PID), or end it (kill -KILL PID)",
        )


class _Remote:
    """The supervisor that the store belongs to: it knows who asks."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self.place = f"at {address.path}"

    def listed(self, closed: bool) -> Document:
        return self._ask(ReadApprovals(closed=closed))

    def shown(self, number: int) -> Document:
        return self._ask(ReadApprovals(number=number))

    def decided(self, decision: DecideApproval, narrow: bytes) -> Document:
        return self._ask(decision, narrow)

    def _ask(self, request: Request, narrow: bytes = b"") -> Document:
        descriptors = [memory_file.from_bytes("narrow", narrow)] if narrow else []
        try:
            with ControlClient(self._address) as client:
                for part, received in client.ask(request, descriptors):
                    if isinstance(part, ApprovalDocument) and len(received) == 1:
                        document: Document = json.loads(memory_file.take(received[0], _DOCUMENT_MAX_BYTES))
                        return document
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        raise NobodyAnswersError("the supervisor gave no answer", hint="ask again")


def desk_of(args: argparse.Namespace) -> Desk:
    """Return who answers: the store where it is ours, else the supervisor whose it is."""
    if args.socket or os.environ.get("AIRSSYS_SOCKET"):
        return _Remote(find_socket(args.socket, args.state_dir, os.environ, os.getcwd()))
    settings = load_settings(args.config, os.environ, os.getuid())
    state = places.state_directory(args.state_dir, os.environ, settings)
    owner = _owner(state)
    if owner is not None and owner != os.getuid():
        return _Remote(Address(os.path.join(state, SOCKET_NAME), "the state directory", trusted=owner == 0))
    return _Local(settings, state)


def _owner(state: str) -> int | None:
    try:
        return os.stat(state).st_uid
    except OSError:
        return None
