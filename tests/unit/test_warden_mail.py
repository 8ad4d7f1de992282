"""A warden's channel with several workers behind it: each hears what is said of it alone, and all hear of its death."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import cast

import pytest

from ipc.channel import Channel
from ipc.messages import Attached, Detached, WardenReady
from ipc.struct import Struct, field
from supervisor.host.processes import WardenProcess
from supervisor.host.warden_client import AboutWorker, WardenClient
from supervisor.host.warden_mail import WardenMail


class Heard(Struct):
    """A reader that keeps what it was told."""

    said: list[AboutWorker] = field(default_factory=list)
    ready: int = 0
    lost: int = 0

    def on_warden_said(self, message: AboutWorker) -> None:
        """Keep it."""
        self.said.append(message)

    def on_warden_ready(self, message: WardenReady) -> None:
        """Count it."""
        self.ready += 1

    def on_warden_lost(self, lost: WardenClient) -> None:
        """Count it."""
        self.lost += 1


class Ends(Struct):
    """The warden's end of a channel, and who reads the other one."""

    warden: Channel
    mail: WardenMail


@pytest.fixture
def ends() -> Iterator[Ends]:
    """Yield both ends of a channel; no process stands behind it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    started = cast("WardenProcess", SimpleNamespace(endpoint=ours, process=SimpleNamespace(pid=0)))
    warden, mail = Channel(theirs), WardenMail(WardenClient(started))
    try:
        yield Ends(warden, mail)
    finally:
        warden.close()
        mail.warden.channel.close()


def test_each_worker_hears_of_itself_alone(ends: Ends) -> None:
    """Messages go to whom they name, whoever reads; of one that has left, or was never there, they are dropped."""
    first, second = Heard(), Heard()
    ends.mail.join("first", first)
    ends.mail.join("second", second)
    ends.warden.send(WardenReady(()))
    said = (Attached("second"), Attached("first"), Attached("nobody"), Detached("second", 0, 0, 0))
    for message in said:
        ends.warden.send(message)
    for _ in range(1 + len(said)):
        ends.mail.read()
    assert (first.ready, second.ready) == (1, 1)
    assert first.said == [said[1]]
    assert second.said == [said[0], said[3]]
    ends.mail.leave("second")
    ends.warden.send(Detached("second", 0, 0, 0))
    ends.mail.read()
    assert second.said == [said[0], said[3]]


def test_a_death_is_everybodys(ends: Ends) -> None:
    """The end of the channel is told to each worker that is still there, and to no other."""
    readers = {name: Heard() for name in ("first", "second", "left")}
    for name, reader in readers.items():
        ends.mail.join(name, reader)
    ends.mail.leave("left")
    ends.warden.close()
    ends.mail.read()
    assert {name: reader.lost for name, reader in readers.items()} == {"first": 1, "second": 1, "left": 0}
