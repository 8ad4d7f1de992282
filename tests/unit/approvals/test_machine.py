"""The life of a request as a table: every pair is there, what is final stays so, and the page shows the table."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest

from supervisor.approvals.machine import FINAL, MEANINGS, TABLE, Event, Refusal, State, advance, state_table

PAGE = Path(__file__).resolve().parents[3] / "docs/reference/approvals.md"


def test_every_pair_has_an_answer() -> None:
    """A state or a refusal with its reason, for each state and each event; and each event means something."""
    assert set(TABLE) == set(product(State, Event))
    assert all(isinstance(step, State) or step.reason for step in TABLE.values())
    assert set(MEANINGS) == set(Event)


@pytest.mark.parametrize("event", Event)
@pytest.mark.parametrize("state", sorted(FINAL))
def test_nothing_leads_out_of_a_final_state(state: State, event: Event) -> None:
    """Least of all to an approval. What may still run is revoked: what is superseded, or was for one start."""
    may_run = state in (State.EXPIRED, State.SUPERSEDED) and event is Event.REVOKED
    assert advance(state, event) is State.REVOKED if may_run else isinstance(advance(state, event), Refusal)


def test_what_is_reached_is_what_the_words_say() -> None:
    """requested → pending → approved, rejected, expired, withdrawn; approved → revoked, superseded, expired.

    And from the last two to revoked.
    """
    steps = {(before, after) for (before, _), after in TABLE.items() if isinstance(after, State) and before != after}
    answers = {State.APPROVED, State.REJECTED, State.EXPIRED, State.WITHDRAWN}
    assert steps == {
        (State.REQUESTED, State.PENDING),
        *product((State.REQUESTED, State.PENDING), answers),
        *((State.APPROVED, after) for after in (State.REVOKED, State.SUPERSEDED, State.EXPIRED)),
        *((before, State.REVOKED) for before in (State.SUPERSEDED, State.EXPIRED)),
    }


def test_a_vote_alone_approves_nothing() -> None:
    """Only what completes it does: no other event leads to an approval."""
    leading = {event for (before, event), after in TABLE.items() if after is State.APPROVED and before is not after}
    assert leading == {Event.CARRIED}


def test_the_page_shows_the_table() -> None:
    """The reference page has the table as it is, and says what each event means."""
    text = PAGE.read_text(encoding="utf-8")
    assert state_table() in text
    for event, meaning in MEANINGS.items():
        assert f"| `{event}` | {meaning} |" in text
