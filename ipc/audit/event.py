"""One audit event: what a producer says, and what the writer of the log makes of it.

A producer states an `AuditEvent`. The writer stamps sequence number, time, host, producer and stream position, and
turns it into one line of JSON. The order of keys is `RECORD_KEYS`, always; a field that has nothing to say is null.
"""

from __future__ import annotations

import functools
import hashlib
import json
import operator
import time
from collections.abc import Mapping
from json.encoder import encode_basestring_ascii
from typing import TYPE_CHECKING

from ipc.audit.text import bounded, escape, unescape
from ipc.errors import PeerProtocolError
from ipc.struct import Struct, asdict, replace

if TYPE_CHECKING:
    from ipc.security_context import SecurityContext

SCHEMA = 1

GENESIS_HASH = hashlib.sha256(b"airssys audit log, schema 1\n").hexdigest()
"""`prev` of the first record of a log."""

NAME_LIMIT_BYTES = 128
RESOURCE_LIMIT_BYTES = 4096  # PATH_MAX (limits.h): every name that the kernel takes is kept whole
RULE_LIMIT_BYTES = 2048
REASON_LIMIT_BYTES = 1024
DETAIL_LIMIT_BYTES = 6144
QUOTA_LIMIT_BYTES = 1024
DETAIL_TEXT_LIMIT_BYTES = 2048
DETAIL_DEPTH_MAX = 4
MAX_COUNT = 2**63 - 1

_LIMITS = {"resource": RESOURCE_LIMIT_BYTES, "reason": REASON_LIMIT_BYTES, "rule": RULE_LIMIT_BYTES}


class AuditEvent(Struct, frozen=True):
    """What happened, in the words of whoever saw it; text is exact, undecodable bytes are surrogate escapes (PEP 383).

    `decision` is "allowed", "denied", "performed" or "info"; `count` says how many alike happenings the record stands
    for; `detail` holds plain values at most `DETAIL_DEPTH_MAX` deep.
    """

    event: str
    component: str = ""
    instance: str = ""
    component_digest: str = ""
    trust: str = ""
    action: str = ""
    resource: str = ""
    decision: str = "info"
    code: str = ""
    reason: str = ""
    rule: str = ""
    layer: str = ""
    policy: str = ""
    approval: str = ""
    actor: str = ""
    quota: Mapping[str, object] | None = None
    correlation: str = ""
    count: int = 1
    detail: Mapping[str, object] | None = None

    def to_wire(self) -> dict[str, object]:
        """Return the fields that say something, ready for msgpack."""
        wire: dict[str, object] = {}
        for name in TEXT_FIELDS:
            value = getattr(self, name)
            if value:
                wire[name] = value
        if self.count != 1:
            wire["count"] = self.count
        if self.quota is not None:
            wire["quota"] = self.quota
        if self.detail is not None:
            wire["detail"] = self.detail
        return wire

    @staticmethod
    def from_wire(wire: object) -> AuditEvent:
        """Build an event from a decoded map; anything unknown or mistyped raises PeerProtocolError that names it."""
        if not isinstance(wire, dict):
            raise PeerProtocolError(f"audit event: expected a map, got {type(wire).__name__}")
        for name, value in wire.items():
            if name in _TEXT_FIELD_SET:
                if type(value) is not str:
                    raise PeerProtocolError(f"audit event: {name}: expected text, got {type(value).__name__}")
            elif name == "count":
                if type(value) is not int or not 0 < value <= MAX_COUNT:
                    raise PeerProtocolError("audit event: count: expected a positive 63-bit number")
            elif name in ("quota", "detail"):
                if not isinstance(value, dict):
                    raise PeerProtocolError(f"audit event: {name}: expected a map, got {type(value).__name__}")
            else:
                raise PeerProtocolError(f"audit event: unknown field {str(name)[:64]!r}")
        if not wire.get("event"):
            raise PeerProtocolError("audit event: field 'event' is missing")
        return AuditEvent(**wire)

    def within_bounds(self) -> AuditEvent:
        """Return this event with every field within its limit; what was cut says so, with a hash of the whole."""
        changed: dict[str, object] = {}
        if not self._has_short_texts():
            for name in TEXT_FIELDS:
                value: str = getattr(self, name)
                short = bounded(value, _LIMITS.get(name, NAME_LIMIT_BYTES))
                if short != value:
                    changed[name] = short
        for name, limit_bytes in (("quota", QUOTA_LIMIT_BYTES), ("detail", DETAIL_LIMIT_BYTES)):
            mapping: Mapping[str, object] | None = getattr(self, name)
            if mapping is not None and not _is_plain(mapping, limit_bytes):
                plain = _plain_map(mapping, limit_bytes)
                if plain != mapping or type(mapping) is not dict:
                    changed[name] = plain
        return replace(self, **changed) if changed else self

    def _has_short_texts(self) -> bool:
        """Whether each text is ASCII and within its limit, as nearly all are: seen without a look at each."""
        names, (resource, reason, rule) = _names_of(self), _long_texts_of(self)
        return (
            max(map(len, names)) <= NAME_LIMIT_BYTES
            and len(resource) <= RESOURCE_LIMIT_BYTES
            and len(reason) <= REASON_LIMIT_BYTES
            and len(rule) <= RULE_LIMIT_BYTES
            and "".join((*names, resource, reason, rule)).isascii()
        )


