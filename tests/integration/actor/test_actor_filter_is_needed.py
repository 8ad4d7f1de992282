"""The filter of actors allows nothing that they can do without: each of its rules is left out once, and they fail."""

from __future__ import annotations

import os
import select
from typing import TYPE_CHECKING

import pytest

import supervisor.host.zygote
from ipc.broker.messages import Answer, Hello
from ipc.messages import StartFailed, Stop
from ipc.syscalls import machine
from supervisor.host.zygote import Zygote
from worker.filter_compiler import load

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import Stage

_WITHOUT = """sys
from ipc.struct import replace
from worker import filter_compiler, seccomp
def load(name, original=filter_compiler.load):
    data = original(name)
    rules = list(data.rules)
    if name == "actor" and {number} >= 0:
        del rules[{number}]
    return replace(data, rules=tuple(rules))
seccomp.load = load
import worker.zygote_preload"""
TIMEOUT_S = 30.0
RULES = {
    number: rule
    for number, rule in enumerate(load("actor").rules)
    if number >= len(load("confine").rules) and machine() in rule.architectures and not rule.unseen
}


@pytest.fixture
def without(stage: Stage, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Stage]:
    """The stage with a zygote whose filter for actors lacks one rule; with all of them for -1."""
    preload = (_WITHOUT.format(number=request.param), "worker.actor_preload")
    monkeypatch.setattr(supervisor.host.zygote, "ACTOR_PRELOAD", preload)
    usual = stage.zygote
    stage.zygote = Zygote(namespaces=usual.user_namespace is not None, actors=True)
    if usual.user_namespace is not None:
        stage.zygote.user_namespace = os.dup(usual.user_namespace)
    stage.zygote.start()
    try:
        yield stage
    finally:
        stage.end_instances()
        stage.zygote.close()
        stage.zygote = usual


def lives(stage: Stage) -> bool:
    """Whether an actor starts, answers, answers again after a restart of its broker, and ends in order."""
    broker = stage.broker(1)
    actor = stage.start()
    if isinstance(actor, StartFailed) or actor is None:
        return False
    for epoch in (2, 3):
        if not broker.hears(Hello, actor):
            return False
        broker.deliver(b"e")
        if not broker.hears(Answer, actor):
            return False
        stage.stop_broker()
        broker = stage.broker(epoch)
    if not broker.hears(Hello, actor):
        return False
    actor.launched.worker.send(Stop())
    # Its report, or the warden's word that it made a call that nobody may.
    assert select.select([actor.launched.worker.fileno(), stage.warden.channel.fileno()], [], [], TIMEOUT_S)[0]
    return actor.launched.worker.fileno() in select.select([actor.launched.worker.fileno()], [], [], 0)[0]


@pytest.mark.parametrize("without", [-1], indirect=True)
def test_with_all_rules_it_lives(without: Stage) -> None:
    """The control of what follows."""
    assert lives(without)


@pytest.mark.parametrize(
    "without", [pytest.param(number, id=f"{rule.call}-{number}") for number, rule in RULES.items()], indirect=True
)
def test_every_rule_is_needed(without: Stage) -> None:
    """Without it an actor doesn't start, is ended, or doesn't come back."""
    assert not lives(without)
