"""Approvals on the control socket: what is answered there, and which components are ended for what was taken back."""

from __future__ import annotations

from collections.abc import Sequence

from ipc import memory_file
from ipc.errors import AuditError, ConfigError
from supervisor.approvals.service import (
    NARROW_MAX_BYTES,
    ApprovalService,
    Document,
    RefusedError,
    UnknownRequestError,
    encoded,
)
from supervisor.approvals.settling import Settling, Watch
from supervisor.approvals.store import BusyError
from supervisor.control.messages import ApprovalDocument, DecideApproval, ReadApprovals
from supervisor.control.roles import Peer
from supervisor.control.serving import Client


class ApprovalDesk:
    """Answers for the approvals of a supervisor's own state; `watch` knows who runs by them, and is the service's."""

    def __init__(self, service: ApprovalService, watch: Watch) -> None:
        """Answer by a service whose store waits for nobody."""
        self._service = service
        self._watch = watch
        self._settling: list[tuple[Client, Document, Settling]] = []

    def answer(self, request: ReadApprovals | DecideApproval, descriptors: Sequence[int], client: Client) -> None:
        """Answer now: each step is on record, durable, and taken when the answer goes out."""
        try:
            match request:
                case ReadApprovals(number=0):
                    document = self._service.listed(request.closed)
                case ReadApprovals():
                    document = self._service.shown(request.number)
                case DecideApproval():
                    document = self._decide(client.peer, request, descriptors)
        except ConfigError as error:
            kinds = {RefusedError: "refused", UnknownRequestError: "unknown", BusyError: "busy"}
            client.not_done(kinds.get(type(error), "invalid"), error.message, error.hint or "")
            return
        except AuditError as error:
            client.not_done("unavailable", f"no audit record, no action: {error}", "airssys audit verify")
            return
        # What was taken back is so, on record, already; the answer is that nobody has it any more.
        self._settling.append((client, document, self._watch.begin()))
        self.turn()

    def _decide(self, peer: Peer, decision: DecideApproval, descriptors: Sequence[int]) -> Document:
        try:
            narrow = _narrow(descriptors)
        except ConfigError as error:
            self._service.refused(peer, decision, error)
            raise
        return self._service.decide(peer, decision, narrow)

    def turn(self) -> None:
        """Tell those who have taken something back that nobody has it any more, where that is so."""
        waiting, self._settling = self._settling, []
        for client, document, settling in waiting:
            if not settling.is_over:
                self._settling.append((client, document, settling))
                continue
            answer = {**document, **settling.outcome().to_json()}
            client.part(ApprovalDocument(), (memory_file.from_bytes("approvals", encoded(answer)),))
            client.done()

    def finish(self) -> None:
        """Put on record how often refusals repeated."""
        self._service.finish()

    def forget(self, client: Client) -> None:
        """Nobody waits for an answer any more; what was to end does all the same."""
        self._settling = [each for each in self._settling if each[0] is not client]


def _narrow(descriptors: Sequence[int]) -> bytes:
    """Return the file to narrow to, b"" where there is none; raises ConfigError for what can't be read safely."""
    if not descriptors:
        return b""
    try:
        return memory_file.read_sealed(descriptors[0], NARROW_MAX_BYTES)
    except ValueError as error:
        raise ConfigError(f"the file to narrow to {error}") from None
