"""How a run ended, from the facts: each combination has a verdict; the kernel's word outranks the worker's claim."""

from __future__ import annotations

import signal
from itertools import product

import pytest

from ipc.errors import DOCTOR_HINT
from ipc.messages import Ended, Finished, StartFailed, WorkerLimits
from ipc.struct import replace
from supervisor.run.verdict import LIMIT_CODES, Facts, LimitReached, Verdict, decide_verdict, limit_message

LIMITS = WorkerLimits(memory_bytes=64 << 20, output_bytes=1 << 20, timeout_ns=10**9, fuel=1_000, cpu_s=2)
OUTCOMES = {"exited", "trapped", "limit", "refused", "crashed", "host_error"}


def _exited(status: int = 0, **more: object) -> Ended:
    return replace(Ended(status << 8, 10**6, 10**6, 1 << 20), **more)  # type: ignore[arg-type]


def _killed(number: int, cpu_ns: int = 0) -> Ended:
    return Ended(number, cpu_ns, 0, 1 << 20)


REACHED = LimitReached("timeout", "A2002", 10**9, 10**9, "ns")
CLAIMED_SUCCESS = Finished("exited", 0)
START_FAILED = StartFailed("confine", "landlock", "landlock_create_ruleset", 38, "not built in")


@pytest.mark.parametrize(
    ("facts", "outcome", "exit_code", "code"),
    [
        pytest.param(Facts(LIMITS, _exited(), Finished("exited", 0)), "exited", 0, "", id="exit 0"),
        pytest.param(Facts(LIMITS, _exited(), Finished("exited", 3)), "exited", 3, "", id="exit 3"),
        pytest.param(
            Facts(LIMITS, _exited(), Finished("exited", 256)), "exited", 0, "", id="exit 256 is cut as wait(2)"
        ),
        pytest.param(Facts(LIMITS, _exited(), Finished("exited", -1)), "exited", 255, "", id="exit -1"),
        pytest.param(Facts(LIMITS, _exited(), Finished("trapped", 0, "unreachable")), "trapped", 134, "", id="trap"),
        pytest.param(Facts(LIMITS, _exited(), Finished("limit", 0, limit="memory")), "limit", 75, "A2001", id="memory"),
        pytest.param(Facts(LIMITS, _exited(), Finished("limit", 0, limit="fuel")), "limit", 75, "A2003", id="fuel"),
        pytest.param(
            Facts(LIMITS, _exited(), Finished("limit", 0, limit="?")), "host_error", 70, "", id="unknown limit"
        ),
        pytest.param(Facts(LIMITS, _exited(), Finished("host_error", 0, "x")), "host_error", 70, "", id="host error"),
        pytest.param(
            Facts(LIMITS, _exited(), Finished("refused", 0)), "host_error", 70, "", id="a claim it can't make"
        ),
        pytest.param(Facts(LIMITS, _exited(1)), "crashed", 70, "", id="silent exit"),
        pytest.param(Facts(LIMITS, _exited(0)), "crashed", 70, "", id="silent exit 0"),
        pytest.param(Facts(LIMITS, None), "crashed", 70, "", id="keeper lost"),
        pytest.param(Facts(LIMITS, _killed(signal.SIGSEGV)), "crashed", 139, "", id="segmentation fault"),
        pytest.param(Facts(LIMITS, _killed(signal.SIGSYS)), "crashed", 159, "", id="filter kill"),
        pytest.param(Facts(LIMITS, _killed(signal.SIGKILL)), "crashed", 137, "", id="killed"),
        pytest.param(Facts(LIMITS, _killed(signal.SIGKILL, 2 * 10**9)), "limit", 75, "A2004", id="cpu, hard"),
        pytest.param(Facts(LIMITS, _killed(signal.SIGXCPU, 2 * 10**9)), "limit", 75, "A2004", id="cpu, soft"),
        pytest.param(Facts(LIMITS, _killed(signal.SIGXCPU, 10**9)), "crashed", 128 + 24, "", id="SIGXCPU but no use"),
        pytest.param(Facts(LIMITS, _killed(40)), "crashed", 168, "", id="real-time signal without a name"),
        pytest.param(Facts(LIMITS, _killed(0x80 | signal.SIGABRT)), "crashed", 134, "", id="core dump flag"),
        pytest.param(Facts(LIMITS, _exited(killed_for="flood")), "crashed", 137, "", id="keeper ended it"),
        pytest.param(Facts(LIMITS, _exited(1), start_failed=START_FAILED), "refused", 69, "A3001", id="layer missing"),
        pytest.param(
            Facts(LIMITS, _exited(1), start_failed=StartFailed("load", "", "open", 2, "gone")),
            *("host_error", 70, ""),
            id="start failed, no layer",
        ),
        pytest.param(Facts(LIMITS, limit_reached=REACHED), "limit", 75, "A2002", id="our own timeout"),
        pytest.param(Facts(LIMITS, _killed(9), refused_code="A1701"), "refused", 77, "A1701", id="warden's order"),
        pytest.param(Facts(LIMITS, _killed(9), refused_code="A3001"), "refused", 69, "A3001", id="out of reach"),
        pytest.param(Facts(LIMITS, _killed(9), refused_code="A3002"), "refused", 69, "A3002", id="not confirmed"),
        pytest.param(Facts(LIMITS, _killed(9), interrupted_by=2), "crashed", 130, "", id="Ctrl-C"),
        pytest.param(Facts(LIMITS, _killed(9), interrupted_by=15), "crashed", 143, "", id="SIGTERM"),
        pytest.param(Facts(LIMITS, _killed(9), broken="x"), "host_error", 70, "", id="broken"),
        pytest.param(Facts(LIMITS, _killed(9), refused_code="A1", unrecorded="x"), "host_error", 73, "A3004", id="log"),
    ],
)
def test_verdict(facts: Facts, outcome: str, exit_code: int, code: str) -> None:
    """Each way to end has its outcome, exit code and code."""
    verdict = decide_verdict(facts)
    assert (verdict.outcome, verdict.exit_code, verdict.code) == (outcome, exit_code, code)


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGSYS, signal.SIGBUS, signal.SIGILL, signal.SIGABRT, 40])
@pytest.mark.parametrize(
    "claims",
    [
        {"finished": CLAIMED_SUCCESS},
        {"finished": Finished("trapped", 0, "x")},
        {"finished": Finished("limit", 0, limit="memory")},
        {"start_failed": START_FAILED},
        {"start_failed": START_FAILED, "finished": CLAIMED_SUCCESS},
    ],
    ids=lambda claims: "+".join(claims),
)
def test_a_signal_outranks_every_claim(number: int, claims: dict[str, Finished | StartFailed]) -> None:
    """A worker that says it did well, or never started, and is then killed by a signal, crashed."""
    verdict = decide_verdict(replace(Facts(LIMITS, _killed(number)), **claims))  # type: ignore[arg-type]
    assert (verdict.outcome, verdict.exit_code) == ("crashed", 128 + number)


