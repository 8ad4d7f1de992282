"""What a worker that was broken into can do to other components, their values and the log, by messages that are whole.

As in test_broker_wire.py each script runs inside a sealed actor under `airssys up`. Nobody is ended here: what isn't
granted is refused, and what is granted is bounded.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from broker_fleet import Fleet

from ipc.broker.sessions import REFUSALS_PER_S

RATE = 300
QUOTA_BYTES = 20_000
ENTRY_BYTES = 64
COMPONENTS = {
    "attacker": """[capabilities.messaging]
send = ["sink", "stuck", "victim"]
receive = ["sink"]
publish = ["open.**"]
subscribe = ["open.**"]
[capabilities.storage]
read = ["own:**", "large"]
write = ["own:**", "large"]
[quota]
storage = "20kB"
message_rate = "100000/s"
""",
    "flooder": f'[capabilities.messaging]\nsend = ["sink"]\n[quota]\nmessage_rate = "{RATE}/s"\n',
    "neighbour": f'[capabilities.messaging]\nsend = ["sink"]\n[quota]\nmessage_rate = "{RATE}/s"\n',
    "publisher": f'[capabilities.messaging]\npublish = ["open.**"]\n[quota]\nmessage_rate = "{RATE}/s"\n',
    "victim": """[capabilities.messaging]
send = ["sink", "busy"]
receive = ["sink"]
publish = ["secret.**"]
subscribe = ["secret.**"]
[capabilities.storage]
read = ["own:**"]
write = ["own:**"]
""",
    "witness": '[capabilities.messaging]\nsend = ["sink", "stuck"]\n',
    "sink": '[capabilities.messaging]\nreceive = ["attacker", "flooder", "neighbour", "victim", "witness"]\n',
    "stuck": '[capabilities.messaging]\nreceive = ["attacker", "witness"]\n',
    "busy": '[capabilities.messaging]\nreceive = ["victim"]\n',
}
ASKS = "result = type(at.ask(lambda seq: m.Send(seq, 'sink', b'n'))).__name__"


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    """One fleet for all."""
    fleet = Fleet.start(COMPONENTS)
    try:
        yield fleet
    finally:
        fleet.close()


@pytest.fixture(autouse=True)
def nobody_is_ended(fleet: Fleet) -> Iterator[None]:
    """Whatever a test does: the broker is the same process, nobody was ended, and a neighbour's message arrives."""
    before = fleet.broker().pid
    yield
    assert not fleet.records(event="broker_lost")
    assert fleet.broker().pid == before
    assert not fleet.records(event="violation")
    assert fleet.inside("witness", ASKS) == "Accepted"


def test_names_that_were_not_granted_answer_alike(fleet: Fleet) -> None:
    """Who exists isn't told: a component, one that isn't there, no name at all. What was granted arrives."""
    script = """
    def of(name):
        found = [at.ask(lambda seq: m.Send(seq, name, b'n')), at.ask(lambda seq: m.GetMetadata(seq, name))]
        return [(word(each), getattr(each, 'reason', '').replace(name, 'NAME')) for each in found]
    names = at.ask(lambda seq: m.ListComponents(seq)).names
    result = [of('publisher') == of('nobody'), of('publisher')[0][0], [of('sink')[0][0]], names]
    """
    assert fleet.inside("attacker", script) == [True, "A1203", ["Accepted"], ("sink", "stuck")]


def test_a_receiver_that_did_not_agree_gets_nothing(fleet: Fleet) -> None:
    """The sender's grant alone is not enough; the message that both allow is counted in."""
    script = "result = [word(at.ask(lambda seq: m.Send(seq, to, b'n'))) for to in ('victim', 'sink')]"
    assert fleet.inside("attacker", script) == ["A1203", "Accepted"]
    (record, *_) = fleet.records(event="denied", component="attacker", resource="victim")
    assert "victim does not receive from attacker" in str(record["reason"])


def test_topics_that_were_not_granted_are_neither_heard_nor_spoken_on(fleet: Fleet) -> None:
    """A subscription is a grant: what is published on another topic reaches who has it, and nobody else."""
    publish = "result = [word(at.ask(lambda seq: m.Publish(seq, t, b'n'))) for t in TOPICS]"
    spoken = fleet.inside("attacker", publish, TOPICS=["secret.x", "open.x", "**", "open..x", "secret\0.x"])
    assert spoken == ["A1203", "Accepted", "A1203", "A1207", "A1207"]
    counts = "result = [at.ask(lambda seq: m.Publish(seq, t, b'n')).count for t in ('secret.a', 'secret.b.c')]"
    assert fleet.inside("victim", counts) == [1, 1], "the victim alone, which subscribes to it"
    heard = "result = [each for each in iter(at.link.take, None) if 'secret' in repr(each)]"
    assert fleet.inside("attacker", heard) == []


