"""The broker's core: `handle(event, now_ns)` says what is to be done about what happened. Pure and deterministic.

It reads no clock, draws no random number by itself and knows no socket: the shell gives it events, in order, and
carries out the commands, in order. The parts:

- `sessions`: the phases of an instance, and which message may come in which;
- `board`: who is there, what goes out, how an instance ends;
- `messaging`, `services`: one handler for each message;
- `mailbox`, `requests`, `subscriptions`: what waits for whom, who gets what;
- `ledger`: what is on record before it takes effect.

Who speaks follows from the key by which an event came, never from a message.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any, Final, assert_never

from ipc.broker import messages as wire
from ipc.broker import sessions as phases
from ipc.broker.board import Board
from ipc.broker.events import (
    Admission,
    Admitted,
    Announced,
    Command,
    Disconnected,
    Dismissed,
    Due,
    Event,
    HasFinished,
    Malformed,
    NamePassed,
    OperatorCalled,
    OperatorGone,
    Provided,
    Received,
    Recorded,
    Restricted,
    Stored,
)
from ipc.broker.mailbox import NUMBERS
from ipc.broker.messages import Bye, ErrorKind, Hello, Ping, Welcome
from ipc.broker.messaging import FORGIVEN_ANSWERS, Messaging
from ipc.broker.operators import Operators
from ipc.broker.orders import QuotaState
from ipc.broker.services import Services, storage_level
from ipc.broker.sessions import ENDED, GONE, READY, Session
from ipc.policy.quotas import MESSAGE_RATE, rate_level

WAITING_BYTES: Final = 64 * 1024 * 1024
"""What may wait in all mailboxes and for the log before everyone has a share only: an eighth of the broker's memory."""
HEARTBEAT_NS: Final = 15_000_000_000
"""An idle worker is asked whether it lives about this often."""
BEATS: Final = 15
"""The heartbeat in so many parts, at whose ends all are asked whose time has come in it: what is idle should stay
asleep, and one wake-up for many workers costs little more than for one."""
SILENT_BEATS: Final = 3
"""An idle worker that lets so many Pings go unanswered, each for an interval, is ended. What counts is that it was
asked, not that time has passed: the broker itself may have been stopped."""
LOOK_NS: Final = 50_000_000
"""While messages come, a component's rate is compared with the thresholds this often: not at each message, because
that costs as much as the message."""
NOT_ANSWERING: Final = "A1810"


