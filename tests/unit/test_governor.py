"""When a worker is held for its CPU time, and when it goes on: against workers that are simulated to the nanosecond."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ipc.policy.rate import SECOND_NS, SpentRate
from supervisor.run.governor import ANSWER_NS, HELD_MAX_NS, LEAST_LOOK_NS, Governor
from supervisor.run.watch import INTERVAL_NS

MS = 10**6
START_NS = 5 * SECOND_NS


class Worker:
    """A process that computes with so many threads whenever it may, and is looked at as a supervisor does."""

    def __init__(self, per_s: int | None, threads: float = 1, rate: SpentRate | None = None) -> None:
        self.rate = rate or SpentRate(per_s, START_NS)
        self.governor = Governor(self.rate, START_NS, 0)
        self.threads = threads
        self.now_ns = START_NS
        self.cpu_ns = 0.0
        self.looks = 0
        self.longest_ns = 0
        self._held = False
        self._since_ns = START_NS

    def run(self, for_ns: int, wants: Callable[[int], bool] = lambda _: True, late_ns: int = 0) -> float:
        """Let time pass, with each look `late_ns` late; returns the cores that it got."""
        until_ns, before_ns = self.now_ns + for_ns, self.cpu_ns
        while self.now_ns < until_ns:
            common_ns = self.now_ns - self.now_ns % INTERVAL_NS + INTERVAL_NS
            due_ns = min(ns for ns in (common_ns, self.governor.next_ns) if ns)
            look_ns = max(due_ns, self.now_ns + 1) + late_ns
            if not self._held and wants(self.now_ns):
                self.cpu_ns += (look_ns - self.now_ns) * self.threads
            self.now_ns = look_ns
            self.looks += 1
            held = self.governor.look(self.now_ns, round(self.cpu_ns))
            if held is not self._held:
                self._held, self._since_ns = held, self.now_ns
            elif held:
                self.longest_ns = max(self.longest_ns, self.now_ns - self._since_ns)
        return (self.cpu_ns - before_ns) / for_ns


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("per_s", [10 * MS, 50 * MS, 200 * MS, 300 * MS, 900 * MS])
def test_a_spin_gets_its_rate_and_no_more(per_s: int, threads: int) -> None:
    """A minute of spinning: the first second's worth at once, then the rate, exactly in the long run."""
    worker = Worker(per_s, threads)
    share = worker.run(60 * SECOND_NS)
    allowed_ns = 61 * per_s
    assert share * 60 * SECOND_NS <= allowed_ns + threads * INTERVAL_NS
    assert share * 60 * SECOND_NS >= allowed_ns - threads * INTERVAL_NS - per_s / 2


def test_looks_that_come_late_change_only_the_pattern() -> None:
    """With a supervisor that is forty milliseconds late each time the rate is kept all the same."""
    worker = Worker(200 * MS)
    worker.run(5 * SECOND_NS)
    assert worker.run(60 * SECOND_NS, late_ns=40 * MS) == pytest.approx(0.2, rel=0.02)


def test_who_stays_below_its_rate_is_never_held() -> None:
    """Every other tenth of a second half a core: 250 of 300 ms/s."""
    worker = Worker(300 * MS, threads=0.5)
    assert worker.run(20 * SECOND_NS, wants=lambda now_ns: now_ns // INTERVAL_NS % 2 == 0) == pytest.approx(0.25, 0.02)
    assert worker.governor.held_ns(worker.now_ns) == 0


def test_one_thread_is_never_held_by_the_default() -> None:
    """1,000 ms/s is one core: who has one thread is looked at as everybody is, and never stopped."""
    worker = Worker(1000 * MS)
    assert worker.run(30 * SECOND_NS) == 1
    assert worker.looks <= 30 * SECOND_NS // INTERVAL_NS + 1


def test_nobody_is_held_without_a_limit() -> None:
    """However many threads compute."""
    worker = Worker(None, threads=16)
    assert worker.run(5 * SECOND_NS) == 16
    assert worker.rate.usage(worker.now_ns) >= 16 * SECOND_NS


def test_an_idle_worker_is_looked_at_with_all_others_only() -> None:
    """Idle, nothing of its own is due, whatever its rate; nor is anything counted."""
    worker = Worker(10 * MS)
    worker.run(10 * SECOND_NS, wants=lambda _: False)
    assert worker.looks == 10 * SECOND_NS // INTERVAL_NS
    assert worker.governor.next_ns == 0


def test_a_spin_is_not_looked_at_all_the_time() -> None:
    """Twenty times a second above what is looked at anyway, at most."""
    worker = Worker(200 * MS)
    worker.run(60 * SECOND_NS)
    assert worker.looks <= 60 * (10 + 40)


def test_a_held_worker_can_answer_before_it_counts_as_stuck() -> None:
    """Sixteen threads for a tenth of a second at 10 ms/s owe minutes: now and then it may run for a moment."""
    worker = Worker(10 * MS, threads=16)
    worker.run(30 * SECOND_NS)
    assert worker.longest_ns <= HELD_MAX_NS
    worker.threads = 0
    assert worker.run(60 * SECOND_NS) == 0


def test_what_is_owed_is_given_back_in_spite_of_answers() -> None:
    """A spin of one thread that is let run for a moment each four seconds still comes down to its rate."""
    worker = Worker(10 * MS)
    worker.rate.spend(START_NS, 400 * MS)
    spent = worker.run(120 * SECOND_NS) * 120 * SECOND_NS
    assert spent + 400 * MS <= 121 * 10 * MS + INTERVAL_NS
    assert ANSWER_NS * SECOND_NS // HELD_MAX_NS < 10 * MS


def test_a_new_worker_of_the_same_component_goes_on_where_the_last_one_was() -> None:
    """Ending and starting gives nobody a second second's worth."""
    first = Worker(100 * MS)
    first.run(3 * SECOND_NS)
    first.governor.finish(first.now_ns, round(first.cpu_ns) + 50 * MS)
    second = Worker(100 * MS, rate=first.rate)
    second.now_ns = first.now_ns
    second.governor = Governor(first.rate, first.now_ns, 0)
    assert second.run(10 * SECOND_NS) <= 0.11


def test_a_clock_that_steps_back_holds_nobody_for_longer() -> None:
    """Held or not, after a step back a worker goes on as its rate allows from there."""
    worker = Worker(200 * MS)
    worker.run(5 * SECOND_NS)
    worker.now_ns -= 4 * SECOND_NS
    assert worker.run(20 * SECOND_NS) == pytest.approx(0.2, rel=0.05)


def test_a_clock_that_runs_backwards_gives_nothing() -> None:
    """A process's clock that shows less than before (another process has its number) counts as nothing used."""
    governor = Governor(SpentRate(100 * MS, START_NS), START_NS, SECOND_NS)
    assert governor.look(START_NS + LEAST_LOOK_NS, 0) is False
    assert governor.look(START_NS + 2 * LEAST_LOOK_NS, SECOND_NS) is False


def test_who_is_let_go_is_held_no_longer() -> None:
    """For its end; how long it was held is known."""
    worker = Worker(100 * MS)
    worker.run(2 * SECOND_NS)
    while not worker.governor.is_holding:
        worker.run(1)
    held_ns = worker.governor.held_ns(worker.now_ns)
    worker.governor.let_go(worker.now_ns + MS)
    assert not worker.governor.is_holding
    assert worker.governor.next_ns == 0
    assert worker.governor.held_ns(worker.now_ns + SECOND_NS) == held_ns + MS > 0
