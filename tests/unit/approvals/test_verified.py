"""The note that a file was verified: about one state of one file, and worth nothing where it was touched."""

from __future__ import annotations

import pytest

from ipc.struct import replace
from supervisor.approvals.verified import QUIET_NS, FileState, is_quiet, note_text, noted_step

STATE = FileState(65024, 4711, 36_864, 1_800_000_000_000_000_001, 1_800_000_000_000_000_002)
LAST = (12, "ab" * 32)


def test_a_note_is_about_one_state_of_one_file() -> None:
    """Read back it has the last step; for a file of which anything is another it says nothing."""
    note = note_text(STATE, LAST)
    assert noted_step(note, STATE) == LAST
    for name in FileState.__struct_fields__:
        other = replace(STATE, **{name: getattr(STATE, name) + 1})
        assert noted_step(note, other) is None


@pytest.mark.parametrize("place", range(len(note_text(STATE, LAST))))
def test_a_note_that_was_touched_says_nothing(place: int) -> None:
    """Whichever character is another, or missing."""
    note = note_text(STATE, LAST)
    assert (
        noted_step(note[:place] + "0" * (note[place] != "0") + "1" * (note[place] == "0") + note[place + 1 :], STATE)
        is None
    )
    assert noted_step(note[:place] + note[place + 1 :], STATE) is None


@pytest.mark.parametrize("note", ["", ":" * 8, "1:2:3", ":" * 100, "\0", "²:" * 9])
def test_what_is_no_note_says_nothing(note: str) -> None:
    """Whatever is in the file."""
    assert noted_step(note, STATE) is None


def test_a_file_is_quiet_some_time_after_it_was_written() -> None:
    """Not at once, and not while the clock is behind it."""
    assert not is_quiet(STATE, STATE.ctime_ns)
    assert not is_quiet(STATE, STATE.ctime_ns - QUIET_NS)
    assert not is_quiet(STATE, STATE.ctime_ns + QUIET_NS)
    assert is_quiet(STATE, STATE.ctime_ns + QUIET_NS + 1)
