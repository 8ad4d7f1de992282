"""The audit event: bounds, text that can't break a line or a terminal, the order of keys, the wire."""

import json
import subprocess
import sys

import pytest

from ipc.audit.event import (
    GENESIS_HASH,
    RECORD_KEYS,
    SUPERVISOR,
    AuditEvent,
    ComponentStamp,
    exact,
    format_time,
    parse_line,
    stamp,
)
from ipc.audit.protocol import (
    MAX_EVENT_BYTES,
    WAIT,
    Batch,
    Reply,
    check_depth,
    pack_batch,
    pack_event,
    pack_reply,
    unpack_batch,
    unpack_event,
    unpack_reply,
)
from ipc.audit.text import bounded, escape, printable, unescape
from ipc.errors import PeerProtocolError

HOSTILE = [
    "\x1b[2J\x1b]0;owned\x07",
    "a\nb\r\u2028\u2029c",
    "\u202egnp.exe\u2066",
    "\udcff\udc80 not utf-8",
    "back\\slash \\x41 \\u{41} \\\\",
    "\x00\x7f\x9b31m",
    '"},{"seq":1}',
    "\ud800 alone \udfff",
    "\U000e0041\U0010ffff",
]


def record(event: AuditEvent) -> bytes:
    """Return the line of an event."""
    return stamp(event, SUPERVISOR, seq=1, time_ns=0, host="h", prev=GENESIS_HASH).line


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_one_ascii_line_and_harmless_once_parsed(text: str) -> None:
    """Whatever a component names, the line is ASCII, the parsed text printable, and the exact text comes back."""
    line = record(AuditEvent("e", resource=text, detail={text: [text]}))
    assert line.count(b"\n") == 1
    assert line.isascii()
    assert all(byte >= 0x20 for byte in line[:-1])
    values = parse_line(line)
    assert str(values["resource"]).isprintable()
    assert exact(values)["resource"] == text
    assert exact(values)["detail"] == {text: [text]}


def test_plain_text_is_not_escaped() -> None:
    """Ordinary names, accents included, stand in the record as they are: the escapes are for what needs them."""
    values = json.loads(record(AuditEvent("e", resource="/srv/Ünïcode/日本.txt")))
    assert values["resource"] == "/srv/Ünïcode/日本.txt"


def test_keys_have_one_order_and_absent_fields_are_null() -> None:
    """Every line has the same keys in the same order."""
    values = json.loads(record(AuditEvent("e")))
    assert tuple(values) == RECORD_KEYS
    assert values["resource"] is None
    assert values["count"] == 1


def test_times_are_utc_with_nanoseconds() -> None:
    """A known moment, to the nanosecond."""
    assert format_time(1_700_000_000_000_000_001) == "2023-11-14T22:13:20.000000001Z"


def test_a_path_of_path_max_is_kept_and_a_longer_one_is_marked() -> None:
    """4096 bytes are kept whole; more are cut with length and hash, which tell two such names apart."""
    fits = "/" + "a" * 4095
    assert AuditEvent("e", resource=fits).within_bounds().resource == fits
    one, two = (AuditEvent("e", resource="/" + "a" * 9000 + end).within_bounds().resource for end in "xy")
    assert len(one) <= 4096
    assert "9002 bytes, sha256" in one
    assert one != two


def test_a_cut_never_splits_a_character() -> None:
    """Cutting steps back to the beginning of a character."""
    cut = bounded("é" * 3000, 201)
    assert "\udcc3" not in cut
    assert len(cut.encode()) <= 201


def test_the_largest_event_fits_its_frame() -> None:
    """No event that this program makes can be refused for its size."""
    names = dict.fromkeys(("component", "instance", "trust", "actor", "reason", "rule", "resource"), "�" * 9999)
    event = AuditEvent("e" * 999, **names, detail={"a": [0.5] * 5000, "b": "x" * 9999})
    assert len(pack_event(event)) <= MAX_EVENT_BYTES
    numbers = AuditEvent("e", **names, detail={"a": [0.5] * 1500})
    assert len(pack_event(numbers)) <= MAX_EVENT_BYTES


def test_the_wire_keeps_every_field() -> None:
    """Packing and unpacking give the same event."""
    event = AuditEvent(
        "e", component="c", resource="\udcff", count=7, quota={"limit": 1}, detail={"a": [1, {"b": None}]}
    )
    assert unpack_event(pack_event(event)) == event