@pytest.mark.parametrize(
    ("ours", "outcome"),
    [
        ({"refused_code": "A1701", "refused_reason": "forbidden call"}, "refused"),
        ({"limit_reached": REACHED}, "limit"),
        ({"interrupted_by": 2}, "crashed"),
        ({"broken": "it hung"}, "host_error"),
    ],
    ids=["refused", "limit", "interrupted", "broken"],
)
@pytest.mark.parametrize("finished", [CLAIMED_SUCCESS, Finished("trapped", 0), None])
def test_our_own_acts_outrank_every_claim(ours: dict[str, object], outcome: str, finished: Finished | None) -> None:
    """What we did to a worker decides, whatever it said before."""
    facts = replace(Facts(LIMITS, _exited(), finished), **ours)  # type: ignore[arg-type]
    assert decide_verdict(facts).outcome == outcome


def test_every_combination_has_a_verdict() -> None:
    """No combination of facts is without a known outcome, a valid exit code and, when not a success, a reason."""
    combinations = product(
        (
            None,
            _exited(),
            _exited(1),
            _killed(9),
            _killed(11),
            _killed(63),
            _killed(24, 3 * 10**9),
            _exited(killed_for="x"),
        ),
        (
            None,
            *(
                Finished(outcome, 1, "m", limit)
                for outcome in (*OUTCOMES, "", "\x1b")
                for limit in ("", "memory", "cpu")
            ),
            Finished("exited", -(2**63)),
            Finished("exited", 2**64 - 1),
        ),
        (None, START_FAILED, StartFailed("s", "l", "c", 2**63, ""), StartFailed("s", "l", "c", -5, "")),
        (None, REACHED),
        ("", "A1701"),
        (0, 2, 40),
        ("", "broken"),
    )
    seen = set()
    for ended, finished, start_failed, reached, refused, interrupted, broken in combinations:
        facts = Facts(LIMITS, ended, finished, start_failed, reached, refused, "why", interrupted, broken)
        verdict = decide_verdict(facts)
        seen.add(verdict.outcome)
        assert verdict.outcome in OUTCOMES
        assert 0 <= verdict.exit_code <= 255
        assert (verdict.limit is not None) == (verdict.outcome == "limit")
        assert verdict.exit_code != 0 or verdict.outcome == "exited"
    assert seen == OUTCOMES


