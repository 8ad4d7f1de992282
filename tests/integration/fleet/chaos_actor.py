"""Loaded in the zygote of `tests/inside_up.py`: actors that write, send, ask and publish without end, and say so.

Each line on stdout is `TIME_MS WHAT NUMBER ...`; what is printed is in a pipe of the supervisor's, whoever is killed
then. One sequence of numbers for all that an instance says, whatever way it goes:

- B: an instance begins; G: the stored value that it found; E: it ends in order;
- s, q, m, p, d: about to set, request, send, publish, or to send to who isn't granted;
- + NUMBER CORRELATION: accepted; - NUMBER KIND: not;
- c CORRELATION KIND: the end of a request; D SENDER NUMBER: something was delivered.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable

from ipc.broker import messages as m
from worker import actor
from worker.broker_link import Unavailable

NAMES = ("c0", "c1", "c2", "c3")
TIMEOUT_MS = 1_500


def say(*words: object) -> None:
    """Print one line."""
    os.write(1, (" ".join(map(str, (time.monotonic_ns() // 1_000_000, *words))) + "\n").encode())


class Load:
    """One instance's."""

    def __init__(self, one: actor.Actor) -> None:
        """Begin with nothing said."""
        self.link = one._link
        self.name, self.instance = one._job.name, one._job.instance
        self.number = 0

    def ask(self, build: Callable[[int], m.FromWorker]) -> m.ToWorker | None:
        """Ask; None where the broker was lost."""
        try:
            return self.link.ask(build, time.monotonic_ns() + 5 * 10**9)
        except Unavailable:
            return None

    def found(self) -> None:
        """Say what is stored, as soon as somebody answers."""
        while not self.link.is_woken():
            answer = self.ask(lambda seq: m.Get(seq, "n"))
            if isinstance(answer, m.Value):
                self.number = max(self.number, int(answer.value or 0))
                say("G", int(answer.value or 0))
                return

    def do(self, kind: str, build: Callable[[int, bytes], m.FromWorker]) -> None:
        """Say one thing, and what came of it."""
        self.number += 1
        number = self.number
        payload = f"{self.instance} {number}".encode()
        say(kind, number)
        answer = self.ask(lambda seq: build(seq, payload))
        if isinstance(answer, m.Accepted):
            say("+", number, answer.correlation)
        elif isinstance(answer, m.Refused):
            say("-", number, answer.kind)
        else:
            say("-", number, "unavailable")

    def heed(self) -> None:
        """Handle what has come."""
        while (taken := self.link.take()) is not None:
            epoch, item = taken
            if isinstance(item, m.Callback):
                say("c", item.correlation, item.kind or "ok")
                continue
            say("D", item.payload.decode())
            if item.wants_answer:
                self.link.finish(epoch, m.Answer(item.delivery, item.payload))
            else:
                self.link.finish(epoch, m.Handled(item.delivery))

    def run(self) -> None:
        """Go on until the order to stop."""
        say("B", self.instance)
        self.found()
        others = [name for name in NAMES if name != self.name]
        turn = 0
        while not self.link.is_woken():
            turn += 1
            to = others[turn % len(others)]
            self.do("s", lambda seq, _: m.Set(seq, "n", b"%d" % self.number))
            self.do("m", lambda seq, payload, to=to: m.Send(seq, to, payload))  # type: ignore[misc]
            self.do("q", lambda seq, payload, to=to: m.Request(seq, to, payload, TIMEOUT_MS))  # type: ignore[misc]
            self.do("p", lambda seq, payload: m.Publish(seq, "t", payload))
            if turn % 20 == 0:
                self.do("d", lambda seq, payload: m.Send(seq, f"never.{self.number}", payload))
            self.heed()
            select.poll().poll(2)
        say("E", self.instance)


def _serve(self: actor.Actor) -> None:
    Load(self).run()


actor.Actor._serve = _serve  # type: ignore[method-assign]