@pytest.mark.parametrize(
    "wire",
    [
        {"event": 1},
        {"event": "e", "seq": 5},
        {"event": "e", "producer": "supervisor"},
        {"event": "e", "prev": ""},
        {"event": ""},
        {"event": "e", "count": 0},
        {"event": "e", "count": True},
        {"event": "e", "detail": "text"},
        [],
        None,
    ],
)
def test_a_payload_can_set_no_stamp_and_no_wrong_type(wire: object) -> None:
    """What the writer stamps is refused in a payload, and so is anything mistyped."""
    with pytest.raises(PeerProtocolError):
        AuditEvent.from_wire(wire)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x91" * 40,
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xc7\x01\x01x",
        b"\xd4\x01x",
        b"\xc1",
        b"\x80\x80",
        b"\xdb\xff\xff\xff\xffx",
        b"\x92\xc0",
        b"\xa5abc",
        b"\xc4",
    ],
)
def test_structure_is_refused_before_anything_is_built(data: bytes) -> None:
    """Depth, lies about length, extension types, rests and stumps are refused by the scan alone."""
    with pytest.raises(PeerProtocolError):
        check_depth(data, 5, "test")
    with pytest.raises(PeerProtocolError):
        unpack_event(data)
    with pytest.raises(PeerProtocolError):
        unpack_event(b"\x82\xa5event\xa1e\xa6detail\x81\xa1k" + data)
    with pytest.raises(PeerProtocolError):
        unpack_batch(data)
    with pytest.raises(PeerProtocolError):
        unpack_batch(b"\x96\x01\xc4\x0812345678\x00\x00\x01" + data)


def test_the_scan_accepts_every_type_that_we_send() -> None:
    """The positive side: a value with all allowed types passes."""
    import msgpack

    value = [None, True, -1, -200, 70_000, 2**40, 1.5, "s" * 40, "t" * 300, b"b" * 70_000, {"k": [1] * 20}, {}]
    check_depth(msgpack.packb(value), 3, "test")
    with pytest.raises(PeerProtocolError, match="deeper than 1"):
        check_depth(msgpack.packb(value), 1, "test")


def test_batches_and_replies_are_checked() -> None:
    """A batch comes back as it was packed; positions that make no sense are refused."""
    batch = Batch(b"12345678", 1, 2, 3, [pack_event(AuditEvent("e"))])
    assert unpack_batch(pack_batch(batch)) == batch
    for wrong in (Batch(b"1", 0, 0, 1, []), Batch(b"12345678", 3, 3, 3, []), Batch(b"12345678", 3, 0, 4, [])):
        with pytest.raises(PeerProtocolError):
            unpack_batch(pack_batch(wrong))
    with pytest.raises(PeerProtocolError):
        unpack_reply(b"x" * 100_000)
    reply = Reply(WAIT, b"12345678", 250, "the audit log /tmp/\udcff can't be written")
    assert unpack_reply(pack_reply(reply)) == reply


def test_a_stamp_overrides_what_a_producer_says() -> None:
    """What the writer knows wins; what it doesn't know is left."""
    stamped = ComponentStamp(component="real").apply(AuditEvent("e", component="forged", instance="mine"))
    assert (stamped.component, stamped.instance) == ("real", "mine")


def test_a_stamp_within_bounds_leaves_an_event_within_its_own() -> None:
    """A stamp is bounded once, not with each event that it is put on."""
    stamp = ComponentStamp(component="c" * 1000, policy="\ud800").within_bounds()
    event = stamp.apply(AuditEvent("e"))
    assert event == event.within_bounds()
    assert event.component.startswith("ccc")
    assert "cut: 1000 bytes" in event.component


def test_escape_is_reversible_and_printable_leaves_backslashes() -> None:
    """`printable` never doubles a backslash; escape does, and unescape takes it back."""
    assert printable("a\\b\x1b") == "a\\b\\u{1b}"
    for text in HOSTILE:
        assert escape(text).isprintable()
        assert unescape(escape(text)) == text


def test_events_and_folding_come_without_zeromq() -> None:
    """A cold start that only makes events doesn't pay for the transport."""
    code = "import sys, ipc.audit.event, ipc.audit.folding; sys.exit('zmq' in sys.modules or 'asyncio' in sys.modules)"
    assert subprocess.run([sys.executable, "-I", "-c", code], check=False).returncode == 0
