"""Whatever happens to providers: each call ends once, no process has two, and nothing that waits is forgotten."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from ipc.broker.events import Provide, Provided
from ipc.broker.orders import ProviderTerms
from ipc.broker.providing import Drop, HandOver, Providing, Step
from ipc.provider.protocol import Answer

NAMES = ("rates", "taxes")
TIMEOUT_NS = 100


class Providers(RuleBasedStateMachine):
    """Two providers with any number of processes, and three instances that ask."""

    def __init__(self) -> None:
        """Begin with nobody."""
        super().__init__()
        self.table = Providing()
        self.table.define(tuple(ProviderTerms(name, (name,), TIMEOUT_NS, 100) for name in NAMES))
        self.now_ns = 0
        self.tickets = 0
        self.links = 0
        self.open: dict[int, str] = {}
        self.held: dict[int, int | None] = {}
        self.served: dict[int, str] = {}

    def take(self, steps: list[Step]) -> None:
        """Follow what is to be done."""
        for step in steps:
            match step:
                case HandOver(link, request):
                    assert self.held[link] is None, "it has a call"
                    assert request.call in self.open
                    assert request.call not in self.held.values(), "another one has it"
                    self.held[link] = request.call
                case Drop(link):
                    del self.held[link]
                case Provided(ticket):
                    del self.open[ticket]  # a second end would be a KeyError
                    self.held = {link: None if call == ticket else call for link, call in self.held.items()}

    @rule(name=st.sampled_from(NAMES), instance=st.sampled_from("abc"), size=st.integers(0, 120))
    def ask(self, name: str, instance: str, size: int) -> None:
        """A component asks."""
        self.tickets += 1
        self.open[self.tickets] = instance
        order = Provide(self.tickets, instance, instance, name, "read", (), bytes(size), 50)
        self.take(self.table.call(order, self.now_ns))

    @rule(name=st.sampled_from(NAMES))
    def arrive(self, name: str) -> None:
        """A process is ready."""
        self.links += 1
        self.held[self.links] = None
        self.served[self.links] = name
        self.take(self.table.arrived(self.links, name, self.now_ns))

    @rule(data=st.data(), right=st.booleans(), error=st.sampled_from(("", "failed", "too-large")))
    def answer(self, data: st.DataObject, right: bool, error: str) -> None:
        """A process says something, whether it was asked or not."""
        if not self.held:
            return
        link = data.draw(st.sampled_from(sorted(self.held)))
        call = self.held[link] if right else 10**9
        self.take(self.table.answered(link, Answer(call or 0, None if error else b"!", error), self.now_ns))

    @rule(data=st.data())
    def die(self, data: st.DataObject) -> None:
        """A process ends."""
        if self.held:
            self.take(self.table.lost(data.draw(st.sampled_from(sorted(self.held)))))

    @rule(name=st.sampled_from(NAMES))
    def give_up(self, name: str) -> None:
        """The supervisor can't start it."""
        self.take(self.table.away(name, "no such module"))

    @rule(instance=st.sampled_from("abc"))
    def end(self, instance: str) -> None:
        """An instance ends: what of it waits is nobody's any more."""
        self.table.forget(instance)
        with_somebody = set(self.held.values())
        self.open = {call: who for call, who in self.open.items() if who != instance or call in with_somebody}

    @rule(ns=st.integers(1, TIMEOUT_NS))
    def wait(self, ns: int) -> None:
        """Time passes."""
        self.now_ns += ns
        self.take(self.table.due(self.now_ns))

    @invariant()
    def nothing_is_forgotten(self) -> None:
        """What is open is with a process or waits, and has a time; where nothing is open there is no time."""
        uses = self.table.uses()
        busy = sum(call is not None for call in self.held.values())
        assert sum(use.busy for use in uses) == busy
        assert sum(use.waiting for use in uses) == len(self.open) - busy
        due_ns = self.table.next_due_ns()
        assert (due_ns is None) is (not self.open)
        assert due_ns is None or self.now_ns < due_ns <= self.now_ns + TIMEOUT_NS

    @invariant()
    def nobody_is_idle_while_something_waits(self) -> None:
        """A free process of a provider means that nothing waits for it."""
        for use in self.table.uses():
            free = [link for link, call in self.held.items() if call is None and self.served[link] == use.provider]
            assert not (free and use.waiting)


Providers.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestProviders = Providers.TestCase
