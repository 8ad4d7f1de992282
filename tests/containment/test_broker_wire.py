"""What code in a worker that was broken into can say to the broker over the worker's own connection, or others by it.

Each script runs as native code would, inside a sealed actor under `airssys up` (`inside_actor.py`), with the keys of
that actor; the broker, the warden and the supervisor are the product's. What ends its worker stands beside the harmless
form of the same, which the same worker has made before.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from broker_fleet import Fleet

from ipc.struct import Struct

pytestmark = pytest.mark.any_user

TALKS = '[capabilities.messaging]\nsend = ["sink"]\nreceive = ["sink"]\n'
ASKS = "result = type(at.ask(lambda seq: m.Send(seq, 'sink', b'n'))).__name__"
"""An ordinary message, as the worker's own code sends it."""
SAYS = """
at.say(m.Send(at.seq, 'sink', b'n'))
result = type(at.hear()[0]).__name__
"""
"""The same, by hand."""
CONNECTS = """
at.drop()
with contextlib.closing(at.dealer()) as mine:
    result = 'Accepted' if at.greets(mine) else 'no welcome'
"""
"""A connection of its own making, with its own key."""


class Ending(Struct, frozen=True):
    """A script that must end its worker for this reason, and its harmless twin, whose `result` is Accepted."""

    attack: str
    reason: str
    twin: str = SAYS
    reconnects: bool = False
    """Whether the twin loses the connection by which it could answer."""


PACK = "pack = m._encoder.encode\n"
ENDINGS = {
    "a sender written into a message": Ending(
        PACK + "at.raw(pack([['send', 1, 'sink', b'n', 'victim']]))",
        "not a batch",
        PACK + "at.raw(pack([['send', at.seq, 'sink', b'n']]))\nresult = type(at.hear()[0]).__name__",
    ),
    "a message that only the broker sends": Ending("at.say(m.Deliver(1, 'victim', b'forged'))", "not a batch"),
    "a message that there isn't": Ending(PACK + "at.raw(pack([['subscribe', 1, 'secret.**']]))", "not a batch"),
    "greeting twice": Ending("at.say(m.Hello(m.PROTOCOL))", "hello while it is ready", CONNECTS, True),
    "a message before the greeting": Ending(
        "at.drop()\nmine = at.dealer()\nmine.send(m.pack([m.Send(1, 'sink', b'n')]))\nat.rest(5)",
        "send while it is expected",
        CONNECTS,
        True,
    ),
    "a message behind the farewell": Ending(
        "at.say(m.Bye(), m.Send(1, 'sink', b'n'))\nat.rest(5)", "send while it is leaving"
    ),
    "another protocol": Ending(
        "at.drop()\nmine = at.dealer()\nmine.send(m.pack([m.Hello(99)]))\nat.rest(5)", "protocol 99", CONNECTS, True
    ),
    "an answer to what it was not given": Ending("at.say(m.Answer(12_345, b''))", "that it was not given"),
    "being done with what it was not given": Ending("at.say(m.Handled(12_345))", "that it was not given"),
    "a health that there isn't": Ending(
        "at.say(m.Health('invincible'))",
        "a health that there isn't",
        "at.say(m.Health('degraded'), m.Send(at.seq, 'sink', b'n'))\nresult = type(at.hear()[0]).__name__",
    ),
    "another health in each message, which the supervisor is told": Ending(
        "for turn in range(200):\n    at.say(*(m.Health(('healthy', 'degraded')[n % 2]) for n in range(m.MAX_BATCH)))",
        "changes its health",
        "at.say(m.Health('degraded'), m.Health('healthy'), m.Send(at.seq, 'sink', b'n'))\n"
        "result = type(at.hear()[0]).__name__",
    ),
    "two frames where there is one": Ending(
        "at.link._socket.send_multipart([m.pack([m.Send(1, 'sink', b'n')]), b''])", "several frames"
    ),
    "a frame that is a little too long": Ending("at.raw(bytes(m.MAX_FRAME_BYTES + 1))", "bytes, at most"),
    "more messages in a frame than there may be": Ending(
        "at.raw(m.pack([m.Health('healthy')] * 100_000))",
        "messages, at most",
        "at.say(*[m.Health('healthy')] * (m.MAX_BATCH - 1), m.Send(at.seq, 'sink', b'n'))\n"
        "result = type(at.hear()[0]).__name__",
    ),
    # What follows is small: while memory is full of this one, whoever sends much at a time is taken for such a one.
    "a message without end": Ending(
        "at.drop()\nmine = at.dealer()\nmine.sndhwm = 0\nassert at.greets(mine)\n"
        "part = zmq.Frame(bytes(60_000))\n"
        "for _ in range(20_000):\n    mine.send(part, zmq.SNDMORE, copy=False)\n"
        "mine.send(part, copy=False)\nat.rest(20)",
        "without end",
        CONNECTS,
        True,
    ),
    "a list that claims four thousand million elements": Ending(r"at.raw(b'\xdd\xff\xff\xff\xff')", "not a batch"),
    "a string that claims four thousand million bytes": Ending(
        r"at.raw(b'\x91\x94\xa4send\x01\xa4sink\xc6\xff\xff\xff\xffx')", "not a batch"
    ),
    "lists within lists, a hundred thousand deep": Ending(r"at.raw(b'\x91' * 100_000)", "not a batch"),
    "a map, with the same key twice": Ending(
        r"at.raw(b'\x91\x83\xa4type\xa4send\xa2to\xa4sink\xa2to\xa6victim')", "not a batch"
    ),
    "an extension type as the payload": Ending(r"at.raw(b'\x91\x94\xa4send\x01\xa4sink\xc7\x01\x05x')", "not a batch"),
    "a time as the payload": Ending(r"at.raw(b'\x91\x94\xa4send\x01\xa4sink\xd6\xff\x00\x00\x00\x00')", "not a batch"),
    "text that is no UTF-8": Ending(r"at.raw(b'\x91\x94\xa4send\x01\xa2\xff\xff\xc4\x00')", "not a batch"),
    "a pickle": Ending("at.raw(PICKLE)", "not a batch", ASKS),
    "a routing id of its own choice": Ending(
        "at.drop()\nmine = at.dealer(routing_id=b'stolen')\nmine.send(m.pack([m.Hello(m.PROTOCOL)]))\nat.rest(5)",
        "routing id",
        CONNECTS,
        True,
    ),
    "reading nothing of what it is told": Ending(
        "at.ask(lambda seq: m.Set(seq, 'large', bytes(900_000)))\n"
        "at.drop()\nmine = at.dealer(queued=1)\nassert at.greets(mine)\n"
        "for seq in range(400):\n    mine.send(m.pack([m.Get(seq, 'large')] * 2))\n    at.rest(0.01)",
        "doesn't read",
        CONNECTS,
        True,
    ),
}
"""Name → what is said; each in a worker of its own."""
STORES = '[capabilities.storage]\nread = ["large"]\nwrite = ["large"]\n'
OTHERS = ("witness", "sink", "victim", "thief", "silent")


