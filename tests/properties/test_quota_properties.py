"""Properties of the five quotas: what is accepted, whatever pattern it is asked in, whatever the clock does."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ipc.policy.pacing import PIECE_BYTES, Pace
from ipc.policy.quota import CRITICAL, EXCEEDED, OK, WARNING, QuotaLevel, amount_words
from ipc.policy.quotas import (
    DEFAULT_LIMITS,
    NEVER_MS,
    QUOTAS,
    Level,
    OverQuota,
    QuotaLimits,
    Quotas,
)
from ipc.policy.rate import NEVER, SECOND_NS, Rate, SpentRate
from supervisor.run.governor import Governor
from supervisor.run.watch import INTERVAL_NS

RATES = st.one_of(st.integers(1, 20), st.integers(1, 2_000), st.integers(1, 10**10))
STARTS = st.integers(0, 2**62)
# Gaps of no time at all, of nanoseconds, of about an item, and of longer than any burst lasts.
GAPS = st.one_of(st.just(0), st.integers(0, 10), st.integers(0, 2 * SECOND_NS), st.integers(0, 10**12))
COUNTS = st.one_of(st.just(1), st.integers(0, 30), st.integers(0, 10**10))
ARRIVALS = st.lists(st.tuples(GAPS, COUNTS), max_size=60)


@given(per_s=RATES, start_ns=STARTS, arrivals=ARRIVALS)
def test_no_pattern_of_arrivals_gets_more_through(per_s: int, start_ns: int, arrivals: list[tuple[int, int]]) -> None:
    """From any accepted arrival to any other: at most the rate times the time between them, and one burst."""
    rate = Rate(per_s)
    now_ns = start_ns
    accepted: list[tuple[int, int]] = []
    for gap_ns, count in arrivals:
        now_ns += gap_ns
        if rate.take(now_ns, count) == 0:
            accepted.append((now_ns, count))
    for first, (from_ns, _) in enumerate(accepted):
        total = 0
        for to_ns, count in accepted[first:]:
            total += count
            assert total * SECOND_NS <= per_s * (to_ns - from_ns) + per_s * SECOND_NS


@given(per_s=RATES, start_ns=STARTS, arrivals=ARRIVALS)
def test_it_is_a_bucket_of_tokens_exactly(per_s: int, start_ns: int, arrivals: list[tuple[int, int]]) -> None:
    """The same answers as a bucket with exact fractions in it, and the wait that is told is the shortest that helps."""
    rate = Rate(per_s)
    tokens, then_ns, now_ns = Fraction(per_s), start_ns, start_ns
    for gap_ns, count in arrivals:
        now_ns += gap_ns
        tokens = min(Fraction(per_s), tokens + Fraction((now_ns - then_ns) * per_s, SECOND_NS))
        then_ns = now_ns
        assert rate.available(now_ns) == int(tokens)
        told_ns = rate.wait_ns(now_ns, count)
        wait_ns = rate.take(now_ns, count)
        assert told_ns == wait_ns
        if count <= tokens:
            assert wait_ns == 0
            tokens -= count
        elif count > per_s:
            assert wait_ns == NEVER
        else:
            needed_ns = (count - tokens) * SECOND_NS / per_s
            assert needed_ns <= wait_ns < needed_ns + 1


@given(per_s=RATES, start_ns=STARTS, arrivals=ARRIVALS, polls=st.lists(st.integers(0, 10**12), max_size=60))
def test_looking_changes_nothing(per_s: int, start_ns: int, arrivals: list[tuple[int, int]], polls: list[int]) -> None:
    """However often somebody asks how full it is in between, the answers to those who take are the same."""
    quiet, polled = Rate(per_s), Rate(per_s)
    now_ns = start_ns
    for number, (gap_ns, count) in enumerate(arrivals):
        if number < len(polls):
            between_ns = now_ns + min(polls[number], gap_ns)
            polled.usage(between_ns)
            polled.available(between_ns)
            polled.wait_ns(between_ns)
            polled.state(between_ns)
        now_ns += gap_ns
        assert polled.take(now_ns, count) == quiet.take(now_ns, count)


@given(
    per_s=RATES,
    start_ns=st.integers(10**13, 2**62),
    arrivals=st.lists(st.tuples(st.integers(-(10**12), 10**12), COUNTS), max_size=60),
)
def test_a_clock_that_steps_lets_nothing_more_through(
    per_s: int, start_ns: int, arrivals: list[tuple[int, int]]
) -> None:
    """With steps back and forth, what counts is the way forward; and a second after any step all is as it was."""
    rate = Rate(per_s)
    now_ns, forward_ns, total = start_ns, 0, 0
    for step_ns, count in arrivals:
        now_ns = max(0, now_ns + step_ns)
        forward_ns += max(0, step_ns)
        if rate.take(now_ns, count) == 0:
            total += count
        assert total <= Fraction(per_s * forward_ns, SECOND_NS) + per_s
        assert 0 <= rate.available(now_ns) <= per_s
        assert rate.usage(now_ns) >= 0
        assert rate.wait_ns(now_ns) <= SECOND_NS
    assert rate.take(now_ns + SECOND_NS, per_s) == 0


@given(per_s=RATES, start_ns=STARTS, arrivals=ARRIVALS, at=st.integers(0, 60), elsewhere_ns=st.integers(0, 2**62))
def test_a_restart_changes_no_answer(
    per_s: int, start_ns: int, arrivals: list[tuple[int, int]], at: int, elsewhere_ns: int
) -> None:
    """A rate that goes on from the state of another answers as that one would have, by whichever clock."""
    through, here = Rate(per_s), Rate(per_s)
    now_ns, shift_ns = start_ns, 0
    for number, (gap_ns, count) in enumerate(arrivals):
        now_ns += gap_ns
        if number == at:
            shift_ns = elsewhere_ns - now_ns
            here = Rate(per_s, elsewhere_ns, here.state(now_ns))
        assert here.take(now_ns + shift_ns, count) == through.take(now_ns, count)


@given(per_s=RATES, start_ns=STARTS, arrivals=ARRIVALS)
def test_what_is_spent_beyond_the_rate_is_owed(per_s: int, start_ns: int, arrivals: list[tuple[int, int]]) -> None:
    """Who spends only while nothing is owed uses the rate, one burst and what was last spent at once, and no more."""
    rate = SpentRate(per_s, start_ns)
    now_ns, total, largest = start_ns, 0, 0
    for gap_ns, count in arrivals:
        now_ns += gap_ns
        owed_ns = rate.owed_ns(now_ns)
        assert owed_ns >= 0
        if not owed_ns:
            rate.spend(now_ns, count)
            total, largest = total + count, max(largest, count)
        else:
            assert rate.owed_ns(now_ns + owed_ns - 1) == 1
            assert rate.owed_ns(now_ns + owed_ns) == 0
            assert rate.available(now_ns) == 0
        assert total * SECOND_NS <= per_s * (now_ns - start_ns + SECOND_NS) + largest * SECOND_NS
        assert rate.usage(now_ns) >= 0
        assert 0 <= rate.available(now_ns) <= per_s


@given(
    per_s=RATES,
    start_ns=st.integers(10**13, 2**62),
    steps=st.lists(st.tuples(st.integers(-(10**12), 10**12), st.integers(0, 10**10)), max_size=60),
)
def test_what_is_owed_survives_a_clock_that_steps(per_s: int, start_ns: int, steps: list[tuple[int, int]]) -> None:
    """Only the way forward gives back; a step back takes nothing and gives nothing."""
    rate = SpentRate(per_s, start_ns)
    now_ns, owed = start_ns, 0
    for step_ns, count in steps:
        now_ns = max(0, now_ns + step_ns)
        owed = max(0, owed - max(0, step_ns) * per_s) + count * SECOND_NS
        rate.spend(now_ns, count)
        assert rate.state(now_ns).ahead == owed


@given(per_s=RATES, start_ns=STARTS, arrivals=ARRIVALS, at=st.integers(0, 60), elsewhere_ns=st.integers(0, 2**62))
def test_what_is_owed_survives_a_restart(
    per_s: int, start_ns: int, arrivals: list[tuple[int, int]], at: int, elsewhere_ns: int
) -> None:
    """Whoever goes on from the state of another owes what that one owed, by whichever clock."""
    through, here = SpentRate(per_s, start_ns), SpentRate(per_s, start_ns)
    now_ns, shift_ns = start_ns, 0
    for number, (gap_ns, count) in enumerate(arrivals):
        now_ns += gap_ns
        if number == at:
            shift_ns = elsewhere_ns - now_ns
            here = SpentRate(per_s, elsewhere_ns, here.state(now_ns))
        through.spend(now_ns, count)
        here.spend(now_ns + shift_ns, count)
        assert here.owed_ns(now_ns + shift_ns) == through.owed_ns(now_ns)
        assert here.available(now_ns + shift_ns) == through.available(now_ns)


@given(
    per_s=st.sampled_from([10**7, 5 * 10**7, 2 * 10**8, 10**9, 3 * 10**9]),
    threads=st.integers(1, 8),
    turns=st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 100), st.integers(0, 10**7)), max_size=80),
)
def test_a_governed_worker_uses_its_rate_and_a_burst(
    per_s: int, threads: int, turns: list[tuple[int, int, int]]
) -> None:
    """Whatever it does, however often and late it is looked at: its rate, one burst, and what it used unseen at last.

    While it is held for long it may answer: that is owed as well, and a held worker is told when it may go on.
    """
    start_ns = 10**15
    rate = SpentRate(per_s, start_ns)
    governor = Governor(rate, start_ns, 0)
    now_ns, cpu_ns, held, unseen_ns, answers_ns = start_ns, 0, False, 0, 0
    for wish_ns, busy_percent, late_ns in turns:
        # Looked at when it is due, or before that; and then late.
        due_ns = min(now_ns + INTERVAL_NS, governor.next_ns or now_ns + INTERVAL_NS)
        look_ns = max(now_ns, min(due_ns, now_ns + wish_ns)) + late_ns
        used_ns = 0 if held else (look_ns - now_ns) * threads * busy_percent // 100
        if rate.owed_ns(now_ns):
            answers_ns += used_ns
        unseen_ns = max(unseen_ns, used_ns)
        cpu_ns += used_ns
        now_ns = look_ns
        held = governor.look(now_ns, cpu_ns)
        assert not (held and now_ns >= governor.next_ns)
        allowed_ns = per_s * (now_ns - start_ns) // SECOND_NS + per_s + unseen_ns + answers_ns
        assert cpu_ns <= allowed_ns


STREAM = st.lists(st.tuples(GAPS, st.integers(0, 10**8)), max_size=60)


@given(per_s=RATES, start_ns=STARTS, asks=STREAM)
def test_a_paced_stream_keeps_its_rate_and_always_comes_on(
    per_s: int, start_ns: int, asks: list[tuple[int, int]]
) -> None:
    """In pieces that are worth a call; who waits as long as it was told may then move some."""
    quotas = Quotas(QuotaLimits(network_bandwidth=per_s), start_ns)
    now_ns, total = start_ns, 0
    for gap_ns, wanted in asks:
        now_ns += gap_ns
        told = quotas.pace_bandwidth(now_ns, wanted)
        assert 0 <= told.amount_bytes <= wanted
        assert (told.wait_ns > 0) is (wanted > 0 and told.amount_bytes == 0)
        total += told.amount_bytes
        if told.wait_ns:
            now_ns += told.wait_ns
            then = quotas.pace_bandwidth(now_ns, wanted)
            assert then.amount_bytes >= min(wanted, PIECE_BYTES, per_s)
            total += then.amount_bytes
        assert total * SECOND_NS <= per_s * (now_ns - start_ns + SECOND_NS)


def test_a_paced_stream_of_nothing_and_of_everything() -> None:
    """With a bandwidth of zero waiting doesn't help; an unlimited one lets all through at once."""
    assert Quotas(QuotaLimits(network_bandwidth=0)).pace_bandwidth(5, 1) == Pace(0, NEVER)
    assert Quotas(QuotaLimits(network_bandwidth=None)).pace_bandwidth(5, 10**12) == Pace(10**12, 0)
    assert Quotas(QuotaLimits(network_bandwidth=0)).pace_bandwidth(5, 0) == Pace(0, 0)


