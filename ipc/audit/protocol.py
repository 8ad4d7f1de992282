"""What producers and the writer tell each other: one msgpack array a frame, bounded before it is decoded.

Producer → writer: `[VERSION, stream, acked, tried, first_seq, [event, ...]]`, each event packed by itself; `stream`
names the producer process (8 random bytes), `acked` is the last position that it knows durable, `tried` the last that
it ever gave to a socket before this frame, `first_seq` the position of the first event here.

Writer → producer: `[ACK, stream, seq]`, all up to `seq` is durable; `[REFUSED, stream, seq, why]`, that one was refused
(the refusal is in the log in its place); `[WAIT, stream, milliseconds, why]`, send again after a while. `why` is bytes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import msgpack

from ipc.audit.event import DETAIL_DEPTH_MAX, MAX_COUNT, AuditEvent
from ipc.audit.text import to_bytes
from ipc.errors import PeerProtocolError
from ipc.struct import DecodeError, MsgpackDecoder, Struct, replace

VERSION = 1
MAX_EVENT_BYTES = 16 * 1024
MAX_BATCH_BYTES = 48 * 1024
MAX_BATCH_EVENTS = 256
MAX_FRAME_BYTES = 64 * 1024
STREAM_ID_BYTES = 8

ACK, REFUSED, WAIT = 1, 2, 3
ZAP_DOMAIN = b"airssys.audit"

# Their types bound the depth of what is decoded, before anything is built.
_batch = MsgpackDecoder(tuple[int, bytes, int, int, int, list[bytes]])
_reply = MsgpackDecoder(tuple[int, bytes, int, bytes])
_EVENT_DEPTH = 1 + DETAIL_DEPTH_MAX


class Batch(Struct, frozen=True):
    """Consecutive events of one stream, still packed."""

    stream: bytes
    acked: int
    tried: int
    first_seq: int
    events: Sequence[bytes]


class Reply(Struct, frozen=True):
    """What the writer answers: `kind` is ACK, REFUSED or WAIT; `number` a position, or milliseconds for WAIT."""

    kind: int
    stream: bytes
    number: int
    why: str = ""


def pack_event(event: AuditEvent) -> bytes:
    """Pack an event within its bounds; the result is never longer than MAX_EVENT_BYTES."""
    event = event.within_bounds()
    packed = _pack(event.to_wire())
    if len(packed) > MAX_EVENT_BYTES:
        # Only numbers can do that: nine bytes each in msgpack, fewer in the JSON that is bounded.
        packed = _pack(replace(event, detail={"cut": f"detail of {len(packed)} bytes"}).to_wire())
    return packed


def unpack_event(data: bytes) -> AuditEvent:
    """Unpack one event of a peer; PeerProtocolError for anything that isn't exactly that. Bounds its fields."""
    if len(data) > MAX_EVENT_BYTES:
        raise PeerProtocolError(f"audit event: {len(data)} bytes, at most {MAX_EVENT_BYTES} are read")
    return AuditEvent.from_wire(_unpack(data, _EVENT_DEPTH, "audit event")).within_bounds()


def pack_batch(batch: Batch) -> bytes:
    """Pack a batch."""
    return _pack([VERSION, batch.stream, batch.acked, batch.tried, batch.first_seq, list(batch.events)])


def unpack_batch(data: bytes) -> Batch:
    """Unpack what a producer sent; the events in it are still packed. PeerProtocolError for anything else."""
    if len(data) > MAX_FRAME_BYTES:
        raise PeerProtocolError(f"audit batch: {len(data)} bytes, at most {MAX_FRAME_BYTES} are read")
    try:
        version, stream, acked, tried, first_seq, events = _batch.decode(data)
    except DecodeError as error:
        raise PeerProtocolError(f"audit batch: not what was agreed upon ({type(error).__name__})") from None
    if version != VERSION:
        raise PeerProtocolError(f"audit batch: version {version}, this program speaks {VERSION}")
    if len(stream) != STREAM_ID_BYTES or not 0 <= acked < first_seq <= MAX_COUNT or not acked <= tried <= MAX_COUNT:
        raise PeerProtocolError("audit batch: stream or positions out of range")
    if len(events) > MAX_BATCH_EVENTS:
        raise PeerProtocolError(f"audit batch: {len(events)} events, at most {MAX_BATCH_EVENTS} are read")
    return Batch(stream, acked, tried, first_seq, events)