class Core:
    """All that the broker decides. `random` gives 53-bit numbers; `epoch` is another for each broker.

    At most twice `waiting_bytes` wait in all mailboxes and for the log together.
    """

    def __init__(
        self,
        epoch: int,
        random: Callable[[], int],
        waiting_bytes: int = WAITING_BYTES,
        heartbeat_ns: int = HEARTBEAT_NS,
    ) -> None:
        """Begin with nobody."""
        self._epoch = epoch
        self._random = random
        self._heartbeat_ns = heartbeat_ns
        self._beat_ns = max(1, heartbeat_ns // BEATS)
        self._checks: list[tuple[int, str]] = []
        self._outgoing: list[Session] = []
        """Those whose name another instance has, until they have finished."""
        self._board = board = Board(random, waiting_bytes)
        self._messaging = messaging = Messaging(board)
        self._services = services = Services(board, messaging)
        self._operators = Operators(board)
        handlers: dict[type, Callable[[Session, Any, int], None]] = {
            Hello: self._hello,
            Bye: self._bye,
            wire.Send: messaging.send,
            wire.Request: messaging.request,
            wire.Cancel: messaging.cancel,
            wire.Broadcast: messaging.broadcast,
            wire.Publish: messaging.publish,
            wire.Handled: messaging.handled,
            wire.Answer: messaging.answer,
            wire.Get: services.get,
            wire.Set: services.write,
            wire.Delete: services.write,
            wire.Exists: services.get,
            wire.ListKeys: services.list_keys,
            wire.Usage: services.usage,
            wire.CompareAndSet: services.compare_and_set,
            wire.ListComponents: services.list_components,
            wire.GetMetadata: services.get_metadata,
            wire.Invoke: services.invoke,
            wire.Health: services.health,
            wire.Describe: services.describe,
        }
        board.take_handlers(handlers)

    def handle(self, event: Event, now_ns: int) -> list[Command]:
        """Take what happened, return what is to be done, in order. `now_ns` is monotonic."""
        match event:
            case Received():
                self._received(event, now_ns)
            case Recorded(ticket, failed):
                if not self._board.ledger.recorded(ticket, bool(failed), now_ns):
                    self._operators.recorded(ticket, bool(failed), now_ns)
            case Stored(ticket, result):
                self._services.stored(ticket, result, now_ns)
            case Due():
                self._due(now_ns)
            case Admitted(admission):
                self._admitted(admission, now_ns)
            case Announced(instance):
                self._announced(instance)
            case Disconnected():
                self._disconnected(event)
            case NamePassed(instance):
                self._name_passed(instance)
            case Restricted(instance, rights):
                self._board.restrict(instance, rights)
            case Dismissed(instance):
                self._dismissed(instance)
            case Malformed():
                self._malformed(event)
            case Provided():
                self._services.provided(event, now_ns)
            case OperatorCalled():
                self._operators.called(event)
            case OperatorGone(call):
                self._operators.gone(call)
            case _:
                assert_never(event)
        if self._outgoing:
            self._see_who_finished()
        return self._board.take_commands()

    def next_due_ns(self) -> int | None:
        """When a `Due` will next have something to do; None when nothing waits for a time. Asked in each turn."""
        due_ns = self._board.requests.next_due_ns()
        counted_ns = self._board.ledger.next_due_ns()
        if due_ns is None or (counted_ns is not None and counted_ns < due_ns):
            due_ns = counted_ns
        if self._checks and (due_ns is None or self._checks[0][0] < due_ns):
            due_ns = self._checks[0][0]
        return due_ns

    def quota_states(self, now_ns: int) -> tuple[QuotaState, ...]:
        """How full the quotas are that the broker keeps, of each live component."""
        states = []
        for session in self._board.by_name.values():
            for level in (storage_level(session), rate_level(session.rate, MESSAGE_RATE, now_ns)):
                states.append(QuotaState(session.name, level.name, level.usage, level.limit, level.unit))
        return tuple(states)

    # -- messages ------------------------------------------------------------------------------------------------------

    def _received(self, event: Received, now_ns: int) -> None:
        session = self._board.by_key.get(event.key)
        if session is None or session.phase == ENDED:
            return
        if session.route != event.route:
            if session.route is not None:
                self._board.violated(session, "a second connection")
                return
            session.route = event.route
        session.heard_ns = now_ns
        session.pings = 0
        session.callbacks = False
        for message in event.messages:
            handler = session.handlers.get(type(message))
            if handler is None:
                if session.phase != ENDED:
                    what = type(message).__name__.lower()
                    self._board.violated(session, f"{what} while it is {session.phase}")
                break
            handler(session, message, now_ns)
        if session.mailbox:
            # Once for all that was handled: where much waits, that is most of what a message costs.
            self._messaging.refill(session)
        if now_ns >= session.look_ns:
            self._look(session, now_ns)

    def _hello(self, session: Session, message: Hello, now_ns: int) -> None:
        if message.protocol != wire.PROTOCOL:
            self._board.violated(session, f"protocol {message.protocol}, this is {wire.PROTOCOL}")
            return
        if session.news.take(now_ns):
            self._board.violated(session, "it connects without end")
            return
        session.answers_forgiven = FORGIVEN_ANSWERS if message.since else 0
        self._board.move(session, phases.GREETED)
        self._board.tell(session, Welcome(session.epoch, session.max_payload_bytes, self._heartbeat_ns // 1_000_000))
        self._messaging.refill(session)
        self._board.phased(session)
        self._check_at(session, now_ns + self._heartbeat_ns)

    def _bye(self, session: Session, _message: Bye, _now_ns: int) -> None:
        self._board.move(session, phases.LEFT)
        self._board.retire(session)

    def _malformed(self, event: Malformed) -> None:
        session = self._board.by_key.get(event.key)
        if session is not None and session.phase != ENDED:
            self._board.violated(session, event.why)

    # -- comings and goings --------------------------------------------------------------------------------------------

    def _admitted(self, admission: Admission, now_ns: int) -> None:
        board = self._board
        earlier = (
            None if admission.stands_by else board.by_name.get(admission.name),
            board.by_key.get(admission.key),
            board.by_instance.get(admission.instance),
        )
        for other in earlier:
            if other is not None:  # not dismissed: the supervisor knows that there is one of a name at a time
                self._dismissed(other.instance)
        rate = board.rate_of(admission.name, admission.bounds.messages_per_s, now_ns)
        session = Session(admission, rate, self._epoch, self._random() % NUMBERS, board.pool, now_ns)
        if not admission.stands_by:
            # Who had the name from one that is gone may still be at work.
            same = [each for each in self._outgoing if each.name == admission.name and each.place != GONE]
            session.awaits = same[-1] if same else None
        board.arrive(session)
        self._services.measure(session)

    def _name_passed(self, instance: str) -> None:
        session = self._board.by_instance.get(instance)
        former = None if session is None or session.phase == ENDED else self._board.pass_name(session)
        if former is not None:
            self._outgoing.append(former)

    def _see_who_finished(self) -> None:
        """Deliver to those again that waited for one to finish which has, or has ended."""
        for former in tuple(self._outgoing):
            if former.place != GONE:
                if former.awaits is not None or former.is_busy:
                    continue
                self._board.commands.append(HasFinished(former.instance))
            self._outgoing.remove(former)
            for session in self._board.release(former):
                self._messaging.refill(session)

    def _announced(self, instance: str) -> None:
        session = self._board.by_instance.get(instance)
        if session is not None:
            self._board.move(session, phases.ANNOUNCED)

    def _disconnected(self, event: Disconnected) -> None:
        session = self._board.by_key.get(event.key)
        if session is None or session.route != event.route:
            return
        was_ready = session.phase == READY
        self._board.move(session, phases.DISCONNECTED)
        self._board.cut_off(session)
        if was_ready:
            self._board.phased(session)

    def _dismissed(self, instance: str) -> None:
        session = self._board.by_instance.get(instance)
        if session is None:
            return
        self._board.retire(session)
        self._board.leave(session)

    # -- time ----------------------------------------------------------------------------------------------------------

    def _due(self, now_ns: int) -> None:
        board = self._board
        for pending in board.requests.due(now_ns):
            board.call_back(pending, None, ErrorKind.TIMED_OUT, "no answer in time")
        board.ledger.close_due(now_ns)
        checks = self._checks
        while checks and checks[0][0] <= now_ns:
            check_ns, instance = heapq.heappop(checks)
            session = board.by_instance.get(instance)
            if session is not None and session.phase == READY and session.check_ns == check_ns:
                self._check(session, now_ns)

    def _check(self, session: Session, now_ns: int) -> None:
        """See whether a worker that has said nothing for an interval lives."""
        silent_ns = now_ns - session.heard_ns
        self._look(session, now_ns)
        if silent_ns < self._heartbeat_ns:
            self._check_at(session, session.heard_ns + self._heartbeat_ns)
            return
        # One that has something to handle may be at it for as long as its own time limit allows.
        is_idle = not session.mailbox.unhandled and not session.callbacks
        if session.pings < SILENT_BEATS:
            session.pings += 1
            self._board.tell(session, Ping())
        elif is_idle:
            self._board.violated(session, "it does not answer", NOT_ANSWERING)
            return
        self._check_at(session, now_ns + self._heartbeat_ns)

    def _check_at(self, session: Session, check_ns: int) -> None:
        check_ns += -check_ns % self._beat_ns
        session.check_ns = check_ns
        heapq.heappush(self._checks, (check_ns, session.instance))

    def _look(self, session: Session, now_ns: int) -> None:
        """Tell of the message rate when it gets from one status into another."""
        session.look_ns = now_ns + LOOK_NS
        level = rate_level(session.rate, MESSAGE_RATE, now_ns)
        if session.rate_crossings.note(level):
            self._board.ledger.crossed(session, level, now_ns)