_EVENT_KEYS = AuditEvent.__struct_fields__
# The annotation as it is written: evaluating all of them would cost more than the import of this module.
TEXT_FIELDS = tuple(name for name in _EVENT_KEYS if AuditEvent.__annotations__[name] == "str")
_TEXT_FIELD_SET = frozenset(TEXT_FIELDS)
_names_of = operator.attrgetter(*(name for name in TEXT_FIELDS if name not in _LIMITS))
_long_texts_of = operator.attrgetter(*_LIMITS)
_texts_of = operator.attrgetter(*TEXT_FIELDS)
_STAMPED_BEFORE = ("schema", "seq", "time", "host", "producer", "stream", "stream_seq")
RECORD_KEYS = (*_STAMPED_BEFORE, *_EVENT_KEYS, "prev")
"""The keys of a line, in order. `producer`, `stream`, `stream_seq` come from the connection, never from the payload."""


def _is_plain(mapping: Mapping[str, object], limit_bytes: int) -> bool:
    """Whether `_plain_map` would change nothing, where that is seen at once: few short words, as in most records."""
    if type(mapping) is not dict:
        return False
    length = 0
    for key, value in mapping.items():
        if type(key) is not str or type(value) is not str or not (key.isascii() and value.isascii()):
            return False
        length += len(key) + len(value) + 1
    # A character is six at most as JSON (RFC 8259 §7); each word has two quotation marks and what separates it.
    return 6 * length + 2 <= min(limit_bytes, DETAIL_TEXT_LIMIT_BYTES)


