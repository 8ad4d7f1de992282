"""What a worker in the hands of an attacker can do to the broker over the wire, each with a positive control."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq

from ipc.broker import messages as m
from ipc.broker.messages import MAX_FRAME_BYTES

from .conftest import GUARD_S, Client, Stage

MIB = 1 << 20
REFUSED = (zmq.EVENT_HANDSHAKE_FAILED_AUTH, zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL, zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL)


def memory_bytes(pid: int | None) -> int:
    """Return what a process holds of private memory (proc(5), VmData), as RLIMIT_DATA counts it."""
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmData")]
    return int(line.split()[1]) * 1024


def resident_bytes(pid: int | None) -> int:
    """Return what it has in memory (VmRSS)."""
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) * 1024


def still_works(stage: Stage, witness: Client) -> None:
    """A neighbour's message goes through, and the broker is the one it was."""
    assert witness.ask(m.Exists(1_000_000, "k")) == m.Accepted(1_000_000, 0)
    assert stage.client.restarts == 0


def test_only_an_announced_key_shakes_hands_and_once(stage: Stage) -> None:
    """Admitted isn't enough, announced is; one announcement lets one connection in, and none follows while it lives."""
    keys = stage.admit("one")
    assert stage.connect(keys).outcome() in REFUSED
    assert stage.announce("one")
    first = stage.connect(keys)
    assert first.outcome() == zmq.EVENT_HANDSHAKE_SUCCEEDED
    assert stage.connect(keys).outcome() in REFUSED
    first.send(m.Hello(m.PROTOCOL))
    assert isinstance(first.receive(), m.Welcome)
    assert not stage.announce("one")
    first.close()
    again = stage.hello("one", keys)
    assert again.ask(m.Exists(1, "k")) == m.Accepted(1, 0)
    assert not stage.announce("nobody")


def test_another_key_is_refused(stage: Stage) -> None:
    """A key that nobody admitted, a dismissed one, none at all, and the wrong one of the server: no handshake."""
    witness = stage.actor("witness")
    keys = stage.admit("one")
    assert stage.announce("one")
    assert stage.connect(zmq.curve_keypair()).outcome() in REFUSED
    wrong_server, _ = zmq.curve_keypair()
    assert stage.connect(keys, server_key=wrong_server).outcome(2) != zmq.EVENT_HANDSHAKE_SUCCEEDED
    plain = stage.context.socket(zmq.DEALER)
    plain.linger = 0
    plain.connect(stage.client.endpoint)
    plain.send(m.pack([m.Hello(m.PROTOCOL)]))
    assert not plain.poll(500)
    plain.close(0)
    control = stage.connect(keys)
    assert control.outcome() == zmq.EVENT_HANDSHAKE_SUCCEEDED
    control.close()
    stage.client.dismiss("one-1")
    assert not stage.announce("one")
    assert stage.connect(keys).outcome() in REFUSED
    still_works(stage, witness)


def test_a_routing_id_of_ones_own_choice_ends_the_peer(stage: Stage) -> None:
    """Who chooses its routing id could choose another's: it is ended by its first frame, and nobody else notices."""
    witness = stage.actor("witness")
    keys = stage.admit("thief")
    assert stage.announce("thief")
    thief = stage.context.socket(zmq.DEALER)
    thief.linger = 0
    thief.routing_id = b"stolen"
    thief.curve_serverkey = stage.client.server_public_key
    thief.curve_publickey, thief.curve_secretkey = keys
    thief.connect(stage.client.endpoint)
    thief.send(m.pack([m.Hello(m.PROTOCOL)]))
    assert "routing id" in stage.wait_ended("thief").reason
    thief.close(0)
    still_works(stage, witness)