def test_up_and_down_share_one_bandwidth() -> None:
    """What was sent is missing for what is received."""
    quotas = Quotas(QuotaLimits(network_bandwidth=10**6), SECOND_NS)
    assert quotas.take_bandwidth(SECOND_NS, 900_000) is None
    assert quotas.pace_bandwidth(SECOND_NS, 500_000) == Pace(100_000, 0)
    assert quotas.take_bandwidth(SECOND_NS, 1) == OverQuota("network_bandwidth", 1_000_001, 10**6, 1_000)
    assert quotas.states(SECOND_NS)[2].status == EXCEEDED


@given(start_ns=STARTS, arrivals=ARRIVALS)
def test_zero_allows_nothing_and_unlimited_everything(start_ns: int, arrivals: list[tuple[int, int]]) -> None:
    """No item of a rate of zero is ever accepted, nor will waiting help; an unlimited rate never refuses."""
    nothing, unlimited = Rate(0), Rate(None)
    now_ns = start_ns
    for gap_ns, count in arrivals:
        now_ns += gap_ns
        assert nothing.take(now_ns, count) == (NEVER if count else 0)
        assert nothing.available(now_ns) == 0
        assert nothing.wait_ns(now_ns, 1) == NEVER
        assert unlimited.take(now_ns, count) == 0
        assert unlimited.wait_ns(now_ns, count) == 0


