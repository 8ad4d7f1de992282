"""Less than was asked, proven; what isn't proven is refused by its name."""

from __future__ import annotations

import pytest

from ipc.policy.capability import Grant
from supervisor.approvals.machine import Refusal
from supervisor.approvals.narrowing import nearest_hint, why_wider, without

READ = Grant("filesystem.read", "/srv/logs/**", "")
OWN = Grant("filesystem.write", "${tmp}/**", "")
POST = Grant("network.connect", "https://api.example.com", "", methods=("GET", "POST"))
REFUND = Grant("custom.payments.refund", "**", "", metadata=(("region", "eu"),))
SECRET = Grant("secrets.env", "TOKEN", "")
ASKED = (READ, OWN, POST, REFUND, SECRET)


@pytest.mark.parametrize(
    "narrowed",
    [
        (),
        ASKED,
        (Grant("filesystem.read", "/srv/logs/app/*.log", ""),),
        (Grant("filesystem.write", "${tmp}/out/*.json", ""), SECRET),
        (Grant("network.connect", "https://api.example.com/v1/**", "", methods=("GET",)),),
        (REFUND,),
    ],
)
def test_what_is_included_is_narrower(narrowed: tuple[Grant, ...]) -> None:
    """Less of it, or less of each."""
    assert why_wider(ASKED, narrowed) == ""


@pytest.mark.parametrize(
    "wider",
    [
        Grant("filesystem.read", "/srv/**", ""),
        Grant("filesystem.read", "/srv/logs/", ""),
        Grant("filesystem.write", "/srv/logs/x", ""),
        Grant("filesystem.write", "${data}/x", ""),
        Grant("filesystem.write", "/<tmp>/../x", ""),
        Grant("network.connect", "https://api.example.com", ""),
        Grant("network.connect", "https://api.example.com", "", methods=("DELETE",)),
        Grant("network.connect", "api.example.com:443", ""),
        Grant("custom.payments.refund", "**", "", metadata=(("region", "us"),)),
        Grant("custom.payments.charge", "**", ""),
        Grant("secrets.env", "OTHER", ""),
    ],
)
def test_what_is_wider_is_named(wider: Grant) -> None:
    """In any action, pattern, method or word to a provider; the twin that is included is let through."""
    assert f"{wider.action}:{wider.pattern_text}" in why_wider(ASKED, (READ, wider))
    assert why_wider((*ASKED, wider), (READ, wider)) == ""


def test_single_things_are_left_out_by_name() -> None:
    """As `show` prints them, with or without their methods."""
    assert without(ASKED, ["secrets.env:TOKEN"]) == (READ, OWN, POST, REFUND)
    assert without(ASKED, ["network.connect:https://api.example.com", "filesystem.write:${tmp}/**"]) == (
        READ,
        REFUND,
        SECRET,
    )
    assert without(ASKED, ["network.connect:https://api.example.com GET POST"]) == (READ, OWN, REFUND, SECRET)


def test_what_isnt_asked_can_not_be_left_out() -> None:
    """A name that was mistyped would leave in what was meant."""
    left = without(ASKED, ["secrets.env:TOKEN", "filesystem.read:/srv/log/**"])
    assert isinstance(left, Refusal)
    assert "filesystem.read:/srv/log/**" in left.reason


def test_a_name_that_was_nearly_right_is_offered() -> None:
    """Quoted for a shell, which would have changed it; where nothing is near, it is said where the names are."""
    asked = (Grant("filesystem.write", "${tmp}/**", ""), Grant("network.connect", "example.com:443", ""))
    meant = "did you mean this? --without 'filesystem.write:${tmp}/**'"
    for typed in ("filesystem.write:${tmp}/*", "filesystem.wrte:${tmp}/**", "filesystem.write:/**"):
        assert nearest_hint([typed], asked, "show 1") == meant
    assert nearest_hint(["x"], asked, "show 1") == "as they are called there: airssys approvals show 1"
    assert nearest_hint([], [], "show 1") == "as they are called there: airssys approvals show 1"
