"""Frames between a host and a provider: bounded before they are decoded, whole or not at all."""

from __future__ import annotations

import struct

import msgpack
import pytest

from ipc.errors import PeerProtocolError
from ipc.provider import Refusal, Request
from ipc.provider.protocol import (
    Answer,
    FrameReader,
    Ready,
    Setup,
    pack_frame,
    read_answer,
    settings_problem,
)
from ipc.provider.runner import answer

REQUEST = Request(3, "shop", "shop-1", "rates", "read", b"?", 10, {"region": "eu"})


def test_frames_come_whole_however_they_were_cut() -> None:
    """Byte by byte, or all at once, with the beginning of the next."""
    sent = pack_frame(Ready()) + pack_frame(Answer(1, b"x" * 300))
    reader = FrameReader(1_000)
    found = [frame for byte in sent for frame in reader.feed(bytes([byte]))]
    assert reader.is_between_frames
    assert read_answer(found[1]) == Answer(1, b"x" * 300)
    assert FrameReader(1_000).feed(sent) == found
    reader = FrameReader(1_000)
    assert len(reader.feed(sent[:-1])) == 1
    assert not reader.is_between_frames


def test_a_frame_is_refused_by_its_head_alone() -> None:
    """Nothing of it is kept, whatever it announces; so is a text where a frame is expected."""
    for data in (struct.pack(">I", 1_001), b"Hello, world\n"):
        with pytest.raises(PeerProtocolError, match="at most 1000 are read"):
            FrameReader(1_000).feed(data)
    assert FrameReader(1_000).feed(struct.pack(">I", 1_000)) == []


@pytest.mark.parametrize(
    "fields",
    [
        {"call": 1},
        {"call": 1, "payload": b"x", "error": "failed"},
        {"call": 1, "error": "exploded"},
        {"call": "1", "payload": b"x"},
        {"call": 1, "payload": "text"},
        {"call": 1, "payload": b"x", "more": 1},
        {"payload": b"x"},
        [1, b"x"],
        None,
        {"call": 1, "error": "failed", "reason": ["x"]},
    ],
)
def test_what_is_no_answer_is_refused(fields: object) -> None:
    """Missing, unknown and mistyped fields, both or neither of payload and error."""
    with pytest.raises(PeerProtocolError):
        read_answer(msgpack.packb(fields))


def test_what_is_no_msgpack_is_refused() -> None:
    """Also what promises more than there is, and what is nested without end."""
    for data in (b"", b"\xc1", b"\xdd\xff\xff\xff\xff", b"\x91" * 100_000, b"\x81\xa4call"):
        with pytest.raises(PeerProtocolError):
            read_answer(data)


def test_the_frames_are_those_of_the_page() -> None:
    """Maps by name, so that any language's msgpack reads and writes them."""
    assert msgpack.unpackb(pack_frame(REQUEST)[4:]) == {
        "call": 3,
        "component": "shop",
        "instance": "shop-1",
        "capability": "rates",
        "action": "read",
        "payload": b"?",
        "max_answer_bytes": 10,
        "metadata": {"region": "eu"},
    }
    assert msgpack.unpackb(pack_frame(Setup(1, "rates", {"a": [1]}, 5))[4:]) == {
        "protocol": 1,
        "provider": "rates",
        "settings": {"a": [1]},
        "max_payload_bytes": 5,
    }
    assert read_answer(msgpack.packb({"call": 3, "payload": b"1.2"})) == Answer(3, b"1.2")
    assert read_answer(msgpack.packb({"call": 3, "error": "invalid", "reason": "no"})).error == "invalid"


def test_settings_that_can_not_travel_are_told() -> None:
    """Dates and integers beyond 64 bits, and more of them than a frame holds."""
    assert settings_problem({"a": {"b": [1, 2.5, True, "x"]}}) == ""
    for settings in ({"a": 2**64}, {"a": object()}, {"a": "x" * 200_000}):
        assert settings_problem(settings) != ""


def refuse(_: Request) -> bytes:
    """Say no."""
    raise Refusal("not-permitted", "not today")


def fail(_: Request) -> bytes:
    """Break."""
    raise OSError("/srv/secret.db is broken")


@pytest.mark.parametrize(
    ("serve", "expected"),
    [
        (lambda request: request.payload, Answer(3, b"?")),
        (lambda _: bytearray(b"x"), Answer(3, b"x")),
        (refuse, Answer(3, None, "not-permitted", "not today")),
        (fail, Answer(3, None, "failed", "the provider failed (OSError)")),
        (lambda _: "text", Answer(3, None, "failed", "the provider failed (its answer isn't bytes)")),
        (lambda _: None, Answer(3, None, "failed", "the provider failed (its answer isn't bytes)")),
        (lambda _: bytes(11), Answer(3, None, "too-large", "the answer has 11 bytes")),
    ],
)
def test_what_a_function_does_becomes_an_answer(serve, expected: Answer) -> None:
    """Its bytes, its refusal, or that it failed: what an exception says is for the operator's eyes."""
    assert answer(serve, REQUEST) == expected


def test_a_refusal_has_a_kind_that_there_is() -> None:
    """An author hears of a mistyped one at once."""
    with pytest.raises(ValueError, match="an error is one of failed, invalid"):
        Refusal("not_permitted", "x")
