"""What a worker and the broker tell each other, over ZeroMQ with CURVE: batches of small tagged arrays in msgpack.

Who speaks is never in a message: it follows from the connection's key. A frame is bounded before it is decoded; its
depth is bounded by the declared types. Which message may come when: `ipc.broker.sessions`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeVar

import msgspec

from ipc.errors import PeerProtocolError
from ipc.struct import Struct

PROTOCOL: Final = 1
MAX_FRAME_BYTES: Final = 4 * 1024 * 1024
"""One frame, whatever it holds; a larger one is never read into a decoder."""
MAX_BATCH: Final = 512
"""Messages in one frame."""
MAX_PAYLOAD_BYTES: Final = 5 * 512 * 1024
"""No limit that is set may be above this: of a list of bytes the engine moves 2,796,202 at once at most (128 MiB of its
own values), and ends a guest that hands it more."""
MAX_KEY_BYTES: Final = 1024
"""A storage key, in UTF-8."""
MAX_NAME_BYTES: Final = 256
"""A component's name, a topic, the type or action of a custom capability, in UTF-8."""
MAX_DESCRIPTION_BYTES: Final = 1024
"""Each text of what a component says that it is, in UTF-8."""
MAX_LISTED: Final = 1000
"""Keys or components in one answer."""


class Wired(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A message on the wire: an array with its tag in front."""


# -- worker → broker. `seq` counts what a worker asks of the broker; each gets one answer that names it. ---------------


class Hello(Wired, frozen=True, tag="hello"):
    """First on each connection. `since` is the broker's `epoch` that this worker has known, 0 for none."""

    protocol: int
    since: int = 0


class Send(Wired, frozen=True, tag="send"):
    """Fire and forget: Accepted means that it lies in the receiver's mailbox."""

    seq: int
    to: str
    payload: bytes


class Request(Wired, frozen=True, tag="request"):
    """Accepted tells the correlation id; the answer follows as a Callback, at the latest when `timeout_ms` is over."""

    seq: int
    to: str
    payload: bytes
    timeout_ms: int


class Cancel(Wired, frozen=True, tag="cancel"):
    """No Callback comes for this correlation id after the Accepted of this."""

    seq: int
    correlation: int


class Broadcast(Wired, frozen=True, tag="broadcast"):
    """To every live component that both sides' grants allow; Accepted tells how many."""

    seq: int
    payload: bytes


class Publish(Wired, frozen=True, tag="publish"):
    """To every live component whose `subscribe` grant covers the topic; Accepted tells how many."""

    seq: int
    topic: str
    payload: bytes


class Handled(Wired, frozen=True, tag="handled"):
    """A Deliver is done with. `failure` is what the component said went wrong, "" for nothing."""

    delivery: int
    failure: str = ""


class Answer(Wired, frozen=True, tag="answer"):
    """The result of a Deliver that was a request: the payload, or what the component said went wrong."""

    delivery: int
    payload: bytes | None
    failure: str = ""


class Get(Wired, frozen=True, tag="get"):
    """Value: bytes, or None where there is no such key."""

    seq: int
    key: str


class Set(Wired, frozen=True, tag="set"):
    """Accepted means durable."""

    seq: int
    key: str
    value: bytes


class Delete(Wired, frozen=True, tag="delete"):
    """Accepted (`count` 1 or 0: whether there was one) means durable."""

    seq: int
    key: str


class Exists(Wired, frozen=True, tag="exists"):
    """Accepted, `count` 1 or 0."""

    seq: int
    key: str


class ListKeys(Wired, frozen=True, tag="list"):
    """Names: the keys that start with `prefix`, come after `after` and may be read; at most `limit`."""

    seq: int
    prefix: str
    after: str = ""
    limit: int = MAX_LISTED


class Usage(Wired, frozen=True, tag="usage"):
    """Numbers: usage in bytes, limit in bytes (-1: none), keys."""

    seq: int


class CompareAndSet(Wired, frozen=True, tag="cas"):
    """Set (or delete, `value` None) if what is there is `expected` (None: nothing); Accepted, `count` 1 or 0."""

    seq: int
    key: str
    expected: bytes | None
    value: bytes | None


class ListComponents(Wired, frozen=True, tag="components"):
    """Names: the live components that this one may send to."""

    seq: int


class GetMetadata(Wired, frozen=True, tag="metadata"):
    """Names: name, version, description and health of a component that this one may send to."""

    seq: int
    name: str


class Invoke(Wired, frozen=True, tag="invoke"):
    """A custom capability; Value: the provider's bytes."""

    seq: int
    capability: str
    action: str
    payload: bytes


class Health(Wired, frozen=True, tag="health"):
    """What the component says of itself: healthy, degraded, unhealthy or unknown; also the answer to a Ping."""

    health: str


class Describe(Wired, frozen=True, tag="describe"):
    """What the component says that it is (its `metadata`), for those who may send to it."""

    name: str
    version: str
    description: str


class Bye(Wired, frozen=True, tag="bye"):
    """The worker ends in order: what lies in its mailbox goes back to the senders of requests as target-gone."""


FromWorker = (
    Hello
    | Send
    | Request
    | Cancel
    | Broadcast
    | Publish
    | Handled
    | Answer
    | Get
    | Set
    | Delete
    | Exists
    | ListKeys
    | Usage
    | CompareAndSet
    | ListComponents
    | GetMetadata
    | Invoke
    | Health
    | Describe
    | Bye
)
StorageCall = Get | Set | Delete | Exists | ListKeys | Usage | CompareAndSet

# -- broker → worker ---------------------------------------------------------------------------------------------------


class Welcome(Wired, frozen=True, tag="welcome"):
    """Answer to Hello. Another `epoch` than before: the broker was restarted, and what was in flight is lost."""

    epoch: int
    max_payload_bytes: int
    heartbeat_ms: int


class Accepted(Wired, frozen=True, tag="accepted"):
    """Done, as the request's own docstring says; `count` for those that count, `correlation` for a Request."""

    seq: int
    count: int = 0
    correlation: int = 0


class Value(Wired, frozen=True, tag="value"):
    """Done, with the bytes that were asked for; None where there are none."""

    seq: int
    value: bytes | None = None


class Names(Wired, frozen=True, tag="names"):
    """Done, with texts."""

    seq: int
    names: tuple[str, ...]


class Numbers(Wired, frozen=True, tag="numbers"):
    """Done, with integers."""

    seq: int
    numbers: tuple[int, ...]


class Refused(Wired, frozen=True, tag="refused"):
    """Not done. `kind` is one of `ErrorKind`; the quota's numbers where it is over-quota."""

    seq: int
    kind: str
    code: str
    reason: str
    retry_after_ms: int = 0
    usage: int = 0
    limit: int = 0


class Deliver(Wired, frozen=True, tag="deliver"):
    """A message for the component. `wants_answer`: a request, to be answered; `topic` where it was published."""

    delivery: int
    sender: str
    payload: bytes
    wants_answer: bool = False
    topic: str = ""


class Callback(Wired, frozen=True, tag="callback"):
    """The end of a Request: a payload, or an error of this `kind`."""

    correlation: int
    payload: bytes | None
    kind: str = ""
    reason: str = ""


class Ping(Wired, frozen=True, tag="ping"):
    """Answer with Health."""


ToWorker = Welcome | Accepted | Value | Names | Numbers | Refused | Deliver | Callback | Ping


class ErrorKind:
    """Why something was not done, as guests get it (wit/airssys-core.wit, variant error)."""

    NOT_PERMITTED: Final = "not-permitted"
    UNKNOWN_TARGET: Final = "unknown-target"
    OVER_QUOTA: Final = "over-quota"
    TOO_LARGE: Final = "too-large"
    MAILBOX_FULL: Final = "mailbox-full"
    TARGET_GONE: Final = "target-gone"
    TIMED_OUT: Final = "timed-out"
    UNAVAILABLE: Final = "unavailable"
    INVALID: Final = "invalid"
    FAILED: Final = "failed"


T = TypeVar("T")

_encoder: Final = msgspec.msgpack.Encoder()
_from_worker: Final = msgspec.msgpack.Decoder(list[FromWorker])
_to_worker: Final = msgspec.msgpack.Decoder(list[ToWorker])


def pack(messages: Sequence[FromWorker] | Sequence[ToWorker]) -> bytes:
    """Encode a batch as one frame."""
    return _encoder.encode(messages)


def unpack_from_worker(frame: bytes | memoryview) -> list[FromWorker]:
    """Decode a worker's frame; PeerProtocolError for what isn't exactly that. Lengths of texts are checked later."""
    return _unpack(_from_worker, frame)


def unpack_to_worker(frame: bytes | memoryview) -> list[ToWorker]:
    """Decode a broker's frame."""
    return _unpack(_to_worker, frame)


def _unpack(decoder: msgspec.msgpack.Decoder[list[T]], frame: bytes | memoryview) -> list[T]:
    if len(frame) > MAX_FRAME_BYTES:
        raise PeerProtocolError(f"frame of {len(frame)} bytes, at most {MAX_FRAME_BYTES} are read")
    try:
        messages = decoder.decode(frame)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        # Not its words: they can quote the peer's.
        raise PeerProtocolError(f"frame: not a batch of messages ({type(error).__name__})") from None
    if len(messages) > MAX_BATCH:
        raise PeerProtocolError(f"frame of {len(messages)} messages, at most {MAX_BATCH} are read")
    return messages