@contextlib.contextmanager
def relayed(stage: Stage, path: str, said: Callable[[bytes], object]) -> Iterator[threading.Thread]:
    """Relay one connection from `path` to the broker; `said` is called with what the client says, behind each piece."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()

        def relay() -> None:
            near, _ = listener.accept()
            with near, socket.socket(socket.AF_UNIX) as far, contextlib.suppress(OSError):
                far.connect(stage.client.socket_path)

                def back() -> None:
                    with contextlib.suppress(OSError):
                        while data := far.recv(65536):
                            near.sendall(data)

                threading.Thread(target=back, daemon=True).start()
                while data := near.recv(65536):
                    far.sendall(data)
                    said(data)
                far.shutdown(socket.SHUT_RDWR)  # the other thread waits in it

        thread = threading.Thread(target=relay, daemon=True)
        thread.start()
        yield thread


def test_a_recorded_connection_is_no_connection(stage: Stage) -> None:
    """Every byte of a conversation, played again while another handshake is announced, does nothing."""
    keys = stage.admit("one")
    assert stage.announce("one")
    path = stage.directory / "relay"
    said = bytearray()
    with relayed(stage, str(path), said.extend) as relay:
        dealer = stage.context.socket(zmq.DEALER)
        dealer.linger = 0
        dealer.curve_serverkey = stage.client.server_public_key
        dealer.curve_publickey, dealer.curve_secretkey = keys
        dealer.connect(f"ipc://{path}")
        for message in (m.Hello(m.PROTOCOL), m.Set(1, "k", b"1"), m.Delete(2, "k")):
            dealer.send(m.pack([message]))
            assert dealer.poll(GUARD_S * 1000)
            dealer.recv()
        dealer.close(0)
        relay.join(GUARD_S)
    stage.wait_for(lambda: stage.announce("one"), "the connection is gone")
    with socket.socket(socket.AF_UNIX) as replay:
        replay.connect(stage.client.socket_path)
        replay.settimeout(GUARD_S)
        with contextlib.suppress(OSError):
            replay.sendall(said)
            while replay.recv(65536):
                pass
    client = stage.connect(keys)
    client.send(m.Hello(m.PROTOCOL))
    assert isinstance(client.receive(), m.Welcome)
    assert client.ask(m.Get(1, "k")) == m.Value(1, None)


def test_a_frame_that_is_too_long(stage: Stage) -> None:
    """A little too long: the peer is ended by name. Much too long: libzmq closes the connection, unread."""
    witness = stage.actor("witness")
    little = stage.actor("little")
    little.socket.send(b"x" * (MAX_FRAME_BYTES + 1))
    assert "bytes" in stage.wait_ended("little").reason
    much = stage.actor("much")
    assert much.outcome() == zmq.EVENT_HANDSHAKE_SUCCEEDED
    much.socket.send(b"x" * (MAX_FRAME_BYTES + MIB))
    assert much.outcome() == zmq.EVENT_DISCONNECTED
    still_works(stage, witness)


def test_a_message_of_several_frames_ends_the_peer(stage: Stage) -> None:
    """Two frames where one is expected; the same content in one frame is taken."""
    witness = stage.actor("witness")
    attacker = stage.actor("attacker")
    assert attacker.ask(m.Exists(1, "k")) == m.Accepted(1, 0)
    attacker.socket.send_multipart([m.pack([m.Exists(2, "k")]), b""])
    assert "several frames" in stage.wait_ended("attacker").reason
    assert attacker.receive(0.2) is None
    still_works(stage, witness)


BOMB = """
import sys, zmq
from ipc.broker import messages as m
endpoint, *keys, how = sys.argv[1:]
dealer = zmq.Context().socket(zmq.DEALER)
dealer.sndhwm = 0
dealer.curve_serverkey, dealer.curve_publickey, dealer.curve_secretkey = (key.encode() for key in keys)
dealer.connect(endpoint)
if how != "as its first message":
    dealer.send(m.pack([m.Hello(m.PROTOCOL)]))
    dealer.recv()
part = zmq.Frame(b"x" * 60_000)
for _ in range(20_000):
    dealer.send(part, zmq.SNDMORE, copy=False)