def pack_reply(reply: Reply) -> bytes:
    """Pack an answer of the writer."""
    return _pack([reply.kind, reply.stream, reply.number, to_bytes(reply.why)])


def unpack_reply(data: bytes) -> Reply:
    """Unpack an answer of the writer; PeerProtocolError for anything else."""
    if len(data) <= MAX_FRAME_BYTES:
        with contextlib.suppress(DecodeError):
            kind, stream, number, why = _reply.decode(data)
            return Reply(kind, stream, number, why.decode("utf-8", "surrogateescape"))
    raise PeerProtocolError("audit reply: expected [kind, stream, number, why]")


def _pack(value: object) -> bytes:
    packed: bytes = msgpack.packb(value, use_bin_type=True, unicode_errors="surrogateescape")
    return packed


def _unpack(data: bytes, max_depth: int, what: str) -> object:
    opening = data.translate(None, _OPENS_NOTHING)
    if len(opening) > max_depth or opening.strip(_OPENS_A_LEVEL):
        check_depth(data, max_depth, what)
    try:
        value: object = msgpack.unpackb(data, raw=False, strict_map_key=True, unicode_errors="surrogateescape")
    except (ValueError, msgpack.UnpackException) as error:
        raise PeerProtocolError(f"{what}: not msgpack ({type(error).__name__})") from None
    return value


def _sizes() -> tuple[list[int], list[int]]:
    """Return, by first byte (msgpack spec, "Formats"): how many bytes follow it, and the width of its length."""
    fixed, width = [0] * 256, [0] * 256
    for byte in range(0xA0, 0xC0):
        fixed[byte] = byte & 0x1F
    for byte, size in ((0xCA, 4), (0xCB, 8), (0xCC, 1), (0xCD, 2), (0xCE, 4), (0xCF, 8)):
        fixed[byte] = size
    for byte, size in ((0xD0, 1), (0xD1, 2), (0xD2, 4), (0xD3, 8)):
        fixed[byte] = size
    for byte, size in ((0xC4, 1), (0xC5, 2), (0xC6, 4), (0xD9, 1), (0xDA, 2), (0xDB, 4)):
        width[byte] = size
    return fixed, width


_FIXED, _WIDTH = _sizes()
_OPENS_A_LEVEL = bytes((*range(0x80, 0xA0), *range(0xDC, 0xE0)))
_OPENS_NOTHING = bytes(set(range(256)) - {*_OPENS_A_LEVEL, 0xC1, *range(0xC7, 0xCA), *range(0xD4, 0xD9)})
"""All bytes but those that begin an array, a map, or what isn't allowed. Data with no others, and no more of the first
two than may be open at a time, wherever they stand, is nowhere too deep: `check_depth` would take ten times longer."""


def check_depth(data: bytes, max_depth: int, what: str) -> None:
    """Raise PeerProtocolError unless `data` is one msgpack value nested at most `max_depth` deep; nothing is built.

    Extension types are refused: we send none, and a decoder may run code for them.
    """
    open_items: list[int] = []
    position, end, left = 0, len(data), 1
    while True:
        while left == 0:
            if not open_items:
                if position != end:
                    raise PeerProtocolError(f"{what}: bytes behind its end")
                return
            left = open_items.pop()
        left -= 1
        if position >= end:
            raise PeerProtocolError(f"{what}: cut short")
        byte = data[position]
        position += 1
        if byte < 0x80 or byte >= 0xE0 or byte in (0xC0, 0xC2, 0xC3):
            continue
        items = -1
        if byte < 0x90:
            items = (byte & 0x0F) * 2
        elif byte < 0xA0:
            items = byte & 0x0F
        elif byte >= 0xDC:
            size = 4 if byte & 1 else 2
            items = int.from_bytes(data[position : position + size], "big") * (2 if byte >= 0xDE else 1)
            position += size
        elif _FIXED[byte] or byte == 0xA0:
            position += _FIXED[byte]
        elif size := _WIDTH[byte]:
            position += size + int.from_bytes(data[position : position + size], "big")
        else:
            raise PeerProtocolError(f"{what}: a msgpack type that is not allowed (0x{byte:02x})")
        if items >= 0:
            if len(open_items) >= max_depth:
                raise PeerProtocolError(f"{what}: nested deeper than {max_depth}")
            if items > end - position:
                raise PeerProtocolError(f"{what}: cut short")
            open_items.append(left)
            left = items
