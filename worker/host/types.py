"""The types that the interfaces of wit/airssys-core.wit share, and how a refusal becomes an error value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from ipc.broker.messages import MAX_NAME_BYTES, MAX_PAYLOAD_BYTES, ErrorKind, FromWorker, Refused
from worker.abi import Signature
from worker.broker_link import Answered, BrokerLink, Unavailable
from worker.call_clock import CallClock
from worker.value_types import Bool, Bytes, Enum, Err, Integer, Option, Record, Result, String, Type, Variant

Functions = dict[str, tuple[Signature, Callable[..., Any]]]
"""An interface as it is defined: name → its type and what answers it."""

VERSION: Final = "1.0.0"
U32: Final = Integer("u32")
U64: Final = Integer("u64")
STRING: Final = String()
PAYLOAD: Final = Bytes()
QUOTA_STATE: Final = Record((("usage", U64), ("limit", U64), ("retry-after-ms", U64)))
ERROR: Final = Variant(
    (
        (ErrorKind.NOT_PERMITTED, STRING),
        (ErrorKind.UNKNOWN_TARGET, None),
        (ErrorKind.OVER_QUOTA, QUOTA_STATE),
        (ErrorKind.TOO_LARGE, U64),
        (ErrorKind.MAILBOX_FULL, None),
        (ErrorKind.TARGET_GONE, None),
        (ErrorKind.TIMED_OUT, None),
        (ErrorKind.UNAVAILABLE, STRING),
        (ErrorKind.INVALID, STRING),
        (ErrorKind.FAILED, STRING),
    )
)
MESSAGE: Final = Record((("sender", STRING), ("payload", PAYLOAD), ("topic", Option(STRING)), ("wants-answer", Bool())))
CALLBACK: Final = Record((("correlation", U64), ("outcome", Result(PAYLOAD, ERROR))))
METADATA: Final = Record((("name", STRING), ("version", STRING), ("description", STRING)))
HEALTH: Final = Enum(("healthy", "degraded", "unhealthy", "unknown"))
LOG_LEVEL: Final = Enum(("trace", "debug", "info", "warn", "error"))


def interface(name: str) -> str:
    """Return an interface's full name."""
    return f"airssys:core/{name}@{VERSION}"


def function(*parameters: Type, returns: Type | None = None) -> Signature:
    """Return a function's type."""
    return Signature(parameters, returns)


def fallible(*parameters: Type, returns: Type | None = None) -> Signature:
    """Return the type of a function that can be refused."""
    return Signature(parameters, Result(returns, ERROR))


def error_of(kind: str, reason: str = "", limit: int = 0, usage: int = 0, retry_after_ms: int = 0) -> Err:
    """Return the guest's error value; a kind that this world has no case for is `failed`."""
    match kind:
        case ErrorKind.UNKNOWN_TARGET | ErrorKind.MAILBOX_FULL | ErrorKind.TARGET_GONE | ErrorKind.TIMED_OUT:
            return Err((kind, None))
        case ErrorKind.OVER_QUOTA:
            return Err((kind, (usage, limit, retry_after_ms)))
        case ErrorKind.TOO_LARGE:
            return Err((kind, limit))
        case ErrorKind.NOT_PERMITTED | ErrorKind.UNAVAILABLE | ErrorKind.INVALID:
            return Err((kind, reason))
    return Err((ErrorKind.FAILED, reason))


def words_of(error: Any) -> str:
    """Say what a guest's error value says, in one line; never empty."""
    case, payload = error
    if case == ErrorKind.OVER_QUOTA:
        payload = "{} of {} used".format(*payload[:2])
    if payload in (None, ""):
        return str(case)
    return str(payload) if case == ErrorKind.FAILED else f"{case}: {payload}"


class Refusal(Exception):  # noqa: N818 # an outcome: it becomes the guest's error value
    """What was asked is not done."""

    def __init__(self, error: Err) -> None:
        """Keep the error value."""
        super().__init__(error)
        self.error = error


class Asking:
    """Asks the broker in the guest's name, within the time that its call has left."""

    def __init__(self, link: BrokerLink, clock: CallClock) -> None:
        """Bind the parts."""
        self._link = link
        self._clock = clock

    def __call__(self, build: Callable[[int], FromWorker]) -> Answered:
        """Return what the broker has answered; raises Refusal for everything else."""
        try:
            answer = self._link.ask(build, self._clock.host_deadline_ns)
        except Unavailable as unavailable:
            raise Refusal(error_of(ErrorKind.UNAVAILABLE, str(unavailable))) from None
        if isinstance(answer, Refused):
            reason = f"{answer.reason} [{answer.code}]" if answer.code else answer.reason
            raise Refusal(error_of(answer.kind, reason, answer.limit, answer.usage, answer.retry_after_ms))
        return answer


def refusable(answerer: Callable[..., Any]) -> Callable[..., Any]:
    """Make a host function of one that raises Refusal."""

    def answer(*values: Any) -> Any:
        try:
            return answerer(*values)
        except Refusal as refusal:
            return refusal.error

    return answer


def check_name(text: str, what: str, most_bytes: int = MAX_NAME_BYTES) -> None:
    """Refuse a text that the wire doesn't take."""
    if len(text.encode()) > most_bytes:
        raise Refusal(error_of(ErrorKind.INVALID, f"{what} has more than {most_bytes} bytes"))


def check_size(*payloads: bytes | None) -> None:
    """Refuse bytes that no limit can allow; those below go to the broker, which knows the limit and the quota."""
    if sum(len(payload or b"") for payload in payloads) > MAX_PAYLOAD_BYTES:
        raise Refusal(error_of(ErrorKind.TOO_LARGE, limit=MAX_PAYLOAD_BYTES))