dealer.send(part, copy=False)  # libzmq sends none before the last one
sys.stdin.read()
"""


@pytest.mark.any_user
@pytest.mark.parametrize("how", ["after its hello", "as its first message", "slowly"])
def test_a_message_without_end_is_cut_off_and_named(new_stage: Callable[..., Stage], how: str) -> None:
    """20,000 frames of 60 kB in one message: the broker stays within its memory and ends who sends it, nobody else."""
    stage = new_stage(memory_bytes=256 * MIB)
    witness = stage.actor("witness")
    assert witness.ask(m.Set(1, "kept", b"value")) == m.Accepted(1, 1)
    keys = stage.admit("attacker")
    assert stage.announce("attacker")
    path = str(stage.directory / "paced") if how == "slowly" else stage.client.socket_path
    with contextlib.ExitStack() as stack:
        if how == "slowly":
            # A little at a time: the pause is the attack.
            stack.enter_context(relayed(stage, path, lambda _: time.sleep(0.001)))
        arguments = [f"ipc://{path}", *(key.decode() for key in (stage.client.server_public_key, *keys)), how]
        # A process of its own: libzmq itself may break on what it is made to do here.
        attacker = stack.enter_context(
            subprocess.Popen([sys.executable, "-I", "-c", BOMB, *arguments], stdin=subprocess.PIPE)
        )
        stack.callback(attacker.kill)
        peak = 0

        def ended() -> bool:
            nonlocal peak
            peak = max(peak, memory_bytes(stage.client.pid))
            return any("attacker" in repr(each) and "EndPeerNow" in repr(each) for each in stage.heard)

        stage.wait_for(ended, "who sends it is to be ended")
        assert "without end" in stage.wait_ended("attacker").reason
    assert 140 * MIB < peak < 256 * MIB
    assert witness.ask(m.Get(2, "kept")) == m.Value(2, b"value")
    still_works(stage, witness)


@pytest.mark.any_user
def test_who_reads_nothing_is_ended(stage: Stage) -> None:
    """A receiver that never reads is ended before it costs much memory; who sends to it, and others, go on."""
    witness, sender, slow = stage.actor("witness"), stage.actor("sender"), stage.actor("slow")
    slow.socket.rcvhwm = 1
    before = memory_bytes(stage.client.pid)
    keys = stage.admit("stuck")
    assert stage.announce("stuck")
    stuck = stage.context.socket(zmq.DEALER)
    stuck.linger, stuck.rcvhwm = 0, 1
    stuck.curve_serverkey = stage.client.server_public_key
    stuck.curve_publickey, stuck.curve_secretkey = keys
    stuck.connect(stage.client.endpoint)
    stuck.send(m.pack([m.Hello(m.PROTOCOL)]))
    for number in range(150):
        assert sender.ask(m.Send(number, "stuck", b"x" * 1_000_000)) == m.Accepted(number)
    assert "doesn't read" in stage.wait_ended("stuck").reason
    assert memory_bytes(stage.client.pid) - before < 160 * MIB
    stuck.close(0)
    still_works(stage, witness)


@pytest.mark.any_user
def test_several_that_read_nothing_do_not_fill_the_memory_together(new_stage: Callable[..., Stage]) -> None:
    """Each holds less than what ends one alone: while memory is high, those that read nothing are ended and named."""
    stage = new_stage(code=None, memory_bytes=320 * MIB)
    may = (("storage.read", "**"), ("storage.write", "**"))
    witness = stage.actor("witness", *may)
    names = [f"silent-{number}" for number in range(8)]
    stuck: list[zmq.Socket[bytes]] = []
    for name in names:
        keys = stage.admit(name, *may, storage_bytes=None)
        stage.wait_for(lambda name=name: stage.announce(name), "it is admitted")  # type: ignore[misc]
        dealer = stage.context.socket(zmq.DEALER)
        stuck.append(dealer)
        dealer.linger, dealer.rcvhwm = 0, 1
        dealer.curve_serverkey = stage.client.server_public_key
        dealer.curve_publickey, dealer.curve_secretkey = keys
        dealer.connect(stage.client.endpoint)
        dealer.send(m.pack([m.Hello(m.PROTOCOL), m.Set(1, "large", bytes(900_000))]))
        for _ in range(2):
            assert dealer.poll(GUARD_S * 1000)
            dealer.recv()
    rounds = 0
    while not any("doesn't read" in repr(each) for each in stage.heard):
        rounds += 1
        # Thirty are less than what one alone is ended for.
        for dealer in stuck if rounds <= 15 else ():
            dealer.send(m.pack([m.Get(number, "large") for number in range(2)]))
        assert witness.ask(m.Exists(1_000_000, "k")) == m.Accepted(1_000_000, 0)
        stage.listen(0.02)
    for _ in range(30):
        assert witness.ask(m.Exists(1_000_000, "k")) == m.Accepted(1_000_000, 0)
        stage.listen(0.02)
    still_works(stage, witness)
    assert memory_bytes(stage.client.pid) < 320 * MIB
    assert {str(record["component"]) for record in stage.events("violation")} <= set(names)
    for dealer in stuck:
        dealer.close(0)


def test_a_thousand_raw_connections(stage: Stage) -> None:
    """Sockets that say nothing: neighbours go on, handshakes too, and all of them are closed after a while."""
    witness = stage.actor("witness")
    before = memory_bytes(stage.client.pid)
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(1_000)]
        for each in silent:
            each.connect(stage.client.socket_path)
        assert silent[-1].recv(1)  # all are accepted
        newcomer = stage.actor("newcomer")
        assert newcomer.ask(m.Exists(1, "k")) == m.Accepted(1, 0)
        for each in silent[::100]:
            each.settimeout(GUARD_S)
            with contextlib.suppress(ConnectionResetError):
                while each.recv(4096):
                    pass
    still_works(stage, witness)
    assert memory_bytes(stage.client.pid) - before < 128 * MIB


@pytest.mark.any_user
def test_ten_thousand_malformed_handshakes(stage: Stage) -> None:
    """Greetings and mechanisms that are none, cut short, or half open: no crash, no growth, neighbours go on.

    They are on record with their number, once a second.
    """
    witness = stage.actor("witness")
    before, resident_before = memory_bytes(stage.client.pid), resident_bytes(stage.client.pid)
    begun_s = time.monotonic()
    chosen = random.Random(5)
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00"
    curve, null = b"CURVE".ljust(20, b"\0"), b"NULL".ljust(20, b"\0")
    with contextlib.ExitStack() as stack:
        for number in range(10_000):
            match number % 4:
                case 0:
                    said = b"\xff" + chosen.randbytes(200)
                case 1:
                    said = greeting + null + bytes(32) + b"\x04\x19\x05READY" + chosen.randbytes(40)
                case 2:
                    said = greeting + curve + bytes(32) + b"\x04\xc8\x05HELLO\x01\x00" + chosen.randbytes(192)
                case _:
                    said = greeting[: chosen.randrange(1, 12)]
            garbage = socket.socket(socket.AF_UNIX)
            if number % 100 == 3:
                stack.enter_context(garbage)  # half open
            with contextlib.suppress(OSError):
                garbage.connect(stage.client.socket_path)
                garbage.sendall(said)
            if number % 100 != 3:
                garbage.close()
        still_works(stage, witness)
    newcomer = stage.actor("newcomer")
    assert newcomer.ask(m.Exists(1, "k")) == m.Accepted(1, 0)
    still_works(stage, witness)
    assert memory_bytes(stage.client.pid) - before < 16 * MIB
    assert resident_bytes(stage.client.pid) - resident_before < 16 * MIB

    def recorded() -> int:
        return sum(int(str(record["count"])) for record in stage.events("handshake_failed"))

    # Not all: of a connection that is closed before it is accepted libzmq says nothing.
    stage.wait_for(lambda: recorded() > 5_000, "they are on record")
    assert len(stage.events("handshake_failed")) <= time.monotonic() - begun_s + 2


def greets(stage: Stage) -> bool:
    """Whether the broker has got round to a new connection."""
    with socket.socket(socket.AF_UNIX) as raw, contextlib.suppress(OSError):
        raw.settimeout(1)
        raw.connect(stage.client.socket_path)
        return bool(raw.recv(1))
    return False


def back_again(stage: Stage, keys: tuple[bytes, bytes]) -> Client:
    """Connect as the witness to the broker that stays: one before it may still meet the rest of the flood, and end."""
    found: list[Client] = []

    def answered() -> bool:
        # A broker that ends meanwhile takes the warden's channel along, and what it was told.
        if not (stage.client.is_ready and greets(stage)):
            return False
        with contextlib.suppress(EOFError, ConnectionError):
            if stage.announce("witness"):
                client = stage.connect(keys)
                client.send(m.Hello(m.PROTOCOL))
                if isinstance(client.receive(3), m.Welcome):
                    found.append(client)
                else:
                    client.close()
        return bool(found)

    stage.wait_for(answered, "the broker is back", 60)
    return found[0]


@pytest.mark.any_user
def test_more_raw_connections_than_it_has_descriptors(stage: Stage) -> None:
    """libzmq ends the process for want of one; another is there at once, with all that was acknowledged."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 12_000:
        pytest.skip("this process may not open so many sockets")
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    witness_keys = stage.admit("witness")
    witness = stage.hello("witness", witness_keys)
    assert witness.ask(m.Set(1, "kept", b"v")) == m.Accepted(1, 1)
    flood: list[socket.socket] = []

    def connect_all() -> None:
        for _ in range(10_000):
            flood.append(socket.socket(socket.AF_UNIX))
            with contextlib.suppress(OSError):
                flood[-1].connect(stage.client.socket_path)

    thread = threading.Thread(target=connect_all, daemon=True)
    resource.setrlimit(resource.RLIMIT_NOFILE, (12_000, hard))
    try:
        thread.start()
        assert stage.wait_restarted() < 10
        thread.join(GUARD_S)
    finally:
        for each in flood:
            each.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    witness = back_again(stage, witness_keys)
    assert witness.ask(m.Get(2, "kept")) == m.Value(2, b"v")
    assert "Too many open files" in str(stage.events("broker_lost")[0]["detail"])


