"""A hundred thousand envelopes that are almost valid, of every type and in every phase, against the real broker."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ipc.broker import messages as m

from .conftest import Stage
from .test_broker_attacks import memory_bytes, resident_bytes, still_works

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "unit/broker"))

from mutations import mutate

pytestmark = pytest.mark.any_user

MIB = 1 << 20
PEERS = 250
FRAMES = 400
MAY = (("messaging.send", "**"), ("messaging.publish", "**"), ("storage.read", "**"), ("storage.write", "**"))


def test_a_hundred_thousand_envelopes_that_are_almost_valid(new_stage: Callable[..., Stage]) -> None:
    """Who sends them is ended once and named once; the broker lives, has not grown, and a neighbour doesn't notice."""
    stage = new_stage(code=None)
    witness = stage.actor("witness", ("storage.read", "**"))
    chosen = random.Random(8)
    frames = [mutate(chosen) for _ in range(FRAMES * 10)]
    before: tuple[int, int] | None = None
    malformed = 0
    for number in range(PEERS):
        name = f"peer-{number}"
        keys = stage.admit(name, *MAY)
        stage.wait_for(lambda name=name: stage.announce(name), "it is admitted")  # type: ignore[misc]
        client = stage.connect(keys)
        if number % 3:
            client.send(m.Hello(m.PROTOCOL))
            if number % 3 == 2:
                client.send(m.Bye())
        for _ in range(FRAMES):
            client.socket.send(frames[chosen.randrange(len(frames))])
            malformed += 1
        assert stage.wait_ended(name).code == "A1806"
        assert witness.ask(m.Exists(1_000_000, "k")) == m.Accepted(1_000_000, 0)
        client.close()
        stage.clients.remove(client)
        stage.client.dismiss(f"{name}-1")
        if number == PEERS // 10:  # once every table and buffer has been used
            before = memory_bytes(stage.client.pid), resident_bytes(stage.client.pid)
    assert malformed == 100_000
    still_works(stage, witness)
    assert before is not None
    assert memory_bytes(stage.client.pid) - before[0] < 16 * MIB
    assert resident_bytes(stage.client.pid) - before[1] < 16 * MIB
    stage.wait_for(lambda: len(stage.events("violation")) >= PEERS, "all are on record")
    named = [str(record["component"]) for record in stage.events("violation")]
    assert sorted(named) == sorted(f"peer-{number}" for number in range(PEERS))
