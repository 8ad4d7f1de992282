"""What components say to each other: send, request and its end, broadcast, publish. Pure.

The order of the questions is the same everywhere: may it, is it within its bounds, is somebody there, is there room.
So nobody learns who exists without a grant for it, and nobody can ask faster than its rate.
"""

from __future__ import annotations

from typing import Final

from ipc.broker.board import Board
from ipc.broker.ledger import Refusal
from ipc.broker.mailbox import SMALL_WINDOW
from ipc.broker.messages import (
    MAX_NAME_BYTES,
    Accepted,
    Answer,
    Broadcast,
    Cancel,
    ErrorKind,
    Handled,
    Publish,
    Request,
    Send,
)
from ipc.broker.sessions import Route, Session
from ipc.policy.decision import Deny
from ipc.policy.quotas import MESSAGE_RATE, NEVER_MS, OverQuota
from ipc.policy.rate import NEVER

SEND: Final = "messaging.send"
RECEIVE: Final = "messaging.receive"
PUBLISH: Final = "messaging.publish"
EVERYBODY: Final = "*"
"""The resource of a broadcast, on record."""
TIMEOUT_MAX_MS: Final = 2**32 - 1
REQUESTS_MAX: Final = 50_000
"""Requests of all components that may be open, some 400 bytes each, before nobody may have more than a share."""
REASON_MAX_CHARS: Final = 1_024
"""What a component says went wrong is passed on up to this length."""

UNKNOWN: Final = Refusal(ErrorKind.UNKNOWN_TARGET, "A1801", "no component of this name is running")
FULL: Final = Refusal(ErrorKind.MAILBOX_FULL, "A1802", "the receiver's mailbox is full")