def test_who_breaks_the_broker_is_named(stage: Stage) -> None:
    """A message on which the core breaks ends the broker, and its sender is to be ended; the next one is there soon."""
    witness_keys = stage.admit("witness")
    witness = stage.hello("witness", witness_keys)
    assert witness.ask(m.Set(1, "kept", b"v")) == m.Accepted(1, 1)
    attacker = stage.actor("attacker")
    attacker.send(m.Invoke(1, "break", "", b""))
    assert "broke on its message" in stage.wait_ended("attacker").reason
    assert stage.wait_restarted() < 10
    witness = stage.hello("witness", witness_keys)
    assert witness.ask(m.Get(2, "kept")) == m.Value(2, b"v")
    (lost,) = stage.events("broker_lost")
    assert "RuntimeError" in str(lost["detail"])
    stage.wait_for(lambda: stage.events("broker_restarted"), "the restart is on record")


@pytest.mark.any_user
def test_two_instances_of_a_component_share_one_quota(new_stage: Callable[..., Stage]) -> None:
    """The second one writes while what the first one has said still waits: together they keep no more than one may."""
    stage = new_stage(code=None)
    may, limit_bytes = (("storage.write", "**"), ("storage.read", "**")), 20_000
    first = stage.hello("one", stage.admit("one", *may, storage_bytes=limit_bytes))
    first.send(m.Set(1, "first", b""))
    assert first.receive() == m.Accepted(1, 1)
    first.send(*(m.Set(number, f"first:{number}", bytes(1_000)) for number in range(16)))
    second = stage.hello("one", stage.admit("one", *may, storage_bytes=limit_bytes, generation=2), generation=2)
    words: list[str] = []
    for turn in range(4):
        second.send(*(m.Set(number, f"second:{turn}{number}", bytes(1_000)) for number in range(16)))
        for _ in range(16):
            words.append(type(second.receive()).__name__)
    assert set(words) == {"Accepted", "Refused"}
    usage = second.ask(m.Usage(99))
    assert isinstance(usage, m.Numbers)
    assert limit_bytes - 1_100 < usage.numbers[0] <= limit_bytes
    first.send(m.Set(100, "first", b"late"))
    assert second.ask(m.Get(100, "first")) == m.Value(100, b""), "of the first one nothing is taken any more"