@pytest.mark.parametrize("name", sorted(LIMIT_CODES))
@pytest.mark.parametrize("limits", [LIMITS, WorkerLimits(memory_bytes=1, output_bytes=1)], ids=["set", "unset"])
def test_every_claimed_limit_is_told_with_its_bound(name: str, limits: WorkerLimits) -> None:
    """Each limit that a worker may name has a code, words and the bound that was set, also where none was."""
    verdict = decide_verdict(Facts(limits, _exited(), Finished("limit", 0, limit=name, usage=5)))
    assert verdict.outcome == "limit"
    assert verdict.exit_code == 75
    assert verdict.limit is not None
    assert (verdict.limit.name, verdict.limit.code, verdict.limit.usage) == (name, LIMIT_CODES[name], 5)
    assert verdict.message


@pytest.mark.parametrize(
    ("reached", "words"),
    [
        (LimitReached("memory", "A2001", 64 << 20, 0, "bytes"), "needed more memory than its limit of 64 MiB"),
        (LimitReached("memory", "A2001", 256 * 10**6, 0, "bytes"), "needed more memory than its limit of 256 MB"),
        (LimitReached("memory", "A2001", 1_500_000, 0, "bytes"), "needed more memory than its limit of 1.5 MB"),
        (LimitReached("memory", "A2001", 12_345, 0, "bytes"), "needed more memory than its limit of 12345 bytes"),
        (LimitReached("output", "A2005", 1 << 10, 0, "bytes"), "printed more than its output limit of 1 KiB"),
        (LimitReached("timeout", "A2002", 1_500_000_000, 0, "ns"), "ran longer than its timeout of 1.5 s"),
        (LimitReached("cpu", "A2004", 2 * 10**9, 0, "ns"), "used more CPU time than its limit of 2 s"),
        (LimitReached("fuel", "A2003", 7, 0, "units of fuel"), "used up its fuel of 7 units"),
        (LimitReached("fuel", "A2003", 1, 0, "units of fuel"), "used up its fuel of 1 unit"),
        (LimitReached("output", "A2005", 1, 2, "bytes"), "printed more than its output limit of 1 byte"),
    ],
)
def test_a_limit_in_words(reached: LimitReached, words: str) -> None:
    """A limit is told with its quantity in the unit in which it was written."""
    assert limit_message(reached) == words


def test_a_missing_layer_is_named_with_the_call_and_the_error() -> None:
    """The message of a start that failed says which layer, which call and why."""
    message = decide_verdict(Facts(LIMITS, _exited(1), start_failed=START_FAILED)).message
    assert message.splitlines() == [
        "required layer landlock can't be had (landlock_create_ruleset, Function not implemented): not built in",
        DOCTOR_HINT,
    ]
    probed = replace(START_FAILED, call="probe", errno=0, message="landlock: probe: disabled at boot")
    message = decide_verdict(Facts(LIMITS, _exited(1), start_failed=probed)).message
    assert message.splitlines() == ["required layer landlock can't be had: disabled at boot", DOCTOR_HINT]


def test_a_start_that_hung_and_was_killed_is_still_a_failed_start() -> None:
    """SIGKILL may be our own, after a worker said that it can't start: what it said stays the reason."""
    verdict = decide_verdict(Facts(LIMITS, _killed(signal.SIGKILL), start_failed=START_FAILED))
    assert verdict == Verdict("refused", 69, verdict.message, "A3001")
