"""When those who answer calls are kept on one processor, as a matter of times alone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ipc.burst import CALLS, DELAYED_NS, QUICK_NS, RENEWAL_NS, REST_NS, Burst, Step

MS = 1_000_000
START_NS = 1_000 * MS


def after(burst: Burst, *times_ns: int) -> list[Step]:
    """Return what each of these calls leads to."""
    return [burst.note(time_ns) for time_ns in times_ns]


def in_burst() -> Burst:
    """Return a worker that was kept on one processor at `START_NS`."""
    burst = Burst()
    steps = after(burst, *range(START_NS - CALLS * MS, START_NS + 1, MS))
    assert steps == [Step.NOTHING] * CALLS + [Step.PIN]
    return burst


def test_a_few_calls_are_no_burst() -> None:
    """Up to CALLS of them, however quick, change nothing; the next one does, once."""
    burst = Burst()
    assert after(burst, *range(CALLS)) == [Step.NOTHING] * CALLS
    assert not burst.pinned
    assert after(burst, CALLS, CALLS + 1) == [Step.PIN, Step.NOTHING]
    assert burst.pinned


def test_calls_with_pauses_are_no_burst() -> None:
    """One call that is not quick begins the count anew."""
    burst = Burst()
    slow = [n * (QUICK_NS + 1) for n in range(1, 100)]
    assert set(after(burst, *slow)) == {Step.NOTHING}
    last_ns = slow[-1]
    assert after(burst, *(last_ns + n * QUICK_NS for n in range(1, CALLS))) == [Step.NOTHING] * (CALLS - 1)
    assert burst.note(last_ns + CALLS * QUICK_NS) is Step.PIN


def test_a_pause_lets_go_once() -> None:
    """What is not kept on a processor is not let go."""
    burst = in_burst()
    assert [burst.let_go(), burst.let_go()] == [Step.LET_GO, Step.NOTHING]
    assert not burst.pinned
    assert Burst().let_go() is Step.NOTHING


def test_a_burst_is_let_go_now_and_then_and_kept_anew_by_the_next_call() -> None:
    """After RENEWAL_NS the scheduler chooses for one call; that the burst goes on need not be found out again."""
    burst = in_burst()
    every_ms = after(burst, *range(START_NS + MS, START_NS + 2 * RENEWAL_NS, MS))
    first, second = RENEWAL_NS // MS - 1, RENEWAL_NS // MS
    assert every_ms[first : second + 1] == [Step.LET_GO, Step.PIN]
    assert set(every_ms[:first] + every_ms[second + 1 :]) == {Step.NOTHING}


def test_a_call_after_a_long_answer_lets_go_and_begins_anew() -> None:
    """A lane that was held up by a disk hears of no pause: the next call tells."""
    burst = in_burst()
    later_ns = START_NS + 1000 * MS
    assert after(burst, later_ns) == [Step.LET_GO]
    assert after(burst, *(later_ns + n for n in range(1, CALLS + 1))) == [Step.NOTHING] * (CALLS - 1) + [Step.PIN]


def test_where_somebody_else_has_the_processor_too_nothing_is_kept_for_a_while() -> None:
    """Less than three quarters of its time is too little; then a rest, and another try."""
    for used_ns, rests in ((RENEWAL_NS * 3 // 4, False), (RENEWAL_NS * 3 // 4 - 1, True)):
        burst = in_burst()
        let_go_ns = START_NS + RENEWAL_NS
        steps = after(burst, *range(START_NS + MS, let_go_ns + 1, MS))
        assert steps[-1] is Step.LET_GO
        burst.judge(let_go_ns, used_ns)
        following = after(burst, *range(let_go_ns + MS, let_go_ns + REST_NS + 1, MS))
        assert following.index(Step.PIN) == (REST_NS // MS - 1 if rests else 0)


def test_what_can_not_be_kept_is_not_tried_at_each_call() -> None:
    """It is tried again after a rest."""
    burst = in_burst()
    burst.rest(START_NS)
    assert not burst.pinned
    following = after(burst, *range(START_NS + MS, START_NS + REST_NS + 1, MS))
    assert following.index(Step.PIN) == REST_NS // MS - 1


def test_something_else_than_one_call_ends_a_burst_at_once() -> None:
    """It is let go, and found out anew."""
    burst = in_burst()
    assert [burst.interrupt(), burst.interrupt()] == [Step.LET_GO, Step.NOTHING]
    following = after(burst, *range(START_NS + MS, START_NS + (CALLS + 1) * MS, MS))
    assert following == [Step.NOTHING] * (CALLS - 1) + [Step.PIN]


def test_something_else_before_there_are_enough_calls_begins_the_count_anew() -> None:
    """However quick they were."""
    burst = Burst()
    assert set(after(burst, *range(CALLS))) == {Step.NOTHING}
    assert burst.interrupt() is Step.NOTHING
    assert after(burst, *range(CALLS, 2 * CALLS)) == [Step.NOTHING] * (CALLS - 1) + [Step.PIN]


def test_who_waited_for_the_processor_between_two_calls_takes_a_rest() -> None:
    """Half a millisecond it may be one's own threads; more is somebody else."""
    burst = in_burst()
    assert burst.note(START_NS + MS, DELAYED_NS) is Step.NOTHING
    let_go_ns = START_NS + 2 * MS
    assert burst.note(let_go_ns, DELAYED_NS + 1) is Step.LET_GO
    assert not burst.pinned
    following = after(burst, *range(let_go_ns + MS, let_go_ns + REST_NS + 1, MS))
    assert following.index(Step.PIN) == REST_NS // MS - 1


