"""What a provider and its host tell each other, over one connected stream socket: frames of msgpack. Pure.

A frame is four bytes, the number of the bytes that follow (big-endian), and one msgpack map. The host speaks first:

    Setup →            once: the protocol's number, who it is, its settings, how large a payload may be
          ← Ready      once: it takes calls, or why it can't
    Call  →            one at a time
          ← Answer     its result, or an error

The end of the stream is the end of the provider. What comes from one is bounded before it is decoded; anything but the
answer to the call that it has ends it. docs/reference/providers.md is this page for people.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final

from ipc import codec
from ipc.errors import PeerProtocolError
from ipc.messages import Message
from ipc.struct import field

PROTOCOL: Final = 1
HEAD: Final = struct.Struct(">I")
AROUND_BYTES: Final = 16 * 1024
"""What a frame may hold beside a payload: names, metadata, a reason."""
SETTINGS_BYTES_MAX: Final = 256 * 1024
"""A frame with settings: no file that they come from is larger."""
REASON_MAX: Final = 1024
"""Characters of a reason; what is longer is cut."""
FAILED: Final = "failed"
NOT_PERMITTED: Final = "not-permitted"
INVALID: Final = "invalid"
UNAVAILABLE: Final = "unavailable"
TOO_LARGE: Final = "too-large"
ERRORS: Final = (FAILED, INVALID, NOT_PERMITTED, UNAVAILABLE, TOO_LARGE)
"""What a provider may say went wrong: the names that components know (wit/airssys-core.wit, variant error)."""

Scalar = str | int | bool


class Setup(Message, frozen=True):
    """Host → provider, first."""

    protocol: int
    provider: str
    settings: dict[str, object]
    max_payload_bytes: int


class Ready(Message, frozen=True):
    """Provider → host, then: it takes calls; `error` says why it can't, "" is well."""

    error: str = ""


class Request(Message, frozen=True, forbid_unknown_fields=False):
    """Host → provider: what a component asks. `metadata` is the grant's, which an operator or a person said yes to.

    `component` is the component's name, `instance` the run of it, both the host's word. The answer's payload has
    `max_answer_bytes` at most.
    """

    call: int
    component: str
    instance: str
    capability: str
    action: str
    payload: bytes
    max_answer_bytes: int
    metadata: dict[str, Scalar] = field(default_factory=dict)


class Answer(Message, frozen=True):
    """Provider → host: the end of the call of this number; a payload, or one of `ERRORS` with a reason."""

    call: int
    payload: bytes | None = None
    error: str = ""
    reason: str = ""


def pack_frame(message: Message) -> bytes:
    """Return a message as a frame."""
    body = codec.pack(message)
    return HEAD.pack(len(body)) + body


def read_answer(body: bytes) -> Answer:
    """Decode an answer, whose frame was bounded; PeerProtocolError for what is none."""
    answer = codec.unpack(Answer, body, len(body))
    if answer.error and answer.error not in ERRORS:
        raise PeerProtocolError(f"Answer.error: expected one of {', '.join(ERRORS)}")
    if (answer.payload is None) is not bool(answer.error):
        raise PeerProtocolError("Answer: expected a payload or an error, one of the two")
    return answer


def settings_problem(settings: Mapping[str, object]) -> str:
    """Return why settings can't be sent, "" where they can."""
    try:
        size_bytes = len(codec.pack_map(dict(settings)))
    except (TypeError, ValueError, OverflowError):
        return "texts, integers of 64 bits, numbers, booleans, arrays and tables"
    return "" if size_bytes <= SETTINGS_BYTES_MAX // 2 else f"at most {SETTINGS_BYTES_MAX // 2048} KiB of settings"


class FrameReader:
    """Gives the frames of a stream that comes in pieces, each of `max_bytes` at most without its head."""

    __slots__ = ("_buffer", "_max_bytes")

    def __init__(self, max_bytes: int) -> None:
        """Begin with nothing."""
        self._buffer = bytearray()
        self._max_bytes = max_bytes

    def feed(self, data: bytes) -> list[bytes]:
        """Return the bodies that are whole now; PeerProtocolError for one that is announced too large."""
        buffer = self._buffer
        buffer += data
        found: list[bytes] = []
        while len(buffer) >= HEAD.size:
            (size_bytes,) = HEAD.unpack_from(buffer)
            if size_bytes > self._max_bytes:
                raise PeerProtocolError(f"a frame of {size_bytes} bytes, at most {self._max_bytes} are read")
            if len(buffer) < HEAD.size + size_bytes:
                break
            found.append(bytes(buffer[HEAD.size : HEAD.size + size_bytes]))
            del buffer[: HEAD.size + size_bytes]
        return found

    @property
    def is_between_frames(self) -> bool:
        """Whether nothing of a frame has come that isn't whole."""
        return not self._buffer
