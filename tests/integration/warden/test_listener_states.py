"""What the kernel keeps of calls whose receiver was killed: on this rests who goes on after the death of a warden."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ipc import syscalls
from ipc.struct import Struct
from supervisor.host.namespaces import Spawned, isolated_python, spawn
from supervisor.host.warden_recovery import calls_in_hand, has_unanswered_call

ACTOR = Path(__file__).with_name("actor.py")
TIMEOUT_S = 20.0
RECEIVER = """
import os, signal
from ipc.warden.notify import Listener
listener = Listener({listener}, bytearray(1))
for answers in {answers}:
    call = listener.receive()
    if answers:
        listener.answer(call, -17)
    os.write({told}, b"x")
signal.pause()
"""
"""Stands for a warden: takes one call for each of `answers`, answers it or doesn't, and tells of it."""


class Scene(Struct):
    """A process whose mkdirat(2) is notified, and the supervisor's duplicate of its listener."""

    process: Spawned
    channel: socket.socket
    listener: int
    stack: contextlib.ExitStack

    def call(self) -> None:
        """Have it make a call of which nothing can come."""
        self.channel.send(b"result = sys_call('mkdirat', -100, b'/nowhere/at/all', 0o700)")

    def result(self) -> int:
        """Wait for what the call returned."""
        answer = json.loads(self.channel.recv(1 << 16))
        result = answer["result"]
        assert isinstance(result, int)
        return result

    def is_waiting(self, timeout_s: float = TIMEOUT_S) -> bool:
        """Whether a call comes to wait for a receiver."""
        poller = select.poll()
        poller.register(self.listener, select.POLLIN)
        return any(events & select.POLLIN for _, events in poller.poll(timeout_s * 1000))

    def receiver(self, *answers: bool) -> Callable[[], None]:
        """Start a receiver and return once it has taken its calls; the function that is returned kills it."""
        told, tells = os.pipe2(os.O_CLOEXEC)
        code = RECEIVER.format(listener=self.listener, told=tells, answers=answers)
        process = spawn(isolated_python(code), (self.listener, tells))
        os.set_inheritable(self.listener, False)
        os.close(tells)

        def kill() -> None:
            process.send_signal(signal.SIGKILL)
            assert process.wait(TIMEOUT_S)

        self.stack.callback(process.close)
        self.stack.callback(kill)
        self.stack.callback(os.close, told)
        for _ in answers:
            assert select.select([told], [], [], TIMEOUT_S)[0]
            assert os.read(told, 1) == b"x", process.last_words()
        return kill


@pytest.fixture
def scene() -> Iterator[Scene]:
    """The process, about to call."""
    number = syscalls.NOTIFIED[syscalls.machine()]["file"]["mkdirat"]
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with contextlib.ExitStack() as stack:
        process = spawn((sys.executable, "-I", str(ACTOR), str(theirs.fileno())), (theirs.fileno(),))
        theirs.close()
        stack.callback(process.close)
        stack.callback(process.wait, TIMEOUT_S)
        stack.callback(process.send_signal, signal.SIGKILL)
        stack.callback(ours.close)
        ours.settimeout(TIMEOUT_S)
        orders = {"numbers": {"mkdirat": number}, "notified": [number], "uid": None, "dumpable": True}
        ours.send(json.dumps(orders).encode())
        _, (listener,), _, _ = socket.recv_fds(ours, 64, 1)
        made = Scene(process, ours, listener, stack)
        stack.callback(lambda: os.close(made.listener) if made.listener >= 0 else None)
        yield made


def test_nothing_is_unanswered_before_a_call(scene: Scene) -> None:
    """A process that makes no call has nothing to lose."""
    assert not has_unanswered_call(scene.listener)


def test_a_call_that_nobody_received_waits_and_is_answered_by_the_next(scene: Scene) -> None:
    """While a duplicate is held the call outlives a killed receiver that had not taken it; nothing is unanswered."""
    scene.receiver()()
    scene.call()
    assert scene.is_waiting()
    assert not has_unanswered_call(scene.listener)
    scene.receiver(True)()
    assert scene.result() == -errno.EEXIST
    assert not has_unanswered_call(scene.listener)


def test_a_received_call_is_seen_and_never_handed_out_again(scene: Scene) -> None:
    """A call that a killed receiver had taken is seen from the duplicate, named, and no next receiver gets it."""
    scene.call()
    kill = scene.receiver(False)
    assert has_unanswered_call(scene.listener)
    kill()
    assert has_unanswered_call(scene.listener)
    assert calls_in_hand(scene.process.pid) == ("mkdirat",)
    assert not scene.is_waiting(timeout_s=0.2)


def test_an_answered_call_is_not_unanswered(scene: Scene) -> None:
    """A receiver that dies right after its answer leaves nothing behind."""
    scene.call()
    scene.receiver(True)()
    assert scene.result() == -errno.EEXIST
    assert not has_unanswered_call(scene.listener)


def test_without_a_duplicate_calls_fail(scene: Scene) -> None:
    """The control: when the receiver that is killed was the last to hold the listener, the call returns ENOSYS."""
    kill = scene.receiver()
    os.close(scene.listener)
    scene.listener = -1
    scene.call()
    kill()
    assert scene.result() == -errno.ENOSYS


def test_the_names_of_a_process_that_is_gone_are_none(scene: Scene) -> None:
    """Whatever /proc doesn't tell is left out."""
    scene.process.send_signal(signal.SIGKILL)
    assert scene.process.wait(TIMEOUT_S)
    assert calls_in_hand(scene.process.pid) == ()
