"""Frames that are almost messages: seeded mutations of valid ones of every type."""

from __future__ import annotations

import random

import msgspec

from ipc.broker import messages as m

PACK = msgspec.msgpack.Encoder().encode
VALID: tuple[m.FromWorker, ...] = (
    m.Hello(1),
    m.Send(1, "b", b"payload"),
    m.Request(2, "b", b"payload", 1000),
    m.Cancel(3, 5),
    m.Broadcast(4, b"payload"),
    m.Publish(5, "t", b"payload"),
    m.Handled(5),
    m.Answer(5, b"payload"),
    m.Answer(6, None, "it failed"),
    m.Get(6, "k"),
    m.Set(7, "k", b"value"),
    m.Delete(8, "k"),
    m.Exists(9, "k"),
    m.ListKeys(10, "k", "", 10),
    m.Usage(11),
    m.CompareAndSet(12, "k", None, b"value"),
    m.ListComponents(13),
    m.GetMetadata(14, "b"),
    m.Invoke(15, "acme.thing", "use", b"payload"),
    m.Health("healthy"),
    m.Bye(),
)
_STRANGE = (
    None,
    True,
    -1,
    2**64 - 1,
    -(2**63),
    1.5,
    "",
    "\ud7ff",
    "x" * 300,
    b"",
    b"\xff" * 300,
    [],
    {},
    {"a": 1},
    [[[]]],
)
_HEADS = (
    b"\xdd\xff\xff\xff\xff",
    b"\xdf\xff\xff\xff\xff",
    b"\xc6\xff\xff\xff\xff",
    b"\xdb\xff\xff\xff\xff",
    b"\xc1",
    b"\x80",
)


def mutate(chosen: random.Random) -> bytes:
    """Return a frame that was valid before something happened to it; it may still be."""
    messages = chosen.choices(VALID, k=chosen.choice((1, 1, 2, 5)))
    kind = chosen.randrange(9)
    if kind == 0:  # a field of another type
        raw = [list(msgspec.to_builtins(each, builtin_types=(bytes,))) for each in messages]
        one = chosen.choice(raw)
        one[chosen.randrange(len(one))] = chosen.choice(_STRANGE)
        return bytes(PACK(raw))
    if kind == 1:  # a field more, or less
        raw = [list(msgspec.to_builtins(each, builtin_types=(bytes,))) for each in messages]
        one = chosen.choice(raw)
        if chosen.random() < 0.5:
            one.append(chosen.choice(_STRANGE))
        else:
            one.pop()
        return bytes(PACK(raw))
    frame = bytearray(m.pack(messages))
    at = chosen.randrange(len(frame))
    match kind:
        case 2:
            frame[at] ^= 1 << chosen.randrange(8)
        case 3:
            del frame[at:]
        case 4:
            frame[at:at] = chosen.randbytes(chosen.randrange(1, 9))
        case 5:
            frame += m.pack(chosen.choices(VALID))
        case 6:
            other = m.pack(chosen.choices(VALID))
            frame[at:] = other[chosen.randrange(len(other)) :]
        case 7:
            frame[at : at + 1] = chosen.choice(_HEADS)
        case _:
            frame[at:at] = b"\x91" * chosen.randrange(1, 2_000)
    return bytes(frame)
