"""Any sequence of well-formed messages and mishaps: the promise holds, everything is bounded, nothing raises."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from driving import Driver, admission
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ipc.broker import mailbox as mailboxes
from ipc.broker.board import BACKLOG_MESSAGES
from ipc.broker.events import (
    Admission,
    Bounds,
    Disconnected,
    Due,
    Malformed,
    NamePassed,
    Received,
    Recorded,
    Restricted,
    Stored,
    StoreResult,
)
from ipc.broker.ledger import HELD_MAX
from ipc.broker.messages import (
    Accepted,
    Answer,
    Broadcast,
    Bye,
    Callback,
    Cancel,
    Deliver,
    FromWorker,
    Get,
    GetMetadata,
    Handled,
    Health,
    Hello,
    Invoke,
    ListComponents,
    ListKeys,
    Names,
    Numbers,
    Publish,
    Refused,
    Request,
    Send,
    Set,
    Usage,
    Value,
    Welcome,
)
from ipc.broker.sessions import NAMED, OUTGOING, READY
from ipc.struct import replace

SMALL_WINDOW, SMALL_BYTES = 9, 50
NAMES = ("a", "b", "c", "d")
TOPICS = ("t", "u.v", "w")
SENDS = {"a": ("b", "c", "d"), "b": ("a", "b"), "c": ("a", "d"), "d": ()}
RECEIVES = {"a": ("b", "c"), "b": ("a",), "c": (), "d": ("a", "b")}
PUBLISHES = {"a": TOPICS, "b": ("t",), "c": (), "d": ("w",)}
SUBSCRIBES = {"a": ("w",), "b": ("t", "u.v"), "c": TOPICS, "d": ()}
# Small ones, so that each is reached; c is bounded by nothing but the constants.
BOUNDS = {
    "a": Bounds(messages_per_s=40, max_payload_bytes=64, mailbox_messages=5, mailbox_bytes=200, requests_in_flight=4),
    "b": Bounds(messages_per_s=1000, max_payload_bytes=64, mailbox_messages=3, mailbox_bytes=90),
    "c": Bounds(messages_per_s=None),
    "d": Bounds(messages_per_s=0, storage_bytes=0),
}
ANSWERS = (Accepted, Refused, Value, Names, Numbers)
names, topics = st.sampled_from(NAMES), st.sampled_from((*TOPICS, "x", "t..u", ""))
targets = st.sampled_from(("a", "b", "b", "d", "c", "nobody", "", "x" * 300))
askers = st.sampled_from(("a", "a", "b", "b", "c", "d"))
counts = st.integers(1, 60)


def payload_of(number: int, padding: int) -> bytes:
    """A payload that says which message it is."""
    return number.to_bytes(8, "big") + bytes(padding)


def is_large(letter: mailboxes.Letter) -> bool:
    """Whether only a narrow window takes it."""
    return bool(letter.correlation) or len(letter.payload) > SMALL_BYTES


class Network(RuleBasedStateMachine):
    """Four components with little room and few rights, a log and a store that answer when they like."""

    def __init__(self) -> None:
        super().__init__()
        self.driver = Driver()
        self.driver.store_answers = False
        self.generations = Counter[str]()
        self.live: dict[str, str] = {}
        self.outgoing: list[str] = []
        self.admitted: dict[str, Admission] = {}
        self.number = 0
        self.seq = 0
        # What was said, by its number: who, by which way (to a name, on a topic, to all).
        self.said: dict[int, tuple[str, str, str]] = {}
        self.delivered: dict[tuple[str, str], list[int]] = {}
        self.handed: dict[str, list[Deliver]] = {}
        self.asked: dict[str, dict[int, FromWorker]] = {}
        self.answered: dict[str, Counter[int]] = {}
        self.open: dict[str, dict[int, int]] = {}
        self.ended_requests = Counter[int]()
        self.cancelled: set[int] = set()
        for name in NAMES:
            self.start(name, True)

    # -- what is said --------------------------------------------------------------------------------------------------

    def say(self, name: str, *messages: FromWorker) -> None:
        """A batch from the live instance of a component, if it is connected."""
        instance = self.live.get(name)
        if instance is None or instance not in self.driver.routes:
            return
        for message in messages:
            seq = getattr(message, "seq", None)
            if seq is not None:
                self.asked[instance][seq] = message
        self.driver.say(instance, *messages)
        self.look()

    def next_payload(self, name: str, way: str, where: str, padding: int) -> bytes:
        """The payload of a message that is about to be said."""
        self.number += 1
        self.said[self.number] = (name, way, where)
        return payload_of(self.number, padding)

    def next_seq(self) -> int:
        """Another number for a question."""
        self.seq += 1
        return self.seq

    def fresh(self, instance: str) -> None:
        """A connection is new: nothing of the old one is answered, and its requests are the worker's own to end."""
        self.asked[instance], self.answered[instance], self.open[instance] = {}, Counter(), {}

    # -- what came of it -----------------------------------------------------------------------------------------------

    def look(self) -> None:
        """Take what was sent to the workers, and check each message as it comes."""
        for instance, messages in self.driver.inbox.items():
            name = instance.split("-")[0]
            for message in messages:
                match message:
                    case Deliver():
                        self.check_delivery(name, instance, message)
                    case Callback(correlation=correlation):
                        assert correlation in self.open[instance], "an end of what it didn't ask, or a second one"
                        del self.open[instance][correlation]
                        self.ended_requests[correlation] += 1
                        assert correlation not in self.cancelled
                    case Welcome():
                        pass
                    case _ if isinstance(message, ANSWERS):
                        self.check_answer(instance, message)
            messages.clear()
        for end in self.driver.ended:
            for name, instance in list(self.live.items()):
                if instance == end.instance:
                    self.forget(name)
            if end.instance in self.outgoing:
                self.driver.routes.pop(end.instance, None)
        self.driver.ended.clear()

    def check_answer(self, instance: str, message: Any) -> None:
        """One answer to each question of this connection."""
        asked = self.asked[instance].get(message.seq)
        assert asked is not None, "an answer to what it didn't ask on this connection"
        self.answered[instance][message.seq] += 1
        assert self.answered[instance][message.seq] == 1, "a second answer"
        if isinstance(message, Accepted):
            if isinstance(asked, Request):
                assert message.correlation
                self.open[instance][message.correlation] = message.seq
            elif isinstance(asked, Cancel):
                # Another's request is not cancelled: it goes on.
                assert (self.open[instance].pop(asked.correlation, None) is not None) == bool(message.count)
                if message.count:
                    self.cancelled.add(asked.correlation)

    def check_delivery(self, name: str, instance: str, message: Deliver) -> None:
        """Said by that sender, allowed by both sides, in order."""
        number = int.from_bytes(message.payload[:8], "big")
        sender, way, where = self.said[number]
        assert message.sender == sender, "another sender than the one whose connection it came by"
        if way == "topic":
            assert message.topic == where
            assert where in PUBLISHES[sender]
            assert where in SUBSCRIBES[name]
        else:
            assert name in SENDS[sender]
            assert sender in RECEIVES[name]
            assert message.topic == ""
            assert where in (name, "*")
        assert instance not in self.outgoing, "its name is another one's"
        at_work = [each for each in self.outgoing if each.split("-")[0] == name and each in self.driver.routes]
        assert not any(self.handed[each] for each in at_work), "two of one name at a time"
        before = self.delivered.setdefault((sender, instance), [])
        assert not before or before[-1] < number, "out of order, or twice"
        before.append(number)
        self.handed[instance].append(message)

    def forget(self, name: str) -> None:
        """An instance is gone."""
        instance = self.live.pop(name)
        self.driver.routes.pop(instance, None)
        self.fresh(instance)

    # -- rules ---------------------------------------------------------------------------------------------------------

    @rule(connect=st.booleans(), again=names)
    def start_again(self, connect: bool, again: str) -> None:
        """Who isn't there comes back, else one takes the place of another instance of its name."""
        for name in [name for name in NAMES if name not in self.live] or [again]:
            self.start(name, connect)

    def start(self, name: str, connect: bool) -> None:
        """An instance of a component is admitted."""
        if name in self.live:
            self.driver.dismiss(self.live[name])
            self.look()
            self.live.pop(name, None)
        each = self.next_admission(name)
        self.live[name] = each.instance
        self.driver.admit(each)
        if connect:
            self.driver.connect(each.instance)
        self.look()

    def next_admission(self, name: str) -> Admission:
        """Another instance of a component, of which nothing is known yet."""
        self.generations[name] += 1
        grants = {
            "messaging.send": SENDS[name],
            "messaging.receive": RECEIVES[name],
            "messaging.publish": PUBLISHES[name],
            "messaging.subscribe": SUBSCRIBES[name],
            "storage.read": ("**",),
            "storage.write": ("k",),
            "custom.x.y": ("**",),
        }
        each = self.admitted[name] = admission(name, grants, BOUNDS[name], self.generations[name])
        self.handed[each.instance] = []
        self.fresh(each.instance)
        return each

    @rule(name=names, connect=st.sampled_from((True, True, False)))
    def pass_name(self, name: str, connect: bool) -> None:
        """Another instance stands by, and gets the name; the one that had it goes on for a while."""
        former = self.live.get(name)
        each = replace(self.next_admission(name), stands_by=True)
        self.driver.admit(each)
        if connect:
            self.driver.connect(each.instance)
        self.look()
        for (sender, receiver), numbers in list(self.delivered.items()):
            if receiver == former:  # the order is kept over both
                self.delivered[sender, each.instance] = list(numbers)
        self.driver.handle(NamePassed(each.instance))
        if former is not None:
            self.outgoing.append(former)
        self.live[name] = each.instance
        self.look()

    @rule(handles=st.booleans(), ends=st.booleans())
    def finish(self, handles: bool, ends: bool) -> None:
        """Those who had a name do what they were given to do, or end with it."""
        for instance in tuple(self.outgoing):
            if handles and instance in self.driver.routes:
                handed, self.handed[instance] = self.handed[instance], []
                self.driver.say(instance, *(Answer(each.delivery, b"!") for each in handed))
                self.look()
            if ends:
                self.outgoing.remove(instance)
                self.driver.dismiss(instance)
                self.fresh(instance)
                self.look()

    @rule(what=st.sampled_from(("reconnect", "lose", "die", "misbehave", "mishap")), name=names, data=st.data())
    def trouble(self, what: str, name: str, data: st.DataObject) -> None:
        """Something that happens less often than messages do."""
        instance = self.live.get(name)
        if what == "mishap":
            self.mishap(name, data.draw(st.integers(0, 5)))
        elif what == "misbehave":
            wrong = (Hello(1), Answer(1, b""), Handled(2**53), Health("?"), Bye())
            self.misbehave(name, data.draw(st.sampled_from(wrong)))
        elif instance is None:
            self.start(name, True)
        elif what == "die":
            self.driver.dismiss(instance)
            self.look()
            if name in self.live:
                self.forget(name)
        else:
            if instance in self.driver.routes:
                self.driver.lose(instance)
                self.look()
            if name in self.live:
                self.fresh(instance)
                if what == "reconnect":
                    self.driver.connect(instance, since=77)
                    self.look()

    @rule(name=askers, to=targets, count=counts, padding=st.sampled_from((0, 0, 40, 90)))
    def send(self, name: str, to: str, count: int, padding: int) -> None:
        """A batch of messages."""
        self.say(name, *(Send(self.next_seq(), to, self.next_payload(name, "name", to, padding)) for _ in range(count)))

    @rule(name=askers, to=targets, count=st.integers(1, 6), timeout_ms=st.sampled_from((5, 10**6, 10**6, -1)))
    def request(self, name: str, to: str, count: int, timeout_ms: int) -> None:
        """A few requests."""
        self.say(
            name,
            *(Request(self.next_seq(), to, self.next_payload(name, "name", to, 0), timeout_ms) for _ in range(count)),
        )

    @rule(name=names, other=names, data=st.data())
    def cancel(self, name: str, other: str, data: st.DataObject) -> None:
        """One's own request, another's, or one that never was."""
        known = list(self.open.get(self.live.get(other, ""), {}))
        self.say(name, Cancel(self.next_seq(), data.draw(st.sampled_from([*known, 5]))))

    @rule(name=names, topic=topics, count=st.integers(1, 20))
    def publish(self, name: str, topic: str, count: int) -> None:
        """On a topic."""
        self.say(
            name, *(Publish(self.next_seq(), topic, self.next_payload(name, "topic", topic, 0)) for _ in range(count))
        )

    @rule(name=names)
    def broadcast(self, name: str) -> None:
        """To all."""
        self.say(name, Broadcast(self.next_seq(), self.next_payload(name, "all", "*", 0)))

    @rule(name=names, count=counts, answers=st.booleans(), failure=st.sampled_from(("", "", "no")))
    def work(self, name: str, count: int, answers: bool, failure: str) -> None:
        """A receiver handles what it has, the first ones first."""
        handed = self.handed.get(self.live.get(name, ""), [])
        done, handed[:] = handed[:count], handed[count:]
        if self.live.get(name) in self.driver.routes:
            self.say(
                name,
                *(
                    Answer(each.delivery, b"!", failure) if answers else Handled(each.delivery, failure)
                    for each in done
                ),
            )

    @rule(
        name=names,
        message=st.sampled_from(
            (
                lambda seq: Get(seq, "k"),
                lambda seq: Set(seq, "k", b"v"),
                lambda seq: Set(seq, "l", b"v"),
                lambda seq: Get(seq, "::"),
                lambda seq: ListKeys(seq, "k:"),
                lambda seq: Usage(seq),
                lambda seq: ListComponents(seq),
                lambda seq: GetMetadata(seq, "b"),
                lambda seq: Invoke(seq, "x", "z", b""),
            )
        ),
    )
    def ask(self, name: str, message: Any) -> None:
        """Something else than messages."""
        self.say(name, message(self.next_seq()))

    def misbehave(self, name: str, message: FromWorker) -> None:
        """What ends it."""
        self.say(name, message)
        instance = self.live.get(name)
        if instance is not None and isinstance(message, Bye) and instance in self.driver.routes:
            self.driver.record_all()
            self.look()
            self.driver.dismiss(instance)
            self.look()
            self.forget(name)

    def mishap(self, name: str, what: int) -> None:
        """What the shell could say at any time, also about who isn't there."""
        key, route = f"key of {name}-{self.generations[name]}", b"\0none"
        # Rights that are the same change nothing, whatever is under way.
        again = self.admitted.get(name)
        event = (
            Due(),
            Recorded(10**9),
            Stored(10**9, StoreResult()),
            Disconnected(key, route),
            Malformed("nobody's", route, "why", 5),
            Due() if again is None else Restricted(again.instance, again.rights),
        )[what]
        self.driver.handle(event)
        self.driver.handle(Received("nobody's", route, (Hello(1), Send(1, "a", b"")), 5))
        self.look()

    @rule(ns=st.sampled_from((0, 1_000, 10**6, 10**7, 10**9, 6 * 10**9)))
    def wait(self, ns: int) -> None:
        """Time passes; the workers that are well say so."""
        for name in NAMES:
            self.say(name, Health("healthy"))
        self.driver.pass_time(ns)
        self.look()

    @rule(answers=st.booleans(), failed=st.sampled_from(("", "", "", "disk full")))
    def log(self, answers: bool, failed: str) -> None:
        """The log catches up, or can't; from now on it answers at once, or hangs."""
        self.driver.record_all(failed)
        self.driver.log_answers = answers
        self.look()

    @rule()
    def store(self) -> None:
        """The store catches up."""
        stores, self.driver.stores = self.driver.stores, []
        for order in stores:
            self.driver.handle(Stored(order.ticket, StoreResult(value=b"v", usage_bytes=5)))
        self.look()

    # -- what always holds ---------------------------------------------------------------------------------------------

    @invariant()
    def everything_is_bounded(self) -> None:
        """By the bounds that were given, or by constants."""
        board = self.driver.core._board
        assert set(board.by_name.values()) <= set(board.by_instance.values())
        for session in board.by_instance.values():
            bounds, mailbox = session.admission.bounds, session.mailbox
            assert len(mailbox.unhandled) <= SMALL_WINDOW
            assert len(mailbox) <= bounds.mailbox_messages
            assert 0 <= mailbox.size_bytes <= bounds.mailbox_bytes
            assert 0 <= mailbox.dead <= len(mailbox)
            assert len(session.pending) <= bounds.requests_in_flight
            assert len(session.backlog) <= BACKLOG_MESSAGES + 1
            assert session.backlog_bytes >= 0
            assert bool(session.stalled_for) or not session.backlog
            assert not session.out
            # While there is room nothing waits.
            if session.phase == READY and session.awaits is None and len(mailbox):
                first = mailbox._letters[0]
                assert len(mailbox.unhandled) >= (mailboxes.WINDOW if is_large(first) else SMALL_WINDOW)
        for instance in self.live.values():
            for correlation in self.open[instance]:
                waited = board.requests._open[correlation]  # neither side forgets what the other waits for
                assert waited.target.place in (NAMED, OUTGOING), "waits for who is gone"
        assert board.pool.used_bytes == sum(
            session.mailbox.held_bytes + session.backlog_bytes for session in board.by_instance.values()
        )
        assert len(board.requests) == sum(len(each.pending) for each in board.by_instance.values())
        assert len(board.requests._timers) <= 2 * len(board.requests) + 66
        assert all(len(held.answers) <= HELD_MAX for held in board.ledger._held.values())

    @precondition(lambda self: not self.driver.unrecorded and not self.driver.stores)
    @invariant()
    def everything_is_answered(self) -> None:
        """Where neither log nor store owes an answer, each question has exactly one."""
        for name, instance in self.live.items():
            if instance in self.driver.routes and self.driver.core._board.by_name[name].phase == READY:
                assert set(self.answered[instance]) == set(self.asked[instance])

    def teardown(self) -> None:
        """In the end every accepted request of who is still there has ended, once."""
        while self.driver.unrecorded or self.driver.stores:
            self.driver.record_all()
            self.store()
        for _ in range(4):
            self.wait(3 * 10**11)
        for name, instance in self.live.items():
            if instance in self.driver.routes:
                assert not self.open[instance], f"requests of {name} that never ended"
        assert all(count == 1 for count in self.ended_requests.values())
        self.everything_is_bounded()


@pytest.fixture(autouse=True)
def narrow_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows that a few steps fill, and messages of both sizes."""
    monkeypatch.setattr(mailboxes, "WINDOW", 4)
    monkeypatch.setattr(mailboxes, "SMALL_WINDOW", SMALL_WINDOW)
    monkeypatch.setattr(mailboxes, "SMALL_BYTES", SMALL_BYTES)


TestNetwork = Network.TestCase
TestNetwork.settings = settings(max_examples=80, stateful_step_count=50, deadline=None)
