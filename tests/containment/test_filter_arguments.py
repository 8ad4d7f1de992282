"""Each rule of filter 1 that looks at arguments, from inside a sealed worker: outside of the rule the call is refused.

The altered arguments are derived from the filter's data, so a rule that is added is tried too. Beside them the control:
the same calls with the arguments that the rules name are made.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from ipc.syscalls import machine
from worker.filter_compiler import EMPTY_PATH_SENTINEL, SELF_PID_SENTINEL, Condition, Rule, load

if TYPE_CHECKING:
    from conftest import Argument, Steps, World

ABOVE = 1 << 32
OTHERS = os.getpid()
"""A process that isn't the worker: this one."""
RULES = [rule for rule in load("confine").rules if rule.conditions and machine() in rule.architectures]
ARGUMENTS: dict[str, tuple[Argument, ...]] = {
    "clock_getres": (0, "b:16"),
    "clock_gettime": (0, "b:16"),
    "clone": (0, 0, 0, 0, 0),
    "fcntl": (1, 0, 60),
    "futex": ("b:4", 0, 1, 0, 0, 0),
    "ioctl": (1, 0, "b:64"),
    "madvise": (0, 0, 0),
    "membarrier": (0, 0, 0),
    "mmap": (0, 4096, 3, 0x22, -1, 0),
    "mremap": (0, 4096, 4096, 0, 0),
    "prctl": (0, "s:x", 0, 0, 0),
    "prlimit64": (0, 7, 0, "b:16"),
    "pwritev2": (1, 0, 0, 0, 0, 0),
    "recvmsg": (0, "b:56", 0),
    "seccomp": (0, 0, "b:16"),
    "sendmsg": (0, "b:56", 0),
    "statx": (1, "e:path", 0, 0xFFF, "b:256"),
    "tgkill": (0, "r:me", 0),
}
"""What a call's other arguments are."""
BEFORE_THE_SEAL = ("sendmsg", "recvmsg", "seccomp", "mremap")
"""Filter 2 takes them away, with any arguments."""


def holds(condition: Condition, value: int) -> bool:
    """Whether a value satisfies a condition; the sentinels stand for values that are only known inside."""
    value &= (1 << 64) - 1
    if condition.mask is not None:
        return value & condition.mask == condition.value
    assert condition.operator == "=="
    return value == condition.value


def within(rule: Rule) -> list[Argument]:
    """Arguments that satisfy a rule."""
    arguments = list(ARGUMENTS[rule.call])
    for condition in rule.conditions:
        named: dict[int, Argument] = {SELF_PID_SENTINEL: "r:me", EMPTY_PATH_SENTINEL: "e:path"}
        arguments[condition.argument] = named.get(condition.value, condition.value)
        if rule.call == "mmap":
            arguments[condition.argument] = 0x22
        if rule.call == "statx" and not condition.argument:
            arguments[0] = 1  # 0 satisfies the rule, and filter 2 takes it away
    return arguments


def altered(condition: Condition) -> set[Argument]:
    """Values that don't satisfy a condition: beside it, and with something in each end of its mask."""
    if condition.value == SELF_PID_SENTINEL:
        return {OTHERS, 0, -1}
    if condition.value == EMPTY_PATH_SENTINEL:
        return {"s:/"}  # other empty paths are the warden's to answer: test_empty_path.py
    if condition.mask is None:
        return {condition.value ^ 1, condition.value | ABOVE}
    bits = [1 << n for n in range(64) if condition.mask >> n & 1]
    return {condition.value ^ bits[0], condition.value ^ bits[-1]}


def outside() -> Iterator[tuple[str, Steps]]:
    """Yield a name and the steps for every alteration that no other rule of the same call admits."""
    seen = set()
    for rule in RULES:
        for condition in rule.conditions:
            for value in sorted(altered(condition), key=str):
                arguments = within(rule)
                arguments[condition.argument] = value
                key = (rule.call, condition.argument, value)
                if key in seen or any(_admits(other, arguments) for other in RULES if other.call == rule.call):
                    continue
                seen.add(key)
                name = f"{rule.call} argument {condition.argument} {value if isinstance(value, str) else hex(value)}"
                call = f"fork:{rule.call}" if rule.call == "clone" else rule.call
                yield name, [("me", "getpid"), ("x", call, *arguments)]


def _admits(rule: Rule, arguments: list[Argument]) -> bool:
    plain = {"r:me": SELF_PID_SENTINEL, "e:path": EMPTY_PATH_SENTINEL}
    for condition in rule.conditions:
        argument = arguments[condition.argument]
        value = plain.get(argument, -1) if isinstance(argument, str) else argument
        if not (holds(condition, value) or (condition.value == SELF_PID_SENTINEL == value)):
            return False
    return True


OUTSIDE = dict(outside())


def test_every_rule_with_arguments_is_tried() -> None:
    """No condition is left out: for each there is an alteration."""
    tried = {(steps[-1][1].removeprefix("fork:"), name.split()[2]) for name, steps in OUTSIDE.items()}  # type: ignore[union-attr]
    assert tried == {(rule.call, str(condition.argument)) for rule in RULES for condition in rule.conditions}


@pytest.mark.parametrize("name", OUTSIDE)
def test_altered_arguments_are_refused(sealed: World, name: str) -> None:
    """The call ends the worker; statx(2) alone goes to the warden, which answers with an errno here."""
    steps = OUTSIDE[name]
    ran = sealed.probe([*steps, ("after", "getpid")])
    if "after" in ran.results:
        assert steps[-1][1] == "statx", ran.results
        assert ran.results["x"] in (-errno.EACCES, -errno.EINVAL, -errno.EBADF), ran.results
        return
    assert set(ran.results) == {"me"}
    verdict = ran.report.verdict
    assert (verdict.outcome, verdict.exit_code) in (("refused", 77), ("crashed", 128 + 31)), verdict
    assert ran.violations() or "its filter kills at once" in verdict.message


def test_the_arguments_that_the_rules_name_are_let_by(sealed: World) -> None:
    """The control: the same calls as the rules name them all return to the worker, in one that lives on."""
    rules = [rule for rule in RULES if rule.call not in BEFORE_THE_SEAL and rule.call != "clone"]
    steps: Steps = [("me", "getpid"), *((f"x{n}", rule.call, *within(rule)) for n, rule in enumerate(rules))]
    results = sealed.probe([*steps, ("after", "getpid")]).results
    assert "after" in results
    for n, rule in enumerate(rules):
        if rule.action == "errno":
            assert results[f"x{n}"] == -rule.errno, rule
        else:
            assert results[f"x{n}"] not in (-errno.EACCES, -errno.ENOSYS, -errno.EPERM), rule