def test_keys_lead_nowhere_else(fleet: Fleet) -> None:
    """Each component has a namespace of its own: no spelling of a key leads to another's; control characters are none.

    What is refused or invalid is that for all operations; the granted spelling works.
    """
    set_own = "result = type(at.ask(lambda seq: m.Set(seq, 'own:secret', b'precious'))).__name__"
    assert fleet.inside("victim", set_own) == "Accepted"
    keys = ["../victim/own:secret", "victim:own:secret", "own:../victim:own:secret", "own:\0secret", "own:sec\nret"]
    keys += ["own:\x1b[31m", "own::secret", "", "own:" + "x" * 2000, "own:\u202esecret", "own:secret", "*", "own:**"]
    script = """
    def of(key):
        asked = [
            lambda seq: m.Get(seq, key),
            lambda seq: m.Set(seq, key, b'x'),
            lambda seq: m.Exists(seq, key),
            lambda seq: m.CompareAndSet(seq, key, None, b'y'),
            lambda seq: m.Delete(seq, key),
            lambda seq: m.ListKeys(seq, key),
        ]
        return [at.ask(each) for each in asked]
    found = {key: of(key) for key in KEYS}
    result = (
        {key: [word(each) for each in answers] for key, answers in found.items()},
        'precious' in repr(found),
        at.ask(lambda seq: m.ListKeys(seq, '')).names,
    )
    """
    found = fleet.inside("attacker", script, KEYS=keys)
    assert isinstance(found, tuple)
    words, told, left = found
    assert not told
    assert left == ()
    refused = {
        key for key, answers in words.items() if all(word[0] == "A" and word[1:].isdigit() for word in answers[:5])
    }
    assert {"../victim/own:secret", "victim:own:secret", "own:\0secret", "own:sec\nret", "own:\x1b[31m", ""} <= refused
    assert words["own:secret"] == ["Value", "Accepted", "Accepted", "Accepted", "Accepted", "Names"]
    get = "result = at.ask(lambda seq: m.Get(seq, 'own:secret')).value"
    assert fleet.inside("victim", get) == b"precious"


@pytest.mark.any_user
@pytest.mark.parametrize("way", ["many small keys", "overwriting", "compare-and-set", "at once"])
def test_the_storage_quota_is_exact(fleet: Fleet, way: str) -> None:
    """Each entry costs its key, its value and a fixed sum; what would not fit is refused whole, and the rest stays."""
    script = """
    def set(key, size):
        return word(at.ask(lambda seq: m.Set(seq, key, bytes(size))))
    def cas(expected, size):
        return word(at.ask(lambda seq: m.CompareAndSet(seq, 'own:a', expected, bytes(size))))
    def say_all(messages):
        words = []
        for start in range(0, len(messages), 16):
            part = messages[start : start + 16]
            at.say(*part)
            until = len(words) + len(part)
            while len(words) < until:
                words += [word(each) for each in at.hear()]
        return words
    if WAY == 'many small keys':
        words = say_all([m.Set(number, f'own:{number:04}', b'') for number in range(400)])
    elif WAY == 'overwriting':
        words = [set('own:a', size) for size in (18_000, 19_000, 10, 19_931, 19_932, 19_930)]
    elif WAY == 'compare-and-set':
        words = [set('own:a', 1), cas(bytes(1), 19_931), cas(bytes(19_931), 19_932), cas(bytes(19_931), 1)]
    else:
        words = say_all([m.Set(number, f'own:{number}', bytes(2_000)) for number in range(32)])
    keys = at.ask(lambda seq: m.ListKeys(seq, '')).names
    usage, limit, count = at.ask(lambda seq: m.Usage(seq)).numbers
    say_all([m.Delete(number, key) for number, key in enumerate(keys)])
    result = words, len(keys), usage, limit, count, at.ask(lambda seq: m.Usage(seq)).numbers[0]
    """
    found = fleet.inside("attacker", script, WAY=way)
    assert isinstance(found, tuple)
    words, keys, usage, limit, count, after = found
    assert (limit, after) == (QUOTA_BYTES, 0)
    assert usage <= QUOTA_BYTES
    assert set(words) == {"Accepted", "A1501"}, "some fit and some don't"
    match way:
        case "many small keys":
            assert keys == count == words.count("Accepted") == QUOTA_BYTES // (ENTRY_BYTES + len("own:0000"))
        case "overwriting":
            assert words == ["Accepted", "Accepted", "Accepted", "Accepted", "A1501", "Accepted"]
            assert usage == 19_930 + len("own:a") + ENTRY_BYTES
        case "compare-and-set":
            assert words == ["Accepted", "Accepted", "A1501", "Accepted"]
        case _:
            assert words.count("Accepted") == count == keys
            assert usage > QUOTA_BYTES - 2_100


