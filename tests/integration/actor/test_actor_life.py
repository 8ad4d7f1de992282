"""An actor inside all layers: its messages, its storage, its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipc.broker.messages import Health, Hello

if TYPE_CHECKING:
    from conftest import Stage


def test_a_request_is_answered(stage: Stage) -> None:
    """It is initialised, says Hello and how it is, handles a request, and its answer has what the guest returned."""
    broker = stage.broker(1)
    actor = stage.running()
    assert broker.wait(Health) == [Health("healthy")]
    answer = broker.ask(b"e" + bytes(255))
    assert (answer.payload, answer.failure) == (b"e" + bytes(255), "")
    assert broker.wait(Hello) == [Hello(1, 0)]
    assert broker.users == {"worker"}
    finished = actor.stop()
    assert (finished.outcome, finished.exit_code) == ("exited", 0)
    assert '"message": "stopped"' in actor.stderr()
