"""What people type that can't be meant: told in words, before anything is asked or started."""

from __future__ import annotations

import argparse

import pytest

from supervisor.cli.call import _payload
from supervisor.cli.up_plans import _sorted_out
from supervisor.usage_error import UsageError


def _given(text: str | None = None, source: str | None = None) -> argparse.Namespace:
    return argparse.Namespace(source=source, json_text=text, file=None)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "line 1"),
        ("NaN", "NaN is not JSON"),
        ("[-Infinity]", "-Infinity is not JSON"),
        ('"\udcff"', "is not UTF-8"),
        ("", "line 1"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_what_is_no_json_is_not_sent(text: str, words: str) -> None:
    """Half a document, a number that JSON doesn't have, bytes that are no text, more levels than are read."""
    with pytest.raises(UsageError, match=words):
        _payload(_given(text), 1000, "a message has")


def test_json_is_sent_as_it_was_typed() -> None:
    """The control: what is JSON isn't changed."""
    assert _payload(_given('{"a":  1.0}'), 1000, "a message has") == b'{"a":  1.0}'
    with pytest.raises(UsageError, match="exclude each other"):
        _payload(_given("1", source="-"), 1000, "a message has")


@pytest.mark.parametrize(
    ("flag", "text", "words"),
    [
        ("--set", "logs", "expected NAME=VALUE"),
        ("--set", "=x", "expected NAME=VALUE"),
        ("--secret", "TOKEN", "expected NAME=FILE"),
        ("--set", "other=1", "none of these components asks for it"),
    ],
)
def test_an_assignment_that_is_none_is_told_apart_from_one_for_nobody(flag: str, text: str, words: str) -> None:
    """`--set logs` isn't about a parameter that nobody has."""
    with pytest.raises(UsageError, match=words):
        _sorted_out(flag, [text], [("a", {"logs"}), ("b", {"TOKEN"})])
