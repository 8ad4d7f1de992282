"""A core with everything around it that it needs, in the test's own hands: clock, store, log, and who said what."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable

from ipc.broker.core import WAITING_BYTES, Core
from ipc.broker.events import (
    Admission,
    Admitted,
    Announced,
    Bounds,
    Command,
    Disconnected,
    Dismissed,
    Due,
    EndPeer,
    Event,
    HasFinished,
    OperatorAnswered,
    Phased,
    Provide,
    Received,
    Record,
    Recorded,
    Store,
    Stored,
    StoreResult,
    Transmit,
)
from ipc.broker.messages import FromWorker, Hello, ToWorker
from ipc.policy.capability import Grant
from ipc.policy.decision import PolicyDocument, compile_policy

EPOCH = 77
START_NS = 10**15
EVERYTHING = {
    "messaging.send": ("**",),
    "messaging.receive": ("**",),
    "messaging.publish": ("**",),
    "messaging.subscribe": ("**",),
    "storage.read": ("**",),
    "storage.write": ("**",),
}


def admission(
    name: str, grants: dict[str, Iterable[str]] | None = None, bounds: Bounds | None = None, generation: int = 1
) -> Admission:
    """One instance of a component; by default it may do everything."""
    given = EVERYTHING if grants is None else grants
    document = PolicyDocument(
        name, "", grants=tuple(Grant(action, text, "test") for action, texts in given.items() for text in texts)
    )
    instance = f"{name}-{generation}"
    return Admission(
        instance, name, f"key of {instance}", compile_policy(document), bounds or Bounds(), "1.2.3", "test"
    )


class Driver:
    """Feeds events, answers what waits for the log and the store at once (unless told not to), keeps what came out."""

    def __init__(self, seed: int = 1, waiting_bytes: int = WAITING_BYTES) -> None:
        """Begin with nobody."""
        self.random = random.Random(seed)
        self.core = Core(EPOCH, lambda: self.random.getrandbits(53), waiting_bytes)
        self.now_ns = START_NS
        self.log_works = True
        self.log_answers = True
        self.store_answers = True
        self.routes: dict[str, bytes] = {}
        self.keys: dict[str, str] = {}
        self.inbox: dict[str, list[ToWorker]] = defaultdict(list)
        self.records: list[Record] = []
        self.unrecorded: list[int] = []
        self.stores: list[Store] = []
        self.provides: list[Provide] = []
        self.ended: list[EndPeer] = []
        self.phases: list[Phased] = []
        self.finished: list[str] = []
        self.operator_answers: list[OperatorAnswered] = []
        self._answers: list[Event] = []
        self._routes = 0
        self._seq = 0

    def handle(self, event: Event) -> list[Command]:
        """Give the core one event, and what follows from it."""
        commands = self.core.handle(event, self.now_ns)
        for command in commands:
            self._carry_out(command)
        # Log and store answer later than in the same turn.
        while self._answers:
            for command in self.core.handle(self._answers.pop(0), self.now_ns):
                self._carry_out(command)
        return commands

    def _carry_out(self, command: Command) -> None:
        match command:
            case Transmit(route, messages):
                assert messages
                owner = next((instance for instance, known in self.routes.items() if known == route), None)
                assert owner is not None, "something goes to a connection that there isn't"
                self.inbox[owner].extend(messages)
            case Record(ticket=ticket):
                self.records.append(command)
                if ticket and self.log_answers:
                    self._answers.append(Recorded(ticket, "" if self.log_works else "disk full"))
                elif ticket:
                    self.unrecorded.append(ticket)
            case Store(ticket):
                self.stores.append(command)
                if self.store_answers:
                    self._answers.append(Stored(ticket, StoreResult()))
            case Provide():
                self.provides.append(command)
            case EndPeer():
                self.ended.append(command)
            case Phased():
                self.phases.append(command)
            case HasFinished(instance):
                self.finished.append(instance)
            case OperatorAnswered():
                self.operator_answers.append(command)

    def admit(self, *admissions: Admission) -> None:
        """Instances are started, not connected."""
        for each in admissions:
            self.keys[each.instance] = each.key
            self.handle(Admitted(each))

    def connect(self, instance: str, since: int = 0) -> None:
        """Announced, connected, greeted."""
        self.handle(Announced(instance))
        self._routes += 1
        self.routes[instance] = b"\0%04d" % self._routes
        self.say(instance, Hello(1, since))

    def ready(self, *admissions: Admission) -> None:
        """Admitted and connected; what came of that is forgotten."""
        self.admit(*admissions)
        for each in admissions:
            self.connect(each.instance)
        self.inbox.clear()
        self.stores.clear()

    def lose(self, instance: str) -> None:
        """The connection is gone."""
        route = self.routes.pop(instance)
        self.handle(Disconnected(self.keys[instance], route))

    def dismiss(self, instance: str) -> None:
        """The instance is gone."""
        self.handle(Dismissed(instance))
        self.routes.pop(instance, None)

    def say(self, instance: str, *messages: FromWorker) -> list[ToWorker]:
        """A batch from an instance; what it was sent in this turn."""
        before = len(self.inbox[instance])
        self.handle(Received(self.keys[instance], self.routes[instance], messages, 100))
        return self.inbox[instance][before:]

    def take(self, instance: str, kind: type | None = None) -> list[ToWorker]:
        """What came for an instance since the last time; of one kind, and then the others stay."""
        messages = self.inbox[instance]
        taken = [each for each in messages if kind is None or isinstance(each, kind)]
        self.inbox[instance] = [] if kind is None else [each for each in messages if not isinstance(each, kind)]
        return taken

    def record_all(self, failed: str = "") -> None:
        """The log catches up."""
        while self.unrecorded:
            self.handle(Recorded(self.unrecorded.pop(0), failed))

    def pass_time(self, ns: int) -> None:
        """Time passes, and what is due is done at its time."""
        until_ns = self.now_ns + ns
        while (due_ns := self.core.next_due_ns()) is not None and due_ns <= until_ns:
            self.now_ns = max(self.now_ns, due_ns)
            self.handle(Due())
        self.now_ns = until_ns

    def seq(self) -> int:
        """Another number for a message."""
        self._seq += 1
        return self._seq

    def events(self, event: str) -> list[Record]:
        """What is on record of one kind."""
        return [record for record in self.records if record.event == event]