def test_a_request_is_nobody_elses_to_end(fleet: Fleet) -> None:
    """Who knows its correlation id, or guesses, cancels nothing; the one who asked gets its one answer."""
    for name in ("busy", "stuck"):
        fleet.begin_inside(name, "at.rest(1.5)\nresult = 'rested'")
    asks = """
    correlation = at.ask(lambda seq: m.Request(seq, 'busy', b'n', 20_000)).correlation
    os.write(1, f'{correlation}\\n'.encode())
    while not isinstance(item := (at.link.take() or (0, None))[1], m.Callback):
        at.rest(0.005)
    result = (item.correlation == correlation, item.payload, item.kind)
    """
    fleet.begin_inside("victim", asks)
    correlation = fleet.wait_printed("victim")
    assert isinstance(correlation, int)
    guesses = """
    mine = at.ask(lambda seq: m.Request(seq, 'stuck', b'n', 60_000)).correlation
    near = [C, *(C + n for n in range(-50, 50)), *(mine + n for n in range(1, 50)), 0, -1, 2**53]
    result = (
        {at.ask(lambda seq: m.Cancel(seq, guess)).count for guess in near},
        at.ask(lambda seq: m.Cancel(seq, mine)).count,
    )
    """
    assert fleet.inside("attacker", guesses, C=correlation) == ({0}, 1), "one's own can be cancelled"
    assert [fleet.wait_printed(name) for name in ("busy", "stuck")] == ["rested"] * 2
    assert fleet.wait_printed("victim") == (True, b"", "")


@pytest.mark.any_user
def test_a_full_mailbox_is_its_owners_and_nobody_elses(fleet: Fleet) -> None:
    """Who fills one is refused in the end; others reach everybody else, and memory is bounded."""
    fleet.begin_inside("stuck", "at.rest(3)\nresult = 'rested'")
    script = """
    words = [word(at.ask(lambda seq: m.Send(seq, 'stuck', bytes(900_000)))) for _ in range(50)]
    result = words.count('Accepted'), words[-1]
    """
    before = fleet.broker().memory_info().rss
    found = fleet.inside("attacker", script)
    assert isinstance(found, tuple)
    accepted, last = found
    assert last == "A1802"
    assert 8 <= accepted <= 32 + 9
    assert fleet.broker().memory_info().rss - before < 64 << 20
    others = "result = [word(at.ask(lambda seq: m.Send(seq, to, b'n'))) for to in ('stuck', 'sink')]"
    words = fleet.inside("witness", others)
    assert isinstance(words, list)
    assert words[1] == "Accepted"
    assert fleet.wait_printed("stuck") == "rested"
    fleet.wait(lambda: fleet.inside("witness", others) == ["Accepted", "Accepted"], "there is room again")


FLOODS = {
    "ten times its message rate": (
        f"at.say(*(m.Send(number, 'sink', b'n') for number in range({RATE} // 5)))\nat.rest(0.02)"
    ),
    "what no rate counts, without a pause": (
        "at.say(*(m.Cancel(number, number) for number in range(256)), *(m.Usage(number) for number in range(8)))"
    ),
    "what is refused, ever anew": (
        "at.say(*(m.Send(number, os.urandom(8).hex(), b'n') for number in range(60)))\nat.rest(0.01)"
    ),
}


@pytest.mark.any_user
@pytest.mark.parametrize("flood", FLOODS)
def test_a_flood_costs_a_neighbour_less_than_a_twentieth(fleet: Fleet, flood: str) -> None:
    """The neighbour, which keeps its own rate, gets at least 95 % of it; the flooder no more than its own."""
    flooding = f"""
    accepted, until = 0, at.now() + 2.5
    while at.now() < until:
{"".join("        " + line + chr(10) for line in FLOODS[flood].splitlines())}
        while answers := at.hear(0):
            accepted += sum(isinstance(each, m.Accepted) and not each.count for each in answers)
    result = accepted
    """
    pacing = f"""
    sent = accepted = 0
    begun = at.now()
    while (passed := at.now() - begun) < 2 or accepted + refused < sent:
        due = min(int(passed * {RATE}), 2 * {RATE}) - sent
        if due > 0:
            at.say(*(m.Send(sent + number, 'sink', b'n') for number in range(due)))
            sent += due
        for answer in at.hear(0.01):
            accepted += isinstance(answer, m.Accepted)
            refused += isinstance(answer, m.Refused)
    result = sent, accepted, at.now() - begun
    """.replace("sent = accepted = 0", "sent = accepted = refused = 0")
    records = len(fleet.records())
    fleet.begin_inside("flooder", flooding)
    found = fleet.inside("neighbour", pacing)
    assert isinstance(found, tuple)
    sent, accepted, took_s = found
    assert sent > RATE
    assert accepted >= 0.95 * sent
    flooded = fleet.wait_printed("flooder")
    assert isinstance(flooded, int)
    if flood == "ten times its message rate":
        assert RATE <= flooded <= RATE * (took_s + 1.5) + RATE
    assert len(fleet.records()) - records < REFUSALS_PER_S * (took_s + 3), "nor does it fill the log"


