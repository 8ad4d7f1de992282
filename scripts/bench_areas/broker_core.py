"""The broker's core, without its sockets: what one message costs, by pattern, batch and number of components.

The baseline is the least that anything in Python does between a decoded batch and an encoded one: look the receiver up
and append to its list. Rounds over all cases are interleaved; each sample is the mean of a batch.
"""

import random
import statistics
from collections.abc import Callable, Iterator
from time import perf_counter_ns

from ipc.broker.core import Core
from ipc.broker.events import (
    Admission,
    Admitted,
    Announced,
    Bounds,
    Command,
    Event,
    Received,
    Record,
    Recorded,
    Transmit,
)
from ipc.broker.messages import Answer, Deliver, FromWorker, Handled, Hello, Publish, Request, Send
from ipc.policy.capability import Grant
from ipc.policy.decision import PolicyDocument, compile_policy

ROUNDS = 400
BATCH = 32
PAYLOAD = bytes(256)
SUBSCRIBERS = 10
START_NS = 10**15
ACTIONS = ("messaging.send", "messaging.receive", "messaging.publish")


class Network:
    """A core with so many ready components; the log answers at once."""

    def __init__(self, components: int, rate_per_s: int | None = None) -> None:
        generator = random.Random(components)
        self.core = Core(1, lambda: generator.getrandbits(53))
        self.now_ns = START_NS
        for number in range(components):
            topics = ("topic",) if number < SUBSCRIBERS else ("other",)
            grants = [Grant(action, "**", "bench") for action in ACTIONS]
            grants += [Grant("messaging.subscribe", topic, "bench") for topic in topics]
            policy = compile_policy(PolicyDocument(f"c{number}", "", grants=tuple(grants)))
            bounds = Bounds(messages_per_s=rate_per_s)
            self.handle(Admitted(Admission(f"i{number}", f"c{number}", f"k{number}", policy, bounds)))
            self.handle(Announced(f"i{number}"))
            self.say(number, (Hello(1),))
        # The first use of each grant is on record after that.
        for message in (Send(0, "c1", PAYLOAD), Request(0, "c1", PAYLOAD, 1), Publish(0, "topic", PAYLOAD)):
            self.finish(self.say(0, (message,)))

    def handle(self, event: Event) -> list[Command]:
        commands = self.core.handle(event, self.now_ns)
        for command in list(commands):
            if isinstance(command, Record) and command.ticket:
                commands += self.handle(Recorded(command.ticket))
        return commands

    def say(self, number: int, messages: tuple[FromWorker, ...]) -> list[Command]:
        self.now_ns += 100_000
        return self.handle(Received(f"k{number}", b"r%d" % number, messages, 300 * len(messages)))

    def timed(self, event: Received) -> tuple[float, list[Command]]:
        """Microseconds for each message of an event."""
        self.now_ns += 100_000
        handle, now_ns = self.core.handle, self.now_ns
        before = perf_counter_ns()
        commands = handle(event, now_ns)
        return (perf_counter_ns() - before) / len(event.messages) / 1e3, commands

    def finish(self, commands: list[Command], answer: bool = False) -> float:
        """Have every delivery handled or answered; microseconds for each of them."""
        samples = []
        for command in commands:
            if isinstance(command, Transmit):
                done = [message.delivery for message in command.messages if isinstance(message, Deliver)]
                if done:
                    replies = tuple(Answer(each, PAYLOAD) if answer else Handled(each) for each in done)
                    key = "k" + command.route[1:].decode()
                    samples.append(self.timed(Received(key, command.route, replies, 100))[0])
        return statistics.mean(samples) if samples else 0.0


def measure() -> Iterator[dict[str, object]]:
    """One row for each measurement."""
    two, many, poor = Network(2), Network(500), Network(2, 0)
    batch = _from_first(tuple(Send(n, "c1", PAYLOAD) for n in range(BATCH)))
    requests = _from_first(tuple(Request(n, "c1", PAYLOAD, 60_000) for n in range(BATCH)))
    published = _from_first((Publish(1, "topic", PAYLOAD),))
    single = _from_first((Send(1, "c1", PAYLOAD),))

    def sent(network: Network, event: Received) -> float:
        cost, commands = network.timed(event)
        return cost + network.finish(commands)

    def asked(network: Network) -> float:
        cost, commands = network.timed(requests)
        return cost + network.finish(commands, answer=True)

    def spread() -> float:
        cost, commands = many.timed(published)
        return cost / SUBSCRIBERS + many.finish(commands)

    cases: dict[str, Callable[[], float]] = {
        f"a message, accepted, delivered, handled; batches of {BATCH}, 2 components": lambda: sent(two, batch),
        "the same, 500 components": lambda: sent(many, batch),
        "the same, one by one, 2 components": lambda: sent(two, single),
        "the same, one by one, 500 components": lambda: sent(many, single),
        f"a request, delivered, answered, called back; batches of {BATCH}": lambda: asked(two),
        f"a publication, for each of {SUBSCRIBERS} subscribers among 500": spread,
        f"a message over the rate, refused and counted; batches of {BATCH}": lambda: poor.timed(batch)[0],
    }
    table: dict[str, list[object]] = {f"c{number}": [] for number in range(500)}
    samples: dict[str, list[float]] = {name: [] for name in cases}
    baseline: list[float] = []
    for _ in range(ROUNDS):
        for name, case in cases.items():
            samples[name].append(case())
        baseline.append(_bare(batch.messages, table))
    for name, values in samples.items():
        yield _row(f"broker core: {name}", values, "a bare loop that looks the receiver up", baseline)
    of_two, of_many = (samples[name] for name in list(cases)[:2])
    yield _row("broker core: 500 components against 2", of_many, "the same with 2 components", of_two)


def _from_first(messages: tuple[FromWorker, ...]) -> Received:
    return Received("k0", b"r0", messages, 300 * len(messages))


def _bare(messages: tuple[FromWorker, ...], table: dict[str, list[object]]) -> float:
    before = perf_counter_ns()
    for message in messages:
        assert isinstance(message, Send)
        table[message.to].append(message)
    cost = (perf_counter_ns() - before) / len(messages) / 1e3
    table["c1"].clear()
    return cost


def _row(name: str, values: list[float], baseline: str, baseline_values: list[float]) -> dict[str, object]:
    p50, of = statistics.median(values), statistics.median(baseline_values)
    return {
        "name": name,
        "p50": round(p50, 3),
        "p99": round(sorted(values)[int(len(values) * 0.99)], 3),
        "unit": "us",
        "n": len(values),
        "baseline": baseline,
        "baseline_p50": round(of, 3),
        "ratio": round(p50 / of, 3),
    }
