"""What a worker that was broken into can do with its one connection: raw calls behind an actor's filter, in all layers.

Each attack that must end the worker stands beside the call that it is made of in its harmless form.
"""

from __future__ import annotations

import errno
import select
import socket
import struct
from typing import TYPE_CHECKING

import pytest

from ipc import syscalls
from ipc.messages import EndWorker
from worker.filter_compiler import resolve

if TYPE_CHECKING:
    from conftest import Instance, Stage

STREAM = socket.SOCK_STREAM | socket.SOCK_CLOEXEC
SOCKET = ("fd", "socket", "1", str(STREAM), "0")
CONNECT = ("connected", "connect", "r:fd", "x:0100", "2")


def program(*steps: tuple[str, ...]) -> str:
    """Return the text of a probe: label, call by name, arguments."""
    machine = syscalls.machine()
    lines = []
    for label, call, *arguments in steps:
        kind, _, name = call.rpartition(":")
        number = f"{kind}:{resolve(name, machine)}" if kind else str(resolve(name, machine))
        lines.append("\t".join((label, number, *arguments)))
    return "\n".join(lines)


def probe(stage: Stage, *steps: tuple[str, ...]) -> Instance:
    """Run the steps in a worker behind an actor's filter."""
    return stage.running(
        component='(module (func (export "_start")))',
        wasm_kind="module",
        kind="actor-probe",
        arguments=("actor", program(*steps)),
    )


def results(instance: Instance) -> dict[str, int]:
    """Return what each call returned, its negative errno where it failed."""
    instance.wait_finished()
    found = {}
    for line in instance.stdout().splitlines():
        label, result, number = line.split()
        found[label] = -int(number) if int(result) < 0 else int(result)
    return found


def test_one_connection_and_no_other(stage: Stage) -> None:
    """The broker's socket is given once; a second one, and a connection of anything else, are refused and recorded."""
    broker = stage.broker(1)
    found = results(
        probe(
            stage,
            SOCKET,
            CONNECT,
            ("again", "connect", "r:fd", "x:0100", "2"),
            ("second", "socket", "1", str(STREAM), "0"),
            ("elsewhere", "connect", "3", "x:0100", "2"),
            ("datagram", "socket", "1", str(socket.SOCK_DGRAM), "0"),
            ("inet", "socket", "2", str(STREAM), "0"),
            ("closed", "close", "r:fd"),
            ("third", "socket", "1", str(STREAM), "0"),
        )
    )
    assert found["fd"] > 3
    assert found["connected"] == 0
    assert found["again"] == -errno.ECONNREFUSED
    assert {found[name] for name in ("second", "elsewhere", "datagram", "inet")} == {-errno.EACCES}
    assert found["third"] > 3
    assert broker.announced == ["actor-00000000"] * 2
    resources = {record["resource"] for record in stage.recorded(decision="denied", code="A1702")}
    assert {"broker", "connect", "socket(family 1, type 2)", "socket(family 2, type 1)"} <= resources


def test_a_worker_without_a_broker_gets_no_socket(stage: Stage) -> None:
    """The same calls of a worker whose policy has no broker: refused, and the broker is not asked."""
    broker = stage.broker(1)
    instance = stage.running(
        component='(module (func (export "_start")))',
        wasm_kind="module",
        kind="actor-probe",
        arguments=("actor", program(SOCKET)),
        broker=False,
    )
    assert results(instance) == {"fd": -errno.EACCES}
    assert broker.announced == []


def test_a_connection_that_the_broker_has_closed_makes_room_for_another(stage: Stage) -> None:
    """Who still holds the dead end gets a new one; who holds a live one does not."""
    stage.broker(1)
    number = results(probe(stage, SOCKET))["fd"]
    closed = struct.pack("<ihh", number, 0, 0).hex()
    found = results(
        probe(
            stage,
            SOCKET,
            CONNECT,
            ("second", "socket", "1", str(STREAM), "0"),
            ("garbage", "sendto", "r:fd", "x:" + "55" * 64, "64", "0", "0", "0"),
            ("hung_up", "poll", f"x:{closed}", "1", "20000"),
            ("third", "socket", "1", str(STREAM), "0"),
        )
    )
    assert found["fd"] == number
    assert found["second"] == -errno.EACCES
    assert (found["garbage"], found["hung_up"]) == (64, 1)
    assert found["third"] > number