def test_a_publication_is_paid_for_by_its_receivers(fleet: Fleet) -> None:
    """One message to many costs as many as there are: at full speed no more is carried than the rate allows."""
    script = """
    words = []
    at.say(*(m.Publish(number, 'open.x', b'n') for number in range(500)))
    while len(words) < 500:
        words += [word(each) for each in at.hear()]
    result = words.count('Accepted'), set(words)
    """
    found = fleet.inside("publisher", script)
    assert isinstance(found, tuple)
    accepted, words = found
    assert RATE // 2 - 1 <= accepted < RATE, "one, and one for its receiver"
    assert words <= {"Accepted", "A1502", "A3004"}, "A3004: while the first refusal is put on record"


@pytest.mark.any_user
def test_nothing_that_is_said_breaks_a_line_of_the_log(fleet: Fleet) -> None:
    """Line breaks, whole records, terminal sequences and the marks of the log in names: escaped, each one record."""
    forged = '"}\n{"schema":1,"seq":1,"event":"grant","component":"victim","decision":"allowed"}\n'
    names = [forged, "\r\n" * 20, "\x1b]0;title\x07\x1b[2J", "\u202egnp.exe", "x" * 255, "\ud7ff\uffff", "\0"]
    script = """
    for name in NAMES:
        at.ask(lambda seq: m.Send(seq, name, b'n'))
        at.ask(lambda seq: m.Publish(seq, name, b'n'))
        at.ask(lambda seq: m.Get(seq, name))
        at.ask(lambda seq: m.Invoke(seq, name, name, b''))
        at.ask(lambda seq: m.GetMetadata(seq, name))
    at.say(m.Health('degraded'), m.Health('healthy'))
    result = 'said'
    """
    assert fleet.inside("attacker", script, NAMES=names) == "said"
    fleet.wait(lambda: any("decision" in str(each["resource"]) for each in fleet.records(event="denied")), "a record")
    for path in (fleet.directory / "state/audit").glob("audit-*.jsonl"):
        lines = path.read_bytes().rstrip(b"\0").split(b"\n")
        assert all(json.loads(line)["schema"] == 1 for line in lines if line.strip(b"\0"))
        assert all(byte >= 0x20 for line in lines for byte in line.rstrip(b"\0"))
    assert not fleet.records(event="grant")
    assert all(character >= " " for record in fleet.records() for character in str(record["resource"]))
    assert not [record for record in fleet.records(event="denied") if record["component"] == "victim"]
    shown = fleet.command("audit", "tail", "-n", "200")
    assert shown.returncode == 0
    assert not any(mark in shown.stdout for mark in ("\x1b", "\u202e", "\x07"))
    assert fleet.command("audit", "verify").returncode == 0


@pytest.mark.any_user
def test_requests_and_times_without_end(fleet: Fleet) -> None:
    """A timeout that there can't be is invalid, and no more than a thousand requests are open at a time."""
    script = """
    times = [word(at.ask(lambda seq: m.Request(seq, 'sink', b'n', ms))) for ms in (-1, 2**32, 2**63 - 1, 1000)]
    fleeting = at.ask(lambda seq: m.Request(seq, 'stuck', b'n', 0))
    result = times, word(fleeting)
    """
    assert fleet.inside("attacker", script) == (["A1808", "A1808", "A1808", "Accepted"], "Accepted")
    fleet.begin_inside("stuck", "at.rest(2)\nresult = 'rested'")
    many = """
    words = []
    for turn in range(4):
        at.say(*(m.Request(number, 'stuck', b'n', 100_000) for number in range(400)))
        heard = 0
        while heard < 400:
            answers = [each for each in at.hear() if not isinstance(each, m.Callback)]
            heard += len(answers)
            words += answers
    open = [each.correlation for each in words if isinstance(each, m.Accepted)]
    codes = {each.code for each in words if isinstance(each, m.Refused)}
    for correlation in open:
        at.ask(lambda seq: m.Cancel(seq, correlation))
    result = len(open), codes
    """
    found = fleet.inside("attacker", many)
    assert isinstance(found, tuple)
    assert 900 < found[0] <= 1_040
    assert "A1809" in found[1]
    assert found[1] <= {"A1809", "A3004"}
    assert fleet.wait_printed("stuck") == "rested"