def _plain_map(mapping: Mapping[str, object], limit_bytes: int) -> dict[str, object]:
    plain = {_short(str(key)): _plain(value, 1) for key, value in mapping.items()}
    text = _encode(plain)
    if len(text) <= limit_bytes:
        return plain
    return {"cut": bounded(text, limit_bytes // 2)}


def _short(text: str) -> str:
    return bounded(text, DETAIL_TEXT_LIMIT_BYTES)


def _plain(value: object, depth: int) -> object:
    """Return `value` as JSON knows it: text bounded, numbers of 64 bits, nothing deeper than DETAIL_DEPTH_MAX."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _short(value)
    if isinstance(value, int):
        return (
            int(value) if -(2**63) <= value < 2**64 else _short(str(value) if value.bit_length() < 4096 else hex(value))
        )
    if isinstance(value, float):
        # JSON has neither infinity nor NaN (RFC 8259 §6).
        return value if value - value == 0 else str(value)
    if depth < DETAIL_DEPTH_MAX:
        if isinstance(value, Mapping):
            return {_short(str(key)): _plain(item, depth + 1) for key, item in value.items()}
        if isinstance(value, (list, tuple, set, frozenset)):
            return [_plain(item, depth + 1) for item in value]
    if isinstance(value, bytes):
        return _short(value.decode("utf-8", "surrogateescape"))
    return _short(repr(value))


def about(context: SecurityContext, event: str, worker: str) -> AuditEvent:
    """Return an event about the instance that runs as `worker`, with what every record says of one."""
    return AuditEvent(
        event,
        component=context.component,
        instance=worker,
        component_digest=context.component_digest,
        trust=context.trust,
        policy=context.policy_digest,
        approval=context.approval,
    )


class ComponentStamp(Struct, frozen=True):
    """What the writer knows of a producer's component; it replaces what the producer says. "" leaves its word."""

    component: str = ""
    instance: str = ""
    component_digest: str = ""
    trust: str = ""
    policy: str = ""

    def within_bounds(self) -> ComponentStamp:
        """Return this stamp with every field within its limit, so that what it is put on stays within its own."""
        return ComponentStamp(**{name: bounded(value, NAME_LIMIT_BYTES) for name, value in asdict(self).items()})

    def apply(self, event: AuditEvent) -> AuditEvent:
        """Return `event` with the known fields put in."""
        known = {name: value for name, value in asdict(self).items() if value}
        return replace(event, **known) if known else event


class Origin(Struct, frozen=True):
    """Who said it, by their connection: producer, stream (hex, one per producer process), position in that stream."""

    producer: str
    stream: str | None = None
    stream_seq: int | None = None


SUPERVISOR = Origin("supervisor")


class AuditRecord(Struct, frozen=True):
    """One line of the log: the event with its stamps. `hash` is the SHA-256 of the line, its newline included (hex)."""

    seq: int
    time_ns: int
    host: str
    origin: Origin
    event: AuditEvent
    prev: str
    line: bytes
    hash: str

    def to_map(self) -> dict[str, object]:
        """Return the record by `RECORD_KEYS` with exact, unescaped text, "" where empty: for programs only."""
        origin = self.origin
        stamps = (
            SCHEMA,
            self.seq,
            format_time(self.time_ns),
            self.host,
            *(origin.producer, origin.stream, origin.stream_seq),
        )
        record: dict[str, object] = dict(zip(_STAMPED_BEFORE, stamps, strict=True))
        record.update(asdict(self.event))
        record["prev"] = self.prev
        return record


def format_time(time_ns: int) -> str:
    """Return UTC as RFC 3339 with nanoseconds; `time_ns` counts from the epoch."""
    seconds, rest_ns = divmod(time_ns, 1_000_000_000)
    return f"{_format_seconds(seconds)}.{rest_ns:09}Z"


@functools.lru_cache(maxsize=4)
def _format_seconds(seconds: int) -> str:
    t = time.gmtime(seconds)
    return f"{t[0]:04}-{t[1]:02}-{t[2]:02}T{t[3]:02}:{t[4]:02}:{t[5]:02}"


def _quoted(text: str) -> str:
    return encode_basestring_ascii(escape(text))


def _json(value: object) -> str:
    """Return the JSON of a plain value, its texts escaped first: what json.dumps would, in a third of the time."""
    if value is None:
        return "null"
    if isinstance(value, str):
        return _quoted(value)
    if type(value) is int:
        return str(value)
    if isinstance(value, Mapping):
        return "{" + ",".join([f"{_quoted(str(key))}:{_json(item)}" for key, item in value.items()]) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(_json, value)) + "]"
    return _encode(value)


def _unescaped(value: object) -> object:
    if isinstance(value, str):
        return unescape(value)
    if isinstance(value, dict):
        return {unescape(key): _unescaped(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_unescaped(item) for item in value]
    return value


_encode = json.JSONEncoder(ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode
_TEXT_KEYS = tuple((f'"{name}":"', f'"{name}":null') for name in TEXT_FIELDS)
_QUOTA_AT = _EVENT_KEYS.index("quota")


def stamp(event: AuditEvent, origin: Origin, *, seq: int, time_ns: int, host: str, prev: str) -> AuditRecord:
    """Make the record of `event`, which must be within bounds, at place `seq` behind the line whose hash is `prev`."""
    head = (
        f'{{"schema":{SCHEMA},"seq":{seq},"time":"{format_time(time_ns)}","host":{_quoted(host)},'
        f'"producer":{_quoted(origin.producer)},"stream":{_json(origin.stream)},"stream_seq":{_json(origin.stream_seq)},'
    )
    texts = _texts_of(event)
    all_texts = "".join(texts)
    if not all_texts.isascii() or not all_texts.isprintable() or '"' in all_texts or "\\" in all_texts:
        texts = tuple([_quoted(text)[1:-1] for text in texts])
    # Else, as in nearly all records, each text stands for itself; that one is empty is said by null.
    fields = [f'{begin}{text}"' if text else null for (begin, null), text in zip(_TEXT_KEYS, texts, strict=True)]
    fields[_QUOTA_AT:_QUOTA_AT] = [f'"quota":{_json(event.quota)}']
    fields += [f'"count":{_json(event.count)}', f'"detail":{_json(event.detail)}', f'"prev":"{prev}"}}\n']
    line = (head + ",".join(fields)).encode("ascii")
    return AuditRecord(seq, time_ns, host, origin, event, prev, line, hashlib.sha256(line).hexdigest())


def parse_line(line: bytes) -> dict[str, object]:
    """Return the values of one line as they are written (text still escaped); ValueError says what is wrong with it."""
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON: {error}") from None
    if not isinstance(values, dict) or tuple(values) != RECORD_KEYS:
        raise ValueError("not a record: its keys are not those of an audit record, in their order")
    seq, prev, count = values["seq"], values["prev"], values["count"]
    if values["schema"] != SCHEMA:
        raise ValueError(f"schema {values['schema']!r:.20}, this program reads {SCHEMA}")
    if type(seq) is not int or seq < 1 or type(count) is not int or type(values["event"]) is not str:
        raise ValueError("not a record: seq, count or event has the wrong type")
    if type(prev) is not str or len(prev) != 64:
        raise ValueError("not a record: prev is not a SHA-256")
    return values


def exact(values: Mapping[str, object]) -> dict[str, object]:
    """Return the values of a parsed line unescaped, null text as "": the same as `AuditRecord.to_map`."""
    result = {key: _unescaped(value) for key, value in values.items()}
    for name in TEXT_FIELDS:
        if result.get(name) is None:
            result[name] = ""
    return result
