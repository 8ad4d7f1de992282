"""What a component logs becomes one line of JSON each."""

from __future__ import annotations

import json

from worker.host.services import log_line


def test_fields_of_one_name_are_all_there() -> None:
    """A component may use a name twice: no value is lost, and what is used once stays a text."""
    line = log_line("info", "granted", [("what", "a"), ("by", "me"), ("what", "b")])
    assert json.loads(line) == {"level": "info", "message": "granted", "fields": {"what": ["a", "b"], "by": "me"}}


def test_what_is_too_much_is_cut_and_says_so() -> None:
    """Text, names, values and the number of fields are bounded."""
    line = log_line("info", "m" * 20_000, [(f"{n}" + "n" * 5_000, "v" * 5_000) for n in range(70)])
    entry = json.loads(line)
    assert entry["message"].startswith("mmm")
    assert "[cut: 20000 bytes" in entry["message"]
    assert (len(entry["fields"]), entry["fields_left_out"]) == (64, 6)
    assert all(len(name) <= 4096 and len(value) <= 4096 for name, value in entry["fields"].items())
