"""What the broker's handlers share: who is there, what goes out, and how an instance ends. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from ipc.broker import sessions as phases
from ipc.broker.events import Command, EndPeer, OperatorAnswered, Phased, Record, Rights, Transmit
from ipc.broker.ledger import UNRECORDED, Ledger, Refusal
from ipc.broker.mailbox import LETTER_BYTES, Pool
from ipc.broker.messages import Bye, Callback, ErrorKind, FromWorker, ToWorker
from ipc.broker.requests import Pending, Requests
from ipc.broker.sessions import ALLOWED, GONE, NAMED, NEXT, ORDERED, OUTGOING, READY, STANDS_BY, Handlers, Session
from ipc.broker.subscriptions import Subscriptions
from ipc.policy.rate import Rate

BROKE_PROTOCOL: Final = "A1806"
BACKLOG_MESSAGES: Final = 2 * 512
BACKLOG_BYTES: Final = 8 * 1024 * 1024
"""What one instance may have waiting while the first use of a grant is put on record: two frames, a few milliseconds.
Beyond that its messages are refused: when the disk hangs, what waits for it must not grow."""
_CHARACTER_BYTES_MAX: Final = 4
"""What a character of a text takes in CPython (PEP 393)."""
HOLDS: Final = 2
"""Each instance has a mailbox and a backlog, and both have a share of the room."""
RATES_MAX: Final = 4_096
"""Components that are away and whose rate is remembered, so that none gets a new one by ending."""

ENDED_BEFORE: Final = Refusal(ErrorKind.TARGET_GONE, "A1804", "it ended before it answered")
NO_ROOM: Final = Refusal(ErrorKind.TARGET_GONE, "A1804", "another instance took its place, and had no room for this")
CUT_OFF: Final = Refusal(
    ErrorKind.UNAVAILABLE, "A1807", "the connection to it was lost; whether it was handled is not known"
)


class Board:
    """The tables, each bounded by the number of admitted instances, and the commands of this turn."""

    def __init__(self, random: Callable[[], int], waiting_bytes: int) -> None:
        """Begin with nobody; `random` gives 53-bit numbers; `waiting_bytes` is the size of the pool."""
        self.pool = Pool(waiting_bytes)
        self.random = random
        self.by_key: dict[str, Session] = {}
        self.by_instance: dict[str, Session] = {}
        self.by_name: dict[str, Session] = {}
        """Those that may be sent to: the live ones."""
        self.generation = 0
        """Counts the comings and goings."""
        self.subscriptions = Subscriptions()
        self.requests = Requests(random)
        self.ledger = Ledger(self.tell, self._resume)
        self.commands: list[Command] = []
        self._touched: list[Session] = []
        self._rates: dict[str, Rate] = {}
        self._handlers: dict[str, Handlers] = {phase: {} for phase in phases.PHASES}
        self._stalled: Handlers = {}

    def take_handlers(self, handlers: Mapping[type, Callable[[Session, object, int], None]]) -> None:
        """Take what handles each message; from the tables follows which are in force in which phase."""
        for phase in phases.PHASES:
            self._handlers[phase] = {kind: handlers[kind] for kind in ALLOWED[phase]}
        self._stalled = {**self._handlers[READY], **dict.fromkeys(ORDERED, self._wait)}

    # -- what goes out -------------------------------------------------------------------------------------------------

    def tell(self, session: Session, message: ToWorker) -> None:
        """Send something to a worker at the end of this turn, behind what is there already."""
        out = session.out
        if not out:
            self._touched.append(session)
        out.append(message)

    def take_commands(self) -> list[Command]:
        """Return what is to be done: what goes on record first, then what goes out."""
        commands = self.commands
        self.commands = []
        ledger = self.ledger
        if ledger.records:
            commands = [*ledger.records, *commands]
            ledger.records.clear()
        if self._touched:
            for session in self._touched:
                if session.route is not None and session.out:
                    commands.append(Transmit(session.route, tuple(session.out)))
                session.out.clear()
            self._touched.clear()
        return commands

    def call_back(self, pending: Pending, payload: bytes | None, kind: str = "", reason: str = "") -> None:
        """Give whoever waits for a request its end; the request is out of the table already."""
        if pending.requester is None:
            assert pending.call is not None
            self.commands.append(OperatorAnswered(pending.call, payload, kind, reason))
        else:
            pending.requester.callbacks = True
            self.tell(pending.requester, Callback(pending.correlation, payload, kind, reason))

    # -- what waits for a record ---------------------------------------------------------------------------------------

    def stall(self, session: Session, message: FromWorker) -> None:
        """Have a message, and what comes behind it, wait until `session.stalled_for` is on record."""
        size_bytes = _size_bytes(message)
        session.backlog.appendleft(message)
        session.backlog_bytes += size_bytes
        self.pool.take(size_bytes, -size_bytes)  # one there is always room for
        session.handlers = self._stalled

    def _wait(self, session: Session, message: FromWorker, now_ns: int) -> None:
        size_bytes = _size_bytes(message)
        if (
            len(session.backlog) < BACKLOG_MESSAGES
            and session.backlog_bytes + size_bytes <= BACKLOG_BYTES
            and self.pool.take(size_bytes, session.backlog_bytes)
        ):
            session.backlog.append(message)
            session.backlog_bytes += size_bytes
        elif isinstance(message, Bye):
            self._handlers[session.phase][Bye](session, message, now_ns)
        else:
            self._refuse_unrecorded(session, message)

    def _resume(self, session: Session, failed: bool, now_ns: int) -> None:
        session.handlers = self._handlers[session.phase]
        backlog = session.backlog
        while backlog and not session.stalled_for and session.phase == READY:
            message = backlog.popleft()
            size_bytes = _size_bytes(message)
            session.backlog_bytes -= size_bytes
            self.pool.give_back(size_bytes)
            if failed and not isinstance(message, Bye):
                self._refuse_unrecorded(session, message)
            else:
                session.handlers[type(message)](session, message, now_ns)

    def _refuse_unrecorded(self, session: Session, message: FromWorker) -> None:
        seq = getattr(message, "seq", None)
        if isinstance(seq, int):
            self.tell(session, UNRECORDED.to_answer(seq))

    # -- comings and goings --------------------------------------------------------------------------------------------

    def move(self, session: Session, happening: str) -> None:
        """Take a session into the phase in which this leads."""
        session.phase = phase = NEXT[session.phase, happening]
        session.handlers = self._stalled if session.stalled_for and phase == READY else self._handlers[phase]
        session.mailbox.is_open = phase == READY and session.awaits is None

    def arrive(self, session: Session) -> None:
        """An instance is admitted: if it has the name, it can be sent to from now on, and gets it when it is ready."""
        session.handlers = self._handlers[session.phase]
        self.by_key[session.admission.key] = self.by_instance[session.instance] = session
        self.pool.change_holders(HOLDS)
        if session.place == NAMED:
            self._name(session)

    def _name(self, session: Session) -> None:
        self.by_name[session.name] = session
        self.generation += 1
        self.subscriptions.add(session)

    def _unname(self, session: Session) -> None:
        del self.by_name[session.name]
        self.generation += 1
        self.subscriptions.remove(session)
        for other in self.by_instance.values():
            other.routes.pop(session.name, None)

    def pass_name(self, session: Session) -> Session | None:
        """Give the name to an instance that stands by, with what waits; return who had it, None where nobody did.

        What is with that one stays with it: it may be handling it. Until it has finished nothing is delivered to the
        new one: so the order of each sender's messages is kept, and no two instances handle messages at a time.
        """
        if session.place != STANDS_BY:
            return None
        former = self.by_name.get(session.name)
        if former is not None:
            self._unname(former)
            former.place = OUTGOING
        session.place = NAMED
        self._name(session)
        if former is not None:
            session.awaits = former
            session.mailbox.is_open = False
            self._move_letters(former, session)
        return former

    def _move_letters(self, former: Session, session: Session) -> None:
        """Put what waited for one into the mailbox of another; what doesn't fit ends with an error, or on record."""
        requests, unread = [], 0
        for letter in former.mailbox.take_letters():
            wanted = self.requests.is_open(letter.correlation)
            if letter.correlation and not wanted:
                continue
            fits = len(letter.payload) <= session.max_payload_bytes
            if fits and session.mailbox.put(letter.sender, letter.payload, letter.correlation, letter.topic):
                if wanted:
                    self.requests.pass_on(letter.correlation, session)
            elif wanted:
                requests.append(letter.correlation)
            else:
                unread += 1
        self._end_requests(requests, NO_ROOM)
        former.mailbox.dead = 0
        self._note_lost(session, len(requests), 0, unread)

    def release(self, former: Session) -> list[Session]:
        """One whose name was passed on has finished, or ended; return those that are delivered to from now on."""
        waiting = [session for session in self.by_instance.values() if session.awaits is former]
        for session in waiting:
            # One that ends before it was given anything leaves whoever it waited for to the next one.
            session.awaits = former.awaits
            session.mailbox.is_open = session.phase == READY and session.awaits is None
        return [session for session in waiting if session.awaits is None]

    def restrict(self, instance: str, rights: Rights) -> None:
        """Have an instance decided about by other rights; what was found out by the old ones is forgotten."""
        session = self.by_instance.get(instance)
        if session is None:
            return
        is_live = self.by_name.get(session.name) is session
        if is_live:
            self.subscriptions.remove(session)
        session.rights = rights
        session.namespaces = session.namespaces.by(rights, session.admission.bounds)
        session.routes.clear()
        session.recorded.clear()
        # Its counts are closed as what they were: the next use is the first by these rights.
        self.ledger.close_instance(instance)
        if is_live:
            for other in self.by_instance.values():
                other.routes.pop(session.name, None)
            self.generation += 1
            self.subscriptions.add(session)

    def leave(self, session: Session) -> None:
        """A retired instance is known no more: nothing is taken from its key."""
        del self.by_key[session.admission.key], self.by_instance[session.instance]
        session.route = None
        self.ledger.close_instance(session.instance)

    def phased(self, session: Session) -> None:
        """Tell the supervisor how a session is."""
        self.commands.append(Phased(session.instance, "ready" if session.phase == READY else "lost", session.health))

    def rate_of(self, name: str, per_s: int | None, now_ns: int) -> Rate:
        """The message rate of a component: as its last instance left it."""
        known = self._rates.get(name)
        if known is None and len(self._rates) >= RATES_MAX:
            for other in [other for other in self._rates if other not in self.by_name]:
                del self._rates[other]
        rate = self._rates[name] = Rate(per_s, now_ns, None if known is None else known.state(now_ns))
        return rate

    def cut_off(self, session: Session) -> None:
        """A connection is gone: what was on its way in either direction may be lost, and who waits for it is told.

        Its own requests are forgotten: the worker itself ends them, when the next Welcome tells of another epoch.
        """
        correlations, others = session.mailbox.withdraw()
        self._end_requests(correlations, CUT_OFF)
        self._note_lost(session, len(correlations), others, 0)
        self._forget_own(session)
        session.route = None
        session.epoch = self.random()

    def retire(self, session: Session) -> None:
        """An instance is going: its mailbox is closed, the requests in it end, and no one finds it any more."""
        if session.place == GONE:
            return
        if session.place == NAMED:
            self._unname(session)
        session.place = GONE
        self.pool.change_holders(-HOLDS)
        with_it, unhandled = session.mailbox.withdraw()
        waiting, unread = session.mailbox.empty()
        self._end_requests([*with_it, *waiting], ENDED_BEFORE)
        session.mailbox.dead = 0  # those that have just ended lie there no more
        self._note_lost(session, len(with_it) + len(waiting), unhandled, unread)
        self._forget_own(session)

    def violated(self, session: Session, reason: str, code: str = BROKE_PROTOCOL) -> None:
        """End an instance that said what no working worker says."""
        record = Record(session.instance, "violation", "messaging.protocol", "", "denied", code, reason)
        self.ledger.happened(record)
        self.commands.append(EndPeer(session.instance, code, reason))
        self.move(session, phases.BROKE)
        self.retire(session)
        session.route = None  # nothing more is answered

    def _forget_own(self, session: Session) -> None:
        for correlation in list(session.pending):
            self.requests.end(correlation)
        session.backlog.clear()
        self.pool.give_back(session.backlog_bytes)
        session.backlog_bytes = 0
        session.stalled_for = 0
        session.first_use = None

    def _end_requests(self, correlations: list[int], why: Refusal) -> None:
        for correlation in correlations:
            pending = self.requests.end(correlation)
            if pending is not None:
                self.call_back(pending, None, why.kind, why.reason)

    def _note_lost(self, session: Session, requests: int, unhandled: int, unread: int) -> None:
        lost = unhandled + unread
        if lost or requests:
            detail = (("unhandled", unhandled), ("unread", unread), ("requests", requests))
            reason = "messages were accepted for it and were not, or perhaps not, handled; requests were answered"
            self.ledger.happened(
                Record(session.instance, "messages_lost", "", "", "info", reason=reason, detail=detail)
            )


def _size_bytes(message: FromWorker) -> int:
    """What it may take of our memory: texts, too, are only as long as a frame until they are looked at."""
    size_bytes = LETTER_BYTES
    for name in message.__struct_fields__:
        value = getattr(message, name)
        if isinstance(value, bytes):
            size_bytes += len(value)
        elif isinstance(value, str):
            size_bytes += len(value) if value.isascii() else _CHARACTER_BYTES_MAX * len(value)
    return size_bytes
