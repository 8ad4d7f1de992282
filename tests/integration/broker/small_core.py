"""A core of a few lines for tests of the shell alone: it says welcome, relays, and hands storage on."""

from __future__ import annotations

from collections.abc import Sequence

from ipc.broker import messages as m
from ipc.broker.events import (
    Admitted,
    Command,
    Dismissed,
    EndPeer,
    Event,
    Malformed,
    OperatorAnswered,
    OperatorCalled,
    Phased,
    Received,
    Record,
    Recorded,
    Store,
    Stored,
    Transmit,
)
from ipc.broker.orders import BrokerSetup, QuotaState


class SmallCore:
    """Grants nobody anything but what is asked of it; `to` of a Send names the instance's component."""

    def __init__(self, setup: BrokerSetup) -> None:
        self.epoch = setup.epoch
        self.by_key: dict[str, Admitted] = {}
        self.routes: dict[str, bytes] = {}
        self.waiting: dict[int, tuple[bytes, m.StorageCall]] = {}
        self.refusals: dict[int, tuple[bytes, int]] = {}
        self.ended: set[str] = set()
        self.tickets = 0
        self.requests: dict[int, tuple[bytes, int]] = {}

    def next_due_ns(self) -> int | None:
        """Nothing is ever due."""
        return None

    def quota_states(self, now_ns: int) -> Sequence[QuotaState]:
        """No quotas are kept."""
        return ()

    def handle(self, event: Event, now_ns: int) -> list[Command]:
        """Take an event."""
        match event:
            case Admitted(admission):
                self.by_key[admission.key] = event
            case Dismissed(instance):
                self.by_key = {k: a for k, a in self.by_key.items() if a.admission.instance != instance}
            case Malformed(key, _, why):
                return self.end(key, why)
            case Received(key, route, received, _):
                return self.received(key, route, received)
            case Stored(ticket, result):
                route, call = self.waiting.pop(ticket)
                answer: m.ToWorker = m.Accepted(call.seq, result.count)
                if result.failure or result.over_limit:
                    answer = m.Refused(
                        call.seq, "over-quota" if result.over_limit else "unavailable", "", result.failure
                    )
                elif isinstance(call, m.Get):
                    answer = m.Value(call.seq, result.value)
                elif isinstance(call, m.ListKeys):
                    answer = m.Names(call.seq, result.keys)
                elif isinstance(call, m.Usage):
                    answer = m.Numbers(call.seq, (result.usage_bytes, -1, result.count))
                return [Transmit(route, (answer,))]
            case Recorded(ticket, failed):
                route, seq = self.refusals.pop(ticket)
                return [Transmit(route, (m.Refused(seq, "not-permitted", "A1201", failed),))]
            case OperatorCalled(call, to, payload):
                return [OperatorAnswered(call, payload + to.encode())]
        return []

    def end(self, key: str, why: str) -> list[Command]:
        """End a peer, once."""
        admitted = self.by_key.get(key)
        if admitted is None or key in self.ended:
            return []
        self.ended.add(key)
        instance = admitted.admission.instance
        record = Record(instance, "peer_ended", "", "", "denied", "A1806", why)
        return [record, EndPeer(instance, "A1806", why)]

    def received(self, key: str, route: bytes, received: Sequence[m.FromWorker]) -> list[Command]:
        """Take a batch."""
        admitted = self.by_key.get(key)
        if admitted is None:
            return []
        admission = admitted.admission
        if self.routes.setdefault(admission.name, route) != route and not isinstance(received[0], m.Hello):
            return self.end(key, "a second connection")
        commands: list[Command] = []
        back: list[m.ToWorker] = []
        onward: dict[bytes, list[m.ToWorker]] = {}
        for message in received:
            match message:
                case m.Hello():
                    self.routes[admission.name] = route
                    back.append(m.Welcome(self.epoch, 1_000_000, 10_000))
                    commands.append(Phased(admission.instance, "ready"))
                case m.Send(seq, "nobody", _):
                    self.tickets += 1
                    self.refusals[self.tickets] = (route, seq)
                    commands.append(
                        Record(
                            admission.instance,
                            "message_refused",
                            "messaging.send",
                            "nobody",
                            "denied",
                            "A1201",
                            ticket=self.tickets,
                        )
                    )
                case m.Send(seq, to, payload):
                    target = self.routes.get(to)
                    if target is not None:
                        onward.setdefault(target, []).append(m.Deliver(seq, admission.name, payload))
                    back.append(m.Accepted(seq))
                case m.Request(seq, to, payload, _):
                    self.tickets += 1
                    self.requests[self.tickets] = (route, seq)
                    deliver = m.Deliver(self.tickets, admission.name, payload, wants_answer=True)
                    onward.setdefault(self.routes[to], []).append(deliver)
                    back.append(m.Accepted(seq, 0, self.tickets))
                case m.Answer(delivery, payload, _):
                    asker, _ = self.requests.pop(delivery)
                    onward.setdefault(asker, []).append(m.Callback(delivery, payload))
                case m.Get() | m.Set() | m.Delete() | m.Exists() | m.ListKeys() | m.Usage() | m.CompareAndSet():
                    self.tickets += 1
                    self.waiting[self.tickets] = (route, message)
                    limit = admission.bounds.storage_bytes
                    commands.append(Store(self.tickets, admission.name, message, limit, admission.rights))
                case m.Invoke(_, "break", _, _):
                    raise RuntimeError("broken by a message")
        if back:
            onward.setdefault(route, [])[:0] = back
        commands += [Transmit(target, tuple(messages)) for target, messages in onward.items()]
        return commands


def new_core(setup: BrokerSetup) -> SmallCore:
    """Make one."""
    return SmallCore(setup)