@given(per_s=RATES, start_ns=STARTS, arrivals=ARRIVALS)
def test_in_pieces_no_more_than_whole(per_s: int, start_ns: int, arrivals: list[tuple[int, int]]) -> None:
    """What is taken in pieces is bounded as everything else, and never more than was asked for."""
    rate = Rate(per_s)
    now_ns, total = start_ns, 0
    for gap_ns, count in arrivals:
        now_ns += gap_ns
        taken = rate.take_up_to(now_ns, count)
        assert 0 <= taken <= count
        total += taken
        assert total <= Fraction(per_s * (now_ns - start_ns), SECOND_NS) + per_s
        assert taken == count or rate.available(now_ns) == 0


@given(limit=st.none() | st.integers(0, 1000), steps=st.lists(st.tuples(st.booleans(), st.integers(0, 500))))
def test_a_level_is_within_its_limit_and_never_negative(limit: int | None, steps: list[tuple[bool, int]]) -> None:
    """Taking and releasing in any order: between zero and the limit, and refused only what would not have fitted."""
    level = Level(limit)
    most = 0
    for taking, amount in steps:
        before = level.usage
        if taking:
            fits = limit is None or before + amount <= limit
            assert level.take(amount) is fits
            assert level.usage == before + amount * fits
        else:
            level.release(amount)
            assert level.usage == max(0, before - amount)
        most = max(most, level.usage)
        assert level.usage >= 0
        assert limit is None or level.usage <= limit
        assert level.peak == most


