"""One run's side of its warden: the listener it holds for it, what the warden has said of it, and what its death means.

The supervisor's duplicate of the listener stays here while its worker lives: without one, each file call of the worker
would fail instead of waiting (seccomp_unotify(2)). So does the mark, by which a warden's death in the moment of a
hand-over is seen (`ipc.hand_over`).
"""

from __future__ import annotations

import contextlib
import os

from ipc.errors import AuditError
from ipc.hand_over import is_marked
from ipc.messages import (
    Attached,
    ConfinementPlan,
    Detached,
    EndWorker,
    NewPolicy,
    StorageExceeded,
    StorageMeasured,
    WardenReady,
)
from ipc.struct import Struct
from supervisor.host.warden_client import WardenClient
from supervisor.host.warden_mail import WardenMail
from supervisor.host.warden_recovery import Recovery
from supervisor.host.warden_restart import NOT_READY, EndRun
from supervisor.run.events import Happened, no_record, unrecorded, warden_lost, warden_said
from supervisor.run.machine import Phase
from supervisor.run.verdict import Facts


class RunWarden(Struct):
    """What one run has of its warden; `mail` is None where a test of the other layers runs without one."""

    worker_id: str
    mail: WardenMail | None
    prepared: bool
    recovery: Recovery
    mark: int
    listener: int = -1
    lost: bool = False
    died_handing_over: bool = False
    detached: bool = False
    notes: tuple[str, ...] = ()
    storage_bytes: int | None = None
    """How much it stores in files, as it was told last."""

    @property
    def is_heard(self) -> bool:
        """Whether there is a channel to read."""
        return self.mail is not None and not self.lost

    @property
    def due_ns(self) -> int:
        """By when a warden that was started must have answered; 0: none was."""
        return 0 if self.lost else self.recovery.due_ns

    def attach(self, pidfd: int) -> bool:
        """Hand the worker over; False when seccomp is off and there is nothing to hand over."""
        if self.mail is None or self.listener < 0:
            return False
        # One that is gone is met as the end of its channel, and then the next one is told of the worker.
        with contextlib.suppress(OSError):
            self.mail.warden.attach(self.worker_id, self.listener, pidfd, self.mark)
        return True

    def reply(self, policy: NewPolicy | None, last: bool) -> None:
        """Tell it what a question has come to."""
        if self.mail is None:
            return
        self.recovery.learn(policy, last)
        # One that is gone is met as the end of its channel; the call that it held ends the run.
        with contextlib.suppress(OSError):
            self.mail.warden.reply(self.worker_id, policy, last)

    def hear(
        self, message: Attached | Detached | EndWorker | StorageExceeded | StorageMeasured, phase: Phase, facts: Facts
    ) -> Happened | None:
        """Take what it says of this worker; None when that moves nothing."""
        match message:
            case Detached():
                self.detached = True
                self.storage_bytes = message.storage_bytes
                return None
            case StorageMeasured():
                self.storage_bytes = message.usage_bytes
                return None
            case Attached():
                self.notes += tuple(warning for warning in message.warnings if warning not in self.notes)
                again = phase is not Phase.ATTACHING and self.recovery.under_way
                failed = self.note(message, facts)
                if failed is not None or again:
                    return failed
        return warden_said(message, facts)

    def note(self, message: WardenReady | Attached, facts: Facts) -> Happened | None:
        """Put on record that a warden started in place of another is there, or answers; None when that went well."""
        if self.mail is None:
            return None
        try:
            self.recovery.note(message, self.mail.warden.layers)
        except AuditError as error:
            return unrecorded(facts, no_record(error))
        return None

    def lose(
        self, lost: WardenClient, phase: Phase, facts: Facts, plan: ConfinementPlan, pid: int, pidfd: int
    ) -> Happened | None:
        """Go on with another one, unless that can't be or nothing needs one; None when the run goes on."""
        # Before the next one uses it.
        self.died_handing_over = self.died_handing_over or is_marked(self.mark)
        outcome = self.recovery.begin(lost, phase, plan, self.listener, self.mark, pid, pidfd)
        if isinstance(outcome, EndRun):
            return self.give_up(phase, facts, outcome.reason)
        if isinstance(outcome, WardenClient):
            assert self.mail is not None
            self.mail.warden = outcome
            self.prepared = True
            return None
        self.lost = True
        # What the worker may still call while it ends is to fail, not to wait.
        self._drop_listener()
        return None

    def give_up(self, phase: Phase, facts: Facts, reason: str = NOT_READY) -> Happened:
        """Go on without any: the run ends."""
        self.lost = True
        return warden_lost(phase, facts, reason)

    def begin_detach(self) -> bool:
        """Say that the worker has ended, so that its last counts come; False when the warden turns out to be gone."""
        if not self.prepared or not self.is_heard:
            self.detached = True
            return True
        assert self.mail is not None
        try:
            self.mail.warden.detach(self.worker_id)
        except OSError:
            return False
        return True

    @property
    def hand_over_broke_off(self) -> bool:
        """Whether a warden was killed or stopped while it handed a descriptor over, as far as its mark tells."""
        return self.died_handing_over or is_marked(self.mark)

    def close(self) -> None:
        """Let go of the worker; what is still said of it is dropped."""
        self._drop_listener()
        os.close(self.mark)
        if self.mail is not None:
            self.mail.leave(self.worker_id)

    def _drop_listener(self) -> None:
        if self.listener >= 0:
            os.close(self.listener)
            self.listener = -1