def test_who_is_kept_nowhere_waits_as_it_may() -> None:
    """A delay before says nothing of the processor on which a burst will be kept."""
    burst = Burst()
    steps = [burst.note(START_NS + n * MS, REST_NS) for n in range(CALLS + 1)]
    assert steps == [Step.NOTHING] * CALLS + [Step.PIN]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(("call", "call", "call", "call", "call", "call", "else", "pause")),
            st.integers(0, QUICK_NS + QUICK_NS // 20),
            st.integers(0, DELAYED_NS + DELAYED_NS // 20),
        ),
        max_size=200,
    )
)
def test_none_is_kept_for_longer_than_agreed_or_while_it_rests(history: list[tuple[str, int, int]]) -> None:
    """In any rhythm: the steps alternate, what isn't one call lets go, a delay is followed by a rest."""
    burst, now_ns, kept_since_ns, rests_until_ns = Burst(), 0, -1, -1
    for what, gap_ns, delayed_ns in history:
        now_ns += gap_ns
        if what == "pause":
            step = burst.let_go()
        else:
            step = burst.note(now_ns, delayed_ns) if what == "call" else burst.interrupt()
        if step is Step.PIN:
            assert what == "call"
            assert kept_since_ns < 0
            assert now_ns >= rests_until_ns
            kept_since_ns = now_ns
        elif step is Step.LET_GO:
            assert kept_since_ns >= 0
            if what == "call" and delayed_ns > DELAYED_NS:
                rests_until_ns = now_ns + REST_NS
            kept_since_ns = -1
        elif kept_since_ns >= 0:
            assert what == "call"
            assert now_ns - kept_since_ns < RENEWAL_NS
            assert delayed_ns <= DELAYED_NS
        assert burst.pinned == (kept_since_ns >= 0)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, QUICK_NS + QUICK_NS // 20)), max_size=200))
def test_each_taking_is_given_back_and_none_lasts(history: list[tuple[bool, int]]) -> None:
    """In any rhythm of calls and pauses the two steps alternate, and no call finds both kept for longer than agreed."""
    burst, now_ns, kept_since_ns = Burst(), 0, -1
    for is_call, gap_ns in history:
        now_ns += gap_ns
        step = burst.note(now_ns) if is_call else burst.let_go()
        if step is Step.PIN:
            assert kept_since_ns < 0
            kept_since_ns = now_ns
        elif step is Step.LET_GO:
            assert kept_since_ns >= 0
            kept_since_ns = -1
        elif is_call and kept_since_ns >= 0:
            assert now_ns - kept_since_ns < RENEWAL_NS
        assert burst.pinned == (kept_since_ns >= 0)
