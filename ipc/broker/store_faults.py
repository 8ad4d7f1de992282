"""Why what is asked of the store can't be done, whatever it holds: what the core should have refused. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from ipc.broker.messages import (
    MAX_KEY_BYTES,
    MAX_PAYLOAD_BYTES,
    CompareAndSet,
    ListKeys,
    Set,
    StorageCall,
    Usage,
)
from ipc.policy.capability import normalise_name
from ipc.policy.patterns import Malformed


def key_fault(key: str) -> str:
    """Return why this is no storage key, "" if it is one: 1 to 1024 bytes, no control characters, no empty part."""
    normal = normalise_name(key, ":")
    if isinstance(normal, Malformed):
        return f"a storage key that is malformed: {normal.reason}"
    return "" if len(key.encode()) <= MAX_KEY_BYTES else f"a storage key of more than {MAX_KEY_BYTES} bytes"


def call_fault(call: StorageCall) -> str:
    """Return why a call can't be carried out whatever the store holds: what the core should have refused."""
    match call:
        case Usage():
            return ""
        case ListKeys(_, prefix, after):
            return _part_fault(prefix) or _part_fault(after)
        case Set(_, key, value):
            return key_fault(key) or _value_fault((value,))
        case CompareAndSet(_, key, expected, value):
            return key_fault(key) or _value_fault((expected, value))
        case _:
            return key_fault(call.key)


def _part_fault(text: str) -> str:
    """As `key_fault`, for the beginning of a key."""
    return key_fault(f"{text}x") if len(text.encode("utf-8", "surrogatepass")) < MAX_KEY_BYTES else key_fault(text)


def _value_fault(values: Iterable[bytes | None]) -> str:
    if any(value is not None and len(value) > MAX_PAYLOAD_BYTES for value in values):
        return f"a value has at most {MAX_PAYLOAD_BYTES} bytes"
    return ""