class Neighbours(RuleBasedStateMachine):
    """Two components on one host, and a third that lives alone: the neighbour of the second must not matter to it."""

    @initialize(rate=st.integers(0, 50), storage=st.integers(0, 1000))
    def begin(self, rate: int, storage: int) -> None:
        """All three have the same limits."""
        limits = QuotaLimits(storage=storage, message_rate=rate)
        self.now_ns = 10**15
        self.noisy, self.quiet, self.alone = (Quotas(limits, self.now_ns) for _ in range(3))

    @rule(ns=st.integers(0, 2 * SECOND_NS))
    def wait(self, ns: int) -> None:
        """Time passes for all."""
        self.now_ns += ns

    @rule(count=st.integers(0, 100), size=st.integers(0, 500))
    def make_noise(self, count: int, size: int) -> None:
        """The first one uses what it can."""
        self.noisy.take_messages(self.now_ns, count)
        self.noisy.take_storage(size)
        self.noisy.spend_cpu_time(self.now_ns, count * 10**8)
        self.noisy.pace_bandwidth(self.now_ns, count * 10**6)
        self.noisy.measure_memory(size * 10**6)

    @rule(count=st.integers(0, 10), size=st.integers(0, 200))
    def use(self, count: int, size: int) -> None:
        """The second gets what it would get alone."""
        assert self.quiet.take_messages(self.now_ns, count) == self.alone.take_messages(self.now_ns, count)
        assert self.quiet.take_storage(size) == self.alone.take_storage(size)
        for each in (self.quiet.spend_cpu_time, self.quiet.take_bandwidth):
            same = getattr(self.alone, each.__name__)
            assert each(self.now_ns, count * 10**8) == same(self.now_ns, count * 10**8)
        assert self.quiet.measure_memory(size * 10**6) == self.alone.measure_memory(size * 10**6)
        assert self.quiet.crossings(self.now_ns) == self.alone.crossings(self.now_ns)

    @rule()
    def restart(self) -> None:
        """The process that counts is another one; storage is counted anew from what is there."""
        there, held = self.quiet.storage.usage, self.quiet.memory.usage
        limits = QuotaLimits(storage=self.quiet.storage.limit, message_rate=self.quiet.message_rate.per_s)
        self.quiet = Quotas(limits, self.now_ns, self.quiet.state(self.now_ns))
        self.quiet.storage.measured(there)
        self.quiet.measure_memory(held)
        assert self.quiet.crossings(self.now_ns) == tuple(
            level for level in self.alone.states(self.now_ns) if level.status != OK
        )
        self.alone.crossings(self.now_ns)

    @invariant()
    def holds(self) -> None:
        """All numbers are possible ones."""
        if not hasattr(self, "noisy"):
            return
        for level in (*self.noisy.states(self.now_ns), *self.quiet.states(self.now_ns)):
            assert level.usage >= 0
            assert level.percent >= 0