def test_where_nobody_listens_the_socket_is_dead(stage: Stage) -> None:
    """It can't be connected, nothing is sent by it, and the next attempt is free."""
    found = results(
        probe(
            stage,
            SOCKET,
            CONNECT,
            ("sent", "write", "r:fd", "s:x", "1"),
            ("second", "socket", "1", str(STREAM), "0"),
        )
    )
    assert found["fd"] > 3
    assert (found["connected"], found["sent"]) == (-errno.ECONNREFUSED, -errno.EPIPE)
    assert found["second"] > 3


ENDING = {
    "send to an address": ("sendto", "r:fd", "s:x", "1", "0", "x:0100", "2"),
    "send out of band": ("sendto", "r:fd", "s:x", "1", "1", "0", "0"),
    "receive an address": ("recvfrom", "r:fd", "b:64", "64", "0", "b:128", "b:8"),
    "receive with a flag": ("recvfrom", "r:fd", "b:64", "64", "2", "0", "0"),
    "a descriptor beside a message": ("sendmsg", "r:fd", "b:64", "0"),
    "signals for what arrives": ("fcntl", "r:fd", "4", str(0x802 | 0x2000)),
    "whose signals": ("fcntl", "r:fd", "8", "1"),
    "credentials of the peer": ("getsockopt", "r:fd", "1", "17", "b:64", "x:40000000"),
    "an option": ("setsockopt", "r:fd", "1", "9", "x:01000000", "4"),
    "a second number of it": ("fcntl", "r:fd", "1030", "0"),
    "a name for it": ("bind", "r:fd", "x:0100", "2"),
    "listening": ("listen", "r:fd", "1"),
    "a pair": ("socketpair", "1", str(STREAM), "0", "b:8"),
    "a scheduler of its own": ("sched_setscheduler", "0", "1", "x:01000000"),
}


@pytest.mark.parametrize("name", ENDING)
def test_what_no_client_does_ends_the_worker(stage: Stage, name: str) -> None:
    """Each is a violation on record, or kills at once; the broker hears nothing of it."""
    stage.broker(1)
    instance = probe(stage, SOCKET, CONNECT, ("attack", *ENDING[name]), ("alive", "getpid"))
    message = stage.wait_end_or_death(instance)
    instance.launched.abandon()
    if isinstance(message, EndWorker):
        assert message.code == "A1701"
    assert "alive" not in instance.stdout()


HARMLESS = {
    "send": (("sendto", "r:fd", "s:x", "1", "0", "0", "0"), 1),
    "unblock": (("fcntl", "r:fd", "4", str(0x802)), 0),
    "error": (("getsockopt", "r:fd", "1", "4", "b:4", "x:04000000"), 0),
    "peer": (("getpeername", "r:fd", "b:128", "x:80000000"), -errno.ENOTCONN),
    "lock": (("mlock", "b:64", "64"), -errno.EPERM),
    "scheduler": (("sched_setscheduler", "0", "0", "x:00000000"), 0),
}


def test_what_a_client_does_is_let_by(stage: Stage) -> None:
    """The positive control of every attack above: the same calls as libzmq makes them."""
    stage.broker(1)
    number = results(probe(stage, SOCKET))["fd"]
    readable = struct.pack("<ihh", number, select.POLLIN, 0).hex()
    found = results(
        probe(
            stage,
            SOCKET,
            CONNECT,
            ("readable", "poll", f"x:{readable}", "1", "20000"),
            ("received", "recvfrom", "r:fd", "b:64", "10", "0", "0", "0"),
            *((name, *call) for name, (call, _) in HARMLESS.items()),
        )
    )
    assert (found["readable"], found["received"]) == (1, 10)  # a ZMTP greeting's first bytes
    assert {name: found[name] for name in HARMLESS} == {name: result for name, (_, result) in HARMLESS.items()}
