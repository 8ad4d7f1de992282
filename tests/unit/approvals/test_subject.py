"""What an approval is about: the start's own directories by their names, so that one set is the same everywhere."""

from __future__ import annotations

import pytest

from ipc.policy.capability import Grant
from supervisor.approvals.subject import STAND_INS, Subject, named, named_value, placed, placed_value
from supervisor.manifest import Variables

HERE = Variables(component="/var/lib/airssys-packages/ab", data="/var/lib/airssys/data/x", tmp="/tmp/x-1")
THERE = Variables(component="/home/me/x", data="/home/me/x/.airssys/data/x", tmp="/home/me/x/.airssys/tmp/2")
SYMBOLIC = ("${component}/assets/**", "${component}", "${data}/out/*.json", "${tmp}/", "/srv/logs/**")


def grants(*patterns: str) -> tuple[Grant, ...]:
    """Return grants to read."""
    return tuple(Grant("filesystem.read", pattern, "Component.toml") for pattern in patterns)


@pytest.mark.parametrize("own", [HERE, THERE, STAND_INS])
def test_a_set_is_the_same_wherever_it_lies(own: Variables) -> None:
    """Named on one host and placed on another each has its own, also where its directories lie within each other."""
    asked = grants(*SYMBOLIC)
    assert named(placed(asked, own), own) == asked
    there = [grant.pattern_text for grant in placed(asked, own)]
    assert there == [
        f"{own.component}/assets/**",
        own.component,
        f"{own.data}/out/*.json",
        f"{own.tmp}/",
        "/srv/logs/**",
    ]
    assert Subject("x", "", "ab" * 32, named(placed(asked, own), own)).key == Subject("x", "", "ab" * 32, asked).key


@pytest.mark.parametrize("path", ["/home/me/x2/a", "/home/me", "/home/me/**", "/home/m?/x/a", "/srv/home/me/x/a"])
def test_what_only_looks_like_its_own_is_not_called_so(path: str) -> None:
    """A neighbour, what lies above, a pattern that covers more; and nothing but paths is a path."""
    assert named(grants(path), THERE) == grants(path)
    send = Grant("messaging.send", "${component}/x", "Component.toml")
    assert placed((send,), HERE) == (send,)


def test_a_path_of_another_host_stays_what_it_is() -> None:
    """What was asked before this had a name, and where a component lies elsewhere, is not this start's own."""
    elsewhere = grants(f"{HERE.component}/assets/**")
    assert named(elsewhere, THERE) == elsewhere
    assert placed(elsewhere, THERE) == elsewhere


def test_parameters_are_named_likewise() -> None:
    """A directory that was given, and what is no text."""
    assert named_value(f"{HERE.component}/words", HERE) == "${component}/words"
    assert placed_value("${component}/words") == f"{STAND_INS.component}/words"
    assert (named_value(7, HERE), placed_value(True)) == (7, True)