TestNeighbours = Neighbours.TestCase
TestNeighbours.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_the_defaults_are_the_designs() -> None:
    """What a component has that says nothing."""
    assert {kind.name: (kind.kind, kind.default) for kind in QUOTAS} == {
        "storage": ("level", 100 * 10**6),
        "message_rate": ("rate", 1_000),
        "network_bandwidth": ("rate", 10 * 10**6),
        "cpu_time": ("rate", 1_000 * 10**6),
        "memory": ("level", 256 * 10**6),
    }
    assert [level.limit for level in Quotas().states(0)] == [kind.default for kind in QUOTAS]


def test_a_refusal_says_what_is_used_what_is_allowed_and_when_again() -> None:
    """At the moment that is told, not before, the same is accepted; where waiting is in vain it says so."""
    quotas = Quotas(QuotaLimits(storage=100, message_rate=10), 5 * SECOND_NS)
    now_ns = 5 * SECOND_NS
    assert quotas.take_messages(now_ns, 10) is None
    refusal = quotas.take_messages(now_ns, 1)
    assert refusal == OverQuota("message_rate", 11, 10, SECOND_NS // 10)
    assert refusal.retry_after_ms == 100
    assert quotas.take_messages(now_ns + SECOND_NS // 10 - 1) is not None
    assert quotas.take_messages(now_ns + SECOND_NS // 10) is None
    never = quotas.take_messages(now_ns + SECOND_NS, 11)
    assert never is not None
    assert never.retry_after_ms == NEVER_MS
    assert quotas.take_storage(100) is None
    assert quotas.take_storage(1) == OverQuota("storage", 100, 100)


def test_what_is_only_measured_says_what_it_is_more_than_allowed() -> None:
    """CPU time with the time for which it is owed, memory without one: waiting gives no memory back."""
    quotas = Quotas(QuotaLimits(cpu_time=10**8, memory=1000), 5 * SECOND_NS)
    assert quotas.spend_cpu_time(5 * SECOND_NS, 10**8) is None
    assert quotas.spend_cpu_time(5 * SECOND_NS, 10**7) == OverQuota("cpu_time", 11 * 10**7, 10**8, SECOND_NS // 10)
    assert quotas.spend_cpu_time(5 * SECOND_NS + SECOND_NS // 10, 0) is None
    assert quotas.measure_memory(1000) is None
    assert quotas.measure_memory(1001) == OverQuota("memory", 1001, 1000)
    assert quotas.measure_memory(5) is None
    assert quotas.states(6 * SECOND_NS)[4] == QuotaLevel("memory", 5, 1000, "bytes", 1001)


@pytest.mark.parametrize("kind", [kind.name for kind in QUOTAS])
def test_each_of_the_five_tells_of_its_crossings_once(kind: str) -> None:
    """Up to 80, 95 and above 100 percent, and back to nothing: one each, of this quota and of no other."""
    quotas = Quotas(QuotaLimits(100, 100, 100, 100, 100))
    now_ns = 7 * SECOND_NS
    uses = {
        "storage": quotas.storage.measured,
        "message_rate": lambda amount: quotas.take_messages(now_ns, amount),
        "network_bandwidth": lambda amount: quotas.take_bandwidth(now_ns, amount),
        "cpu_time": lambda amount: quotas.spend_cpu_time(now_ns, amount),
        "memory": quotas.measure_memory,
    }
    told = []
    total = 0
    for upto in (79, 80, 94, 95, 100, 101, 101):
        uses[kind](upto if kind in ("storage", "memory") else upto - total)
        total = upto
        for _ in range(2):
            told += [(level.name, level.status) for level in quotas.crossings(now_ns)]
    now_ns += 3 * SECOND_NS
    if kind in ("storage", "memory"):
        uses[kind](0)
    told += [(level.name, level.status) for level in quotas.crossings(now_ns)]
    assert told == [(kind, status) for status in (WARNING, CRITICAL, EXCEEDED, OK)]
    assert quotas.is_calm


def test_each_crossing_is_told_once_up_and_down() -> None:
    """At 80 and 95 percent, above the limit, and on the way back; asked again it is silent."""
    quotas = Quotas(QuotaLimits(message_rate=100))
    now_ns = 7 * SECOND_NS
    told: list[str] = []
    for count in (79, 1, 14, 1, 5, 1):
        quotas.take_messages(now_ns, count)
        for _ in range(2):
            told += [level.status for level in quotas.crossings(now_ns)]
    assert told == [WARNING, CRITICAL, EXCEEDED]
    assert [level.status for level in quotas.crossings(now_ns + 3 * SECOND_NS)] == [OK]
    assert quotas.crossings(now_ns + 4 * SECOND_NS) == ()


def test_a_steady_rate_shows_as_what_it_is() -> None:
    """Nine hundred a second against a thousand is ninety percent, though its bucket is never full."""
    quotas = Quotas(DEFAULT_LIMITS)
    for number in range(2_700):
        assert quotas.take_messages(SECOND_NS + number * SECOND_NS // 900) is None
    level = quotas.states(4 * SECOND_NS - 1)[1]
    assert (level.status, level.percent) == (WARNING, 90)


@pytest.mark.parametrize(
    ("level", "words"),
    [
        (QuotaLevel("storage", 99_800_000, 100_000_000), "99.8 MB of 100 MB"),
        (QuotaLevel("storage", 5, None), "5 B of unlimited"),
        (QuotaLevel("message_rate", 12, 1_000, "messages/s"), "12 messages/s of 1000 messages/s"),
        (QuotaLevel("network_bandwidth", 0, 10_000_000, "bytes/s"), "0 B/s of 10 MB/s"),
        (QuotaLevel("cpu_time", 0, 10**9, "ns/s"), "0 ms/s of 1000 ms/s"),
        (QuotaLevel("cpu_time", 589_174, 10**7, "ns/s"), "0.5892 ms/s of 10 ms/s"),
        (QuotaLevel("cpu_time", 250_000_000, 10**9, "ns/s"), "250 ms/s of 1000 ms/s"),
    ],
)
def test_it_is_said_in_its_own_unit(level: QuotaLevel, words: str) -> None:
    """Amounts read as people write them."""
    assert level.words == words


def test_unlimited_is_never_near_its_limit() -> None:
    """Whatever is used of it."""
    level = QuotaLevel("memory", 10**18, None)
    assert (level.percent, level.status) == (0, OK)
    assert amount_words(1_500_000_000) == "1.5 GB"
