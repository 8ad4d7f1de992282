"""Which call of a custom capability is with which provider's process, what waits, and for how long. Pure.

A process has one call at a time. So a death, a hang or garbage is about one call and no other, and who writes a
provider needs neither threads nor numbers. Calls wait in turn by instance, for as long as the provider's timeout; then
what was not given to anybody is answered as not done. What was given and is not answered in time ends the process.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

from ipc.broker.events import Provide, Provided
from ipc.broker.messages import ErrorKind
from ipc.broker.orders import ProviderTerms, ProviderUse
from ipc.provider.protocol import REASON_MAX, Answer, Request
from ipc.struct import Struct

WAITING_BYTES: Final = 32 * 1024 * 1024
"""All payloads that wait for a provider; of one instance a quarter at most."""
SHARE: Final = 4
NO_PROVIDER: Final = "no provider serves this capability here"
ENDED: Final = "who asked has ended"
TOO_SLOW: Final = "A1811"
BROKE_PROTOCOL: Final = "A1813"


class HandOver(Struct, frozen=True):
    """Send this to the process of that link."""

    link: int
    request: Request


class Drop(Struct, frozen=True):
    """Close the link, and have its process ended: it is of no use any more."""

    link: int
    provider: str
    code: str
    reason: str


Step = HandOver | Drop | Provided


class _Waiting:
    """A call that no process has yet."""

    __slots__ = ("due_ns", "order")

    def __init__(self, order: Provide, due_ns: int) -> None:
        self.order = order
        self.due_ns = due_ns


class _Link:
    """One process: the call that it has, if any, and until when; whether it gets another one."""

    __slots__ = ("due_ns", "leaves", "number", "order", "provider")

    def __init__(self, number: int, provider: _Provider) -> None:
        self.number = number
        self.provider = provider
        self.order: Provide | None = None
        self.due_ns = 0
        self.leaves = False


class _Provider:
    """One section of the settings: its processes, and what waits for one, by instance."""

    __slots__ = ("away", "calls", "failed", "links", "terms", "waiting")

    def __init__(self, terms: ProviderTerms) -> None:
        self.terms = terms
        self.links: dict[int, _Link] = {}
        self.waiting: dict[str, deque[_Waiting]] = {}
        self.away = ""
        self.calls = 0
        self.failed = 0


class Providing:
    """The table. Each method returns what is to be done, in order."""

    def __init__(self) -> None:
        """Begin without providers."""
        self._providers: dict[str, _Provider] = {}
        self._serves: dict[str, _Provider] = {}
        self._links: dict[int, _Link] = {}
        self._waiting_bytes: dict[str, int] = {}
        self._total_bytes = 0

    def define(self, terms: Sequence[ProviderTerms]) -> None:
        """Take the providers that there are; once, before any call."""
        for each in terms:
            provider = self._providers[each.name] = _Provider(each)
            self._serves.update(dict.fromkeys(each.capabilities, provider))

    def uses(self) -> tuple[ProviderUse, ...]:
        """How much was asked of each, and how it went."""
        return tuple(
            ProviderUse(
                name,
                each.calls,
                each.failed,
                sum(link.order is not None for link in each.links.values()),
                sum(map(len, each.waiting.values())),
            )
            for name, each in self._providers.items()
        )

    # -- calls ---------------------------------------------------------------------------------------------------------

    def call(self, order: Provide, now_ns: int) -> list[Step]:
        """Have a process do it, now or in its turn."""
        provider = self._serves.get(order.capability)
        if provider is None:
            return [_unavailable(order, NO_PROVIDER)]
        provider.calls += 1
        terms, size_bytes = provider.terms, len(order.payload)
        if size_bytes > terms.max_payload_bytes:
            provider.failed += 1
            return [Provided(order.ticket, None, ErrorKind.TOO_LARGE, "", terms.max_payload_bytes)]
        link = next((link for link in provider.links.values() if link.order is None and not link.leaves), None)
        if link is not None:
            return [self._give(link, order, now_ns)]
        if provider.away and not provider.links:
            return [self._fail(provider, order, provider.away)]
        held_bytes = self._waiting_bytes.get(order.instance, 0) + size_bytes
        if held_bytes > WAITING_BYTES // SHARE or self._total_bytes + size_bytes > WAITING_BYTES:
            return [self._fail(provider, order, "too many calls wait for providers already")]
        waiting = provider.waiting.setdefault(order.instance, deque())
        waiting.append(_Waiting(order, now_ns + terms.timeout_ns))
        self._waiting_bytes[order.instance] = held_bytes
        self._total_bytes += size_bytes
        return []

    def forget(self, instance: str) -> list[Step]:
        """An instance has ended: what of it waits is not done. Each ends all the same, for who keeps a note of it."""
        steps: list[Step] = []
        for provider in self._providers.values():
            for each in provider.waiting.pop(instance, ()):
                self._no_longer_waits(each.order)
                steps.append(_unavailable(each.order, ENDED))
        return steps

    # -- processes -----------------------------------------------------------------------------------------------------

    def arrived(self, link: int, name: str, now_ns: int) -> list[Step]:
        """A process of this provider takes calls."""
        provider = self._providers[name]
        provider.away = ""
        self._links[link] = provider.links[link] = _Link(link, provider)
        return self._next(provider.links[link], now_ns)

    def away(self, name: str, reason: str) -> list[Step]:
        """No process of this provider will come soon: what waits hears why."""
        provider = self._providers[name]
        provider.away = reason
        if provider.links:
            return []
        waiting = [each.order for queue in provider.waiting.values() for each in queue]
        provider.waiting.clear()
        for order in waiting:
            self._no_longer_waits(order)
        return [self._fail(provider, order, reason) for order in waiting]

    def answered(self, link: int, answer: Answer, now_ns: int) -> list[Step]:
        """A process says how its call ended."""
        known = self._links.get(link)
        if known is None:
            return []
        order = known.order
        if order is None or answer.call != order.ticket:
            return self.broke(link, "an answer to a call that it does not have")
        known.order = None
        if answer.error:
            known.provider.failed += 1
            reason = answer.reason[:REASON_MAX]
            done = Provided(order.ticket, None, answer.error, reason, _limit(known.provider, order))
        elif len(answer.payload or b"") > known.provider.terms.max_payload_bytes:
            known.order = order
            return self.broke(link, f"an answer of {len(answer.payload or b'')} bytes")
        else:
            done = Provided(order.ticket, answer.payload)
        return [done, *self._next(known, now_ns)]

    def leaves(self, link: int) -> None:
        """A process has ended: what it still says counts, and it gets nothing more."""
        if link in self._links:
            self._links[link].leaves = True

    def broke(self, link: int, why: str) -> list[Step]:
        """A process sent what is no answer: it is of no use any more."""
        return self._drop(link, BROKE_PROTOCOL, why, ErrorKind.UNAVAILABLE, "the provider sent what is no answer")

    def lost(self, link: int) -> list[Step]:
        """A process has closed its end."""
        return self._drop(link, "", "", ErrorKind.UNAVAILABLE, "the provider ended; whether it was done is not known")

    # -- time ----------------------------------------------------------------------------------------------------------

    def due(self, now_ns: int) -> list[Step]:
        """End what took too long, and answer what waited too long."""
        steps: list[Step] = []
        for link in [each for each in self._links.values() if each.order is not None and each.due_ns <= now_ns]:
            assert link.order is not None
            what = f"{link.order.action} took more than {link.provider.terms.timeout_ns // 10**6} ms"
            steps += self._drop(link.number, TOO_SLOW, what, ErrorKind.TIMED_OUT, "the provider took too long")
        for provider in self._providers.values():
            for instance, queue in list(provider.waiting.items()):
                while queue and queue[0].due_ns <= now_ns:
                    order = queue.popleft().order
                    self._no_longer_waits(order)
                    steps.append(self._fail(provider, order, "no process of the provider was free in time"))
                if not queue:
                    del provider.waiting[instance]
        return steps

    def next_due_ns(self) -> int | None:
        """When `due` will next have something to do."""
        times = [link.due_ns for link in self._links.values() if link.order is not None]
        times += [queue[0].due_ns for each in self._providers.values() for queue in each.waiting.values()]
        return min(times, default=None)

    # -- parts ---------------------------------------------------------------------------------------------------------

    def _give(self, link: _Link, order: Provide, now_ns: int) -> HandOver:
        link.order = order
        link.due_ns = now_ns + link.provider.terms.timeout_ns
        request = Request(
            order.ticket,
            order.component,
            order.instance,
            order.capability,
            order.action,
            order.payload,
            _limit(link.provider, order),
            dict(order.metadata),
        )
        return HandOver(link.number, request)

    def _next(self, link: _Link, now_ns: int) -> list[Step]:
        """Give it what waits: of the instance whose turn it is, which then is the last."""
        waiting = link.provider.waiting
        if not waiting or link.leaves:
            return []
        instance = next(iter(waiting))
        queue = waiting.pop(instance)
        order = queue.popleft().order
        if queue:
            waiting[instance] = queue
        self._no_longer_waits(order)
        return [self._give(link, order, now_ns)]

    def _drop(self, link: int, code: str, why: str, kind: str, reason: str) -> list[Step]:
        known = self._links.pop(link, None)
        if known is None:
            return []
        provider = known.provider
        del provider.links[link]
        steps: list[Step] = [Drop(link, provider.terms.name, code, why)]
        if known.order is not None:
            provider.failed += 1
            steps.append(Provided(known.order.ticket, None, kind, reason))
        return steps

    def _fail(self, provider: _Provider, order: Provide, reason: str) -> Provided:
        provider.failed += 1
        return _unavailable(order, reason)

    def _no_longer_waits(self, order: Provide) -> None:
        size_bytes = len(order.payload)
        self._total_bytes -= size_bytes
        left_bytes = self._waiting_bytes.get(order.instance, 0) - size_bytes
        if left_bytes > 0:
            self._waiting_bytes[order.instance] = left_bytes
        else:
            self._waiting_bytes.pop(order.instance, None)


def _limit(provider: _Provider, order: Provide) -> int:
    return min(provider.terms.max_payload_bytes, order.answer_bytes)


def _unavailable(order: Provide, reason: str) -> Provided:
    return Provided(order.ticket, None, ErrorKind.UNAVAILABLE, reason)