def name_of(ending: str) -> str:
    """The component that makes this attack."""
    return f"attacker-{list(ENDINGS).index(ending)}"


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    """A fleet with one component for each attack that ends it, and some others."""
    components = dict.fromkeys(OTHERS, TALKS)
    components |= {name_of(ending): TALKS + STORES for ending in ENDINGS}
    components["sink"] = f"[capabilities.messaging]\nreceive = {list(components)}\n"
    fleet = Fleet.start(components)
    try:
        yield fleet
    finally:
        fleet.close()


@pytest.fixture
def broker_lives(fleet: Fleet) -> Iterator[None]:
    """Whatever a test does: the broker is the same process afterwards, and a neighbour's message arrives."""
    before = fleet.broker().pid
    yield
    assert not fleet.records(event="broker_lost")
    assert fleet.inside("witness", ASKS) == "Accepted"
    assert fleet.broker().pid == before


@pytest.mark.usefixtures("broker_lives")
@pytest.mark.parametrize("ending", ENDINGS)
def test_what_no_worker_says_ends_it(fleet: Fleet, tmp_path: Path, ending: str) -> None:
    """It is ended and named, once, on record and to the user; the twin was taken from the same worker before."""
    name, what = name_of(ending), ENDINGS[ending]
    pickled = f"cos\nsystem\n(S'touch {tmp_path}/unpickled'\ntR.".encode()
    twin = fleet.through if what.reconnects else fleet.inside
    assert twin(name, what.twin) == "Accepted"
    fleet.begin_inside(name, what.attack, PICKLE=pickled)
    assert what.reason in fleet.wait_ended(name)
    (record,) = fleet.wait_records(event="violation", component=name)
    assert (record["code"], record["count"]) == ("A1806", 1)
    assert what.reason in str(record["reason"])
    if ending == "a pickle":
        assert not list(tmp_path.iterdir())
        pickle.loads(pickled)
        assert list(tmp_path.iterdir()), "the control: where it is unpickled it does what it says"