def test_kill_9_under_storage_writes_loses_nothing_acknowledged(stage: Stage) -> None:
    """Killed eight times while three components write: each value that was acknowledged is there, or a later one."""
    names = ("one", "two", "three")
    keys = {name: stage.admit(name, storage_bytes=None) for name in names}
    acknowledged: dict[str, int] = dict.fromkeys(names, -1)
    sent: dict[str, int] = dict.fromkeys(names, -1)
    chosen = random.Random(6)
    for _ in range(8):
        clients = {name: stage.hello(name, keys[name]) for name in names}
        for name, client in clients.items():
            value = client.ask(m.Get(0, "n"))
            assert isinstance(value, m.Value)
            found = -1 if value.value is None else int(value.value)
            assert acknowledged[name] <= found <= sent[name]
            acknowledged[name] = sent[name] = found
        kill_at_s = time.monotonic() + 0.1 + chosen.random() * 0.2
        pid = stage.client.pid
        assert pid is not None
        while time.monotonic() < kill_at_s:
            for name, client in clients.items():
                for _ in range(10):
                    sent[name] += 1
                    client.send(m.Set(sent[name], "n", b"%d" % sent[name]))
                while (answer := client.receive(0.001)) is not None:
                    assert isinstance(answer, m.Accepted)
                    acknowledged[name] = max(acknowledged[name], answer.seq)
        os.kill(pid, 9)
        stage.wait_restarted()
        stage.client._deaths_ns = ()  # the bound on restarts has a test of its own
        for client in clients.values():
            while (answer := client.receive(0)) is not None:
                assert isinstance(answer, m.Accepted)
                acknowledged[client_name(clients, client)] = max(acknowledged[client_name(clients, client)], answer.seq)
            client.close()
            stage.clients.remove(client)
    assert min(acknowledged.values()) > 10


def client_name(clients: dict[str, Client], client: Client) -> str:
    """Return under which name a client is."""
    return next(name for name, each in clients.items() if each is client)