class Messaging:
    """Handlers for a session that is ready. Each takes the session, the message and the time."""

    def __init__(self, board: Board) -> None:
        """Work on this board."""
        self._board = board

    def send(self, session: Session, message: Send, now_ns: int) -> None:
        """Put a message into a mailbox. The hot path of the broker: each line is paid for by every message."""
        route = session.routes.get(message.to)
        if route is None or (window := route.window) is None or window.closed:
            route = self._open_route(session, message, now_ns)
            if route is None:
                return
        else:
            window.repeats += 1
            window.last_ns = now_ns
        payload = message.payload
        if len(payload) > route.max_payload_bytes:
            self._refuse(session, message.seq, SEND, message.to, too_large(route.max_payload_bytes), now_ns)
            return
        wait_ns = session.rate.take(now_ns)
        if wait_ns:
            self._refuse(session, message.seq, SEND, "", over_rate(session, wait_ns, now_ns), now_ns)
            return
        target = route.target
        delivery = target.mailbox.put(session.name, payload)
        if delivery is not True:
            if delivery is False:
                if not self._put_again(target, session.name, payload, 0):
                    self._refuse(session, message.seq, SEND, message.to, FULL, now_ns)
                    return
            else:
                self._board.tell(target, delivery)
        self._board.tell(session, Accepted(message.seq))

    def request(self, session: Session, message: Request, now_ns: int) -> None:
        """As `send`, and there will be exactly one Callback, unless it is cancelled."""
        route = session.routes.get(message.to)
        if route is None or (window := route.window) is None or window.closed:
            route = self._open_route(session, message, now_ns)
            if route is None:
                return
        else:
            window.repeats += 1
            window.last_ns = now_ns
        refusal = self._request_refusal(session, message, route, now_ns)
        if refusal is not None:
            resource = "" if refusal.quota else message.to
            self._refuse(session, message.seq, SEND, resource, refusal, now_ns)
            return
        target, requests = route.target, self._board.requests
        pending = requests.add(session, target, now_ns + message.timeout_ms * 1_000_000)
        delivery = target.mailbox.put(session.name, message.payload, pending.correlation)
        if delivery is False:
            if not self._put_again(target, session.name, message.payload, pending.correlation):
                requests.never_put(pending)
                self._refuse(session, message.seq, SEND, message.to, FULL, now_ns)
                return
        elif delivery is not True:
            pending.delivered = True
            self._board.tell(target, delivery)
        self._board.tell(session, Accepted(message.seq, 0, pending.correlation))

    def cancel(self, session: Session, message: Cancel, _now_ns: int) -> None:
        """Forget a request of one's own. Another's id is answered like one that never was."""
        cancelled = message.correlation in session.pending
        if cancelled:
            self._board.requests.end(message.correlation)
        self._board.tell(session, Accepted(message.seq, int(cancelled)))

    def broadcast(self, session: Session, message: Broadcast, now_ns: int) -> None:
        """To everybody that both sides' grants allow."""
        routes = self.reach(session)
        rule = "grants of both sides, each receiver's"
        if self._board.ledger.use(session, SEND, EVERYBODY, rule, now_ns) is None:
            self._board.stall(session, message)
            return
        most_bytes = session.max_payload_bytes
        refusal = self._bounds_refusal(session, message.payload, most_bytes, 1 + len(routes), now_ns)
        if refusal is not None:
            self._refuse(session, message.seq, SEND, "" if refusal.quota else EVERYBODY, refusal, now_ns)
            return
        reached = self._spread(session, [route.target for route in routes], message.payload, "", now_ns)
        self._board.tell(session, Accepted(message.seq, reached))

    def publish(self, session: Session, message: Publish, now_ns: int) -> None:
        """To everybody whose subscription covers the topic; who is reached by more has to pay for more."""
        topic = message.topic
        allowed = self._permission(session, PUBLISH, topic)
        if isinstance(allowed, Refusal):
            self._refuse(session, message.seq, PUBLISH, topic[:MAX_NAME_BYTES], allowed, now_ns)
            return
        if self._board.ledger.use(session, PUBLISH, topic, allowed, now_ns, each=False) is None:
            self._board.stall(session, message)
            return
        subscribers = self._board.subscriptions.of(topic)
        most_bytes = session.max_payload_bytes
        refusal = self._bounds_refusal(session, message.payload, most_bytes, 1 + len(subscribers), now_ns)
        if refusal is not None:
            self._refuse(session, message.seq, PUBLISH, "" if refusal.quota else topic, refusal, now_ns)
            return
        reached = self._spread(session, subscribers, message.payload, topic, now_ns)
        self._board.tell(session, Accepted(message.seq, reached))

    def handled(self, session: Session, message: Handled, _now_ns: int) -> None:
        """A delivery is done with; the room for another one is filled when the whole batch was taken."""
        correlation = session.mailbox.handled(message.delivery)
        if correlation:
            if correlation < 0:
                self._unknown_delivery(session)
                return
            self._finish(correlation, None, message.failure)

    def answer(self, session: Session, message: Answer, now_ns: int) -> None:
        """A delivery is done with, and who asked gets the result."""
        correlation = session.mailbox.handled(message.delivery)
        if correlation < 0:
            self._unknown_delivery(session)
            return
        payload, failure = message.payload, message.failure
        if payload is not None and len(payload) > session.max_payload_bytes:
            failure = f"its answer has {len(payload)} bytes, and it may send {session.max_payload_bytes}"
            payload = None
            self._board.ledger.note_refusal(session, SEND, "", too_large(session.max_payload_bytes), now_ns)
        if correlation:
            self._finish(correlation, payload, failure)

    def refill(self, session: Session) -> None:
        """Deliver what waited, as far as there is room."""
        for delivery in session.mailbox.refill(self._board.requests.delivered):
            self._board.tell(session, delivery)

    def reach(self, session: Session) -> tuple[Route, ...]:
        """The other live components that both sides' grants allow; looked up anew when somebody came or went."""
        generation, routes = session.reach
        if generation != self._board.generation:
            found = [self.permit(session, name) for name in sorted(self._board.by_name) if name != session.name]
            routes = tuple(route for route in found if isinstance(route, Route))
            session.reach = (self._board.generation, routes)
        return routes

    def permit(self, session: Session, to: str) -> Route | Refusal:
        """Whether one component may send to another, by both sides' grants."""
        route = session.routes.get(to)
        if route is not None:
            return route
        rule = self._permission(session, SEND, to)
        if isinstance(rule, Refusal):
            return rule
        target = self._board.by_name.get(to)
        if target is None:
            return UNKNOWN
        receiving = target.rights.decide(RECEIVE, session.name)
        if isinstance(receiving, Deny):
            reason = f"{to} does not receive from {session.name}"
            return Refusal(ErrorKind.NOT_PERMITTED, receiving.code, reason, f"of {to}: {receiving.rule}")
        route = session.routes[to] = Route(session, target, rule, receiving.rule)
        return route

    def _open_route(self, session: Session, message: Send | Request, now_ns: int) -> Route | None:
        """Permit and put on record; None when it was refused, or waits for the record."""
        to = message.to
        route = self.permit(session, to)
        if isinstance(route, Refusal):
            if route is UNKNOWN and (wait_ns := session.rate.take(now_ns)):
                to, route = "", over_rate(session, wait_ns, now_ns)
            self._refuse(session, message.seq, SEND, to[:MAX_NAME_BYTES], route, now_ns)
            return None
        route.window = self._board.ledger.use(session, SEND, to, route.rule, now_ns, route.receiver_rule)
        if route.window is None:
            self._board.stall(session, message)
            return None
        return route

    def _permission(self, session: Session, action: str, name: str) -> str | Refusal:
        """The rule that allows it, or why not."""
        if len(name) > MAX_NAME_BYTES or len(name.encode("utf-8", "surrogatepass")) > MAX_NAME_BYTES:
            return Refusal(ErrorKind.INVALID, "A1808", f"a name has at most {MAX_NAME_BYTES} bytes")
        decision = session.rights.decide(action, name)
        return to_refusal(decision) if isinstance(decision, Deny) else decision.rule

    def _request_refusal(self, session: Session, message: Request, route: Route, now_ns: int) -> Refusal | None:
        if not 0 <= message.timeout_ms <= TIMEOUT_MAX_MS:
            return Refusal(ErrorKind.INVALID, "A1808", f"a timeout is 0 to {TIMEOUT_MAX_MS} ms")
        refusal = self._bounds_refusal(session, message.payload, route.max_payload_bytes, 1, now_ns)
        limit = session.admission.bounds.requests_in_flight
        if len(self._board.requests) >= REQUESTS_MAX:
            limit = min(limit, REQUESTS_MAX // len(self._board.by_name))
        if refusal is None and len(session.pending) >= limit:
            return Refusal(
                ErrorKind.OVER_QUOTA,
                "A1809",
                "too many requests wait for an answer",
                usage=len(session.pending),
                limit=limit,
                quota="requests_in_flight",
            )
        return refusal

    def _bounds_refusal(
        self, session: Session, payload: bytes, most_bytes: int, cost: int, now_ns: int
    ) -> Refusal | None:
        if len(payload) > most_bytes:
            return too_large(most_bytes)
        wait_ns = session.rate.take(now_ns, cost)
        return over_rate(session, wait_ns, now_ns) if wait_ns else None

    def _spread(
        self, session: Session, targets: list[Session] | tuple[Session, ...], payload: bytes, topic: str, now_ns: int
    ) -> int:
        """Put the same into many mailboxes; how many had room."""
        name, tell = session.name, self._board.tell
        action = PUBLISH if topic else SEND
        reached = 0
        for target in targets:
            if len(payload) > target.max_payload_bytes:
                why = too_large(target.max_payload_bytes)
                self._board.ledger.note_refusal(session, action, target.name, why, now_ns)
                continue
            delivery = target.mailbox.put(name, payload, 0, topic)
            if delivery is False:
                if not self._put_again(target, name, payload, 0, topic):
                    self._board.ledger.note_refusal(session, action, target.name, FULL, now_ns)
                    continue
            elif delivery is not True:
                tell(target, delivery)
            reached += 1
        return reached

    def _put_again(self, target: Session, sender: str, payload: bytes, correlation: int, topic: str = "") -> bool:
        """Try once more where the mailbox was full of requests that nobody waits for any more."""
        mailbox = target.mailbox
        return mailbox.bury(self._board.requests.is_open) and mailbox.put(sender, payload, correlation, topic) is True

    def _finish(self, correlation: int, payload: bytes | None, failure: str) -> None:
        pending = self._board.requests.end(correlation)
        if pending is None:
            return
        if failure:
            self._board.call_back(pending, None, ErrorKind.FAILED, failure[:REASON_MAX_CHARS])
        elif (asker := pending.requester) is not None and len(payload or b"") > asker.max_payload_bytes:
            reason = f"the answer has {len(payload or b'')} bytes, and who asked may take {asker.max_payload_bytes}"
            self._board.call_back(pending, None, ErrorKind.FAILED, reason)
        else:
            self._board.call_back(pending, payload)

    def _unknown_delivery(self, session: Session) -> None:
        if session.answers_forgiven > 0:
            session.answers_forgiven -= 1
        else:
            self._board.violated(session, "an answer to a message that it was not given")

    def _refuse(self, session: Session, seq: int, action: str, resource: str, refusal: Refusal, now_ns: int) -> None:
        self._board.ledger.refuse(session, seq, action, resource, refusal, now_ns)


FORGIVEN_ANSWERS: Final = SMALL_WINDOW
"""How many answers to deliveries of its last connection a worker may still give: as many as could be with it."""


def to_refusal(deny: Deny) -> Refusal:
    """What a denial by the component's own policy is to it. A malformed name is no question of permission."""
    kind = ErrorKind.INVALID if deny.code == "A1207" else ErrorKind.NOT_PERMITTED
    return Refusal(kind, deny.code, deny.reason, deny.rule, deny.nearest)


def too_large(limit: int) -> Refusal:
    """More bytes than may be sent at once."""
    return Refusal(ErrorKind.TOO_LARGE, "A1803", f"at most {limit} bytes", limit=limit)


def over_rate(session: Session, wait_ns: int, now_ns: int) -> Refusal:
    """More messages than its rate allows."""
    assert session.rate.per_s is not None
    over = OverQuota(MESSAGE_RATE.name, session.rate.usage(now_ns), session.rate.per_s, wait_ns)
    return Refusal(
        ErrorKind.OVER_QUOTA,
        "A1502",
        f"more than {over.limit} messages a second" if wait_ns != NEVER else f"more than {over.limit} at once",
        retry_after_ms=NEVER_MS if wait_ns == NEVER else over.retry_after_ms,
        usage=over.usage,
        limit=over.limit,
        quota=over.quota,
    )