@pytest.mark.usefixtures("broker_lives")
def test_another_key_opens_nothing(fleet: Fleet) -> None:
    """A stolen key, an invented one, none: no welcome over a connection that is announced for one's own."""
    stolen = fleet.inside("victim", "result = (at.job.public_key, at.job.secret_key)")
    script = """
    at.drop()
    found = []
    for keys in (STOLEN, zmq.curve_keypair(), None):
        with contextlib.closing(at.dealer(keys, curve=keys is not None)) as mine:
            found.append(at.greets(mine, 0.3))
    with contextlib.closing(at.dealer()) as mine:
        found.append(at.greets(mine))
    result = found
    """
    assert fleet.through("thief", script, STOLEN=stolen) == [False, False, False, True]
    assert fleet.inside("victim", ASKS) == "Accepted"
    assert not fleet.records(event="violation", component="victim")


@pytest.mark.usefixtures("broker_lives")
def test_a_routing_id_that_could_have_been_given_makes_nobody_else_of_it(fleet: Fleet) -> None:
    """Five bytes with a zero in front look like libzmq's own: whoever guesses one is still who its key says."""
    script = r"""
    at.drop()
    with contextlib.closing(at.dealer(routing_id=b'\0' + os.urandom(4))) as mine:
        assert at.greets(mine)
        mine.send(m.pack([m.Send(1, 'sink', b'n'), m.Send(2, 'victim', b'n')]))
        found = []
        while len(found) < 2:
            found += m.unpack_to_worker(mine.recv())
        result = [type(each).__name__ for each in found]
    """
    assert fleet.through("thief", script) == ["Accepted", "Refused"]
    senders = {record["component"] for record in fleet.records(event="denied", resource="victim")}
    assert senders == {"thief"}


@pytest.mark.usefixtures("broker_lives")
def test_one_connection_at_a_time(fleet: Fleet) -> None:
    """Beside a live one there is no second; a connection is had again and again when the one before is closed."""
    script = """
    with contextlib.closing(at.dealer()) as second:
        found = [at.greets(second, 0.3)]
    at.drop()
    for _ in range(50):
        with contextlib.closing(at.wire()) as one:
            found.append(len(at.read(one)) > 0)
    result = found
    """
    assert fleet.through("thief", script) == [False] + [True] * 50
    assert fleet.inside("thief", ASKS) == "Accepted"


@pytest.mark.usefixtures("broker_lives")
def test_handshakes_that_are_none_are_on_record_folded(fleet: Fleet) -> None:
    """Garbage, another mechanism, half of one and then nothing: one record a second; the honest one is let in."""
    script = r"""
    at.drop()
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00"
    curve, null = b"CURVE".ljust(20, b"\0"), b"NULL".ljust(20, b"\0")
    kinds = (
        lambda: b"\xff" + os.urandom(200),
        lambda: greeting + null + bytes(32) + b"\x04\x19\x05READY" + os.urandom(40),
        lambda: greeting + curve + bytes(32) + b"\x04\xc8\x05HELLO\x01\x00" + os.urandom(192),
        lambda: greeting[:7],
    )
    for number in range(200):
        with contextlib.closing(at.wire()) as one, contextlib.suppress(OSError):
            one.sendall(kinds[number % 4]())
    half = at.wire()
    half.sendall(greeting[:7])
    while at.read(half):
        pass
    half.close()
    result = 'done'
    """
    assert fleet.through("silent", script) == "done"
    assert fleet.inside("silent", ASKS) == "Accepted"
    fleet.wait_records(event="handshake_failed")

    def count() -> int:
        return sum(int(str(record["count"])) for record in fleet.records(event="handshake_failed"))

    fleet.wait(lambda: count() >= 201, f"all are counted: {count()}")
    records = fleet.records(event="handshake_failed")
    first, last = (datetime.fromisoformat(str(records[n]["time"])[:26]) for n in (0, -1))
    assert len(records) <= (last - first).total_seconds() + 2
    announced = [name for record in records for name in (record["detail"] or {}).get("announced", ())]
    assert any(name.startswith("silent-") for name in announced), "who was about to connect is named"


def test_the_log_is_whole_and_names_each_of_them_once(fleet: Fleet) -> None:
    """After all that: the log verifies, nobody was ended who had not attacked, and each attacker was ended once."""
    done = fleet.command("audit", "verify")
    assert done.returncode == 0, done.stdout + done.stderr
    ended = [record["component"] for record in fleet.records(event="violation")]
    assert len(ended) == len(set(ended))
    assert not set(ended) & set(OTHERS)
    for name in OTHERS:
        assert fleet.status(name).phase == "running"
